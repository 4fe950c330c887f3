"""What `ursa schedule` fills in: where ursa is, absolute paths, and what the profile needs."""

from __future__ import annotations

import os
import re
import shutil
import sys
from datetime import time
from pathlib import Path
from typing import Any

import platformdirs

from ursa.config import load_config
from ursa.errors import UsageError
from ursa.schedule import Job, Kind, unit
from ursa_cli.session import Session

_PATH = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)
_SPAN = re.compile(r"\d+[smhd]?", re.ASCII)


def show(session: Session, kind: Kind, roots: list[str], **options: Any) -> None:
    """Print the unit. Reads the config file, for a job that can't run shall not be installed; writes nothing."""
    made = unit(kind, job(session, kind, roots, **options))
    if not session.out.json:
        _refuse_ascii(made.text)
    session.out.record("unit", kind=made.kind, text=made.text, files=dict(made.files))
    session.out.line(made.text.rstrip("\n"))
    for root in roots:
        # Of os.path, which says False of a name that is too long; Path raises.
        if not any(mark in root for mark in "*?[") and not os.path.isdir(_absolute(root)):  # noqa: PTH112
            session.out.note(f"note: {root} is no directory now; a batch whose root is missing fails")


def job(
    session: Session, kind: Kind, roots: list[str], *, at: str, wait: str, report: Path | None, notify: str | None
) -> Job:
    """The job of these options, with what this machine knows."""
    profile = load_config(session.config).profile(session.profile)
    if not _SPAN.fullmatch(wait):
        raise UsageError(f"--wait {wait}: no time", hint="Write for instance 30m, 2h or 90s.")
    if report is not None and report.suffix not in (".json", ".html"):
        raise UsageError(f"--report {report}: a report ends in .json or .html", hint="Write for instance ~/ursa.html.")
    op = profile.kind == "s3" and profile.credentials.provider == "1password"
    return Job(
        program=_program(),
        roots=tuple(str(_absolute(root)) for root in roots),
        profile=session.profile,
        at=_time(at),
        log_file=_absolute(session.log_file) if session.log_file else _state("batch.log"),
        report=_absolute(report) if report else _state("batch.json"),
        wait=wait,
        config=_absolute(session.config) if session.config else None,
        notify=notify,
        path=_path(op),
        secrets_file=platformdirs.user_config_path("ursa") / "op.env" if op else None,
        output_file=_absolute("~/Library/Logs/ursa-batch.out") if kind is Kind.LAUNCHD else None,
    )


def _program() -> tuple[str, ...]:
    """This very ursa: not resolved, for the link that a package manager made outlives what it points to."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return sys.executable, "-m", "ursa_cli"
    return (str(started.absolute()),)


def _absolute(path: Path | str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise UsageError(f"{path}: '~' has no meaning here, no home directory is known") from None


def _state(name: str) -> Path:
    path = platformdirs.user_state_path("ursa") / "logs" / name
    if not path.is_absolute():
        raise UsageError("no home directory is known", hint="Give --log-file and --report.")
    return path


def _time(text: str) -> time:
    found = _TIME.fullmatch(text)
    if found is None:
        raise UsageError(f"--at {text}: no time of day", hint="Write for instance 02:30 or 23:05.")
    return time(int(found[1]), int(found[2]))


def _path(op: bool) -> str:
    found = shutil.which("op") if op else None
    first = [str(Path(found).parent.absolute())] if found else []
    return os.pathsep.join(dict.fromkeys([*first, *_PATH]))


def _refuse_ascii(text: str) -> None:
    """A unit is printed as it is or not at all: what this locale can't show would be escaped, and be another path."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"the unit has characters that the encoding {encoding} of stdout can't show: {text[error.start]!a}",
            hint="Put LC_ALL=C.UTF-8 before the command, or use --json.",
        ) from None
