"""What macOS tells of the file system of an open file: ``fstatfs``, and ``diskutil`` for the UUID."""

from __future__ import annotations

import ctypes
import plistlib
import re
import subprocess
from xml.parsers.expat import ExpatError

_DEVICE = re.compile(r"(?:.*@)?(/dev/disk\w+)")  # a snapshot's source is name@device
_TIMEOUT_S = 20


class Statfs(ctypes.Structure):
    """``struct statfs`` with 64-bit inodes, of ``sys/mount.h``."""

    _fields_ = (
        ("f_bsize", ctypes.c_uint32),
        ("f_iosize", ctypes.c_int32),
        ("f_blocks", ctypes.c_uint64),
        ("f_bfree", ctypes.c_uint64),
        ("f_bavail", ctypes.c_uint64),
        ("f_files", ctypes.c_uint64),
        ("f_ffree", ctypes.c_uint64),
        ("f_fsid", ctypes.c_int32 * 2),
        ("f_owner", ctypes.c_uint32),
        ("f_type", ctypes.c_uint32),
        ("f_flags", ctypes.c_uint32),
        ("f_fssubtype", ctypes.c_uint32),
        ("f_fstypename", ctypes.c_char * 16),
        ("f_mntonname", ctypes.c_char * 1024),
        ("f_mntfromname", ctypes.c_char * 1024),
        ("f_flags_ext", ctypes.c_uint32),
        ("f_reserved", ctypes.c_uint32 * 7),
    )


def type_and_source(descriptor: int) -> tuple[str, str]:
    """``f_fstypename`` and ``f_mntfromname``. Raises ``OSError`` or ``AttributeError`` where there is no such call."""
    library = ctypes.CDLL(None, use_errno=True)
    try:
        call = library["fstatfs$INODE64"]  # Intel; elsewhere the plain name has 64-bit inodes
    except AttributeError:
        call = library["fstatfs"]
    found = Statfs()
    if call(ctypes.c_int(descriptor), ctypes.byref(found)) != 0:
        raise OSError(ctypes.get_errno(), "fstatfs")
    return _text(found.f_fstypename), _text(found.f_mntfromname)


def volume_uuid(source: str) -> str | None:
    """The UUID of the volume on a device; None where ``diskutil`` can't tell."""
    device = _DEVICE.fullmatch(source)
    if not device:
        return None
    try:
        told = subprocess.run(
            ["/usr/sbin/diskutil", "info", "-plist", device[1]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return uuid_in(told)


def uuid_in(told: bytes) -> str | None:
    """The volume's UUID in what ``diskutil info -plist`` prints."""
    try:
        uuid = plistlib.loads(told).get("VolumeUUID")
    except (ValueError, AttributeError, LookupError, ExpatError, plistlib.InvalidFileException):
        return None
    return uuid if isinstance(uuid, str) and uuid else None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
