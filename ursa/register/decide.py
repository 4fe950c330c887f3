"""What a registration means for the rows that are there: pure functions from rows to a decision.

Every decision is made again inside each compare-and-swap, so these functions are all that two writers can disagree on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ursa.catalog.metadata import (
    NODES_KEY,
    SIDECARS_KEY,
    WORKERS_KEY,
    sidecars_text,
    united_sidecars,
    unsettled,
    workers_of,
)
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.errors import ConflictError, RecordingExistsError, named
from ursa.manifest.times import FROM_REC_ID, TIME_AMBIGUOUS, TIME_ASSUMED
from ursa.policies import Action

_TIME_FLAGS = (TIME_ASSUMED, TIME_AMBIGUOUS, FROM_REC_ID)


@dataclass(frozen=True, slots=True)
class Decision:
    """The recording row to write and the modality rows to write under its hash."""

    action: Action
    row: RecordingRow
    modalities: tuple[ModalityRow, ...]


def identify(rows: Sequence[RecordingRow], rec_id: str, stated_hash: str | None) -> RecordingRow | None:
    """The row that this recording has already, of those found by rec_id or by hash.

    Raises:
        ConflictError: the rec_id is registered under another hash, or the hash under another rec_id.
    """
    own = next((row for row in rows if row.rec_id == rec_id), None)
    if own is not None and stated_hash is not None and own.recording_hash != stated_hash:
        raise ConflictError(
            f"{rec_id} is registered under recording_hash {own.recording_hash}, this manifest states {stated_hash}",
            hint="Nothing was registered. Find out which manifest is this recording's before going on.",
            rec_id=rec_id,
        )
    other = next((row for row in rows if row.rec_id != rec_id), None)
    if own is None and other is not None:
        raise ConflictError(
            f"recording_hash {other.recording_hash} of {rec_id} is registered already, as {other.rec_id}"
            + (
                ""
                if stated_hash
                else ": it is derived from the raw files, so both recordings hold exactly the same bytes"
            ),
            hint=f"Nothing was registered. Compare with `ursa show {other.rec_id}`."
            + (
                ""
                if stated_hash
                else f" Where {rec_id} is the same recording under another name, leave it. Where it is another one (both"
                " empty after a crash, say), write a recording_hash of its own into its manifest.json, 64 hex digits such"
                f" as `printf %s {rec_id} | sha256sum` prints, and run the same command again."
            ),
            rec_id=rec_id,
        )
    return own


def decide(
    existing: RecordingRow | None,
    registered: Sequence[ModalityRow],
    row: RecordingRow,
    modalities: Sequence[ModalityRow],
    *,
    overwrite: bool,
    replaced: Collection[str] = (),
) -> Decision:
    """What to write, given what is registered. ``replaced``: sidecars in the bucket that gave way to ours.

    Raises:
        RecordingExistsError: all of this is registered already.
        ConflictError: a worker is registered with other files.
    """
    if existing is None:
        return Decision(Action.CREATED, row, tuple(modalities))
    covered = workers_of(existing)
    there = {
        (item.modality, item.worker_id): item
        for item in registered
        if covered is None or (item.modality, item.worker_id) in covered
    }
    ours = {(item.modality, item.worker_id): item for item in modalities}
    under = tuple(replace(item, recording_hash=existing.recording_hash) for item in modalities)
    if overwrite:
        others_stay = bool(there.keys() - ours.keys())
        return Decision(Action.OVERWRITTEN, _overwritten(existing, row, others_stay, replaced), under)
    _refuse_differences(existing, row, there, ours)
    new = tuple(item for item in under if (item.modality, item.worker_id) not in there)
    if not new and not _paths(row.auxiliary_files) - _paths(existing.auxiliary_files):
        if not replaced and not unsettled(existing, row):
            raise exists(existing, row.participant_ids, _unsure(existing, row, there, ours))
        # A manifest or a name came late, no data: what somebody has written into the row since stays.
        row = _doubted_times(existing, row)
    return Decision(Action.MERGED, merged(existing, row, replaced), new)


def exists(existing: RecordingRow, participant_ids: Iterable[str] = (), unsure: int = 0) -> RecordingExistsError:
    """The error for a recording that is registered with the same files; ``unsure``: of how many only the size tells."""
    same = f"{unsure} of its files by size only" if unsure else "with the same files"
    if set(participant_ids) - set(existing.participant_ids):
        hint = "Its participants differ: --overwrite writes this run's."
    elif unsure:
        hint = f"Nothing was changed; `ursa verify {existing.rec_id} --level full` reads and proves them."
    else:
        hint = f"Nothing to do; `ursa verify {existing.rec_id}` proves that its bytes are still there."
    return RecordingExistsError(
        f"{existing.rec_id} is already registered, {same}, as {existing.recording_hash}",
        hint=f"{hint} See `ursa show {existing.rec_id}`.",
        rec_id=existing.rec_id,
        recording_hash=existing.recording_hash,
    )


def _unsure(
    existing: RecordingRow,
    row: RecordingRow,
    there: Mapping[tuple[str, str], ModalityRow],
    ours: Mapping[tuple[str, str], ModalityRow],
) -> int:
    """How many of our files are registered as claims, or as another object than the one that is there now."""
    files = {file.path: file for item in there.values() for file in item.files}
    files |= {file.path: file for file in existing.auxiliary_files}
    wanted = [file for item in ours.values() for file in item.files] + list(row.auxiliary_files)
    return sum(not files[file.path].proven or file.etag not in (None, files[file.path].etag) for file in wanted)


def merged(existing: RecordingRow, row: RecordingRow, replaced: Collection[str] = ()) -> RecordingRow:
    """Two halves of one recording: earliest start, latest end, longest duration, all participants.

    A time that was assumed never beats one that a manifest states. ``replaced`` as for ``decide``.
    """
    metadata = {key: value for key, value in {**row.metadata, **existing.metadata}.items() if key not in _TIME_FLAGS}
    start = _winner((existing, row), "started_at", min)
    end = _winner((existing, row), "ended_at", max)
    metadata |= _flags({"started_at": start, "ended_at": end})
    covered = workers_of(existing)
    if covered is not None:
        metadata[WORKERS_KEY] = json.dumps(sorted(covered | (workers_of(row) or set())), ensure_ascii=False)
    else:
        metadata.pop(WORKERS_KEY, None)
    nodes = {name for item in (existing, row) for name in item.metadata.get(NODES_KEY, "").split(",") if name}
    if nodes:
        metadata[NODES_KEY] = ",".join(sorted(nodes))
    beside = united_sidecars(existing, row, replaced)
    if beside:
        metadata[SIDECARS_KEY] = sidecars_text(beside)
    return replace(
        existing,
        started_at=start.started_at if start else None,
        ended_at=end.ended_at if end else None,
        duration_s=max((item.duration_s for item in (existing, row) if item.duration_s is not None), default=None),
        participant_ids=_union(existing.participant_ids, row.participant_ids),
        metadata=metadata,
        auxiliary_files=_united(existing.auxiliary_files, row.auxiliary_files),
    )


def differences(registered: ModalityRow, ours: ModalityRow) -> list[str]:
    """Paths of ours that are not registered with the same size and sha256; an unknown sha256 is not held against it."""
    return _differing(registered.files, ours.files)


def _refuse_differences(
    existing: RecordingRow,
    row: RecordingRow,
    there: Mapping[tuple[str, str], ModalityRow],
    ours: Mapping[tuple[str, str], ModalityRow],
) -> None:
    paths = [path for key, item in ours.items() if key in there for path in differences(there[key], item)]
    known = _paths(existing.auxiliary_files)
    paths += _differing(existing.auxiliary_files, [file for file in row.auxiliary_files if file.path in known])
    if paths:
        raise ConflictError(
            f"{existing.rec_id} is registered with other files than this directory has: {named(paths)}",
            hint="Nothing was registered. Find out which copy is right (`ursa show"
            f" {existing.rec_id}`); --overwrite registers this directory's files for its workers.",
            rec_id=existing.rec_id,
            paths=tuple(paths),
        )


def _differing(registered: Iterable[FileRow], ours: Iterable[FileRow]) -> list[str]:
    there = {file.path: file for file in registered}
    return [file.path for file in ours if not _same_file(there.get(file.path), file)]


def _paths(files: Iterable[FileRow]) -> set[str]:
    return {file.path for file in files}


def _united(known: Iterable[FileRow], ours: Iterable[FileRow]) -> tuple[FileRow, ...]:
    """Auxiliary files of both, ours where it is known as well or better: a claim takes no measurement's place."""
    files = {file.path: file for file in known}
    for file in ours:
        there = files.get(file.path)
        measured = there is not None and there.proven and not file.proven and there.sha256 == file.sha256
        if there is None or (file.sha256 is not None and not measured):
            files[file.path] = file
    return tuple(files[path] for path in sorted(files))


def _same_file(registered: FileRow | None, ours: FileRow) -> bool:
    if registered is None or registered.size_bytes != ours.size_bytes:
        return False
    return registered.sha256 is None or ours.sha256 is None or registered.sha256 == ours.sha256


def _doubted_times(existing: RecordingRow, row: RecordingRow) -> RecordingRow:
    """``row`` with only those times that ``existing`` does not know, or had to assume."""

    def sure(field: str) -> bool:
        known = getattr(existing, field) is not None
        return known and not any(_doubts(existing, flag, field) for flag in _TIME_FLAGS)

    return replace(
        row,
        started_at=None if sure("started_at") else row.started_at,
        ended_at=None if sure("ended_at") else row.ended_at,
        duration_s=None if existing.duration_s is not None else row.duration_s,
    )


def _overwritten(
    existing: RecordingRow, row: RecordingRow, others_stay: bool, replaced: Collection[str]
) -> RecordingRow:
    """This run's row under the registered hash. Where a peer's workers stay, so does what they contributed."""
    if others_stay:
        base = merged(existing, row, replaced)
        return replace(base, registered_at=row.registered_at, registered_by=row.registered_by)
    participants = row.participant_ids or existing.participant_ids
    return replace(row, recording_hash=existing.recording_hash, participant_ids=participants)


def _winner(rows: Sequence[RecordingRow], field: str, best: Callable[..., RecordingRow]) -> RecordingRow | None:
    """The row whose start or end counts: of those that have it, and are not in doubt where one is not, the best."""
    known = [row for row in rows if getattr(row, field) is not None]
    sure = [row for row in known if not any(_doubts(row, flag, field) for flag in _TIME_FLAGS)]
    return best(sure or known, key=lambda row: getattr(row, field)) if known else None


def _doubts(row: RecordingRow, flag: str, field: str) -> bool:
    """Whether a flag is about this field: its value names the field, or is "true" for both."""
    return row.metadata.get(flag) in ("true", field) and not (flag == FROM_REC_ID and field == "ended_at")


def _flags(winners: Mapping[str, RecordingRow | None]) -> dict[str, str]:
    """The time flags of a merged row, from the rows that its times come from."""
    flags: dict[str, str] = {}
    for flag in _TIME_FLAGS:
        fields = [field for field, row in winners.items() if row is not None and _doubts(row, flag, field)]
        if fields:
            flags[flag] = "true" if len(fields) == len([row for row in winners.values() if row]) else fields[0]
    return flags


def _union(*names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({name for group in names for name in group}))
