"""What a run logs: on stderr with --verbose, in a file with --log-file. A log never fails a run that has begun."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ursa import __version__
from ursa.errors import UrsaError, UsageError
from ursa_cli.render import plain
from ursa_cli.typed import as_typed

MAX_BYTES = 10 * 1024 * 1024
KEEP = 5  # older files: NAME.1 (the newest) to NAME.5
_ROUNDS = 10
_LOCK_TRIES = 20  # half a second: a stopped process must not hold up another one's run
_LOCK_AGAIN_S = 0.025
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
# Paths where no file can ever be: a mistyped option. What else fails at the start may be better tomorrow.
_MISTYPED = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


def start_stderr() -> None:
    """Log to stderr too."""
    _add(logging.StreamHandler(sys.stderr))


class RunLog:
    """The log file of one run, which tells where the run begins and how it ends.

    Args:
        path: the file; its directory is made.
        profile: the run's profile.

    Raises:
        UsageError: there can be no such file. A full disk or a missing permission is said on stderr instead, once.
    """

    def __init__(self, path: Path, *, profile: str) -> None:
        handler = LogFile(path)
        handler.begin()
        _add(handler)
        self._file = handler
        who = f"ursa {__version__}, profile {profile}, pid {os.getpid()} on {socket.gethostname() or 'unknown'}"
        # Not the command line: an option may hold a webhook's address, and that is a secret.
        self.say(logging.INFO, f"run begins: {who}")

    def end(self, error: BaseException | None, summary: Mapping[str, Any] | None = None) -> None:
        """Say how the run ended: exit status, what went wrong, the counts and the hint, of the error or the summary.

        The lines between are the library's, and what became of each recording.
        """
        code, summary = getattr(error, "exit_code", None), summary or {}
        if error is None or code == 0:
            self.say(logging.INFO, f"run ends: done, exit status 0{_summed(summary)}")
        elif isinstance(error, UrsaError):
            told = summary if summary.get("message") else {"message": error.message, "hint": error.hint}
            self.say(logging.ERROR, f"run ends: exit status {error.exit_code}: {type(error).__name__}{_summed(told)}")
        elif code is not None:
            self.say(logging.ERROR, f"run ends: exit status {code}{_summed(summary)}")
        else:
            where = "".join(traceback.format_exception(error))
            self.say(logging.ERROR, f"run ends: exit status 1, this is a bug in ursa: {where}")
        logging.getLogger("ursa").removeHandler(self._file)
        self._file.close()

    def say(self, level: int, text: str) -> None:
        """A line for the file alone: whoever reads stdout and stderr sees the same from the command."""
        self._file.handle(logging.LogRecord("ursa.run", level, __file__, 0, text, None, None))


class LogFile(logging.Handler):
    """Appends whole lines to a file that other runs may append to, and rotates it: 10 MiB, five older files.

    A line is one write under a lock, so lines of two processes never mix. What can't be written is dropped: the first
    time it is said on stderr, and it is tried again with every line, for a disk may be emptied and a directory come back.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, keep: int = KEEP) -> None:
        super().__init__()
        self.path = path.absolute()
        self._max_bytes = max_bytes
        self._keep = keep
        self._file: int | None = None
        self._told = False

    def begin(self) -> None:
        """Make the directory and open the file, so that a mistyped path is known before anything is done."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in _MISTYPED:
                self._tell(error)
                return
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(
                f"can't write the log file {self.path}: {why}; nothing was started and nothing is lost",
                hint=f"`ls -ld {self.path.parent}`, or give another --log-file.",
            ) from None

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record as one line; never raises."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:  # noqa: BLE001  (a record that can't be formatted is a bug, and no reason to end an ingest)
            line = f"a log message could not be formatted: {record.msg!r}\n".encode("utf-8", "backslashreplace")
        try:
            self._append(line)
        except (OSError, ValueError) as error:
            self._tell(error)

    def close(self) -> None:
        """Close the file."""
        self._close()
        super().close()

    def _append(self, line: bytes) -> None:
        for _ in range(_ROUNDS):
            file = self._current()
            with _locked(file) as locked:
                if locked and not self._is_current(file):
                    continue  # another run rotated it while we waited for the lock
                if locked and os.fstat(file).st_size >= self._max_bytes and self._rotate():
                    continue
                return _write(file, line, whole=locked)
        raise OSError(errno.EAGAIN, "other runs rotate it all the time")

    def _current(self) -> int:
        """The open file, opened again where the name stands for another one, or for none."""
        if self._file is None or not self._is_current(self._file):
            self._open()
        assert self._file is not None
        return self._file

    def _is_current(self, file: int) -> bool:
        try:
            there, ours = self.path.stat(), os.fstat(file)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _rotate(self) -> bool:
        """Shift the older files by one; whether it could be done."""
        try:
            for number in range(self._keep - 1, 0, -1):
                with suppress(FileNotFoundError):
                    self._older(number).replace(self._older(number + 1))
            self.path.replace(self._older(1))
        except OSError as error:
            self._tell(error)
            return False
        return True

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _open(self) -> None:
        self._close()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _tell(self, error: Exception) -> None:
        if self._told:
            return
        self._told = True
        why = error.strerror if isinstance(error, OSError) else str(error)
        print(
            f"ursa: can't write the log file {plain(self.path)}: {why}; the run goes on, its log is incomplete",
            file=sys.stderr,
            flush=True,
        )


class _OneLine(logging.Formatter):
    """A line a record: local time with its offset, and no name from a file as control characters."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802
        return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        return plain(as_typed(super().format(record)))


def _summed(summary: Mapping[str, Any]) -> str:
    """A summary in words: its message and hint, or else its counts."""
    counts = [f"{count} {name}" for name, count in summary.items() if type(count) is int and name != "exit_code"]
    message = summary.get("message") or ", ".join(counts)
    hint = f" | {summary['hint']}" if summary.get("hint") else ""
    return f": {message}{hint}" if message else ""


def _add(handler: logging.Handler) -> None:
    handler.setFormatter(_OneLine(_FORMAT))
    logger = logging.getLogger("ursa")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)


@contextmanager
def _locked(file: int) -> Iterator[bool]:
    """Keep other runs from writing; whether that could be had: not every file system knows locks."""
    locked = _lock(file)
    try:
        yield locked
    finally:
        if locked:
            fcntl.flock(file, fcntl.LOCK_UN)


def _lock(file: int) -> bool:
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_AGAIN_S)
        except OSError:
            return False
        else:
            return True
    return False


def _write(file: int, line: bytes, *, whole: bool) -> None:
    """Append the line; ``whole``: nobody else writes now, so that a piece of it can be taken back."""
    before = os.fstat(file).st_size
    written = os.write(file, line)
    if written == len(line):
        return
    if whole:
        os.ftruncate(file, before)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
