"""What readers see of recordings in two states of a catalog, side by side. Rows that nobody sees don't count."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ursa.catalog.catalog import Catalog
from ursa.catalog.difference import differences
from ursa.catalog.metadata import covers
from ursa.catalog.reading import OpenTable, View
from ursa.catalog.rows import ModalityRow, ParticipantRow, RecordingRow
from ursa.catalog.where import Where, any_of, by_rec_id

KEYS = {
    "recordings": ("rec_id", "recording_hash"),
    "modalities": ("rec_id", "recording_hash", "modality", "worker_id"),
    "participants": ("participant_id",),
}
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """A recording as readers see it: its row, and the modalities that it covers; empty where it has none."""

    recordings: tuple[RecordingRow, ...] = ()
    modalities: tuple[ModalityRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A recording as it is now, and as it was (or is in the other catalog)."""

    now: Seen
    then: Seen

    @property
    def claims(self) -> Seen:
        """The rows that it would get and does not have: what they say of the bucket would be said anew."""
        return Seen(
            tuple(row for row in self.then.recordings if row not in self.now.recordings),
            tuple(row for row in self.then.modalities if row not in self.now.modalities),
        )


@dataclass(frozen=True)
class Snapshot:
    """Three tables at a version each."""

    recordings: View
    modalities: View
    participants: View


def snapshot(catalog: Catalog, versions: Mapping[str, int] | None = None) -> Snapshot:
    """The catalog at these versions, or as it is open. Raises ``StorageError`` where the log no longer reaches so far."""

    def handle(table: OpenTable[Any]) -> View:
        return table.at((versions or {}).get(table.kind.name, table.version))

    return Snapshot(handle(catalog.recordings), handle(catalog.modalities), handle(catalog.participants))


def turns(catalog: Catalog, then: Snapshot) -> dict[str, Turn]:
    """rec_id → what readers see of it now and then, where that differs; as of the last refresh."""
    changed = _changed(catalog.recordings, then.recordings) | _changed(catalog.modalities, then.modalities)
    now, before = see(catalog, snapshot(catalog), changed), see(catalog, then, changed)
    found = {name: Turn(now.get(name, Seen()), before.get(name, Seen())) for name in sorted(changed)}
    return {name: turn for name, turn in found.items() if turn.now != turn.then}


def recording_turns(catalog: Catalog, then: Snapshot) -> dict[str, Turn]:
    """The same of the recordings' rows alone."""
    changed = _changed(catalog.recordings, then.recordings)
    now, before = (_recordings(catalog, table, changed) for table in (catalog.recordings.view, then.recordings))
    return {name: Turn(Seen(tuple(now.get(name, ()))), Seen(tuple(before.get(name, ())))) for name in sorted(changed)}


def see(catalog: Catalog, state: Snapshot, rec_ids: Collection[str]) -> dict[str, Seen]:
    """Of these recordings those that have a row."""
    recordings = _recordings(catalog, state.recordings, rec_ids)
    modalities: dict[str, list[ModalityRow]] = {}
    for row in _rows(catalog.modalities, state.modalities, by_rec_id(recordings)) if recordings else ():
        if any(covers(recording, row) for recording in recordings.get(row.rec_id, ())):
            modalities.setdefault(row.rec_id, []).append(row)
    return {
        name: Seen(tuple(rows), tuple(sorted(modalities.get(name, ()), key=modality_key)))
        for name, rows in recordings.items()
    }


def participants(catalog: Catalog, then: Snapshot) -> tuple[list[ParticipantRow], list[str]]:
    """The participants' rows that are not as they were then, and the ids of those that had none."""
    table = catalog.participants
    found = differences(table, then.participants, KEYS[table.kind.name])
    gone = sorted(item.key[0] for item in found if item.gone)
    back = sorted(item.key[0] for item in found if not item.gone)
    return (_rows(table, then.participants, any_of("participant_id", back)) if back else []), gone


def modality_key(row: ModalityRow) -> Key:
    """What makes it one row, within a recording's rec_id."""
    return row.recording_hash, row.modality, row.worker_id


def by_recording(rows: Iterable[Any], rec_ids: Collection[str]) -> dict[str, list[Any]]:
    """rec_id → its rows."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        if row.rec_id in rec_ids:
            found.setdefault(row.rec_id, []).append(row)
    return found


def _changed(table: OpenTable[Any], then: View) -> set[str]:
    return {item.key[0] for item in differences(table, then, KEYS[table.kind.name])}


def _recordings(catalog: Catalog, table: View, rec_ids: Collection[str]) -> dict[str, list[RecordingRow]]:
    if not rec_ids:
        return {}
    found = by_recording(_rows(catalog.recordings, table, by_rec_id(rec_ids)), set(rec_ids))
    return {name: sorted(rows, key=lambda row: row.recording_hash) for name, rows in found.items()}


def _rows(table: OpenTable[Any], at: View, condition: Where) -> list[Any]:
    if at is table.view:
        return table.select(condition)
    return table.kind.rows(table.run(f"SELECT * FROM other WHERE {condition}", {"other": at}, {"other": condition}))
