"""What the bucket lists of a batch's recordings, looked up for many at once, beside everything else.

A LIST tells a thousand objects. Recordings that lie close together are listed as ranges of rec_ids; where other recordings
lie between them that would be more requests, each is listed by its own prefix. Of an object 16 bytes are kept, a digest.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ursa.names import nfc
from ursa.recording import is_sidecar
from ursa.store import ObjectInfo, Store

DIGEST_BYTES = 16
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


class _Range:
    """Recordings that one thread lists in the order of their names. Whoever waits for one has it as soon as it is whole."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._wanted = frozenset(names)
        self._found: dict[str, set[bytes]] = {}
        self._upto = ""
        self._future: Future[None] | None = None
        self._changed = threading.Condition()

    def begin(self, pool: ThreadPoolExecutor, work: Callable[[_Range], None]) -> None:
        """Have it listed."""
        self._future = pool.submit(work, self)
        self._future.add_done_callback(lambda _: self.whole_below(self._upto))

    def add(self, rec_id: str, digests: Iterable[bytes]) -> None:
        """Objects of a recording, where it is one of these."""
        if rec_id in self._wanted:
            self._found.setdefault(rec_id, set()).update(digests)

    def forget_from(self, rec_id: str) -> None:
        """This recording and those after it are listed otherwise."""
        self._found = {name: digests for name, digests in self._found.items() if name < rec_id}

    def whole_below(self, rec_id: str) -> None:
        """Nothing more comes of the recordings before this one."""
        with self._changed:
            self._upto = max(self._upto, rec_id)
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

    def begin(self, rec_ids: Sequence[str], objects: int) -> None:
        """Begin to list these recordings, sorted, which have about so many objects, those of them that are not listed yet.
        What was listed of others is forgotten.
        """
        there = self._range_of
        self._range_of = {name: there[name] for name in rec_ids if name in there and not there[name].failed(name)}
        wanted = [name for name in rec_ids if name not in self._range_of]
        if not self._ranges or not wanted:
            return
        pages = -(-objects * len(wanted) // len(rec_ids) // _PAGE_OBJECTS)
        parts = max(1, min(_MOST_RANGES, pages // _FEWEST_PAGES, len(wanted)))
        size = -(-len(wanted) // parts)
        for start in range(0, len(wanted), size):
            part = _Range(wanted[start : start + size])
            self._range_of |= dict.fromkeys(part.names, part)
            part.begin(self._pool, self._list)

    def of(self, rec_id: str) -> frozenset[bytes] | None:
        """Digests of a recording's objects; None where it was not asked for. Raises ``StorageError``, and what stops."""
        if not self._ranges:
            return frozenset(self._one(rec_id))
        part = self._range_of.get(rec_id)
        return None if part is None else part.of(rec_id)

    def close(self) -> None:
        """What has not begun does not begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _list(self, part: _Range) -> None:
        names, done = part.names, ""
        for requests, page in enumerate(self._pages(names[0], names[-1]), 1):
            for info in page:
                done, _, path = info.key.removeprefix(self._prefix).partition("/")
                part.add(done, _digests(info, path))
            part.whole_below(done)
            if requests >= len(names) and done < names[-1]:
                # Others lie between them: what comes after this page is asked for one by one.
                part.forget_from(done)
                for name in names:
                    if name >= done:
                        self._stopped()
                        part.add(name, self._one(name))
                break
        part.whole_below(_AFTER_ALL)

    def _one(self, rec_id: str) -> set[bytes]:
        prefix = f"{self._prefix}{rec_id}/"
        return {digest for info in self._store.list(prefix) for digest in _digests(info, info.key.removeprefix(prefix))}

    def _pages(self, first: str, last: str) -> Iterator[Sequence[ObjectInfo]]:
        """Pages from the first recording's objects to the last one's; to the end where a server keeps no order."""
        token, newest, ordered = None, "", True
        end = f"{self._prefix}{last}/"
        while True:
            self._stopped()
            start = "" if token else f"{self._prefix}{first}/"
            page = self._store.list_page(self._prefix, start_after=start, token=token)
            yield page.objects
            for info in page.objects:
                name = info.key.removeprefix(self._prefix).partition("/")[0]
                ordered, newest = ordered and name >= newest, max(newest, name)
            token = page.token
            past = bool(page.objects) and page.objects[-1].key > end and newest > last
            if token is None or (ordered and past):
                return


def _digests(info: ObjectInfo, path: str) -> list[bytes]:
    """Of an object, whose ``path`` is below its recording."""
    digests = [object_digest(info.key, info.size_bytes, info.etag)]
    if path.endswith(_SIDECARS) and is_sidecar(path := nfc(path)):
        digests += [sidecar_digest(path), sidecar_digest(path, info.etag)]
    return digests
