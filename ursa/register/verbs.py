"""The lower-level verbs: one row of one table, with a policy for what is there already.

Each is a compare-and-swap whose decision is made again after a lost race (``docs/decisions/001``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from ursa.bucket.proof import Proofs
from ursa.catalog.catalog import Catalog
from ursa.catalog.metadata import (
    AUXILIARY_KEY,
    REGISTERED_AT_KEY,
    SIDECARS_KEY,
    WORKERS_KEY,
    sidecars,
    workers_of,
)
from ursa.catalog.rows import FileRow, ModalityRow, ParticipantRow, RecordingRow, participant_id
from ursa.catalog.tables import Change
from ursa.catalog.where import any_of, these_modalities
from ursa.errors import (
    ConflictError,
    RecordingExistsError,
    RecordingNotFoundError,
    UsageError,
)
from ursa.manifest import shown
from ursa.manifest.names import is_unicode
from ursa.names import is_sha256
from ursa.policies import ModalityOnConflict, OnConflict
from ursa.recording import clean_participant
from ursa.register.decide import identify
from ursa.register.files import prove_files
from ursa.store import Store

R = TypeVar("R")

_LONGEST_S = 100 * 366 * 86_400.0
REC_ID_KEY = "manifest_recording_id"
"""Metadata key of a recording: its rec_id."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a caller of ``register_recording`` states; None is not given."""

    recording_hash: str
    started_at: datetime | None
    ended_at: datetime | None
    duration_s: float | None
    participant_ids: tuple[str, ...]
    status: str
    metadata: Mapping[str, str]

    @property
    def rec_id(self) -> str:
        """The rec_id in the metadata; a recording without one goes by its hash."""
        return self.metadata.get(REC_ID_KEY) or self.recording_hash

    def row(self, by: str) -> RecordingRow:
        """As a new row."""
        return RecordingRow(
            self.recording_hash,
            self.rec_id,
            self.started_at,
            self.ended_at,
            self.duration_s,
            tuple(sorted(set(self.participant_ids))),
            self.status,
            {REC_ID_KEY: self.rec_id, **self.metadata},
            datetime.now(UTC),
            by,
        )


def given(
    recording_hash: str,
    started_at: datetime | None,
    ended_at: datetime | None,
    duration_s: float | None,
    participant_ids: Iterable[str] | None,
    status: str,
    metadata: Mapping[str, Any] | None,
) -> Given:
    """Check and normalise what a caller states. Raises ``UsageError``."""
    if not is_sha256(recording_hash):
        raise UsageError(f"{recording_hash!r} is not a recording_hash: 64 lower-case hex digits")
    if participant_ids is not None and (isinstance(participant_ids, str) or not isinstance(participant_ids, Iterable)):
        raise UsageError(f"participant_ids is {participant_ids!r:.80}; pass a list of ids")
    ids = tuple(word(key, "a participant's id") for key in participant_ids or ())
    number = isinstance(duration_s, int | float) and not isinstance(duration_s, bool)
    if duration_s is not None and not (number and 0 <= duration_s <= _LONGEST_S):
        # The repr of an int of more than 4,300 digits is an error of its own.
        told = "a number of more than 100 years" if number and duration_s > _LONGEST_S else f"{duration_s!r:.40}"
        raise UsageError(f"duration_s is {told}; it is seconds, 0 or more")
    pairs = texts(metadata)
    _check_own_keys(pairs)
    return Given(
        recording_hash,
        _utc(started_at, "started_at"),
        _utc(ended_at, "ended_at"),
        None if duration_s is None else float(duration_s),
        ids,
        word(status, "status"),
        pairs,
    )


def word(value: object, name: str) -> str:
    """A text that can be a name: not empty, no control characters. Raises ``UsageError``."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise UsageError(f"{name} is {value!r:.80}; it is a text that can be printed")
    return value


def texts(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """Metadata as text to text; what is None is left out. Raises ``UsageError``."""
    if metadata is not None and not isinstance(metadata, Mapping):
        raise UsageError(f"metadata is {metadata!r:.80}; it maps text to text")
    pairs = {str(key): str(value) for key, value in (metadata or {}).items() if value is not None}
    for key, value in pairs.items():
        if not is_unicode(key) or not is_unicode(value):
            raise UsageError(
                f"metadata[{shown(key)}] is {shown(value, 80)}: a lone surrogate, which is not Unicode text"
            )
    return pairs


def _check_own_keys(pairs: Mapping[str, str]) -> None:
    """The rec_id is one name; what an ingest keeps in a recording's metadata is as it writes it, as in a row that is
    passed on, or not there."""
    row = RecordingRow("", "", metadata=pairs)
    if WORKERS_KEY in pairs and workers_of(row) is None:
        raise _own(WORKERS_KEY)
    if pairs.get(SIDECARS_KEY, "{}") != "{}" and not sidecars(row):
        raise _own(SIDECARS_KEY)
    if AUXILIARY_KEY in pairs:
        raise UsageError(
            f"metadata[{AUXILIARY_KEY!r}] is where catalogs of before kept auxiliary files, and is read as these alone",
            hint="Leave it out: a row's auxiliary_files are its own column, which an ingest writes.",
        )
    name = pairs.get(REC_ID_KEY)
    if name is not None and (
        not name.isprintable() or "/" in name or "\\" in name or name in ("", ".", "..") or len(name.encode()) > 255
    ):
        raise UsageError(
            f"metadata[{REC_ID_KEY!r}] is {shown(name)}; a rec_id is one name, without slashes",
            hint="Leave it out where the recording has no rec_id: it then goes by its hash.",
        )


def _own(key: str) -> UsageError:
    return UsageError(
        f"metadata[{key!r}] is what ursa itself keeps there",
        hint="Leave it out: an ingest and register_modality write it, and a row that has it keeps it.",
    )


def apply(existing: RecordingRow, wanted: Given, policy: OnConflict) -> RecordingRow:
    """The row that a policy makes of the one that is there; the same one where there is nothing to change.

    Raises:
        RecordingExistsError: ``error``.
        ConflictError: ``merge_participants``, and another field that is given differs.
    """
    if policy is OnConflict.ERROR:
        raise RecordingExistsError(
            f"{existing.rec_id} is already registered, as {existing.recording_hash}",
            hint=f"See `ursa show {existing.rec_id}`. on_conflict= extend, merge_participants or overwrite changes its row.",
            rec_id=existing.rec_id,
            recording_hash=existing.recording_hash,
        )
    if policy is OnConflict.EXTEND:
        known = [value for value in (existing.duration_s, wanted.duration_s) if value is not None]
        return replace(existing, duration_s=max(known, default=None))
    if policy is OnConflict.OVERWRITE:
        return replace(
            existing,
            duration_s=existing.duration_s if wanted.duration_s is None else wanted.duration_s,
            ended_at=wanted.ended_at or existing.ended_at,
        )
    _refuse_other_fields(existing, wanted)
    united = tuple(sorted({*existing.participant_ids, *wanted.participant_ids}))
    return replace(existing, participant_ids=united)


def register_recording(catalog: Catalog, wanted: Given, policy: OnConflict) -> RecordingRow:
    """Make a recording's row, or treat the one that is there as ``policy`` says; returns it as it is now."""
    outcome: list[RecordingRow] = []

    def change(after_flip: bool) -> Change[RecordingRow] | None:
        rows = catalog.lookup(rec_id=wanted.rec_id, recording_hash=wanted.recording_hash)
        named_id = wanted.metadata.get(REC_ID_KEY)
        own = next((row for row in rows if row.recording_hash == wanted.recording_hash), None)
        if named_id is not None or own is None:
            own = identify(rows, wanted.rec_id, wanted.recording_hash)
        if own is None:
            row = wanted.row(catalog.home.author.by)
        elif after_flip and policy is OnConflict.ERROR:
            # The rebuild had taken our row over already.
            row = own
        else:
            row = apply(own, wanted, policy)
        outcome[:] = [row]
        if row == own:
            return None
        replacing = None if own is None else any_of("rec_id", [row.rec_id])
        return Change([row], replacing, f"register_recording:{policy}")

    return _written(catalog, lambda after: catalog.recordings.compare_and_swap(lambda: change(after)), outcome)


def register_modality(
    catalog: Catalog, store: Store, raw_prefix: str, wanted: ModalityRow, policy: ModalityOnConflict, proofs: Proofs
) -> ModalityRow:
    """Make a modality's row, or with ``overwrite`` replace the one that is there; its files are in the bucket.

    Raises:
        RecordingNotFoundError: no recording has this hash.
        MissingFilesError: files are not in the bucket, or have another size. All of them are named.
        ConflictError: ``error``, and there is a row.
    """
    recording = catalog.get_recording(wanted.recording_hash)
    _refuse_existing(catalog, recording, wanted, policy)
    files = prove_files(store, f"{raw_prefix}{recording.rec_id}/", wanted.files, proofs)
    row = replace(
        wanted,
        rec_id=recording.rec_id,
        files=files,
        bytes=sum(file.size_bytes for file in files),
        metadata={REGISTERED_AT_KEY: datetime.now(UTC).isoformat(timespec="seconds")} | dict(wanted.metadata),
    )
    outcome: list[ModalityRow] = []

    def change(after_flip: bool) -> Change[ModalityRow] | None:
        there = _existing(catalog, recording, row)
        outcome[:] = [row]
        if there and after_flip and {_gist(file) for file in there.files} == {_gist(file) for file in row.files}:
            # The rebuild had taken our row over already.
            return None
        _refuse_existing(catalog, recording, row, policy)
        return Change([row], these_modalities([row]) if there else None, f"register_modality:{policy}")

    def write(after_flip: bool) -> Change[ModalityRow] | None:
        # The recording first, as in any merge: it then says that this worker is a part of it.
        catalog.recordings.compare_and_swap(lambda: _cover(catalog, row))
        return catalog.modalities.compare_and_swap(lambda: change(after_flip))

    return _written(catalog, write, outcome)


def register_participant(catalog: Catalog, display_name: str, key: str | None) -> ParticipantRow:
    """The participant's row: the one that is there, or a new one. Raises ``UsageError``, ``InvalidRecordingError``."""
    name = clean_participant(display_name)
    if name is None:
        raise UsageError("a participant's name is empty", hint="Leave the participant out where nobody knows it.")
    wanted = ParticipantRow(key or participant_id(name), name, datetime.now(UTC))
    outcome: list[ParticipantRow] = []

    def change() -> Change[ParticipantRow] | None:
        there = catalog.participants.select(any_of("participant_id", [wanted.participant_id]))
        outcome[:] = there[:1] or [wanted]
        return None if there else Change([wanted], None, "register_participant")

    return _written(catalog, lambda _after_flip: catalog.participants.compare_and_swap(change), outcome)


def _written(catalog: Catalog, write: Callable[[bool], Change[R] | None], outcome: list[R]) -> R:
    """Write, follow a rebuild's flip, and write again where it came in between; returns the row.

    ``write`` is told whether it has written before the flip: the row that it then finds may be its own. ``outcome`` is
    what was decided last; what landed is told in its place.
    """
    with catalog.lock:
        catalog.refresh()
        landed = catalog.write(lambda: write(False))
        if catalog.follow_pointer():
            landed = catalog.write(lambda: write(True))
    return landed.rows[0] if landed else outcome[0]


def _cover(catalog: Catalog, modality: ModalityRow) -> Change[RecordingRow] | None:
    """The recording's row with this worker among those that its commit covers; None where it is already."""
    rows = catalog.lookup(rec_id=modality.rec_id, recording_hash=modality.recording_hash)
    own = next((row for row in rows if row.recording_hash == modality.recording_hash), None)
    if own is None:
        raise RecordingNotFoundError(
            f"no recording {modality.recording_hash!r} in the catalog", ref=modality.recording_hash
        )
    covered = workers_of(own)
    key = (modality.modality, modality.worker_id)
    if covered is None or key in covered:
        return None
    metadata = {**own.metadata, WORKERS_KEY: json.dumps(sorted({*covered, key}), ensure_ascii=False)}
    return Change([replace(own, metadata=metadata)], any_of("rec_id", [own.rec_id]), "register_modality:recording")


def _existing(catalog: Catalog, recording: RecordingRow, wanted: ModalityRow) -> ModalityRow | None:
    key = (wanted.modality, wanted.worker_id)
    rows = catalog.modalities_for([recording])
    return next((row for row in rows if (row.modality, row.worker_id) == key), None)


def _gist(file: FileRow) -> tuple[str, int]:
    return file.key, file.size_bytes


def _refuse_existing(
    catalog: Catalog, recording: RecordingRow, wanted: ModalityRow, policy: ModalityOnConflict
) -> None:
    there = _existing(catalog, recording, wanted)
    if there is not None and policy is ModalityOnConflict.ERROR:
        raise ConflictError(
            f"{recording.rec_id} has a row for {wanted.name} already",
            hint=f'See `ursa show {recording.rec_id}`. on_conflict="overwrite" replaces the row.',
            rec_id=recording.rec_id,
            paths=tuple(file.path for file in there.files),
        )


def _refuse_other_fields(existing: RecordingRow, wanted: Given) -> None:
    stated: dict[str, tuple[object, object]] = {
        name: (getattr(wanted, name), getattr(existing, name))
        for name in ("started_at", "ended_at", "duration_s")
        if getattr(wanted, name) is not None
    }
    if wanted.status != "raw":
        # "raw" is what a caller states who states nothing.
        stated["status"] = (wanted.status, existing.status)
    # Which manifests a batch need not look at again is no statement about the recording.
    pairs = {key: value for key, value in wanted.metadata.items() if key != SIDECARS_KEY}
    stated |= {f"metadata[{key!r}]": (value, existing.metadata.get(key)) for key, value in pairs.items()}
    differing = [f"{name} is {there!s}, not {ours!s}" for name, (ours, there) in stated.items() if ours != there]
    if differing:
        raise ConflictError(
            f"{existing.rec_id} is registered with other values: {'; '.join(shown(text) for text in differing)}",
            hint=f"Nothing was changed. See `ursa show {existing.rec_id}`; merge_participants adds participants, and"
            " every other field that is given must be as it is.",
            rec_id=existing.rec_id,
        )


def _utc(moment: datetime | None, name: str) -> datetime | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        raise UsageError(f"{name} is {moment!r}; it is a datetime, UTC where it has no zone")
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise UsageError(f"{name} is {moment}, which is in no year of UTC's calendar") from None
