"""A NAS root or a recording directory: is it there, is it what it seems to be, and how fast does it read."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ursa.doctor.results import Finding, fail, ok, skip, warn
from ursa.manifest.names import shown
from ursa.recording import os_error_in_words

SAMPLE_BYTES = 8 << 20
_BLOCK_BYTES = 1 << 20
_LOOKED_AT = 2_000  # directory entries on the way to a file worth reading
_PLACES_OF_MOUNTS = ("/Volumes", "/mnt", "/media", "/run/media")
_MOUNT_LINE = re.compile(r"(?P<device>.+?) on (?P<point>.+?) (?:type (?P<linux>\S+)|\((?P<mac>[^,)]+))")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system: where it is mounted, from what, and its type; "?" where nobody says."""

    point: str
    device: str = "?"
    kind: str = "?"


def mount(path: Path) -> Finding:
    """Whether the directory is there, mounted, readable and not empty."""
    shown_path = shown(str(path), 400)
    try:
        names = sorted(os.listdir(path))  # noqa: PTH208  (names, as the disk has them)
    except FileNotFoundError:
        return fail(f"{shown_path}: there is no such directory", "Check the path, and mount the NAS or the disk.")
    except NotADirectoryError:
        return fail(f"{shown_path}: not a directory", "Point ursa at a directory of recordings, or at one of them.")
    except OSError as error:
        return fail(f"{shown_path}: {os_error_in_words(error)}", f"`ls -ld {shown_path}`; mount the share again.")
    at = mount_of(path)
    if not names:
        mend = "Mount it (`mount`, `df` tell what is), and run the same command again."
        return fail(f"{shown_path} is empty: an unmounted NAS looks just like that ({_told(at)})", mend)
    return judge_mount(path, at, _case(path, names))


def judge_mount(path: Path, at: Mount, case: str) -> Finding:
    """``at``: the file system that the path is on. ``case``: in words, whether it tells upper from lower case."""
    told = f"{_told(at)}; {case}"
    absolute = f"{os.path.realpath(path)}/"
    if at.point == "/" and any(absolute.startswith(f"{place}/") for place in _PLACES_OF_MOUNTS):
        return warn(
            f"{told}: it is on the system's own disk; not mounted?", f"`df {shown(str(path), 400)}`, then mount it."
        )
    return ok(told)


def mount_of(path: Path) -> Mount:
    """The file system that a path is on."""
    place = Path(os.path.realpath(path))
    while not os.path.ismount(place) and place != place.parent:
        place = place.parent
    known = parse_mounts(_mounts())
    return known.get(str(place), Mount(str(place)))


def parse_mounts(text: str) -> dict[str, Mount]:
    """What /proc/mounts or ``mount`` says, by mount point; of several on one point the last, which covers the others."""
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        match = _MOUNT_LINE.match(line)
        if match:
            one = Mount(match["point"], match["device"], match["linux"] or match["mac"])
        elif len(parts := line.split(" ")) >= 3:
            one = Mount(_unescaped(parts[1]), _unescaped(parts[0]), parts[2])
        else:
            continue
        found[one.point] = one
    return found


def read_speed(path: Path) -> Finding:
    """Read the first 8 MiB of one file."""
    sample = _sample(path)
    if sample is None:
        return skip("no file to read was found near the top")
    started = time.monotonic()
    try:
        with sample.open("rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                # What is in memory says nothing about the disk.
                with contextlib.suppress(OSError):
                    os.posix_fadvise(file.fileno(), 0, SAMPLE_BYTES, os.POSIX_FADV_DONTNEED)
            count = 0
            while count < SAMPLE_BYTES and (block := file.read(_BLOCK_BYTES)):
                count += len(block)
    except OSError as error:
        return fail(f"{shown(str(sample), 400)}: {os_error_in_words(error)}", "Nothing was changed. Mount it again.")
    seconds = max(time.monotonic() - started, 1e-6)
    mib = count / (1 << 20)
    return ok(f"{mib / seconds:,.0f} MiB/s over the first {mib:.1f} MiB of {shown(str(sample), 400)}")


def _sample(path: Path) -> Path | None:
    """A file of at least 8 MiB, or the largest one seen among the first entries."""
    best: tuple[int, Path] | None = None
    looked = 0
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in names:
            with contextlib.suppress(OSError):
                file = Path(folder, name)
                if file.is_file() and (best is None or file.stat().st_size > best[0]):
                    best = (file.stat().st_size, file)
        looked += len(names) + len(folders)
        if looked > _LOOKED_AT or (best and best[0] >= SAMPLE_BYTES):
            break
    return best[1] if best else None


def _case(path: Path, names: list[str]) -> str:
    """Asked without writing: whether an entry also answers to its name in the other case."""
    taken = set(names)
    for name in names:
        other = name.swapcase()
        if other == name or other in taken or not name.isascii():
            continue
        with contextlib.suppress(OSError):
            os.lstat(path / other)
            return "upper and lower case are the same there"
        return "tells upper from lower case"
    return "case not known"


def _told(at: Mount) -> str:
    return f"on {shown(at.kind)} {shown(at.device)}, mounted at {shown(at.point)}"


def _mounts() -> str:
    """Linux: /proc/mounts. Elsewhere: what ``mount`` prints. "" where neither is."""
    with contextlib.suppress(OSError):
        return os.fsdecode(Path("/proc/mounts").read_bytes())
    program = shutil.which("mount", path=f"/sbin:/bin:/usr/sbin:/usr/bin:{os.environ.get('PATH', '')}")
    if program is None:
        return ""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(
            [program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        ).stdout
    return ""


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
