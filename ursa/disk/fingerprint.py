"""What identifies a file that was read before: size, times and inode, as far as its disk can be relied on."""

from __future__ import annotations

import os
import stat as modes
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ursa.disk.mounts import RULES, Ctime, Mount, MountTable, Rules, mount_of, rules_of

SETTLED_S = 2.5
"""Seconds of this machine's monotonic clock between a fingerprint's sighting and the first byte that is read: then no
write since can have left it as it was, whatever the granularity of the disk's times (2 s on vfat)."""

_SECOND_NS = 10**9
# Without O_NONBLOCK a FIFO that took the file's place would keep us waiting for a writer.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


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
        """Whether the two differ in their change time alone (``cp -al``, chown, an indexer).

        Where only one of the two needs its volume (a ctime of whole seconds), volumes are not compared.
        """
        if self.ctime_ns is None or other.ctime_ns is None or self.ctime_ns == other.ctime_ns:
            return False
        return (
            (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)
            and (self.inode is None or other.inode is None or self.inode == other.inode)
            and (not self.volume or not other.volume or self.volume == other.volume)
        )


def fingerprint(stat: os.stat_result, mount: Mount, rules: Rules) -> Fingerprint | None:
    """The fingerprint of a file that ``stat`` is of; None where nothing of it may be remembered."""
    counts = rules.ctime is Ctime.OWN or (rules.ctime is Ctime.IF_DIFFERS and stat.st_ctime_ns != stat.st_mtime_ns)
    volume = ""
    if not counts or stat.st_ctime_ns % _SECOND_NS == 0:
        if not mount.volume:
            return None
        volume = mount.volume
    return Fingerprint(
        size_bytes=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        ctime_ns=stat.st_ctime_ns if counts else None,
        inode=stat.st_ino if rules.stable_inodes else None,
        volume=volume,
    )


class Disks:
    """Fingerprints of files, one look at ``/proc`` a file system. Thread-safe.

    ``mount_of``, ``rules`` and ``mounts_changed`` are parameters for tests.
    """

    def __init__(
        self,
        mount_of: Callable[[int], Mount] = mount_of,
        rules: Mapping[str, Rules] = RULES,
        mounts_changed: Callable[[], bool] | None = None,
    ) -> None:
        self._mount_of = mount_of
        self._rules = rules
        self._mounts_changed = mounts_changed or MountTable().changed
        self._mounts: dict[int, Mount] = {}
        self._lock = threading.Lock()

    def of_open(self, descriptor: int, stat: os.stat_result | None = None) -> Fingerprint | None:
        """Of an open file; None where nothing of it may be remembered (a disk without change times and without UUID)."""
        stat = stat or os.fstat(descriptor)
        if not modes.S_ISREG(stat.st_mode):
            return None
        mount = self._mount(descriptor, stat.st_dev)
        return fingerprint(stat, mount, rules_of(mount.type, self._rules))

    def of_path(self, path: str, stat: os.stat_result, dir_fd: int | None = None) -> Fingerprint | None:
        """Of a regular file that ``stat`` is of. On a network file system it is opened first (without following a link),
        and what fstat says then counts. Raises ``OSError`` where it can't be opened.
        """
        mount = self._known(stat.st_dev)
        if mount is not None and not (rules := rules_of(mount.type, self._rules)).network:
            return fingerprint(stat, mount, rules) if modes.S_ISREG(stat.st_mode) else None
        descriptor = os.open(path, _FLAGS, dir_fd=dir_fd)
        try:
            return self.of_open(descriptor)
        finally:
            os.close(descriptor)

    def rules_at(self, descriptor: int, device: int) -> Rules:
        """The rules of the file system of an open file, whose st_dev is ``device``."""
        return rules_of(self._mount(descriptor, device).type, self._rules)

    def _known(self, device: int) -> Mount | None:
        with self._lock:
            self._forget_if_changed()
            return self._mounts.get(device)

    def _mount(self, descriptor: int, device: int) -> Mount:
        with self._lock:
            self._forget_if_changed()
            mount = self._mounts.get(device)
            if mount is None:
                mount = self._mount_of(descriptor)
                if mount.type:
                    self._mounts[device] = mount
            return mount

    def _forget_if_changed(self) -> None:
        # The next USB disk in this port has the last one's st_dev.
        if self._mounts_changed():
            self._mounts.clear()
