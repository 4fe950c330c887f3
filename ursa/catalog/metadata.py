"""What ursa keeps in the metadata of a row: the keys, and their values to and from text."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.names import parse_sha256
from ursa.policies import Evidence

AUXILIARY_KEY = "auxiliary_files"
"""Metadata key of catalogs before the rule of evidence: JSON object of path → [size_bytes, sha256]. Only read."""
WORKERS_KEY = "workers"
"""Metadata key: JSON list of the [modality, worker_id] that the recording's commit covers. A modality row that is not
in it belongs to a run that has not committed (yet)."""
NODES_KEY = "nodes"
"""Metadata key: hostnames of the machines that the manifests speak of, joined by commas."""
SIDECARS_KEY = "sidecars"
"""Metadata key: JSON object of path → list of ``Sidecar``, for manifests and participant.txt."""
REGISTERED_AT_KEY = "registered_at"
"""Metadata key of a modality: when its files were proven, ISO 8601."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A version of a manifest or participant.txt with which nothing is left to do: the bucket holds it, or another that
    stands for it (a peer's participant.txt, whose name the row has as well). Halves of a recording bring one each.

    ``mtime_ns``: of the file on the disk that it was; None where it was read from the bucket. It decides nothing.
    ``etag``: of the object that these bytes are in; None where the bucket holds another version, or nobody knows.
    """

    size_bytes: int
    sha256: str
    mtime_ns: int | None = None
    etag: str | None = None

    def same(self, other: Sidecar) -> bool:
        """Whether both are the same bytes."""
        return (self.size_bytes, self.sha256) == (other.size_bytes, other.sha256)


def sidecars(row: RecordingRow) -> dict[str, tuple[Sidecar, ...]]:
    """Path → the versions that are dealt with; what nobody can read is left out."""
    parsed = _parsed(row.metadata.get(SIDECARS_KEY))
    if not isinstance(parsed, dict):
        return {}
    return {
        path: tuple(Sidecar(*of) for of in some if _is_sidecar(of)) for path, some in parsed.items() if _is_list(some)
    }


def sidecars_text(versions: Mapping[str, Iterable[Sidecar]]) -> str:
    """The metadata value for sidecars."""
    listed = {path: [list(asdict(item).values()) for item in versions[path]] for path in sorted(versions)}
    return json.dumps(listed, ensure_ascii=False, separators=(",", ":"))


def united_sidecars(
    first: RecordingRow, second: RecordingRow, replaced: Collection[str] = ()
) -> dict[str, tuple[Sidecar, ...]]:
    """The versions of both rows, the second's where they are the same; of what is ``replaced``, the second's alone."""
    united = {path: versions for path, versions in sidecars(first).items() if path not in replaced}
    for path, versions in sidecars(second).items():
        others = [known for known in united.get(path, ()) if not any(known.same(item) for item in versions)]
        united[path] = (*others, *versions)
    return united


def unsettled(existing: RecordingRow, row: RecordingRow) -> list[str]:
    """Sidecars of ``row`` that no run has dealt with."""
    known = sidecars(existing)
    return [
        path
        for path, versions in sidecars(row).items()
        if not all(any(item.same(there) for there in known.get(path, ())) for item in versions)
    ]


def dated_auxiliary(metadata: Mapping[str, str]) -> tuple[FileRow, ...]:
    """The files outside of worker directories as catalogs before the rule of evidence kept them; what nobody can read is
    left out. Their keys were not kept, and nobody knows how they were proven.
    """
    parsed = _parsed(metadata.get(AUXILIARY_KEY))
    if not isinstance(parsed, dict):
        return ()
    entries = [(path, entry[0], parse_sha256(entry[1])) for path, entry in sorted(parsed.items()) if _is_file(entry)]
    return tuple(
        FileRow(path, "", size_bytes, sha256, None, Evidence.CLAIMED if sha256 else Evidence.SIZE)
        for path, size_bytes, sha256 in entries
    )


def workers_text(modalities: Iterable[ModalityRow]) -> str:
    """The metadata value for the workers that a commit covers."""
    return json.dumps(sorted([item.modality, item.worker_id] for item in modalities), ensure_ascii=False)


def workers_of(row: RecordingRow) -> set[tuple[str, str]] | None:
    """The workers that a recording's commit covers; None where its row does not say (or says what nobody can read)."""
    parsed = _parsed(row.metadata.get(WORKERS_KEY))
    if not isinstance(parsed, list) or not all(_is_worker(pair) for pair in parsed):
        return None
    return {(modality, worker_id) for modality, worker_id in parsed}


def covers(row: RecordingRow, modality: ModalityRow) -> bool:
    """Whether a modality row belongs to what the recording's row has committed; a dead run may have left others."""
    covered = workers_of(row)
    same = (row.rec_id, row.recording_hash) == (modality.rec_id, modality.recording_hash)
    return same and (covered is None or (modality.modality, modality.worker_id) in covered)


def _parsed(text: str | None) -> Any:
    """A value's JSON; None where it is none. Other versions and other hands write metadata too."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


def _is_worker(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(name, str) for name in value)


def _is_file(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    size_bytes, sha256 = value
    number = isinstance(size_bytes, int) and not isinstance(size_bytes, bool)
    return number and (sha256 is None or isinstance(sha256, str))


def _is_sidecar(value: object) -> bool:
    if not _is_list(value) or len(value) not in (3, 4):
        return False
    size_bytes, sha256, mtime_ns, *etag = value
    told = type(size_bytes) is int and isinstance(sha256, str) and (mtime_ns is None or type(mtime_ns) is int)
    return told and all(text is None or isinstance(text, str) for text in etag)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
