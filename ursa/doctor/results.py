"""What a probe found, and the exit code that a whole examination comes to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ursa.errors import UrsaError

_OWN_EXIT_CODES = (2, 4)  # configuration and credentials; whatever else fails is 1


class Status(StrEnum):
    """``warn``: works, but somebody should look. ``skip``: could not be asked, because of what ``detail`` says."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe's function returns. ``mend``: what to do or type; ``exit_code``: that of a failure."""

    status: Status
    detail: str
    mend: str | None = None
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One line of the examination.

    ``detail`` and ``mend`` may hold names from files and disks, never a secret. ``seconds``: how long the probe took.
    ``exit_code``: 0, or what this failure alone would end the command with (2 configuration, 4 credentials, else 1).
    """

    name: str
    status: Status
    detail: str
    mend: str | None
    seconds: float
    exit_code: int = 0


def ok(detail: str) -> Finding:
    """All is well."""
    return Finding(Status.OK, detail)


def warn(detail: str, mend: str) -> Finding:
    """It works, but not as it should."""
    return Finding(Status.WARN, detail, mend)


def fail(detail: str, mend: str, exit_code: int = 1) -> Finding:
    """It does not work."""
    return Finding(Status.FAIL, detail, mend, exit_code)


def skip(detail: str, mend: str | None = None) -> Finding:
    """It could not be asked."""
    return Finding(Status.SKIP, detail, mend)


def failed(error: UrsaError) -> Finding:
    """An error of ursa's, as a finding."""
    code = error.exit_code if error.exit_code in _OWN_EXIT_CODES else 1
    return Finding(Status.FAIL, error.message, error.hint, code)


def exit_code_of(results: Iterable[ProbeResult]) -> int:
    """0 where nothing failed, else the code of the first failure."""
    return next((result.exit_code for result in results if result.status is Status.FAIL), 0)
