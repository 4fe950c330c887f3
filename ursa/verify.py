"""Verification: what the catalog says, what the bucket holds, and, where a directory is given, what the disk has."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from ursa.catalog.metadata import Sidecar, sidecars, workers_of
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow, participant_id
from ursa.errors import InvalidRecordingError, ManifestError, UrsaError
from ursa.manifest import MAX_MANIFEST_BYTES, parse_manifest
from ursa.parallel import result_of, submit
from ursa.policies import Level, Mark
from ursa.recording import PARTICIPANT_NAME, LocalFile, is_sidecar, parse_participant
from ursa.store import NotFoundError, ObjectInfo, Store
from ursa.subset import Candidate
from ursa.transfer.digest import Digest, SourceFile, digest, read_whole
from ursa.transfer.engine import Engine
from ursa.transfer.prove import object_sha256, read_back, same_content


@dataclass(frozen=True, slots=True)
class FileCheck:
    """A file's verdict. ``evidence``: how well it is proven now (``sha256``, ``etag``, ``size``), "" where it is not."""

    path: str
    mark: Mark
    size_bytes: int
    evidence: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RecordingCheck:
    """A recording's verdict: a check for every file, in the order of their paths.

    ``left_out``: how many files were not looked at, since ``--subset`` did not choose them.
    """

    rec_id: str
    recording_hash: str | None
    files: tuple[FileCheck, ...]
    on_disk: bool
    left_out: int = 0

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
    auxiliary: Mapping[str, Sequence[int | str | None]]
    disk: Mapping[str, LocalFile] | None


def candidates(subject: Subject) -> list[Candidate]:
    """Every file that could be checked: registered, or on the disk."""
    sizes = {path: file.size_bytes for path, file in (subject.disk or {}).items()}
    sizes |= {path: int(value[0] or 0) for path, value in subject.auxiliary.items()}
    sizes |= {file.path: file.size_bytes for modality in subject.modalities for file in modality.files}
    return [(subject.rec_id, path, size) for path, size in sorted(sizes.items())]


def verify(
    engine: Engine,
    store: Store,
    raw_prefix: str,
    subjects: Iterable[Subject],
    *,
    level: Level,
    chosen: Collection[tuple[str, str]] | None = None,
    on_file: Callable[[str, FileCheck], object] = lambda _rec_id, _check: None,
) -> Iterator[RecordingCheck]:
    """Check recordings, one listing each; files in parallel. ``on_file`` is called in this thread as files are done.

    ``chosen``: (rec_id, path) of the files to check; None is all of them.
    """
    return (_check(engine, store, raw_prefix, subject, level, chosen, on_file) for subject in subjects)


def in_order(
    executor: Executor,
    call: Callable[..., RecordingCheck],
    here: Callable[..., RecordingCheck],
    items: Sequence[tuple[Subject, Level, Collection[tuple[str, str]] | None]],
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


def _check(
    engine: Engine,
    store: Store,
    raw_prefix: str,
    subject: Subject,
    level: Level,
    chosen: Collection[tuple[str, str]] | None,
    on_file: Callable[[str, FileCheck], object],
) -> RecordingCheck:
    prefix = f"{raw_prefix}{subject.rec_id}/"
    found = {unicodedata.normalize("NFC", info.key.removeprefix(prefix)): info for info in store.list(prefix)}
    rows = {file.path: file for modality in subject.modalities for file in modality.files}
    rows |= {path: _auxiliary_row(prefix, path, value, found) for path, value in subject.auxiliary.items()}
    disk = subject.disk or {}
    every = rows | {path: _disk_row(prefix, file, found) for path, file in disk.items() if path not in rows}
    checks: list[FileCheck] = []

    def done(check: FileCheck) -> None:
        checks.append(check)
        on_file(subject.rec_id, check)

    futures = [
        engine.submit(
            partial(
                _safely,
                store,
                row,
                found.get(path),
                disk.get(path),
                level,
                subject.row,
                registered=path in rows or is_sidecar(path),
            )
        )
        for path, row in every.items()
        if chosen is None or (subject.rec_id, path) in chosen
    ]
    for future in futures:
        done(future.result())
    for path, info in found.items():
        if path not in every and not is_sidecar(path):
            done(FileCheck(path, Mark.UNREGISTERED, info.size_bytes, "", "in the bucket, in no row"))
    for path, versions in sidecars(subject.row).items() if subject.row else ():
        if path not in every:
            check = _check_sidecar(store, path, versions, found.get(path), level if chosen is None else Level.HEAD)
            if check.mark is not Mark.SAME:
                done(check)
    for worker in _without_row(subject):
        done(FileCheck(f"{worker}/", Mark.MISSING, 0, "", "this worker is registered, and has no row: ingest it again"))
    return RecordingCheck(
        subject.rec_id,
        subject.row.recording_hash if subject.row else None,
        tuple(sorted(checks, key=lambda check: check.path)),
        subject.disk is not None,
        len(every) - len(futures),
    )


def _without_row(subject: Subject) -> list[str]:
    """Workers that the recording's commit covers and that have no modality row: a merge was killed in between."""
    covered = (workers_of(subject.row) if subject.row else None) or set()
    there = {(row.modality, row.worker_id) for row in subject.modalities}
    return sorted("_".join(name for name in worker if name) for worker in covered - there)


def _safely(
    store: Store,
    row: FileRow,
    info: ObjectInfo | None,
    file: LocalFile | None,
    level: Level,
    recording: RecordingRow | None,
    *,
    registered: bool,
) -> FileCheck:
    try:
        check = _check_file(store, row, info, file, level)
        if check.mark is Mark.DIFFERENT and recording and file and info and is_sidecar(row.path):
            why = _stands_for(store, info, file, recording)
            check = FileCheck(row.path, Mark.SAME, row.size_bytes, "", why) if why else check
    except NotFoundError:
        return FileCheck(row.path, Mark.MISSING, row.size_bytes, "", "vanished while it was checked")
    except UrsaError as error:
        return FileCheck(row.path, Mark.ERROR, row.size_bytes, "", error.message)
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


def _check_file(store: Store, row: FileRow, info: ObjectInfo | None, file: LocalFile | None, level: Level) -> FileCheck:
    if info is None:
        return FileCheck(row.path, Mark.MISSING, row.size_bytes, "", "not in the bucket")
    if info.size_bytes != row.size_bytes:
        return _differs(row, f"{info.size_bytes} bytes in the bucket, {row.size_bytes} expected")
    if file is not None and file.size_bytes != info.size_bytes:
        return _differs(row, f"{file.size_bytes} bytes on the disk, {info.size_bytes} in the bucket")
    local = None
    if file is not None and level is not Level.HEAD:
        local = digest(_source(file), etag=info.etag)
        if row.sha256 is not None and local.sha256 != row.sha256:
            return _differs(row, "the disk has another sha256 than is registered")
    if level is Level.FULL:
        expected = row.sha256 or (local.sha256 if local else None)
        return _full(store, row, info, expected)
    return _stored(store, row, info, local, level, on_disk=file is not None)


def _full(store: Store, row: FileRow, info: ObjectInfo, expected: str | None) -> FileCheck:
    if expected is None:
        return FileCheck(row.path, Mark.SAME, row.size_bytes, "size", "no sha256 is registered")
    if read_back(store, info.key, expected) is None:
        return _differs(row, "the bytes in the bucket have another sha256")
    return FileCheck(row.path, Mark.SAME, row.size_bytes, "sha256")


def _stored(
    store: Store, row: FileRow, info: ObjectInfo, local: Digest | None, level: Level, *, on_disk: bool
) -> FileCheck:
    """Without reading the object: its ETag as it was when it was proven, else the sha256 that it was stored with."""
    if local is not None:
        evidence = same_content(store, info, local)
        if evidence is None:
            return _differs(row, "the disk and the bucket have other content")
        return FileCheck(row.path, Mark.SAME, row.size_bytes, evidence)
    if row.etag is not None and row.etag == info.etag:
        # The evidence is of the registration; a file on the disk has only been measured here.
        return FileCheck(row.path, Mark.SAME, row.size_bytes, "size" if on_disk else row.evidence)
    if level is Level.HEAD and row.etag is not None:
        return _differs(row, "replaced since it was registered: its ETag differs")
    stored = store.head(info.key).sha256 if level is not Level.HEAD else None
    if stored is not None and row.sha256 is not None:
        if stored == row.sha256:
            return FileCheck(row.path, Mark.SAME, row.size_bytes, "sha256")
        return _differs(row, "the object was stored with another sha256")
    if row.etag is not None:
        return _differs(row, "replaced since it was registered: its ETag differs")
    return FileCheck(row.path, Mark.SAME, row.size_bytes, "size")


def _source(file: LocalFile) -> SourceFile:
    return SourceFile(file.path, file.source, file.size_bytes, file.mtime_ns)


def _check_sidecar(
    store: Store, path: str, versions: Sequence[Sidecar], info: ObjectInfo | None, level: Level
) -> FileCheck:
    """A manifest or participant.txt that is not on this disk: one of the versions that its registrations left there.
    Told only where it is not: what is registered is data.
    """
    size = info.size_bytes if info else 0
    try:
        if info is None:
            return FileCheck(path, Mark.MISSING, size, "", "it was there when this was registered")
        if size in {version.size_bytes for version in versions} and level is not Level.FULL:
            return FileCheck(path, Mark.SAME, size, "size")
        if object_sha256(store, info.key) in {version.sha256 for version in versions}:
            return FileCheck(path, Mark.SAME, size, "sha256")
        if _is_newer_manifest(store, path, info):
            return FileCheck(path, Mark.SAME, size, "", "a later one, which nobody has registered yet")
        return FileCheck(path, Mark.DIFFERENT, size, "", "another one than when this was registered")
    except UrsaError as error:
        return FileCheck(path, Mark.ERROR, size, "", error.message)


def _is_newer_manifest(store: Store, path: str, info: ObjectInfo) -> bool:
    """Whether a manifest has replaced another as it may: a half came, or the rig's own, and its run is not done."""
    if path == PARTICIPANT_NAME or info.size_bytes > MAX_MANIFEST_BYTES:
        return False
    with suppress(ManifestError):
        return not parse_manifest(store.read(info.key)[0], source=info.key).is_placeholder
    return False


def _differs(row: FileRow, detail: str) -> FileCheck:
    return FileCheck(row.path, Mark.DIFFERENT, row.size_bytes, "", detail)


def _auxiliary_row(
    prefix: str, path: str, value: Sequence[int | str | None], found: Mapping[str, ObjectInfo]
) -> FileRow:
    size, sha256 = value
    key = found[path].key if path in found else prefix + path
    return FileRow(path, key, int(size or 0), str(sha256) if sha256 else None)


def _disk_row(prefix: str, file: LocalFile, found: Mapping[str, ObjectInfo]) -> FileRow:
    key = found[file.path].key if file.path in found else prefix + file.path
    return FileRow(file.path, key, file.size_bytes)


def could_not(ref: Path | str, error: UrsaError) -> RecordingCheck:
    """The verdict for what could not be looked at, among others that can."""
    path = Path(ref)
    return RecordingCheck(
        path.name or str(ref), None, (FileCheck("", Mark.ERROR, 0, "", error.message),), path.is_dir()
    )


def looks_like_directory(ref: str | Path) -> bool:
    """Whether a reference names a directory on this disk rather than a recording of the catalog."""
    return isinstance(ref, Path) or "/" in ref or os.path.isdir(ref)  # noqa: PTH112  (Path.is_dir raises on some)
