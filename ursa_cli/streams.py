"""Stdin, stdout and stderr as a job without a terminal has them: closed, on a full disk, with a reader that left.

What can't be printed never ends a run: an ingest goes on, and says at its end that the output was lost.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import Any

_FILES = (0, 1, 2)
_guards: list[_Guard] = []


def steady() -> None:
    """Give this process three standard streams that can be used whatever it was started with."""
    closed = [number for number in _FILES if not _is_open(number)]
    for number in closed:
        # Else the next file that is opened takes the number, and what a library prints there lands in that file.
        # Read-only for stdin, write-only for the others, so that a child sees what it would see of a closed one.
        handle = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
        if handle != number:
            os.dup2(handle, number)
            os.close(handle)
        os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  (open to the end of the process)
    sys.stdout = _guarded(1, sys.stdout)
    sys.stderr = _guarded(2, sys.stderr)


def output_failure() -> str | None:
    """Why stdout could not be written, in words; None when all was, or its reader left (`head`), which is no failure."""
    if not _guards or _guards[0].failure is None:
        return None
    if _guards[0].failure.errno == errno.EPIPE:
        return None
    return _guards[0].failure.strerror or "unknown error"


def flush() -> None:
    """Write out what is buffered; a failure is kept for ``output_failure``."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        sys.stderr.flush()


def warn(text: str) -> None:
    """A line on stderr from code that may run in a signal handler: past the buffers, which are not reentrant."""
    with suppress(OSError):
        os.write(2, f"{text}\n".encode("ascii", "backslashreplace"))


class _Guard(io.FileIO):
    """A descriptor whose first failing write is remembered, and which then swallows everything."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        if self.failure is None:
            try:
                while (written := super().write(data)) is None:
                    select.select([], [self], [])  # somebody made the pipe non-blocking
                return written
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def _guarded(number: int, stream: Any) -> io.TextIOWrapper:
    guard = _Guard(number, "w", closefd=False)
    if number == 1:
        _guards[:] = [guard]
    return io.TextIOWrapper(
        io.BufferedWriter(guard),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",  # a name that this locale can't write ends no run
        # By the line in a pipe too: what a killed run has told is in the file that cron made of it.
        line_buffering=True,
    )


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
