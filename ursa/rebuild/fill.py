"""Rows into the catalog that is being filled. Each commit looks at the pointer first, through a ``Fence``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ursa.catalog.catalog import Catalog
from ursa.catalog.compare import by_recording
from ursa.catalog.rows import ParticipantRow
from ursa.catalog.tables import CatalogTable, Change
from ursa.catalog.where import any_of, by_rec_id
from ursa.rebuild.derive import Derived

Fence = Callable[[], object]
"""Raises where the catalog that is being filled must not be written any more."""


def copy_participants(old: Catalog, new: Catalog, fence: Fence) -> None:
    """Every participant's row as it is in the live catalog."""
    old.participants.refresh()
    rows = old.participants.select()

    def change() -> Change[ParticipantRow] | None:
        fence()
        return with_participants(new, rows, "rebuild")

    new.participants.refresh()
    new.participants.compare_and_swap(change)


def with_participants(new: Catalog, rows: Sequence[ParticipantRow], operation: str) -> Change[ParticipantRow] | None:
    """The commit that gives it these rows; None where it has them."""
    there = {row.participant_id: row for row in new.participants.select()}
    other = [row for row in rows if there.get(row.participant_id) != row]
    known = any(row.participant_id in there for row in other)
    predicate = any_of("participant_id", [row.participant_id for row in other]) if known else None
    return Change(other, predicate, f"{operation}:participants") if other else None


def put(new: Catalog, derived: Sequence[Derived], fence: Fence) -> None:
    """Commit a chunk: modalities, then recordings. What a run before had written of them is replaced."""
    _swap(
        new.modalities,
        {item.rec_id: list(item.modalities) if item.row else [] for item in derived},
        fence,
        "modalities",
    )
    _swap(new.recordings, {item.rec_id: [item.row] if item.row else [] for item in derived}, fence, "recordings")


def _swap(table: CatalogTable[Any], wanted: Mapping[str, Sequence[Any]], fence: Fence, what: str) -> None:
    """Give each rec_id exactly these rows; one commit, or none where it has them."""

    def change() -> Change[Any] | None:
        fence()
        return exactly(table, wanted, f"rebuild:{what}")

    # Refreshed before the fence: a commit that comes after a flip then makes ours fail.
    table.refresh()
    table.compare_and_swap(change)


def exactly(table: CatalogTable[Any], wanted: Mapping[str, Sequence[Any]], operation: str) -> Change[Any] | None:
    """The commit that gives each rec_id these rows and no others; None where it has them."""
    there = by_recording(table.select(by_rec_id(wanted)), wanted)
    other = {name: rows for name, rows in wanted.items() if not _same(rows, there.get(name, ()))}
    stale = sorted(other.keys() & there.keys())
    rows = [row for name in sorted(other) for row in other[name]]
    if not rows and not stale:
        return None
    # Rows may only be written where the predicate holds, so it names the new ones too.
    return Change(rows, any_of("rec_id", sorted(other)) if stale else None, operation)


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(row in other for row in one)


def without_doubles(
    old: Catalog, new: Catalog | None, taken: dict[str, str], derived: Sequence[Derived]
) -> list[Derived]:
    """A recording in no row whose recording_hash is another one's stays without: the same data under two names.

    ``taken``: recording_hash → rec_id, of what this run has derived; grows.
    """
    hashes = {item.row.recording_hash for item in derived if item.row and item.new}
    if hashes:
        taken |= {row.recording_hash: row.rec_id for row in old.lookup_all([], hashes)}
    if hashes and new is not None:
        new.recordings.refresh()
        for row in new.lookup_all([], hashes):
            taken.setdefault(row.recording_hash, row.rec_id)
    return [_unless_taken(item, taken) for item in sorted(derived, key=lambda item: (item.new, item.rec_id))]


def _unless_taken(item: Derived, taken: dict[str, str]) -> Derived:
    if item.row is None:
        return item
    owner = taken.setdefault(item.row.recording_hash, item.rec_id)
    if owner == item.rec_id or not item.new:
        return item
    why = f"its recording_hash {item.row.recording_hash} is that of {owner}: the same data under two names?"
    return Derived(item.rec_id, None, why=why)
