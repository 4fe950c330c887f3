"""An open catalog: look-ups, filtered lists, and the tables for those who write.

A recording is visible when it has a row in ``recordings``; modalities without one are not. Recordings are refreshed
before modalities, so that whatever recording is seen, its modalities are seen too.
"""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

from ursa.beside import begin, each
from ursa.catalog._pointer import Pointer
from ursa.catalog.arrow import MODALITIES, PARTICIPANTS, RECORDINGS, TableKind
from ursa.catalog.home import KINDS, CatalogHome
from ursa.catalog.metadata import covers
from ursa.catalog.rows import ModalityRow, ParticipantRow, RecordingRow, participant_id
from ursa.catalog.tables import CatalogTable, Change, FrozenError
from ursa.catalog.where import Where, any_of, by_hash, by_rec_id, condition, starting_with
from ursa.errors import CatalogDamagedError, RecordingNotFoundError, StorageError, UrsaError, UsageError

T = TypeVar("T")
Tables = tuple[CatalogTable[RecordingRow], CatalogTable[ModalityRow], CatalogTable[ParticipantRow]]

# How long a writer waits for a rebuild to flip the pointer, seconds: its last catch-up takes a few.
_FROZEN_FOR_S = 120.0
_HASH_DIGITS = 64
_VISIBLE = Where(
    "EXISTS (SELECT 1 FROM recordings WHERE recordings.rec_id = modalities.rec_id"
    " AND recordings.recording_hash = modalities.recording_hash)"
)


class Catalog:
    """The live catalog of a profile. One lock serves all threads of a process: deltalake's handles are not shared."""

    def __init__(self, home: CatalogHome, pointer: Pointer | None = None) -> None:
        """The live catalog, or (for a rebuild, which fills it) the one that ``pointer`` would make live."""
        self.home = home
        self.lock = threading.RLock()
        self._fixed = pointer
        self._pointer: Pointer | None = None
        self._tables: Tables | None = None
        # Ids that have a row in a version of the table.
        self._known_participants: tuple[int, frozenset[str]] = (-1, frozenset())
        # A registration asks the same twice, and the second time nobody has committed as a rule.
        self._last_lookup: tuple[object, list[RecordingRow]] = (None, [])
        self.refreshed_at = float("-inf")
        self._reading = 0
        self._putting_off = 0
        self._counting = threading.Lock()

    @classmethod
    def open(cls, home: CatalogHome) -> Self:
        """The live catalog. Nothing is asked before it is needed: then ``refresh`` reads ``ACTIVE.json`` and the logs."""
        return cls(home)

    @classmethod
    def named_now(cls, home: CatalogHome) -> Self:
        """The catalog that ``ACTIVE.json`` names now; it stays this one, also where another becomes the live one."""
        return cls(home, home.pointer())

    @staticmethod
    def table_class(_kind: TableKind[Any]) -> type[CatalogTable[Any]]:
        """What a table is opened as."""
        return CatalogTable

    def _table(self, kind: TableKind[T], prefix: str) -> CatalogTable[T]:
        home = self.home
        replica = home.replica(prefix, kind.name)
        table = self.table_class(kind)(kind, home.table_uri(prefix, kind.name), replica, home.author)
        table.put_off = lambda: self._putting_off > 0
        return table

    def _open(self, prefix: str) -> Tables:
        """Open the replicas of a prefix, as they were left; nothing is asked."""
        return self._table(RECORDINGS, prefix), self._table(MODALITIES, prefix), self._table(PARTICIPANTS, prefix)

    @property
    def pointer(self) -> Pointer:
        """What ``ACTIVE.json`` said when it was last read."""
        if self._pointer is None:
            self.refresh()
        assert self._pointer is not None
        return self._pointer

    @property
    def tables(self) -> Tables:
        """Recordings, modalities, participants."""
        if self._tables is None or self._pointer is None:
            self.refresh()
        assert self._tables is not None
        return self._tables

    @property
    def recordings(self) -> CatalogTable[RecordingRow]:
        """The recordings' table."""
        return self.tables[0]

    @property
    def modalities(self) -> CatalogTable[ModalityRow]:
        """The modalities' table."""
        return self.tables[1]

    @property
    def participants(self) -> CatalogTable[ParticipantRow]:
        """The participants' table."""
        return self.tables[2]

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Self]:
        """The catalog as it is now, for one or several reads: it is asked once, at the outermost of nested ones."""
        with self.lock:
            if not self._reading:
                self.refresh()
            self._reading += 1
            try:
                yield self
            finally:
                self._reading -= 1

    def follow_pointer(self, *tables: CatalogTable[Any]) -> bool:
        """Read the pointer again, and beside it the news of ``tables``; where it has flipped, open what it names now and
        return True.
        """
        with self.lock:
            before, asked = self.pointer, begin(self._read_pointer)
            try:
                each(lambda table: table.refresh(), tables)
            except UrsaError:
                # What was left may be deleted.
                if asked.result().prefix == before.prefix:
                    raise
            if asked.result().prefix == before.prefix:
                return False
            self.refresh()
            return True

    def write(self, action: Callable[[], T]) -> T:
        """Run a write. Where a rebuild has frozen this catalog: wait for its flip, and run it again on the new one.

        Raises:
            StorageError: the rebuild does not get on.
        """
        deadline = time.monotonic() + _FROZEN_FOR_S
        with self.lock:
            while True:
                try:
                    return action()
                except FrozenError as error:
                    if time.monotonic() > deadline:
                        raise frozen_error(str(error)) from None
                    if not self.follow_pointer():
                        time.sleep(random.uniform(0.2, 1.0))
                        self.refresh()

    def refresh(self, *, within_s: float = 0.0) -> None:
        """See what others have committed, in an order that keeps recordings whole; in the catalog that ``ACTIVE.json``
        names now. Nothing is asked where that was done within ``within_s`` seconds.

        The pointer and the three logs are asked side by side: one round trip where nothing is new.
        """
        with self.lock:
            began = time.monotonic()
            if within_s and began - self.refreshed_at < within_s:
                return
            self._sync()
            self.refreshed_at = began

    def refresh_if_idle(self) -> None:
        """The same, unless somebody is at the catalog: who commits refreshes it anyway."""
        if self.lock.acquire(blocking=False):
            try:
                self.refresh()
            finally:
                self.lock.release()

    def _sync(self) -> None:
        asked = begin(self._read_pointer)
        prefix = self._pointer.prefix if self._pointer else self.home.last_prefix
        tables = self._tables or (self._open(prefix) if prefix is not None else None)
        if tables is not None:
            try:
                self._follow(tables)
            except CatalogDamagedError:
                # The prefix may be one that was left, and deleted. Or all of it was, and is being made anew.
                if asked.result().prefix == prefix:
                    self._follow(tables)
            except UrsaError:
                if asked.result().prefix == prefix:
                    raise
        pointer = asked.result()
        if tables is None or pointer.prefix != prefix:
            tables = self._open(pointer.prefix)
            self._follow(tables)
        if tables is not self._tables:
            self._known_participants = (-1, frozenset())
            self._last_lookup = (None, [])
        self._tables, self._pointer = tables, pointer
        if self._fixed is None and not self.home.offline:
            self.home.remember(pointer)

    def _read_pointer(self) -> Pointer:
        return self._fixed or self.home.pointer()

    @staticmethod
    def _follow(tables: Tables) -> None:
        """See the logs' news. Recordings are looked at first: whatever recording is seen, its modalities, and the names
        of its participants, are seen too.
        """
        recordings, modalities, participants = tables
        others: tuple[CatalogTable[Any], ...] = (modalities, participants)
        early = [begin(table.look) for table in others]
        seen = recordings.look()
        if seen.news:
            early = [begin(table.look) for table in others]
        first = begin(lambda: recordings.follow(seen))
        try:
            each(lambda item: item[0].follow(item[1].result()), list(zip(others, early, strict=True)))
        finally:
            first.result()
        if recordings.version > seen.newest:
            # They were looked at once more on the way, after the others.
            each(lambda table: table.refresh(), others)

    def bring(self, *wanted: tuple[CatalogTable[Any], Where]) -> None:
        """Fetch the data files that these questions need, side by side, where they are not here. Raises as the questions."""
        each(lambda item: item[0].need(item[1]), wanted)

    def bring_standing(self, where: Where) -> None:
        """The same for recordings that meet a condition on their rec_id, with their modalities."""
        self.bring((self.recordings, where), (self.modalities, where))

    @contextlib.contextmanager
    def upkeep_later(self) -> Iterator[None]:
        """What commits owe to later readers waits until somebody calls ``upkeep``: a registration is told before that."""
        with self._counting:
            self._putting_off += 1
        try:
            yield
        finally:
            with self._counting:
                self._putting_off -= 1

    def upkeep(self) -> None:
        """Checkpoints that are owed, and files to be merged; that it fails is no error."""
        tables: tuple[CatalogTable[Any], ...] = self._tables or ()
        if any(table.owes for table in tables):
            with self.lock, contextlib.suppress(OSError, UrsaError):
                each(lambda table: table.upkeep(), tables)

    def locations(self) -> dict[str, str]:
        """Table name → URI."""
        return {kind.name: self.home.table_uri(self.pointer.prefix, kind.name) for kind in KINDS}

    def lookup(self, *, rec_id: str, recording_hash: str | None) -> list[RecordingRow]:
        """Rows with this rec_id or this hash: none, one, or two that contradict each other."""
        return self.lookup_all([rec_id], [recording_hash] if recording_hash is not None else [])

    def lookup_all(self, rec_ids: Iterable[str], recording_hashes: Iterable[str]) -> list[RecordingRow]:
        """Rows with any of these rec_ids or hashes, as of the last refresh."""
        names, hashes = frozenset(rec_ids), frozenset(recording_hashes)
        conditions = [by_rec_id(names)] if names else []
        if hashes:
            conditions.append(by_hash(hashes))
        with self.lock:
            question = (self.recordings.version, names, hashes)
            if self._last_lookup[0] != question:
                rows = self.recordings.select(*conditions) if conditions else []
                found = [row for row in _once(rows) if row.rec_id in names or row.recording_hash in hashes]
                self._last_lookup = (question, sorted(found, key=lambda row: row.rec_id))
            return list(self._last_lookup[1])

    def registered(self, rec_ids: Iterable[str]) -> dict[str, tuple[RecordingRow, tuple[ModalityRow, ...]]]:
        """Which of these recordings are registered, and with which modalities.

        One refresh, and as many requests for ten thousand recordings as their files in the catalog take.
        """
        names = set(rec_ids)
        with self.snapshot():
            self.bring_standing(by_rec_id(names))
            recordings = self.lookup_all(names, ())
            modalities: dict[str, list[ModalityRow]] = {row.rec_id: [] for row in recordings}
            of = {row.rec_id: row for row in recordings}
            for row in self.modalities_for(recordings):
                if covers(of[row.rec_id], row):
                    modalities[row.rec_id].append(row)
        return {row.rec_id: (row, tuple(modalities[row.rec_id])) for row in recordings}

    def modalities_of(self, recording_hash: str) -> list[ModalityRow]:
        """All modality rows of the recording with this hash, in order; none where it is not registered."""
        with self.lock:
            return self.modalities_for(self.recordings.select(by_hash([recording_hash])))

    def get_recording(self, recording_hash: str) -> RecordingRow:
        """The recording with this hash. Raises ``RecordingNotFoundError``."""
        return self._one(by_hash([recording_hash]), recording_hash)

    def find_recording(self, rec_id: str) -> RecordingRow:
        """The recording with this rec_id. Raises ``RecordingNotFoundError``."""
        return self._one(any_of("rec_id", [rec_id]), rec_id)

    def resolve(self, ref: str) -> RecordingRow:
        """The recording that a rec_id, a hash, or a unique prefix of one names.

        Raises:
            RecordingNotFoundError: none has it.
            UsageError: several have it.
        """
        with self.snapshot():
            rows = self._starting_with(ref) if ref else []
        exact = [row for row in rows if ref in (row.rec_id, row.recording_hash)]
        if not rows:
            raise _not_found(ref)
        if len(exact or rows) > 1:
            names = ", ".join(row.rec_id for row in rows[:5]) + (" …" if len(rows) > 5 else "")
            raise UsageError(f"{ref!r} is not unique: {names}", hint="Write more of the rec_id or of the hash.")
        return (exact or rows)[0]

    def _starting_with(self, ref: str) -> list[RecordingRow]:
        """Up to six recordings whose rec_id starts with ``ref``, or whose hash does where it can be a hash's."""
        rows = self.recordings.select(starting_with("rec_id", ref), tail="ORDER BY rec_id LIMIT 6")
        if re.fullmatch(r"[0-9a-f]{1,64}", ref):
            # A whole hash has a bloom filter; of a part every hash is read.
            hashes = by_hash([ref]) if len(ref) == _HASH_DIGITS else starting_with("recording_hash", ref)
            rows += self.recordings.select(hashes, tail="ORDER BY rec_id LIMIT 6")
        return sorted(_once(rows), key=lambda row: row.rec_id)

    def list_recordings(self, where: Mapping[str, Any] | None = None) -> list[RecordingRow]:
        """Recordings in the order of their rec_id, that is by date."""
        return self.select_recordings(condition(RECORDINGS, where))

    def select_recordings(self, sql: Where) -> list[RecordingRow]:
        """Recordings that meet a SQL condition made by ``ursa.catalog.where``."""
        with self.snapshot():
            return self.recordings.select(sql, tail="ORDER BY rec_id")

    def list_modalities(self, where: Mapping[str, Any] | None = None) -> list[ModalityRow]:
        """Modalities of visible recordings."""
        sql = condition(MODALITIES, where)
        hashes = (where or {}).get("recording_hash")
        with self.snapshot():
            if isinstance(hashes, str):
                # A hash skips nothing here: its rec_id does.
                named = self.recordings.select(by_hash([hashes]))
                sql = sql & by_rec_id(row.rec_id for row in named)
            rows = self.modalities.select(
                sql & _VISIBLE,
                also={"recordings": self.recordings},
                tail="ORDER BY recording_hash, modality, worker_id",
            )
            names = {row.rec_id for row in rows}
            of = {row.recording_hash: row for row in self.recordings.select(by_rec_id(names))} if names else {}
        return [row for row in rows if row.recording_hash in of and covers(of[row.recording_hash], row)]

    @property
    def dated(self) -> bool:
        """Whether it is of before the rule of evidence; see ``OpenTable.dated``."""
        return self.recordings.dated or self.modalities.dated

    def refuse_unwritable(self) -> None:
        """Before anything is uploaded for it. Raises ``StorageError`` where rows of recordings can't be written."""
        self.recordings.refuse_unwritable()
        self.modalities.refuse_unwritable()

    def modalities_for(self, recordings: Iterable[RecordingRow]) -> list[ModalityRow]:
        """Modalities of these recordings, as of the last refresh. Only rec_id and recording_hash are looked at."""
        wanted = {(row.rec_id, row.recording_hash) for row in recordings}
        if not wanted:
            return []
        with self.lock:
            rows = self.modalities.select(by_rec_id(rec_id for rec_id, _ in wanted))
        found = [row for row in rows if (row.rec_id, row.recording_hash) in wanted]
        return sorted(found, key=lambda row: (row.modality, row.worker_id))

    def list_participants(self, where: Mapping[str, Any] | None = None) -> list[ParticipantRow]:
        """Participants in the order of their names."""
        sql = condition(PARTICIPANTS, where)
        with self.snapshot():
            return self.participants.select(sql, tail="ORDER BY display_name, participant_id")

    def ensure_participants(self, names: Iterable[str], operation_id: str = "") -> tuple[str, ...]:
        """The ids of these names; rows are made for those that have none."""
        wanted = {participant_id(name): name for name in names}
        version, known = self._known_participants
        if version != self.participants.version or not known.issuperset(wanted):
            # The same in each attempt: rows that are the same need only another place in the log after a lost race.
            created_at = datetime.now(UTC)
            self.participants.compare_and_swap(lambda: self._missing_participants(wanted, operation_id, created_at))
            now = self.participants.version
            self._known_participants = now, (known if now == version else frozenset()) | wanted.keys()
        return tuple(sorted(wanted))

    def forget_participants(self) -> None:
        """Look participants up again: rows that were there may be gone."""
        self._known_participants = (-1, frozenset())

    def _missing_participants(
        self, wanted: Mapping[str, str], operation_id: str, created_at: datetime
    ) -> Change[ParticipantRow] | None:
        there = {row.participant_id for row in self.participants.select(any_of("participant_id", wanted))}
        rows = [ParticipantRow(key, name, created_at) for key, name in wanted.items() if key not in there]
        return Change(rows, None, "register_participant", operation_id) if rows else None

    def _one(self, sql: Where, ref: str) -> RecordingRow:
        with self.snapshot():
            rows = self.recordings.select(sql)
        if not rows:
            raise _not_found(ref)
        return rows[0]


def _once(rows: Iterable[RecordingRow]) -> list[RecordingRow]:
    """Without the rows that were found twice."""
    return list({(row.rec_id, row.recording_hash): row for row in rows}.values())


def frozen_error(prefix: str) -> StorageError:
    """The error where a rebuild is under way, or was begun and not finished."""
    return StorageError(
        f"the catalog is frozen by a rebuild that has not finished: {prefix} is to take its place",
        hint="Nothing was written. Let an admin run `ursa catalog rebuild` again, which goes on from there"
        " (or `ursa catalog rebuild --abort`), then run the same command again.",
    )


def _not_found(ref: str) -> RecordingNotFoundError:
    return RecordingNotFoundError(
        f"no recording {ref!r} in the catalog",
        hint="`ursa ls` lists what is there; `ursa ingest <rec_dir>` registers a recording.",
        ref=ref,
    )
