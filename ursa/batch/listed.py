"""What the bucket lists of a batch's recordings, looked up for many at once, beside everything else.

A LIST tells a thousand objects. Recordings that lie close together are listed as ranges of rec_ids; where other recordings
lie between them that would be more requests, each is listed by its own prefix. Of an object 16 bytes are kept, a digest;
more only of those that were listed just now, for the ingest that compares them with a disk.
"""

from __future__ import annotations

import hashlib
import threading
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ursa.names import nfc
from ursa.recording import is_sidecar
from ursa.store import ObjectInfo, Store

DIGEST_BYTES = 16
FRESH_FOR_S = 60.0
"""So long may an ingest go by a listing; then it lists its recording again."""
MOST_KEPT_BYTES = 8 << 20
"""Some 80,000 objects. What is listed beyond that is listed again by the ingest that needs it."""
_AT_ONCE = 8
_PAGE_OBJECTS = 1_000
# The last page of a range is not full as a rule: a request more for each.
_MOST_RANGES = 4
_FEWEST_PAGES = 100
_SIDECARS = (".json", ".txt")
_AFTER_ALL = chr(0x10FFFF)


def object_digest(key: str, size_bytes: int, etag: str) -> bytes:
    """Of an object as it is listed."""
    return hashlib.blake2b(f"{key}\0{size_bytes}\0{etag}".encode(), digest_size=DIGEST_BYTES).digest()


def sidecar_digest(path: str, etag: str = "") -> bytes:
    """Of a manifest or participant.txt that is listed: with an ETag; without one, whatever it holds."""
    return object_digest(path, -1, etag)


class _Kept:
    """What was listed of recordings just now, whole: at most ``MOST_KEPT_BYTES`` of it. Thread-safe."""

    def __init__(self) -> None:
        self._of: dict[str, bytearray] = {}
        self._gone: set[str] = set()
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, rec_id: str, path: str, info: ObjectInfo) -> None:
        """An object of a recording."""
        line = f"{path}\0{info.size_bytes}\0{info.etag}\0".encode("utf-8", "surrogatepass")
        with self._lock:
            if rec_id in self._gone:
                return
            self._of.setdefault(rec_id, bytearray()).extend(line)
            self._bytes += len(line)
            if self._bytes > MOST_KEPT_BYTES:
                self._drop(rec_id)

    def drop(self, rec_id: str) -> None:
        """Keep nothing of this one any more."""
        with self._lock:
            self._drop(rec_id)

    def anew(self, rec_id: str) -> None:
        """It is listed once more."""
        with self._lock:
            self._drop(rec_id)
            self._gone.discard(rec_id)

    def take(self, rec_id: str, prefix: str) -> list[ObjectInfo] | None:
        """All of its objects; None where they are not kept. Once."""
        with self._lock:
            known = rec_id not in self._gone
            text = bytes(self._of.get(rec_id, b""))
            self._drop(rec_id)
        words = text.decode("utf-8", "surrogatepass").split("\0")
        told = zip(words[0::3], words[1::3], words[2::3], strict=False)
        return [ObjectInfo(prefix + path, int(size), etag) for path, size, etag in told] if known else None

    def _drop(self, rec_id: str) -> None:
        self._bytes -= len(self._of.pop(rec_id, b""))
        self._gone.add(rec_id)


class _Range:
    """Recordings that one thread lists in the order of their names. Whoever waits for one has it as soon as it is whole."""

    def __init__(self, names: Sequence[str], kept: _Kept) -> None:
        self.names = names
        self._wanted = frozenset(names)
        self._found: dict[str, set[bytes]] = {}
        self._kept = kept
        self._whole: list[tuple[str, float]] = [("", 0.0)]  # up to which name, and when
        self._future: Future[None] | None = None
        self._changed = threading.Condition()

    def begin(self, pool: ThreadPoolExecutor, work: Callable[[_Range], None]) -> None:
        """Have it listed."""
        self._future = pool.submit(work, self)
        self._future.add_done_callback(lambda _: self.whole_below(self._upto))

    @property
    def _upto(self) -> str:
        return self._whole[-1][0]

    def narrow(self, names: Sequence[str], most: int) -> Sequence[str]:
        """Only these are still asked for, and of those that are not listed yet only so many that it has ``most`` in all.
        Returns the ones that it has no longer.
        """
        with self._changed:
            own = [name for name in names if name in self._wanted]
            cut = max(most, bisect(own, self._upto))
            self.names = own[:cut]
            self._wanted = frozenset(self.names)
            self._found = {name: digests for name, digests in self._found.items() if name in self._wanted}
            return own[cut:]

    def add(self, rec_id: str, path: str, info: ObjectInfo) -> None:
        """An object of a recording, where it is one of these."""
        with self._changed:
            if rec_id in self._wanted:
                self._found.setdefault(rec_id, set()).update(_digests(info, path))
                self._kept.add(rec_id, path, info)

    def forget_from(self, rec_id: str) -> None:
        """This recording and those after it are listed otherwise."""
        with self._changed:
            self._found = {name: digests for name, digests in self._found.items() if name < rec_id}
            for name in self.names:
                if name >= rec_id:
                    self._kept.anew(name)

    def whole_below(self, rec_id: str) -> None:
        """Nothing more comes of the recordings before this one."""
        with self._changed:
            self._whole.append((max(self._upto, rec_id), time.monotonic()))
            self._changed.notify_all()

    def of(self, rec_id: str) -> frozenset[bytes]:
        """Digests of a recording's objects; waits for them. Raises what ended the listing before."""
        future = self._future
        assert future is not None
        with self._changed:
            self._changed.wait_for(lambda: rec_id < self._upto or future.done())
        if rec_id >= self._upto:
            future.result()
        return frozenset(self._found.get(rec_id, ()))

    def age_s(self, rec_id: str) -> float:
        """How long ago it was listed; for ever where it is not."""
        with self._changed:
            at = [at for _, at in self._whole[bisect(self._whole, rec_id, key=lambda item: item[0]) :][:1]]
        return time.monotonic() - at[0] if at else float("inf")

    def failed(self, rec_id: str) -> bool:
        """Whether the listing ended before this recording."""
        future = self._future
        broken = future is not None and future.done() and (future.cancelled() or future.exception() is not None)
        return broken and rec_id >= self._upto


class Listed:
    """The objects of some recordings, by rec_id. ``ranges``: the store tells a page of keys after another one's."""

    def __init__(self, store: Store, raw_prefix: str, stopped: Callable[[], object], *, ranges: bool) -> None:
        self._store = store
        self._prefix = raw_prefix
        self._stopped = stopped
        self._ranges = ranges
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ursa-list")
        self._range_of: dict[str, _Range] = {}
        self._kept = _Kept()

    def begin(self, rec_ids: Sequence[str], objects: int) -> None:
        """Begin to list these recordings, sorted, which have about so many objects, those of them that are not listed yet.
        What was listed of others is forgotten.
        """
        there = self._range_of
        pages = -(-objects // _PAGE_OBJECTS)
        size = -(-len(rec_ids) // max(1, min(_MOST_RANGES, pages // _FEWEST_PAGES, len(rec_ids))))
        given_up = {name for part in {*there.values()} for name in part.narrow(rec_ids, size)}
        self._range_of = {
            name: there[name]
            for name in rec_ids
            if name in there and name not in given_up and not there[name].failed(name)
        }
        for name in there.keys() - self._range_of.keys():
            self._kept.anew(name)
        wanted = [name for name in rec_ids if name not in self._range_of]
        if not self._ranges or not wanted:
            return
        pages = -(-objects * len(wanted) // len(rec_ids) // _PAGE_OBJECTS)
        parts = max(1, min(_MOST_RANGES, pages // _FEWEST_PAGES, len(wanted)))
        size = -(-len(wanted) // parts)
        for start in range(0, len(wanted), size):
            part = _Range(wanted[start : start + size], self._kept)
            self._range_of |= dict.fromkeys(part.names, part)
            part.begin(self._pool, self._list)

    def of(self, rec_id: str) -> frozenset[bytes] | None:
        """Digests of a recording's objects; None where it was not asked for. Raises ``StorageError``, and what stops."""
        if not self._ranges:
            return frozenset(digest for info, path in self._one(rec_id) for digest in _digests(info, path))
        part = self._range_of.get(rec_id)
        return None if part is None else part.of(rec_id)

    def objects(self, rec_id: str) -> Sequence[ObjectInfo] | None:
        """Its objects, where they were listed within the last ``FRESH_FOR_S`` and are kept still. Once; waits for nothing."""
        part = self._range_of.get(rec_id)
        fresh = part is not None and part.age_s(rec_id) <= FRESH_FOR_S
        return self._kept.take(rec_id, f"{self._prefix}{rec_id}/") if fresh else None

    def forget_objects(self, rec_id: str) -> None:
        """Nobody will ask for them."""
        self._kept.drop(rec_id)

    def close(self) -> None:
        """What has not begun does not begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _list(self, part: _Range) -> None:
        if len(part.names) == 1:
            # What lies behind it in the bucket is nobody's concern.
            self._list_one(part, part.names[0])
            part.whole_below(_AFTER_ALL)
            return
        for requests, page in enumerate(self._pages(part), 1):
            done = ""
            for info in page:
                done, _, path = info.key.removeprefix(self._prefix).partition("/")
                part.add(done, path, info)
            part.whole_below(done)
            names = part.names
            if names and requests >= len(names) and done < names[-1]:
                # Others lie between them: what comes after this page is asked for one by one.
                part.forget_from(done)
                for name in names:
                    if name >= done:
                        self._list_one(part, name)
                break
        part.whole_below(_AFTER_ALL)

    def _list_one(self, part: _Range, name: str) -> None:
        self._stopped()
        for info, path in self._one(name):
            part.add(name, path, info)

    def _one(self, rec_id: str) -> Iterator[tuple[ObjectInfo, str]]:
        prefix = f"{self._prefix}{rec_id}/"
        return ((info, info.key.removeprefix(prefix)) for info in self._store.list(prefix))

    def _pages(self, part: _Range) -> Iterator[Sequence[ObjectInfo]]:
        """Pages from the first recording's objects to the last one's; to the end where a server keeps no order."""
        token, newest, ordered = None, "", True
        first = next(iter(part.names), "")
        while names := part.names:
            self._stopped()
            page = self._store.list_page(
                self._prefix, start_after="" if token else f"{self._prefix}{first}/", token=token
            )
            yield page.objects
            for info in page.objects:
                name = info.key.removeprefix(self._prefix).partition("/")[0]
                ordered, newest = ordered and name >= newest, max(newest, name)
            token, last = page.token, names[-1]
            past = bool(page.objects) and page.objects[-1].key > f"{self._prefix}{last}/" and newest > last
            if token is None or (ordered and past):
                return


def _digests(info: ObjectInfo, path: str) -> list[bytes]:
    """Of an object, whose ``path`` is below its recording."""
    digests = [object_digest(info.key, info.size_bytes, info.etag)]
    if path.endswith(_SIDECARS) and is_sidecar(path := nfc(path)):
        digests += [sidecar_digest(path), sidecar_digest(path, info.etag)]
    return digests
