"""Calls into deltalake, which no thread may be inside of when Python ends: coming back it finds no interpreter, and crashes.

Threads that ask a server are daemons, so that one which hangs does not hold up the end; the same threads open tables.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Iterator

_LONGEST_S = 60.0
_changed = threading.Condition()
_inside = 0
_ending = False


@contextlib.contextmanager
def foreign() -> Iterator[None]:
    """Around each call into deltalake. Local work, which ends soon; once the process is ending, none begins any more."""
    global _inside
    with _changed:
        while _ending and threading.current_thread() is not threading.main_thread():
            _changed.wait()  # for good: a daemon's end is the process's
        _inside += 1
    try:
        yield
    finally:
        with _changed:
            _inside -= 1
            _changed.notify_all()


@atexit.register
def _wait() -> None:
    """Before Python ends: until those who are inside have come back."""
    global _ending
    deadline = time.monotonic() + _LONGEST_S
    with _changed:
        _ending = True
        while _inside and (left := deadline - time.monotonic()) > 0:
            _changed.wait(left)
