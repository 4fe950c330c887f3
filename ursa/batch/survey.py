"""What lies on the disks of a batch, by one walk at its start: which files this machine has read before, by their
fingerprints; which are to be read again since only their change time moved, and which of those have their turn tonight.
"""

from __future__ import annotations

import hashlib
import os
import stat as modes
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ursa.batch.listed import DIGEST_BYTES
from ursa.disk.cache import Entry, FilesCache
from ursa.disk.fingerprint import Fingerprint
from ursa.disk.rows import FileRow, fingerprint_text
from ursa.disk.sighting import Sighting
from ursa.errors import UrsaError, unexpected
from ursa.manifest import MAX_MANIFEST_BYTES, is_junk, is_worker_dir, shown
from ursa.names import disk_name, nfc
from ursa.recording import LocalFile, is_sidecar
from ursa.register.memory import Memory, matching, source_of
from ursa.transfer.digest import DISKS, read_file

_WALKERS = 8
# A walk that takes so long waits for its disk; where none does, threads only get into each other's way.
_SLOW_S = 0.005
_PATIENCE_S = 0.1  # so long do others wait for one that turns out to be slow


def file_digest(path: str, size_bytes: int, sha256: str) -> bytes:
    """Of a file and its content."""
    return hashlib.blake2b(f"{path}\0{size_bytes}\0{sha256}".encode(), digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Moved:
    """Files of which only the change time moved since they were read: how many, their bytes, the oldest reading."""

    files: int = 0
    bytes: int = 0
    last_read: datetime | None = None


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What a walk found of a recording.

    ``known``: digests of the files that were read before; None where something else has to be looked into by an ingest (a
    symlink, a directory that can't be read). ``unknown_bytes``: of files that were never read as they are;
    ``unkept_bytes``: of those of which nothing can be remembered, since their disk has neither change times nor a name.
    ``sidecars``: path and sha256. ``read_at``: the oldest reading that alone vouches for a file, of a disk that keeps no
    change times.
    ``state``: changes with any file's size or times, b"" where all of them are known; ``seen_at``: when that was
    seen, on the monotonic clock.
    """

    known: frozenset[bytes] | None = None
    raw: bool = False
    unknown: int = 0
    unknown_bytes: int = 0
    unkept_bytes: int = 0
    moved: Moved = field(default_factory=Moved)
    sidecars: tuple[tuple[str, str], ...] = ()
    read_at: datetime | None = None
    state: bytes = b""
    seen_at: float = 0.0


class Survey:
    """Walks of a batch's directories, in their order, in threads of its own."""

    def __init__(
        self, rec_dirs: Sequence[Path], cache: FilesCache, *, reread_bytes: int, reread_after_s: float
    ) -> None:
        self._dirs = rec_dirs
        self._at = {str(path): number for number, path in enumerate(rec_dirs)}
        self._cache = cache
        self._reread_bytes = reread_bytes
        self._reread_after_s = reread_after_s
        self._looks: list[Surveyed | None] = [None] * len(rec_dirs)
        self._changed = threading.Condition()
        self._awaited: set[int] = set()
        self._next = iter(range(len(rec_dirs)))
        self._left = len(rec_dirs)
        self._one = threading.Lock()
        self._took_s = 0.0
        self._stopped = False
        self._turns: frozenset[int] | None = None

    def start(self) -> None:
        """Begin to walk."""
        for _ in range(min(_WALKERS, len(self._dirs))):
            threading.Thread(target=self._walk, name="ursa-survey", daemon=True).start()

    def stop(self) -> None:
        """Walk no further; whoever waits is told that nothing is known."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def of(self, rec_dir: Path) -> Surveyed:
        """What was found there; waits for it. Told once, then only its turn is kept: a NAS has millions of files."""
        number = self._at[str(rec_dir)]
        with self._changed:
            self._awaited.add(number)
            self._changed.wait_for(lambda: self._looks[number] is not None or self._stopped)
            self._awaited.discard(number)
            look = self._looks[number] or Surveyed()
            self._looks[number] = Surveyed(moved=look.moved)
            return look

    def again(self, rec_dir: Path) -> Surveyed:
        """What is there now."""
        return _look(rec_dir, self._cache, self._reread_after_s)

    def has_turn(self, rec_dir: Path) -> bool:
        """Whether the files there of which only the change time moved are read in this run: the longest unread first."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left or self._stopped)
            if self._turns is None:
                self._turns = frozenset(self._chosen())
            return self._at[str(rec_dir)] in self._turns

    def _chosen(self) -> Iterator[int]:
        waiting = [(look.moved, number) for number, look in enumerate(self._looks) if look and look.moved.files]
        waiting.sort(key=lambda item: (item[0].last_read or datetime.min.replace(tzinfo=UTC), item[1]))
        left = self._reread_bytes
        for place, (moved, number) in enumerate(waiting):
            # The first one has its turn however large it is: else it would never have one.
            if place and moved.bytes > left:
                continue
            left -= moved.bytes
            yield number

    def _walk(self) -> None:
        while not self._stopped:
            with self._changed:
                number = next(self._next, None)
            if number is None:
                return
            with self._alone():
                started = time.monotonic()
                look = _look(self._dirs[number], self._cache, self._reread_after_s)
                self._took_s = time.monotonic() - started
            with self._changed:
                self._looks[number] = look
                self._left -= 1
                if number in self._awaited or not self._left:
                    self._changed.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        held = self._took_s < _SLOW_S and self._one.acquire(timeout=_PATIENCE_S)
        try:
            yield
        finally:
            if held:
                self._one.release()


class _DoubtError(Exception):
    """Something that an ingest has to judge: a symlink, a device, two names that are one."""


def _look(rec_dir: Path, cache: FilesCache, reread_after_s: float) -> Surveyed:
    try:
        files = list(_files(str(rec_dir), "", ""))
        if len({path for path, _, _ in files}) < len(files):
            raise _DoubtError
        return _judged(rec_dir, files, cache, reread_after_s)
    except (OSError, RecursionError, _DoubtError):
        return Surveyed()
    except Exception as error:  # noqa: BLE001  (whoever waits for this walk would wait for good)
        unexpected(error, f"looking at {shown(str(rec_dir))}")
        return Surveyed()


_Found = tuple[str, str, os.stat_result]
"""A file's path, how it is called below the recording on the disk, and what the disk says of it."""


def _judged(rec_dir: Path, files: Sequence[_Found], cache: FilesCache, reread_after_s: float) -> Surveyed:
    readings, now = cache.readings(rec_dir.name or rec_dir.absolute().name), datetime.now(UTC)
    known: set[bytes] = set()
    raw, unknown, unknown_bytes, unkept_bytes = False, 0, 0, 0
    moved: list[tuple[int, datetime | None]] = []
    read_at: list[datetime] = []
    beside: list[tuple[str, str]] = []
    for path, name, stat in files:
        fingerprint = DISKS.of_path(f"{rec_dir}/{name}", stat)
        there = readings.get(path, ())
        sha256, vouched = _known(there, fingerprint, now, reread_after_s)
        if is_sidecar(path):
            beside.append((path, sha256 or _read(rec_dir, path, name, stat, cache)))
            continue
        above, below, _ = path.partition("/")
        raw = raw or (bool(below) and is_worker_dir(above))
        if sha256 is not None and fingerprint is not None:
            known.add(file_digest(path, fingerprint.size_bytes, sha256))
            read_at += [vouched] if vouched else []
        elif (last := _moved(there, fingerprint)) is not None:
            moved.append((stat.st_size, last.read_at))
        else:
            unknown, unknown_bytes = unknown + 1, unknown_bytes + stat.st_size
            unkept_bytes += 0 if fingerprint else stat.st_size
    state = b""
    if unknown or moved:
        state = state_of((path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for path, _, stat in files)
    return Surveyed(
        frozenset(known),
        raw,
        unknown,
        unknown_bytes,
        unkept_bytes,
        Moved(len(moved), sum(size for size, _ in moved), min((at for _, at in moved if at), default=None)),
        tuple(beside),
        min(read_at, default=None),
        state,
        time.monotonic(),
    )


def _known(
    readings: Sequence[FileRow], fingerprint: Fingerprint | None, now: datetime, reread_after_s: float
) -> tuple[str | None, datetime | None]:
    """The sha256 of a file that was read as it is, and when, where only that vouches for it (no change times)."""
    if fingerprint is None or not readings:
        return None, None
    text = fingerprint_text(fingerprint)
    row = next((row for row in readings if row.fingerprint == text), None)
    if row is None:
        return None, None
    if fingerprint.ctime_ns is not None:
        return row.sha256, None
    entry = row.entry()
    counts = entry is not None and matching([entry], fingerprint, now, reread_after_s) is not None
    return (row.sha256, entry.read_at) if entry is not None and counts else (None, None)


def state_of(files: Iterator[tuple[str, int, int, int]]) -> bytes:
    """Of a recording's files: path, size, mtime and ctime; an inode is another one each time on many network disks."""
    lines = sorted("\0".join(map(str, file)) for file in files)
    return hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape"), digest_size=DIGEST_BYTES).digest()


def state_of_scan(files: Sequence[LocalFile]) -> bytes:
    """The same of a recording that was scanned."""
    return state_of(
        (file.path, file.size_bytes, file.mtime_ns, file.sighting.ctime_ns) for file in files if file.sighting
    )


def _moved(readings: Sequence[FileRow], fingerprint: Fingerprint | None) -> Entry | None:
    """The reading of this file before its change time moved, and nothing else."""
    entries = [entry for row in readings if fingerprint and (entry := row.entry()) is not None]
    return next((entry for entry in entries if fingerprint and entry.fingerprint.but_for_ctime(fingerprint)), None)


def _read(rec_dir: Path, path: str, name: str, stat: os.stat_result, cache: FilesCache) -> str:
    """The sha256 of a manifest or participant.txt, read now."""
    if stat.st_size > MAX_MANIFEST_BYTES:
        raise _DoubtError
    sighting = Sighting(rec_dir, name, stat.st_dev, stat.st_ino, stat.st_ctime_ns)
    file = LocalFile(path, Path(rec_dir, name), stat.st_size, stat.st_mtime_ns, "manifest", "", sighting)
    try:
        _, digest = read_file(source_of(file))
    except UrsaError as error:
        raise _DoubtError from error
    Memory(cache, rec_dir.name or rec_dir.absolute().name, 0.0).remember(path, digest)
    return digest.sha256


def _files(directory: str, below: str, real: str) -> Iterator[_Found]:
    with os.scandir(directory) as entries:
        for entry in entries:
            name = nfc(disk_name(entry.name))
            path = below + name
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{path}/", f"{real}{entry.name}/")
                continue
            if is_junk(path):
                continue
            stat = entry.stat(follow_symlinks=False)
            if not modes.S_ISREG(stat.st_mode):
                raise _DoubtError
            yield path, real + entry.name, stat
