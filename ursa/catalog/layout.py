"""How the tables' files are laid out, so that a question costs the same in a catalog of ten thousand and of a million.

Measured in ``docs/decisions/005-layout-for-scale.md``; ``benchmarks/catalog.py`` measures again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from deltalake import BloomFilterProperties, ColumnProperties, WriterProperties

MIB = 1 << 20
SMALL_EVERY = 20
"""Whoever makes every so manyth commit of a table merges its small files."""
BIG_EVERY = 1000
"""And every so manyth one those that are of middling size."""
MOST_LITERALS = 20_000
"""Names in one condition; more than these make the planner slow (0.2 s for ten thousand), and a range has to do."""
SESSION = {
    # A small table's one file would be split between the cores, and its footer read once for each.
    "datafusion.optimizer.repartition_file_scans": "false",
}
_ROW_GROUP = 131_072
# Below this many rows the column itself is as cheap to read as its filter.
_FILTER_FROM_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Layout:
    """A table's files.

    ``key``: the column that files are sorted and skipped by. ``hashes``: columns of random values that are looked up,
    which get a bloom filter. Files below ``often_bytes`` are merged often, below ``small_bytes`` when a batch ends, up
    to ``big_bytes`` seldom: a merge takes ten times the size of what it makes in memory, which a batch that is under
    way has little of, and a bigger file would make the replacement of one row dear, which writes its file anew.
    ``page_rows``: what one row's look-up reads; ``row_group``: what a question about many is read in, a request for
    each column and group.
    """

    key: str
    hashes: tuple[str, ...]
    often_bytes: int
    small_bytes: int
    big_bytes: int
    page_rows: int
    row_group: int = _ROW_GROUP

    def writer(self, rows: int) -> WriterProperties:
        """How a file of (up to) so many rows is written."""
        columns = {}
        if rows >= _FILTER_FROM_ROWS:
            bloom = BloomFilterProperties(True, fpp=0.01, ndv=min(rows, _ROW_GROUP))
            columns = dict.fromkeys(
                self.hashes, ColumnProperties(dictionary_enabled=False, bloom_filter_properties=bloom)
            )
        return WriterProperties(
            compression="ZSTD",
            compression_level=1,
            max_row_group_size=self.row_group,
            data_page_row_count_limit=self.page_rows,
            column_properties=columns or None,
        )


LAYOUTS = {
    "recordings": Layout("rec_id", ("recording_hash",), 2 * MIB, 4 * MIB, 64 * MIB, 1000),
    "modalities": Layout("rec_id", (), 2 * MIB, 4 * MIB, 128 * MIB, 500, 4 * _ROW_GROUP),
    "participants": Layout("participant_id", (), 2 * MIB, 4 * MIB, 32 * MIB, 1000),
}


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file of a table's snapshot: ``low`` and ``high`` bound its keys, "" where nobody counted them; ``bounds``
    are those of the other columns that conditions are told by, where they are known.
    """

    path: str
    size_bytes: int
    rows: int
    low: str = ""
    high: str = ""
    bounds: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


def depth(files: Collection[DataFile]) -> int:
    """The most files that one key may lie in: what a look-up has to open, at worst."""
    edges = sorted([(file.low, 0) for file in files] + [(file.high, 1) for file in files])
    deepest = now = 0
    for _, leaving in edges:
        now += -1 if leaving else 1
        deepest = max(deepest, now)
    return deepest


def overlapping(files: Collection[DataFile], keys: Collection[str]) -> list[DataFile]:
    """Files that may hold a key between the first and the last of these; all where there are no keys."""
    low, high = min(keys, default=""), max(keys, default="")
    return [file for file in files if not (keys and file.high) or (file.low <= high and file.high >= low)]
