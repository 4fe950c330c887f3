"""Live rows and derived rows as one: what stays, what is new, and every difference in words."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from ursa.catalog.metadata import (
    NODES_KEY,
    SIDECARS_KEY,
    WORKERS_KEY,
    sidecars,
    sidecars_text,
    united_sidecars,
    unsettled,
    workers_of,
)
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.errors import named
from ursa.manifest import shown
from ursa.manifest.times import FROM_REC_ID, TIME_AMBIGUOUS, TIME_ASSUMED
from ursa.policies import Evidence, OnConflict
from ursa.rebuild.reading import Key
from ursa.recording import PARTICIPANT_NAME
from ursa.register.verbs import apply, given

_TIME_FLAGS = (TIME_ASSUMED, TIME_AMBIGUOUS, FROM_REC_ID)
# The new workers are told one by one; which manifests a batch need not look at again is nobody's
# concern.
_TOLD_OTHERWISE = (WORKERS_KEY, SIDECARS_KEY)


def reconcile_modalities(
    before: Sequence[ModalityRow], after: Sequence[ModalityRow], told: list[str]
) -> tuple[ModalityRow, ...]:
    """The workers' rows, by name. All registered files are there: ``missing`` has said so."""
    old = {_key(item): item for item in before}
    new = {_key(item): item for item in after}
    return tuple(_modality(old.get(key), new.get(key), told) for key in sorted(old.keys() | new.keys()))


def _key(row: ModalityRow) -> Key:
    return row.modality, row.worker_id


def _modality(old: ModalityRow | None, new: ModalityRow | None, told: list[str]) -> ModalityRow:
    if new is None:
        assert old is not None
        # Made by register_modality, of files that are no worker's: nothing in the bucket speaks of it.
        return old
    if old is None:
        told.append(f"{shown(new.name)}: new, it is in the bucket and was in no row")
        return new
    registered = {file.path: file for file in old.files}
    derived = {file.path: file for file in new.files}
    files = dict(registered)
    for path, file in derived.items():
        files[path] = _file(registered.get(path), file, told)
    if old.files and derived.keys() - registered.keys():
        names = named([shown(path) for path in sorted(derived.keys() - registered.keys())])
        told.append(f"{shown(old.name)}: new files, in the bucket and in no row: {names}")
    if not old.files and new.files:
        told.append(f"{shown(old.name)}: was registered without files, the bucket has {len(new.files)}")
    if old.node != new.node:
        told.append(f"{shown(old.name)}: node {old.node} is taken over, the manifest says {new.node}")
    rows = tuple(sorted(files.values(), key=lambda file: file.path))
    # What is registered of the worker stays; its files are what the bucket holds.
    return replace(old, rec_id=new.rec_id, files=rows, bytes=sum(file.size_bytes for file in rows))


def _file(old: FileRow | None, new: FileRow, told: list[str]) -> FileRow:
    """A file's row. What was measured counts more than what is stated now."""
    if old is None or old == new:
        return new
    name = shown(new.path)
    if old.size_bytes != new.size_bytes:
        told.append(f"{name}: {new.size_bytes:,} bytes in the bucket, {old.size_bytes:,} are registered")
        return new
    new = replace(new, mtime_ns=old.mtime_ns)
    if old.etag is None or old.etag == new.etag:
        return _same_object(old, new, told)
    if new.etag == old.sha256 and old.sha256 is not None:
        # A directory's ETags are the sha256s that it measured.
        new = replace(new, sha256=old.sha256, evidence=Evidence.ETAG)
    if new.proven and new.sha256 == old.sha256:
        told.append(f"{name}: the object was replaced since it was registered, by one with the same sha256")
        return new
    # Verify must go on saying so: a new ETag in the row would hide that nothing is known of what the object holds.
    told.append(
        f"{name}: the object was replaced since it was registered and nothing proves the same content; the row stays"
        " as it was. `ursa verify --level full` reads it"
    )
    return old


def _same_object(old: FileRow, new: FileRow, told: list[str]) -> FileRow:
    """The row of an object that is the one that was registered, as far as its ETag tells."""
    name = shown(new.path)
    if old.sha256 not in (None, new.sha256) and old.etag is not None and not new.proven:
        told.append(f"{name}: sha256 {old.sha256} is taken over, the manifest states {new.sha256}")
        return replace(old, key=new.key)
    kept = replace(old, key=new.key) if old.proven else new
    if kept.sha256 != old.sha256:
        told.append(f"{name}: sha256 is {kept.sha256}, was {old.sha256 or 'unknown'}")
    elif old.key not in ("", kept.key):
        told.append(f"{name}: its key is {shown(new.key)}, was {shown(old.key)}")
    return kept


def _auxiliary(old: RecordingRow, new: RecordingRow, told: list[str]) -> tuple[FileRow, ...]:
    """The files outside of worker directories: as the bucket has them, and those that only the row knows."""
    known = {file.path: file for file in old.auxiliary_files}
    files = dict(known)
    for file in new.auxiliary_files:
        before = known.get(file.path)
        if before is None:
            told.append(f"{shown(file.path)}: new, an auxiliary file in the bucket and in no row")
        files[file.path] = _file(before, file, told)
    return tuple(files[path] for path in sorted(files))


def reconcile_recording(
    old: RecordingRow,
    new: RecordingRow,
    modalities: Sequence[ModalityRow],
    starts: Collection[datetime | None],
    told: list[str],
) -> RecordingRow:
    """The recording's row. ``starts``: every start that one of its manifests states."""
    started_at, flags = new.started_at, {flag: new.metadata[flag] for flag in _TIME_FLAGS if flag in new.metadata}
    if old.started_at is not None and (started_at is None or flags or old.started_at in starts):
        # A time that had to be assumed never beats one that is registered.
        started_at = old.started_at
    if old.started_at == started_at:
        flags = {flag: old.metadata[flag] for flag in _TIME_FLAGS if flag in old.metadata}
    else:
        told.append(f"started_at is {_when(started_at)}, was {_when(old.started_at)}")
    metadata = {key: value for key, value in {**new.metadata, **old.metadata}.items() if key not in _TIME_FLAGS} | flags
    metadata |= _united(old, new)
    metadata |= _covered(old, modalities, told)
    if workers_of(old) is None:
        metadata.pop(WORKERS_KEY, None)
    files = _auxiliary(old, new, told)
    # participant.txt is none of the manifests that a rebuild reads.
    gone = sidecars(old).keys() - sidecars(new).keys() - {PARTICIPANT_NAME}
    told += [f"{shown(path)}: was in the bucket when this was registered, and is not any more" for path in sorted(gone)]
    told += [
        f"metadata {shown(key)} is {shown(metadata.get(key, 'absent'))}, was {shown(old.metadata.get(key, 'absent'))}"
        for key in sorted(metadata.keys() | old.metadata.keys())
        if key not in _TOLD_OTHERWISE and metadata.get(key) != old.metadata.get(key)
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
        auxiliary_files=files,
    )
    return _second_pass(old, derived, told)


def _covered(old: RecordingRow, modalities: Sequence[ModalityRow], told: list[str]) -> dict[str, str]:
    """The workers that the recording's commit covers; one that has no row and no bytes stays, so that it is seen."""
    there = {_key(item) for item in modalities}
    rowless = (workers_of(old) or set()) - there
    for worker in sorted(rowless):
        told.append(f"{shown('_'.join(name for name in worker if name))}: registered, without a row and without bytes")
    return {WORKERS_KEY: json.dumps(sorted(there | rowless), ensure_ascii=False)}


def _united(old: RecordingRow, new: RecordingRow) -> dict[str, str]:
    """Metadata that the bucket has a word in: nodes, sidecars."""
    united = {}
    nodes = {name for row in (old, new) for name in row.metadata.get(NODES_KEY, "").split(",") if name}
    if nodes:
        united[NODES_KEY] = ",".join(sorted(nodes))
    if unsettled(old, new):
        united[SIDECARS_KEY] = sidecars_text(united_sidecars(old, new))
    return united


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
            told.append(f"{name} is {_when(stated)}, was unknown")
        elif stated is not None and stated != kept:
            told.append(f"{name} {_when(kept)} is taken over, the manifest says {_when(stated)}")
    return filled


def _when(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else "unknown" if value is None else str(value)
