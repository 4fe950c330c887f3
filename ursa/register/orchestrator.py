"""Path A: one recording, from a directory into the bucket and the catalog, in seven steps (``spec``: docs/ingest.md).

1 read and check everything locally, 2 look the recording up, 3 list its prefix, 4 plan, 5 upload, 6 sidecars, the
manifest last, 7 prove and write the rows, the recording's row last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ursa.catalog.catalog import Catalog
from ursa.catalog.metadata import auxiliary, sidecars
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.errors import (
    FileChangedError,
    MissingFilesError,
    ObjectConflictError,
    RecordingExistsError,
    UrsaError,
    named,
)
from ursa.events import UploadCallback
from ursa.manifest import shown
from ursa.recording import clean_participant, scan_recording
from ursa.register.build import Contents, Registration, registration
from ursa.register.decide import Decision, decide, identify
from ursa.register.local import LocalRecording, read_local
from ursa.register.planning import (
    Context,
    Listing,
    Options,
    auxiliary_hashes,
    existing_hashes,
    find_missing,
    node_here,
    plan_files,
    preflight,
    source_of,
)
from ursa.register.progress import Progress
from ursa.register.results import IngestPlan, IngestResult, PlannedFile
from ursa.register.services import Services
from ursa.register.sidecars import disk_participant, judge, local_sidecars, plan_sidecars, settled
from ursa.store import OpenUpload
from ursa.transfer.parts import SINGLE_PUT_BYTES
from ursa.transfer.prove import object_sha256, read_back
from ursa.transfer.upload import Uploaded, UploadItem, upload


@dataclass(frozen=True)
class Request:
    """What is asked for: a recording that has been read and checked, and how to treat what is there already.

    ``standing``: how it stands in the catalog, where a batch has read that already; else it is looked up. Either way
    it is decided again when the rows are written.
    """

    local: LocalRecording
    participant: str | None
    options: Options
    standing: tuple[RecordingRow | None, tuple[ModalityRow, ...]] | None = None


@dataclass(frozen=True)
class _Standing:
    """How the recording stands in the catalog before anything moves."""

    existing: RecordingRow | None
    registered: tuple[ModalityRow, ...]
    decision: Decision
    hashes: Mapping[str, str]


def read_request(
    manifest_path: Path | None,
    source_dir: Path,
    participant: str | None,
    options: Options,
    *,
    key_prefix: str,
    rig_timezone: str | None,
    named_on_disk: bool = False,
) -> Request:
    """Step 1. Connects to nothing. ``named_on_disk``: where no participant is given, participant.txt names it."""
    local = read_local(manifest_path, source_dir, key_prefix=key_prefix, rig_timezone=rig_timezone)
    if named_on_disk and participant is None:
        participant = disk_participant(local)
    return Request(local, clean_participant(participant), options)


def make_plan(services: Services, request: Request, progress: Progress) -> IngestPlan:
    """Steps 2 to 4: what an ingest would do. Writes nothing.

    Raises:
        RecordingExistsError, ConflictError, MissingFilesError, ObjectConflictError, ChecksumMismatchError
    """
    local = request.local
    context = Context(services.raw, services.engine, services.stop, request.options, progress.checked)
    prefix = f"{services.raw_prefix}{local.rec_id}/"
    # A batch knows that it is registered: then most often nothing is new, and the bucket need not be asked.
    known = bool(request.standing and request.standing[0])
    with ThreadPoolExecutor(1) as beside:
        objects = None if known else beside.submit(lambda: list(services.raw.list(prefix)))
        try:
            standing = _standing(services.catalog, request, context)
        except RecordingExistsError:
            if objects is not None:
                _refuse_lost(services.catalog, local.rec_id, Listing(prefix, objects.result()))
            raise
        listing = Listing(prefix, objects.result() if objects else services.raw.list(prefix))
    progress.expect(sum(file.size_bytes for file in local.scan.files if listing.get(file.path) is None))
    in_bucket, absent = find_missing(local, listing, context, standing.registered)
    files = plan_files(local, listing, context, registered=standing.registered, hashes=standing.hashes)
    sidecars, warnings = plan_sidecars(
        local,
        listing,
        services.raw,
        absent,
        replace_objects=request.options.replace_objects,
        registered=standing.existing is not None and not request.options.overwrite,
    )
    silent = _silent_nodes(local, standing.registered, absent)
    if silent:
        warnings.append(f"the session expected node {', '.join(silent)} as well, of which nothing is here yet")
    if absent:
        warnings.append(f"not here, so not registered now: node {', '.join(absent)}; ingest that half when it comes")
    return IngestPlan(
        rec_id=local.rec_id,
        recording_hash=standing.existing.recording_hash if standing.existing else local.stated_hash(),
        action=standing.decision.action,
        files=preflight(local, files, context),
        sidecars=tuple(item.item for item in sidecars),
        in_bucket=in_bucket,
        registered_workers=_registered_workers(local, standing.registered),
        absent_nodes=absent,
        participant=request.participant,
        kept_names=tuple(name for item in sidecars for name in item.names),
        unlisted=local.unlisted,
        junk=local.scan.junk,
        warnings=(*local.scan.warnings, *local.loaded.warnings, *warnings),
    )


def _silent_nodes(local: LocalRecording, registered: Sequence[ModalityRow], absent: Collection[str]) -> list[str]:
    """Nodes that the session expected, and of which there is no file: neither here, nor registered, nor listed."""
    heard = {node_here(local, file) for file in local.scan.raw} | {item.node for item in registered}
    return sorted(set(local.manifest.expected_nodes) - heard - set(absent))


def ingest(services: Services, request: Request, callback: UploadCallback | None = None) -> IngestResult:
    """Path A. Raises what ``make_plan`` and ``ursa.transfer.upload.upload`` raise; then nothing is registered."""
    local = request.local
    progress = Progress(local.rec_id, callback)
    before = services.counter.snapshot()
    plan = make_plan(services, request, progress)
    progress.planned(plan)
    warnings = list(plan.warnings)
    with _counting(plan, progress):
        done = _send(services, plan.files, progress)
        progress.phase("sidecars")
        plan, sent_sidecars = _send_sidecars(services, request, plan, progress, warnings)
    progress.phase("prove")
    files = _prove(services, plan, _file_rows(services, plan, done), sent_sidecars)
    proven_at = datetime.now(UTC)
    # From here on a file that is touched is newer than its registration, however long this walk takes.
    _check_directory(local, services.raw_prefix)
    progress.phase("register")
    if services.stop.is_set():
        raise KeyboardInterrupt
    registered = services.register(_registration(services.catalog, request, plan, files, proven_at))
    progress.done()
    sent = [*done.values(), *sent_sidecars]
    return IngestResult(
        recording=registered.row,
        files_uploaded=sum(item.sent for item in sent),
        files_skipped=plan.files_skipped + sum(not item.sent for item in sent),
        bytes_uploaded=sum(item.item.file.size_bytes for item in sent if item.sent),
        action=registered.action,
        bytes_skipped=plan.bytes_skipped + sum(item.item.file.size_bytes for item in sent if not item.sent),
        unlisted=len(plan.unlisted),
        junk=len(plan.junk),
        requests=services.counter.since(before),
        seconds=progress.seconds,
        evidence=dict(Counter(row.evidence for row in files.values())),
        unlisted_files=plan.unlisted,
        absent_nodes=plan.absent_nodes,
        warnings=tuple(warnings),
        bytes_resumed=progress.bytes_resumed,
    )


@contextmanager
def _counting(plan: IngestPlan, progress: Progress) -> Iterator[None]:
    """An error on the way says how much of the recording is in the bucket already: a re-run skips that."""
    try:
        yield
    except UrsaError as error:
        total = plan.files_skipped + len(plan.sends)
        there = plan.files_skipped + progress.files_done
        told = f"{there} of its {total} files are in the bucket and will be skipped."
        if any(item.action == "replace" for item in plan.files):
            told += " Objects may have been replaced: until this command succeeds, the catalog describes the old ones."
        error.hint = f"{error.hint or 'Nothing was registered.'} {told}"
        raise


def _standing(catalog: Catalog, request: Request, context: Context) -> _Standing:
    """Step 2: a conflict is found before a byte moves."""
    local = request.local
    stated = local.stated_hash()
    if request.standing is not None:
        known, registered = request.standing
        # A hash that the manifest itself states may be another recording's: better known before a byte moves. Where
        # there is none to ask about, nobody waits for the catalog: others of the batch may be at a commit.
        asked = None if known else local.manifest.identity_hash
        with catalog.lock if asked else nullcontext():
            rows = catalog.lookup_all([], [asked]) if asked else []
            existing = identify([known] if known else rows, local.rec_id, local.manifest.identity_hash)
            if existing and not known:
                registered = tuple(catalog.modalities_for([existing]))
    else:
        with catalog.lock:
            catalog.refresh()
            rows = catalog.lookup(rec_id=local.rec_id, recording_hash=stated)
            existing = identify(rows, local.rec_id, local.manifest.identity_hash)
            registered = tuple(catalog.modalities_for([existing])) if existing else ()
    hashes: Mapping[str, str] = {}
    if existing and not request.options.overwrite:
        hashes = existing_hashes(local, existing, registered, context)
        hashes = {**hashes, **auxiliary_hashes(local, existing, context)}
    paths = {file.path for item in registered for file in item.files}
    ours, waiting = _on_disk(request, paths.union(auxiliary(existing) if existing else ()), hashes)
    row = ours.recording(stated or "")
    try:
        decision = decide(existing, registered, row, ours.modalities, overwrite=request.options.overwrite)
    except RecordingExistsError as error:
        error.waiting = tuple(waiting)
        raise
    return _Standing(existing, registered, decision, hashes)


def _refuse_lost(catalog: Catalog, rec_id: str, listing: Listing) -> None:
    """A registered recording is only said to be there where its objects are: all of its rows' keys, whole."""
    registered = catalog.registered([rec_id]).get(rec_id)
    sizes = {info.key: info.size_bytes for _, info in listing.items()}
    files = [file for row in registered[1] for file in row.files] if registered else []
    lost = [
        file.path for file in files if file.key.startswith(listing.prefix) and sizes.get(file.key) != file.size_bytes
    ]
    beside = (*auxiliary(registered[0]), *sidecars(registered[0])) if registered else ()
    lost += [path for path in beside if listing.get(path) is None]
    if lost:
        raise MissingFilesError(
            f"{rec_id} is registered, but of its files the bucket no longer holds {named([shown(path) for path in lost])}",
            hint="Run the same command with --overwrite: it uploads from this disk what is missing, and registers it again.",
            paths=tuple(lost),
        )


def _send(services: Services, files: Sequence[PlannedFile], progress: Progress) -> dict[str, Uploaded]:
    """Step 5. Path → what became of it."""
    items = [_item(file) for file in files if file.sends]
    results = upload(
        services.engine,
        services.raw,
        items,
        stop=services.stop,
        open_uploads=_open_uploads(services, items),
        on_event=progress.moved,
    )
    return {result.item.file.path: result for result in results}


def _open_uploads(services: Services, items: Sequence[UploadItem]) -> Mapping[str, Sequence[OpenUpload]]:
    """What earlier runs left of the large files, by key: one request, and none where there is no large file."""
    large = {item.key for item in items if item.file.size_bytes > SINGLE_PUT_BYTES}
    found: dict[str, list[OpenUpload]] = {}
    if large:
        prefix = f"{services.raw_prefix}{items[0].key.removeprefix(services.raw_prefix).split('/', 1)[0]}/"
        for open_upload in services.raw.list_uploads(prefix):
            if open_upload.key in large:
                found.setdefault(open_upload.key, []).append(open_upload)
    return found


def _send_sidecars(
    services: Services, request: Request, plan: IngestPlan, progress: Progress, warnings: list[str]
) -> tuple[IngestPlan, list[Uploaded]]:
    """Step 6, one after the other: participant.txt, then the manifests. The plan comes back as it was carried out."""
    sent: list[Uploaded] = []
    for sidecar in (item for item in plan.sidecars if item.sends):
        try:
            sent += upload(
                services.engine,
                services.raw,
                [_item(sidecar)],
                stop=services.stop,
                open_uploads={},
                on_event=progress.moved,
            )
        except ObjectConflictError:
            # Another one arrived meanwhile: does ours stand back?
            info = services.raw.head(sidecar.key)
            again = judge(
                request.local,
                sidecar.file.path,
                sidecar.key,
                info,
                services.raw,
                replace_objects=False,
                registered=False,
            )
            if again.item.sends:
                raise
            services.stop.forgive()
            warnings += [again.warning] if again.warning else []
            plan = replace(
                plan,
                sidecars=tuple(again.item if item is sidecar else item for item in plan.sidecars),
                kept_names=(*plan.kept_names, *again.names),
            )
    return plan, sent


def _item(planned: PlannedFile) -> UploadItem:
    return UploadItem(
        source_of(planned.file),
        planned.key,
        sha256=planned.sha256,
        replace_etag=planned.etag if planned.action == "replace" else None,
        data=planned.data,
    )


def _file_rows(services: Services, plan: IngestPlan, done: Mapping[str, Uploaded]) -> dict[str, FileRow]:
    """A row for each file that is in the bucket now, by path."""
    rows: dict[str, FileRow] = {}
    for planned in plan.files:
        path, size = planned.file.path, planned.file.size_bytes
        result = done.get(path)
        if result is not None:
            rows[path] = FileRow(path, planned.key, size, result.sha256, result.etag, result.evidence)
        else:
            rows[path] = FileRow(path, planned.key, size, planned.sha256, planned.etag, planned.evidence or "size")
    for file in plan.in_bucket:
        sha256, evidence = file.sha256, file.evidence
        if sha256 is None:
            # Nobody states it, and the recording_hash is over all raw files: the object itself tells.
            sha256 = object_sha256(services.raw, file.key, if_match=file.etag, progress=lambda _: services.stop.check())
            evidence = "sha256"
        rows[file.path] = FileRow(file.path, file.key, file.size_bytes, sha256, file.etag, evidence)
    return rows


def _prove(
    services: Services, plan: IngestPlan, files: Mapping[str, FileRow], sent: Sequence[Uploaded]
) -> dict[str, FileRow]:
    """Before the rows: list once more, and find every object as it was left. Returns the files as listed.

    A server may list another ETag than it answered to the write (rclone serve does, for multipart objects): then the
    object is read back and its sha256 decides.
    """
    listing = {info.key: info for info in services.raw.list(f"{services.raw_prefix}{plan.rec_id}/")}
    etags = {item.item.key: item.etag for item in sent}
    sidecars = [
        FileRow(item.file.path, item.key, item.file.size_bytes, item.sha256, etags.get(item.key, item.etag))
        for item in plan.sidecars
        if item.action != "keep"
    ]
    proven: dict[str, FileRow] = {}
    missing: list[str] = []
    for row in (*files.values(), *sidecars):
        info = listing.get(row.key)
        if info is None or info.size_bytes != row.size_bytes:
            missing.append(row.key)
        elif info.etag == row.etag:
            proven[row.path] = row
        elif row.sha256 is not None and read_back(services.raw, row.key, row.sha256):
            proven[row.path] = replace(row, etag=info.etag, evidence="sha256")
        else:
            missing.append(row.key)
    if missing:
        raise MissingFilesError(
            f"{plan.rec_id}: the bucket does not hold what was just sent: {', '.join(missing[:20])}",
            hint="Nothing was registered. Somebody deletes or replaces objects, or the server loses them: find out"
            " before running the same command again.",
            paths=tuple(missing),
        )
    return {path: proven[path] for path in files}


def _check_directory(local: LocalRecording, key_prefix: str) -> None:
    """Before the rows: the directory is still what was read. Raises ``FileChangedError`` otherwise."""
    now = scan_recording(local.root, manifest=local.manifest, key_prefix=key_prefix)
    before = {(file.path, file.size_bytes, file.mtime_ns) for file in local.scan.files}
    changed = sorted(
        {entry[0] for entry in before ^ {(file.path, file.size_bytes, file.mtime_ns) for file in now.files}}
    )
    if changed:
        raise FileChangedError(
            f"{local.rec_id} is still being written: {', '.join(shown(path) for path in changed[:20])} changed meanwhile",
            hint="Nothing was registered. Wait until the copy or the rig is done, then run the same command again:"
            " files that did not change are skipped.",
            path=changed[0],
        )


def _registration(
    catalog: Catalog,
    request: Request,
    plan: IngestPlan,
    files: Mapping[str, FileRow],
    proven_at: datetime,
) -> Registration:
    local = request.local
    workers: dict[str, list[FileRow]] = {}
    for file in local.scan.raw:
        workers.setdefault(file.worker, []).append(files[file.path])
    for there in plan.in_bucket:
        # A worker that is registered and not on this disk keeps its row as it is.
        if there.worker and (there.worker in workers or there.worker not in plan.registered_workers):
            workers.setdefault(there.worker, []).append(files[there.path])
    raw_paths = {file.path for file in local.scan.raw}
    contents = Contents(
        local.rec_id,
        local.manifest,
        local.times,
        workers,
        {
            planned.file.path: [planned.file.size_bytes, files[planned.file.path].sha256]
            for planned in plan.files
            if planned.file.path not in raw_paths
        },
        tuple(name for name in (request.participant, *plan.kept_names) if name),
        settled(plan.sidecars, local, request.participant),
    )
    return registration(
        contents,
        recording_hash=plan.recording_hash,
        overwrite=request.options.overwrite,
        by=catalog.home.author.by,
        now=proven_at,
        replaced=frozenset(item.file.path for item in plan.sidecars if item.action == "replace"),
    )


def _registered_workers(local: LocalRecording, registered: Sequence[ModalityRow]) -> frozenset[str]:
    """The worker directories of listed files whose rows are there already."""
    keys = {(item.modality, item.worker_id) for item in registered}
    workers = {local.manifest.worker_of(entry) for entry in local.missing} - {""}
    identities = {worker: local.manifest.worker_identity(worker) for worker in workers}
    return frozenset(worker for worker, found in identities.items() if (found.modality, found.worker_id) in keys)


def _on_disk(
    request: Request, registered: Collection[str], hashes: Mapping[str, str]
) -> tuple[Contents, Sequence[str]]:
    """What the disk alone can tell, and the manifests that wait for another half. ``registered``: paths that are;
    ``hashes``: sha256s that were measured.
    """
    local = request.local
    workers: dict[str, list[FileRow]] = {}
    for file in local.scan.raw:
        sha256 = hashes.get(file.path) or local.stated_sha256(file.path)
        workers.setdefault(file.worker, []).append(FileRow(file.path, "", file.size_bytes, sha256))
    auxiliary: dict[str, list[int | str | None]] = {
        file.path: [file.size_bytes, hashes.get(file.path) or local.stated_sha256(file.path)]
        for file in local.data_files
        if file.kind == "auxiliary"
    }
    participants = (request.participant,) if request.participant else ()
    sidecars, waiting = local_sidecars(local, registered, request.participant)
    contents = Contents(local.rec_id, local.manifest, local.times, workers, auxiliary, participants, sidecars)
    return contents, waiting
