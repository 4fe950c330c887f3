"""Path A: one recording, from a directory into the bucket and the catalog, in seven steps (``spec``: docs/ingest.md).

1 read and check everything locally, 2 look the recording up, 3 list its prefix, 4 plan, 5 upload, 6 sidecars, the
manifest last, 7 prove and write the rows, the recording's row last.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from ursa.beside import at_once, begin, each
from ursa.bucket.listing import Listing, files_of, list_recording
from ursa.bucket.presence import SidecarState, sidecar_state
from ursa.bucket.proof import holds, known, measure_now
from ursa.catalog.catalog import Catalog
from ursa.catalog.metadata import sidecars
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.catalog.where import by_rec_id
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
from ursa.policies import Evidence
from ursa.recording import MANIFEST_NAME, PARTICIPANT_NAME, LocalFile, clean_participant, scan_recording
from ursa.register.build import Contents, Registration, registration
from ursa.register.commit import Registered
from ursa.register.decide import Decision, decide, identify
from ursa.register.local import LocalRecording, read_local
from ursa.register.memory import Memory, Remembering, source_of
from ursa.register.planning import (
    Context,
    Options,
    find_missing,
    node_here,
    plan_files,
    preflight,
    refuse_replacing,
)
from ursa.register.progress import Progress
from ursa.register.proving import Upgrade, better
from ursa.register.results import BucketFile, IngestPlan, IngestResult, PlannedFile
from ursa.register.services import Services
from ursa.register.sidecars import Judged, disk_participant, judge, local_sidecars, plan_sidecars, settled
from ursa.store import NotFoundError, ObjectInfo, OpenUpload
from ursa.store.counting import RequestCounter
from ursa.transfer.digest import Digest
from ursa.transfer.engine import Stop
from ursa.transfer.items import Compare, Finished, Uploaded, UploadEvent, UploadItem
from ursa.transfer.parts import SINGLE_PUT_BYTES
from ursa.transfer.trace import Stage
from ursa.transfer.upload import upload

_OpenUploads = Mapping[str, Sequence[OpenUpload]]


@dataclass(frozen=True)
class Request:
    """What is asked for: a recording that has been read and checked, and how to treat what is there already.

    ``standing``: how it stands in the catalog, where a batch has read that already; else it is looked up. Either way
    it is decided again when the rows are written. ``may_be_there``: whether a hash may be a registered recording's.
    ``objects``: what the bucket has under its prefix, where a batch has listed that. ``seen_at``: since when its files are
    known to be what they are, on the monotonic clock.
    """

    local: LocalRecording
    participant: str | None
    options: Options
    standing: tuple[RecordingRow | None, tuple[ModalityRow, ...]] | None = None
    may_be_there: Callable[[str], bool] = lambda _recording_hash: True
    objects: Sequence[ObjectInfo] | None = None
    seen_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Standing:
    """How the recording stands in the catalog before anything moves."""

    existing: RecordingRow | None
    registered: tuple[ModalityRow, ...]

    @property
    def rows(self) -> dict[str, FileRow]:
        """What is registered of its files, by path."""
        return {file.path: file for file in files_of(self.existing, self.registered)}


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
    local = read_local(
        manifest_path,
        source_dir,
        key_prefix=key_prefix,
        rig_timezone=rig_timezone,
        not_unfinished=options.not_unfinished,
    )
    if named_on_disk and participant is None:
        participant = disk_participant(local)
    return Request(local, clean_participant(participant), options)


def make_plan(services: Services, request: Request, progress: Progress) -> IngestPlan:
    """Steps 2 to 4: what an ingest would do. Writes nothing but what it measured of files that are registered already,
    where ``services.upgrade`` may.

    Raises:
        RecordingExistsError, ConflictError, MissingFilesError, ObjectConflictError, ChecksumMismatchError
    """
    local, options = request.local, request.options
    context = _context(services, request, progress)
    prefix = f"{services.raw_prefix}{local.rec_id}/"
    standing, objects = at_once(
        lambda: _standing(services.catalog, request),
        lambda: _objects(services, prefix) if request.objects is None else request.objects,
    )
    rows = standing.rows
    listing = list_recording(services.raw, prefix, rows.values(), objects)
    merging = standing.existing is not None and not options.overwrite
    if merging:
        # By names and sizes alone: what differs there need not be read to be refused.
        _decided(request, standing, {}, sure=False)
    progress.expect(sum(file.size_bytes for file in local.scan.files if listing.get(file.path) is None))
    in_bucket, absent = find_missing(local, listing, context, rows)
    files = plan_files(local, listing, context, rows)
    proven = _proven(rows, files, in_bucket)
    decision, exists = _decided(request, _measured(standing, proven), {item.file.path: item for item in files})
    if merging:
        looked_at = {item.file.path for item in files} | {item.path for item in in_bucket}
        _refuse_lost(services, local.rec_id, standing, listing, looked_at)
    refuse_replacing(files, options, rows if merging else ())
    if exists is not None:
        if upgrade := _upgrade(standing, proven):
            services.upgrade(upgrade)
        exists.told = _told(local, standing, files, in_bucket)
        raise exists
    assert decision is not None
    sidecars, warnings = plan_sidecars(
        local,
        listing,
        services.raw,
        absent,
        replace_objects=options.replace_objects,
        registered=merging,
    )
    silent = _silent_nodes(local, standing.registered, absent)
    if silent:
        warnings.append(f"the session expected node {', '.join(silent)} as well, of which nothing is here yet")
    if absent:
        warnings.append(f"not here, so not registered now: node {', '.join(absent)}; ingest that half when it comes")
    return IngestPlan(
        rec_id=local.rec_id,
        recording_hash=standing.existing.recording_hash if standing.existing else local.stated_hash(),
        action=decision.action,
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
        proven=_upgrade(standing, proven) if merging else None,
    )


def _objects(services: Services, prefix: str) -> list[ObjectInfo]:
    """The first round trip: it tells how many requests the files will need in flight."""
    with services.engine.trace.stage(Stage.LIST), services.engine.window.timed():
        return list(services.raw.list(prefix))


def _context(services: Services, request: Request, progress: Progress) -> Context:
    memory = Memory(services.files, request.local.rec_id, services.reread_after_s, request.seen_at)
    return Context(
        services.raw, services.engine, services.stop, request.options, memory, services.proofs, progress.checked
    )


def _proven(
    rows: Mapping[str, FileRow], files: Sequence[PlannedFile], in_bucket: Sequence[BucketFile]
) -> dict[str, FileRow]:
    """Registered files of which this run has measured more than their rows say, by path."""
    measured = {item.file.path: item.row for item in files if item.action == "skip"}
    measured |= {item.path: item.row for item in in_bucket}
    return {
        path: row
        for path, row in measured.items()
        if path in rows and row.proven and _same_or_claimed(rows[path], row) and better(rows[path], row)
    }


def _same_or_claimed(row: FileRow, measured: FileRow) -> bool:
    """Whether a row may be read as what was measured: one that is proven gives way to its own bytes only."""
    return row.size_bytes == measured.size_bytes and (not row.proven or row.sha256 == measured.sha256)


def _measured(standing: _Standing, proven: Mapping[str, FileRow]) -> _Standing:
    """The standing with what was measured in place of what was claimed."""

    def files(there: Sequence[FileRow]) -> tuple[FileRow, ...]:
        return tuple(proven.get(row.path, row) for row in there)

    existing = standing.existing
    return _Standing(
        replace(existing, auxiliary_files=files(existing.auxiliary_files)) if existing else None,
        tuple(replace(item, files=files(item.files)) for item in standing.registered),
    )


def _upgrade(standing: _Standing, proven: Mapping[str, FileRow]) -> Upgrade | None:
    existing = standing.existing
    return Upgrade(existing.rec_id, existing.recording_hash, proven, standing.rows) if existing and proven else None


def _told(
    local: LocalRecording, standing: _Standing, files: Sequence[PlannedFile], in_bucket: Sequence[BucketFile]
) -> str:
    """What a HAVE line adds: how much of the recording this disk has, and by what it was judged."""
    total, here = len(standing.rows), len(local.data_files)
    notes = []
    if any(item.trusted for item in files):
        notes.append(f"by {next(item.trusted for item in files if item.trusted)}; not read")
    dates = [item.read_at for item in files if item.read_at]
    if dates:
        notes.append(f"read {min(dates):%Y-%m-%d}; this disk keeps no change time")
    told = f" ({'; '.join(notes)})" if notes else ""
    if here < total:
        told += f"; {here} of {total} files on this disk"
    return told + (f", {len(in_bucket)} only in the bucket" if in_bucket else "")


def _silent_nodes(local: LocalRecording, registered: Sequence[ModalityRow], absent: Collection[str]) -> list[str]:
    """Nodes that the session expected, and of which there is no file: neither here, nor registered, nor listed."""
    heard = {node_here(local, file) for file in local.scan.raw} | {item.node for item in registered}
    return sorted(set(local.manifest.expected_nodes) - heard - set(absent))


def ingest(services: Services, request: Request, callback: UploadCallback | None = None) -> IngestResult:
    """Path A. Raises what ``make_plan`` and ``ursa.transfer.upload.upload`` raise; then nothing is registered."""
    sent = send(services, request, callback, registered_next=True)
    return sent.result(services.register(sent.wanted))


@dataclass(frozen=True)
class Sent:
    """A recording that is in the bucket, proven; what is left is to register it. ``wanted``: its rows. Nothing else is kept
    of it: many wait for one commit.
    """

    wanted: Registration
    _told: IngestResult
    _progress: Progress
    _counter: RequestCounter
    _before: dict[str, int]

    def result(self, registered: Registered) -> IngestResult:
        """What the ingest did, once that is done."""
        self._progress.done()
        return replace(
            self._told,
            recording=registered.row,
            action=registered.action,
            requests=self._counter.since(self._before),
            seconds=self._progress.seconds,
        )


def send(
    services: Services, request: Request, callback: UploadCallback | None = None, *, registered_next: bool = False
) -> Sent:
    """Path A up to the registration. Raises as ``ingest``. ``registered_next``: the catalog is asked meanwhile whether
    anybody has committed.
    """
    local = request.local
    progress = Progress(local.rec_id, callback)
    before = services.counter.snapshot()
    open_uploads = _open_uploads(services, request)
    plan = make_plan(services, request, progress)
    services.catalog.refuse_unwritable()
    progress.planned(plan)
    warnings = list(plan.warnings)
    memory = _context(services, request, progress).memory
    with services.admitted(), _counting(plan, progress), _remembering(memory, progress) as told:
        early = [item for item in plan.sidecars if item.sends and item.file.path == PARTICIPANT_NAME]
        done, named_in = at_once(
            lambda: _send(services, plan.files, open_uploads, told),
            lambda: _send_sidecars(services, request, early),
        )
        progress.phase("sidecars")
        attempts = [*named_in, *_send_manifests(services, request, plan)]
        for attempt in attempts:
            attempt.tell(told)
        plan, sent_sidecars = _as_sent(plan, attempts, warnings)
    progress.phase("prove")
    ready_at = time.monotonic()
    if registered_next:
        begin(services.catalog.refresh_if_idle)
    with services.engine.trace.stage(Stage.LIST):
        files = _prove(services, plan, _file_rows(plan, done), sent_sidecars)
    proven_at = datetime.now(UTC)
    _check_directory(local, services.raw_prefix, request.options)
    progress.phase("register")
    services.stop.check()
    if plan.proven is not None:
        # First: the rows are compared again as they are registered, and a claim that was found wrong would refuse ours.
        services.upgrade(plan.proven)
    etags = {item.item.key: item.etag for item in sent_sidecars}
    wanted = _registration(services.catalog, request, plan, files, etags, proven_at)
    sent = [*done.values(), *sent_sidecars]
    result = IngestResult(
        recording=wanted.row,
        files_uploaded=sum(item.sent for item in sent),
        files_skipped=plan.files_skipped + sum(not item.sent for item in sent),
        bytes_uploaded=sum(item.item.file.size_bytes for item in sent if item.sent),
        bytes_skipped=plan.bytes_skipped + sum(item.item.file.size_bytes for item in sent if not item.sent),
        unlisted=len(plan.unlisted),
        junk=len(plan.junk),
        evidence=dict(Counter(str(row.evidence) for row in files.values())),
        unlisted_files=plan.unlisted,
        absent_nodes=plan.absent_nodes,
        warnings=tuple(warnings),
        bytes_resumed=progress.bytes_resumed,
        in_bucket=len(plan.in_bucket),
        trusted=dict(Counter(item.trusted for item in plan.files if item.trusted and item.row.proven)),
    )
    return Sent(replace(wanted, ready_at=ready_at), result, progress, services.counter, before)


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


def _standing(catalog: Catalog, request: Request) -> _Standing:
    """Step 2: the recording's rows. Raises ``ConflictError`` where they are another recording's."""
    local = request.local
    if request.standing is not None:
        known_row, registered = request.standing
        # A hash that the manifest states, or that follows from what it lists, may be another recording's: better known
        # before a byte moves. Where there is none to ask about, this one does not wait for the catalog: others of the
        # batch may be at a commit.
        asked = None if known_row else local.stated_hash()
        asked = asked if asked and request.may_be_there(asked) else None
        with catalog.lock if asked else nullcontext():
            rows = catalog.lookup_all([], [asked]) if asked else []
            existing = identify([known_row] if known_row else rows, local.rec_id, local.manifest.identity_hash)
            if existing and not known_row:
                registered = tuple(catalog.modalities_for([existing]))
        return _Standing(existing, tuple(registered))
    with catalog.lock:
        catalog.refresh()
        catalog.bring_standing(by_rec_id([local.rec_id]))
        rows = catalog.lookup(rec_id=local.rec_id, recording_hash=local.stated_hash())
        existing = identify(rows, local.rec_id, local.manifest.identity_hash)
        return _Standing(existing, tuple(catalog.modalities_for([existing])) if existing else ())


def _decided(
    request: Request, standing: _Standing, planned: Mapping[str, PlannedFile], *, sure: bool = True
) -> tuple[Decision | None, RecordingExistsError | None]:
    """What the rows would become; or the error that says that all is registered. ``sure``: what differs is known by its
    bytes; else only names and sizes are compared. Raises ``ConflictError``.
    """
    existing = standing.existing
    ours, waiting = _on_disk(request, standing.rows, planned, sure=sure)
    row = ours.recording(request.local.stated_hash() or "")
    try:
        decision = decide(existing, standing.registered, row, ours.modalities, overwrite=request.options.overwrite)
    except RecordingExistsError as error:
        error.waiting = tuple(waiting)
        return None, error
    return decision, None


def _refuse_lost(
    services: Services, rec_id: str, standing: _Standing, listing: Listing, looked_at: Collection[str]
) -> None:
    """A registered recording is only said to be there where its objects are: all of its rows' keys, whole.

    ``looked_at``: paths whose objects this run has compared. Of the others one that was uploaded again is read.
    """
    lost: dict[str, str] = {}
    for row in standing.rows.values():
        info = listing.of(row)
        if info is None:
            lost[row.path] = "gone"
        elif info.size_bytes != row.size_bytes:
            lost[row.path] = f"{info.size_bytes:,} of {row.size_bytes:,} bytes"
        elif row.proven and row.path not in looked_at and _as_listed(services, row, listing) is None:
            lost[row.path] = "other content"
    beside = sidecars(standing.existing) if standing.existing else {}
    states = each(
        lambda item: sidecar_state(services.raw, *item, listing.get(item[0]), services.proofs), beside.items()
    )
    for path, state in zip(beside, states, strict=True):
        if state in (SidecarState.GONE, SidecarState.OTHER):
            lost[path] = "gone" if state is SidecarState.GONE else "other content"
    if lost:
        cut = any(why != "gone" for why in lost.values())
        told = named([f"{shown(path)} ({why})" for path, why in lost.items()])
        raise MissingFilesError(
            f"{rec_id} is registered, but the bucket does not hold all of its files any more: {told}",
            hint=f"Run the same command with --overwrite{' --replace-objects' if cut else ''}: it uploads from this disk"
            " what is missing, and registers it again.",
            paths=tuple(lost),
        )


def _compare(services: Services) -> Compare:
    """How an upload judges what is under a key already."""

    def compare(info: ObjectInfo, local: Digest) -> tuple[str, Evidence] | None:
        proof = holds(services.raw, info, local, services.proofs, lambda _: services.stop.check())
        return (proof.info.etag, proof.evidence) if proof else None

    return compare


@contextmanager
def _remembering(memory: Memory, progress: Progress) -> Iterator[Callable[[UploadEvent], None]]:
    """Tells progress; and remembers each file that was read, by the end of it at the latest."""
    with Remembering(memory) as remembering:

        def told(event: UploadEvent) -> None:
            if isinstance(event, Finished):
                result = event.result
                remembering.read(result.item.file.path, result.digest, result.etag)
            progress.moved(event)

        yield told


def _send(
    services: Services,
    files: Sequence[PlannedFile],
    open_uploads: Callable[[], _OpenUploads],
    on_event: Callable[[UploadEvent], object],
) -> dict[str, Uploaded]:
    """Step 5. Path → what became of it."""
    items = [_item(file) for file in files if file.sends]
    large = any(item.file.size_bytes > SINGLE_PUT_BYTES for item in items)
    results = upload(
        services.engine,
        services.raw,
        items,
        stop=services.stop,
        open_uploads=open_uploads() if large else {},
        compare=_compare(services),
        on_event=on_event,
    )
    return {result.item.file.path: result for result in results}


def _open_uploads(services: Services, request: Request) -> Callable[[], _OpenUploads]:
    """What earlier runs left of the large files, by key: one request, which has begun where something is likely to be sent."""
    prefix = f"{services.raw_prefix}{request.local.rec_id}/"

    def ask() -> _OpenUploads:
        found: dict[str, list[OpenUpload]] = {}
        for open_upload in services.raw.list_uploads(prefix):
            found.setdefault(open_upload.key, []).append(open_upload)
        return found

    large = any(file.size_bytes > SINGLE_PUT_BYTES for file in request.local.data_files)
    registered = request.standing is not None and request.standing[0] is not None
    return begin(ask).result if large and not registered else ask


@dataclass
class _Attempt:
    """A sidecar that was to be sent. ``sent``: what became of it; None where another one arrived meanwhile, to which it
    gives way as ``judged`` says. ``events``: what is to be told of it, in the thread that called.
    """

    planned: PlannedFile
    sent: Uploaded | None = None
    judged: Judged | None = None
    events: list[UploadEvent] = field(default_factory=list)

    def tell(self, on_event: Callable[[UploadEvent], object]) -> None:
        for event in self.events:
            on_event(event)


def _send_manifests(services: Services, request: Request, plan: IngestPlan) -> list[_Attempt]:
    """Step 6: once all files are there the manifests of nodes, and after those ``manifest.json``."""
    left = [item for item in plan.sidecars if item.sends and item.file.path != PARTICIPANT_NAME]
    of_nodes = [item for item in left if item.file.path != MANIFEST_NAME]
    attempts = _send_sidecars(services, request, of_nodes)
    return attempts + _send_sidecars(services, request, [item for item in left if item not in of_nodes])


def _send_sidecars(services: Services, request: Request, wanted: Sequence[PlannedFile]) -> list[_Attempt]:
    """Side by side. One that meets another one under its key stops no other."""
    services.stop.check()
    return each(lambda planned: _send_sidecar(services, request, planned), wanted)


def _send_sidecar(services: Services, request: Request, planned: PlannedFile) -> _Attempt:
    attempt = _Attempt(planned)
    try:
        (attempt.sent,) = upload(
            services.engine,
            services.raw,
            [_item(planned)],
            stop=Stop(),
            open_uploads={},
            compare=_compare(services),
            on_event=attempt.events.append,
        )
    except ObjectConflictError:
        # Another one arrived meanwhile: does ours stand back?
        info = services.raw.head(planned.key)
        attempt.judged = judge(
            request.local,
            planned.file.path,
            planned.key,
            info,
            services.raw,
            replace_objects=False,
            registered=False,
        )
        if attempt.judged.item.sends:
            raise
    return attempt


def _as_sent(plan: IngestPlan, attempts: Sequence[_Attempt], warnings: list[str]) -> tuple[IngestPlan, list[Uploaded]]:
    """The plan as it was carried out, and what was sent."""
    again = {attempt.planned.file.path: attempt.judged for attempt in attempts if attempt.judged}
    warnings += [judged.warning for judged in again.values() if judged.warning]
    sidecars = tuple(again[item.file.path].item if item.file.path in again else item for item in plan.sidecars)
    names = (*plan.kept_names, *(name for judged in again.values() for name in judged.names))
    sent = [attempt.sent for attempt in attempts if attempt.sent is not None]
    return replace(plan, sidecars=sidecars, kept_names=names), sent


def _item(planned: PlannedFile) -> UploadItem:
    return UploadItem(
        source_of(planned.file),
        planned.key,
        sha256=planned.sha256,
        replace_etag=planned.etag if planned.action == "replace" else None,
        data=planned.data,
        digest=planned.digest,
    )


def _file_rows(plan: IngestPlan, done: Mapping[str, Uploaded]) -> dict[str, FileRow]:
    """A row for each file that is in the bucket now, by path."""
    rows: dict[str, FileRow] = {}
    for planned in plan.files:
        path, file = planned.file.path, planned.file
        result = done.get(path)
        rows[path] = planned.row
        if result is not None:
            rows[path] = FileRow(
                path, planned.key, file.size_bytes, result.sha256, result.etag, result.evidence, file.mtime_ns
            )
    return rows | {file.path: file.row for file in plan.in_bucket}


def _prove(
    services: Services, plan: IngestPlan, files: Mapping[str, FileRow], sent: Sequence[Uploaded]
) -> dict[str, FileRow]:
    """Before the rows: list once more, and find every object as it was left. Returns the files as listed.

    A server may list another ETag than it answered to the write: then the object is read, and its sha256 decides.
    """
    listing = list_recording(services.raw, f"{services.raw_prefix}{plan.rec_id}/", files.values())
    etags = {item.item.key: item.etag for item in sent}
    sidecars = [
        FileRow(item.file.path, item.key, item.file.size_bytes, item.sha256, etags.get(item.key, item.etag))
        for item in plan.sidecars
        if item.action != "keep"
    ]
    rows = (*files.values(), *sidecars)
    proven = {row.path: now for row in rows if (now := _as_listed(services, row, listing)) is not None}
    missing = [row.key for row in rows if row.path not in proven]
    if missing:
        raise MissingFilesError(
            f"{plan.rec_id}: the bucket does not hold what was just sent: {', '.join(missing[:20])}",
            hint="Nothing was registered. Objects are deleted or replaced meanwhile, or the server loses them: find out"
            " before running the same command again.",
            paths=tuple(missing),
        )
    return {path: proven[path] for path in files}


def _as_listed(services: Services, row: FileRow, listing: Listing) -> FileRow | None:
    info = listing.of(row)
    if info is None or info.size_bytes != row.size_bytes:
        return None
    if info.etag == row.etag:
        return row
    if row.sha256 is None:
        return None
    try:
        proof = known(info, None, services.proofs) or measure_now(services.raw, info, services.proofs)
    except NotFoundError:
        return None
    same = proof.sha256 == row.sha256
    return replace(row, etag=proof.info.etag, evidence=proof.evidence) if same else None


def _check_directory(local: LocalRecording, key_prefix: str, options: Options) -> None:
    """Before the rows: the directory is still what was read. Raises ``FileChangedError`` otherwise."""
    now = scan_recording(
        local.root, manifest=local.manifest, key_prefix=key_prefix, not_unfinished=options.not_unfinished
    )
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
    etags: Mapping[str, str],
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
        [files[planned.file.path] for planned in plan.files if planned.file.path not in raw_paths]
        + [files[there.path] for there in plan.in_bucket if not there.worker],
        tuple(name for name in (request.participant, *plan.kept_names) if name),
        settled(plan.sidecars, local, request.participant, etags),
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
    request: Request, registered: Collection[str], planned: Mapping[str, PlannedFile], *, sure: bool
) -> tuple[Contents, Sequence[str]]:
    """What the disk alone can tell, and the manifests that wait for another half. ``registered``: paths that are;
    ``planned``: files with the sha256s that were measured. Without ``sure`` only names and sizes are told.
    """
    local = request.local

    def row(file: LocalFile) -> FileRow:
        item = planned.get(file.path)
        sha256 = item.sha256 if item else local.stated_sha256(file.path)
        return FileRow(file.path, "", file.size_bytes, sha256 if sure else None)

    workers: dict[str, list[FileRow]] = {}
    for file in local.scan.raw:
        workers.setdefault(file.worker, []).append(row(file))
    auxiliary = [row(file) for file in local.data_files if file.kind == "auxiliary"]
    participants = (request.participant,) if request.participant else ()
    sidecars, waiting = local_sidecars(local, registered, request.participant)
    contents = Contents(local.rec_id, local.manifest, local.times, workers, auxiliary, participants, sidecars)
    return contents, waiting
