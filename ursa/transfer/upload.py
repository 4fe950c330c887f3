"""Uploads: put-if-absent, hashed while they are sent, proven, and resumed inside a file by any process."""

from __future__ import annotations

import hashlib
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import Final

from ursa.beside import begin
from ursa.store import OpenUpload, PreconditionFailedError, Store
from ursa.store.protocol import SHA256_KEY
from ursa.transfer.digest import Digest, changed_in_secret, hashed_again, opened, read_file
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.items import Compare, Finished, Uploaded, UploadEvent, UploadItem, check_stated
from ursa.transfer.landing import Landing
from ursa.transfer.lane import Lane
from ursa.transfer.large_files import LargeFile, Sending
from ursa.transfer.parts import SINGLE_PUT_BYTES
from ursa.transfer.trace import Stage

_LARGE_FILES_AT_ONCE: Final = 4  # of one recording; of all of them as ``LargeFiles`` has it
_IN_FLIGHT_GRACE_S: Final = 75.0  # a little over the read timeout of a request
# Woken for each file of a crowd, the thread that tells of them costs as much as sending them: it lets a few gather.
_CROWD: Final = 16
_GATHER_S: Final = 0.005


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
    sending = Sending(engine, store, stop, Landing(store, compare), queue.SimpleQueue())
    return _Run(sending, open_uploads).execute(items, on_event)


class _Run:
    def __init__(self, sending: Sending, open_uploads: Mapping[str, Sequence[OpenUpload]]) -> None:
        self._sending = sending
        self._open_uploads = open_uploads

    def execute(self, items: Sequence[UploadItem], on_event: Callable[[UploadEvent], object]) -> list[Uploaded]:
        results: dict[str, Uploaded] = {}
        stop = self._sending.stop
        lanes = self._start_lanes(items)
        try:
            for event in self._events_until_done(lanes):
                if isinstance(event, Finished):
                    results[event.result.item.key] = event.result
                on_event(event)
                if len(items) - len(results) > _CROWD and self._sending.events.empty():
                    time.sleep(_GATHER_S)
        except BaseException:
            stop.set()
            wait(lanes, _IN_FLIGHT_GRACE_S)
            raise
        if stop.error is not None:
            raise stop.error
        if stop.is_set():
            raise KeyboardInterrupt
        return [results[item.key] for item in items]

    def _start_lanes(self, items: Sequence[UploadItem]) -> list[Future[None]]:
        """Feeders beside the pool: what waits for memory must not hold a thread that would free some."""
        large: queue.SimpleQueue[UploadItem] = queue.SimpleQueue()
        small = [item for item in items if item.file.size_bytes <= SINGLE_PUT_BYTES]
        for item in items:
            if item.file.size_bytes > SINGLE_PUT_BYTES:
                large.put(item)
        small_lane = Lane(self._sending.engine, self._sending.stop, small, self._send_small)
        feeders = [small_lane.run] if small else []
        feeders += [lambda: self._send_large(large)] * min(_LARGE_FILES_AT_ONCE, len(items) - len(small))
        return [begin(partial(self._guarded, feeder)) for feeder in feeders]

    def _events_until_done(self, lanes: Sequence[Future[None]]) -> Iterator[UploadEvent]:
        running = len(lanes)
        while running:
            event = self._sending.events.get()
            if event is None:
                running -= 1
            else:
                yield event

    def _guarded(self, lane: Callable[[], None]) -> None:
        try:
            lane()
        except BaseException as error:  # noqa: BLE001  (handed to the calling thread, which raises it)
            self._sending.stop.fail(error)
        finally:
            self._sending.events.put(None)

    def _send_small(self, item: UploadItem) -> None:
        self._sending.events.put(Finished(self._put(item), item.size_bytes))

    def _put(self, item: UploadItem) -> Uploaded:
        engine, landing = self._sending.engine, self._sending.landing
        with engine.trace.stage(Stage.HASH):
            data, digest = _content(item)
        check_stated(item, digest.sha256)
        try:
            with engine.trace.sending(len(data)):
                engine.bandwidth.wait(len(data), self._sending.stop)
                with engine.window.timed():
                    put = self._sending.store.put(
                        item.key,
                        data,
                        sha256=digest.sha256,
                        if_absent=item.replace_etag is None,
                        if_match=item.replace_etag,
                        metadata={SHA256_KEY: digest.sha256},
                    )
        except PreconditionFailedError:
            md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
            return landing.settle(item, replace(digest, etags=frozenset({md5})))
        if put.evidence.proven:
            return Uploaded(item, digest, put.etag, put.evidence)
        return landing.read_back(item, digest)

    def _send_large(self, items: queue.SimpleQueue[UploadItem]) -> None:
        while not self._sending.stop.is_set():
            try:
                item = items.get_nowait()
            except queue.Empty:
                return
            turns = self._sending.engine.large
            if not turns.enter(item.size_bytes, self._sending.stop):
                return
            try:
                sent = LargeFile(self._sending, item, self._open_uploads.get(item.key, ())).send()
            finally:
                turns.leave(item.size_bytes)
            if sent is not None:
                self._sending.events.put(Finished(*sent))


def _content(item: UploadItem) -> tuple[bytes, Digest]:
    if item.data is None or item.digest is None:
        return read_file(item.file)
    with opened(item.file) as found:
        # Read earlier: opening it has compared size and mtime once more.
        found.finish()
        if found.restless and hashed_again(found) != item.digest.sha256:
            raise changed_in_secret(item.file)
        return item.data, replace(item.digest, fingerprint=None) if found.restless else item.digest
