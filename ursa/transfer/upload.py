"""Uploads: put-if-absent, hashed while they are sent, proven, and resumed inside a file by any process."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, NoReturn

from ursa.errors import ChecksumMismatchError, ObjectConflictError, StorageError, named
from ursa.policies import Evidence
from ursa.store import NoSuchUploadError, NotFoundError, ObjectInfo, OpenUpload, Part, PreconditionFailedError, Store
from ursa.store.protocol import SHA256_KEY
from ursa.transfer.digest import Digest, SourceFile, changed_in_secret, hashed_again, opened, read_file, read_into
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.lane import Lane
from ursa.transfer.parts import (
    MAX_PARTS,
    MIB,
    SINGLE_PUT_BYTES,
    multipart_etag,
    part_bytes,
    part_count,
    parts_in_flight,
)

_LARGE_FILES_AT_ONCE: Final = 2  # reading ahead in more files than this makes a network disk seek
_TELL_BYTES: Final = 1 * MIB
_IN_FLIGHT_GRACE_S: Final = 75.0  # a little over the read timeout of a request


@dataclass(frozen=True, slots=True)
class UploadItem:
    """A file to send.

    ``sha256``: what the manifest states, or None. ``replace_etag``: the object that this one may replace; None means
    put-if-absent. ``data``: the content, where it was read already, and what that reading told of the file.
    """

    file: SourceFile
    key: str
    sha256: str | None = None
    replace_etag: str | None = None
    data: bytes | None = field(default=None, repr=False)
    digest: Digest | None = None

    @property
    def size_bytes(self) -> int:
        """Of the file, as it was when the recording was read."""
        return self.file.size_bytes


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file that is in the store. ``sent`` is False where another process had put the same content there first.
    ``digest``: what reading it told.
    """

    item: UploadItem
    digest: Digest
    etag: str
    evidence: Evidence
    sent: bool = True

    @property
    def sha256(self) -> str:
        """Of the file, and of the object."""
        return self.digest.sha256


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes of one file that are in the store now; ``resumed`` of them had been sent by an earlier run."""

    item: UploadItem
    bytes_done: int
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """One file is done; ``bytes_done`` of it are not told by a ``Moved`` before."""

    result: Uploaded
    bytes_done: int = 0


UploadEvent = Moved | Finished

Compare = Callable[[ObjectInfo, Digest], tuple[str, Evidence] | None]
"""Whether an object holds these bytes: its ETag and how well that is proven, or None (``ursa.bucket.proof``)."""


def upload(
    engine: Engine,
    store: Store,
    items: Sequence[UploadItem],
    *,
    stop: Stop,
    open_uploads: Mapping[str, Sequence[OpenUpload]],
    compare: Compare,
    on_event: Callable[[UploadEvent], object],
) -> list[Uploaded]:
    """Send ``items``; returns them in the same order, each proven to be there. ``compare``: asked about what is under a
    key already.

    Events come in the calling thread, in order. The first error stops the rest: nothing new starts, what is in flight
    ends, and the error is raised. So does an exception of ``on_event``, and a KeyboardInterrupt.

    Raises:
        FileChangedError: a file is being written; no object was made of it.
        ChecksumMismatchError: a file is not what its manifest states; no object was made of it.
        ObjectConflictError: the bucket has other content under a key.
        StorageError: the store or the disk failed for good.
    """
    run = _Run(engine, store, stop, open_uploads, compare)
    return run.execute(items, on_event)


class _Run:
    def __init__(
        self,
        engine: Engine,
        store: Store,
        stop: Stop,
        open_uploads: Mapping[str, Sequence[OpenUpload]],
        compare: Compare,
    ) -> None:
        self.engine = engine
        self.compare = compare
        self.store = store
        self.stop = stop
        self.open_uploads = open_uploads
        self.events: queue.SimpleQueue[UploadEvent | None] = queue.SimpleQueue()

    def execute(self, items: Sequence[UploadItem], on_event: Callable[[UploadEvent], object]) -> list[Uploaded]:
        results: dict[str, Uploaded] = {}
        lanes = self._start_lanes(items)
        try:
            for event in self._events_until_done(lanes):
                if isinstance(event, Finished):
                    results[event.result.item.key] = event.result
                on_event(event)
        except BaseException:
            self.stop.set()
            for lane in lanes:
                lane.join(_IN_FLIGHT_GRACE_S)
            raise
        if self.stop.error is not None:
            raise self.stop.error
        if self.stop.is_set():
            raise KeyboardInterrupt
        return [results[item.key] for item in items]

    def _start_lanes(self, items: Sequence[UploadItem]) -> list[threading.Thread]:
        """Feeders beside the pool: what waits for memory must not hold a thread that would free some."""
        large: queue.SimpleQueue[UploadItem] = queue.SimpleQueue()
        small = [item for item in items if item.file.size_bytes <= SINGLE_PUT_BYTES]
        for item in items:
            if item.file.size_bytes > SINGLE_PUT_BYTES:
                large.put(item)
        small_lane = Lane(self.engine, self.stop, small, self._send_small)
        lanes = [threading.Thread(target=self._guarded, args=(small_lane.run,), daemon=True)]
        lanes += [
            threading.Thread(target=self._guarded, args=(lambda: self._send_large(large),), daemon=True)
            for _ in range(min(_LARGE_FILES_AT_ONCE, len(items) - len(small)))
        ]
        for lane in lanes:
            lane.start()
        return lanes

    def _events_until_done(self, lanes: Sequence[threading.Thread]) -> Iterator[UploadEvent]:
        running = len(lanes)
        while running:
            event = self.events.get()
            if event is None:
                running -= 1
            else:
                yield event

    def _guarded(self, lane: Callable[[], None]) -> None:
        try:
            lane()
        except BaseException as error:  # noqa: BLE001  (handed to the calling thread, which raises it)
            self.stop.fail(error)
        finally:
            self.events.put(None)

    def _send_small(self, item: UploadItem) -> None:
        self.events.put(Finished(self._put(item), item.size_bytes))

    def _put(self, item: UploadItem) -> Uploaded:
        data, digest = self._content(item)
        check_stated(item, digest.sha256)
        self.engine.bandwidth.wait(len(data), self.stop)
        try:
            with self.engine.window.timed():
                put = self.store.put(
                    item.key,
                    data,
                    sha256=digest.sha256,
                    if_absent=item.replace_etag is None,
                    if_match=item.replace_etag,
                    metadata={SHA256_KEY: digest.sha256},
                )
        except PreconditionFailedError:
            md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
            return self._settle(item, replace(digest, etags=frozenset({md5})))
        if put.evidence.proven:
            return Uploaded(item, digest, put.etag, put.evidence)
        return self._read_back(item, digest)

    def _content(self, item: UploadItem) -> tuple[bytes, Digest]:
        if item.data is None or item.digest is None:
            return read_file(item.file)
        with opened(item.file) as found:
            # Read earlier: opening it has compared size and mtime once more.
            found.finish()
            if found.restless and hashed_again(found) != item.digest.sha256:
                raise changed_in_secret(item.file)
            return item.data, replace(item.digest, fingerprint=None) if found.restless else item.digest

    def _settle(self, item: UploadItem, local: Digest) -> Uploaded:
        """Another process, perhaps this one in a request whose reply was lost, wrote the key first."""
        return self._compared(item, self.store.head(item.key), local) or _refuse(item)

    def _compared(self, item: UploadItem, found: ObjectInfo, local: Digest) -> Uploaded | None:
        """What the object under the key is, where it holds the same bytes."""
        held = self.compare(found, local)
        return Uploaded(item, local, *held, sent=False) if held else None

    def _read_back(self, item: UploadItem, local: Digest) -> Uploaded:
        """Of a store that did not prove that it has what was sent: what it gives back decides."""
        found = self._compared(item, self.store.head(item.key), local)
        if found is None:
            raise StorageError(
                f"{item.key} arrived damaged: what the store gives back is not what was sent",
                hint="Run the same command with --replace-objects; if it happens again, the network or server is at fault.",
                key=item.key,
                operation="write",
            )
        return replace(found, sent=True)

    def _send_large(self, items: queue.SimpleQueue[UploadItem]) -> None:
        while not self.stop.is_set():
            try:
                item = items.get_nowait()
            except queue.Empty:
                return
            result = _LargeFile(self, item).send()
            if result is not None:
                self.events.put(Finished(result))


class _LargeFile:
    """One file in parts: read in order by this thread, sent by the pool."""

    def __init__(self, run: _Run, item: UploadItem) -> None:
        self.run = run
        self.item = item
        self.upload_id = ""
        self.part_bytes = part_bytes(item.file.size_bytes)
        self.arrived: Mapping[int, Part] = {}
        self.md5s: dict[int, str] = {}
        self.taken_over = False
        self.places = threading.Semaphore(0)

    def send(self) -> Uploaded | None:
        self._take_over_or_create()
        self.places = threading.Semaphore(parts_in_flight(self.item.file.size_bytes, self.part_bytes))
        parts, local = self._send_parts()
        if self.run.stop.is_set():
            return None
        self._check_stated(local.sha256)
        try:
            etag = self.run.store.complete_upload(
                self.item.key,
                self.upload_id,
                parts,
                if_absent=self.item.replace_etag is None,
                if_match=self.item.replace_etag,
            )
        except PreconditionFailedError:
            return self.run._settle(self.item, local)
        except NoSuchUploadError:
            return self._settle_completed(local)
        if etag in local.etags or etag == local.sha256:  # a directory's ETag is the sha256 that it measured
            return Uploaded(self.item, local, etag, Evidence.ETAG)
        return self.run._read_back(self.item, local)

    def _settle_completed(self, local: Digest) -> Uploaded:
        """The upload is gone: another process completed it, or somebody aborted it."""
        try:
            return self.run._settle(self.item, local)
        except NotFoundError:
            raise StorageError(
                f"the multipart upload of {self.item.key} was aborted by somebody meanwhile",
                hint="Nothing was registered. Run the same command again: it sends this file from the start.",
                key=self.item.key,
                operation="write",
            ) from None

    def _take_over_or_create(self) -> None:
        """Take over the open upload that has most, if only its beginning; nobody's is ever aborted here."""
        best = -1
        for candidate in self.run.open_uploads.get(self.item.key, ()):
            try:
                parts = {part.number: part for part in self.run.store.list_parts(self.item.key, candidate.upload_id)}
            except NoSuchUploadError:
                continue
            size = self._cut_of(parts)
            arrived = sum(part.size_bytes for part in parts.values())
            if size and arrived > best:
                best, self.upload_id, self.part_bytes, self.arrived = arrived, candidate.upload_id, size, parts
        self.taken_over = best >= 0
        if not self.taken_over:
            stated = {SHA256_KEY: self.item.sha256} if self.item.sha256 else {}
            self.upload_id = self.run.store.create_upload(self.item.key, metadata=stated)

    def _cut_of(self, parts: Mapping[int, Part]) -> int:
        """The part size of an upload that somebody began, 0 where it does not suit this file."""
        total = self.item.file.size_bytes
        size = parts[1].size_bytes if 1 in parts else part_bytes(total)
        if not parts:
            return size
        if size > max(64 * MIB, part_bytes(total)):
            # Somebody cut it by the gigabyte: more than may be held in memory.
            return 0
        if size < min(5 * MIB, total) or part_count(total, size) > MAX_PARTS or max(parts) > part_count(total, size):
            return 0
        fits = all(part.size_bytes == min(size, total - (part.number - 1) * size) for part in parts.values())
        return size if fits else 0

    def _send_parts(self) -> tuple[list[Part], Digest]:
        sha256 = hashlib.sha256()
        pending: list[Future[Part | None]] = []
        total = self.item.file.size_bytes
        with opened(self.item.file) as found:
            for number in range(1, part_count(total, self.part_bytes) + 1):
                length = min(self.part_bytes, total - (number - 1) * self.part_bytes)
                memory = self.run.engine.memory
                if self.run.stop.is_set() or not memory.acquire(length, self.run.stop):
                    break
                buffer = memory.buffer(length)
                view = memoryview(buffer)[:length]
                going = False
                try:
                    # One part ahead: what waits for its turn is read and hashed by then.
                    read_into(self.item.file, found.stream, view)
                    sha256.update(view)
                    going = self._turn()
                finally:
                    if not going:
                        memory.release(length)
                if not going:
                    break
                pending.append(self.run.engine.submit(partial(self._part_task, number, view, buffer)))
            # Everything read is sent before the file is left: an interrupted run leaves whole parts to take over.
            parts = [part for future in pending if (part := future.result()) is not None]
            found.finish()
            if found.restless and not self.run.stop.is_set() and hashed_again(found) != sha256.hexdigest():
                raise changed_in_secret(self.item.file)
        etag = multipart_etag(self.md5s[number] for number in sorted(self.md5s)) if self.md5s else ""
        local = Digest(total, sha256.hexdigest(), frozenset({etag}), found.fingerprint, found.opened_at)
        return parts, local

    def _turn(self) -> bool:
        """Wait for a place among this file's parts, and among all requests; False where the run is stopped."""
        while not self.places.acquire(timeout=0.2):
            if self.run.stop.is_set():
                return False
        return not self.run.stop.is_set() and self.run.engine.window.enter(self.run.stop)

    def _part_task(self, number: int, view: memoryview, buffer: bytearray) -> Part | None:
        try:
            return self._part(number, view)
        except BaseException as error:
            self.run.stop.fail(error)
            raise
        finally:
            self.run.engine.unclaim(len(view))
            self.run.engine.memory.give_back(buffer)
            self.places.release()

    def _part(self, number: int, view: memoryview) -> Part | None:
        md5 = hashlib.md5(view, usedforsecurity=False).hexdigest()
        self.md5s[number] = md5
        there = self.arrived.get(number)
        if there is not None and there.etag == md5:
            self.run.events.put(Moved(self.item, len(view), resumed=len(view)))
            return there
        if self.run.stop.is_set():
            return None
        told = _Told(self.run, self.item)
        try:
            part = self.run.store.upload_part(self.item.key, self.upload_id, number, view, md5=md5, sent=told.sent)
        except NoSuchUploadError:
            # Another process completed it: what is there now is compared once all parts are read.
            part = Part(number, len(view), md5)
        told.arrived(len(view))
        return part

    def _check_stated(self, sha256: str) -> None:
        try:
            check_stated(self.item, sha256)
        except ChecksumMismatchError:
            if not self.taken_over:
                self.run.store.abort_upload(self.item.key, self.upload_id)
            raise


class _Told:
    """Tells how much of a part has gone out: never backwards, also where a part is sent again."""

    def __init__(self, run: _Run, item: UploadItem) -> None:
        self._run = run
        self._item = item
        self._told = 0
        self._paced = 0

    def sent(self, count: int) -> None:
        """``count`` bytes of the part have gone out so far, or are about to: the bandwidth limit holds them here."""
        self._run.engine.bandwidth.wait(max(0, count - self._paced), self._run.stop)
        self._paced = count
        if count - self._told >= _TELL_BYTES:
            self.arrived(count)

    def arrived(self, count: int) -> None:
        """Tell exactly ``count``."""
        if count > self._told:
            self._run.events.put(Moved(self._item, count - self._told))
            self._told = count


def check_stated(item: UploadItem, sha256: str) -> None:
    """Raise ``ChecksumMismatchError`` where a file is not what its manifest states."""
    if item.sha256 is not None and item.sha256 != sha256:
        raise ChecksumMismatchError(
            f"{item.file.path} has sha256 {sha256}, the manifest states {item.sha256}",
            hint="Nothing was registered. Copy the file from the rig again and run the same command.",
            path=item.file.path,
            expected=item.sha256,
            found=sha256,
        )


def _refuse(item: UploadItem) -> NoReturn:
    raise conflict([item.key])


def conflict(keys: Sequence[str], *, registered: bool = False) -> ObjectConflictError:
    """The error for keys under which the bucket holds other content; ``registered``: than their rows say."""
    return ObjectConflictError(
        f"the bucket holds other content under {named(keys)}",
        hint="Nothing was overwritten and nothing was registered. Compare the two; where the disk is right, run again"
        f" with{' --overwrite' if registered else ''} --replace-objects.",
        keys=tuple(keys),
    )
