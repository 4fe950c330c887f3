"""What identifies a file that was read before: size, times and inode, as far as its disk can be relied on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ursa.disk.mounts import RULES, Mount, Rules, mount_of

SETTLED_S = 2.5
"""Seconds of this machine's monotonic clock between a fingerprint's sighting and the first byte that is read: then no
write since can have left it as it was, whatever the granularity of the disk's times (2 s on vfat)."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A file as its disk describes it.

    ``ctime_ns``: None where this disk keeps none that counts. ``inode``: None where it is not stable. ``volume``: the file
    system's UUID, or server and share, where the rest may be the same on another one; else "".
    """

    size_bytes: int
    mtime_ns: int
    ctime_ns: int | None
    inode: int | None
    volume: str = ""

    def but_for_ctime(self, other: Fingerprint) -> bool:
        """Whether the two differ in their change time alone (``cp -al``, chown, an indexer)."""
        del other
        return False


class Disks:
    """Fingerprints of files, one look at ``/proc`` a file system. Thread-safe.

    ``mount_of`` and ``rules`` are parameters for tests.
    """

    def __init__(
        self, mount_of: Callable[[int], Mount] = mount_of, rules: Mapping[str, Rules] = RULES
    ) -> None:
        self._mount_of = mount_of
        self._rules = rules

    def of_open(self, descriptor: int, stat: os.stat_result | None = None) -> Fingerprint | None:
        """Of an open file; None where nothing of it may be remembered (a disk without change times and without UUID)."""
        del descriptor, stat
        return None

    def of_path(self, path: str, stat: os.stat_result, dir_fd: int | None = None) -> Fingerprint | None:
        """Of a regular file that ``stat`` is of. On a network file system it is opened first (without following a link),
        and what fstat says then counts. Raises ``OSError`` where it can't be opened.
        """
        del path, stat, dir_fd
        return None

    def rules_at(self, descriptor: int, device: int) -> Rules:
        """The rules of the file system of an open file, whose st_dev is ``device``."""
        del descriptor, device
        return Rules()
