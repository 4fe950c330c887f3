"""Is all that a disk has of a recording registered? By a walk and stats: no request, no manifest parsed, nothing read.

"Yes" is only said where every file is in the rows with the same size and was not touched since; anything else, the
least doubt included, is looked into by an ingest, which hashes.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from ursa.catalog.metadata import REGISTERED_AT_KEY, auxiliary, workers_of
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.manifest import is_junk, is_worker_dir

_Known = Mapping[str, tuple[int, float]]


def has_all(rec_dir: str, row: RecordingRow, modalities: Sequence[ModalityRow]) -> bool:
    """Whether every file below ``rec_dir`` is registered with its size, and none is newer than its registration."""
    known, latest = _registered(row, modalities)
    raw = 0
    try:
        for path, entry in _files(rec_dir, ""):
            if path in known:
                size, at = known[path]
                stat = entry.stat(follow_symlinks=False)
                if stat.st_size != size or stat.st_mtime > at:
                    return False
                raw += is_worker_dir(path.partition("/")[0])
            elif _is_sidecar(path):
                if entry.stat(follow_symlinks=False).st_mtime > latest:
                    return False
            elif not is_junk(path):
                return False
    except (OSError, _DoubtError):
        return False
    return raw > 0


class _DoubtError(Exception):
    """Something that an ingest has to judge: a symlink, a device, a name that is not text."""


def _registered(row: RecordingRow, modalities: Sequence[ModalityRow]) -> tuple[_Known, float]:
    """Path → size in bytes and time of registration; and the time of the latest one."""
    covered = workers_of(row)
    at = row.registered_at.timestamp() if row.registered_at else float("-inf")
    known: dict[str, tuple[int, float]] = {
        path: (size, at) for path, (size, _) in auxiliary(row).items() if isinstance(size, int)
    }
    latest = at
    for item in modalities:
        if covered is not None and (item.modality, item.worker_id) not in covered:
            continue
        text = item.metadata.get(REGISTERED_AT_KEY)
        moment = datetime.fromisoformat(text).timestamp() if text else at
        latest = max(latest, moment)
        for file in item.files:
            known[file.path] = (file.size_bytes, moment)
    return known, latest


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


def _is_sidecar(path: str) -> bool:
    return path in ("manifest.json", "participant.txt") or (
        path.startswith("_node_manifests/") and path.endswith(".json")
    )
