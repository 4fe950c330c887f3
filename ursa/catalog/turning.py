"""The rows of some recordings turned to what they were, by compare-and-swap, in the order that keeps readers right.

Modalities that come back are written first, under recordings that do not cover them yet; then all recordings in one
commit, which is the commit point; then what no recording covers any more goes. Whoever registers meanwhile is either
seen before the commit point, and ends it, or comes after it, and keeps what they have registered.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ursa.catalog.catalog import Catalog
from ursa.catalog.compare import Key, Snapshot, Turn, by_recording, modality_key, recording_turns
from ursa.catalog.metadata import covers
from ursa.catalog.rows import ModalityRow, ParticipantRow, RecordingRow
from ursa.catalog.tables import Change
from ursa.catalog.where import Where, any_of, by_rec_id
from ursa.errors import StorageError

READERS_S = 1.0
"""Seconds. Who has seen the recordings as they were is given so long to see their modalities."""
_ROUNDS = 20

_Rows = dict[Key, ModalityRow]


class OvertakenError(Exception):
    """Somebody has changed these recordings since. ``rec_ids``: sorted."""

    def __init__(self, rec_ids: Iterable[str]) -> None:
        super().__init__()
        self.rec_ids = sorted(rec_ids)


class Turning:
    """One run, in the tables as they are open. ``so_far``: in words, how far it came.

    ``participants``: rows to write; ``leaving``: ids of rows to take away, unless a recording names them.
    """

    def __init__(
        self,
        catalog: Catalog,
        then: Snapshot,
        turns: Mapping[str, Turn],
        participants: Sequence[ParticipantRow],
        leaving: Sequence[str],
    ) -> None:
        self._catalog = catalog
        self._then = then
        self._turns = turns
        self._participants = participants
        self._leaving = leaving
        self._operation_id = uuid.uuid4().hex
        self.so_far = "nothing was changed"

    def run(self) -> None:
        """Raises ``OvertakenError``, and as ``CatalogTable.compare_and_swap`` does."""
        catalog = self._catalog
        if self._participants:
            catalog.participants.compare_and_swap(self._with_participants)
        if self._turns:
            if catalog.modalities.compare_and_swap(self._with_modalities):
                self.so_far = "modality rows are as they were then, recordings not yet"
            catalog.recordings.compare_and_swap(self._with_recordings)
            self.so_far = "the recordings are as they were then, rows that nobody sees are left"
            self._settle()
        if self._leaving:
            catalog.participants.compare_and_swap(self._without_participants)

    def _with_participants(self) -> Change[ParticipantRow] | None:
        ids = [row.participant_id for row in self._participants]
        there = {row.participant_id: row for row in self._catalog.participants.select(any_of("participant_id", ids))}
        rows = [row for row in self._participants if there.get(row.participant_id) != row]
        return self._change(rows, any_of("participant_id", ids) if there else None)

    def _with_modalities(self) -> Change[ModalityRow] | None:
        """What comes back or changes; what goes is still there."""
        there, wanted = self._modalities(), {}
        for name, turn in self._turns.items():
            rows = there.get(name, {})
            before = {modality_key(row): row for row in turn.now.modalities}
            then = {modality_key(row): row for row in turn.then.modalities}
            if any(rows.get(key) not in (row, then.get(key)) for key, row in before.items()):
                raise OvertakenError([name])
            wanted[name] = rows | then
        return self._modality_change(there, wanted)

    def _with_recordings(self) -> Change[RecordingRow] | None:
        found = recording_turns(self._catalog, self._then)
        planned = {
            name: (turn.now.recordings, turn.then.recordings)
            for name, turn in self._turns.items()
            if turn.now.recordings != turn.then.recordings
        }
        other = {name: (turn.now.recordings, turn.then.recordings) for name, turn in found.items()}
        if differing := {name for name in planned.keys() | other.keys() if planned.get(name) != other.get(name)}:
            raise OvertakenError(differing)
        rows = [row for _, then in planned.values() for row in then]
        return self._change(rows, any_of("rec_id", planned) if any(now for now, _ in planned.values()) else None)

    def _settle(self) -> None:
        """Take away what no recording covers any more; and look again until all that one covers is there."""
        if any(self._parting(turn) for turn in self._turns.values()):
            time.sleep(READERS_S)
        for _ in range(_ROUNDS):
            if not self._catalog.modalities.compare_and_swap(self._settled):
                return
        raise StorageError(
            "another run keeps writing other rows for the same workers",
            hint="Stop the other run, then run the same command again.",
        )

    def _settled(self) -> Change[ModalityRow] | None:
        self._catalog.recordings.refresh()
        recordings = by_recording(self._catalog.recordings.select(by_rec_id(self._turns)), self._turns)
        there = self._modalities()
        wanted = {
            name: _settled(turn, tuple(recordings.get(name, ())), there.get(name, {}))
            for name, turn in self._turns.items()
        }
        return self._modality_change(there, wanted)

    def _without_participants(self) -> Change[ParticipantRow] | None:
        self._catalog.recordings.refresh()
        lists = self._catalog.recordings.query("SELECT participant_ids FROM recordings")["participant_ids"].to_pylist()
        named = {key for ids in lists for key in ids or ()}
        there = self._catalog.participants.select(any_of("participant_id", self._leaving))
        gone = [row.participant_id for row in there if row.participant_id not in named]
        return self._change((), any_of("participant_id", gone) if gone else None)

    @staticmethod
    def _parting(turn: Turn) -> bool:
        return bool(
            {modality_key(row) for row in turn.now.modalities} - {modality_key(row) for row in turn.then.modalities}
        )

    def _modalities(self) -> dict[str, _Rows]:
        """Seen or not."""
        rows = by_recording(self._catalog.modalities.select(by_rec_id(self._turns)), self._turns)
        return {name: {modality_key(row): row for row in found} for name, found in rows.items()}

    def _modality_change(self, there: Mapping[str, _Rows], wanted: Mapping[str, _Rows]) -> Change[ModalityRow] | None:
        """Give each recording exactly these rows; what it has besides was looked at in the same version."""
        other = {name: rows for name, rows in wanted.items() if rows != there.get(name, {})}
        rows = [row for found in other.values() for row in found.values()]
        return self._change(rows, any_of("rec_id", other) if other.keys() & there.keys() else None)

    def _change(self, rows: Sequence[Any], replacing: Where | None) -> Change[Any] | None:
        return Change(rows, replacing, "undo", self._operation_id) if rows or replacing else None


def _settled(turn: Turn, recordings: tuple[RecordingRow, ...], there: _Rows) -> _Rows:
    """A recording's modality rows after the commit point."""
    now = {modality_key(row): row for row in turn.now.modalities}
    then = {modality_key(row): row for row in turn.then.modalities}
    ours = recordings == turn.then.recordings

    def covered(row: ModalityRow) -> bool:
        return any(covers(recording, row) for recording in recordings)

    # Where somebody has registered it since, theirs may count on what they found.
    kept = {key: row for key, row in there.items() if key not in now or key in then or (not ours and covered(row))}
    back = then if ours else now | then
    lost = {key: row for key, row in back.items() if covered(row) and key not in kept}
    written_over = {key: row for key, row in then.items() if ours and key in kept and _stray(kept[key], row)}
    return kept | lost | written_over


def _stray(there: ModalityRow, ours: ModalityRow) -> bool:
    """Whether a run that lost wrote this over our row; what an admin wrote on purpose (``register_modality``) is not."""
    by_a_run = there.status == ours.status and not there.metadata.keys() - ours.metadata.keys()
    return by_a_run and there != ours
