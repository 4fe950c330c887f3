"""The backfill of participants: a ``BackfillPlan`` done, in group commits.

Only recordings without participants change; one that gets some after the plan was made is left out, decided again inside
every compare-and-swap.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ursa.catalog.catalog import Catalog
from ursa.catalog.rows import ParticipantRow, RecordingRow
from ursa.catalog.tables import Change
from ursa.catalog.where import any_of
from ursa.register.committer import MOST_AT_ONCE
from ursa.register.participants import BackfillItem, BackfillPlan, BackfillResult, State
from ursa.register.services import Services

OPERATION = "backfill_participants"
"""What the catalog's history calls it."""


def backfill(
    services: Services, plan: BackfillPlan, on_recording: Callable[[BackfillItem], object] = lambda _item: None
) -> BackfillResult:
    """Do what is planned, a thousand recordings a commit: their participants' rows first, then their own.

    Killed anywhere, what is committed stands, and a new plan has the rest.

    Args:
        on_recording: told of each recording once it is committed, in the order of the plan.

    Raises:
        StorageError: this commit's recordings are as they were.
    """
    items: list[BackfillItem] = []
    made: set[str] = set()
    for group in _groups(plan.items):
        if services.stop.is_set():
            raise KeyboardInterrupt
        commit = _GroupCommit(services.catalog, [item for item in group if item.writes], made)
        commit.run()
        for item in map(commit.ended, group):
            items.append(item)
            on_recording(item)
    return BackfillResult(tuple(items), plan.left_alone, len(made))


class _GroupCommit:
    """One commit a table; both carry one operation_id, so that the history shows them as one."""

    def __init__(self, catalog: Catalog, group: Sequence[BackfillItem], made: set[str]) -> None:
        self.catalog = catalog
        self.group = {item.rec_id: item for item in group}
        self.operation_id = uuid.uuid4().hex
        self.attached: set[str] = set()
        self.made = made  # ids whose rows this backfill has made, in this commit or an earlier one
        self.seen: dict[str, tuple[str, ...]] = {}

    def run(self) -> None:
        if not self.group:
            return
        with self.catalog.lock:
            self.catalog.refresh()
            self.catalog.write(self._write)
            if self.catalog.follow_pointer():
                # What was committed may have come too late for the rebuild: see to it in the catalog that is live now.
                self.catalog.write(self._write)

    def ended(self, item: BackfillItem) -> BackfillItem:
        """The item with what became of it."""
        if not item.writes:
            return item
        if item.state is State.ATTACH:
            done = State.ATTACHED if item.rec_id in self.attached else None
        else:
            done = State.NAMED if item.participant_id in self.made else None
        return replace(item, state=done or (State.OVERTAKEN if item.rec_id in self.seen else State.GONE))

    def _write(self) -> None:
        def name() -> Change[ParticipantRow] | None:
            new = self._new_participants()
            return Change(new, None, OPERATION, self.operation_id) if new else None

        landed = self.catalog.participants.compare_and_swap(name)
        self.made |= {row.participant_id for row in landed.rows} if landed else set()
        if any(item.state is State.ATTACH for item in self.group.values()):
            self._write_recordings()

    def _write_recordings(self) -> None:
        def attach() -> Change[RecordingRow] | None:
            rows = [replace(row, participant_ids=(self._id_of(row.rec_id),)) for row in self._open()]
            names = sorted(row.rec_id for row in rows)
            return Change(rows, any_of("rec_id", names), OPERATION, self.operation_id) if rows else None

        landed = self.catalog.recordings.compare_and_swap(attach)
        self.attached |= {row.rec_id for row in landed.rows} if landed else set()

    def _new_participants(self) -> list[ParticipantRow]:
        """Rows for ids that have none, of recordings that still need them."""
        names: dict[str, str] = {}
        for rec_id in sorted({row.rec_id for row in self._open()} | self._naming()):
            names.setdefault(self._id_of(rec_id), self.group[rec_id].name or "")
        there = {row.participant_id for row in self.catalog.participants.select(any_of("participant_id", names))}
        now = datetime.now(UTC)
        return [ParticipantRow(key, name, now) for key, name in names.items() if key not in there]

    def _open(self) -> list[RecordingRow]:
        """The rows, as of the last refresh, that are to get their participant: those that still have none."""
        rows = self.catalog.lookup_all(self.group, ())
        self.seen = {row.rec_id: row.participant_ids for row in rows}
        # A commit replaces whatever has the rec_id: all of it is written again, or none.
        taken = {row.rec_id for row in rows if row.participant_ids}
        return [row for row in rows if self.group[row.rec_id].state is State.ATTACH and row.rec_id not in taken]

    def _naming(self) -> set[str]:
        """Recordings that name the id already: planned so, or by us, before a rebuild took the row over."""
        return {rec_id for rec_id, ids in self.seen.items() if self._id_of(rec_id) in ids}

    def _id_of(self, rec_id: str) -> str:
        found = self.group[rec_id].participant_id
        assert found is not None
        return found


def _groups(items: Iterable[BackfillItem]) -> Iterator[list[BackfillItem]]:
    """In their order, at most a thousand to write in each."""
    group: list[BackfillItem] = []
    writes = 0
    for item in items:
        if writes + item.writes > MOST_AT_ONCE:
            yield group
            group, writes = [], 0
        group.append(item)
        writes += item.writes
    if group:
        yield group
