"""An open catalog: look-ups, filtered lists, and the tables for those who write.

A recording is visible when it has a row in ``recordings``; modalities without one are not. Recordings are refreshed
before modalities, so that whatever recording is seen, its modalities are seen too.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

from ursa.catalog._pointer import Pointer
from ursa.catalog.arrow import MODALITIES, PARTICIPANTS, RECORDINGS, TableKind
from ursa.catalog.home import KINDS, CatalogHome
from ursa.catalog.later import Later
from ursa.catalog.metadata import covers
from ursa.catalog.rows import ModalityRow, ParticipantRow, RecordingRow, participant_id
from ursa.catalog.tables import CatalogTable, Change, FrozenError
from ursa.catalog.where import any_of, by_hash, by_rec_id, condition, literal, starting_with
from ursa.errors import RecordingNotFoundError, StorageError, UsageError

T = TypeVar("T")

# How long a writer waits for a rebuild to flip the pointer, seconds: its last catch-up takes a few.
_FROZEN_FOR_S = 120.0
_HASH_DIGITS = 64
_VISIBLE = (
    "EXISTS (SELECT 1 FROM recordings WHERE recordings.rec_id = modalities.rec_id"
    " AND recordings.recording_hash = modalities.recording_hash)"
)


class Catalog:
    """The live catalog of a profile. One lock serves all threads of a process: deltalake's handles are not shared.

    The participants' table is opened when somebody needs it: who finds that all is registered never does.
    """

    def __init__(self, home: CatalogHome, pointer: Pointer | None = None) -> None:
        """The live catalog, or (for a rebuild, which fills it) the one that ``pointer`` would make live."""
        self.home = home
        self.lock = threading.RLock()
        self._open(pointer or home.pointer())

    @classmethod
    def open(cls, home: CatalogHome) -> Self:
        """Resolve ``ACTIVE.json`` and open the tables that it names."""
        return cls(home)

    @staticmethod
    def table_class(_kind: TableKind[Any]) -> type[CatalogTable[Any]]:
        """What a table is opened as."""
        return CatalogTable

    def _open(self, pointer: Pointer) -> None:
        self.pointer = pointer
        with ThreadPoolExecutor(2) as pool:
            # Two times six round trips: side by side. Recordings are seen first, see the module's docstring.
            recordings = pool.submit(self._table, RECORDINGS)
            modalities = pool.submit(self._table, MODALITIES)
        self.recordings: CatalogTable[RecordingRow] = recordings.result()
        self.modalities: CatalogTable[ModalityRow] = modalities.result()
        self._participants: Later[CatalogTable[ParticipantRow]] = Later(lambda: self._table(PARTICIPANTS))
        self._known_participants: set[str] = set()
        # A registration asks the same twice, and the second time nobody has committed as a rule.
        self._last_lookup: tuple[object, list[RecordingRow]] = (None, [])
        self.modalities.refresh()
        self.refreshed_at = time.monotonic()

    def _table(self, kind: TableKind[T]) -> CatalogTable[T]:
        home, prefix = self.home, self.pointer.prefix
        files = home.table_files(prefix, kind.name)
        opened_as = self.table_class(kind)
        return opened_as(kind, home.table_uri(prefix, kind.name), home.options(), home.author, files)

    @property
    def participants(self) -> CatalogTable[ParticipantRow]:
        """The participants' table."""
        return self._participants.get()

    def open_participants(self) -> None:
        """Begin to open their table, which whoever goes on with a look-up first will need then."""
        self._participants.begin()

    def follow_pointer(self) -> bool:
        """Read the pointer again; where it has flipped, open what it names now and return True."""
        with self.lock:
            pointer = self.home.pointer()
            if pointer.prefix == self.pointer.prefix:
                return False
            self._open(pointer)
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
                        self.participants.refresh()

    def refresh(self, *, within_s: float = 0.0) -> None:
        """See what others have committed, in the order that keeps recordings whole; in the live catalog, should a
        rebuild have put another one in this one's place. Nothing is asked where that was done within ``within_s`` seconds.
        """
        with self.lock:
            began = time.monotonic()
            if within_s and began - self.refreshed_at < within_s:
                return
            self.recordings.refresh()
            if not (self.recordings.frozen and self.follow_pointer()):
                self.modalities.refresh()
            self.refreshed_at = began

    def maintain(self) -> None:
        """Merge what a run has left in small files, for those who read next; that it fails is no error."""
        with self.lock:
            tables: list[CatalogTable[Any]] = [self.recordings, self.modalities]
            for table in [*tables, *([self.participants] if self._participants.begun else [])]:
                table.tidy()

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
        with self.lock:
            self.refresh()
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
        return self._one(f"rec_id = {literal(rec_id)}", rec_id)

    def resolve(self, ref: str) -> RecordingRow:
        """The recording that a rec_id, a hash, or a unique prefix of one names.

        Raises:
            RecordingNotFoundError: none has it.
            UsageError: several have it.
        """
        with self.lock:
            self.refresh()
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

    def select_recordings(self, sql: str) -> list[RecordingRow]:
        """Recordings that meet a SQL condition made by ``ursa.catalog.where``."""
        with self.lock:
            self.refresh()
            return self.recordings.select(sql, tail="ORDER BY rec_id")

    def list_modalities(self, where: Mapping[str, Any] | None = None) -> list[ModalityRow]:
        """Modalities of visible recordings."""
        sql = condition(MODALITIES, where)
        hashes = (where or {}).get("recording_hash")
        with self.lock:
            self.refresh()
            if isinstance(hashes, str):
                # A hash skips nothing here: its rec_id does.
                named = self.recordings.select(by_hash([hashes]))
                sql = f"{sql} AND {by_rec_id(row.rec_id for row in named)}"
            rows = self.modalities.select(
                f"{sql} AND {_VISIBLE}",
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

    def refuse_dated(self) -> None:
        """Before anything is uploaded for it. Raises ``StorageError`` where rows of recordings can't be written."""
        self.recordings.refuse_dated()
        self.modalities.refuse_dated()

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
        with self.lock:
            self.participants.refresh()
            return self.participants.select(sql, tail="ORDER BY display_name, participant_id")

    def ensure_participants(self, names: Iterable[str], operation_id: str = "") -> tuple[str, ...]:
        """The ids of these names; rows are made for those that have none."""
        wanted = {participant_id(name): name for name in names}
        if not self._known_participants.issuperset(wanted):
            self.participants.compare_and_swap(lambda: self._missing_participants(wanted, operation_id))
            self._known_participants |= wanted.keys()
        return tuple(sorted(wanted))

    def forget_participants(self) -> None:
        """Look participants up again: rows that were there may be gone."""
        self._known_participants.clear()

    def _missing_participants(self, wanted: Mapping[str, str], operation_id: str) -> Change[ParticipantRow] | None:
        there = {row.participant_id for row in self.participants.select(any_of("participant_id", wanted))}
        now = datetime.now(UTC)
        rows = [ParticipantRow(key, name, now) for key, name in wanted.items() if key not in there]
        return Change(rows, None, "register_participant", operation_id) if rows else None

    def _one(self, sql: str, ref: str) -> RecordingRow:
        with self.lock:
            self.refresh()
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
