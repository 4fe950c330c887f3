"""What the bucket lists of a batch's recordings, looked up for many at once, beside everything else.

A LIST tells a thousand objects. Recordings that lie close together are listed as ranges of rec_ids; where other recordings
lie between them that would be more requests, each is listed by its own prefix. An object is kept as 16 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ursa.names import nfc
from ursa.recording import is_sidecar
from ursa.store import ObjectInfo, Store

DIGEST_BYTES = 16
_AT_ONCE = 8
_PAGE_OBJECTS = 1_000
# The last page of a range is not full as a rule: a request more for each.
_MOST_RANGES = 4
_FEWEST_PAGES = 3
_SIDECARS = (".json", ".txt")


def object_digest(key: str, size_bytes: int, etag: str) -> bytes:
    """Of an object as it is listed."""
    return hashlib.blake2b(f"{key}\0{size_bytes}\0{etag}".encode(), digest_size=DIGEST_BYTES).digest()


def sidecar_digest(path: str, etag: str = "") -> bytes:
    """Of a manifest or participant.txt that is listed: with an ETag; without one, whatever it holds."""
    return object_digest(path, -1, etag)


class Listed:
    """The objects of some recordings, by rec_id. ``ranges``: the store tells a page of keys after another one's."""

    def __init__(self, store: Store, raw_prefix: str, stopped: Callable[[], object], *, ranges: bool) -> None:
        self._store = store
        self._prefix = raw_prefix
        self._stopped = stopped
        self._ranges = ranges
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ursa-list")
        self._futures: dict[str, Future[Mapping[str, frozenset[bytes]]]] = {}

    def begin(self, rec_ids: Sequence[str], objects: int) -> None:
        """Begin to list these recordings, sorted, which have about so many objects, those of them that are not listed yet.
        What was listed of others is forgotten.
        """
        self._futures = {name: self._futures[name] for name in rec_ids if self._is_listed(name)}
        wanted = [name for name in rec_ids if name not in self._futures]
        if not self._ranges or not wanted:
            return
        pages = -(-objects * len(wanted) // len(rec_ids) // _PAGE_OBJECTS)
        parts = max(1, min(_MOST_RANGES, pages // _FEWEST_PAGES, len(wanted)))
        size = -(-len(wanted) // parts)
        for start in range(0, len(wanted), size):
            names = wanted[start : start + size]
            future = self._pool.submit(self._range, names)
            self._futures |= dict.fromkeys(names, future)

    def _is_listed(self, rec_id: str) -> bool:
        future = self._futures.get(rec_id)
        return future is not None and not (future.done() and (future.cancelled() or future.exception()))

    def of(self, rec_id: str) -> frozenset[bytes] | None:
        """Digests of a recording's objects; None where it was not asked for. Raises ``StorageError``, and what stops."""
        if not self._ranges:
            return frozenset(self._one(rec_id))
        future = self._futures.get(rec_id)
        return None if future is None else future.result().get(rec_id, frozenset())

    def close(self) -> None:
        """What has not begun does not begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _range(self, names: Sequence[str]) -> Mapping[str, frozenset[bytes]]:
        wanted = set(names)
        found: dict[str, set[bytes]] = {}
        done = ""
        for requests, page in enumerate(self._pages(names[0], names[-1]), 1):
            for info in page:
                done, _, path = info.key.removeprefix(self._prefix).partition("/")
                if done in wanted:
                    found.setdefault(done, set()).update(_digests(info, path))
            if requests >= len(names) and done < names[-1]:
                # Others lie between them: what comes after this page is asked for one by one.
                found = {name: digests for name, digests in found.items() if name < done}
                for name in names:
                    if name >= done:
                        self._stopped()
                        found[name] = self._one(name)
                break
        return {name: frozenset(digests) for name, digests in found.items()}

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
