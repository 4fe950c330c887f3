"""A table's objects in the bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ursa.beside import each
from ursa.catalog.replica.log import LOG, NotWholeError
from ursa.catalog.retention import CleanUpRefusedError
from ursa.store import ObjectInfo, Page, PutResult, Store


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

    def read_checked(self, name: str) -> tuple[bytes, ObjectInfo]:
        """An object's content, compared with the size and the sha256 that its writer put beside it.

        Raises:
            NotFoundError: it is not there. NotWholeError: it is not what was written. StorageError.
        """
        data, info = self.store.read(self.prefix + name)
        if info.sha256 is not None and hashlib.sha256(data).hexdigest() != info.sha256:
            raise NotWholeError("its bytes are not those that were written (sha256)")
        return data, info

    def read(self, name: str) -> bytes:
        """An object's content. Raises ``StorageError``."""
        return self.store.read(self.prefix + name)[0]

    def put(self, name: str, data: bytes, **condition: Any) -> PutResult:
        """Write an object with its sha256. Raises as ``Store.put``."""
        return self.store.put(self.prefix + name, data, sha256=hashlib.sha256(data).hexdigest(), **condition)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects that no commit within the retention names. Raises ``StorageError``."""
        each(lambda name: self.store.delete(self.prefix + name), names)
