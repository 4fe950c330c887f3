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
from ursa.store import NotFoundError, PreconditionFailedError, Store
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.parts import MIB, part_count

_RANGE_BYTES: Final = 16 * MIB
_BLOCK_BYTES: Final = MIB
_DONE: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class DownloadItem:
    """An object to fetch into ``target``. ``sha256`` None: nobody knows it, the size alone is checked."""

    key: str
    target: Path
    size_bytes: int
    sha256: str | None
    etag: str | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is whole at its target; ``sent`` is False where it was there already."""

    item: DownloadItem
    sent: bool


def download(
    engine: Engine,
    store: Store,
    items: Sequence[DownloadItem],
    *,
    stop: Stop,
    on_done: Callable[[Fetched], object],
    on_bytes: Callable[[int], object],
) -> list[Fetched]:
    """Fetch ``items``; a file has its final name only when it is whole and its sha256 is right.

    ``on_done`` is called in the calling thread, in the order in which files finish; ``on_bytes`` in the pool's.
    The first error stops the rest; what arrived stays for the next run.

    Raises:
        ConflictError: a target exists with other content; it is left alone.
        MissingFilesError: an object is gone.
        ChecksumMismatchError: an object is not what was registered.
    """
    files = [_File(engine, store, item, stop, on_bytes) for item in items]
    results: dict[int, Fetched] = {}
    # Each file is one job of the pool; the ranges of a large one are fetched by threads of its own.
    pending: dict[Future[Fetched], int] = {engine.submit(file.fetch): index for index, file in enumerate(files)}
    try:
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                index = pending.pop(future)
                results[index] = future.result()
                on_done(results[index])
    except BaseException:
        stop.set()
        # A future that could be cancelled never counts as done: wait only for those that run.
        wait([future for future in pending if not future.cancel()], timeout=75)
        raise
    return [results[index] for index in range(len(items))]


def file_sha256(path: Path) -> str:
    """The sha256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _File:
    def __init__(
        self, engine: Engine, store: Store, item: DownloadItem, stop: Stop, on_bytes: Callable[[int], object]
    ) -> None:
        self.engine = engine
        self.store = store
        self.item = item
        self.stop = stop
        self.on_bytes = on_bytes
        name = hashlib.sha256(os.fsencode(item.target.name)).hexdigest()[:12]
        # Named by content, so that a half file of another version is never continued; short, since names may have 255 bytes.
        content = (item.sha256 or item.etag or "")[:12]
        self.partial = item.target.with_name(f".ursa-{name}-{content}.part")
        self.journal = self.partial.with_suffix(".done")

    def fetch(self) -> Fetched:
        if self.stop.is_set():
            raise KeyboardInterrupt
        with _words(self.item):
            if self._is_there():
                return Fetched(self.item, sent=False)
            self.item.target.parent.mkdir(parents=True, exist_ok=True)
            digest = self._fill()
            if self.item.sha256 is not None and digest != self.item.sha256:
                self.partial.unlink()
                self.journal.unlink(missing_ok=True)
                raise ChecksumMismatchError(
                    f"{self.item.key} has sha256 {digest}, the catalog states {self.item.sha256}",
                    hint="Nothing was written under its name. `ursa verify REC --level full` tells what else is wrong.",
                    path=self.item.key,
                    expected=self.item.sha256,
                    found=digest,
                )
            _rename_new(self.partial, self.item.target)
            self.journal.unlink(missing_ok=True)
        return Fetched(self.item, sent=True)

    def _is_there(self) -> bool:
        target = self.item.target
        if not os.path.lexists(target):
            return False
        regular = target.is_file() and not target.is_symlink()
        same = regular and target.stat().st_size == self.item.size_bytes
        if same and (self.item.sha256 is None or file_sha256(target) == self.item.sha256):
            return True
        raise ConflictError(
            f"{target} is there with other content than {self.item.key}",
            hint="Nothing was overwritten. Move it away or choose another --dest.",
            paths=(str(target),),
        )

    def _fill(self) -> str:
        """Fetch what is not there yet; returns the sha256 of the whole."""
        total = self.item.size_bytes
        with self._opened() as (file, journal):
            done = journal.read()
            os.ftruncate(file, total)
            todo = [
                index for index in range(part_count(total, _RANGE_BYTES)) if total and done[index : index + 1] != _DONE
            ]
            self.on_bytes(total - sum(self._length(index) for index in todo))
            if len(todo) == 1 and part_count(total, _RANGE_BYTES) == 1:
                return self._small(file)
            self._ranges(file, journal.fileno(), todo)
            os.fsync(file)
        return file_sha256(self.partial)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[int, _Journal]]:
        descriptor = os.open(self.partial, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with _Journal(self.journal) as journal:
                yield descriptor, journal
        finally:
            os.close(descriptor)

    def _small(self, file: int) -> str:
        hasher = hashlib.sha256()
        position = 0
        for block in self._stream(0, self.item.size_bytes):
            position += os.pwrite(file, block, position)
            hasher.update(block)
            self.on_bytes(len(block))
        self._check_length(position, self.item.size_bytes)
        os.fsync(file)
        return hasher.hexdigest()

    def _ranges(self, file: int, journal: int, todo: list[int]) -> None:
        queue = iter(todo)
        lock = threading.Lock()
        errors: list[BaseException] = []

        def worker() -> None:
            try:
                while not self.stop.is_set() and not errors:
                    with lock:
                        index = next(queue, None)
                    if index is None:
                        return
                    self._range(file, journal, index)
            except BaseException as error:  # noqa: BLE001  (raised by the thread that waits)
                errors.append(error)

        threads = [threading.Thread(target=worker, daemon=True) for _ in range(min(4, len(todo)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        if self.stop.is_set():
            raise KeyboardInterrupt

    def _range(self, file: int, journal: int, index: int) -> None:
        start = position = index * _RANGE_BYTES
        end = start + self._length(index)
        for block in self._stream(start, end):
            position += os.pwrite(file, block, position)
            self.on_bytes(len(block))
            if self.stop.is_set():
                return
        self._check_length(position - start, end - start)
        os.pwrite(journal, _DONE, index)

    def _stream(self, start: int, end: int) -> Iterator[bytes]:
        return self.store.stream(self.item.key, start=start, end=end, if_match=self.item.etag)

    def _length(self, index: int) -> int:
        return min(_RANGE_BYTES, self.item.size_bytes - index * _RANGE_BYTES)

    def _check_length(self, got: int, expected: int) -> None:
        if got != expected:
            raise StorageError(f"{self.item.key}: {got} bytes came instead of {expected}", key=self.item.key)


class _Journal:
    """A byte for each range that is on the disk."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def read(self) -> bytes:
        return os.pread(self._file, os.fstat(self._file).st_size, 0)

    def fileno(self) -> int:
        return self._file

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def _rename_new(partial: Path, target: Path) -> None:
    """Give the file its name, never another's place."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise ConflictError(
            f"{target} appeared meanwhile",
            hint="Nothing was overwritten. Run the same command again.",
            paths=(str(target),),
        ) from None
    except OSError:
        # No hard links here (exFAT, SMB): the check and the rename are two steps.
        if target.exists():
            raise
        partial.rename(target)
    else:
        partial.unlink()


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
    except PreconditionFailedError:
        raise ChecksumMismatchError(
            f"{item.key} in the bucket is not the object that was registered: its ETag differs",
            hint="`ursa verify REC` tells what else is wrong.",
            path=item.key,
            expected=item.etag or "",
            found="another ETag",
        ) from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"can't write {item.target}: {error.strerror or error}",
            hint="Free some space and run the same command again: it goes on where it stopped." if full else None,
            key=item.key,
            operation="write",
        ) from error
