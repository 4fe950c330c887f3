"""The rows of one or several recordings, in one commit a table.

Participants and modalities first, the recordings' rows last: a recording's row is its commit point. In a group each
recording is decided alone, again after every lost race: one that is refused, or overtaken by somebody else, leaves the
group and takes nobody with it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ursa.beside import at_once
from ursa.catalog.catalog import Catalog
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.catalog.tables import Change
from ursa.catalog.where import any_of, these_modalities
from ursa.errors import RecordingExistsError, StorageError, UrsaError, unexpected
from ursa.policies import Action
from ursa.register.build import Registration
from ursa.register.decide import Decision, decide, identify

_ROUNDS = 20
# A predicate names every row that a commit replaces; longer ones make the query planner slow.
_REPLACED_AT_ONCE = 100

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Registered:
    """A recording's row as it is in the catalog now, and what was done."""

    row: RecordingRow
    action: Action


def register(catalog: Catalog, wanted: Registration) -> tuple[RecordingRow, Action]:
    """Write the rows of one recording. Raises what ``register_all`` returns."""
    (outcome,) = register_all(catalog, [wanted])
    if isinstance(outcome, UrsaError):
        raise outcome
    return outcome.row, outcome.action


def register_all(catalog: Catalog, wanted: Sequence[Registration]) -> list[Registered | UrsaError]:
    """Write the rows of several recordings; an outcome each, in their order.

    Decides again after every lost race, and again in the new catalog where a rebuild flipped the pointer meanwhile.
    A refusal is ``RecordingExistsError`` or ``ConflictError`` as ``ursa.register.decide`` says, or ``StorageError``:
    then nothing of that recording is visible, unless its message says that its row is written.
    """
    outcomes: dict[int, Registered | UrsaError] = {}
    committed: dict[int, Registered] = {}
    with catalog.lock:
        began_in = catalog.pointer.prefix
        for _ in range(_ROUNDS):
            group = _without_doubles({i: item for i, item in enumerate(wanted) if i not in outcomes})
            if not group:
                break
            done = _attempt(catalog, group, committed)
            if catalog.pointer.prefix != began_in:
                done = {i: _after_flip(catalog, wanted[i], done[i], committed.get(i)) for i in done}
            outcomes |= done
    return [outcomes.get(i) or _outrun(item) for i, item in enumerate(wanted)]


def _attempt(
    catalog: Catalog, group: Mapping[int, Registration], committed: dict[int, Registered]
) -> dict[int, Registered | UrsaError]:
    try:
        return dict(catalog.write(lambda: _Round(catalog, group, committed).run()))
    except UrsaError as error:
        return {i: _unfinished(committed[i], error) if i in committed else error for i in group}


def _unfinished(written: Registered, error: UrsaError) -> StorageError:
    return StorageError(
        f"the row of {written.row.rec_id} is written, but what comes after it failed: {error.message}",
        hint="Run the same command again: it finishes this, or says that all is there.",
    )


def _after_flip(
    catalog: Catalog, wanted: Registration, outcome: Registered | UrsaError, before: Registered | None
) -> Registered | UrsaError:
    """Where the rebuild had taken our rows over, or had found our bytes before we came to register them."""
    if isinstance(outcome, Registered) and before:
        # What was merged into the rebuild's row is what we had registered.
        return Registered(outcome.row, before.action)
    if not isinstance(outcome, RecordingExistsError):
        return outcome
    try:
        row = catalog.write(lambda: _with_participants(catalog, wanted))
    except UrsaError as error:
        return error
    return Registered(row, before.action if before else Action.MERGED) if row else before or outcome


def _with_participants(catalog: Catalog, wanted: Registration) -> RecordingRow | None:
    """What a rebuild can't know: add the participants of this run to the row that it made. None where they are there."""
    ids = catalog.ensure_participants(wanted.participants)

    def change() -> Change[RecordingRow] | None:
        rows = catalog.lookup(rec_id=wanted.row.rec_id, recording_hash=None)
        made = [replace(row, participant_ids=tuple(sorted({*row.participant_ids, *ids}))) for row in rows]
        if not set(ids) - {key for row in rows for key in row.participant_ids}:
            made.clear()
        return Change(made, any_of("rec_id", [wanted.row.rec_id]), "ingest:participants") if made else None

    landed = catalog.recordings.compare_and_swap(change)
    return landed.rows[0] if landed else None


def _outrun(wanted: Registration) -> StorageError:
    return StorageError(
        f"can't register {wanted.row.rec_id}: other writers changed it {_ROUNDS} times meanwhile",
        hint="Run the same command again: what is in the bucket is skipped.",
    )


def _without_doubles(wanted: Mapping[int, Registration]) -> dict[int, Registration]:
    """The first of several that are the same recording by rec_id or by hash; the others have the next round."""
    group: dict[int, Registration] = {}
    taken: set[str] = set()
    for i, item in wanted.items():
        names = {item.row.rec_id, item.row.recording_hash}
        if taken.isdisjoint(names):
            group[i] = item
            taken |= names
    return group


class _Round:
    """One attempt at a group: whoever is overtaken meanwhile has no outcome, and comes again in the next round.

    ``committed`` gets every member whose recording's row is written, also where a rebuild's freeze ends the attempt.
    """

    def __init__(self, catalog: Catalog, wanted: Mapping[int, Registration], committed: dict[int, Registered]) -> None:
        self.catalog = catalog
        self.wanted = wanted
        self.committed = committed
        self.operation_id = uuid.uuid4().hex
        self.decided: dict[int, Decision] = {}
        self.outcomes: dict[int, Registered | UrsaError] = {}

    def run(self) -> Mapping[int, Registered | UrsaError]:
        # The snapshot may be as old as the upload took: somebody may have registered these recordings since.
        ready_at = max(item.ready_at for item in self.wanted.values())
        began = time.monotonic()
        self.catalog.refresh(within_s=max(0.0, began - ready_at))
        decided = self._decide(self.wanted)
        refused = {i: self.wanted[i] for i, decision in decided.items() if isinstance(decision, UrsaError)}
        if refused and self.catalog.refreshed_at < began:
            # What is written is compared with the tables as they are then. A refusal writes nothing: it is decided by now.
            self.catalog.refresh()
            decided |= self._decide(refused)
        for i, decision in decided.items():
            if isinstance(decision, UrsaError):
                self.outcomes[i] = decision
            else:
                self.decided[i] = decision
        merging = [i for i, decision in self.decided.items() if decision.action is Action.MERGED]
        if merging:
            # The recording first: a killed merge then shows as a missing worker, which the next run adds.
            self._ensure_participants()
            self._write_recordings(merging)
        at_once(lambda: self._write_modalities(self._modalities()), self._ensure_participants)
        self._write_recordings([i for i in self.decided if i not in merging])
        return self._confirmed()

    def _ensure_participants(self) -> None:
        names = [name for i in self.decided for name in self.wanted[i].participants]
        self.catalog.ensure_participants(names, self.operation_id)

    def _confirmed(self) -> Mapping[int, Registered | UrsaError]:
        """After the commits: are our modalities there, in the catalog that is live? Where that can't be told, nobody may be
        told that all is well.
        """
        try:
            flipped = self._look_again()
        except UrsaError as error:
            written = {i: item for i, item in self.outcomes.items() if isinstance(item, Registered)}
            return self.outcomes | {i: _unfinished(item, error) for i, item in written.items()}
        if flipped:
            # What was committed may have come too late for the rebuild, and who was refused may not be there any more: ask
            # the catalog that is live now.
            return {}
        return self.outcomes

    def _decide(self, wanted: Mapping[int, Registration]) -> dict[int, Decision | UrsaError]:
        """Each alone, by what the tables say as they are open now."""
        rows = self._lookup(item.row for item in wanted.values())
        by_rec_id = {row.rec_id: row for row in rows}
        by_hash = {row.recording_hash: row for row in rows}
        registered: dict[str, list[ModalityRow]] = {}
        existing = [by_rec_id[item.row.rec_id] for item in wanted.values() if item.row.rec_id in by_rec_id]
        for modality in self.catalog.modalities_for(existing) if existing else ():
            registered.setdefault(modality.recording_hash, []).append(modality)
        decided: dict[int, Decision | UrsaError] = {}
        for i, item in wanted.items():
            same = [by_rec_id.get(item.row.rec_id), by_hash.get(item.row.recording_hash)]
            try:
                own = identify([row for row in same if row], item.row.rec_id, item.stated_hash)
                there = registered.get(own.recording_hash, []) if own else []
                decided[i] = decide(
                    own, there, item.row, item.modalities, overwrite=item.overwrite, replaced=item.replaced
                )
            except UrsaError as error:
                decided[i] = error
            except Exception as error:  # noqa: BLE001  (one member's, not the group's)
                decided[i] = unexpected(error, item.row.rec_id)
        return decided

    def _lookup(self, rows: Iterable[RecordingRow]) -> list[RecordingRow]:
        """Rows with any of these rec_ids or hashes."""
        names = [(row.rec_id, row.recording_hash) for row in rows]
        return self.catalog.lookup_all([name for name, _ in names], [digest for _, digest in names])

    def _still(self, members: Iterable[int]) -> list[int]:
        """Those that would be decided as at first; the others are overtaken, and dropped."""
        first = {i: self.decided[i] for i in members if i in self.decided}
        again = self._decide({i: self.wanted[i] for i in first})
        for i, decision in again.items():
            if isinstance(decision, UrsaError) or _gist(decision) != _gist(first[i]):
                del self.decided[i]
                # Where its recording is written already, another run has finished that merge: it is no success of ours.
                self.outcomes.pop(i, None)
            else:
                self.decided[i] = decision
        return [i for i in first if i in self.decided]

    def _write_recordings(self, members: Sequence[int]) -> None:
        catalog = self.catalog
        seen = catalog.recordings.version
        tries: list[tuple[Change[RecordingRow], dict[int, Decision]]] = []

        def change() -> Change[RecordingRow] | None:
            nonlocal seen
            if catalog.recordings.version != seen:
                # Somebody has committed: what they cover is judged by modalities that are as new.
                seen = catalog.recordings.version
                catalog.modalities.refresh()
            decided = {i: self.decided[i] for i in self._still(members)}
            rows = [decision.row for decision in decided.values()]
            if not rows:
                return None
            actions = {decision.action for decision in decided.values()}
            replacing = None if actions == {Action.CREATED} else any_of("rec_id", [row.rec_id for row in rows])
            made = Change(rows, replacing, f"ingest:{'+'.join(sorted(actions))}", self.operation_id)
            tries.append((made, decided))
            return made

        if members:
            landed = catalog.recordings.compare_and_swap(change)
            # What landed may be an earlier attempt, of members that were decided otherwise since: it is what counts.
            decided = next((decided for made, decided in tries if made is landed), {})
            self.decided |= decided
            done = {i: Registered(decision.row, decision.action) for i, decision in decided.items()}
            self.outcomes |= done
            self.committed |= done

    def _modalities(self) -> dict[_Key, tuple[ModalityRow, int]]:
        """The modality rows to write, with the member that each belongs to."""
        return {_key(row): (row, i) for i, decision in self.decided.items() for row in decision.modalities}

    def _write_modalities(self, wanted: Mapping[_Key, tuple[ModalityRow, int]], *, checked: bool = False) -> None:
        """Insert or replace by key; rows that are there already, equal, are not written again.

        Before rows that differ are replaced, their members are decided again unless ``checked``: the rows may be of
        somebody who has committed meanwhile.
        """
        more = bool(wanted)
        last: Change[ModalityRow] | None = None

        def change() -> Change[ModalityRow] | None:
            nonlocal last
            last = following()
            return last

        def following() -> Change[ModalityRow] | None:
            nonlocal more
            left = {key: (row, i) for key, (row, i) in wanted.items() if i in self.decided}
            there = self._present(row for row, _ in left.values())
            new = [row for key, (row, _) in left.items() if key not in there]
            other = {key: i for key, (row, i) in left.items() if key in there and not _same(there[key], row)}
            more = bool(new and other) or len(other) > _REPLACED_AT_ONCE
            if new:
                return Change(new, None, "ingest:modalities", self.operation_id)
            if other and not checked:
                self.catalog.recordings.refresh()
                self._still(set(other.values()))
            rows = [left[key][0] for key, i in other.items() if i in self.decided][:_REPLACED_AT_ONCE]
            return Change(rows, these_modalities(rows), "ingest:modalities", self.operation_id) if rows else None

        while more:
            landed = self.catalog.modalities.compare_and_swap(change)
            if landed is None:
                return
            # Where an earlier attempt landed, look again what is left.
            more = more or landed is not last

    def _present(self, rows: Iterable[ModalityRow]) -> dict[_Key, ModalityRow]:
        recordings = {row.recording_hash: RecordingRow(row.recording_hash, row.rec_id) for row in rows}
        return {_key(row): row for row in self.catalog.modalities_for(recordings.values())} if recordings else {}

    def _unchanged(self) -> set[int]:
        """Members whose recording's row is still the one that we wrote: of any other, somebody else has decided since."""
        self.catalog.recordings.refresh()
        ours = {i: item.row for i, item in self.outcomes.items() if isinstance(item, Registered)}
        now = {row.rec_id: row for row in self._lookup(ours.values())} if ours else {}
        return {i for i, row in ours.items() if now.get(row.rec_id) == row}

    def _names(self) -> list[str]:
        return [name for i in self.outcomes for name in self.wanted[i].participants]

    def _look_again(self) -> bool:
        """Look once more that our modalities are there: a run that lost may have written over them before it knew; and
        beside that whether another catalog is live by now. Returns whether one is.
        """
        table, people = self.catalog.modalities, self.catalog.participants
        for _ in range(_ROUNDS):
            before, named = table.version, people.version
            # Where others are at the catalog: an undo may have taken names away that no recording had when it looked.
            others = any(each.replica.others_lately() for each in self.catalog.tables)
            if self.catalog.follow_pointer(table, *([people] if others else [])):
                return True
            if people.version != named:
                self.catalog.ensure_participants(self._names(), self.operation_id)
            if table.version == before:
                # Nobody has written since we did, or since we saw that they were there.
                return False
            ours = {key: entry for key, entry in self._modalities().items() if entry[1] in self._unchanged()}
            there = self._present(row for row, _ in ours.values())
            lost = {key: entry for key, entry in ours.items() if key not in there or _stray(there[key], entry[0])}
            if not lost:
                return False
            self._write_modalities(lost, checked=True)
        raise StorageError(
            "another run keeps writing other rows for the same workers",
            hint="Stop the other run, then run this one again with --overwrite.",
        )


def _stray(there: ModalityRow, ours: ModalityRow) -> bool:
    """Whether a run wrote this over our row. What an admin wrote on purpose (``register_modality``) is none of it."""
    by_a_run = there.status == ours.status and not there.metadata.keys() - ours.metadata.keys()
    return by_a_run and not _same(there, ours)


def _gist(decision: Decision) -> tuple[Action, str]:
    return decision.action, decision.row.recording_hash


def _key(row: ModalityRow) -> _Key:
    return row.recording_hash, row.modality, row.worker_id


def _same(one: ModalityRow, other: ModalityRow) -> bool:
    """Equal but for the time at which they were registered."""
    return replace(one, metadata={}) == replace(other, metadata={})
