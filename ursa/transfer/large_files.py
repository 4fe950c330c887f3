"""A file in parts: read in order by one thread, sent by the pool, resumed where an earlier run stopped.

An upload that is gone (``NoSuchUploadError``) was completed or aborted by another process: the key is looked at again. An
object that proves equal is a success, other content a conflict; where there is none, the file is sent in a new upload.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final

from ursa.errors import ChecksumMismatchError, StorageError
from ursa.policies import Evidence
from ursa.store import NoSuchUploadError, NotFoundError, OpenUpload, Part, PreconditionFailedError, Store
from ursa.store.protocol import SHA256_KEY
from ursa.transfer.digest import Digest, OpenFile, changed_in_secret, hashed_again, opened, read_into
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.items import Moved, Uploaded, UploadEvent, UploadItem, check_stated
from ursa.transfer.landing import Landing
from ursa.transfer.link import Share
from ursa.transfer.parts import MAX_PARTS, MIB, floor_bytes, multipart_etag, part_bytes, part_count
from ursa.transfer.trace import Stage

_TELL_BYTES: Final = 1 * MIB
_UPLOADS_A_FILE: Final = 4
"""So often is a file begun whose upload is aborted from outside: then whatever does that is to be found first."""


@dataclass(frozen=True, slots=True)
class Sending:
    """What the files of one ``upload`` share."""

    engine: Engine
    store: Store
    stop: Stop
    landing: Landing
    events: queue.SimpleQueue[UploadEvent | None]


class LargeFile:
    """One file. ``open_uploads``: what earlier runs left of it."""

    def __init__(self, sending: Sending, item: UploadItem, open_uploads: Sequence[OpenUpload]) -> None:
        self._sending = sending
        self._item = item
        self._open_uploads = open_uploads
        self._progress = _Progress(sending.events, item)

    def send(self) -> tuple[Uploaded, int] | None:
        """Send it; None where the run is stopped. What became of it, and how many of its bytes are not told yet."""
        for _ in range(_UPLOADS_A_FILE):
            self._progress.begin()
            attempt = _Attempt(self._sending, self._item, self._progress, self._take_over() or self._create())
            result = attempt.send()
            if result is not None:
                return result, self._item.size_bytes - self._progress.told
            if self._sending.stop.is_set():
                return None
            self._open_uploads = ()
        raise StorageError(
            f"the multipart upload of {self._item.key} was aborted from outside {_UPLOADS_A_FILE} times",
            hint="Nothing was registered. Find out what aborts uploads in this bucket (a lifecycle rule, `ursa gc-uploads`"
            " elsewhere), then run the same command again: files that arrived are skipped.",
            key=self._item.key,
            operation="write",
        )

    def _take_over(self) -> _Upload | None:
        """The open upload that has most of it, if only its beginning; nobody's is ever aborted here."""
        best: _Upload | None = None
        for candidate in self._open_uploads:
            try:
                parts = self._sending.store.list_parts(self._item.key, candidate.upload_id)
            except NoSuchUploadError:
                continue
            by_number = {part.number: part for part in parts}
            size = _cut_of(by_number, self._item.size_bytes)
            found = _Upload(candidate.upload_id, size, by_number, taken_over=True)
            if size and (best is None or found.bytes_arrived > best.bytes_arrived):
                best = found
        return best

    def _create(self) -> _Upload:
        stated = {SHA256_KEY: self._item.sha256} if self._item.sha256 else {}
        with self._sending.engine.trace.stage(Stage.SERVER):
            upload_id = self._sending.store.create_upload(self._item.key, metadata=stated)
        return _Upload(upload_id, part_bytes(self._item.size_bytes), {}, taken_over=False)


@dataclass(frozen=True, slots=True)
class _Upload:
    """A multipart upload. ``arrived``: its parts by number, when it was looked at."""

    upload_id: str
    part_bytes: int
    arrived: Mapping[int, Part]
    taken_over: bool

    @property
    def bytes_arrived(self) -> int:
        return sum(part.size_bytes for part in self.arrived.values())


def _cut_of(parts: Mapping[int, Part], total: int) -> int:
    """The part size of an upload that another process began, 0 where it does not suit a file of ``total`` bytes."""
    size = parts[1].size_bytes if 1 in parts else part_bytes(total)
    if not parts:
        return size
    if size > max(64 * MIB, part_bytes(total)):
        # Cut by the gigabyte: more than may be held in memory.
        return 0
    if size < min(5 * MIB, total) or part_count(total, size) > MAX_PARTS or max(parts) > part_count(total, size):
        return 0
    fits = all(part.size_bytes == min(size, total - (part.number - 1) * size) for part in parts.values())
    return size if fits else 0


class _Attempt:
    """One file through one multipart upload."""

    def __init__(self, sending: Sending, item: UploadItem, progress: _Progress, upload: _Upload) -> None:
        self._sending = sending
        self._item = item
        self._progress = progress
        self._upload = upload
        self._share = Share(floor_bytes(item.size_bytes, upload.part_bytes))
        self._md5s: dict[int, str] = {}
        self._gone = threading.Event()  # the upload is no more
        self._left_object: bool | None = None

    def send(self) -> Uploaded | None:
        """What became of it; None where the run is stopped, or the upload is gone and there is no object."""
        sent = self._send_parts()
        if sent is None or self._sending.stop.is_set():
            return None
        parts, local = sent
        self._check_stated(local.sha256)
        return self._found(local) if self._gone.is_set() else self._complete(parts, local)

    def _complete(self, parts: Sequence[Part], local: Digest) -> Uploaded | None:
        item = self._item
        try:
            with self._sending.engine.trace.stage(Stage.SERVER):
                etag = self._sending.store.complete_upload(
                    item.key,
                    self._upload.upload_id,
                    parts,
                    if_absent=item.replace_etag is None,
                    if_match=item.replace_etag,
                )
        except PreconditionFailedError:
            return self._sending.landing.settle(item, local)
        except NoSuchUploadError:
            return self._found(local)
        if etag in local.etags or etag == local.sha256:  # a directory's ETag is the sha256 that it measured
            return Uploaded(item, local, etag, Evidence.ETAG)
        return self._sending.landing.read_back(item, local)

    def _found(self, local: Digest) -> Uploaded | None:
        """The upload is gone: what another process made of it; None where it aborted it."""
        try:
            return self._sending.landing.settle(self._item, local)
        except NotFoundError:
            return None

    def _send_parts(self) -> tuple[list[Part], Digest] | None:
        """Read all and send what has not arrived; None where the run is stopped, or the file is to be begun anew."""
        sha256 = hashlib.sha256()
        with opened(self._item.file) as found:
            pending = self._feed(found, sha256)
            # Everything read is sent before the file is left: an interrupted run leaves whole parts to take over.
            parts = [part for future in pending if (part := future.result()) is not None]
            if len(pending) < part_count(self._item.size_bytes, self._upload.part_bytes) or self._aborted():
                return None
            found.finish()
            if found.restless and not self._sending.stop.is_set() and hashed_again(found) != sha256.hexdigest():
                raise changed_in_secret(self._item.file)
        etags = frozenset({multipart_etag(self._md5s[number] for number in sorted(self._md5s))})
        local = Digest(self._item.size_bytes, sha256.hexdigest(), etags, found.fingerprint, found.opened_at)
        return parts, local

    def _feed(self, found: OpenFile, sha256: hashlib._Hash) -> list[Future[Part | None]]:
        """Give the parts to the pool, in order; fewer than there are where the run is stopped or the upload aborted."""
        pending: list[Future[Part | None]] = []
        total, size = self._item.size_bytes, self._upload.part_bytes
        memory = self._sending.engine.memory
        for number in range(1, part_count(total, size) + 1):
            length = min(size, total - (number - 1) * size)
            if self._sending.stop.is_set() or self._aborted() or not memory.acquire(length, self._sending.stop):
                break
            buffer = memory.buffer(length)
            view = memoryview(buffer)[:length]
            going = False
            try:
                # One part ahead: what waits for its turn is read and hashed by then.
                with self._sending.engine.trace.stage(Stage.HASH):
                    read_into(self._item.file, found.stream, view)
                    sha256.update(view)
                going = self._turn(length)
            finally:
                if not going:
                    memory.release(length)
            if not going:
                break
            pending.append(self._sending.engine.submit(partial(self._part_task, number, view, buffer)))
        return pending

    def _aborted(self) -> bool:
        """Whether the upload is gone and left no object. Where it left one, the rest is read only, to compare them."""
        if not self._gone.is_set():
            return False
        if self._left_object is None:
            try:
                self._sending.store.head(self._item.key)
                self._left_object = True
            except NotFoundError:
                self._left_object = False
        return not self._left_object

    def _turn(self, size_bytes: int) -> bool:
        """Wait for a place on the link, and among all requests; False where the run is stopped."""
        engine, stop = self._sending.engine, self._sending.stop
        if not engine.link.enter(self._share, size_bytes, stop):
            return False
        if stop.is_set() or not engine.window.enter(stop):
            engine.link.leave(self._share, size_bytes)
            return False
        return True

    def _part_task(self, number: int, view: memoryview, buffer: bytearray) -> Part | None:
        engine = self._sending.engine
        try:
            return self._part(number, view)
        except BaseException as error:
            self._sending.stop.fail(error)
            raise
        finally:
            engine.unclaim(len(view))
            engine.memory.give_back(buffer)
            engine.link.leave(self._share, len(view))

    def _part(self, number: int, view: memoryview) -> Part | None:
        """Send one part; None where that was not to be."""
        md5 = hashlib.md5(view, usedforsecurity=False).hexdigest()
        self._md5s[number] = md5
        there = self._upload.arrived.get(number)
        if there is not None and there.etag == md5:
            self._progress.moved(len(view), resumed=len(view))
            return there
        if self._sending.stop.is_set() or self._gone.is_set():
            return None
        told = _Told(self._sending, self._progress)
        store, key, upload_id = self._sending.store, self._item.key, self._upload.upload_id
        try:
            with self._sending.engine.trace.sending(len(view)), self._sending.engine.link.measured(len(view)):
                part = store.upload_part(key, upload_id, number, view, md5=md5, sent=told.sent)
        except NoSuchUploadError:
            self._gone.set()
            return None
        told.arrived(len(view))
        return part

    def _check_stated(self, sha256: str) -> None:
        try:
            check_stated(self._item, sha256)
        except ChecksumMismatchError:
            if not self._upload.taken_over:
                self._sending.store.abort_upload(self._item.key, self._upload.upload_id)
            raise


class _Progress:
    """Tells what of one file has arrived: each byte once, also where the file is begun anew."""

    def __init__(self, events: queue.SimpleQueue[UploadEvent | None], item: UploadItem) -> None:
        self.told = 0
        self._events = events
        self._item = item
        self._arrived = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Nothing has arrived (any more)."""
        self._arrived = 0

    def moved(self, count: int, *, resumed: int = 0) -> None:
        """So many bytes more have."""
        with self._lock:
            self._arrived += count
            new = max(0, self._arrived - self.told)
            self.told += new
        if new:
            self._events.put(Moved(self._item, new, min(resumed, new)))


class _Told:
    """How much of a part has gone out: never backwards, also where a part is sent again."""

    def __init__(self, sending: Sending, progress: _Progress) -> None:
        self._sending = sending
        self._progress = progress
        self._told = 0
        self._paced = 0

    def sent(self, count: int) -> None:
        """``count`` bytes of the part have gone out so far, or are about to: the bandwidth limit holds them here."""
        self._sending.engine.bandwidth.wait(max(0, count - self._paced), self._sending.stop)
        self._paced = count
        if count - self._told >= _TELL_BYTES:
            self.arrived(count)

    def arrived(self, count: int) -> None:
        """Tell exactly ``count``."""
        if count > self._told:
            self._progress.moved(count - self._told)
            self._told = count
