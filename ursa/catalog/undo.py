"""Back to just after an operation: all three tables, planned first, and only while nobody else commits."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ursa.catalog.arrow import RECORDINGS
from ursa.catalog.catalog import Catalog, frozen_error
from ursa.catalog.difference import Differing, differences
from ursa.catalog.history import Operation, operations, read_commits
from ursa.catalog.metadata import workers_of
from ursa.catalog.reading import frozen_for
from ursa.catalog.tables import RETENTION_DAYS, CatalogTable, Change, LostRaceError
from ursa.catalog.targets import target_versions
from ursa.catalog.where import any_of, by_rec_id
from ursa.errors import StorageError, UsageError

_KEYS = {
    "recordings": ("rec_id", "recording_hash"),
    "modalities": ("rec_id", "recording_hash", "modality", "worker_id"),
    "participants": ("participant_id",),
}


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What an undo would do.

    ``disappear``, ``reappear``, ``change``: rec_ids, sorted. ``targets``: table → the version whose rows it gets;
    ``seen``: table → its version when the plan was made.
    """

    operation: Operation
    disappear: tuple[str, ...]
    reappear: tuple[str, ...]
    change: tuple[str, ...]
    targets: Mapping[str, int]
    seen: Mapping[str, int]

    @property
    def nothing(self) -> bool:
        """Whether the catalog is as it was then."""
        return self.targets == self.seen


def plan_undo(catalog: Catalog, operation_id: str) -> UndoPlan:
    """What it takes to get back to just after an operation; a prefix of its id is enough. Writes nothing.

    Raises:
        UsageError: no operation has that id, or several have.
        StorageError: a rebuild has frozen the catalog, or the rows of that time are gone for good.
    """
    with catalog.lock:
        commits = read_commits(catalog)
        _refuse_frozen(catalog)
        operation = _find(operations(commits), operation_id)
        tables = _tables(catalog)
        targets = target_versions(commits, operation.operation_id)
        try:
            targets = {name: _unfrozen(table, targets[name]) for name, table in tables.items()}
            recordings = _differences(catalog.recordings, targets)
            modalities = _differences(catalog.modalities, targets)
            while _uncovered(catalog, targets, recordings, modalities):
                targets["modalities"] += 1
                modalities = _differences(catalog.modalities, targets)
            participants = _differences(catalog.participants, targets)
        except StorageError as error:
            raise _too_old(operation, error) from error
        same = {"recordings": not recordings, "modalities": not modalities, "participants": not participants}
        seen = {name: table.version for name, table in tables.items()}
        # A table whose rows are the same stays as it is, compacted or not.
        targets = {name: seen[name] if same[name] else version for name, version in targets.items()}
    return _plan(operation, recordings, modalities, targets, seen, catalog)


def undo(catalog: Catalog, plan: UndoPlan) -> None:
    """Do what the plan says. Killed in between, a new plan to the same operation ends the same.

    No reader sees a recording without its modalities meanwhile: what disappears goes from the recordings first, what
    comes back comes to them last. Participants only ever serve a recording that is there.

    Raises:
        StorageError: somebody has committed since the plan was made, or the server fails. The message says how far it
            came.
    """
    with catalog.lock:
        catalog.refresh()
        catalog.participants.refresh()
        _refuse_frozen(catalog)
        if {name: table.version for name, table in _tables(catalog).items()} != plan.seen:
            raise _overtaken([])
        done: list[str] = []
        operation_id = uuid.uuid4().hex
        try:
            for name in _order(plan):
                if name == "disappear":
                    _take_away(catalog, plan.disappear, operation_id)
                elif plan.targets[name] != plan.seen[name]:
                    _tables(catalog)[name].restore(plan.targets[name], "undo", operation_id)
                    done.append(name)
        except LostRaceError:
            raise _overtaken(done) from None
        finally:
            catalog.forget_participants()


def _order(plan: UndoPlan) -> tuple[str, ...]:
    if not plan.reappear and not plan.change:
        return ("recordings", "modalities", "participants")
    first = ("disappear",) if plan.disappear else ()
    return (*first, "participants", "modalities", "recordings")


def _take_away(catalog: Catalog, rec_ids: Sequence[str], operation_id: str) -> None:
    change: Change[Any] = Change((), any_of("rec_id", rec_ids), "undo", operation_id)
    catalog.recordings.commit(change)


def _tables(catalog: Catalog) -> dict[str, CatalogTable[Any]]:
    return {table.kind.name: table for table in (catalog.recordings, catalog.modalities, catalog.participants)}


def _differences(table: CatalogTable[Any], targets: Mapping[str, int]) -> list[Differing]:
    version = targets[table.kind.name]
    if version == table.version:
        return []
    return differences(table, table.at(version), _KEYS[table.kind.name])


def _unfrozen(table: CatalogTable[Any], version: int) -> int:
    """The newest version up to this one that is not frozen; nothing is written while one is, so the rows are the same."""
    while version and version != table.version and frozen_for(table.at(version)):
        version -= 1
    return version


def _uncovered(
    catalog: Catalog, targets: Mapping[str, int], recordings: Iterable[Differing], modalities: Iterable[Differing]
) -> bool:
    """Whether a recording that stays would lose a modality that its own row covers.

    Operation ids do not tell where a run found its modalities written by another one, which died or came later.
    """
    if targets["modalities"] >= catalog.modalities.version:
        return False
    leaving = {item.key for item in recordings if item.gone}
    losing: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for item in modalities:
        if item.gone and item.key[:2] not in leaving:
            losing.setdefault(item.key[:2], set()).add(item.key[2:])
    if not losing:
        return False
    then = catalog.recordings.at(targets["recordings"])
    sql = f"SELECT * FROM other WHERE {by_rec_id(rec_id for rec_id, _ in losing)}"
    rows = RECORDINGS.rows(catalog.recordings.query_with(sql, {"other": then}))
    return any(losing.get((row.rec_id, row.recording_hash), set()) & (workers_of(row) or set()) for row in rows)


def _plan(
    operation: Operation,
    recordings: Sequence[Differing],
    modalities: Sequence[Differing],
    targets: Mapping[str, int],
    seen: Mapping[str, int],
    catalog: Catalog,
) -> UndoPlan:
    gone = {item.key[0] for item in recordings if item.gone}
    back = {item.key[0] for item in recordings if item.back}
    moved = {item.key[0] for item in (*recordings, *modalities)} - (gone ^ back)
    with catalog.lock:
        # Of modality rows that belong to no recording nobody sees anything.
        visible = {row.rec_id for row in catalog.lookup_all(moved, ())}
    return UndoPlan(
        operation,
        tuple(sorted(gone - back)),
        tuple(sorted(back - gone)),
        tuple(sorted(moved & visible)),
        targets,
        seen,
    )


def _find(found: Sequence[Operation], operation_id: str) -> Operation:
    matching = [item for item in found if operation_id and item.operation_id.startswith(operation_id)]
    exact = [item for item in matching if item.operation_id == operation_id]
    if len(exact or matching) == 1:
        return (exact or matching)[0]
    oldest = min((item.at for item in found), default=None)
    if not matching:
        reach = f", which reaches back to {oldest:%Y-%m-%d %H:%M}Z" if oldest else ""
        raise UsageError(
            f"no operation {operation_id!r} in the catalog's history{reach}",
            hint="`ursa catalog history` lists the operations. What is older than 90 days can't be undone.",
        )
    raise UsageError(
        f"{operation_id!r} is not unique: {len(matching)} operations start with it",
        hint="Write more of the operation's id; `ursa catalog history` lists them.",
    )


def _refuse_frozen(catalog: Catalog) -> None:
    for table in _tables(catalog).values():
        if table.frozen:
            raise frozen_error(table.frozen)


def _too_old(operation: Operation, error: StorageError) -> StorageError:
    if datetime.now(UTC) - operation.at < timedelta(days=RETENTION_DAYS):
        return error
    return StorageError(
        f"can't go back to {operation.operation_id}: it is of {operation.at:%Y-%m-%d}, and rows that were replaced are"
        f" kept for {RETENTION_DAYS} days",
        hint="Nothing was changed. `ursa catalog history` lists the operations; choose a newer one.",
        operation="undo",
    )


def _overtaken(done: Sequence[str]) -> StorageError:
    so_far = f"{', '.join(done)} restored, the rest not yet" if done else "nothing was changed"
    return StorageError(
        f"somebody has written to the catalog since the undo was planned: {so_far}",
        hint="Run the same command again: it plans anew, and shows what would disappear now.",
        operation="undo",
    )
