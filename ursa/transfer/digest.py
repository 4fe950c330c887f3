"""Reading local files: once, in order, and noticing when they change meanwhile."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ursa.errors import FileChangedError, StorageError
from ursa.transfer.parts import likely_part_sizes, multipart_etag

_BLOCK_BYTES = 1 << 20
_GONE = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENXIO, errno.ENODEV, errno.EHOSTDOWN, errno.ETIMEDOUT}


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A local file as it was when the recording was read. ``path`` is its name in messages."""

    path: str
    source: Path
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Digest:
    """What identifies a file's content: its size in bytes, sha256, and the ETags an object of it may have."""

    size_bytes: int
    sha256: str
    etags: frozenset[str] = frozenset()


@contextlib.contextmanager
def opened(file: SourceFile) -> Iterator[IO[bytes]]:
    """Open a file, unbuffered; refuse it (``FileChangedError``) where it is no longer as it was."""
    with reading(file), file.source.open("rb", buffering=0) as stream:
        check_unchanged(file, stream)
        yield stream


@contextlib.contextmanager
def reading(file: SourceFile) -> Iterator[None]:
    """Put what the operating system says about a read into words."""
    try:
        yield
    except FileNotFoundError:
        raise FileChangedError(
            f"{file.path} disappeared while the recording was read",
            hint="Nothing was registered. Check that nobody moves the recording, then run the same command again.",
            path=file.path,
        ) from None
    except OSError as error:
        gone = error.errno in _GONE
        what = "the disk or network share went away" if gone else (error.strerror or str(error))
        raise StorageError(
            f"can't read {file.path}: {what} ({errno.errorcode.get(error.errno or 0, 'OSError')})",
            hint="Nothing was registered. Reconnect or remount the drive and run the same command again: files that"
            " arrived are skipped."
            if gone
            else "Nothing was registered. Mend the file or its permissions and run the same command again.",
            key=file.path,
            operation="read",
        ) from None


def check_unchanged(file: SourceFile, stream: IO[bytes]) -> None:
    """Raise ``FileChangedError`` where size or mtime are not what they were."""
    stat = os.fstat(stream.fileno())
    if stat.st_size != file.size_bytes or stat.st_mtime_ns != file.mtime_ns:
        grown = stat.st_size - file.size_bytes
        change = (
            f"its size went from {file.size_bytes} to {stat.st_size} bytes" if grown else "its modification time moved"
        )
        raise FileChangedError(
            f"{file.path} is still being written: {change} while it was read",
            hint="Nothing was registered. Wait until the copy or the rig is done, then run the same command again.",
            path=file.path,
        )


def read_exactly(file: SourceFile, stream: IO[bytes], count: int) -> bytes:
    """The next ``count`` bytes; fewer means that the file shrank."""
    data = stream.read(count)
    if len(data) == count:
        return data
    buffer = bytearray(count)
    buffer[: len(data)] = data
    read_into(file, stream, memoryview(buffer)[len(data) :])
    return bytes(buffer)


def read_into(file: SourceFile, stream: IO[bytes], view: memoryview) -> None:
    """Fill ``view`` with the next bytes; fewer means that the file shrank."""
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            check_unchanged(file, stream)
            raise StorageError(f"can't read {file.path}: it ended early", key=file.path, operation="read")
        filled += count


def read_whole(file: SourceFile) -> bytes:
    """A small file, unchanged between before the first byte and after the last."""
    with opened(file) as stream:
        data = read_exactly(file, stream, file.size_bytes)
        check_unchanged(file, stream)
        return data


def digest(
    file: SourceFile,
    *,
    etag: str = "",
    progress: Callable[[int], object] = lambda _count: None,
) -> Digest:
    """Hash a file; with ``etag``, an object's, also compute the ETags that this content may have given it.

    ``progress`` gets the size of each block, bytes; what it raises stops the reading.
    """
    count = int(etag.rpartition("-")[2]) if is_multipart_etag(etag) else 0
    cutters = [_EtagCutter(size) for size in likely_part_sizes(file.size_bytes, count)] if count else []
    if is_md5(etag):
        cutters = [_EtagCutter(0)]
    sha256 = hashlib.sha256()
    with opened(file) as stream:
        left = file.size_bytes
        while left > 0:
            block = read_exactly(file, stream, min(left, _BLOCK_BYTES))
            left -= len(block)
            sha256.update(block)
            for cutter in cutters:
                cutter.update(block)
            progress(len(block))
        check_unchanged(file, stream)
    return Digest(file.size_bytes, sha256.hexdigest(), frozenset(cutter.etag() for cutter in cutters))


def is_md5(etag: str) -> bool:
    """Whether an ETag looks like the md5 of a single PUT."""
    return len(etag) == 32 and all(char in "0123456789abcdef" for char in etag)


def is_multipart_etag(etag: str) -> bool:
    """Whether an ETag looks like one of a multipart object: md5, '-', number of parts."""
    head, dash, tail = etag.partition("-")
    return bool(dash) and is_md5(head) and tail.isdigit() and 0 < int(tail) <= 10_000


class _EtagCutter:
    """The ETag of a stream cut every ``part_size_bytes`` (0: not cut, a plain md5)."""

    def __init__(self, part_size_bytes: int) -> None:
        self._size = part_size_bytes
        self._left = part_size_bytes
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._done: list[str] = []

    def update(self, block: bytes) -> None:
        view = memoryview(block)
        while self._size and len(view) >= self._left:
            self._md5.update(view[: self._left])
            view = view[self._left :]
            self._done.append(self._md5.hexdigest())
            self._md5 = hashlib.md5(usedforsecurity=False)
            self._left = self._size
        self._md5.update(view)
        self._left -= len(view)

    def etag(self) -> str:
        if not self._size:
            return self._md5.hexdigest()
        cut = self._left == self._size and self._done
        return multipart_etag(self._done if cut else [*self._done, self._md5.hexdigest()])
