"""Path B: the bytes are in the bucket; write only the rows, after proving that every file is there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from ursa.beside import at_once, begin
from ursa.bucket.listing import files_of
from ursa.bucket.proof import Proofs
from ursa.bucket.record import WithRecord
from ursa.catalog.catalog import Catalog
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.catalog.where import by_rec_id
from ursa.errors import MissingFilesError, RecordingExistsError, UrsaError, named, unexpected
from ursa.events import UploadCallback
from ursa.manifest import shown
from ursa.policies import Action
from ursa.recording import clean_participant
from ursa.register.bucket import BucketRecording, contradicted, file_rows, not_as_stated, read_bucket, with_participant
from ursa.register.build import Contents, Registration, registration
from ursa.register.commit import Registered, register_all
from ursa.register.committer import MOST_AT_ONCE
from ursa.register.decide import decide, identify
from ursa.register.progress import Progress
from ursa.register.proving import Upgrade, better
from ursa.register.results import IngestResult
from ursa.register.services import Services
from ursa.register.several import Outcome
from ursa.telling import of_callback
from ursa.transfer.engine import Stop

T = TypeVar("T")

# Recordings that are read at the same time; each reads in the one pool of requests.
_READ_AT_ONCE = 8


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


def make_plan(
    services: Services, rec_id: str, participant: str | None, *, overwrite: bool, progress: Progress
) -> BucketPlan:
    """Read the bucket, look the recording up, decide. Writes nothing.

    Raises:
        ManifestNotFoundError, ManifestError, MissingFilesError, InvalidRecordingError: as ``read_bucket``.
        ChecksumMismatchError: an object was measured to have another sha256 than the manifest states.
        RecordingExistsError, ConflictError: as ``ursa.register.decide``.
    """
    name, began = clean_participant(participant), time.monotonic()
    recording, _ = at_once(
        lambda: read_bucket(services.raw, services.raw_prefix, rec_id, rig_timezone=services.rig_timezone),
        lambda: services.catalog.refresh(within_s=time.monotonic() - began),
    )
    if name:
        recording = with_participant(services.raw, recording)
    stated = recording.manifest.identity_hash
    existing, registered = _standing(services.catalog, rec_id, stated, stated, began)
    rows = file_rows(
        services.raw,
        services.engine,
        services.stop,
        recording,
        files_of(existing, registered),
        _measured(services, recording),
        checked=progress.checked,
    )
    for row, stated_sha256 in contradicted(recording.manifest, rows.values()):
        raise not_as_stated(row, stated_sha256)
    contents = recording.contents(rows, (name,) if name else ())
    recording_hash = (
        existing.recording_hash if existing else recording.manifest.recording_hash or contents.derived_hash()
    )
    if existing is None:
        # Derived only now: is this hash registered under another rec_id?
        existing, registered = _standing(services.catalog, rec_id, recording_hash, stated, began)
    try:
        decision = decide(
            existing, registered, contents.recording(recording_hash), contents.modalities, overwrite=overwrite
        )
    except RecordingExistsError:
        _upgrade(services, existing, registered, rows)
        raise
    return BucketPlan(recording, contents, recording_hash, decision.action, overwrite)


def _upgrade(
    services: Services, existing: RecordingRow | None, registered: Sequence[ModalityRow], rows: Mapping[str, FileRow]
) -> None:
    """What was measured meanwhile of files that are registered as claims."""
    there = {file.path: file for file in files_of(existing, registered)}
    proven = {path: row for path, row in rows.items() if row.proven and path in there and better(there[path], row)}
    if existing is not None and proven:
        services.upgrade(Upgrade(existing.rec_id, existing.recording_hash, proven, there))


def _measured(services: Services, recording: BucketRecording) -> Proofs:
    """What was measured of a recording's objects: by this machine, and by the reconstruct that made its manifest."""
    if recording.manifest.reconstruction is None:
        return services.proofs
    return WithRecord(services.proofs, services.hashes(recording.rec_id))


def ingest_from_r2(
    services: Services,
    rec_id: str,
    participant: str | None,
    *,
    overwrite: bool,
    progress: Progress,
) -> IngestResult:
    """Path B for one recording. Raises what ``make_plan`` raises; then nothing is registered."""
    before = services.counter.snapshot()
    plan = make_plan(services, rec_id, participant, overwrite=overwrite, progress=progress)
    progress.phase("prove")
    ready_at = time.monotonic()
    begin(services.catalog.refresh_if_idle)
    look_again(services, plan)
    progress.phase("register")
    if services.stop.is_set():
        raise KeyboardInterrupt
    done = services.register(replace(wanted(services, plan), ready_at=ready_at))
    progress.done()
    return result(plan, done, services.counter.since(before), progress.seconds)


def ingest_several(
    services: Services,
    rec_ids: Sequence[str],
    participant: str | None,
    *,
    overwrite: bool,
    callback: UploadCallback | None,
) -> list[Outcome]:
    """Path B for several recordings: read side by side, then registered in groups. An outcome each, in order."""
    groups = (rec_ids[start : start + MOST_AT_ONCE] for start in range(0, len(rec_ids), MOST_AT_ONCE))
    return [
        outcome
        for group in groups
        for outcome in _ingest_group(services, group, participant, overwrite=overwrite, callback=callback)
    ]


def _ingest_group(
    services: Services,
    rec_ids: Sequence[str],
    participant: str | None,
    *,
    overwrite: bool,
    callback: UploadCallback | None,
) -> list[Outcome]:
    told = {rec_id: Progress(rec_id, callback) for rec_id in rec_ids}

    def plan(rec_id: str) -> BucketPlan | UrsaError:
        try:
            return make_plan(services, rec_id, participant, overwrite=overwrite, progress=told[rec_id])
        except UrsaError as error:
            return error
        except Exception as error:
            if of_callback(error):
                raise
            return unexpected(error, rec_id)

    def prove(rec_id: str) -> UrsaError | None:
        found = plans[rec_id]
        try:
            if isinstance(found, BucketPlan):
                look_again(services, found)
        except UrsaError as error:
            return error
        except Exception as error:
            if of_callback(error):
                raise
            return unexpected(error, rec_id)
        return None

    before = services.counter.snapshot()
    plans = dict(zip(told, _side_by_side(services.stop, plan, list(told)), strict=True))
    # The last ones were read just now, the first ones perhaps an hour ago.
    changed = dict(zip(told, _side_by_side(services.stop, prove, list(told)), strict=True))
    plans |= {rec_id: error for rec_id, error in changed.items() if error is not None}
    good = {rec_id: found for rec_id, found in plans.items() if isinstance(found, BucketPlan)}
    for rec_id in good:
        told[rec_id].phase("register")
    done = dict(
        zip(good, register_all(services.catalog, [wanted(services, found) for found in good.values()]), strict=True)
    )
    requests = services.counter.since(before)
    outcomes = {
        rec_id: Outcome(None, rec_id, "fail", error=e) for rec_id, e in plans.items() if isinstance(e, UrsaError)
    }
    for rec_id, registered in done.items():
        if isinstance(registered, UrsaError):
            outcomes[rec_id] = Outcome(None, rec_id, "fail", error=registered)
        else:
            told[rec_id].done()
            seconds = told[rec_id].seconds
            outcomes[rec_id] = Outcome(None, rec_id, "ok", result=result(good[rec_id], registered, requests, seconds))
    return [outcomes[rec_id] for rec_id in rec_ids]


def _side_by_side(stop: Stop, action: Callable[[str], T], items: Sequence[str]) -> list[T]:
    """``action`` over ``items``, a few at once; on ``stop``, what has not begun does not begin."""
    with ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="ursa-recording") as pool:
        try:
            futures = [pool.submit(action, item) for item in items]
            results = [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if stop.is_set():
        raise KeyboardInterrupt
    return results


def look_again(services: Services, plan: BucketPlan) -> None:
    """Before the rows: list once more, and find every object as it was read.

    Raises:
        MissingFilesError: some are gone or were replaced meanwhile. All of them are named.
    """
    recording = plan.recording
    prefix = f"{services.raw_prefix}{recording.rec_id}/"
    now = {info.key: (info.size_bytes, info.etag) for info in services.raw.list(prefix)}
    changed = [
        item.path for item in recording.objects if now.get(item.info.key) != (item.info.size_bytes, item.info.etag)
    ]
    if changed:
        raise MissingFilesError(
            f"{recording.rec_id}: gone or replaced while the recording was read: {named([shown(p) for p in changed])}",
            hint="Nothing was registered. Somebody deletes or replaces objects there: find out who, then run this again.",
            paths=tuple(changed),
        )


def wanted(services: Services, plan: BucketPlan) -> Registration:
    """The rows of a plan."""
    return registration(
        plan.contents,
        recording_hash=plan.recording_hash,
        overwrite=plan.overwrite,
        by=services.catalog.home.author.by,
    )


def result(plan: BucketPlan, done: Registered, requests: Mapping[str, int], seconds: float) -> IngestResult:
    """What Path B did: nothing was uploaded, everything that is there counts as skipped."""
    return IngestResult(
        recording=done.row,
        files_uploaded=0,
        files_skipped=len(plan.recording.objects),
        bytes_uploaded=0,
        action=done.action,
        bytes_skipped=plan.bytes,
        unlisted=len(plan.recording.unlisted),
        junk=len(plan.recording.junk),
        requests=requests,
        seconds=seconds,
        evidence=dict(Counter(str(row.evidence) for row in plan.rows)),
        unlisted_files=plan.recording.unlisted,
        warnings=plan.recording.warnings,
    )


def _standing(
    catalog: Catalog, rec_id: str, recording_hash: str | None, stated: str | None, since: float
) -> tuple[RecordingRow | None, tuple[ModalityRow, ...]]:
    """As the catalog was seen since then, on the monotonic clock."""
    with catalog.lock:
        catalog.refresh(within_s=time.monotonic() - since)
        catalog.bring_standing(by_rec_id([rec_id]))
        existing = identify(catalog.lookup(rec_id=rec_id, recording_hash=recording_hash), rec_id, stated)
        return existing, tuple(catalog.modalities_for([existing])) if existing else ()
