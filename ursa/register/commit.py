"""Step 7: the rows. Participants and modalities first, the recording's row last: it is the commit point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ursa.catalog.catalog import Catalog
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.catalog.tables import Change
from ursa.catalog.where import by_hash, literal
from ursa.errors import StorageError
from ursa.policies import Action
from ursa.register.decide import Decision, decide, identify

_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Registration:
    """What one run wants in the catalog. ``stated_hash``: what its manifest states, None where it was derived."""

    row: RecordingRow
    modalities: tuple[ModalityRow, ...]
    participants: tuple[str, ...]
    stated_hash: str | None
    overwrite: bool


class _OvertakenError(Exception):
    """Somebody registered this recording meanwhile: decide again."""


def register(catalog: Catalog, wanted: Registration) -> tuple[RecordingRow, Action]:
    """Write the rows; returns the recording's row as it is in the catalog now, and what was done.

    Decides again after every lost race, and again in the new catalog where a rebuild flipped the pointer meanwhile.

    Raises:
        RecordingExistsError, ConflictError: as ``ursa.register.decide`` says; nothing of the recording is written.
    """
    with catalog.lock:
        for _ in range(_ROUNDS):
            try:
                outcome = _register_once(catalog, wanted)
            except _OvertakenError:
                catalog.refresh()
                continue
            if not catalog.follow_pointer():
                return outcome
        raise StorageError(
            f"can't register {wanted.row.rec_id}: other writers changed it {_ROUNDS} times meanwhile",
            hint="Run the same command again: what is in the bucket is skipped.",
        )


def _register_once(catalog: Catalog, wanted: Registration) -> tuple[RecordingRow, Action]:
    # The snapshot may be as old as the upload took: somebody may have registered this recording since.
    catalog.refresh()
    decision = _decide(catalog, wanted)

    def overtaken() -> None:
        catalog.recordings.refresh()
        _same_decision(catalog, wanted, decision)

    with ThreadPoolExecutor(1) as beside:
        ids = beside.submit(catalog.ensure_participants, wanted.participants)
        if decision.action is Action.MERGED:
            # The recording first: a killed merge then shows as a missing worker, which the next run adds.
            ids.result()
            row = _write_recording(catalog, wanted, decision)
            _write_modalities(catalog, decision.modalities)
        else:
            _write_modalities(catalog, decision.modalities, guard=overtaken)
            ids.result()
            row = _write_recording(catalog, wanted, decision)
    _check_participants(row, ids.result(), wanted)
    _check_modalities(catalog, decision.modalities)
    return row, decision.action


def _decide(catalog: Catalog, wanted: Registration) -> Decision:
    rows = catalog.lookup(rec_id=wanted.row.rec_id, recording_hash=wanted.row.recording_hash)
    existing = identify(rows, wanted.row.rec_id, wanted.stated_hash)
    registered = catalog.modalities_of(existing.recording_hash) if existing else []
    return decide(existing, registered, wanted.row, wanted.modalities, overwrite=wanted.overwrite)


def _write_recording(catalog: Catalog, wanted: Registration, first: Decision) -> RecordingRow:
    written: list[RecordingRow] = []
    seen = catalog.recordings.version

    def change() -> Change[RecordingRow]:
        nonlocal seen
        if catalog.recordings.version != seen:
            # Somebody has committed: what they cover is judged by modalities that are as new.
            seen = catalog.recordings.version
            catalog.modalities.refresh()
        decision = _same_decision(catalog, wanted, first)
        written[:] = [decision.row]
        replacing = None if decision.action is Action.CREATED else f"rec_id = {literal(decision.row.rec_id)}"
        return Change([decision.row], replacing, f"ingest:{decision.action}")

    catalog.recordings.compare_and_swap(change)
    return written[0]


def _same_decision(catalog: Catalog, wanted: Registration, first: Decision) -> Decision:
    """Decide again. Raises ``_OvertakenError`` where somebody has registered this recording since ``first``."""
    decision = _decide(catalog, wanted)
    if (decision.action, decision.row.recording_hash) != (first.action, first.row.recording_hash):
        raise _OvertakenError
    return decision


def _write_modalities(catalog: Catalog, rows: Sequence[ModalityRow], guard: Callable[[], None] = lambda: None) -> None:
    """Insert or replace by key; rows that are there already, equal, are not written again.

    ``guard`` is called before rows that differ are replaced: they may be of somebody who has committed meanwhile.
    """

    def change() -> Change[ModalityRow] | None:
        there = {(row.modality, row.worker_id): row for row in _present(catalog, rows)}
        new = [row for row in rows if _without_time(there.get((row.modality, row.worker_id))) != _without_time(row)]
        if not new:
            return None
        replaced = [row for row in new if (row.modality, row.worker_id) in there]
        predicate = None
        if replaced:
            guard()
            keys = " OR ".join(
                f"(modality = {literal(row.modality)} AND worker_id = {literal(row.worker_id)})" for row in new
            )
            predicate = f"recording_hash = {literal(new[0].recording_hash)} AND ({keys})"
        return Change(new, predicate, "ingest:modalities")

    if rows:
        catalog.modalities.compare_and_swap(change)


def _present(catalog: Catalog, rows: Sequence[ModalityRow]) -> list[ModalityRow]:
    return catalog.modalities.select(by_hash(row.recording_hash for row in rows))


def _without_time(row: ModalityRow | None) -> ModalityRow | None:
    return replace(row, metadata={}) if row else None


def _check_modalities(catalog: Catalog, rows: Sequence[ModalityRow]) -> None:
    """Look once more that our modalities are there: a run that lost may have written over them before it knew."""
    for _ in range(_ROUNDS):
        before = catalog.modalities.version
        catalog.modalities.refresh()
        if catalog.modalities.version == before:
            # Nobody has written since we did, or since we saw that they were there.
            return
        there = {(row.modality, row.worker_id): _without_time(row) for row in _present(catalog, rows)} if rows else {}
        missing = [row for row in rows if there.get((row.modality, row.worker_id)) != _without_time(row)]
        if not missing:
            return
        _write_modalities(catalog, missing)
    raise StorageError(
        "another run keeps writing other rows for the same workers",
        hint="Stop the other run, then run this one again with --overwrite.",
    )


def _check_participants(row: RecordingRow, ids: Sequence[str], wanted: Registration) -> None:
    if not set(ids) <= set(row.participant_ids):
        raise StorageError(f"{wanted.row.rec_id} was written without its participants {ids}; please report this")
