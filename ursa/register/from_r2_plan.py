"""What Path B will register: recordings read in the bucket, many at once, looked up in the catalog together, decided."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ursa.beside import at_once, begin
from ursa.bucket.listing import files_of
from ursa.bucket.proof import Proofs
from ursa.bucket.record import WithRecord
from ursa.catalog.catalog import Catalog
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.catalog.standings import Standing
from ursa.catalog.where import by_rec_id
from ursa.errors import InvalidRecordingError, RecordingExistsError, UrsaError, unexpected
from ursa.manifest import check_rec_id
from ursa.parallel import in_order
from ursa.policies import Action
from ursa.recording import clean_participant
from ursa.register.bucket import BucketRecording, contradicted, file_rows, not_as_stated, read_bucket, with_participant
from ursa.register.build import Contents
from ursa.register.decide import decide, identify
from ursa.register.progress import Progress
from ursa.register.proving import Upgrade, better
from ursa.register.services import Services
from ursa.telling import of_callback

T = TypeVar("T")

_MOST_ROWS = 200_000
"""Files of the recordings that are decided together, in memory until they are."""


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """What Path B will register. ``--dry-run`` prints it; sizes in bytes."""

    recording: BucketRecording
    contents: Contents
    recording_hash: str | None
    action: Action
    overwrite: bool

    @property
    def files(self) -> tuple[FileRow, ...]:
        """The raw files that get rows."""
        return tuple(row for rows in self.contents.workers.values() for row in rows)

    @property
    def rows(self) -> tuple[FileRow, ...]:
        """Those, and the auxiliary files."""
        return (*self.files, *self.contents.auxiliary)

    @property
    def bytes(self) -> int:
        """Everything that is there, sidecars included."""
        return sum(item.info.size_bytes for item in self.recording.objects)


@dataclass(frozen=True, slots=True)
class _Read:
    """A recording as the bucket and the catalog have it, before its recording_hash is looked up."""

    recording: BucketRecording
    contents: Contents
    rows: Mapping[str, FileRow]
    existing: RecordingRow | None
    registered: tuple[ModalityRow, ...]

    @property
    def recording_hash(self) -> str:
        """What it is registered under, or is to be."""
        if self.existing is not None:
            return self.existing.recording_hash
        return self.recording.manifest.recording_hash or self.contents.derived_hash()

    @property
    def hashes(self) -> set[str]:
        """Those that another recording must not have; none of one that is registered."""
        wanted = () if self.existing else (self.recording.manifest.identity_hash, self.recording_hash)
        return set(filter(None, wanted))

    @property
    def upgrade(self) -> Upgrade | None:
        """What was measured meanwhile of files that are registered as claims."""
        there = {file.path: file for file in files_of(self.existing, self.registered)}
        proven = {
            path: row for path, row in self.rows.items() if row.proven and path in there and better(there[path], row)
        }
        if self.existing is None or not proven:
            return None
        return Upgrade(self.existing.rec_id, self.existing.recording_hash, proven, there)


Planned = BucketPlan | UrsaError
"""A recording's plan, or why there is none."""


def make_plan(
    services: Services, rec_id: str, participant: str | None, *, overwrite: bool, progress: Progress
) -> BucketPlan:
    """Read the bucket, look the recording up, decide. Writes nothing.

    Raises:
        ManifestNotFoundError, ManifestError, MissingFilesError, InvalidRecordingError: as ``read_bucket``.
        ChecksumMismatchError: an object was measured to have another sha256 than the manifest states.
        RecordingExistsError, ConflictError: as ``ursa.register.decide``.
    """
    name = clean_participant(participant)
    recording, standings = at_once(
        lambda: _in_bucket(services, rec_id, name), lambda: _standings(services.catalog, [rec_id])
    )
    read = _measured(services, recording, standings.get(rec_id), name, progress)
    try:
        return _decided(read, _others(services.catalog, [read]), overwrite=overwrite)
    except RecordingExistsError:
        _upgrade(services, [read])
        raise


def plan_several(
    services: Services,
    rec_ids: Sequence[str],
    participant: str | None,
    *,
    overwrite: bool,
    told: Mapping[str, Progress],
    together: int,
) -> Generator[dict[str, Planned]]:
    """Plans for recordings, each named once, by rec_id and in order, so many ``together`` as the catalog is asked once for.
    The next ones are read meanwhile.
    """
    with closing(_read_ahead(services, rec_ids, participant, told, together)) as reading:
        for group in _groups(reading, together):
            yield _plans(services, group, overwrite=overwrite)


def guarded(rec_id: str, action: Callable[[], T]) -> T | UrsaError:
    """What it returns, or the error of this recording, which is not the others'. A callback's own is raised."""
    try:
        return action()
    except UrsaError as error:
        return error
    except Exception as error:
        if of_callback(error):
            raise
        return unexpected(error, rec_id)


def _read_ahead(
    services: Services, rec_ids: Sequence[str], participant: str | None, told: Mapping[str, Progress], together: int
) -> Generator[tuple[str, _Read | UrsaError]]:
    """Each with its rec_id, in order."""

    def items() -> Iterator[tuple[str, Future[dict[str, Standing]]]]:
        for start in range(0, len(rec_ids), together):
            names = rec_ids[start : start + together]
            standings = begin(partial(_standings, services.catalog, names))
            for rec_id in names:
                yield rec_id, standings

    def read(rec_id: str, standings: Future[dict[str, Standing]]) -> _Read:
        name = clean_participant(participant)
        recording = _in_bucket(services, rec_id, name)
        return _measured(services, recording, standings.result().get(rec_id), name, told[rec_id])

    return in_order(
        services.stop,
        lambda item: (item[0], guarded(item[0], lambda: read(*item))),
        items(),
        services.engine.recordings_at_once,
    )


def _groups(reading: Iterable[tuple[str, _Read | UrsaError]], together: int) -> Iterator[dict[str, _Read | UrsaError]]:
    group: dict[str, _Read | UrsaError] = {}
    rows = 0
    for rec_id, read in reading:
        group[rec_id] = read
        rows += len(read.rows) if isinstance(read, _Read) else 0
        if len(group) >= together or rows >= _MOST_ROWS:
            yield group
            group, rows = {}, 0
    if group:
        yield group


def _plans(services: Services, group: Mapping[str, _Read | UrsaError], *, overwrite: bool) -> dict[str, Planned]:
    plans: dict[str, Planned] = {name: read for name, read in group.items() if isinstance(read, UrsaError)}
    readings = {name: read for name, read in group.items() if isinstance(read, _Read)}
    try:
        others = _others(services.catalog, readings.values())
    except UrsaError as error:
        return {name: plans.get(name, error) for name in group}
    for name, read in readings.items():
        plans[name] = guarded(name, lambda read=read: _decided(read, others, overwrite=overwrite))  # type: ignore[misc]
    _upgrade(services, [read for name, read in readings.items() if isinstance(plans[name], RecordingExistsError)])
    return {name: plans[name] for name in group}


def _in_bucket(services: Services, rec_id: str, name: str | None) -> BucketRecording:
    recording = read_bucket(services.raw, services.raw_prefix, rec_id, rig_timezone=services.rig_timezone)
    return with_participant(services.raw, recording) if name else recording


def _standings(catalog: Catalog, rec_ids: Iterable[str]) -> dict[str, Standing]:
    """How they stand now, by rec_id: those that are registered, with all modality rows that go by their hash."""
    names = [rec_id for rec_id in rec_ids if _can_be_registered(rec_id)]
    with catalog.lock:
        catalog.refresh()
        catalog.bring_standing(by_rec_id(names))
        rows = catalog.lookup_all(names, ())
        modalities: dict[str, list[ModalityRow]] = {row.recording_hash: [] for row in rows}
        for item in catalog.modalities_for(rows):
            modalities[item.recording_hash].append(item)
    return {row.rec_id: (row, tuple(modalities[row.recording_hash])) for row in rows}


def _can_be_registered(rec_id: str) -> bool:
    with suppress(InvalidRecordingError):
        return bool(check_rec_id(rec_id))
    return False


def _others(catalog: Catalog, readings: Iterable[_Read]) -> dict[str, RecordingRow]:
    """Rows with a hash of recordings that are not registered by their rec_id, by hash."""
    hashes = set().union(*(read.hashes for read in readings))
    return {row.recording_hash: row for row in catalog.lookup_all((), hashes)} if hashes else {}


def _measured(
    services: Services, recording: BucketRecording, standing: Standing | None, name: str | None, progress: Progress
) -> _Read:
    """With a row for each of its files."""
    own, registered = standing or (None, ())
    existing = identify([own] if own else [], recording.rec_id, recording.manifest.identity_hash)
    rows = file_rows(
        services.raw,
        services.engine,
        services.stop,
        recording,
        files_of(existing, registered),
        _proofs(services, recording),
        checked=progress.checked,
    )
    for row, stated_sha256 in contradicted(recording.manifest, rows.values()):
        raise not_as_stated(row, stated_sha256)
    return _Read(recording, recording.contents(rows, (name,) if name else ()), rows, existing, registered)


def _decided(read: _Read, others: Mapping[str, RecordingRow], *, overwrite: bool) -> BucketPlan:
    """Raises ``RecordingExistsError``, ``ConflictError``."""
    contents, manifest = read.contents, read.recording.manifest
    if read.existing is None:
        found = [others[digest] for digest in sorted(read.hashes) if digest in others]
        identify(found, read.recording.rec_id, manifest.identity_hash)
    decision = decide(
        read.existing,
        read.registered,
        contents.recording(read.recording_hash),
        contents.modalities,
        overwrite=overwrite,
    )
    return BucketPlan(read.recording, contents, read.recording_hash, decision.action, overwrite)


def _upgrade(services: Services, readings: Iterable[_Read]) -> None:
    if upgrades := [found for read in readings if (found := read.upgrade)]:
        services.upgrade(*upgrades)


def _proofs(services: Services, recording: BucketRecording) -> Proofs:
    """What was measured of a recording's objects: by this machine, and by the reconstruct that made its manifest."""
    if recording.manifest.reconstruction is None:
        return services.proofs
    return WithRecord(services.proofs, services.hashes(recording.rec_id))
