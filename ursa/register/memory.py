"""What this machine remembers of one recording's files, and keeps of them as they are read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Final, Self

from ursa.disk.cache import Entry, FilesCache
from ursa.disk.fingerprint import SETTLED_S, Fingerprint
from ursa.disk.rows import Reading
from ursa.recording import LocalFile
from ursa.transfer.digest import Digest, SourceFile, opened

_MOST_WAITING: Final = 128
_MOST_WAITING_BYTES: Final = 8 << 20


def source_of(file: LocalFile) -> SourceFile:
    """A recording's file as it is read."""
    return SourceFile(file.path, file.source, file.size_bytes, file.mtime_ns, file.sighting)


@dataclass
class Memory:
    """The files cache, for one recording of this disk.

    ``seen_at``: when its files were found to be what they are, on the monotonic clock; a file that is read soon after that
    is not remembered, since a write in between need not show. ``reread_after_s``: so old may a reading be of a disk that
    keeps no change times.
    """

    cache: FilesCache
    rec_id: str
    reread_after_s: float
    seen_at: float = field(default_factory=time.monotonic)

    @cached_property
    def _entries(self) -> Mapping[str, Sequence[Entry]]:
        return self.cache.entries(self.rec_id)

    def recall(self, file: LocalFile, now: datetime) -> Entry | None:
        """The reading of this very file, None where it was not read, or where that is too long ago to count.

        Raises:
            FileChangedError, StorageError: it is not what it was found to be.
        """
        entries = [entry for entry in self._entries.get(file.path, ()) if entry.sha256 is not None]
        if not entries or file.sighting is None:
            return None
        with opened(source_of(file)) as found:
            found.finish()
        return matching(entries, found.fingerprint, now, self.reread_after_s) if found.fingerprint else None

    def remember(self, path: str, digest: Digest, etags: Iterable[str] = ()) -> None:
        """A file was read whole."""
        self.remember_all([(path, digest, etags)])

    def remember_all(self, read: Iterable[tuple[str, Digest, Iterable[str]]]) -> None:
        """Files were read whole: their paths, what that told, and the ETags of their objects."""
        readings: list[Reading] = []
        sighted: dict[str, Fingerprint] = {}
        for path, digest, etags in read:
            fingerprint = digest.fingerprint
            if fingerprint is None:
                continue
            settled = digest.opened_at - self.seen_at >= SETTLED_S
            if settled or self.cache.was_sighted(self.rec_id, path, fingerprint):
                readings.append(Reading(path, fingerprint, digest.sha256, {*digest.etags, *etags}))
            else:
                sighted[path] = fingerprint
        self.cache.remember_all(self.rec_id, readings)
        if sighted:
            self.cache.sight(self.rec_id, sighted)


class Remembering:
    """Remembers the files of an upload, small ones by the dozen: a transaction each takes half the time of reading them.
    What a kill takes away is read again. Of one thread; use it as a context manager, so that none is left.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._waiting: list[tuple[str, Digest, Iterable[str]]] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()

    def read(self, path: str, digest: Digest, etag: str) -> None:
        """A file is in the store, under this ETag."""
        self._waiting.append((path, digest, [etag]))
        self._bytes += digest.size_bytes
        if len(self._waiting) >= _MOST_WAITING or self._bytes >= _MOST_WAITING_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._memory.remember_all(self._waiting)
        self._waiting, self._bytes = [], 0


def matching(entries: Iterable[Entry], fingerprint: object, now: datetime, reread_after_s: float) -> Entry | None:
    """The reading with this fingerprint; of a disk without change times only where it is not too old."""
    for entry in entries:
        if entry.sha256 is None or entry.fingerprint != fingerprint:
            continue
        if entry.fingerprint.ctime_ns is None:
            age = (now - entry.read_at).total_seconds() if entry.read_at else float("inf")
            # A clock that was set back makes no reading younger.
            if not 0 <= age <= reread_after_s:
                continue
        return entry
    return None
