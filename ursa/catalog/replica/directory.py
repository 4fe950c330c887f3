"""Where this machine keeps its replicas: below the cache directory, or in a temporary one where nothing can be kept.

``<cache>/catalog/<key>/<table>/<table id>/`` is a table; ``<key>`` stands for server, bucket and prefix. A table's
directory is never emptied and filled anew: two processes would see two tables in one. It has a lock file beside it,
held shared while it is open and alone while files are taken away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
import weakref
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ursa.disk.place import user_directory

BUDGET_BYTES = 1 << 30
"""Data files that no live version names are kept up to so many bytes, by last use."""
_UNUSED_DAYS = 30
_ASIDE_DAYS = 90
_SCRATCH_HOURS = 24
_SCRATCH = ".scratch-"
_ASIDE = ".old"
_DAY_S = 86400.0
# What deltalake takes for something else in a path: an escape, a pattern, another separator.
_UNSAFE = re.compile(r"[%\\\[\]{}?*\x00-\x1f\x7f]|[\ud800-\udfff]")
# What link(2) answers on file systems that have no hard links, or none between these two places.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class ReplicaDirectory:
    """The replicas of one catalog's tables. ``path`` is a temporary directory where ``temporary``.

    Args:
        cache: the cache directory; None is the user's. Where nothing can be written to it, or it knows no locks, the
            replica is a temporary one, gone with this process.
        place: server and bucket, or the directory of a ``local`` profile.
        prefix: the catalog's, in the bucket.
    """

    def __init__(self, cache: Path | None, place: str, prefix: str) -> None:
        self.temporary = False
        name = hashlib.sha256(f"{place}\0{prefix}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
        kept = base_directory(cache)
        made = _usable(kept / name, f"{place} {prefix}") if kept and not _UNSAFE.search(str(kept)) else None
        if made is None:
            self.temporary = True
            made = Path(tempfile.mkdtemp(prefix="ursa-catalog-"))
            weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        self.path = made

    def table(self, name: str) -> TableDirectory:
        """Where the replica of a table is."""
        return TableDirectory(self.path / name)


class Remembered:
    """The catalog prefix that was live when this machine last looked, and when that was; kept as replicas are.

    Args: as of ``ReplicaDirectory``; ``key`` is the pointer's.
    """

    def __init__(self, cache: Path | None, place: str, key: str) -> None:
        base = base_directory(cache)
        name = hashlib.sha256(f"{place}\0{key}".encode("utf-8", "surrogateescape")).hexdigest()[:24]
        self._path = base / f"{name}.prefix" if base else None
        self.prefix: str | None = None
        with contextlib.suppress(OSError, ValueError):
            self.prefix = self._path.read_text(encoding="ascii").strip() or None if self._path else None

    @property
    def at(self) -> datetime | None:
        """When it was noted, UTC."""
        with contextlib.suppress(OSError):
            return datetime.fromtimestamp(self._path.stat().st_mtime, UTC) if self._path else None
        return None

    def note(self, prefix: str) -> None:
        """Note it. Best effort."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            if prefix == self.prefix and self._path.exists():
                os.utime(self._path)
            else:
                _write_whole(self._path, prefix.encode("ascii"))
        self.prefix = prefix


class TableDirectory:
    """The directories of one table: at most one of them is current, and has the table's id as its name."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.base.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held = _Held()
        weakref.finalize(self, self._held.release)

    @property
    def current(self) -> Path | None:
        """The directory of the table as it was last seen; None where there is none."""
        try:
            name = (self.base / "current").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        found = self.base / name
        return found if re.fullmatch(r"[0-9A-Za-z-]{1,64}", name) and (found / "_delta_log").is_dir() else None

    def hold(self, directory: Path) -> None:
        """Keep a table's directory from being taken away while this object lives."""
        self._held.take(self._lock_of(directory))

    def make_current(self, made: Path, table_id: str) -> Path:
        """Give a table that was made in a scratch its place, beside the one that was current, which is set aside where
        its id is another. Returns the place: where it is taken already, nothing of ``made`` is moved.
        """
        before, place = self.current, self.base / table_id
        with contextlib.suppress(OSError):
            if not place.exists():
                made.rename(place)
        _write_whole(self.base / "current", table_id.encode("ascii"))
        if before is not None and before != place:
            with contextlib.suppress(OSError):
                before.rename(self.base / f"{before.name}{_ASIDE}")
        return place

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory of one's own on the same file system, removed afterwards."""
        made = self.base / f"{_SCRATCH}{secrets.token_hex(8)}"
        (made / "_delta_log").mkdir(mode=0o700, parents=True)
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    @contextlib.contextmanager
    def alone(self, directory: Path) -> Iterator[bool]:
        """Whether no other process has this table open; for as long as this lasts, none opens it."""
        with contextlib.suppress(OSError), self._lock_of(directory).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True
            return
        yield False

    def tidy(self, live: Collection[str]) -> None:
        """Once a day: remove what dead processes left and what was set aside long ago, and of the data files that are not
        ``live`` all but the last used, up to ``BUDGET_BYTES``. Best effort.
        """
        with contextlib.suppress(OSError):
            marker, now = self.base / "tidied", time.time()
            if marker.exists() and now - marker.stat().st_mtime < _DAY_S:
                return
            _write_whole(marker, b"")
            self._remove_left(now)
            if (current := self.current) is not None:
                _keep_within(current, live)

    def _remove_left(self, now: float) -> None:
        for path in self.base.iterdir():
            with contextlib.suppress(OSError):
                age_s = now - path.stat().st_mtime
                scratch = path.name.startswith(_SCRATCH) and age_s > _SCRATCH_HOURS * 3600
                aside = path.name.endswith(_ASIDE) and age_s > _ASIDE_DAYS * _DAY_S
                if scratch or aside:
                    shutil.rmtree(path, ignore_errors=True)

    def _lock_of(self, directory: Path) -> Path:
        return self.base / f"{directory.name}.lock"


class _Held:
    """A shared lock on one file at a time."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def take(self, path: Path) -> None:
        self.release()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _keep_within(directory: Path, live: Collection[str]) -> None:
    """Who needs one that was removed meanwhile fetches it again."""
    spare = [path for path in directory.rglob("*.parquet") if str(path.relative_to(directory)) not in live]
    kept = 0
    for path in sorted(
        (path for path in spare if path.parent.name != "_delta_log"), key=lambda path: -path.stat().st_mtime
    ):
        kept += path.stat().st_size
        if kept > BUDGET_BYTES:
            path.unlink(missing_ok=True)


def base_directory(cache: Path | None) -> Path | None:
    """Where replicas are kept; None where there is no place. ``cache``: the profile's; None is the user's."""
    directory = cache or user_directory()
    return directory / "catalog" if directory else None


def place_file(path: Path, data: bytes) -> None:
    """Give bytes their final name, in one step; a file that is there already stays."""
    with _temporary(path) as (temporary, descriptor):
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Give a file that is whole its final name; one that has it already stays."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        temporary.replace(path)


def names_in(directory: Path) -> list[str]:
    """The names in a directory."""
    return [path.name for path in directory.iterdir()]


def link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where there are no links. Files in a replica never change."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        place_file(target, source.read_bytes())


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, int]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        yield Path(name), descriptor
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def _write_whole(path: Path, data: bytes) -> None:
    """Replace a small file in one step."""
    with _temporary(path) as (temporary, descriptor):
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _usable(directory: Path, about: str) -> Path | None:
    """The directory, made where it is not there; None where nothing can be written, linked or locked there."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (directory / "place").open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            if file.seek(0, os.SEEK_END) == 0:
                file.write(f"{about}\n".encode("utf-8", "surrogateescape"))
        os.utime(directory / "place")
        return directory
    except OSError:
        return None


def remove_unused(cache: Path | None, now: float | None = None) -> None:
    """Remove replicas that no command has used for 30 days. Best effort."""
    base = base_directory(cache)
    if base is None:
        return
    with contextlib.suppress(OSError):
        for directory in base.iterdir():
            with contextlib.suppress(OSError):
                used = (directory / "place").stat().st_mtime
                if (now or time.time()) - used > _UNUSED_DAYS * _DAY_S:
                    shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class CacheUse:
    """The cache directory, None where there is none, and how many bytes its parts hold."""

    path: Path | None
    catalog_bytes: int = 0
    files_bytes: int = 0


def cache_use(cache: Path | None) -> CacheUse:
    """What the cache directory holds now."""
    directory = cache or user_directory()
    if directory is None:
        return CacheUse(None)
    files = sum(path.stat().st_size for path in directory.glob("files-*") if path.is_file())
    return CacheUse(directory, _bytes(directory / "catalog"), files)


def clear(cache: Path | None) -> int:
    """Remove the replicas that no process has open; returns how many bytes that were."""
    base = base_directory(cache)
    if base is None or not base.is_dir():
        return 0
    before = _bytes(base)
    for catalog in [path for path in base.iterdir() if path.is_dir()]:
        tables = [TableDirectory(path) for path in catalog.iterdir() if path.is_dir()]
        with contextlib.ExitStack() as locks:
            if all(locks.enter_context(table.alone(table.current)) for table in tables if table.current):
                shutil.rmtree(catalog, ignore_errors=True)
    return before - _bytes(base)


def _bytes(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())
