"""``ursa catalog compact``: sort and merge files, remove what dead runs left, forget what is past the retention."""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ursa.catalog.catalog import Catalog, frozen_error
from ursa.catalog.layout import MIB, DataFile, depth
from ursa.catalog.metadata import REGISTERED_AT_KEY
from ursa.catalog.retention import SETTLED, CleanUpRefusedError, Clock, local_time
from ursa.catalog.rows import ModalityRow
from ursa.catalog.tables import CatalogTable, Change, FrozenError, LostRaceError
from ursa.catalog.where import Where, by_rec_id, these_modalities
from ursa.errors import StorageError

ORPHAN_AFTER = SETTLED
"""A modality row without a recording is younger where its run may be alive."""
# Sorting writes all of a table anew, merging only its small files. Neighbours share the day between them.
_SORTED_DEPTH = 3
_ATTEMPTS = 20
_SORT_MEMORY = 1024 * MIB
# A predicate names every row that a commit removes; longer ones make the query planner slow.
_REMOVED_AT_ONCE = 100


_Identity = tuple[str, str, str, str, str]
_Tries = list[tuple[Change[ModalityRow], list[ModalityRow]]]


@dataclass(frozen=True, slots=True)
class TableCompaction:
    """What was done to a table (or would be): data files before and after, ``sorted`` or only merged; ``vacuumed``:
    data files that only versions past the retention have, by the server's clock.
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
    """What a compaction did, or with ``dry_run`` would do. ``removed``: modality rows that had no recording. ``refused``: why
    nothing was deleted by its age, such as this machine's clock being another than the server's; "" where it was not.
    """

    tables: tuple[TableCompaction, ...]
    removed: tuple[ModalityRow, ...]
    dry_run: bool
    refused: str = ""


def compact(catalog: Catalog, *, dry_run: bool = False, clock: Clock = local_time) -> CompactResult:
    """Compact the three tables. Others may read and write meanwhile; killed, it is begun again.

    Args:
        clock: this machine's; it is only compared with the server's, by which all that is deleted by its age is judged.

    Raises:
        StorageError: a rebuild has frozen the catalog, or the server fails. What was done stays done, and is whole.
    """
    with catalog.snapshot():
        tables: tuple[CatalogTable[Any], ...] = catalog.tables
        for table in tables:
            if table.frozen:
                raise frozen_error(table.frozen)
        operation_id = uuid.uuid4().hex
        refused: list[str] = []
        removed: list[ModalityRow] = []
        with _noting(refused):
            if dry_run:
                removed += _orphans(catalog, clock)
            else:
                _remove_orphans(catalog, clock, operation_id, removed)
        done = tuple(_compact(table, operation_id, dry_run, clock, refused) for table in tables)
    return CompactResult(done, tuple(removed), dry_run, next(iter(refused), ""))


@contextlib.contextmanager
def _noting(refused: list[str]) -> Iterator[None]:
    """Go on without what is refused."""
    try:
        yield
    except CleanUpRefusedError as error:
        refused.append(str(error))


def _compact(
    table: CatalogTable[Any], operation_id: str, dry_run: bool, clock: Clock, refused: list[str]
) -> TableCompaction:
    before = table.files()
    sort = depth([file for file in before if file.size_bytes >= table.layout.small_bytes]) > _SORTED_DEPTH
    vacuumed = 0
    if not dry_run:
        sort = _merge_or_sort(table, operation_id)
        table.put_checkpoint()
    after = before if dry_run else table.files()
    with _noting(refused):
        vacuumed = table.clean_up(clock, dry_run=dry_run)
    return TableCompaction(table.kind.name, len(before), len(after), _size(before), _size(after), sort, vacuumed)


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


def _size(files: Iterable[DataFile]) -> int:
    return sum(file.size_bytes for file in files)


def _orphans(catalog: Catalog, clock: Clock) -> list[ModalityRow]:
    """Modality rows that have no recording and are old enough, as of the last refresh; oldest rec_id first.

    Old enough is a row that was in the table, the same and registered at the same time, in its newest version of more
    than a day ago. Whose clock wrote that time does not matter. Raises ``CleanUpRefusedError``.
    """
    rows = catalog.modalities.select(
        Where(
            "NOT EXISTS (SELECT 1 FROM recordings WHERE recordings.rec_id = modalities.rec_id"
            " AND recordings.recording_hash = modalities.recording_hash)"
        ),
        also={"recordings": catalog.recordings},
        tail="ORDER BY rec_id, modality, worker_id",
    )
    # A row that does not say when it was registered may be written again by a run that counts on it, and look the same.
    rows = [row for row in rows if row.metadata.get(REGISTERED_AT_KEY)]
    there = _a_day_ago(catalog.modalities, rows, clock) if rows else set()
    return [row for row in rows if _identity(row) in there]


def _a_day_ago(table: CatalogTable[ModalityRow], rows: Iterable[ModalityRow], clock: Clock) -> set[_Identity]:
    """Which rows of these recordings the table had then."""
    version = table.listed(clock, "_delta_log/").newest_settled(ORPHAN_AFTER)
    if version is None:
        return set()
    condition = by_rec_id({row.rec_id for row in rows})
    sql = f"SELECT * FROM modalities WHERE {condition}"
    then = table.run(sql, {"modalities": table.at(version)}, {"modalities": condition})
    return {_identity(row) for row in table.kind.rows(then)}


def _identity(row: ModalityRow) -> _Identity:
    return row.rec_id, row.recording_hash, row.modality, row.worker_id, row.metadata.get(REGISTERED_AT_KEY, "")


def _remove_orphans(catalog: Catalog, clock: Clock, operation_id: str, removed: list[ModalityRow]) -> None:
    """Remove them by compare-and-swap, looked for again in fresh recordings before each commit; tells ``removed``."""
    while True:
        tries: _Tries = []

        def decide(tries: _Tries = tries) -> Change[ModalityRow] | None:
            catalog.recordings.refresh()
            batch = _orphans(catalog, clock)[:_REMOVED_AT_ONCE]
            if not batch:
                return None
            tries.append((Change((), these_modalities(batch), "compact", operation_id), batch))
            return tries[-1][0]

        try:
            landed = catalog.modalities.compare_and_swap(decide)
        except FrozenError as error:
            raise frozen_error(str(error)) from None
        if landed is None:
            return
        removed += next(batch for change, batch in tries if change is landed)
