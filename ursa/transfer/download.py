"""Downloads: ranged and parallel into a file beside the target, resumed, verified before the rename."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ursa.errors import ChecksumMismatchError, ConflictError, MissingFilesError, StorageError
from ursa.store import NotFoundError, ObjectInfo, PreconditionFailedError, Store
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.partial import RANGE_BYTES, Leftovers, Partial, claim, file_sha256, is_file, make_directory
from ursa.transfer.parts import part_count

# How often an object that is replaced while it is fetched is taken up anew.
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class DownloadItem:
    """An object to fetch into ``target``.

    ``proven``: ``sha256`` was measured of this object, and other bytes are refused. Else it is what is stated, or None: the
    bytes are delivered whatever they are, once their number is ``size_bytes``. ``etag`` only saves a request.
    """

    key: str
    target: Path
    size_bytes: int
    sha256: str | None
    etag: str | None
    proven: bool

    @property
    def expected(self) -> str | None:
        """The sha256 that the bytes must have."""
        return self.sha256 if self.proven else None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is whole at its target; ``sent`` is False where it was there already.

    ``info`` and ``sha256``: the object that was read, and what its bytes were measured to have; None where the target was
    known to be right without reading the object.
    """

    item: DownloadItem
    sent: bool
    info: ObjectInfo | None = None
    sha256: str | None = None


def download(
    engine: Engine,
    store: Store,
    items: Sequence[DownloadItem],
    *,
    stop: Stop,
    on_done: Callable[[Fetched], object],
    on_bytes: Callable[[int], object],
) -> list[Fetched]:
    """Fetch ``items``; a file has its final name only when it is whole and, where that is proven, its sha256 is right.

    ``on_done`` is called in the calling thread, in the order in which files finish; ``on_bytes`` in the pool's, with less
    than 0 where bytes that were counted are fetched again. The first error stops the rest; what arrived stays for the
    next run.

    Raises:
        ConflictError: a target exists with other content; it is left alone.
        MissingFilesError: an object is gone.
        ChecksumMismatchError: an object is not what was registered.
    """
    leftovers = Leftovers()
    files = [_File(store, item, leftovers, stop, on_bytes) for item in items]
    results: dict[int, Fetched] = {}
    # Each file is one job of the pool; the ranges of a large one are fetched by threads of its own.
    pending: dict[Future[Fetched], int] = {engine.submit(file.fetch): index for index, file in enumerate(files)}
    try:
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            # What arrived is told before an error that came at the same time.
            for future in sorted(done, key=lambda each: each.exception() is not None):
                index = pending.pop(future)
                results[index] = future.result()
                on_done(results[index])
    except BaseException:
        stop.set()
        # A future that could be cancelled never counts as done: wait only for those that run.
        wait([future for future in pending if not future.cancel()], timeout=75)
        raise
    return [results[index] for index in range(len(items))]


class _File:
    """One file: what is there already, the object, the partial, and at last the name."""

    def __init__(
        self, store: Store, item: DownloadItem, leftovers: Leftovers, stop: Stop, on_bytes: Callable[[int], object]
    ) -> None:
        self.store = store
        self.item = item
        self.leftovers = leftovers
        self.stop = stop
        self._on_bytes = on_bytes
        self._counted = 0
        self._lock = threading.Lock()

    def fetch(self) -> Fetched:
        self.stop.check()
        with _words(self.item):
            if self._is_there():
                return Fetched(self.item, sent=False)
            make_directory(self.item.target.parent)
            with self._partial() as partial:
                info, sha256 = self._whole(partial)
                if self.item.expected not in (None, sha256):
                    raise self._mismatch(partial, sha256)
                sent = self._named(partial, sha256)
        return Fetched(self.item, sent, info, sha256)

    def _is_there(self) -> bool:
        """Whether the target is right as it is. Raises ``ConflictError`` where nothing that we fetch can be equal to it."""
        target = self.item.target
        if not os.path.lexists(target):
            return False
        comparable = is_file(target) and target.stat().st_size == self.item.size_bytes
        if comparable and self.item.sha256 is not None and file_sha256(target) == self.item.sha256:
            return True
        if comparable and not self.item.proven:
            return False  # the object itself decides
        raise self._conflict("Nothing was overwritten. Move it away or choose another --dest.")

    @contextlib.contextmanager
    def _partial(self) -> Iterator[Partial]:
        partial = claim(self.leftovers, self.item.target, self.item.size_bytes, self.item.expected)
        try:
            yield partial
        except BaseException:
            if not partial.marks():  # nothing that serves the next run
                partial.remove()
            raise
        finally:
            partial.close()

    def _whole(self, partial: Partial) -> tuple[ObjectInfo, str]:
        """Fetch what is not there yet, of one object from the first range to the last; its sha256."""
        info = self._registered() or self._listed()
        for _ in range(_ATTEMPTS):
            try:
                resumed = self._fill(partial, info)
                sha256 = partial.sha256(self.stop.check)
            except PreconditionFailedError:
                info = self._listed()
            else:
                # Ranges of an earlier run may be those of another object than the rest.
                if not resumed or sha256 == self.item.sha256:
                    return info, sha256
            partial.restart()
            self._take_back()
        raise StorageError(
            f"{self.item.key} was replaced {_ATTEMPTS} times while it was fetched",
            hint="Run the same command again when nothing uploads it any more.",
            key=self.item.key,
        )

    def _registered(self) -> ObjectInfo | None:
        """The object as its row describes it, where that saves a request; If-Match and the sha256 find out if it is not."""
        item = self.item
        # An empty object has no range to ask for, and a row that proves nothing may have another length than its object.
        if item.etag is None or not item.proven or not item.size_bytes:
            return None
        return ObjectInfo(item.key, item.size_bytes, item.etag)

    def _listed(self) -> ObjectInfo:
        """The object as it is now. Raises ``ChecksumMismatchError`` where its length is another one."""
        info = self.store.head(self.item.key)
        if info.size_bytes != self.item.size_bytes:
            raise ChecksumMismatchError(
                f"{self.item.key} has {info.size_bytes} bytes, the catalog states {self.item.size_bytes}",
                hint="It was not fetched. `ursa verify REC` tells what else is wrong.",
                path=self.item.key,
                expected=str(self.item.size_bytes),
                found=str(info.size_bytes),
            )
        return info

    def _fill(self, partial: Partial, info: ObjectInfo) -> bool:
        """Fetch the ranges that are not on the disk; whether some were."""
        total = self.item.size_bytes
        ranges = range(part_count(total, RANGE_BYTES) if total else 0)
        # A range that the disk has not kept as it was fetched is fetched again.
        done = {
            index
            for index, sha256 in partial.marks().items()
            if index in ranges and partial.sha256(self.stop.check, *self._bounds(index)) == sha256
        }
        partial.resize(total)
        todo = [index for index in ranges if index not in done]
        self._count(total - sum(end - start for start, end in map(self._bounds, todo)))
        self._ranges(partial, info, todo)
        partial.sync()
        return bool(done)

    def _ranges(self, partial: Partial, info: ObjectInfo, todo: list[int]) -> None:
        if len(todo) == 1:
            self._range(partial, info, todo[0])
            return
        queue = iter(todo)
        lock = threading.Lock()
        errors: list[BaseException] = []

        def worker() -> None:
            try:
                while not errors:
                    with lock:
                        index = next(queue, None)
                    if index is None:
                        return
                    self._range(partial, info, index, errors)
            except BaseException as error:  # noqa: BLE001  (raised by the thread that waits)
                errors.append(error)

        threads = [threading.Thread(target=worker, daemon=True) for _ in range(min(4, len(todo)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _range(self, partial: Partial, info: ObjectInfo, index: int, errors: Sequence[BaseException] = ()) -> None:
        """Fetch one range, up to an error of another one. Raises ``KeyboardInterrupt`` where the run is stopped."""
        start, end = self._bounds(index)
        position = start
        # A file without a journal is hashed once, when it is whole.
        hasher = hashlib.sha256() if partial.resumable else None
        self.stop.check()
        for block in self.store.stream(self.item.key, start=start, end=end, if_match=info.etag or None):
            partial.write(block, position)
            if hasher is not None:
                hasher.update(block)
            position += len(block)
            self._count(len(block))
            self.stop.check()
            if errors:
                return
        if position != end:
            raise StorageError(
                f"{self.item.key}: {position - start} bytes came instead of {end - start}", key=self.item.key
            )
        if hasher is not None:
            partial.mark(index, hasher.hexdigest())

    def _bounds(self, index: int) -> tuple[int, int]:
        return index * RANGE_BYTES, min((index + 1) * RANGE_BYTES, self.item.size_bytes)

    def _named(self, partial: Partial, sha256: str) -> bool:
        """Give the file its name; False where the same bytes have it already."""
        target = self.item.target
        try:
            partial.rename(target)
        except FileExistsError:
            if is_file(target) and file_sha256(target) == sha256:
                partial.remove()
                self._take_back()
                return False
            kept = partial.keep(target)
            raise self._conflict(f"Nothing was overwritten; what was fetched is {kept}.") from None
        return True

    def _mismatch(self, partial: Partial, sha256: str) -> ChecksumMismatchError:
        kept = partial.keep(self.item.target)
        return ChecksumMismatchError(
            f"{self.item.key} has sha256 {sha256}, the catalog states {self.item.sha256}",
            hint=f"What was fetched is {kept}; nothing has its name. `ursa verify REC --level full` tells what else is wrong.",
            path=self.item.key,
            expected=self.item.sha256,
            found=sha256,
        )

    def _conflict(self, hint: str) -> ConflictError:
        target = self.item.target
        return ConflictError(
            f"{target} is there with other content than {self.item.key}", hint=hint, paths=(str(target),)
        )

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            self._counted += size_bytes
        self._on_bytes(size_bytes)

    def _take_back(self) -> None:
        """What was counted is fetched again, or was there."""
        self._count(-self._counted)


@contextlib.contextmanager
def _words(item: DownloadItem) -> Iterator[None]:
    try:
        yield
    except NotFoundError:
        raise MissingFilesError(
            f"{item.key} is registered but not in the bucket",
            hint="Tell whoever looks after the bucket; `ursa verify REC` tells what else is missing.",
            paths=(item.key,),
        ) from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"can't write {item.target}: {error.strerror or error}",
            hint="Free some space and run the same command again: files that are whole stay." if full else None,
            key=item.key,
            operation="write",
        ) from error
