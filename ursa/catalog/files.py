"""A table's objects in the bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import IO, Any, TypeVar

from ursa.beside import begin, each
from ursa.catalog.replica.log import LOG, NotWholeError
from ursa.catalog.retention import CleanUpRefusedError
from ursa.store import ObjectInfo, Page, PutResult, Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TableFiles:
    """A table's objects: ``prefix`` is the table's, and ends in a slash. ``clean_up``: told of each deletion by age, None
    or why it was refused. ``once``: the same store without retries, for whoever must know of each failure.
    """

    store: Store
    prefix: str
    once: Store
    clean_up: Callable[[CleanUpRefusedError | None], object] = str

    @property
    def uri(self) -> str:
        """What messages call the table."""
        return f"{self.store.uri}/{self.prefix}".rstrip("/")

    def log_page(self, start_after: str = "", token: str | None = None) -> Page:
        """A page of the log's objects, in the order of their names, which are its keys; as ``Store.list_page``."""
        base = f"{self.prefix}{LOG}"
        page = self.store.list_page(base, start_after=base + start_after if start_after else "", token=token)
        named = [replace(info, key=info.key.removeprefix(base)) for info in page.objects]
        return replace(page, objects=[info for info in named if "/" not in info.key])

    def log(self, start_after: str = "", token: str | None = None) -> Iterator[ObjectInfo]:
        """All objects of the log after ``start_after``, or after a page with this token. Raises ``StorageError``."""
        while True:
            page = self.log_page(start_after, token)
            yield from page.objects
            token = page.token
            if token is None:
                return

    def read_checked(self, name: str, check: Callable[[bytes], T]) -> T:
        """What ``check`` makes of an object's content, which is compared with the sha256 that its writer put beside it.

        What is not whole is read once more before it is called so: a bit may flip on the way.

        Raises:
            NotFoundError: it is not there. NotWholeError: it is not what was written. StorageError.
        """
        try:
            return self._read_once(name, check)
        except NotWholeError:
            return self._read_once(name, check)

    def _read_once(self, name: str, check: Callable[[bytes], T]) -> T:
        data, info = self.store.read(self.prefix + name)
        if info.sha256 is not None and hashlib.sha256(data).hexdigest() != info.sha256:
            raise NotWholeError("its bytes are not those that were written (sha256)")
        return check(data)

    def fetch(self, name: str, size_bytes: int, target: IO[bytes]) -> str:
        """Copy an object of this size to a file, a block at a time; returns its sha256. Raises as ``read_checked``."""
        for last in (False, True):
            target.seek(0)
            target.truncate()
            problem, digest = self._fetch_once(name, size_bytes, target)
            if problem is None:
                return digest
            if last:
                raise NotWholeError(problem)
        raise AssertionError

    def _fetch_once(self, name: str, size_bytes: int, target: IO[bytes]) -> tuple[str | None, str]:
        key, hasher, count = self.prefix + name, hashlib.sha256(), 0
        stated = begin(lambda: self.store.head(key))
        for block in self.store.stream(key):
            hasher.update(block)
            target.write(block)
            count += len(block)
        info, digest = stated.result(), hasher.hexdigest()
        if count != size_bytes:
            return _other_size(count, size_bytes), digest
        wrong = info.sha256 is not None and info.sha256 != digest
        return "its bytes are not those that were written (sha256)" if wrong else None, digest

    def read(self, name: str) -> bytes:
        """An object's content. Raises ``StorageError``."""
        return self.store.read(self.prefix + name)[0]

    def put(self, name: str, data: bytes, **condition: Any) -> PutResult:
        """Write an object with its sha256. Raises as ``Store.put``."""
        return self.store.put(self.prefix + name, data, sha256=hashlib.sha256(data).hexdigest(), **condition)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects that no commit within the retention names. Raises ``StorageError``."""
        each(lambda name: self.store.delete(self.prefix + name), names)


def of_size(size_bytes: int, data: bytes) -> bytes:
    """A data file's bytes, of which the log says how many there are. Raises ``NotWholeError``."""
    if len(data) != size_bytes:
        raise NotWholeError(_other_size(len(data), size_bytes))
    return data


def _other_size(found: int, stated: int) -> str:
    return f"it has {found:,} bytes, and the log says {stated:,}"
