"""Rows that say less than is known: upgraded to what was measured, in commits of their own kind (``proven``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ursa.catalog.catalog import Catalog
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.catalog.tables import Change
from ursa.catalog.where import any_of, these_modalities

OPERATION = "proven"
STATED_KEY = "stated_sha256"
"""Metadata key: JSON object of path → the sha256 that was stated of a file, where it was measured to have another."""
# A predicate names every row that a commit replaces; longer ones make the query planner slow.
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What was measured of a registered recording's files: by path, the row that each is to have."""

    rec_id: str
    recording_hash: str
    files: Mapping[str, FileRow]


def better(row: FileRow, measured: FileRow) -> bool:
    """Whether a measurement says more of a registered file than its row does."""
    return not (row.proven and (row.sha256, row.etag, row.key) == (measured.sha256, measured.etag, measured.key))


def upgrade_all(catalog: Catalog, upgrades: Sequence[Upgrade]) -> None:
    """Write what was measured into the rows, where they are still about these files. Raises ``StorageError``."""
    for start in range(0, len(upgrades), _AT_ONCE):
        of = {item.recording_hash: item for item in upgrades[start : start + _AT_ONCE]}
        catalog.write(lambda of=of: _write(catalog, of))  # type: ignore[misc]


def _write(catalog: Catalog, of: Mapping[str, Upgrade]) -> None:
    def modalities() -> Change[ModalityRow] | None:
        named = [RecordingRow(item.recording_hash, item.rec_id) for item in of.values()]
        rows = [_modality(row, of[row.recording_hash].files) for row in catalog.modalities_for(named)]
        changed = [row for row in rows if row is not None][:_AT_ONCE]
        return Change(changed, these_modalities(changed), OPERATION) if changed else None

    def recordings() -> Change[RecordingRow] | None:
        names = {item.rec_id for item in of.values()}
        rows = [_recording(row, of) for row in catalog.lookup_all(names, ())]
        changed = [row for row in rows if row is not None]
        return Change(changed, any_of("rec_id", [row.rec_id for row in changed]), OPERATION) if changed else None

    while catalog.modalities.compare_and_swap(modalities):
        continue
    catalog.recordings.compare_and_swap(recordings)


def _modality(row: ModalityRow, measured: Mapping[str, FileRow]) -> ModalityRow | None:
    files, stated = _files(row.files, measured, row.metadata)
    return None if files == row.files else replace(row, files=files, metadata={**row.metadata, **stated})


def _recording(row: RecordingRow, of: Mapping[str, Upgrade]) -> RecordingRow | None:
    if row.recording_hash not in of:
        return None
    files, stated = _files(row.auxiliary_files, of[row.recording_hash].files, row.metadata)
    return (
        None
        if files == row.auxiliary_files
        else replace(row, auxiliary_files=files, metadata={**row.metadata, **stated})
    )


def _files(
    files: Iterable[FileRow], measured: Mapping[str, FileRow], metadata: Mapping[str, str]
) -> tuple[tuple[FileRow, ...], dict[str, str]]:
    """The files as they were measured, and what had been stated of them otherwise."""
    made: list[FileRow] = []
    stated = stated_of(metadata)
    for row in files:
        now = measured.get(row.path)
        if now is None or not _about(row, now) or not better(row, now):
            made.append(row)
            continue
        if row.sha256 not in (None, now.sha256):
            stated[row.path] = str(row.sha256)
        made.append(replace(now, mtime_ns=now.mtime_ns if now.mtime_ns is not None else row.mtime_ns))
    kept = json.dumps(stated, ensure_ascii=False, sort_keys=True)
    return tuple(made), {STATED_KEY: kept} if stated else {}


def _about(row: FileRow, measured: FileRow) -> bool:
    """Whether a measurement is of the file that a row is about; one that is proven gives way to its own bytes only."""
    same = row.size_bytes == measured.size_bytes and row.key in ("", measured.key)
    return same and (not row.proven or row.sha256 == measured.sha256)


def stated_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """Path → the sha256 that had been stated; what is no such text is left out."""
    try:
        found = json.loads(metadata.get(STATED_KEY, "{}"))
    except ValueError:
        return {}
    return {str(path): str(value) for path, value in found.items()} if isinstance(found, dict) else {}
