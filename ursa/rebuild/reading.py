"""A recording as its manifests and its listing tell it: ``manifest.json`` *and* the node manifests that know more.

A registration takes ``manifest.json`` alone where it lists files; halves that came one after the other were united in
the rows. A rebuild has no rows to unite, so it unites what the manifests say, by the same rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ursa.catalog.rows import RecordingRow
from ursa.errors import InvalidRecordingError, ManifestError, MissingFilesError, named
from ursa.manifest import Manifest, RecordingTimes, merge_manifests, parse_manifest, resolve_times, shown
from ursa.manifest.models import identity_clash
from ursa.rebuild.listing import listing_print
from ursa.register.bucket import BucketObject, BucketRecording, read_bucket
from ursa.register.build import Contents
from ursa.register.decide import merged
from ursa.store import ObjectInfo, Store

Key = tuple[str, str]

AT_WORK_S = 86_400.0
"""Seconds. A worker that no manifest lists (yet) and that got an object within so long is being uploaded by somebody."""
SETTLES_S = 15.0
"""Seconds. Who uploads a manifest registers it at once; after so long nobody is about to."""
WAITS_S = 120.0
"""Seconds. So long a writer waits in a frozen catalog (``ursa.catalog.catalog``)."""


@dataclass(frozen=True, slots=True)
class Half:
    """A node manifest that lists files which ``manifest.json`` does not, and the times that it states."""

    manifest: Manifest
    times: RecordingTimes


class Remembered:
    """A store that keeps what was listed and read, so that nothing is asked for twice."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.listed: dict[str, dict[str, ObjectInfo]] = {}
        self.contents: dict[str, bytes] = {}

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """As the store does; from memory where it was listed before."""
        if start_after:
            return self._store.list(prefix, start_after=start_after)
        if prefix not in self.listed:
            self.listed[prefix] = {info.key: info for info in self._store.list(prefix)}
        return iter(self.listed[prefix].values())

    def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        """As the store does."""
        data, info = self._store.read(key)
        self.contents[key] = data
        return data, info

    def print_of(self, prefix: str) -> str:
        """``listing_print`` of what is below a prefix; "" where more than that, or not even that, was listed."""
        return listing_print(self.listed[prefix].values()) if self.listed.keys() == {prefix} else ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@dataclass(frozen=True)
class Reading:
    """A recording in the bucket. ``apart``: worker directories that are left alone, somebody is uploading them.

    ``arrived``: when the newest manifest was written.
    """

    bucket: BucketRecording
    halves: tuple[Half, ...]
    apart: tuple[str, ...]
    arrived: datetime | None

    def united(self, row: RecordingRow) -> RecordingRow:
        """The row that ``manifest.json`` makes, merged with the halves as their registrations would have been."""
        for half in self.halves:
            alone = Contents(self.bucket.rec_id, half.manifest, half.times, {}, ())
            row = merged(row, alone.recording(row.recording_hash))
        return row

    @property
    def starts(self) -> set[datetime | None]:
        """Every start that one of the manifests states."""
        return {self.bucket.times.started_at, *(half.times.started_at for half in self.halves)}


def read(
    store: Remembered, raw_prefix: str, rec_id: str, rig_timezone: str | None, registered: Collection[str] = ()
) -> Reading:
    """One LIST, and a GET for each manifest. Raises as ``ursa.register.bucket.read_bucket`` does."""
    bucket = read_bucket(store, raw_prefix, rec_id, rig_timezone=rig_timezone, registered=registered)
    manifests = [item for item in bucket.objects if item.kind == "manifest"]
    arrived = max((item.info.modified_at for item in manifests if item.info.modified_at), default=None)
    halves = tuple(_halves(store, bucket, rec_id, rig_timezone))
    if halves:
        bucket = replace(bucket, manifest=_combined(bucket.manifest, halves))
        _refuse_missing(bucket)
        _refuse_clash(bucket)
    return Reading(bucket, halves, (), arrived)


def left_alone(reading: Reading, known: Collection[Key], since: datetime | None) -> Reading:
    """Without the workers that somebody is uploading or registering now.

    Args:
        known: (modality, worker_id) of the workers that are registered: they stay.
        since: what has arrived later is left alone too. The live catalog is frozen, so nobody could register it: whoever
            brought it does that in the new catalog, with the participant that only they know.
    """
    bucket = reading.bucket
    workers: dict[str, list[BucketObject]] = {}
    for item in bucket.data:
        if item.kind == "raw":
            workers.setdefault(item.worker, []).append(item)
    just_arrived = arrived_after(reading, since)
    apart = []
    for worker, items in sorted(workers.items()):
        identity = bucket.manifest.worker_identity(worker)
        if (identity.modality, identity.worker_id) in known:
            continue
        listed = any(item.path in bucket.manifest.files_by_path for item in items)
        uploading = not listed and any(younger(item.info.modified_at, AT_WORK_S) for item in items)
        if uploading or (listed and just_arrived):
            apart.append(worker)
    objects = tuple(item for item in bucket.objects if item.kind != "raw" or item.worker not in apart)
    return replace(reading, bucket=replace(bucket, objects=objects), apart=tuple(apart))


def arrived_after(reading: Reading, since: datetime | None) -> bool:
    """Whether the newest manifest was written after a moment; None is no moment."""
    return since is not None and reading.arrived is not None and reading.arrived > since


def younger(moment: datetime | None, seconds: float) -> bool:
    """Whether something happened within so many seconds."""
    return moment is not None and datetime.now(UTC) - moment < timedelta(seconds=seconds)


def _halves(store: Remembered, bucket: BucketRecording, rec_id: str, rig_timezone: str | None) -> Iterator[Half]:
    listed = bucket.manifest.files_by_path
    for item in bucket.sidecars:
        if item.path.startswith("_node_manifests/") and item.info.key in store.contents:
            manifest = parse_manifest(store.contents[item.info.key], source=item.info.key)
            if any(entry.path not in listed for entry in manifest.files):
                # Alone, as its own registration took it: every worker and file gets its node.
                alone = merge_manifests({item.path: manifest}, rig_timezone=rig_timezone)
                _refuse_other_hash(bucket.manifest, alone, item.info.key)
                yield Half(alone, resolve_times(alone, rec_id, rig_timezone=rig_timezone))


def _combined(aggregate: Manifest, halves: tuple[Half, ...]) -> Manifest:
    """The aggregate, and the workers and files that only halves list; where two list one, the first does."""
    files = {entry.path: entry for half in reversed(halves) for entry in half.manifest.files}
    files |= aggregate.files_by_path
    own = {entry.worker_dir for entry in aggregate.files} | set(aggregate.workers_by_dir)
    workers = {item.dir: item for half in reversed(halves) for item in half.manifest.workers if item.dir not in own}
    return aggregate.model_copy(
        update={"files": tuple(files.values()), "workers": (*aggregate.workers, *workers.values())}
    )


def _refuse_other_hash(aggregate: Manifest, half: Manifest, source: str) -> None:
    hashes = (aggregate.recording_hash, half.recording_hash)
    if None not in hashes and hashes[0] != hashes[1]:
        raise ManifestError(
            f"{source}: /recording_hash: found {hashes[1]}, expected {hashes[0]}, as manifest.json says", path=source
        )


def _refuse_missing(bucket: BucketRecording) -> None:
    sizes = {item.path: item.info.size_bytes for item in bucket.objects}
    wrong = [entry.path for entry in bucket.manifest.files if sizes.get(entry.path) != entry.size_bytes]
    if wrong:
        raise MissingFilesError(
            f"{bucket.rec_id}: {len(wrong)} listed files are not whole in the bucket: {named([shown(p) for p in wrong])}",
            paths=tuple(wrong),
        )


def _refuse_clash(bucket: BucketRecording) -> None:
    names = dict.fromkeys(item.worker for item in bucket.objects if item.kind == "raw")
    identities = ((name, bucket.manifest.worker_identity(name)) for name in names)
    clash = identity_clash((name, (worker.modality, worker.worker_id)) for name, worker in identities)
    if clash:
        raise InvalidRecordingError(
            f"{bucket.rec_id}: {shown(clash[0])} and {shown(clash[1])} are the same modality and worker_id",
            path=clash[1],
        )
