"""Is all that a disk has of a recording registered? By a walk and stats: no request, no manifest parsed, nothing read.

"Yes" is only said where every file is in the rows with the same size and was not touched since, and every manifest and
participant.txt is a version that a run has dealt with (by its size and mtime, else by its sha256). Anything else, the
least doubt included, is looked into by an ingest, which hashes.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext

from ursa.catalog.metadata import Sidecar, auxiliary, recorded_at, registered_at, sidecars, workers_of
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.manifest import MAX_MANIFEST_BYTES, is_junk, is_worker_dir
from ursa.recording import is_sidecar

_Known = Mapping[str, tuple[int, float]]
# A time so far ahead of ours is a wrong clock, and no sign that somebody writes now.
_AHEAD_S = 86_400.0
# A walk that takes so long waits for its disk.
_SLOW_S = 0.005


def has_all(rec_dir: str, row: RecordingRow, modalities: Sequence[ModalityRow]) -> bool:
    """Whether every file below ``rec_dir`` is registered with its size, and none is newer than its registration."""
    known = _registered(row, modalities)
    settled = sidecars(row)
    raw = False
    twice: set[str] = set()
    try:
        for path, entry in _files(rec_dir, ""):
            expected = known.get(path)
            if expected is not None:
                stat = entry.stat(follow_symlinks=False)
                if stat.st_size != expected[0] or stat.st_mtime > expected[1]:
                    return False
                raw = raw or is_worker_dir(path.partition("/")[0])
                if not path.isascii():
                    # Two files whose names are one in NFC: at most one of them is in the bucket.
                    if path in twice:
                        return False
                    twice.add(path)
            elif not (is_junk(path) or (is_sidecar(path) and _is_settled(entry, settled.get(path, ())))):
                return False
    except (OSError, RecursionError, _DoubtError):
        return False
    return raw


class Walks:
    """Walks side by side where a disk is slow to answer (a NAS), and one by one where it is not: there threads only
    get into each other's way.
    """

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._took_s = 0.0

    def has_all(self, rec_dir: str, row: RecordingRow, modalities: Sequence[ModalityRow]) -> bool:
        """As the function."""
        with self._one if self._took_s < _SLOW_S else nullcontext():
            started = time.monotonic()
            result = has_all(rec_dir, row, modalities)
            self._took_s = time.monotonic() - started
        return result


def changed_within(rec_dir: str, seconds: float) -> bool:
    """Whether a file or directory below was touched so recently; what can't be looked at is judged by the ingest."""
    now = time.time()
    since, until = now - seconds, now + max(seconds, _AHEAD_S)
    todo = [rec_dir]
    while todo:
        try:
            below = todo.pop()
            if since < os.stat(below).st_mtime < until:  # noqa: PTH116
                return True
            with os.scandir(below) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif since < entry.stat(follow_symlinks=False).st_mtime < until:
                        return True
        except OSError:
            continue
    return False


def _is_settled(entry: os.DirEntry[str], versions: Sequence[Sidecar]) -> bool:
    stat = entry.stat(follow_symlinks=False)
    near = [version for version in versions if version.size_bytes == stat.st_size]
    if any(version.mtime_ns == stat.st_mtime_ns for version in near):
        return True
    if not near or stat.st_size > MAX_MANIFEST_BYTES:
        return False
    with open(entry.path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() in {version.sha256 for version in near}


class _DoubtError(Exception):
    """Something that an ingest has to judge: a symlink, a device, a name that is not text."""


def _registered(row: RecordingRow, modalities: Sequence[ModalityRow]) -> _Known:
    """Path → size in bytes and time of registration."""
    covered = workers_of(row)
    at = recorded_at(row)
    known: dict[str, tuple[int, float]] = {
        path: (size, at) for path, (size, _) in auxiliary(row).items() if isinstance(size, int)
    }
    for item in modalities:
        if covered is not None and (item.modality, item.worker_id) not in covered:
            continue
        moment = registered_at(row, item)
        for file in item.files:
            known[file.path] = (file.size_bytes, moment)
    return known


def _files(directory: str, below: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name if entry.name.isascii() else unicodedata.normalize("NFC", entry.name)
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{name}/")
            elif entry.is_file(follow_symlinks=False):
                yield below + name, entry
            else:
                raise _DoubtError
