"""``ursa catalog compact``: sort and merge files, remove what dead runs left, forget what is past the retention."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ursa.catalog.author import commit_properties
from ursa.catalog.catalog import Catalog, frozen_error
from ursa.catalog.layout import MIB, DataFile, depth
from ursa.catalog.metadata import REGISTERED_AT_KEY
from ursa.catalog.rows import ModalityRow
from ursa.catalog.tables import CatalogTable, Change, FrozenError, LostRaceError
from ursa.catalog.where import these_modalities
from ursa.catalog.words import words
from ursa.errors import StorageError

ORPHAN_AFTER = timedelta(days=1)
"""A modality row without a recording is younger where its run may be alive."""
# Sorting writes all of a table anew, merging only its small files. Neighbours share the day between them.
_SORTED_DEPTH = 3
_ATTEMPTS = 20
_SORT_MEMORY = 1024 * MIB
# A predicate names every row that a commit removes; longer ones make the query planner slow.
_REMOVED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class TableCompaction:
    """What was done to a table (or would be): data files before and after, ``sorted`` or only merged; ``vacuumed``:
    files that only versions past the retention have.
    """

    table: str
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    sorted: bool
    vacuumed: int


@dataclass(frozen=True, slots=True)
class CompactResult:
    """What a compaction did, or with ``dry_run`` would do. ``removed``: modality rows that had no recording."""

    tables: tuple[TableCompaction, ...]
    removed: tuple[ModalityRow, ...]
    dry_run: bool


def compact(catalog: Catalog, *, dry_run: bool = False, now: datetime | None = None) -> CompactResult:
    """Compact the three tables. Others may read and write meanwhile; killed, it is begun again.

    Raises:
        StorageError: a rebuild has frozen the catalog, or the server fails. What was done stays done, and is whole.
    """
    now = now or datetime.now(UTC)
    tables: tuple[CatalogTable[Any], ...] = (catalog.recordings, catalog.modalities, catalog.participants)
    with catalog.lock:
        catalog.refresh()
        catalog.participants.refresh()
        for table in tables:
            if table.frozen:
                raise frozen_error(table.frozen)
        operation_id = uuid.uuid4().hex
        removed = _orphans(catalog, now) if dry_run else _remove_orphans(catalog, now, operation_id)
        done = tuple(_compact(table, operation_id, dry_run) for table in tables)
    return CompactResult(done, tuple(removed), dry_run)


def _compact(table: CatalogTable[Any], operation_id: str, dry_run: bool) -> TableCompaction:
    before = table.files()
    sort = depth([file for file in before if file.size_bytes >= table.layout.small_bytes]) > _SORTED_DEPTH
    if not dry_run:
        sort = _merge_or_sort(table, operation_id)
    with words(table.uri, "compact"):
        if not dry_run:
            table.delta.create_checkpoint()
        vacuumed = _vacuum(table, operation_id, dry_run)
    if not dry_run:
        table.forget_old_versions()
    after = before if dry_run else table.files()
    return TableCompaction(table.kind.name, len(before), len(after), _size(before), _size(after), sort, len(vacuumed))


def _merge_or_sort(table: CatalogTable[Any], operation_id: str) -> bool:
    """Merge the small files; sort where a key may still lie in many. Returns whether it was sorted."""
    _until_nobody_commits(table, lambda: _merge(table, operation_id))
    if depth(table.files()) <= _SORTED_DEPTH:
        return False
    _until_nobody_commits(table, lambda: table.sort_files(_SORT_MEMORY, operation_id))
    return True


def _merge(table: CatalogTable[Any], operation_id: str) -> None:
    if sum(file.size_bytes < table.layout.big_bytes for file in table.files()) > 1:
        table.merge_files(table.layout.big_bytes, operation_id)


def _until_nobody_commits(table: CatalogTable[Any], action: Callable[[], None]) -> None:
    """Again after each lost race: whoever commits in between may have written one of the same files anew."""
    for attempt in range(_ATTEMPTS):
        try:
            return action()
        except LostRaceError:
            time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 4)))
            table.refresh()
    raise StorageError(
        f"can't compact {table.uri}: others wrote to it {_ATTEMPTS} times meanwhile",
        hint="Nothing is lost, and what was merged so far stays. Run `ursa catalog compact` when no batch runs.",
        operation="compact",
    )


def _vacuum(table: CatalogTable[Any], operation_id: str, dry_run: bool) -> list[str]:
    """Delete files that no version within the table's own retention (90 days) needs, and those that no version ever
    did.
    """
    found: list[str] = table.delta.vacuum(
        dry_run=dry_run,
        full=True,
        commit_properties=commit_properties(
            table.author, "vacuum", uuid.uuid4().hex, operation_id=operation_id, retries=None
        ),
    )
    table.refresh()
    return found


def _size(files: Iterable[DataFile]) -> int:
    return sum(file.size_bytes for file in files)


def _orphans(catalog: Catalog, now: datetime) -> list[ModalityRow]:
    """Modality rows that have no recording and are old enough, as of the last refresh; oldest rec_id first."""
    rows = catalog.modalities.select(
        "NOT EXISTS (SELECT 1 FROM recordings WHERE recordings.rec_id = modalities.rec_id"
        " AND recordings.recording_hash = modalities.recording_hash)",
        also={"recordings": catalog.recordings},
        tail="ORDER BY rec_id, modality, worker_id",
    )
    return [row for row in rows if _age(row, now) > ORPHAN_AFTER]


def _age(row: ModalityRow, now: datetime) -> timedelta:
    """How long ago its files were proven; none at all where the row does not say so."""
    try:
        moment = datetime.fromisoformat(row.metadata[REGISTERED_AT_KEY])
    except (KeyError, ValueError):
        return timedelta()
    return now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _remove_orphans(catalog: Catalog, now: datetime, operation_id: str) -> list[ModalityRow]:
    """Remove them by compare-and-swap, looked for again in fresh recordings before each commit."""
    removed: list[ModalityRow] = []
    while True:
        batch: list[ModalityRow] = []

        def decide(batch: list[ModalityRow] = batch) -> Change[ModalityRow] | None:
            catalog.recordings.refresh()
            batch[:] = _orphans(catalog, now)[:_REMOVED_AT_ONCE]
            return Change((), these_modalities(batch), "compact", operation_id) if batch else None

        try:
            if not catalog.modalities.compare_and_swap(decide):
                return removed
        except FrozenError as error:
            raise frozen_error(str(error)) from None
        removed += batch
