"""An open catalog: look-ups, filtered lists, and the tables for those who write.

A recording is visible when it has a row in ``recordings``; modalities without one are not. Recordings are refreshed
before modalities, so that whatever recording is seen, its modalities are seen too.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from ursa.catalog.arrow import MODALITIES, PARTICIPANTS, RECORDINGS
from ursa.catalog.home import KINDS, CatalogHome
from ursa.catalog.rows import ModalityRow, ParticipantRow, RecordingRow, participant_id
from ursa.catalog.tables import CatalogTable, Change, FrozenError
from ursa.catalog.where import any_of, by_hash, condition, literal
from ursa.errors import RecordingNotFoundError, StorageError, UsageError

T = TypeVar("T")

# How long a writer waits for a rebuild to flip the pointer, seconds: its last catch-up takes a few.
_FROZEN_FOR_S = 120.0
_VISIBLE = "recording_hash IN (SELECT recording_hash FROM recordings)"


class Catalog:
    """The live catalog of a profile. One lock serves all threads of a process: deltalake's handles are not shared."""

    def __init__(self, home: CatalogHome) -> None:
        self.home = home
        self.lock = threading.RLock()
        self._open()

    @classmethod
    def open(cls, home: CatalogHome) -> Catalog:
        """Resolve ``ACTIVE.json`` and open the three tables that it names."""
        return cls(home)

    def _open(self) -> None:
        self.pointer = self.home.pointer()
        options = self.home.options()
        author = self.home.author
        uri = self.home.table_uri
        prefix = self.pointer.prefix
        with ThreadPoolExecutor(len(KINDS)) as pool:
            # Three times four round trips: side by side. Recordings are seen first, see the module's docstring.
            opened = pool.map(lambda kind: CatalogTable(kind, uri(prefix, kind.name), options, author), KINDS)
            recordings, modalities, participants = opened
        self.recordings: CatalogTable[RecordingRow] = recordings
        self.modalities: CatalogTable[ModalityRow] = modalities
        self.participants: CatalogTable[ParticipantRow] = participants
        self._known_participants: set[str] = set()
        self.modalities.refresh()

    def follow_pointer(self) -> bool:
        """Read the pointer again; where it has flipped, open what it names now and return True."""
        with self.lock:
            if self.home.pointer().prefix == self.pointer.prefix:
                return False
            self._open()
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
                        raise _frozen(str(error)) from None
                    if not self.follow_pointer():
                        time.sleep(random.uniform(0.2, 1.0))
                        self.refresh()

    def refresh(self) -> None:
        """See what others have committed, in the order that keeps recordings whole."""
        with self.lock:
            self.recordings.refresh()
            self.modalities.refresh()

    def locations(self) -> dict[str, str]:
        """Table name → URI."""
        return {table.kind.name: table.uri for table in (self.recordings, self.modalities, self.participants)}

    def lookup(self, *, rec_id: str, recording_hash: str | None) -> list[RecordingRow]:
        """Rows with this rec_id or this hash: none, one, or two that contradict each other."""
        return self.lookup_all([rec_id], [recording_hash] if recording_hash is not None else [])

    def lookup_all(self, rec_ids: Iterable[str], recording_hashes: Iterable[str]) -> list[RecordingRow]:
        """Rows with any of these rec_ids or hashes, as of the last refresh."""
        terms = [any_of("rec_id", rec_ids)]
        hashes = list(recording_hashes)
        if hashes:
            terms.append(f"({by_hash(hashes)})")
        with self.lock:
            return self.recordings.select(" OR ".join(terms))

    def modalities_of(self, recording_hash: str) -> list[ModalityRow]:
        """All modality rows under a hash, in order, visible or not."""
        with self.lock:
            return self.modalities.select(by_hash([recording_hash]), tail="ORDER BY modality, worker_id")

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
            pattern = literal(ref)
            rows = self.recordings.select(
                f"starts_with(rec_id, {pattern}) OR starts_with(recording_hash, {pattern})",
                tail="ORDER BY rec_id LIMIT 6",
            )
        exact = [row for row in rows if ref in (row.rec_id, row.recording_hash)]
        if not ref or not rows:
            raise _not_found(ref)
        if len(exact or rows) > 1:
            names = ", ".join(row.rec_id for row in rows[:5]) + (" …" if len(rows) > 5 else "")
            raise UsageError(f"{ref!r} is not unique: {names}", hint="Write more of the rec_id or of the hash.")
        return (exact or rows)[0]

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
        with self.lock:
            self.refresh()
            return self.modalities.select(
                f"{sql} AND {_VISIBLE}",
                also={"recordings": self.recordings},
                tail="ORDER BY recording_hash, modality, worker_id",
            )

    def modalities_for(self, recordings: Iterable[RecordingRow]) -> list[ModalityRow]:
        """Modalities of these recordings, as of the last refresh."""
        hashes = [row.recording_hash for row in recordings]
        with self.lock:
            return self.modalities.select(by_hash(hashes), tail="ORDER BY modality, worker_id")

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

    def _missing_participants(
        self, wanted: Mapping[str, str], operation_id: str
    ) -> Change[ParticipantRow] | None:
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


def _frozen(prefix: str) -> StorageError:
    return StorageError(
        f"the catalog is frozen by a rebuild that has not finished: {prefix} is to take its place",
        hint="Nothing was registered. Let an admin run `ursa catalog rebuild` again, which goes on from there"
        " (or `ursa catalog rebuild --abort`), then run the same command again.",
    )


def _not_found(ref: str) -> RecordingNotFoundError:
    return RecordingNotFoundError(
        f"no recording {ref!r} in the catalog",
        hint="`ursa ls` lists what is there; `ursa ingest <rec_dir>` registers a recording.",
        ref=ref,
    )
