"""The file system that an open file lies on, and how far what it says of a file can be relied on."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Ctime(StrEnum):
    """Whose change times count. ``own``: always. ``if_differs``: of files whose ctime is not their mtime (a NAS may report
    the one for the other). ``none``: never.
    """

    OWN = "own"
    IF_DIFFERS = "if_differs"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Rules:
    """Of a type of file system. ``stable_inodes``: the same file has the same inode at every mount. ``network``: attributes
    are as of an open, so that a file is opened before it is looked at.
    """

    ctime: Ctime = Ctime.IF_DIFFERS
    stable_inodes: bool = False
    network: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """Where an open file lies. ``type``: as the system calls it, "" where that is not known. ``volume``: the file system's
    UUID, or server and share; None where neither is known.
    """

    type: str = ""
    volume: str | None = None


_LOCAL = Rules(Ctime.OWN, stable_inodes=True)
_NFS = Rules(stable_inodes=True, network=True)
_NETWORK = Rules(network=True)
_NO_CTIME = Rules(Ctime.NONE)

RULES: Mapping[str, Rules] = {
    **dict.fromkeys(("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "apfs", "ntfs3"), _LOCAL),
    "tmpfs": Rules(Ctime.OWN),
    **dict.fromkeys(("nfs", "nfs3", "nfs4"), _NFS),
    **dict.fromkeys(("cifs", "smb3", "smbfs", "afpfs", "webdav", "9p", "virtiofs", "fuse"), _NETWORK),
    **dict.fromkeys(("vfat", "msdos", "exfat", "fuseblk"), _NO_CTIME),
}
"""By type; whatever is not listed has the defaults of ``Rules``."""

_MNT_ID = re.compile(rb"^mnt_id:\s*(\d+)\s*$", re.MULTILINE)
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
# A tag (virtiofs, 9p) or a program's name (fuse) tells one mount from another, but not one volume from another.
_SERVER_AND_SHARE = re.compile(r"//[^/]+/.|[^/]+:/")
_REMOTE_AND_PATH = re.compile(r"[^/:]+:")
_BY_NAME = ("fuse.sshfs", "fuse.rclone")


def rules_of(kind: str, rules: Mapping[str, Rules] = RULES) -> Rules:
    """The rules of a type of file system. FUSE's own types (``fuse.sshfs``) have those of ``fuse`` where not listed."""
    found = rules.get(kind)
    if found is None and kind.startswith("fuse."):
        found = rules.get("fuse")
    return found or Rules()


def mount_of(descriptor: int) -> Mount:
    """The mount of an open file. Raises nothing: what can't be told is left empty."""
    try:
        if sys.platform == "darwin":
            from ursa.disk import macos

            kind, source = macos.type_and_source(descriptor)
            return Mount(kind, source_volume(kind, source) or macos.volume_uuid(source))
        return linux_mount(descriptor)
    except (OSError, ValueError, AttributeError, ImportError):
        return Mount()


def mount_at(directory: Path, mount_of: Callable[[int], Mount] = mount_of) -> Mount:
    """The mount that a directory lies on; an empty one where it can't be opened. ``mount_of``: a parameter for tests."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Mount()
    try:
        return mount_of(descriptor)
    finally:
        os.close(descriptor)


def linux_mount(descriptor: int, proc: str = "/proc/self", by_uuid: str = "/dev/disk/by-uuid") -> Mount:
    """The mount of an open file, by its mount id. Raises ``OSError`` where ``/proc`` is not there."""
    found = _MNT_ID.search(Path(proc, "fdinfo", str(descriptor)).read_bytes())
    line = found and _mount_line(Path(proc, "mountinfo").read_bytes(), found[1])
    if not line:
        return Mount()
    kind, source = line
    return Mount(kind, source_volume(kind, source) or _uuid(kind, source, by_uuid))


def _mount_line(mountinfo: bytes, mount_id: bytes) -> tuple[str, str] | None:
    """Type and source of a mount. Before them stand any number of optional fields, which a "-" ends."""
    for line in mountinfo.splitlines():
        fields = line.split(b" ")
        if fields[0] != mount_id or b"-" not in fields[6:]:
            continue
        behind = fields[fields.index(b"-", 6) + 1 :]
        if len(behind) >= 2:
            return _unescaped(behind[0]), _unescaped(behind[1])
    return None


def _unescaped(field: bytes) -> str:
    # Bytes that are no UTF-8 stay apart from each other, and can be kept as text.
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field).decode("utf-8", "backslashreplace")


def source_volume(kind: str, source: str) -> str | None:
    """Server and share of a network file system; None where the source does not name both."""
    if not rules_of(kind).network:
        return None
    named = _SERVER_AND_SHARE.match(source) or (kind in _BY_NAME and _REMOTE_AND_PATH.match(source))
    return source if named else None


def _uuid(kind: str, source: str, by_uuid: str) -> str | None:
    """The UUID whose link leads to the source device."""
    if rules_of(kind).network or not source.startswith("/"):
        return None
    device = os.path.realpath(source)
    with contextlib.suppress(OSError):
        links = sorted(entry.name for entry in os.scandir(by_uuid))
        return next((name for name in links if os.path.realpath(f"{by_uuid}/{name}") == device), None)
    return None


class MountTable:
    """Tells when something was mounted or unmounted: then st_dev may be another disk's than before."""

    def __init__(self, path: str = "/proc/self/mountinfo", every_s: float = 0.02) -> None:
        self._poll = None
        self._every_s = every_s
        self._asked_at = float("-inf")
        with contextlib.suppress(OSError, AttributeError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, descriptor)
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLPRI)

    def changed(self) -> bool:
        """Whether the table of mounts has changed since the last call; False where the system does not tell.

        Asked for each file of a walk: within 20 ms no disk is unplugged, and another one mounted in its place.
        """
        now = time.monotonic()
        if self._poll is None or now - self._asked_at < self._every_s:
            return False
        self._asked_at = now
        return bool(self._poll.poll(0))
