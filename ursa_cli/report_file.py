"""A report's file: refused early where it can't be written, and replaced in one step."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ursa.errors import UsageError

_RECORDING = re.compile(r"rec_\d{8}_\d{6}_")


def refuse_unwritable(path: Path) -> None:
    """Write beside ``path`` and take it away again.

    Raises:
        UsageError: it can't be written, or it would be inside a recording.
    """
    target = _target(path)
    inside = next((parent for parent in target.parents if _RECORDING.match(parent.name)), None)
    if inside is not None:
        raise UsageError(
            f"the report {path} would be inside the recording {inside.name}, and uploaded as one of its files",
            hint="Give --report a path outside of the recordings.",
        )
    try:
        if target.is_dir():
            raise IsADirectoryError(None, "it is a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = _create_beside(target)
        os.close(beside[1])
        beside[0].unlink()
    except OSError as error:
        raise UsageError(
            f"can't write the report {path}: {error.strerror or error}; nothing has been done yet",
            hint="Give --report a path in a directory that you may write to.",
        ) from None


def replace_with(path: Path, chunks: Iterable[bytes]) -> None:
    """Write ``chunks`` to ``path``, whole or not at all.

    Raises:
        OSError: it could not be written; what was there before is still there.
    """
    target = _target(path)
    beside, descriptor = _create_beside(target)
    try:
        with os.fdopen(descriptor, "wb", buffering=1 << 20) as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def _target(path: Path) -> Path:
    """Where it really is: a link to the latest report stays a link."""
    return Path(os.path.realpath(path))


def _create_beside(target: Path) -> tuple[Path, int]:
    # Not tempfile's 0600: a report is for others to read, as the umask allows.
    beside = target.parent / f".ursa-report-{secrets.token_hex(6)}.tmp"
    return beside, os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
