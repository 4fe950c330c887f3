"""What a directory store knows of its objects: the sha256 that it measured, kept beside each with the file's size and times.

The sha256 is the ETag. A record counts as long as size, mtime and ctime are those that it names: a file that was copied,
restored or written by another program is hashed before an ETag is told. On a disk that keeps no change times a record
counts on that very disk, known by its UUID.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import orjson

from ursa.disk.fingerprint import fingerprint
from ursa.disk.mounts import Mount, Rules, mount_at, rules_of
from ursa.names import is_sha256, on_disk
from ursa.store.protocol import TransientError

_SETTLED_NS = 2_500_000_000
"""The coarsest times that a file system keeps are those of vfat, 2 s: a write so long after the ctime changes it."""
_SECOND_NS = 10**9
_NEVER_NS = -1
"""A change time that no file has."""
_READS = 5

Temporary = Callable[[], AbstractContextManager[tuple[Path, IO[bytes]]]]


@dataclass(frozen=True, slots=True)
class Record:
    """The sha256 that a file was measured to have while it had these times, and its user metadata. Sizes in bytes.

    ``volume``: of its disk, where the change time does not count or is of whole seconds.
    """

    sha256: str
    size: int
    mtime_ns: int
    ctime_ns: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    volume: str = ""

    def describes(self, stat: os.stat_result) -> bool:
        """Whether the file has the size and the times that it had when it was measured."""
        return (self.size, self.mtime_ns, self.ctime_ns) == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class Records:
    """The records of one bucket's objects, below ``directory`` under their keys.

    Args:
        temporary: makes a file on the same file system, to be renamed to its place.
        lock: keeps the store's other writers away.
    """

    def __init__(
        self, directory: Path, data: Path, temporary: Temporary, lock: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._directory = directory
        self._base = f"{directory}{os.sep}"
        self._data = data
        self._temporary = temporary
        self._lock = lock
        self._clock_ns = 0
        self._disk: tuple[Mount, Rules] | None = None

    def path(self, key: str) -> Path:
        """Where a key's record is."""
        return self._directory / on_disk(key)

    def find(self, key: str) -> Record | None:
        """The record of a key, whether it still counts or not; None where there is none that can be read."""
        # A listing reads one for each object: os calls take a third of the time of a Path's.
        try:
            descriptor = os.open(self._base + on_disk(key), os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        try:
            text = os.read(descriptor, 1 << 20)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return _parsed(text)

    def told(self, key: str, stat: os.stat_result, file: BufferedReader | None = None, *, keep: bool = True) -> Record:
        """The record of an object that ``stat`` is of; where none counts, the object is hashed now and one is kept.

        Args:
            file: the object, open: then it is this that is told of.
            keep: whether the record may be written (not by a caller that holds the lock).

        Raises:
            FileNotFoundError: the object is gone. OSError. TransientError: it is being written all the time.
        """
        found = self.find(key)
        if found is not None and found.describes(stat) and found.volume == self._volume(stat):
            return found
        if file is not None:
            return self._measured(key, file, found, keep)
        with open_object(self._data / on_disk(key)) as opened:
            return self._measured(key, opened, found, keep)

    def of(self, sha256: str, stat: os.stat_result, metadata: Mapping[str, str]) -> Record:
        """The record of a file that ``stat`` is of."""
        volume = self._volume(stat) or ""
        return Record(sha256, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, dict(metadata), volume)

    def keep_new(self, key: str, file: IO[bytes], record: Record) -> None:
        """As ``keep``, of an object that was written now. Where times are whole seconds they may not tell of another
        write: it is hashed once more before its ETag is told.
        """
        self._keep(key, file, record, counts=record.ctime_ns % _SECOND_NS != 0)

    def _volume(self, stat: os.stat_result) -> str | None:
        """What a record has to name besides the times for its disk to be known by; None: no record counts there."""
        if self._disk is None:
            mount = mount_at(self._data)
            self._disk = mount, rules_of(mount.type)
        found = fingerprint(stat, *self._disk)
        if found is None and self._disk[1] == Rules():
            return ""  # a type that nobody lists (overlay, f2fs) keeps change times as a rule
        return None if found is None else found.volume

    def keep(self, key: str, file: IO[bytes], record: Record) -> None:
        """Write a record of ``file``, unless it has changed since or another has taken its name.

        The caller holds the lock. Raises ``OSError``.
        """
        self._keep(key, file, record, counts=True)

    def _keep(self, key: str, file: IO[bytes], record: Record, *, counts: bool) -> None:
        stat = os.fstat(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            # While it is open no other file can get its inode.
            if record.describes(stat) and os.path.samestat(stat, (self._data / on_disk(key)).lstat()):
                self._write(key, record if counts else replace(record, ctime_ns=_NEVER_NS))

    def _write(self, key: str, record: Record) -> None:
        path = self.path(key)
        self._make_way(path)
        with self._temporary() as (side, out):
            out.write(orjson.dumps(record))
            out.flush()
            side.replace(path)

    def _make_way(self, path: Path) -> None:
        """Make a record's directory; where another program made a directory of what was an object, its record goes."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            for parent in path.relative_to(self._directory).parents:
                if (self._directory / parent).is_file():
                    (self._directory / parent).unlink()
            path.parent.mkdir(parents=True, exist_ok=True)

    def _measured(self, key: str, file: BufferedReader, old: Record | None, keep: bool) -> Record:
        for _ in range(_READS):
            before = os.fstat(file.fileno())
            settled = keep and self._settled(before)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            after = os.fstat(file.fileno())
            record = self.of(sha256, before, old.metadata if old and old.sha256 == sha256 else {})
            if record.describes(after):
                break
        else:
            raise TransientError(f"{key} is being written by another program", key=key, operation="read")
        if settled:
            # What can't be kept is measured again the next time.
            with contextlib.suppress(OSError), self._lock():
                self.keep(key, file, record)
        return record

    def _settled(self, stat: os.stat_result) -> bool:
        """Whether the file system's own clock has left a file's ctime behind: any later write changes it."""
        if self._clock_ns - stat.st_ctime_ns <= _SETTLED_NS:
            # An earlier time would do as well: a listing asks once, not for each file.
            with contextlib.suppress(OSError), self._temporary() as (_path, file):
                self._clock_ns = os.fstat(file.fileno()).st_mtime_ns
        return self._clock_ns - stat.st_ctime_ns > _SETTLED_NS


def open_object(path: Path) -> BufferedReader:
    """An object for reading. Raises ``FileNotFoundError`` for a symbolic link, whose bytes are elsewhere; OSError."""
    try:
        return open(path, "rb", opener=_no_link)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        raise


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _parsed(text: bytes) -> Record | None:
    try:
        stored: Any = orjson.loads(text)
        record = Record(**stored)
    except (orjson.JSONDecodeError, TypeError):
        return None
    metadata = record.metadata
    if (
        not is_sha256(record.sha256)
        or not isinstance(record.volume, str)
        or any(type(n) is not int for n in (record.size, record.mtime_ns, record.ctime_ns))
    ):
        return None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        return None
    return record
