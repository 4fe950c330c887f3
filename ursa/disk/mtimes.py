"""Whether two modification times are the same, on disks that keep them more or less exactly."""

from __future__ import annotations

from pathlib import Path

from ursa.disk.mounts import mount_at

_SECOND_NS = 10**9
_HOUR_NS = 3600 * _SECOND_NS
# FAT keeps even seconds, in local time: the same file is an hour off after the clocks change.
_FAT_NS = 2 * _SECOND_NS
_LOCAL_TIME = {"vfat", "msdos"}
_STEPS_NS = (_SECOND_NS, 10**6, 10**3, 100)


def same_mtime(one_ns: int, other_ns: int, *, vfat: bool = False) -> bool:
    """Whether both are the same at the coarser of their granularities; with ``vfat`` also whole hours apart."""
    step = _FAT_NS if vfat else max(_granularity_ns(one_ns), _granularity_ns(other_ns))
    difference = abs(one_ns // step - other_ns // step) * step
    return difference == 0 or (vfat and difference % _HOUR_NS == 0)


def keeps_local_time(directory: Path) -> bool:
    """Whether a directory lies on a disk that keeps times in local time (FAT)."""
    return mount_at(directory).type in _LOCAL_TIME


def _granularity_ns(time_ns: int) -> int:
    """What a time was perhaps rounded to: of even seconds nothing tells whether it was."""
    return next((step for step in _STEPS_NS if time_ns % step == 0), 1)
