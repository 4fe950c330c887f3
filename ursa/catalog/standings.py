"""How many recordings stand in the catalog: looked up together, held as Arrow, and made rows of a few at a time.

A look-up costs about ten requests whether it is for one or for ten thousand; rows in Python take three times the memory
of the columns that they come from.
"""

from __future__ import annotations

import hashlib
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from arro3.core import Array, DataType, Table, list_flatten

from ursa.catalog.catalog import Catalog
from ursa.catalog.layout import overlapping
from ursa.catalog.metadata import covers
from ursa.catalog.reading import OpenTable
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.catalog.where import EVERYTHING, NOTHING, by_rec_id, rec_ids_from_to

Standing = tuple[RecordingRow, tuple[ModalityRow, ...]]
"""How a recording stands in the catalog."""

FRESH_FOR_S = 30.0
"""So old may what is said of a registered recording be; asking whether anybody has committed since is two requests."""
_MOST_AT_ONCE = 10_000
_MOST_BYTES = 64 << 20
# What a table's files grow to as Arrow, about: they are compressed, and hold a column's equal values once.
_GROWS_BY = 5
# A list of 10,000 names costs the planner 0.25 s and 35 MiB, a range nothing. The rows between that were not asked for
# cost little in recordings, and three to ten times as much in modalities.
_NEAR = 5
_DENSE = 1.5
_ROWS_AT_ONCE = 200
_SLICES_KEPT = 2


@dataclass(frozen=True, slots=True)
class _Found:
    """A look-up's result: which rows of which batch are of which recording. ``names`` is sorted."""

    recordings: Any
    modalities: Any
    names: Sequence[str] = ()
    of_recordings: Mapping[str, list[tuple[int, int]]] = field(default_factory=dict)
    of_modalities: Mapping[str, list[tuple[int, int]]] = field(default_factory=dict)


class Standings:
    """The standings of recordings that have their turn in the order of ``names`` ("" where one has none). Thread-safe.

    What is said is at most ``FRESH_FOR_S`` old where it says that a recording is registered; one that is not may have
    been registered since the last ``begin``, which its registration finds out.
    """

    def __init__(self, catalog: Callable[[], Catalog], names: Sequence[str], at_once: int = _MOST_AT_ONCE) -> None:
        self._catalog = catalog
        self._names = names
        self._at_once = at_once
        self._from = self._until = 0
        self._as_of: object = None
        self._checked_at = float("-inf")
        self._found = _Found(None, None)
        self._numbers: Mapping[str, int] = {}
        self._slices: dict[int, dict[str, Standing]] = {}
        self._hashes: array[int] | None = None
        self._lock = threading.Lock()

    def begin(self, at: int) -> int:
        """See to it that the recordings from position ``at`` on are looked up; returns up to which one they are.

        Raises:
            StorageError, ConfigError, CredentialsError: the catalog can't be read.
        """
        with self._lock:
            self._see(at, None)
            return self._until

    @property
    def registered(self) -> Sequence[str]:
        """Of the recordings that are looked up, those that are registered, sorted."""
        return self._found.names

    @property
    def files(self) -> int:
        """About how many files those have."""
        found = self._found.modalities
        chunks = found.column("files").chunks if found is not None else ()
        return sum(len(list_flatten(chunk)) for chunk in chunks) + 2 * len(self._found.names)

    def of(self, rec_id: str) -> Standing | None:
        """How it stands; None where it is not registered. Raises as ``begin``."""
        with self._lock:
            looked_up = self._as_of is not None
            if looked_up and rec_id not in self._numbers:
                return None
            if not looked_up or time.monotonic() - self._checked_at >= FRESH_FOR_S:
                self._see(self._from, self._until)
            number = self._numbers.get(rec_id)
            return None if number is None else self._rows(number // _ROWS_AT_ONCE).get(rec_id)

    def may_have(self, recording_hash: str) -> bool:
        """Whether a recording may be registered under this hash, as the catalog was when that was first asked. False is
        certain: eight bytes are kept of each hash. Raises as ``begin``.
        """
        with self._lock:
            if self._hashes is None:
                self._hashes = _hashes(self._catalog())
            wanted = _short(recording_hash)
            at = bisect_left(self._hashes, wanted)
            return at < len(self._hashes) and self._hashes[at] == wanted

    def now(self, rec_id: str) -> Standing | None:
        """How it stands at this moment. Raises as ``begin``."""
        return self._catalog().registered([rec_id]).get(rec_id)

    def _see(self, at: int, until: int | None) -> None:
        """Look up from ``at`` to ``until``, or as many as there is room for, unless that is known as the tables are now."""
        catalog = self._catalog()
        with catalog.lock:
            catalog.refresh(within_s=FRESH_FOR_S)
            self._checked_at = catalog.refreshed_at
            as_of = catalog.pointer.prefix, catalog.recordings.version, catalog.modalities.version
            if as_of == self._as_of and self._from <= at < self._until:
                return
            self._forget()
            names = self._names[at : until or at + min(self._at_once, _room(catalog))]
            self._found = _look_up(catalog, names)
        self._from, self._until, self._as_of = at, at + len(names), as_of
        self._numbers = {name: number for number, name in enumerate(self._found.names)}

    def _forget(self) -> None:
        """Before the next look-up, so that there are never two in memory."""
        self._as_of, self._found, self._numbers = None, _Found(None, None), {}
        self._slices.clear()

    def _rows(self, number: int) -> dict[str, Standing]:
        """The slice of this number; those who ask are at most a few recordings apart."""
        if number not in self._slices:
            while len(self._slices) >= _SLICES_KEPT:
                del self._slices[next(iter(self._slices))]
            names = self._found.names[number * _ROWS_AT_ONCE :][:_ROWS_AT_ONCE]
            self._slices[number] = dict(self._standings(names))
        return self._slices[number]

    def _standings(self, names: Sequence[str]) -> Iterator[tuple[str, Standing]]:
        catalog, found = self._catalog(), self._found
        modalities: dict[str, list[ModalityRow]] = {}
        for row in catalog.modalities.kind.rows(_taken(found.modalities, found.of_modalities, names)):
            modalities.setdefault(row.rec_id, []).append(row)
        for recording in catalog.recordings.kind.rows(_taken(found.recordings, found.of_recordings, names)):
            own = [row for row in modalities.get(recording.rec_id, ()) if covers(recording, row)]
            own.sort(key=lambda row: (row.modality, row.worker_id))
            yield recording.rec_id, (recording, tuple(own))


def _hashes(catalog: Catalog) -> array[int]:
    """Of all recordings, sorted."""
    with catalog.lock:
        found = catalog.recordings.query("SELECT recording_hash FROM recordings", where=EVERYTHING)
    return array("Q", sorted(_short(text) for chunk in found.column(0).chunks for text in chunk.to_pylist()))


def _short(recording_hash: str) -> int:
    return int.from_bytes(hashlib.blake2b(recording_hash.encode(), digest_size=8).digest(), "big")


def _room(catalog: Catalog) -> int:
    """How many recordings a look-up has room for, by what they take in the tables' files on average; at least one."""
    modalities = sum(file.size_bytes for file in catalog.modalities.files())
    recordings = catalog.recordings.files()
    total = modalities + sum(file.size_bytes for file in recordings)
    each = _GROWS_BY * total / max(1, sum(file.rows for file in recordings))
    return max(1, int(_MOST_BYTES / max(1.0, each)))


def _look_up(catalog: Catalog, rec_ids: Sequence[str]) -> _Found:
    names = set(filter(None, rec_ids))
    if names:
        catalog.bring_standing(rec_ids_from_to(names))
    near = overlapping(catalog.recordings.files(), names)
    recordings = _query(catalog.recordings, names, names_all=sum(file.rows for file in near) <= _NEAR * len(names))
    of_recordings = _places(recordings, names)
    most_of_them = recordings.num_rows <= _DENSE * len(of_recordings)
    modalities = _query(catalog.modalities, of_recordings, names_all=most_of_them)
    return _Found(recordings, modalities, sorted(of_recordings), of_recordings, _places(modalities, of_recordings))


def _query(table: OpenTable[Any], names: Collection[str], *, names_all: bool) -> Any:
    """The rows of these recordings; where they are about all in their range, whatever is in it."""
    where = NOTHING
    if names:
        where = rec_ids_from_to(names) if names_all else by_rec_id(names)
    return table.query(f"SELECT * FROM {table.kind.name} WHERE {where}", where=where)


def _places(table: Any, names: Collection[str]) -> dict[str, list[tuple[int, int]]]:
    """rec_id → (batch, row) of each of its rows."""
    places: dict[str, list[tuple[int, int]]] = {}
    for number, chunk in enumerate(table.column("rec_id").chunks):
        for row, rec_id in enumerate(chunk.to_pylist()):
            if rec_id in names:
                places.setdefault(rec_id, []).append((number, row))
    return places


def _taken(table: Any, places: Mapping[str, list[tuple[int, int]]], names: Sequence[str]) -> Any:
    """The rows of these recordings, as a table of its own."""
    batches: dict[int, list[int]] = {}
    for name in names:
        for batch, row in places.get(name, ()):
            batches.setdefault(batch, []).append(row)
    all_of_them = table.to_batches()
    taken = [all_of_them[batch].take(Array(rows, DataType.uint64())) for batch, rows in batches.items()]
    return Table.from_batches(taken, schema=table.schema)
