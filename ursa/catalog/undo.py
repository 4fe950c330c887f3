"""Back to just after an operation: planned first, then the rows that differ are written by key, as registrations are.

What an operation that is still under way has written, or writes meanwhile, is left alone: nobody sees it yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ursa.catalog.catalog import Catalog, frozen_error
from ursa.catalog.compare import Seen, Snapshot, Turn, modality_key, participants, snapshot, turns
from ursa.catalog.history import Operation, marked, operations, read_commits
from ursa.catalog.metadata import workers_of
from ursa.catalog.rows import ParticipantRow
from ursa.catalog.tables import RETENTION_DAYS, CatalogTable, FrozenError
from ursa.catalog.targets import target_versions
from ursa.catalog.turning import OvertakenError, Turning
from ursa.catalog.where import by_rec_id
from ursa.errors import MissingFilesError, StorageError, UsageError, named

Look = Callable[[Sequence[Seen]], Iterable[str]]
"""Of rows that would be claimed anew, the files (``rec_id/path``) that are not in the bucket as the rows have them."""

_OTHERWISE = (
    "Otherwise go back to another operation; recordings that are whole in the bucket are registered by"
    " `ursa ingest-r2 REC_ID...`."
)


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What an undo would do.

    ``disappear``, ``reappear``, ``change``: rec_ids, sorted. ``targets``: table → the version whose rows it gets;
    ``seen``: table → its version when the plan was made, the same where nothing is to do. ``missing``: files of what
    would come back or change that are not in the bucket (any more); then it is refused. ``prefix``: the catalog.
    ``turns``: rec_id → its rows now and then; ``participants``: rows that come back or change; ``leaving``: ids.
    """

    operation: Operation
    disappear: tuple[str, ...]
    reappear: tuple[str, ...]
    change: tuple[str, ...]
    targets: Mapping[str, int]
    seen: Mapping[str, int]
    missing: tuple[str, ...] = ()
    prefix: str = ""
    turns: Mapping[str, Turn] = field(default_factory=dict, repr=False)
    participants: tuple[ParticipantRow, ...] = field(default=(), repr=False)
    leaving: tuple[str, ...] = field(default=(), repr=False)

    @property
    def nothing(self) -> bool:
        """Whether the catalog is as it was then."""
        return self.targets == self.seen

    def refuse_missing(self) -> None:
        """Raises ``MissingFilesError`` where it would register anew what is not in the bucket."""
        refuse_missing(self.missing, self.operation.operation_id, _OTHERWISE)


def plan_undo(catalog: Catalog, operation_id: str, look: Look = lambda _claims: ()) -> UndoPlan:
    """What it takes to get back to just after an operation; a prefix of its id is enough. Writes nothing.

    Raises:
        UsageError: no operation has that id, or several have.
        StorageError: a rebuild has frozen the catalog, or the rows of that time are gone for good.
    """
    with catalog.lock:
        # Where a rebuild has put another catalog in this one's place, the history is that one's.
        commits = read_commits(catalog)
        _refuse_frozen(catalog)
        found = marked(operations(commits))
        operation = _find(found, operation_id)
        _refuse_half_filled(found, operation)
        try:
            targets, differing = _then(catalog, target_versions(commits, operation.operation_id))
            rows, leaving = participants(catalog, snapshot(catalog, targets))
        except StorageError as error:
            raise _too_old(operation, error) from error
        seen = {name: table.version for name, table in _tables(catalog).items()}
        same = {
            "recordings": all(turn.now.recordings == turn.then.recordings for turn in differing.values()),
            "modalities": all(turn.now.modalities == turn.then.modalities for turn in differing.values()),
            "participants": not rows and not leaving,
        }
        prefix = catalog.pointer.prefix
    return UndoPlan(
        operation,
        disappear=tuple(name for name, turn in differing.items() if not turn.then.recordings),
        reappear=tuple(name for name, turn in differing.items() if not turn.now.recordings),
        change=tuple(name for name, turn in differing.items() if turn.now.recordings and turn.then.recordings),
        targets={name: seen[name] if same[name] else version for name, version in targets.items()},
        seen=seen,
        missing=missing_of(differing, look),
        prefix=prefix,
        turns=differing,
        participants=tuple(rows),
        leaving=tuple(leaving),
    )


def undo(catalog: Catalog, plan: UndoPlan, look: Look = lambda _claims: ()) -> None:
    """Do what the plan says, and no more. Killed in between, a new plan to the same operation ends the same.

    Raises:
        MissingFilesError: files of what would come back or change are not in the bucket. Nothing was changed.
        StorageError: somebody has changed recordings since the plan was made, a rebuild is under way, or the server
            fails. The message says how far it came.
    """
    if plan.nothing:
        return
    refuse_missing(missing_of(plan.turns, look), plan.operation.operation_id, _OTHERWISE)
    with catalog.lock:
        then = _as_planned(catalog, plan)
        turning = Turning(catalog, then, plan.turns, plan.participants, plan.leaving)
        try:
            turning.run()
        except FrozenError as error:
            raise _stopped(f"a rebuild has frozen the catalog, {error} is to take its place", turning.so_far) from None
        except OvertakenError as error:
            raise _overtaken(error.rec_ids, turning.so_far) from None
        finally:
            catalog.forget_participants()
        live = catalog.home.pointer().prefix
        if live != plan.prefix:
            raise _stopped(f"a rebuild has put {live} in this catalog's place meanwhile", turning.so_far)


def refuse_missing(missing: Sequence[str], then: str, otherwise: str) -> None:
    """Raises ``MissingFilesError`` where there are some.

    Args:
        missing: ``rec_id/path`` each.
        then: what is gone back to.
        otherwise: what to do where they can't be brought back, a sentence.
    """
    if not missing:
        return
    many = "1 file that is" if len(missing) == 1 else f"{len(missing)} files that are"
    raise MissingFilesError(
        f"can't go back to {then}: it would register {many} not in the bucket as registered then:"
        f" {named(list(missing))}",
        hint=f"Nothing was changed. Bring the files back (the NAS, the bucket's history), then try again. {otherwise}",
        paths=tuple(missing),
    )


def missing_of(differing: Mapping[str, Turn], look: Look) -> tuple[str, ...]:
    """What ``look`` says of the rows that these recordings would get."""
    claims = [turn.claims for turn in differing.values()]
    claims = [claim for claim in claims if claim.recordings or claim.modalities]
    return tuple(sorted(look(claims))) if claims else ()


def _as_planned(catalog: Catalog, plan: UndoPlan) -> Snapshot:
    """The catalog at the plan's versions, where it still takes the plan's rows to get there. Raises ``StorageError``."""
    catalog.refresh()
    if catalog.pointer.prefix != plan.prefix:
        raise _stopped("a rebuild has put another catalog in place since the undo was planned", "nothing was changed")
    _refuse_frozen(catalog)
    then = snapshot(catalog, plan.targets)
    now = turns(catalog, then)
    differing = {name for name in now.keys() | plan.turns.keys() if now.get(name) != plan.turns.get(name)}
    if differing:
        raise _overtaken(sorted(differing), "nothing was changed")
    return then


def _then(catalog: Catalog, targets: dict[str, int]) -> tuple[dict[str, int], dict[str, Turn]]:
    """The versions to go back to, and the recordings that differ."""
    differing = turns(catalog, snapshot(catalog, targets))
    while targets["modalities"] < catalog.modalities.version and _uncovered(catalog, differing):
        targets["modalities"] += 1
        differing = turns(catalog, snapshot(catalog, targets))
    return targets, differing


def _uncovered(catalog: Catalog, differing: Mapping[str, Turn]) -> bool:
    """Whether a recording would lack a modality that its own row covers, and that is there now.

    Operation ids do not tell where a run found its modalities written by another one, which died or came later.
    """
    lacking = {name: keys for name, turn in differing.items() if (keys := _lacking(turn.then))}
    if not lacking:
        return False
    rows = catalog.modalities.select(by_rec_id(lacking))
    return any(modality_key(row) in lacking.get(row.rec_id, ()) for row in rows)


def _lacking(seen: Seen) -> set[tuple[str, str, str]]:
    covered = {(row.recording_hash, *worker) for row in seen.recordings for worker in workers_of(row) or ()}
    return covered - {modality_key(row) for row in seen.modalities}


def _tables(catalog: Catalog) -> dict[str, CatalogTable[Any]]:
    return {table.kind.name: table for table in (catalog.recordings, catalog.modalities, catalog.participants)}


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


def _refuse_half_filled(found: Sequence[Operation], operation: Operation) -> None:
    """A rebuild fills a catalog in several commits: before its last one it was half filled, and not yet live."""
    names = [item.operation_id for item in found]
    oldest = next((item for item in found if item.filled), None)
    if oldest is not None and names.index(operation.operation_id) > names.index(oldest.operation_id):
        raise UsageError(
            f"{operation.operation_id[:12]} is from before a rebuild had filled this catalog: then it was not live, and not"
            " whole",
            hint=f"The oldest operation to undo to is {oldest.operation_id[:12]}; `ursa catalog rebuild --back` goes back to"
            " the catalog before the rebuild.",
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


def _stopped(why: str, so_far: str) -> StorageError:
    return StorageError(
        f"{why}: {so_far}",
        hint="Run the same command again: it plans anew, and shows what would disappear now.",
        operation="undo",
    )


def _overtaken(rec_ids: Sequence[str], so_far: str) -> StorageError:
    return _stopped(
        "somebody has written to the catalog since the undo was planned",
        f"{so_far}. What would disappear, come back or change is not what the plan showed: {named(list(rec_ids))}",
    )
