"""The files cache: which files this machine has read, by their fingerprints, and what it has measured of objects.

Lost, damaged or another machine's: it costs time, never truth. An SQLite file in the user's cache directory, or in the
profile's ``cache_dir``.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import orjson

from ursa.disk.clock import Clock, system_clock
from ursa.disk.database import Database, writing
from ursa.disk.fingerprint import SETTLED_S, Fingerprint
from ursa.disk.place import file_name, is_temporary, machine_id, user_directory
from ursa.disk.rows import (
    COLUMNS,
    FileRow,
    Reading,
    checked_row,
    etags_text,
    fingerprint_text,
    parse_etags,
    parse_sha256_or_none,
    seal,
    time_text,
)
from ursa.disk.rows import Entry as Entry  # where others import it from
from ursa.names import is_sha256

KEPT = 8
"""Fingerprints that are kept of a path: copies of a recording, on this disk and that one."""
KEPT_DAYS = 400
"""Days after which a recording, or an object, that was not asked for is dropped."""
_SURE_DAYS = 7  # days on which the cache was used: a clock that was wrong for less than this drops nothing
_USED_AT_ONCE = 512
_NO_BOOT = "process "  # before a process's own mark, where the system does not tell its start
_SELECT = f"SELECT {COLUMNS}, seal FROM files WHERE rec_id = ?"
_INSERT = f"INSERT OR REPLACE INTO files ({COLUMNS}, seal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DELETE = "DELETE FROM files WHERE rec_id = ? AND path = ? AND fingerprint = ?"
_USED = "INSERT OR REPLACE INTO recordings (rec_id, used_on) VALUES (?, ?)"
_PROOF_USED = "UPDATE proofs SET used_on = ? WHERE store = ? AND key = ? AND size_bytes = ? AND etag = ?"


class FilesCache:
    """Thread-safe; several processes may have the same one open. No method raises: what fails costs a reading."""

    def __init__(self, database: Database, clock: Clock, *, temporary: bool) -> None:
        self._database = database
        self._clock = clock
        self._temporary = temporary
        self._boot = clock.boot or f"{_NO_BOOT}{uuid.uuid4().hex}"
        self._today = clock.now().toordinal()
        self._used: set[str] = set()
        self._to_mark: set[str] = set()
        self._database.run(self._begin_day, None)

    @classmethod
    def open(
        cls, directory: Path | None = None, *, clock: Clock | None = None, temp_dirs: Iterable[str] | None = None
    ) -> Self:
        """The one in ``directory``; None is the user's cache directory. ``clock`` and ``temp_dirs`` (what lies below them
        is temporary) are parameters for tests.
        """
        directory = directory or user_directory()
        database = Database(directory / file_name(machine_id()) if directory else None)
        temporary = database.path is None or is_temporary(database.path.parent, temp_dirs)
        return cls(database, clock or system_clock(), temporary=temporary)

    @property
    def temporary(self) -> bool:
        """Whether what is remembered is gone with this process, or with the machine's next start, since there is no place
        that stays.
        """
        return self._temporary or self.path is None

    @property
    def path(self) -> Path | None:
        """The file; None where the cache is in memory."""
        return self._database.path

    def clear(self) -> int:
        """Forget everything; returns how many bytes the file had. The cache is empty afterwards."""
        path = self.path
        self._database.close()
        if path is None:
            return 0
        files = [file for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")) if file.exists()]
        total = sum(file.stat().st_size for file in files)
        for file in files:
            file.unlink(missing_ok=True)
        return total

    def close(self) -> None:
        """Write what is not written yet. The cache is empty afterwards."""
        self._database.run(self._mark_used, None)
        self._database.close()

    # --- files --------------------------------------------------------------------------------------------------------

    def entries(self, rec_id: str) -> Mapping[str, Sequence[Entry]]:
        """What is remembered of a recording's files, by path, the latest reading first; entries that were only seen too."""
        nothing: list[FileRow] = []
        rows = self._database.run(partial(self._rows_used, rec_id), nothing)
        found: dict[str, list[Entry]] = {}
        for row in sorted(rows, key=lambda row: row.rank, reverse=True):
            if (entry := row.entry()) is not None:
                found.setdefault(row.path, []).append(entry)
        return found

    def readings(self, rec_id: str) -> Mapping[str, Sequence[FileRow]]:
        """As ``entries``, of files that were read whole, as rows: a fingerprint is compared as text (``fingerprint_text``).
        Of the many files of a nightly batch nothing else is asked.
        """
        nothing: list[FileRow] = []
        found: dict[str, list[FileRow]] = {}
        for row in self._database.run(partial(self._rows_used, rec_id), nothing):
            if row.sha256 is not None:
                found.setdefault(row.path, []).append(row)
        return found

    def remember(
        self, rec_id: str, path: str, fingerprint: Fingerprint, sha256: str, etags: Iterable[str] = ()
    ) -> None:
        """A file was read whole, its fingerprint being this at least ``SETTLED_S`` before the first byte and after the
        last one. Of a fingerprint that is there the ETags are united, where the sha256 is the same. Survives a kill of
        this process from the moment it returns.
        """
        self.remember_all(rec_id, [Reading(path, fingerprint, sha256, etags)])

    def remember_all(self, rec_id: str, readings: Iterable[Reading]) -> None:
        """As ``remember``, of several files in one transaction: all of them, or none where the process is killed."""
        rows = [
            self._row(rec_id, path, fingerprint, sha256, etags_text(etags))
            for path, fingerprint, sha256, etags in readings
            if is_sha256(sha256)
        ]
        if rows:
            self._database.run(partial(self._remember, rec_id, rows), None)

    def sight(self, rec_id: str, seen: Mapping[str, Fingerprint]) -> None:
        """These fingerprints, by path, were seen now; those that are there already stay as they are."""
        rows = [self._row(rec_id, path, fingerprint, None, "[]") for path, fingerprint in seen.items()]
        self._database.run(partial(self._sight, rec_id, rows), None)

    def was_sighted(self, rec_id: str, path: str, fingerprint: Fingerprint) -> bool:
        """Whether it was seen at least ``SETTLED_S`` ago, by this machine's clock or before its last start."""
        now_s = self._clock.monotonic()
        text = fingerprint_text(fingerprint)
        nothing: list[FileRow] = []
        rows = self._database.run(partial(_rows_of, rec_id=rec_id, path=path), nothing)
        return any(self._has_settled(row, now_s) for row in rows if row.fingerprint == text)

    # --- objects and servers ------------------------------------------------------------------------------------------

    def proof(self, store: str, key: str, size_bytes: int, etag: str) -> str | None:
        """The sha256 that this machine has measured of an object while it had this ETag."""
        return self._database.run(partial(self._proof, (store, key, size_bytes, etag)), None)

    def prove(self, store: str, key: str, size_bytes: int, etag: str, sha256: str) -> None:
        """This machine has measured an object. ``store``: endpoint and bucket, or the directory."""
        if is_sha256(sha256):
            row = (store, key, size_bytes, etag, sha256)
            statement = "INSERT OR REPLACE INTO proofs VALUES (?, ?, ?, ?, ?, ?, ?)"
            self._write(statement, (*row, self._today, seal(row)))

    def note(self, topic: str, about: str) -> Mapping[str, Any] | None:
        """What was noted about something (a server's conduct); None where nothing was."""
        statement = "SELECT value FROM notes WHERE topic = ? AND about = ?"
        found = self._database.run(lambda connection: connection.execute(statement, (topic, about)).fetchone(), None)
        return _json_object(found[0]) if found else None

    def put_note(self, topic: str, about: str, value: Mapping[str, Any] | None) -> None:
        """Note something, JSON; None takes the note away."""
        if value is None:
            self._write("DELETE FROM notes WHERE topic = ? AND about = ?", (topic, about))
            return
        try:
            text = orjson.dumps(dict(value)).decode()
        except TypeError:
            return
        self._write("INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (topic, about, text))

    # --- below ----------------------------------------------------------------------------------------------------------

    def _row(self, rec_id: str, path: str, fingerprint: Fingerprint, sha256: str | None, etags: str) -> FileRow:
        now = time_text(self._clock.now())
        text = fingerprint_text(fingerprint)
        return FileRow(rec_id, path, text, self._boot, float(self._clock.monotonic()), sha256, etags, now)

    def _write(self, statement: str, values: Sequence[object]) -> None:
        self._database.run(lambda connection: connection.execute(statement, values) and None, None)

    def _remember(self, rec_id: str, rows: Sequence[FileRow], connection: sqlite3.Connection) -> None:
        with writing(connection):
            self._mark(connection, rec_id)
            for row in rows:
                _remember_one(connection, row)

    def _sight(self, rec_id: str, rows: Sequence[FileRow], connection: sqlite3.Connection) -> None:
        # Asked by path: a recording's rows grow with each file that is sighted, and all of them each time are squares.
        there = {path: _rows_of(connection, rec_id, path) for path in {row.path for row in rows}}
        known = {(row.path, row.fingerprint): row for found in there.values() for row in found}
        new = [row for row in rows if not self._stays(known.get((row.path, row.fingerprint)), row.seen_s)]
        if not new:
            return
        with writing(connection):
            self._mark(connection, rec_id)
            for row in new:
                connection.execute(_INSERT, row.sealed())
                _drop_oldest(connection, [old for old in there[row.path] if old.fingerprint != row.fingerprint])

    def _stays(self, old: FileRow | None, now_s: float) -> bool:
        """Whether a sighting can come to count; else it is made anew."""
        if old is None:
            return False
        return old.sha256 is not None or (self._comparable(old) and not (old.boot == self._boot and old.seen_s > now_s))

    def _has_settled(self, row: FileRow, now_s: float) -> bool:
        if row.sha256 is not None:  # it had when it was read
            return True
        return self._comparable(row) and (row.boot != self._boot or row.seen_s + SETTLED_S <= now_s)

    def _comparable(self, row: FileRow) -> bool:
        """Whether its clock is this one's, or surely that of another start: where starts are not told it may be either."""
        other_start = self._clock.boot is not None and not row.boot.startswith(_NO_BOOT)
        return row.boot == self._boot or other_start

    def _rows_used(self, rec_id: str, connection: sqlite3.Connection) -> list[FileRow]:
        rows = _rows_of(connection, rec_id)
        if rows and rec_id not in self._used:
            self._used.add(rec_id)
            self._to_mark.add(rec_id)
            if len(self._to_mark) >= _USED_AT_ONCE:
                self._mark_used(connection)
        return rows

    def _mark(self, connection: sqlite3.Connection, rec_id: str) -> None:
        if rec_id not in self._used or rec_id in self._to_mark:
            connection.execute(_USED, (rec_id, self._today))
            self._used.add(rec_id)
            self._to_mark.discard(rec_id)

    def _mark_used(self, connection: sqlite3.Connection) -> None:
        if self._to_mark:
            with writing(connection):
                connection.executemany(_USED, [(rec_id, self._today) for rec_id in sorted(self._to_mark)])
            self._to_mark.clear()

    def _proof(self, about: tuple[str, str, int, str], connection: sqlite3.Connection) -> str | None:
        statement = "SELECT * FROM proofs WHERE store = ? AND key = ? AND size_bytes = ? AND etag = ?"
        found = connection.execute(statement, about).fetchone()
        if found is None or seal(found[:5]) != found[6]:
            return None
        if found[5] != self._today:
            connection.execute(_PROOF_USED, (self._today, *about))
        return parse_sha256_or_none(found[4])

    def _begin_day(self, connection: sqlite3.Connection) -> None:
        """Once a day: drop what was not used for long. Goes by the days on which the cache was used, as it has them."""
        with writing(connection):
            if connection.execute("INSERT OR IGNORE INTO days VALUES (?)", (self._today,)).rowcount == 0:
                return
            connection.execute("DELETE FROM days WHERE day > ?", (self._today,))
            newest = "SELECT day FROM days ORDER BY day DESC LIMIT 1 OFFSET ?"
            sure = connection.execute(newest, (_SURE_DAYS - 1,)).fetchone()
            if sure is None:
                return
            before = (sure[0] - KEPT_DAYS,)
            for statement in (
                "DELETE FROM files WHERE rec_id IN (SELECT rec_id FROM recordings WHERE used_on < ?)",
                "DELETE FROM recordings WHERE used_on < ?",
                "DELETE FROM proofs WHERE used_on < ?",
                "DELETE FROM days WHERE day < ?",
            ):
                connection.execute(statement, before)


def _rows_of(connection: sqlite3.Connection, rec_id: str, path: str | None = None) -> list[FileRow]:
    """The rows of a recording, or of one path in it, that are as they were written."""
    if path is None:
        found = connection.execute(_SELECT, (rec_id,))
    else:
        found = connection.execute(f"{_SELECT} AND path = ?", (rec_id, path))
    return [row for values in found.fetchall() if (row := checked_row(values)) is not None]


def _remember_one(connection: sqlite3.Connection, row: FileRow) -> None:
    others = []
    for old in _rows_of(connection, row.rec_id, row.path):
        if old.fingerprint != row.fingerprint:
            others.append(old)
        elif old.sha256 == row.sha256:
            row = row._replace(etags=etags_text(parse_etags(row.etags), before=old.etags))
    connection.execute(_INSERT, row.sealed())
    _drop_oldest(connection, others)


def _drop_oldest(connection: sqlite3.Connection, others: Sequence[FileRow]) -> None:
    """Keep as many beside the one that has just been written as may be."""
    if len(others) >= KEPT:
        for row in sorted(others, key=lambda row: row.rank)[: len(others) - KEPT + 1]:
            connection.execute(_DELETE, (row.rec_id, row.path, row.fingerprint))


def _json_object(text: object) -> Mapping[str, Any] | None:
    try:
        value = orjson.loads(text) if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
