"""Rows that say less than is known: upgraded to what was measured, in commits of their own kind (``proven``)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ursa.catalog.catalog import Catalog
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.catalog.tables import Change
from ursa.catalog.where import any_of, these_modalities
from ursa.names import nfc

OPERATION = "proven"
STATED_KEY = "stated_sha256"
"""Metadata key: JSON object of path → the sha256 that was stated of a file, where it was measured to have another."""
# A predicate names every row that a commit replaces; longer ones make the query planner slow.
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What was measured of a registered recording's files: by path, the row that each is to have.

    ``seen``: the rows of these files that the measurement was held against. One that has changed since stays as it is:
    the object may have been replaced with it, and what was measured is of the old one.
    """

    rec_id: str
    recording_hash: str
    files: Mapping[str, FileRow]
    seen: Mapping[str, FileRow]


def better(row: FileRow, measured: FileRow) -> bool:
    """Whether a measurement says more of a registered file than its row does."""
    same = (row.sha256, row.etag, row.key) == (measured.sha256, measured.etag, measured.key)
    return measured.proven and not (row.proven and same)


def upgrade_all(catalog: Catalog, upgrades: Sequence[Upgrade]) -> None:
    """Write what was measured into the rows, where they are still about these files. Raises ``StorageError``."""
    for start in range(0, len(upgrades), _AT_ONCE):
        of: dict[str, list[Upgrade]] = {}
        for item in upgrades[start : start + _AT_ONCE]:
            of.setdefault(item.recording_hash, []).append(item)
        catalog.write(lambda of=of: _write(catalog, of))  # type: ignore[misc]


def _write(catalog: Catalog, of: Mapping[str, Sequence[Upgrade]]) -> None:
    named = [RecordingRow(item.recording_hash, item.rec_id) for items in of.values() for item in items]
    operation_id = uuid.uuid4().hex

    def modalities() -> Change[ModalityRow] | None:
        rows = [_modality(row, of[row.recording_hash]) for row in catalog.modalities_for(named)]
        changed = [row for row in rows if row is not None][:_AT_ONCE]
        return Change(changed, these_modalities(changed), OPERATION, operation_id) if changed else None

    def recordings() -> Change[RecordingRow] | None:
        rows = [
            _recording(row, of.get(row.recording_hash, ())) for row in catalog.lookup_all({r.rec_id for r in named}, ())
        ]
        changed = [row for row in rows if row is not None]
        predicate = any_of("rec_id", [row.rec_id for row in changed])
        return Change(changed, predicate, OPERATION, operation_id) if changed else None

    while catalog.modalities.compare_and_swap(modalities):
        continue
    catalog.recordings.compare_and_swap(recordings)


def _modality(row: ModalityRow, upgrades: Sequence[Upgrade]) -> ModalityRow | None:
    files, metadata = _files(row.files, upgrades, row.metadata)
    return None if files == row.files else replace(row, files=files, metadata=metadata)


def _recording(row: RecordingRow, upgrades: Sequence[Upgrade]) -> RecordingRow | None:
    files, metadata = _files(row.auxiliary_files, upgrades, row.metadata)
    return None if files == row.auxiliary_files else replace(row, auxiliary_files=files, metadata=metadata)


def _files(
    files: Iterable[FileRow], upgrades: Sequence[Upgrade], metadata: Mapping[str, str]
) -> tuple[tuple[FileRow, ...], Mapping[str, str]]:
    """The files as they were measured, and the metadata with what had been stated of them otherwise."""
    made: list[FileRow] = []
    stated = stated_of(metadata)
    for row in files:
        now = next(filter(None, (_upgraded(row, item) for item in upgrades)), row)
        if row.sha256 not in (None, now.sha256):
            stated[row.path] = str(row.sha256)
        made.append(now)
    kept = json.dumps(stated, ensure_ascii=False, sort_keys=True)
    return tuple(made), {**metadata, STATED_KEY: kept} if stated else metadata


def _upgraded(row: FileRow, upgrade: Upgrade) -> FileRow | None:
    """The row of what was measured; None where nothing better was measured, or the row is not the one that was seen."""
    now, seen = upgrade.files.get(row.path), upgrade.seen.get(row.path)
    if now is None or seen is None or _content(row) != _content(seen) or not _about(row, now) or not better(row, now):
        return None
    return replace(now, mtime_ns=now.mtime_ns if now.mtime_ns is not None else row.mtime_ns)


def _content(row: FileRow) -> FileRow:
    return replace(row, mtime_ns=None)


def _about(row: FileRow, measured: FileRow) -> bool:
    """Whether a measurement is of the file that a row is about; one that is proven gives way to its own bytes only."""
    same = row.size_bytes == measured.size_bytes and (not row.key or nfc(row.key) == nfc(measured.key))
    return same and (not row.proven or row.sha256 == measured.sha256)


def stated_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """Path → the sha256 that had been stated; what is no such text is left out."""
    try:
        found = json.loads(metadata.get(STATED_KEY, "{}"))
    except (ValueError, RecursionError):
        return {}
    return {str(path): str(value) for path, value in found.items()} if isinstance(found, dict) else {}
