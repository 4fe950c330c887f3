"""Steps 2 to 4: what is registered, what is in the bucket, and what therefore happens to each file."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from ursa.catalog.metadata import auxiliary, recorded_at, registered_at
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.errors import (
    ChecksumMismatchError,
    MissingFilesError,
    named,
)
from ursa.manifest import FileEntry, shown
from ursa.recording import LocalFile
from ursa.register.local import LocalRecording
from ursa.register.results import BucketFile, PlannedFile
from ursa.store import ObjectInfo, Store
from ursa.store.protocol import Evidence
from ursa.transfer.digest import SourceFile, digest, read_whole
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.parts import MIB
from ursa.transfer.prove import read_back, same_content
from ursa.transfer.upload import conflict

T = TypeVar("T", LocalFile, FileEntry, PlannedFile)
R = TypeVar("R")

PREFLIGHT_BYTES = 64 * MIB
"""Recordings of up to this size are read and checked whole before their first byte is sent."""


@dataclass(frozen=True, slots=True)
class Options:
    """How an ingest treats what is there already. ``trust_size``: an object of the same size counts as the same."""

    overwrite: bool = False
    replace_objects: bool = False
    trust_size: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What planning works with. ``checked`` gets a path and a number of bytes as files are hashed."""

    store: Store
    engine: Engine
    stop: Stop
    options: Options
    checked: Callable[[str, int], object]

    def go_on(self, _count: int) -> None:
        """Called between blocks: hashing a large file ends soon after everything else has."""
        if self.stop.is_set():
            raise KeyboardInterrupt


class Listing:
    """The objects under a recording's prefix, by their path in NFC; each keeps the key that it really has."""

    def __init__(self, prefix: str, objects: Iterable[ObjectInfo]) -> None:
        self.prefix = prefix
        self._by_path: dict[str, ObjectInfo] = {}
        for info in objects:
            path = info.key.removeprefix(prefix)
            normal = unicodedata.normalize("NFC", path)
            if path == normal or normal not in self._by_path:
                self._by_path[normal] = info

    def get(self, path: str) -> ObjectInfo | None:
        """The object of a path, or None."""
        return self._by_path.get(path)

    def items(self) -> Iterable[tuple[str, ObjectInfo]]:
        """Path and object, by path."""
        return sorted(self._by_path.items())

    def key(self, path: str) -> str:
        """The key of a path: that of the object that is there, else the NFC one."""
        info = self._by_path.get(path)
        return info.key if info else self.prefix + path


def source_of(file: LocalFile) -> SourceFile:
    """A recording's file as the transfer engine knows it."""
    return SourceFile(file.path, file.source, file.size_bytes, file.mtime_ns)


def hash_local(context: Context, files: Sequence[LocalFile]) -> dict[str, str]:
    """The sha256 of these files, by path, read in parallel."""
    found = _each(context, files, lambda file: digest(source_of(file), progress=context.go_on).sha256)
    return {file.path: sha256 for file, sha256 in found}


def find_missing(
    local: LocalRecording, listing: Listing, context: Context, registered: Sequence[ModalityRow]
) -> tuple[tuple[BucketFile, ...], tuple[str, ...]]:
    """Listed files that are not on the disk: those that the bucket has, and the nodes that are absent altogether.

    Raises:
        MissingFilesError: some are nowhere, though their node has other files here. Names all of them.
    """
    rows = _rows_by_path(registered)
    looked = _each(context, local.missing, lambda entry: _in_bucket(local, listing, context.store, entry, rows))
    found = [there for _, there in looked if there is not None]
    lost = [entry for entry, there in looked if there is None]
    here = {node_here(local, file) for file in local.scan.raw}
    absent = {local.manifest.node_of(entry) for entry in lost}
    # A file of nobody knows which node may be of an absent one: then nobody is excused.
    if lost and (None in absent or None in here or absent & here or not (here or any(file.worker for file in found))):
        raise _missing(local.rec_id, [entry.path for entry in lost])
    gone = {entry.path for entry in local.missing if local.manifest.node_of(entry) in absent}
    return tuple(file for file in found if file.path not in gone), tuple(sorted(node for node in absent if node))


def node_here(local: LocalRecording, file: LocalFile) -> str | None:
    """The node that a raw file on this disk is of, None where nobody says."""
    entry = local.manifest.files_by_path.get(file.path)
    return local.manifest.node_of(entry) if entry else local.manifest.worker_identity(file.worker).node


def plan_files(
    local: LocalRecording,
    listing: Listing,
    context: Context,
    *,
    registered: Sequence[ModalityRow],
    hashes: Mapping[str, str],
) -> tuple[PlannedFile, ...]:
    """What happens to each data file. ``hashes``: sha256s that are known from this disk already.

    Raises:
        ObjectConflictError: objects with other content, all of them named, and ``replace_objects`` is not set.
        ChecksumMismatchError: a file that had to be read is not what its manifest states.
    """
    rows = _rows_by_path(registered)
    planned: dict[str, PlannedFile] = {}
    compare: list[LocalFile] = []
    for file in local.data_files:
        info = listing.get(file.path)
        if info is None:
            planned[file.path] = PlannedFile(file, listing.key(file.path), "upload", local.stated_sha256(file.path))
        elif info.size_bytes != file.size_bytes:
            planned[file.path] = _other_content(file, info, local.stated_sha256(file.path))
        else:
            compare.append(file)
    prover = _Prover(local, listing, context, rows, hashes)
    planned |= {file.path: item for file, item in _each(context, compare, prover.compare)}
    conflicts = [item.key for item in planned.values() if item.action == "replace"]
    if conflicts and not context.options.replace_objects:
        raise conflict(conflicts)
    return tuple(planned[file.path] for file in local.data_files)


def preflight(local: LocalRecording, files: Sequence[PlannedFile], context: Context) -> tuple[PlannedFile, ...]:
    """Read a small recording whole and hold it against its manifest before the first byte is sent.

    A large one is checked as it is sent: a file that is not what the manifest states makes no object either way.
    """
    stated = [item for item in files if item.sends and item.sha256 is not None]
    if sum(item.file.size_bytes for item in files if item.sends) > PREFLIGHT_BYTES:
        return tuple(files)
    data = {item.file.path: content for item, content in _each(context, stated, lambda item: _read_stated(local, item))}
    return tuple(replace(item, data=data.get(item.file.path)) for item in files)


class _Prover:
    """Compares files with objects of the same size."""

    def __init__(
        self,
        local: LocalRecording,
        listing: Listing,
        context: Context,
        rows: Mapping[str, FileRow],
        hashes: Mapping[str, str],
    ) -> None:
        self.local = local
        self.listing = listing
        self.context = context
        self.rows = rows
        self.hashes = hashes

    def compare(self, file: LocalFile) -> PlannedFile:
        info = self.listing.get(file.path)
        assert info is not None
        if self.context.options.replace_objects:
            return self._read_back(file, info)
        row = self.rows.get(file.path)
        unchanged = row is not None and row.key == info.key and row.etag == info.etag and row.sha256 is not None
        known = self.hashes.get(file.path)
        if unchanged and row is not None and known is not None and known == row.sha256:
            return PlannedFile(file, info.key, "skip", row.sha256, info.etag, _as_evidence(row.evidence))
        if self.context.options.trust_size:
            stated = known or self.local.stated_sha256(file.path) or digest(source_of(file)).sha256
            return PlannedFile(file, info.key, "skip", stated, info.etag, "size")
        content = digest(source_of(file), etag=info.etag, progress=self.context.go_on)
        _check_stated(self.local, file, content.sha256)
        if unchanged and row is not None and row.sha256 == content.sha256:
            return PlannedFile(file, info.key, "skip", row.sha256, info.etag, _as_evidence(row.evidence))
        evidence = same_content(self.context.store, info, content)
        if evidence is None:
            return _other_content(file, info, content.sha256)
        return PlannedFile(file, info.key, "skip", content.sha256, info.etag, evidence)

    def _read_back(self, file: LocalFile, info: ObjectInfo) -> PlannedFile:
        """For who replaces objects: an object that has rotted has the ETag and the metadata that it always had."""
        content = digest(source_of(file), progress=self.context.go_on)
        _check_stated(self.local, file, content.sha256)
        if read_back(self.context.store, info.key, content.sha256) is None:
            return _other_content(file, info, content.sha256)
        return PlannedFile(file, info.key, "skip", content.sha256, info.etag, "sha256")


def _each(context: Context, items: Sequence[T], action: Callable[[T], R]) -> list[tuple[T, R]]:
    """Run ``action`` over ``items`` in the pool, telling progress as they finish; the first error stops the rest."""
    futures: dict[Future[R], T] = {}
    try:
        for item in items:
            futures[context.engine.submit(partial(action, item))] = item
        for future in as_completed(futures):
            future.result()
            item = futures[future]
            file = item.file if isinstance(item, PlannedFile) else item
            context.checked(file.path, file.size_bytes)
    except BaseException:
        context.stop.set()
        for future in futures:
            future.cancel()
        raise
    return [(item, future.result()) for future, item in futures.items()]


def _other_content(file: LocalFile, info: ObjectInfo, sha256: str | None) -> PlannedFile:
    return PlannedFile(file, info.key, "replace", sha256, info.etag)


def _rows_by_path(registered: Sequence[ModalityRow]) -> dict[str, FileRow]:
    return {file.path: file for modality in registered for file in modality.files}


def _in_bucket(
    local: LocalRecording, listing: Listing, store: Store, entry: FileEntry, rows: Mapping[str, FileRow]
) -> BucketFile | None:
    info = listing.get(entry.path)
    if info is None or info.size_bytes != entry.size_bytes:
        return None
    row = rows.get(entry.path)
    proven = row is not None and row.key == info.key and row.etag == info.etag
    stored = row.sha256 if proven and row else store.head(info.key).sha256
    if stored is not None and entry.sha256 is not None and stored != entry.sha256:
        return None
    evidence: Evidence = "sha256" if stored is not None and stored == entry.sha256 else "size"
    worker = local.manifest.worker_of(entry)
    return BucketFile(entry.path, info.key, info.size_bytes, entry.sha256 or stored, info.etag, evidence, worker)


def _missing(rec_id: str, paths: Sequence[str]) -> MissingFilesError:
    return MissingFilesError(
        f"{rec_id}: {len(paths)} listed file{'s are' if len(paths) > 1 else ' is'} neither on the disk nor whole in the"
        f" bucket: {named([shown(path) for path in paths], 50)}",
        hint="Nothing was uploaded. Copy them from the rig into the recording's directory and run the same command.",
        paths=tuple(paths),
    )


def _read_stated(local: LocalRecording, item: PlannedFile) -> bytes:
    data = read_whole(source_of(item.file))
    _check_stated(local, item.file, hashlib.sha256(data).hexdigest())
    return data


def _check_stated(local: LocalRecording, file: LocalFile, sha256: str) -> None:
    stated = local.stated_sha256(file.path)
    if stated is not None and stated != sha256:
        raise ChecksumMismatchError(
            f"{shown(file.path)} has sha256 {sha256}, the manifest states {stated}",
            hint="Nothing was registered. Copy the file from the rig again and run the same command.",
            path=file.path,
            expected=stated,
            found=sha256,
        )


def _as_evidence(text: str) -> Evidence:
    return text if text in ("sha256", "etag") else "size"  # type: ignore[return-value]


def existing_hashes(
    local: LocalRecording,
    existing: RecordingRow,
    registered: Sequence[ModalityRow],
    context: Context,
) -> dict[str, str]:
    """The sha256s of local files whose worker is registered: the row's where size and mtime say that nothing changed
    since, else measured now, before a byte moves.
    """
    workers = {(item.modality, item.worker_id): item for item in registered}
    known: dict[str, str] = {}
    measure: list[LocalFile] = []
    for file in local.scan.raw:
        identity = local.manifest.worker_identity(file.worker)
        item = workers.get((identity.modality, identity.worker_id))
        there = next((entry for entry in item.files if entry.path == file.path), None) if item else None
        if item is None or there is None or there.size_bytes != file.size_bytes:
            continue
        if there.sha256 is not None and file.mtime_ns / 1e9 <= registered_at(existing, item):
            known[file.path] = there.sha256
        else:
            measure.append(file)
    return known | hash_local(context, measure)


def auxiliary_hashes(local: LocalRecording, existing: RecordingRow, context: Context) -> dict[str, str]:
    """The same for files outside of worker directories, whose sizes and sha256s are in the recording's row."""
    at = recorded_at(existing)
    there = auxiliary(existing)
    same = [
        file
        for file in local.data_files
        if file.kind == "auxiliary" and there.get(file.path, [None])[0] == file.size_bytes
    ]
    rows = {file.path: there[file.path][1] for file in same if file.mtime_ns / 1e9 <= at}
    known = {path: sha256 for path, sha256 in rows.items() if isinstance(sha256, str)}
    return known | hash_local(context, [file for file in same if file.path not in known])
