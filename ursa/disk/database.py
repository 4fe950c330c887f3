"""The SQLite file below the files cache: opened, begun anew where it is damaged, in memory where nothing can be written.

A commit reaches the kernel before the call returns (WAL, ``synchronous=NORMAL``): the process may be killed at any time.
Only the machine's own end can take the last commits away.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SCHEMA = 1
_BUSY_MS = 5_000
_OPEN_MS = 30_000  # what is not opened now is not there for the whole run
_CHECKPOINT_PAGES = 4_000  # 16 MB of WAL: each checkpoint is two fsyncs
_POLL_S = 0.02
_REPLACEMENTS = 3  # then the disk's inodes are taken to be unstable
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES = """
CREATE TABLE files (
    rec_id TEXT NOT NULL, path TEXT NOT NULL, fingerprint TEXT NOT NULL,
    boot TEXT NOT NULL, seen_s REAL NOT NULL, sha256 TEXT, etags TEXT NOT NULL, read_at TEXT NOT NULL, seal TEXT NOT NULL,
    PRIMARY KEY (rec_id, path, fingerprint)
) WITHOUT ROWID;
CREATE TABLE recordings (rec_id TEXT PRIMARY KEY, used_on INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE proofs (
    store TEXT NOT NULL, key TEXT NOT NULL, size_bytes INTEGER NOT NULL, etag TEXT NOT NULL,
    sha256 TEXT NOT NULL, used_on INTEGER NOT NULL, seal TEXT NOT NULL,
    PRIMARY KEY (store, key, size_bytes, etag)
) WITHOUT ROWID;
CREATE TABLE notes (topic TEXT NOT NULL, about TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (topic, about)) WITHOUT ROWID;
CREATE TABLE days (day INTEGER PRIMARY KEY);
"""
_log = logging.getLogger("ursa.disk")


class AnotherSchemaError(Exception):
    """The file is another version's."""


class Database:
    """One connection for all threads. ``path`` is None while it is in memory."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._name = str(path)
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._inode: int | None = None
        self._replacements = 0
        self._connection: sqlite3.Connection | None = self._open()

    def run(self, task: Callable[[sqlite3.Connection], T], default: T) -> T:
        """What ``task`` gives, in a transaction where it begins one; ``default`` where the file fails. Damage: once more,
        with a new file.
        """
        with self._lock:
            for _ in range(2):
                if self._connection is None or os.getpid() != self._process:  # SQLite does not survive a fork
                    break
                try:
                    if self._replaced():
                        self._begin_anew()
                    return task(self._connection)
                except (sqlite3.Error, ValueError, OverflowError) as error:
                    self._undo()
                    if not _is_damage(error):
                        _log.debug("files cache: %s: %s", type(error).__name__, error)
                        break
                    _log.info("files cache %s is damaged (%s): begun anew", self.path, error)
                    self._begin_anew()
                except BaseException:  # Ctrl-C must not leave a transaction open, for which others wait
                    self._undo()
                    raise
            return default

    def close(self) -> None:
        """Nothing is kept after this."""
        with self._lock:
            if self._connection is not None and os.getpid() == self._process:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        if self.path is not None:
            try:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with _alone(self.path):
                    return self._open_file(self.path)
            except (sqlite3.Error, OSError, ValueError) as error:
                _log.info("files cache %s can't be used (%s): kept in memory", self.path, error)
        self.path = None
        return _prepared(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))

    def _open_file(self, path: Path) -> sqlite3.Connection:
        try:
            connection = _connect(path)
        except (sqlite3.Error, AnotherSchemaError) as error:
            if not (isinstance(error, AnotherSchemaError) or _is_damage(error)):
                raise
            _log.info("files cache %s: %s: begun anew", path, error or "another version's")
            _remove(path)
            connection = _connect(path)
        self._inode = _inode(self._name)
        return connection

    def _replaced(self) -> bool:
        """Whether the file was taken away or begun anew by another process: SQLite would go on writing to the old one."""
        if self.path is None or self._replacements >= _REPLACEMENTS or _inode(self._name) == self._inode:
            return False
        self._replacements += 1
        return True

    def _begin_anew(self) -> None:
        assert self._connection is not None
        with contextlib.suppress(OSError), _alone(self.path) if self.path else contextlib.nullcontext():
            # Another process may have begun a new one already. While ours is open its inode is no other file's.
            ours = self.path is not None and _inode(self._name) == self._inode
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            if self.path is not None and ours:
                _remove(self.path)
        self._connection.close()  # also where the directory is gone
        self._connection = self._open()


@contextlib.contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that has the right to write from its start, so that it never has to be tried again."""
    connection.execute("BEGIN IMMEDIATE")
    yield  # what fails is undone by ``Database.run``
    connection.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        return _prepared(connection)
    except BaseException:
        connection.close()
        raise


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute(f"PRAGMA busy_timeout = {_OPEN_MS}")
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    with writing(connection):  # also asks whether the file may be written
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and objects == 0:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        elif version != SCHEMA:
            raise AnotherSchemaError(f"version {version}, not {SCHEMA}")
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    return connection


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # text that is no UTF-8
        return isinstance(error, sqlite3.OperationalError)
    return code & 0xFF in _DAMAGE or str(error).startswith(("no such table", "no such column"))


def _remove(path: Path) -> None:
    """The log first: left beside a new file it would be played into it."""
    for name in (f"{path}-wal", f"{path}-shm", f"{path}-journal", str(path)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108  (texts)


def _inode(path: str) -> int | None:
    with contextlib.suppress(OSError):
        return os.stat(path).st_ino  # noqa: PTH116  (asked at each call)
    return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process opens or removes the file meanwhile, where the disk has locks."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + _OPEN_MS / 1000
        while time.monotonic() < until:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_POLL_S)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)
