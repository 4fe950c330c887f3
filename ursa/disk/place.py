"""Where the files cache is: a directory that stays, and a file of this machine alone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import platformdirs

from ursa.disk.mounts import Mount, mount_at, mount_of

TEMP_DIRS = ("/tmp", "/var/tmp", "/private/tmp", "/private/var/tmp", "/private/var/folders", "/dev/shm")
_IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_MACHINE_ID = re.compile(r"[0-9a-f]{32}")
_PLATFORM_UUID = re.compile(r'"IOPlatformUUID"\s*=\s*"([0-9A-Fa-f-]+)"')


def user_directory() -> Path | None:
    """The user's cache directory; None where there is no home."""
    with contextlib.suppress(RuntimeError, OSError):
        directory = platformdirs.user_cache_path("ursa")
        return directory if directory.is_absolute() else None
    return None


def file_name(machine: str) -> str:
    """The cache's file of a machine: homes are shared, and another machine's inodes and clock are not ours."""
    return f"files-{hashlib.sha256(f'ursa files cache {machine}'.encode()).hexdigest()[:16]}.sqlite"


def machine_id(files: Iterable[str] = _MACHINE_IDS) -> str:
    """What tells this machine from others; its name where the system has no id."""
    if sys.platform == "darwin":
        found = _PLATFORM_UUID.search(output("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"))
        if found:
            return found[1]
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            text = Path(file).read_text(encoding="ascii").strip()
            if _MACHINE_ID.fullmatch(text):
                return text
    return socket.gethostname()


def is_temporary(
    directory: Path, temp_dirs: Iterable[str] | None = None, mount_of: Callable[[int], Mount] = mount_of
) -> bool:
    """Whether what is in the directory goes with the machine's next start, or is cleaned away by age."""
    real = Path(os.path.realpath(directory))
    above = TEMP_DIRS if temp_dirs is None else temp_dirs
    if any(real.is_relative_to(os.path.realpath(temp)) for temp in above):
        return True
    if temp_dirs is None and real.is_relative_to(os.path.realpath(tempfile.gettempdir())):
        return True
    return mount_at(real, mount_of).type in _IN_MEMORY


def output(*command: str) -> str:
    """What a program of the system prints; "" where it can't be run."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
