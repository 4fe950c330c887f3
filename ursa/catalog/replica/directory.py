"""Where this machine keeps its replicas: below the cache directory, or in a temporary one where nothing can be kept.

``<cache>/catalog/<key>/<table>/<table id>/`` is a table; ``<key>`` stands for server, bucket and prefix. A table's
directory is never emptied and filled anew: two processes would see two tables in one. It has a lock file beside it, and
the catalog has ``place``: both are held shared while they are open. Who removes a catalog holds all of them alone, and
renames it away first: nobody opens what is half removed.
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
import stat
import tempfile
import time
import weakref
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from ursa.disk.place import user_directory
from ursa.errors import StorageError

BUDGET_BYTES = 1 << 30
"""Data files that no live version names are kept up to so many bytes, by last use."""
_UNUSED_DAYS = 30
_ASIDE_DAYS = 90
_SCRATCH_HOURS = 24
_SCRATCH = ".scratch-"
_NEW = ".new-"
_REMOVED = ".removed-"
_ASIDE = ".old"
_LOCK = ".lock"
_PLACE = "place"
_ROOM_BYTES = 1 << 16
"""What can't take up so much is full."""
_TRIES = 20
_EFFECTIVE = os.access in os.supports_effective_ids
_DAY_S = 86400.0
# What deltalake takes for something else in a path: an escape, a pattern, another separator.
_UNSAFE = re.compile(r"[%\\\[\]{}?*\x00-\x1f\x7f]|[\ud800-\udfff]")


class ReplicaDirectory:
    """The replicas of one catalog's tables. ``path`` is a temporary directory where ``temporary``.

    Args:
        cache: the cache directory; None is the user's. Where it, or what is in it of this catalog, can't be written,
            linked or copied, locked or read, the replica is a temporary one, gone with this process.
        place: server and bucket, or the directory of a ``local`` profile.
        prefix: the catalog's, in the bucket.
        tables: their names.
        reading: nothing will be written; a disk that is full or read-only serves as well.

    Raises:
        StorageError: there is no place for a temporary one either.
    """

    def __init__(
        self, cache: Path | None, place: str, prefix: str, tables: Collection[str] = (), *, reading: bool = False
    ) -> None:
        self.temporary = False
        self._held = _Held()
        weakref.finalize(self, self._held.release)
        base, why = base_directory(cache), "this account has no cache directory"
        if base is not None:
            self.path = base / _name_for(place, prefix)
            try:
                if found := _UNSAFE.search(str(base)):
                    why = f"{base}: its name has {found[0]!r} in it"
                else:
                    self._open(f"{place} {prefix}", () if reading else tables)
                    return
            except OSError as error:
                self._held.release()
                why = _in_words(error, self.path)
        self.temporary = True
        self.path = self._made_temporary(tables, why)

    def _open(self, about: str, tables: Collection[str]) -> None:
        """Make the directory, or take the one that is there. Raises ``OSError``."""
        for tries_left in reversed(range(_TRIES)):
            try:
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = self._held.take(self.path / _PLACE)
                break
            except FileNotFoundError:
                if not tries_left:  # else it was removed in between
                    raise
        if os.fstat(descriptor).st_size == 0:
            os.write(descriptor, f"{about}\n".encode("utf-8", "surrogateescape"))
        for name in tables:
            (self.path / name).mkdir(mode=0o700, exist_ok=True)
            _refuse_unusable(self.path / name)
        self.touch()

    def _made_temporary(self, tables: Collection[str], why: str) -> Path:
        made = None
        try:
            made = Path(tempfile.mkdtemp(prefix="ursa-catalog-"))
            weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
            for name in tables:
                (made / name).mkdir(mode=0o700)
                _refuse_unusable(made / name)
            return made
        except OSError as error:
            raise StorageError(
                f"there is no place for a copy of the catalog: {why}; and for a temporary one:"
                f" {_in_words(error, made or Path('TMPDIR'))}",
                hint="Make room, or give access, in one of them, or set cache_dir in the profile; `ursa cache path` tells"
                " which the cache directory is.",
                operation="open",
            ) from error

    def touch(self) -> None:
        """Note that it is in use. Best effort."""
        if not self.temporary:
            with contextlib.suppress(OSError):
                os.utime(self.path / _PLACE)

    def table(self, name: str) -> TableDirectory:
        """Where the replica of a table is."""
        return TableDirectory(self.path / name)


class Remembered:
    """The catalog prefix that was live when this machine last looked, and when that was; kept as replicas are.

    Args: as of ``ReplicaDirectory``; ``key`` is the pointer's.
    """

    def __init__(self, cache: Path | None, place: str, key: str) -> None:
        base = base_directory(cache)
        self._path = base / f"{_name_for(place, key)}.prefix" if base else None
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
        with contextlib.suppress(OSError):  # on a read-only disk, say: who writes to it is told
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

    def set_aside(self, directory: Path) -> None:
        """Keep a table's directory under another name, for whoever is to look at it; it goes after 90 days. Best effort."""
        with contextlib.suppress(OSError):
            directory.rename(self.base / f"{directory.name}.{secrets.token_hex(4)}{_ASIDE}")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory of one's own on the same file system, removed afterwards."""
        made = self.base / f"{_SCRATCH}{secrets.token_hex(8)}"
        (made / "_delta_log").mkdir(mode=0o700, parents=True)
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def alone(self, directory: Path) -> contextlib.AbstractContextManager[bool]:
        """Whether no other process has this table open; for as long as this lasts, none opens it."""
        return _alone(self._lock_of(directory))

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
        for path in self.base.rglob(f"{_NEW}*"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > _SCRATCH_HOURS * 3600:
                    path.unlink()

    def _lock_of(self, directory: Path) -> Path:
        return self.base / f"{directory.name}{_LOCK}"


class _Held:
    """A lock on one file at a time."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def take(self, path: Path, how: int = fcntl.LOCK_SH) -> int:
        """Returns the file's descriptor, which is open while the lock is held. Raises ``OSError``."""
        self.release()
        while True:
            descriptor = _opened(path)
            try:
                fcntl.flock(descriptor, how)
                # Whoever had it alone may have removed it: then another file has the name, or none.
                if _is_at(descriptor, path):
                    self._descriptor = descriptor
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        # Another user's, or a disk that is read-only: most systems lock what is open for reading.
        with contextlib.suppress(OSError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether nobody has this lock; for as long as this lasts, nobody gets it."""
    held, taken = _Held(), False
    with contextlib.suppress(OSError):
        held.take(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = True
    try:
        yield taken
    finally:
        held.release()


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


def _name_for(place: str, key: str) -> str:
    """A name in ASCII that stands for a key at a server, or in a directory."""
    return hashlib.sha256(f"{place}\0{key}".encode("utf-8", "surrogateescape")).hexdigest()[:24]


def base_directory(cache: Path | None) -> Path | None:
    """Where replicas are kept; None where there is no place. ``cache``: the profile's; None is the user's."""
    directory = cache or user_directory()
    return directory / "catalog" if directory else None


def place_file(path: Path, data: bytes) -> None:
    """Give bytes their final name, in one step; a file that is there already stays."""
    with filling(path) as file:
        file.write(data)


@contextlib.contextmanager
def filling(path: Path, *, replacing: bool = False) -> Iterator[IO[bytes]]:
    """A file to be filled, which gets this name in one step when that has ended well: a file that has it already stays,
    or with ``replacing`` goes.
    """
    with _temporary(path) as (temporary, descriptor):
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replacing:
            temporary.replace(path)
        else:
            publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Give a file that is whole its final name, in the same directory; one that has it already stays."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:
        # There are no links here, or not to this file; whatever else it is, it keeps us from renaming as well.
        if not path.exists():
            temporary.replace(path)


def names_in(directory: Path) -> list[str]:
    """The names in a directory, without those of files that are being written."""
    return [path.name for path in directory.iterdir() if not path.name.startswith(_NEW)]


def link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where there are no links. Files in a replica never change."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        place_file(target, source.read_bytes())


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, int]]:
    """An ``OSError`` of writing names ``path``: the system names no file of a descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_NEW, dir=path.parent)
    try:
        yield Path(name), descriptor
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def _write_whole(path: Path, data: bytes) -> None:
    """Replace a small file in one step."""
    with filling(path, replacing=True) as file:
        file.write(data)


def _refuse_unusable(table: Path) -> None:
    """Raises ``OSError`` where a table's directory, or what is in it, can't be written, linked or copied, locked or read."""
    with _temporary(table / "room") as (made, descriptor):
        with os.fdopen(descriptor, "wb") as file:
            file.write(bytes(_ROOM_BYTES))
        with _temporary(table / "room") as (second, other):
            os.close(other)
            second.unlink()
            link(made, second)
    for above, directories, files in os.walk(table, onerror=_refuse):
        # What is private to another process, or set aside, is no part of the table.
        directories[:] = [name for name in directories if not name.startswith(".") and not name.endswith(_ASIDE)]
        _refuse_no_access(Path(above), os.R_OK | os.W_OK | os.X_OK)
        for name in files:
            if name.endswith(_LOCK):
                os.close(_opened(Path(above, name)))
            elif not name.startswith(_NEW):
                _refuse_no_access(Path(above, name), os.R_OK)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # another process has removed it
        raise error


def _refuse_no_access(path: Path, mode: int) -> None:
    if not os.access(path, mode, effective_ids=_EFFECTIVE) and os.path.lexists(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _in_words(error: OSError, path: Path) -> str:
    return f"{error.filename or path}: {error.strerror or type(error).__name__}"


def remove_unused(cache: Path | None, now: float | None = None) -> None:
    """Remove replicas that no command has used for 30 days, and that no process has open. Best effort."""
    since = (now or time.time()) - _UNUSED_DAYS * _DAY_S
    for directory in _catalogs(cache):
        with contextlib.suppress(OSError):
            if (directory / _PLACE).stat().st_mtime < since:
                _remove(directory, since)


def _catalogs(cache: Path | None) -> list[Path]:
    """The directories of catalogs, and none that is being removed; of those that were left, nothing stays."""
    base, found = base_directory(cache), []
    with contextlib.suppress(OSError):
        for path in sorted(base.iterdir()) if base else ():
            if path.name.startswith(_REMOVED):
                shutil.rmtree(path, ignore_errors=True)
            elif path.is_dir():
                found.append(path)
    return found


def _remove(catalog: Path, since: float | None = None) -> int:
    """Remove a catalog that no process has open, nor has used ``since``; returns how many bytes that were."""
    aside = catalog.with_name(f"{_REMOVED}{secrets.token_hex(8)}")
    with contextlib.suppress(OSError), contextlib.ExitStack() as locks:
        if not locks.enter_context(_alone(catalog / _PLACE)):
            return 0
        if since is not None and (catalog / _PLACE).stat().st_mtime >= since:
            return 0
        # An older ursa holds a table's lock alone.
        if not all(locks.enter_context(_alone(lock)) for lock in catalog.glob(f"*/*{_LOCK}")):
            return 0
        catalog.rename(aside)
    before = _bytes(aside)
    shutil.rmtree(aside, ignore_errors=True)
    return before - _bytes(aside)


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
    files = 0
    with contextlib.suppress(OSError):
        files = sum(_size(path) for path in directory.iterdir() if path.match("files-*"))
    return CacheUse(directory, _bytes(directory / "catalog"), files)


def clear(cache: Path | None) -> int:
    """Remove the replicas that no process has open; returns how many bytes that were."""
    return sum(_remove(catalog) for catalog in _catalogs(cache))


def _bytes(directory: Path) -> int:
    """What is in a directory, of which other processes may remove files meanwhile."""
    return sum(_size(Path(above, name)) for above, _, files in os.walk(directory) for name in files)


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        found = path.lstat()
        return found.st_size if stat.S_ISREG(found.st_mode) else 0
    return 0
