"""Verification: what the catalog says, what the bucket holds, and, where a directory is given, what the disk has."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from ursa.bucket.listing import files_of, list_recording
from ursa.bucket.presence import SidecarState, sidecar_state
from ursa.bucket.proof import Proof, Proofs, from_etags, known, measure_now
from ursa.catalog.metadata import Sidecar, sidecars, workers_of
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow, participant_id
from ursa.errors import InvalidRecordingError, ManifestError, UrsaError, unexpected
from ursa.manifest import MAX_MANIFEST_BYTES, check_rec_id, parse_manifest
from ursa.parallel import result_of, submit
from ursa.policies import Evidence, Level, Mark
from ursa.recording import PARTICIPANT_NAME, LocalFile, is_sidecar, parse_participant
from ursa.store import NotFoundError, ObjectInfo, Store
from ursa.subset import Candidate
from ursa.transfer.digest import Digest, SourceFile, digest, read_whole
from ursa.transfer.engine import Engine

READS_BYTES = 10 * 10**9
"""So much is read at the level ``head`` of objects that were uploaded again since they were registered."""
UNREAD = "uploaded again since: not read; `--level full` reads it"
"""The detail of such an object beyond that."""


@dataclass(frozen=True, slots=True)
class FileCheck:
    """A file's verdict. ``evidence``: how well it is proven now (see ``Evidence``), "" where it is not. ``measured``: what
    was measured of its object just now, as a row.
    """

    path: str
    mark: Mark
    size_bytes: int
    evidence: str = ""
    detail: str = ""
    measured: FileRow | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class RecordingCheck:
    """A recording's verdict: a check for every file, in the order of their paths.

    ``left_out``: how many files were not looked at, since ``--subset`` did not choose them. ``level``: how much was done.
    """

    rec_id: str
    recording_hash: str | None
    files: tuple[FileCheck, ...]
    on_disk: bool
    left_out: int = 0
    level: Level = Level.HEAD

    @property
    def not_proven(self) -> int:
        """How many files are as registered by their size alone: nothing has compared their bytes."""
        return sum(file.mark is Mark.SAME and file.evidence in (Evidence.CLAIMED, Evidence.SIZE) for file in self.files)

    @property
    def seen_only(self) -> bool:
        """Whether it is no proof of the bytes: of a directory whose objects were not read, or of claims."""
        return bool(self.not_proven) or (self.on_disk and (self.level is not Level.FULL or bool(self.left_out)))

    def count(self, mark: Mark) -> int:
        """How many files have this mark."""
        return sum(file.mark is mark for file in self.files)

    @property
    def ok(self) -> bool:
        """Nothing is missing or different; and where a directory was given, all of it is registered."""
        bad = {Mark.MISSING, Mark.DIFFERENT, Mark.ERROR} | ({Mark.UNREGISTERED} if self.on_disk else set())
        registered = self.recording_hash is not None or not self.on_disk
        return registered and not any(file.mark in bad for file in self.files)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is verified: a recording's rows (none where it is not registered) and its files on this disk, if any."""

    rec_id: str
    row: RecordingRow | None
    modalities: tuple[ModalityRow, ...]
    disk: Mapping[str, LocalFile] | None

    @property
    def rows(self) -> list[FileRow]:
        """What is registered of its files."""
        return files_of(self.row, self.modalities)

    def level(self, wanted: Level | None) -> Level:
        """The level at which it is verified: what the question needs, where none is wanted."""
        return wanted or (Level.HEAD if self.disk is None else Level.FULL)


class Allowance:
    """Bytes that may be read of what is not expected to be read. Thread-safe."""

    def __init__(self, left_bytes: int = READS_BYTES) -> None:
        self._left = left_bytes
        self._lock = threading.Lock()

    def take(self, size_bytes: int) -> bool:
        """Whether so much may still be read."""
        with self._lock:
            granted = size_bytes <= self._left
            self._left -= size_bytes if granted else 0
        return granted


@dataclass(frozen=True)
class Means:
    """What verifying works with. ``raw_prefix`` ends with '/'; ``stopped`` raises where the run was stopped."""

    engine: Engine
    store: Store
    raw_prefix: str
    proofs: Proofs
    reads: Allowance
    stopped: Callable[[], object] = lambda: None


def candidates(subject: Subject) -> list[Candidate]:
    """Every file that could be checked: registered, or on the disk."""
    sizes = {path: file.size_bytes for path, file in (subject.disk or {}).items()}
    sizes |= {file.path: file.size_bytes for file in subject.rows}
    return [(subject.rec_id, path, size) for path, size in sorted(sizes.items())]


def in_order(
    executor: Executor,
    call: Callable[..., RecordingCheck],
    here: Callable[..., RecordingCheck],
    items: Sequence[tuple[Subject, Level | None, Collection[tuple[str, str]] | None]],
    on_file: Callable[[str, FileCheck], object],
) -> Iterator[RecordingCheck]:
    """``call`` for each item in the executor's workers; files are told as their recording is done, in order.

    ``here``: the same call in this process, for directories: the workers may be machines without that disk.
    """
    futures = [submit(executor, call, *item) if item[0].disk is None else None for item in items]
    try:
        for item, future in zip(items, futures, strict=True):
            checked = result_of(future) if future else here(*item)
            for check in checked.files:
                on_file(checked.rec_id, check)
            yield checked
    except BaseException:
        for future in filter(None, futures):
            future.cancel()
        raise


@dataclass(frozen=True)
class Begun:
    """A recording that is listed, and whose files are being checked in the engine's pool."""

    subject: Subject
    level: Level
    files: Sequence[Future[FileCheck]]
    unregistered: Sequence[FileCheck]
    sidecars: Sequence[Future[FileCheck]]
    left_out: int

    def finish(self, on_file: Callable[[str, FileCheck], object]) -> RecordingCheck:
        """Wait for its files. ``on_file`` is called in this thread as they are done."""
        checks: list[FileCheck] = []

        def done(check: FileCheck) -> None:
            checks.append(check)
            on_file(self.subject.rec_id, check)

        for future in self.files:
            done(future.result())
        for check in self.unregistered:
            done(check)
        for check in (future.result() for future in self.sidecars):
            if check.mark is not Mark.SAME:
                done(check)
        for worker in _without_row(self.subject):
            why = "this worker is registered, and has no row: ingest it again"
            done(FileCheck(f"{worker}/", Mark.MISSING, 0, "", why))
        return RecordingCheck(
            self.subject.rec_id,
            self.subject.row.recording_hash if self.subject.row else None,
            tuple(sorted(checks, key=lambda check: check.path)),
            self.subject.disk is not None,
            self.left_out,
            self.level,
        )


def begin(
    means: Means,
    subject: Subject,
    level: Level | None,
    chosen: Collection[tuple[str, str]] | None = None,
    objects: Sequence[ObjectInfo] | None = None,
) -> Begun:
    """List a recording and begin to check its files, in parallel.

    ``level``: None is what the question needs, see ``Subject.level``. ``chosen``: (rec_id, path) of the files to check;
    None is all of them. ``objects``: what lies under its prefix, where that is known.
    """
    depth = subject.level(level)
    rows = subject.rows
    listing = list_recording(means.store, f"{means.raw_prefix}{subject.rec_id}/", rows, objects)
    disk = subject.disk or {}
    registered = {row.path for row in rows}
    beside = [
        FileRow(path, listing.key(path), file.size_bytes) for path, file in disk.items() if path not in registered
    ]
    named = {info.key for row in rows if (info := listing.of(row)) is not None}
    every = [*rows, *beside]
    futures = [
        means.engine.submit(
            partial(
                _safely,
                means,
                row,
                listing.of(row),
                disk.get(row.path),
                depth,
                subject.row,
                registered=row.path in registered or is_sidecar(row.path),
            )
        )
        for row in every
        if chosen is None or (subject.rec_id, row.path) in chosen
    ]
    unregistered = [
        FileCheck(path, Mark.UNREGISTERED, info.size_bytes, "", "in the bucket, in no row")
        for path, info in listing.items()
        if info.key not in named and path not in disk and not is_sidecar(path)
    ]
    whole = depth if chosen is None else Level.HEAD
    beside_disk = [
        means.engine.submit(partial(_check_sidecar, means, path, versions, listing.get(path), whole))
        for path, versions in (sidecars(subject.row).items() if subject.row else ())
        if path not in disk
    ]
    return Begun(subject, depth, futures, unregistered, beside_disk, len(every) - len(futures))


def _without_row(subject: Subject) -> list[str]:
    """Workers that the recording's commit covers and that have no modality row: a merge was killed in between."""
    covered = (workers_of(subject.row) if subject.row else None) or set()
    there = {(row.modality, row.worker_id) for row in subject.modalities}
    return sorted("_".join(name for name in worker if name) for worker in covered - there)


def _safely(
    means: Means,
    row: FileRow,
    info: ObjectInfo | None,
    file: LocalFile | None,
    level: Level,
    recording: RecordingRow | None,
    *,
    registered: bool,
) -> FileCheck:
    means.stopped()
    try:
        check = _check_file(means, row, info, file, level)
        if check.mark is Mark.DIFFERENT and recording and file and info and is_sidecar(row.path):
            why = _stands_for(means.store, info, file, recording)
            check = FileCheck(row.path, Mark.SAME, row.size_bytes, "", why) if why else check
    except NotFoundError:
        return FileCheck(row.path, Mark.MISSING, row.size_bytes, "", "vanished while it was checked")
    except UrsaError as error:
        return FileCheck(row.path, Mark.ERROR, row.size_bytes, "", error.message)
    except Exception as error:  # noqa: BLE001
        return FileCheck(row.path, Mark.ERROR, row.size_bytes, "", unexpected(error, row.path).message)
    if check.mark is Mark.SAME and not registered:
        return replace(check, mark=Mark.UNREGISTERED, detail="in the bucket, in no row")
    return check


def _stands_for(store: Store, info: ObjectInfo, file: LocalFile, recording: RecordingRow) -> str:
    """Why nothing of a sidecar on this disk is lost though the bucket holds another one, "" where something is."""
    if max(info.size_bytes, file.size_bytes) > MAX_MANIFEST_BYTES:
        return ""
    ours, theirs = read_whole(_source(file)), store.read(info.key)[0]
    there = Sidecar(len(theirs), sha256(theirs).hexdigest())
    versions = sidecars(recording).get(file.path)
    if versions is not None and not any(there.same(version) for version in versions):
        return ""
    with suppress(ManifestError, InvalidRecordingError):
        return _no_loss(file.path, ours, theirs, recording)
    return ""


def _no_loss(path: str, ours: bytes, theirs: bytes, recording: RecordingRow) -> str:
    if path == PARTICIPANT_NAME:
        name = parse_participant(ours, source=path)
        known = name is None or participant_id(name) in recording.participant_ids
        return "the bucket keeps a peer's; this name is in the catalog" if known else ""
    manifest = parse_manifest(ours, source=path)
    if manifest.is_placeholder:
        return "a placeholder, which lists no file; the bucket has another one"
    parse_manifest(theirs, source=path)
    return "it was reconstructed; the bucket has another one" if manifest.reconstruction else ""


def _check_file(means: Means, row: FileRow, info: ObjectInfo | None, file: LocalFile | None, level: Level) -> FileCheck:
    if info is None:
        return FileCheck(row.path, Mark.MISSING, row.size_bytes, "", "not in the bucket")
    if info.size_bytes != row.size_bytes:
        return _differs(row, f"{info.size_bytes} bytes in the bucket, {row.size_bytes} expected")
    if file is not None and file.size_bytes != info.size_bytes:
        return _differs(row, f"{file.size_bytes} bytes on the disk, {info.size_bytes} in the bucket")
    proof = None if level is Level.FULL else known(info, row, means.proofs)
    local = None
    if file is not None and level is not Level.HEAD:
        local = digest(_source(file), etag="" if proof or level is Level.FULL else info.etag)
        if row.proven and local.sha256 != row.sha256:
            return _differs(row, "the disk has another sha256 than is registered")
    if level is Level.FULL:
        return _judged(row, local, measure_now(means.store, info, means.proofs, read=True))
    if local is not None:
        return _judged(row, local, proof or from_etags(info, local) or measure_now(means.store, info, means.proofs))
    if proof is not None:
        # The evidence is of the object; a file on the disk has only been measured here.
        return replace(_judged(row, None, proof), evidence="size") if file else _judged(row, None, proof)
    return _unread(means, row, info, level)


def _unread(means: Means, row: FileRow, info: ObjectInfo, level: Level) -> FileCheck:
    """An object of which nothing is known: as its row claims; where it was uploaded again since, it is read."""
    again = row.etag is not None and row.etag != info.etag
    if not again and level is Level.CHECKSUM:
        now = means.store.head(info.key)
        if now.checked_sha256 is not None and (now.etag, now.size_bytes) == (info.etag, info.size_bytes):
            return _judged(row, None, Proof(info, now.checked_sha256, Evidence.SHA256))
    if not again:
        return FileCheck(row.path, Mark.SAME, row.size_bytes, row.evidence if not row.proven else Evidence.CLAIMED)
    if not means.reads.take(info.size_bytes):
        return _differs(row, UNREAD)
    return _judged(row, None, measure_now(means.store, info, means.proofs))


def _judged(row: FileRow, local: Digest | None, proof: Proof) -> FileCheck:
    """What a measurement of the object says: against the disk where it was read, else against the row."""
    expected = local.sha256 if local else row.sha256
    info = proof.info
    measured = FileRow(row.path, info.key, info.size_bytes, proof.sha256, info.etag, proof.evidence, row.mtime_ns)
    if expected in (None, proof.sha256):
        return FileCheck(row.path, Mark.SAME, row.size_bytes, proof.evidence, measured=measured)
    if local is not None:
        return _differs(row, "the disk and the bucket have other content")
    if row.proven:
        return _differs(row, "the bytes in the bucket have another sha256 than is registered")
    told = f"not as its manifest states: sha256 {proof.sha256}, stated {row.sha256}"
    return replace(_differs(row, told), measured=measured)


def _source(file: LocalFile) -> SourceFile:
    return SourceFile(file.path, file.source, file.size_bytes, file.mtime_ns, file.sighting)


def _check_sidecar(
    means: Means, path: str, versions: Sequence[Sidecar], info: ObjectInfo | None, level: Level
) -> FileCheck:
    """A manifest or participant.txt that is not on this disk: one of the versions that its registrations left there, by
    its ETag, else by its bytes. Told only where it is not: what is registered is data.
    """
    size = info.size_bytes if info else 0
    try:
        state = sidecar_state(means.store, path, versions, info, means.proofs, read=level is Level.FULL)
    except UrsaError as error:
        return FileCheck(path, Mark.ERROR, size, "", error.message)
    if state is SidecarState.GONE:
        return FileCheck(path, Mark.MISSING, size, "", "it was there when this was registered")
    if state is SidecarState.OTHER:
        return FileCheck(path, Mark.DIFFERENT, size, "", "another one than when this was registered")
    if state is SidecarState.LATER:
        return FileCheck(path, Mark.SAME, size, "", "a later one, which nobody has registered yet")
    return FileCheck(path, Mark.SAME, size, "sha256")


def _differs(row: FileRow, detail: str) -> FileCheck:
    return FileCheck(row.path, Mark.DIFFERENT, row.size_bytes, "", detail)


def could_not(ref: Path | str, error: UrsaError) -> RecordingCheck:
    """The verdict for what could not be looked at, among others that can."""
    path = Path(ref)
    return RecordingCheck(
        path.name or str(ref), None, (FileCheck("", Mark.ERROR, 0, "", error.message),), path.is_dir()
    )


def stated_rec_id(ref: str | Path) -> str | None:
    """The rec_id that a reference is or that its directory is called by; None where the catalog has to be asked."""
    name = Path(ref).absolute().name if looks_like_directory(ref) else str(ref)
    with suppress(InvalidRecordingError):
        return check_rec_id(name)
    return None


def looks_like_directory(ref: str | Path) -> bool:
    """Whether a reference names a directory on this disk rather than a recording of the catalog."""
    return isinstance(ref, Path) or "/" in ref or os.path.isdir(ref)  # noqa: PTH112  (Path.is_dir raises on some)
