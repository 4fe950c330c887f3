"""Steps 2 to 4: what is registered, what is in the bucket, and what therefore happens to each file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from ursa.bucket.listing import Listing
from ursa.bucket.proof import Proof, Proofs, from_etags, known, measure_now
from ursa.catalog.rows import FileRow
from ursa.disk.mtimes import keeps_local_time, same_mtime
from ursa.errors import ChecksumMismatchError, MissingFilesError, named
from ursa.manifest import FileEntry, shown
from ursa.policies import Evidence
from ursa.recording import LocalFile
from ursa.register.local import LocalRecording
from ursa.register.memory import Memory, source_of
from ursa.register.results import BucketFile, FileAction, PlannedFile
from ursa.store import NotFoundError, ObjectInfo, Store
from ursa.transfer.digest import Digest, digest, is_md5, is_multipart_etag, read_file
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.items import conflict
from ursa.transfer.parts import MIB
from ursa.transfer.trace import Stage

T = TypeVar("T", LocalFile, FileEntry, PlannedFile)
R = TypeVar("R")

PREFLIGHT_BYTES = 64 * MIB
"""Recordings of up to this size are read and checked whole before their first byte is sent."""


@dataclass(frozen=True, slots=True)
class Options:
    """How an ingest treats what is there already.

    ``trust_size``: an object of the same size counts as the same, as a claim. ``trust_mtime``: a registered file of the
    same size and mtime is not read. ``not_unfinished``: globs of files that are whole, whatever they are called.
    """

    overwrite: bool = False
    replace_objects: bool = False
    trust_size: bool = False
    trust_mtime: bool = False
    not_unfinished: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What planning works with. ``checked`` gets a path and a number of bytes as files are compared."""

    store: Store
    engine: Engine
    stop: Stop
    options: Options
    memory: Memory
    proofs: Proofs
    checked: Callable[[str, int], object]

    def go_on(self, _count: int) -> None:
        """Called between blocks: hashing a large file ends soon after everything else has."""
        if self.stop.is_set():
            raise KeyboardInterrupt


def find_missing(
    local: LocalRecording, listing: Listing, context: Context, rows: Mapping[str, FileRow]
) -> tuple[tuple[BucketFile, ...], tuple[str, ...]]:
    """Listed files that are not on the disk: those that the bucket has, and the nodes that are absent altogether.

    An object that nothing proves is read, once.

    Raises:
        MissingFilesError: some are nowhere, or hold other content, though their node has other files here. Names all.
    """
    looked = _each(context, local.missing, lambda entry: _in_bucket(local, listing, context, entry, rows))
    found = [there for _, there in looked if isinstance(there, BucketFile)]
    lost = {entry.path: (entry, why) for entry, why in looked if isinstance(why, str)}
    here = {node_here(local, file) for file in local.scan.raw}
    absent = {local.manifest.node_of(entry) for entry, _ in lost.values()}
    # A file of which nothing tells the node may be of an absent one: then no node is excused.
    if lost and (None in absent or None in here or absent & here or not (here or any(file.worker for file in found))):
        raise _missing(local.rec_id, {path: why for path, (_, why) in lost.items()})
    gone = {entry.path for entry in local.missing if local.manifest.node_of(entry) in absent}
    return tuple(file for file in found if file.path not in gone), tuple(sorted(node for node in absent if node))


def node_here(local: LocalRecording, file: LocalFile) -> str | None:
    """The node that a raw file on this disk is of, None where nothing says."""
    entry = local.manifest.files_by_path.get(file.path)
    return local.manifest.node_of(entry) if entry else local.manifest.worker_identity(file.worker).node


def plan_files(
    local: LocalRecording, listing: Listing, context: Context, rows: Mapping[str, FileRow]
) -> tuple[PlannedFile, ...]:
    """What happens to each data file. ``rows``: those that are registered, by path. Refuses nothing yet.

    Raises:
        ChecksumMismatchError: a file that had to be read is not what its manifest states.
    """
    planned: dict[str, PlannedFile] = {}
    compare: list[LocalFile] = []
    for file in local.data_files:
        row = rows.get(file.path)
        info = listing.of(row) if row else listing.get(file.path)
        if info is not None and info.size_bytes == file.size_bytes:
            compare.append(file)
        elif row is not None:
            # Registered, and not there (whole): what the disk has is compared with its row.
            compare.append(file)
        else:
            action: FileAction = "upload" if info is None else "replace"
            etag = info.etag if info else None
            planned[file.path] = PlannedFile(file, listing.key(file.path), action, local.stated_sha256(file.path), etag)
    comparing = _Comparing(local, listing, context, rows, context.options.trust_mtime and keeps_local_time(local.root))
    planned |= {file.path: item for file, item in _each(context, compare, comparing.compare)}
    return tuple(planned[file.path] for file in local.data_files)


def refuse_replacing(files: Sequence[PlannedFile], options: Options, registered: Collection[str]) -> None:
    """Raises ``ObjectConflictError`` for objects with other content, all of them named, unless they may be replaced.

    ``registered``: paths of files whose rows stay as they are: their objects do too.
    """
    conflicts = {item.file.path: item.key for item in files if item.action == "replace"}
    theirs = conflicts.keys() & set(registered)
    if theirs or (conflicts and not options.replace_objects):
        raise conflict(list(conflicts.values()), registered=bool(theirs))


def preflight(local: LocalRecording, files: Sequence[PlannedFile], context: Context) -> tuple[PlannedFile, ...]:
    """Read a small recording whole and hold it against its manifest before the first byte is sent.

    A large one is checked as it is sent: a file that is not what the manifest states makes no object either way.
    """
    stated = [item for item in files if item.sends and item.sha256 is not None]
    if sum(item.file.size_bytes for item in files if item.sends) > PREFLIGHT_BYTES:
        return tuple(files)
    read = {item.file.path: content for item, content in _each(context, stated, lambda item: _read_stated(local, item))}
    return tuple(
        replace(item, data=read[item.file.path][0], digest=read[item.file.path][1]) if item.file.path in read else item
        for item in files
    )


@dataclass(frozen=True, slots=True)
class _Comparing:
    """Files of this disk with the objects of the same size, and with what is registered of them."""

    local: LocalRecording
    listing: Listing
    context: Context
    rows: Mapping[str, FileRow]
    vfat: bool

    def compare(self, file: LocalFile) -> PlannedFile:
        row = self.rows.get(file.path)
        info = self.listing.of(row) if row else self.listing.get(file.path)
        proof = known(info, row, self.context.proofs) if info else None
        # The row's mtime speaks for the row's bytes: an object that was measured to hold others is not vouched for by it.
        if row and proof and proof.sha256 == row.sha256 and self._same_mtime(file, row):
            return self._skip(file, proof, trusted="size and mtime")
        if self.context.options.trust_size and info and not self.context.options.replace_objects:
            return self._by_size(file, info, proof)
        local, read_at = self._hashed(file, "" if proof or info is None else info.etag)
        _check_stated(self.local, file, local.sha256)
        if info is None or info.size_bytes != file.size_bytes:
            action: FileAction = "upload" if info is None else "replace"
            key = info.key if info else (row.key if row and row.key else self.listing.key(file.path))
            return PlannedFile(file, key, action, local.sha256, info.etag if info else None, digest=local)
        proof = self._proof(file, info, proof, local)
        if proof.sha256 != local.sha256:
            return PlannedFile(
                file, info.key, "replace", local.sha256, proof.info.etag, digest=local, theirs_sha256=proof.sha256
            )
        return replace(self._skip(file, proof), digest=local, read_at=read_at)

    def _proof(self, file: LocalFile, info: ObjectInfo, proof: Proof | None, local: Digest) -> Proof:
        context = self.context
        if context.options.replace_objects:
            # Who replaces objects doubts them: one that has rotted has the ETag that it always had.
            return measure_now(context.store, info, context.proofs, context.go_on, read=True)
        if proof is None:
            proof = from_etags(info, local) or self._by_etag_of_disk(file, info, local)
            if proof is not None:
                context.proofs.record(info, proof.sha256)
        return proof or measure_now(context.store, info, context.proofs, context.go_on)

    def _by_etag_of_disk(self, file: LocalFile, info: ObjectInfo, local: Digest) -> Proof | None:
        """Of a file that was read before, when its object had another ETag: reading the disk is cheaper than the object."""
        if local.opened_at or not (is_md5(info.etag) or is_multipart_etag(info.etag)):
            return None
        again = digest(source_of(file), etag=info.etag, progress=self.context.go_on)
        self.context.memory.remember(file.path, again)
        return from_etags(info, again) if again.sha256 == local.sha256 else None

    def _hashed(self, file: LocalFile, etag: str) -> tuple[Digest, datetime | None]:
        """What the disk holds: as it was read before, where it is the same file; else it is read now.

        The time of the earlier reading comes with it where only that vouches for the file: its disk keeps no change times.
        """
        memory = self.context.memory
        entry = memory.recall(file, datetime.now(UTC))
        if entry and entry.sha256 and not self.context.options.replace_objects:
            found = Digest(file.size_bytes, entry.sha256, frozenset(entry.etags))
            return found, None if entry.fingerprint.ctime_ns is not None else entry.read_at
        found = digest(source_of(file), etag=etag, progress=self.context.go_on)
        memory.remember(file.path, found)
        return found, None

    def _by_size(self, file: LocalFile, info: ObjectInfo, proof: Proof | None) -> PlannedFile:
        if info.size_bytes != file.size_bytes:
            return PlannedFile(file, info.key, "replace", self.local.stated_sha256(file.path), info.etag)
        stated = self.local.stated_sha256(file.path)
        if proof and stated not in (None, proof.sha256):
            return PlannedFile(file, info.key, "replace", stated, proof.info.etag, theirs_sha256=proof.sha256)
        if proof:
            return self._skip(file, proof, trusted="size")
        stated = stated or self._hashed(file, "")[0].sha256
        return PlannedFile(file, info.key, "skip", stated, info.etag, Evidence.CLAIMED, trusted="size")

    def _skip(self, file: LocalFile, proof: Proof, trusted: str = "") -> PlannedFile:
        return PlannedFile(file, proof.info.key, "skip", proof.sha256, proof.info.etag, proof.evidence, trusted=trusted)

    def _same_mtime(self, file: LocalFile, row: FileRow) -> bool:
        trusts = self.context.options.trust_mtime and not self.context.options.replace_objects
        if not trusts or row.mtime_ns is None or row.size_bytes != file.size_bytes:
            return False
        return same_mtime(row.mtime_ns, file.mtime_ns, vfat=self.vfat)


def _each(context: Context, items: Sequence[T], action: Callable[[T], R]) -> list[tuple[T, R]]:
    """Run ``action`` over ``items`` in the pool, telling progress as they finish; the first error stops the rest."""
    futures: dict[Future[R], T] = {}
    try:
        for item in items:
            futures[context.engine.submit(partial(action, item))] = item
        with context.engine.trace.stage(Stage.HASH):
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


def _in_bucket(
    local: LocalRecording, listing: Listing, context: Context, entry: FileEntry, rows: Mapping[str, FileRow]
) -> BucketFile | str:
    """The object of a listed file that is not here; or in words why it does not count."""
    row = rows.get(entry.path)
    info = (listing.of(row) if row else None) or listing.get(entry.path)
    if info is None:
        return "missing"
    if info.size_bytes != entry.size_bytes:
        return f"{info.size_bytes:,} bytes there, {entry.size_bytes:,} listed"
    worker = local.manifest.worker_of(entry)
    proof = known(info, row, context.proofs)
    if proof is None and context.options.trust_size and entry.sha256 is not None:
        return BucketFile(entry.path, info.key, info.size_bytes, entry.sha256, info.etag, Evidence.CLAIMED, worker)
    try:
        proof = proof or measure_now(context.store, info, context.proofs, context.go_on)
    except NotFoundError:
        return "missing"
    if entry.sha256 not in (None, proof.sha256):
        return f"other content there: sha256 {proof.sha256}"
    info = proof.info
    return BucketFile(entry.path, info.key, info.size_bytes, proof.sha256, info.etag, proof.evidence, worker)


def _missing(rec_id: str, paths: Mapping[str, str]) -> MissingFilesError:
    told = [shown(path) if why == "missing" else f"{shown(path)} ({why})" for path, why in paths.items()]
    return MissingFilesError(
        f"{rec_id}: {len(paths)} listed file{'s are' if len(paths) > 1 else ' is'} neither on the disk nor whole in the"
        f" bucket: {named(told, 50)}",
        hint="Nothing was uploaded. Copy them from the rig into the recording's directory and run the same command.",
        paths=tuple(paths),
    )


def _read_stated(local: LocalRecording, item: PlannedFile) -> tuple[bytes, Digest]:
    data, found = read_file(source_of(item.file))
    _check_stated(local, item.file, found.sha256)
    return data, found


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
