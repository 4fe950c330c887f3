"""Reading local files: once, in order, and noticing when they change meanwhile."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ursa.disk.fingerprint import Disks, Fingerprint
from ursa.disk.sighting import Sighting, open_beneath
from ursa.errors import FileChangedError, StorageError
from ursa.transfer.parts import likely_part_sizes, multipart_etag

_BLOCK_BYTES = 1 << 20
_GONE = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENXIO, errno.ENODEV, errno.EHOSTDOWN, errno.ETIMEDOUT}
_ANOTHER = {errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.EMLINK}
_WAIT = "Nothing was registered. Wait until the copy or the rig is done, then run the same command again."

DISKS = Disks()
"""What this process knows of the disks that it reads."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A local file as it was when the recording was read. ``path`` is its name in messages; ``sighting``: where it lies
    below the recording's directory, which it is opened beneath; None for a file that lies elsewhere.
    """

    path: str
    source: Path
    size_bytes: int
    mtime_ns: int
    sighting: Sighting | None = None


@dataclass(frozen=True, slots=True)
class Digest:
    """What identifies a file's content: its size in bytes, sha256, and the ETags an object of it may have.

    ``fingerprint``: by which the file may be remembered; None where it may not. ``opened_at``: when the reading began, on
    the monotonic clock.
    """

    size_bytes: int
    sha256: str
    etags: frozenset[str] = frozenset()
    fingerprint: Fingerprint | None = None
    opened_at: float = 0.0


@dataclass
class OpenFile:
    """A file that is being read. ``finish`` after its last byte."""

    file: SourceFile
    stream: IO[bytes]
    opened_at: float = field(default_factory=time.monotonic)
    fingerprint: Fingerprint | None = None
    restless: bool = False
    """Its change time moved since it was found, and nothing else: it is to be read once more before it is relied on."""

    def finish(self) -> None:
        """Look whether it is still as it was found. Raises ``FileChangedError``."""
        stat = check_unchanged(self.file, self.stream)
        seen = self.file.sighting
        self.restless = seen is not None and stat.st_ctime_ns != seen.ctime_ns
        if seen is not None and not self.restless:
            self.fingerprint = DISKS.of_open(self.stream.fileno(), stat)


@contextlib.contextmanager
def opened(file: SourceFile) -> Iterator[OpenFile]:
    """Open a file, unbuffered; refuse it (``FileChangedError``) where it is no longer as it was."""
    with reading(file), open(_descriptor(file), "rb", buffering=0) as stream:
        check_unchanged(file, stream)
        yield OpenFile(file, stream)


def _descriptor(file: SourceFile) -> int | Path:
    if file.sighting is None:
        return file.source
    try:
        return open_beneath(file.sighting.root, file.sighting.beneath)
    except OSError as error:
        if error.errno not in _ANOTHER:
            raise
        raise FileChangedError(
            f"{file.path} is not the file any more that was found there: a link or something else took its place",
            hint="Nothing was registered. Find out what changes the recording, then run the same command again.",
            path=file.path,
        ) from None


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


def check_unchanged(file: SourceFile, stream: IO[bytes]) -> os.stat_result:
    """Raise ``FileChangedError`` where a file is not what it was found to be: its size, mtime, device or inode."""
    stat = os.fstat(stream.fileno())
    change = ""
    if stat.st_size != file.size_bytes:
        change = f"its size went from {file.size_bytes} to {stat.st_size} bytes"
    elif stat.st_mtime_ns != file.mtime_ns:
        change = "its modification time moved"
    elif _is_another(file, stat, stream.fileno()):
        change = "another file took its place"
    if change:
        raise FileChangedError(
            f"{file.path} is still being written: {change} while it was read", hint=_WAIT, path=file.path
        )
    return stat


def _is_another(file: SourceFile, stat: os.stat_result, descriptor: int) -> bool:
    """Whether it is another file than was found there; told only where a file keeps its inode."""
    seen = file.sighting
    if seen is None or (stat.st_dev, stat.st_ino) == (seen.device, seen.inode):
        return False
    return DISKS.rules_at(descriptor, stat.st_dev).stable_inodes


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
    return read_file(file)[0]


def read_file(file: SourceFile) -> tuple[bytes, Digest]:
    """As ``read_whole``, with what identifies it."""
    with opened(file) as found:
        data = read_exactly(file, found.stream, file.size_bytes)
        found.finish()
        if found.restless:
            found.stream.seek(0)
            if read_exactly(file, found.stream, file.size_bytes) != data:
                raise changed_in_secret(file)
        sha256 = hashlib.sha256(data).hexdigest()
        return data, Digest(len(data), sha256, frozenset(), found.fingerprint, found.opened_at)


def changed_in_secret(file: SourceFile) -> FileChangedError:
    """The error for a file that gives other bytes, with the size and the mtime that it had."""
    return FileChangedError(
        f"{file.path} is still being written: it gave other bytes when it was read once more",
        hint=_WAIT,
        path=file.path,
    )


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
    with opened(file) as found:
        sha256 = _hashed(found, cutters, progress)
        found.finish()
        if found.restless and hashed_again(found) != sha256:
            raise changed_in_secret(file)
    etags = frozenset(cutter.etag() for cutter in cutters)
    return Digest(file.size_bytes, sha256, etags, found.fingerprint, found.opened_at)


def hashed_again(found: OpenFile) -> str:
    """The sha256 of a file that is open, read once more from its start."""
    found.stream.seek(0)
    return _hashed(found, [], lambda _count: None)


def _hashed(found: OpenFile, cutters: list[_EtagCutter], progress: Callable[[int], object]) -> str:
    sha256 = hashlib.sha256()
    left = found.file.size_bytes
    while left > 0:
        block = read_exactly(found.file, found.stream, min(left, _BLOCK_BYTES))
        left -= len(block)
        sha256.update(block)
        for cutter in cutters:
            cutter.update(block)
        progress(len(block))
    check_unchanged(found.file, found.stream)
    return sha256.hexdigest()


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
