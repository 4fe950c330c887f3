"""One recording's rows, derived from the bucket and reconciled with those that the live catalog has.

What the bucket knows (which files, how large, which sha256) is derived. What no manifest knows is taken over: the
recording_hash, participants, status, who registered it and when, and what ``register_*`` edited. Every difference is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ursa.bucket.listing import files_of
from ursa.bucket.presence import missing
from ursa.bucket.proof import Proofs
from ursa.catalog.metadata import workers_of
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.errors import (
    ChecksumMismatchError,
    InvalidRecordingError,
    ManifestError,
    ManifestNotFoundError,
    MissingFilesError,
    UrsaError,
    named,
    unexpected,
)
from ursa.manifest import shown
from ursa.rebuild.reading import Reading, Remembered, arrived_after, left_alone, read
from ursa.rebuild.reconcile import reconcile_modalities, reconcile_recording
from ursa.register.bucket import contradicted, file_rows
from ursa.register.build import Registration, registration
from ursa.store import Store
from ursa.transfer.engine import Engine, Stop

_NEW = "new: it is whole in the bucket, and was in no row"


@dataclass(frozen=True)
class Source:
    """The bucket, and what reading it takes. ``raw_prefix`` ends with '/'; ``rig_timezone`` is the zone of naive times;
    ``by``: who rebuilds, ``user@host``; ``proofs``: what this machine has measured. The catalog is not needed: an
    executor's workers have no key to it.
    """

    raw: Store
    raw_prefix: str
    rig_timezone: str | None
    engine: Engine
    stop: Stop
    by: str
    proofs: Proofs


@dataclass(frozen=True, slots=True)
class Derived:
    """What a rebuild makes of one recording.

    ``row`` is None where it gets none: ``why`` then says so in words; beside a row, ``why`` is the reason that the live
    rows were carried over as they are. ``told``: in words, each way in which the new rows differ from the live ones.
    ``lost``: the live catalog has it, and its bytes are not all in the bucket. ``before``: how many modality rows the
    live catalog has of it. ``new``: it has a row, and none in the live catalog. ``arrived``: when the manifest was
    written that speaks of something in no row yet. ``listing``: see ``Remembered.print_of``.
    """

    rec_id: str
    row: RecordingRow | None
    modalities: tuple[ModalityRow, ...] = ()
    told: tuple[str, ...] = ()
    why: str = ""
    lost: bool = False
    before: int = 0
    new: bool = False
    arrived: datetime | None = None
    listing: str = ""


def derive(
    source: Source,
    rec_id: str,
    old: RecordingRow | None,
    old_modalities: Sequence[ModalityRow],
    since: datetime | None = None,
    *,
    checked: Callable[[str, int], object] = lambda _path, _size: None,
) -> Derived:
    """Read the bucket; one LIST, a GET a manifest, and the bytes of a file whose sha256 nothing states.

    What is wrong with a recording is in what it returns; a store that fails is raised (``StorageError``).

    Args:
        since: the live catalog is frozen: what arrived later and is in no row is left alone, see ``left_alone``.
    """
    store = Remembered(source.raw)
    derived = _derived(source, store, rec_id, old, old_modalities, since, checked)
    return replace(derived, listing=store.print_of(f"{source.raw_prefix}{rec_id}/"))


def _derived(
    source: Source,
    store: Remembered,
    rec_id: str,
    old: RecordingRow | None,
    old_modalities: Sequence[ModalityRow],
    since: datetime | None,
    checked: Callable[[str, int], object],
) -> Derived:
    covered = workers_of(old) if old else None
    if covered is not None:
        old_modalities = [row for row in old_modalities if (row.modality, row.worker_id) in covered]
    try:
        paths = {file.path for file in files_of(old, old_modalities)}
        reading = read(store, source.raw_prefix, rec_id, source.rig_timezone, paths)
        if old is None and arrived_after(reading, since):
            return Derived(rec_id, None, why="its upload ended just now: whoever uploads it is about to register it")
        known = {(row.modality, row.worker_id) for row in old_modalities} | (covered or set())
        reading = left_alone(reading, known, since)
        wanted = _registration(source, store, reading, old, old_modalities, checked)
    except UrsaError as error:
        if not _of_the_recording(error):
            raise
        return _carried(store, source.raw_prefix, rec_id, old, old_modalities, error)
    except Exception as error:  # noqa: BLE001
        return _carried(store, source.raw_prefix, rec_id, old, old_modalities, unexpected(error, rec_id))
    apart = tuple(
        f"{shown(worker)}: left alone, it is being uploaded and no manifest lists it yet"
        if not any(path.startswith(f"{worker}/") for path in reading.bucket.manifest.files_by_path)
        else f"{shown(worker)}: left alone, its upload ended just now and is about to be registered"
        for worker in reading.apart
    )
    if old is None:
        return Derived(rec_id, wanted.row, wanted.modalities, (_NEW, *apart), new=True, arrived=reading.arrived)
    return _reconciled(store, source.raw_prefix, old, old_modalities, wanted, reading, apart)


def _registration(
    source: Source,
    store: Remembered,
    reading: Reading,
    old: RecordingRow | None,
    old_modalities: Sequence[ModalityRow],
    checked: Callable[[str, int], object],
) -> Registration:
    """What an ingest of all that is in the bucket would have asked for."""
    registered = files_of(old, old_modalities)
    rows = file_rows(store, source.engine, source.stop, reading.bucket, registered, source.proofs, checked=checked)
    wanted = registration(
        reading.bucket.contents(rows, ()),
        recording_hash=old.recording_hash if old else _stated_hash(reading),
        overwrite=False,
        by=source.by,
    )
    return replace(wanted, row=reading.united(wanted.row), stated_hash=_stated_hash(reading))


def _stated_hash(reading: Reading) -> str | None:
    manifests = [reading.bucket.manifest, *(half.manifest for half in reading.halves)]
    return next((item.recording_hash for item in manifests if item.recording_hash), None)


def _of_the_recording(error: UrsaError) -> bool:
    """Whether an error is about this recording alone; a server that fails is everybody's."""
    return isinstance(
        error,
        InvalidRecordingError | ManifestError | ManifestNotFoundError | MissingFilesError | ChecksumMismatchError,
    )


def _carried(
    store: Remembered,
    raw_prefix: str,
    rec_id: str,
    old: RecordingRow | None,
    modalities: Sequence[ModalityRow],
    error: UrsaError,
) -> Derived:
    """No manifest tells: the live rows stay, where all of their bytes are there."""
    if old is None:
        return Derived(rec_id, None, why=error.message)
    gone = missing(store, raw_prefix, old, modalities)
    if gone:
        return _lost(old, modalities, gone, f"; {error.message}")
    return Derived(rec_id, old, tuple(modalities), why=error.message, before=len(modalities))


def _reconciled(
    store: Remembered,
    raw_prefix: str,
    old: RecordingRow,
    old_modalities: Sequence[ModalityRow],
    wanted: Registration,
    reading: Reading,
    apart: Sequence[str],
) -> Derived:
    gone = missing(store, raw_prefix, old, old_modalities)
    if gone:
        return _lost(old, old_modalities, gone)
    told = list(apart)
    if wanted.stated_hash not in (None, old.recording_hash):
        told.append(
            f"the manifest states recording_hash {wanted.stated_hash}, it stays registered under {old.recording_hash}"
        )
    for file, stated in contradicted(reading.bucket.manifest, files_of(wanted.row, wanted.modalities)):
        told.append(f"{shown(file.path)}: sha256 {file.sha256} is taken over, the manifest states {stated}")
    modalities = reconcile_modalities(old_modalities, wanted.modalities, told)
    row = reconcile_recording(old, wanted.row, modalities, reading.starts, told)
    return Derived(
        old.rec_id,
        row,
        modalities,
        tuple(told),
        before=len(old_modalities),
        arrived=reading.arrived if _listed_anew(reading, old_modalities) else None,
    )


def _listed_anew(reading: Reading, old_modalities: Sequence[ModalityRow]) -> bool:
    """Whether a manifest lists files of a worker that is in no row."""
    manifest, known = reading.bucket.manifest, {(row.modality, row.worker_id) for row in old_modalities}
    workers = {
        item.worker for item in reading.bucket.data if item.kind == "raw" and item.path in manifest.files_by_path
    }
    identities = map(manifest.worker_identity, workers)
    return any((found.modality, found.worker_id) not in known for found in identities)


def _lost(old: RecordingRow, modalities: Sequence[ModalityRow], gone: Sequence[str], more: str = "") -> Derived:
    names = named([shown(path) for path in gone])
    why = f"{len(gone)} of its registered files {'is' if len(gone) == 1 else 'are'} not whole in the bucket: {names}{more}"
    return Derived(old.rec_id, None, why=why, lost=True, before=len(modalities))
