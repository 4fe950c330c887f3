"""The sha256 of objects and of files: many at once, and of a large object several ranges ahead, hashed in order."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Final

from ursa.errors import MissingFilesError, StorageError
from ursa.manifest import shown
from ursa.reconstruct.objects import Found
from ursa.reconstruct.run import Block, Done, Run
from ursa.store import NotFoundError, PreconditionFailedError, Store
from ursa.transfer.digest import SourceFile, digest
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.parts import MIB, part_count

# A request costs about 5 ms of CPU (measured: benchmarks/reconstruct.py with 8, 16 and 32 MiB); six of these fit the
# engine's memory, which keeps a link that is far away busy.
RANGE_BYTES: Final = 16 * MIB
# Files whose ranges are fetched by turns: sha256 is sequential, so each keeps one core busy at most.
_FILES_AT_ONCE: Final = 4
# Readers of one disk; more only makes a NAS seek.
_DISK_READERS: Final = 6


def hash_objects(engine: Engine, store: Store, items: Sequence[Found], *, stop: Stop) -> Generator[Block | Done[str]]:
    """Events of reading and hashing these objects; ``Done.result`` is the sha256. Close it, so that its threads end.

    Raises:
        StorageError: an object was replaced meanwhile, or came short. MissingFilesError: one has vanished.
        KeyboardInterrupt: stopped.
    """
    run: Run[str] = Run(engine, stop)

    def feed() -> None:
        for file, index in _by_turns([_Object(run, store, item) for item in items]):
            if not run.submit((file, index), file.length(index), lambda file=file, index=index: file.fetch(index)):  # type: ignore[misc]
                return

    return run.events(len(items), feed)


def hash_files(engine: Engine, files: Sequence[SourceFile], *, stop: Stop) -> Generator[Block | Done[str]]:
    """As ``hash_objects``, of files on this disk.

    Raises:
        FileChangedError: a file is still being written. StorageError: it can't be read. KeyboardInterrupt: stopped.
    """
    run: Run[str] = Run(engine, stop)
    places = threading.Semaphore(_DISK_READERS)

    def one(file: SourceFile) -> None:
        def read(count: int) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            run.tell(Block(file.path, count))

        try:
            run.tell(Done(file.path, digest(file, progress=read).sha256))
        finally:
            places.release()

    def feed() -> None:
        for file in files:
            while not places.acquire(timeout=0.2):
                if stop.is_set():
                    return
            if not run.submit(file, 0, lambda file=file: one(file)):  # type: ignore[misc]
                return

    return run.events(len(files), feed)


def _by_turns(files: Iterable[_Object]) -> Iterator[tuple[_Object, int]]:
    """The ranges of all files, a few files taking turns; those of one file in order."""
    waiting = ((file, iter(range(file.ranges))) for file in files)
    active: deque[tuple[_Object, Iterator[int]]] = deque()
    while True:
        while len(active) < _FILES_AT_ONCE and (following := next(waiting, None)):
            active.append(following)
        if not active:
            return
        file, ranges = active.popleft()
        index = next(ranges, None)
        if index is not None:
            yield file, index
            active.append((file, ranges))


class _Object:
    """One object: its ranges arrive in any order and are hashed in theirs.

    The range whose turn it is hashes each block as it comes; the others keep theirs until the one before them is done.
    """

    def __init__(self, run: Run[str], store: Store, item: Found) -> None:
        self.item = item
        self.ranges = part_count(item.size_bytes, RANGE_BYTES)
        self._run = run
        self._store = store
        self._sha256 = hashlib.sha256()
        self._turn = 0
        self._kept: dict[int, list[bytes]] = {}
        self._lock = threading.Lock()

    def length(self, index: int) -> int:
        """Bytes of a range."""
        return min(RANGE_BYTES, self.item.size_bytes - index * RANGE_BYTES)

    def fetch(self, index: int) -> None:
        """Read a range, and hash it or leave it to the one before."""
        kept: list[bytes] = []
        for block in self._blocks(index):
            if self._run.stop.is_set():
                return
            kept.append(block)
            if self._turn == index:
                self._hash(kept)
        with self._lock:
            if self._turn != index:
                self._kept[index] = kept
                return
        self._hash(kept)
        self._advance()

    def _advance(self) -> None:
        """A range is hashed: those after it that have arrived are, too."""
        kept: list[bytes] | None = []
        turn = self._turn
        while kept is not None:
            self._run.release((self, turn))
            turn += 1
            with self._lock:
                # From here on, a range that is still arriving is hashed by its own thread.
                self._turn = turn
                kept = self._kept.pop(turn, None)
            self._hash(kept or [])
        if turn == self.ranges:
            self._run.tell(Done(self.item.path, self._sha256.hexdigest()))

    def _hash(self, blocks: list[bytes]) -> None:
        for block in blocks:
            self._sha256.update(block)
            self._run.tell(Block(self.item.path, len(block)))
        blocks.clear()

    def _blocks(self, index: int) -> Iterator[bytes]:
        start = index * RANGE_BYTES
        left = self.length(index)
        try:
            for block in self._store.stream(self.item.key, start=start, end=start + left, if_match=self.item.etag):
                left -= len(block)
                yield block
        except NotFoundError:
            raise vanished([self.item.path]) from None
        except PreconditionFailedError:
            raise replaced([self.item.path]) from None
        if left:
            raise StorageError(
                f"{shown(self.item.key)}: {left:,} bytes of it did not come; nothing was written",
                hint="Run the same command again.",
                key=self.item.key,
                operation="read",
            )


def vanished(paths: Sequence[str]) -> MissingFilesError:
    """Objects that were listed are gone."""
    return MissingFilesError(
        f"{_told(paths)} vanished from the bucket while the recording was hashed; no manifest was written",
        hint="Find out who deletes from this recording, then run the same command again.",
        paths=tuple(paths),
    )


def replaced(paths: Sequence[str], what: str = "was replaced in the bucket") -> StorageError:
    """Objects are not what they were."""
    return StorageError(
        f"{_told(paths)} {what} while the recording was hashed; no manifest was written",
        hint="Is the rig still uploading? Wait until it is done, then run the same command again.",
        key=paths[0],
        operation="read",
    )


def _told(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 20} more" if len(paths) > 20 else ""
    return ", ".join(shown(path) for path in paths[:20]) + more
