"""One recording's rows, derived from the bucket and reconciled with those that the live catalog has.

What the bucket knows (which files, how large, which sha256) is derived. What no manifest knows is taken over: the
recording_hash, participants, status, who registered it and when, and what ``register_*`` edited. Every difference is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ursa.catalog.metadata import NODES_KEY, WORKERS_KEY, workers_of
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.errors import (
    InvalidRecordingError,
    ManifestError,
    ManifestNotFoundError,
    MissingFilesError,
    UrsaError,
)
from ursa.manifest.times import FROM_REC_ID, TIME_AMBIGUOUS, TIME_ASSUMED
from ursa.policies import OnConflict
from ursa.register.bucket import file_rows, read_bucket
from ursa.register.build import registration
from ursa.register.decide import differences
from ursa.register.services import Services
from ursa.register.verbs import apply, given
from ursa.store import Store

Key = tuple[str, str]

_TIME_FLAGS = (TIME_ASSUMED, TIME_AMBIGUOUS, FROM_REC_ID)


@dataclass(frozen=True, slots=True)
class Derived:
    """What a rebuild makes of one recording.

    ``row`` is None where it gets none: ``why`` then says so in words. ``told``: in words, each way in which the new rows
    differ from the live ones. ``lost``: the live catalog has it, and its bytes are not all in the bucket.
    """

    rec_id: str
    row: RecordingRow | None
    modalities: tuple[ModalityRow, ...] = ()
    told: tuple[str, ...] = ()
    why: str = ""
    lost: bool = False


def derive(
    services: Services,
    rec_id: str,
    old: RecordingRow | None,
    old_modalities: Sequence[ModalityRow],
    *,
    checked: Callable[[str, int], object] = lambda _path, _size: None,
) -> Derived:
    """Read the bucket; one LIST, a GET a manifest, and for a file whose sha256 nobody states a HEAD or its bytes.

    What is wrong with a recording is in what it returns; a store that fails is raised (``StorageError``).
    """
    covered = workers_of(old) if old else None
    if covered is not None:
        old_modalities = [row for row in old_modalities if (row.modality, row.worker_id) in covered]
    try:
        bucket = read_bucket(services.raw, services.raw_prefix, rec_id, rig_timezone=services.rig_timezone)
        rows = file_rows(services.raw, services.engine, services.stop, bucket, old_modalities, checked=checked)
        contents = bucket.contents(rows, ())
        wanted = registration(
            contents,
            recording_hash=old.recording_hash if old else bucket.manifest.recording_hash,
            overwrite=False,
            by=services.catalog.home.author.by,
        )
    except UrsaError as error:
        if not _of_the_recording(error):
            raise
        return _carried(services.raw, rec_id, old, old_modalities, error)
    if old is None:
        return Derived(rec_id, wanted.row, wanted.modalities, ("new: it is whole in the bucket, and was in no row",))
    return _reconciled(services.raw, old, old_modalities, wanted.row, wanted.modalities, bucket.manifest.recording_hash)


def _of_the_recording(error: UrsaError) -> bool:
    """Whether an error is about this recording alone; a server that fails is everybody's."""
    return isinstance(error, InvalidRecordingError | ManifestError | ManifestNotFoundError | MissingFilesError)


def _carried(
    raw: Store, rec_id: str, old: RecordingRow | None, modalities: Sequence[ModalityRow], error: UrsaError
) -> Derived:
    """No manifest tells: the live rows stay, where all of their bytes are there."""
    if old is None:
        return Derived(rec_id, None, why=error.message)
    missing = _missing(raw, modalities)
    if missing:
        why = f"{error.message}; of its rows these files are not in the bucket: {', '.join(missing[:20])}"
        return Derived(rec_id, None, why=why, lost=True)
    return Derived(rec_id, old, tuple(modalities), (f"carried over as it is: {error.message}",))


def _reconciled(
    raw: Store,
    old: RecordingRow,
    old_modalities: Sequence[ModalityRow],
    row: RecordingRow,
    modalities: Sequence[ModalityRow],
    stated_hash: str | None,
) -> Derived:
    told: list[str] = []
    if stated_hash not in (None, old.recording_hash):
        told.append(f"the manifest states recording_hash {stated_hash}, it stays registered under {old.recording_hash}")
    before = {(item.modality, item.worker_id): item for item in old_modalities}
    after = {(item.modality, item.worker_id): item for item in modalities}
    united: dict[Key, ModalityRow] = {}
    for key in sorted(before.keys() | after.keys()):
        kept = _modality(raw, before.get(key), after.get(key), told)
        if kept is None:
            why = f"its {before[key].name} is registered with files that are not in the bucket"
            return Derived(old.rec_id, None, told=tuple(told), why=why, lost=True)
        united[key] = kept
    new_row = _recording(old, row, tuple(united), told)
    return Derived(old.rec_id, new_row, tuple(united.values()), tuple(told))


def _modality(raw: Store, old: ModalityRow | None, new: ModalityRow | None, told: list[str]) -> ModalityRow | None:
    """A worker's row; None where it is registered and its bytes are gone."""
    if new is None:
        assert old is not None
        if _missing(raw, [old]):
            return None
        if old.files:
            told.append(f"{old.name}: carried over, no file of the recording is of it")
        return old
    if old is None:
        told.append(f"{new.name}: new, it is in the bucket and was in no row")
        return new
    other = differences(old, new) + [file.path for file in old.files if file.path not in {f.path for f in new.files}]
    if other:
        told.append(f"{new.name}: other files than registered: {', '.join(sorted(set(other))[:20])}")
    if not other and old.node != new.node:
        told.append(f"{new.name}: node {old.node} is taken over, the manifest states {new.node}")
    # What is registered of the worker stays; its files are what the bucket holds.
    return replace(old, rec_id=new.rec_id, files=new.files, bytes=new.bytes)


def _recording(old: RecordingRow, new: RecordingRow, workers: Sequence[Key], told: list[str]) -> RecordingRow:
    started_at, flags = new.started_at, {flag: new.metadata[flag] for flag in _TIME_FLAGS if flag in new.metadata}
    if old.started_at is not None and (started_at is None or (flags and old.started_at != started_at)):
        started_at = old.started_at
    if old.started_at == started_at:
        flags = {flag: old.metadata[flag] for flag in _TIME_FLAGS if flag in old.metadata}
    else:
        told.append(f"started_at is {started_at}, was {old.started_at}")
    metadata = {key: value for key, value in {**old.metadata, **new.metadata}.items() if key not in _TIME_FLAGS} | flags
    if workers_of(old) is None:
        metadata.pop(WORKERS_KEY, None)
    else:
        metadata[WORKERS_KEY] = json.dumps(sorted([list(key) for key in workers]), ensure_ascii=False)
    nodes = {name for row in (old, new) for name in row.metadata.get(NODES_KEY, "").split(",") if name}
    if nodes:
        metadata[NODES_KEY] = ",".join(sorted(nodes))
    told += [
        f"metadata {key} is {metadata.get(key)!r:.200}, was {old.metadata.get(key)!r:.200}"
        for key in sorted(metadata.keys() | old.metadata.keys())
        if metadata.get(key) != old.metadata.get(key)
    ]
    derived = replace(
        new,
        recording_hash=old.recording_hash,
        started_at=started_at,
        participant_ids=old.participant_ids,
        status=old.status,
        metadata=metadata,
        registered_at=old.registered_at,
        registered_by=old.registered_by,
    )
    return _second_pass(old, derived, told)


def _second_pass(old: RecordingRow, row: RecordingRow, told: list[str]) -> RecordingRow:
    """Fill duration_s and ended_at from the live catalog, by the policy ``overwrite``: a merge or an admin knew better."""
    filled = apply(
        row,
        given(row.recording_hash, None, old.ended_at, old.duration_s, (), row.status, None),
        OnConflict.OVERWRITE,
    )
    for name in ("duration_s", "ended_at"):
        stated, kept, was = getattr(row, name), getattr(filled, name), getattr(old, name)
        if was is None and stated is not None:
            told.append(f"{name} is {stated}, was unknown")
        elif stated is not None and stated != kept:
            told.append(f"{name} {kept} is taken over, the manifest says {stated}")
    return filled


def _missing(raw: Store, modalities: Sequence[ModalityRow]) -> list[str]:
    """Paths of files that are not in the bucket under their key with their size; a LIST for each directory of keys."""
    found: dict[str, int] = {}
    for prefix in sorted({_directory(file) for row in modalities for file in row.files}):
        found |= {info.key: info.size_bytes for info in raw.list(prefix)}
    return [file.path for row in modalities for file in row.files if found.get(file.key) != file.size_bytes]


def _directory(file: FileRow) -> str:
    """The recording's prefix where the key has one, else the key's directory."""
    base = file.key.removesuffix(file.path)
    return base if base.endswith("/") and base != file.key else file.key.rpartition("/")[0] + "/"
