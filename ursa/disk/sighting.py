"""A file as a walk found it, and opening that very file again."""

from __future__ import annotations

import contextlib
import os
import stat as modes
from dataclasses import dataclass
from pathlib import Path

_DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Walking through a directory needs no right to list it, and on a network disk no round trip to open it.
_THROUGH = _DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)
# Without waiting, should a FIFO have taken the file's place.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where a file lies below the directory ``root``, as the disk spells it and without links, and what it was."""

    root: Path
    beneath: str
    device: int
    inode: int
    ctime_ns: int


def open_beneath(root: Path | str, beneath: str) -> int:
    """A descriptor of the regular file ``beneath`` a directory; no part of the way below ``root`` may be a link.

    Raises:
        OSError: it is not there, a link is in the way (ELOOP, ENOTDIR), or it is no regular file (EINVAL).
    """
    *above, name = beneath.split("/")
    with contextlib.ExitStack() as opened:
        at = os.open(root, os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY))
        opened.callback(os.close, at)
        for step in above:
            at = os.open(step, _THROUGH, dir_fd=at)
            opened.callback(os.close, at)
        descriptor = os.open(name, _FILE, dir_fd=at)
    if not modes.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(22, "not a regular file", beneath)
    return descriptor
