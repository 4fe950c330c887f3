"""What tells two versions of a table apart, row by row, found by the query engine and not in Python."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ursa.catalog.layout import DataFile
from ursa.catalog.reading import OpenTable, View
from ursa.catalog.where import EVERYTHING, Where, from_to

# More ranges than these are taken as one.
_MOST_RANGES = 50


@dataclass(frozen=True, slots=True)
class Differing:
    """A row that two versions do not have alike: ``gone`` from the other one, ``back`` in it, or with other values.

    ``key``: its values of the table's key columns.
    """

    key: tuple[str, ...]
    gone: bool
    back: bool


def differences(table: OpenTable[Any], other: View, key: Sequence[str]) -> list[Differing]:
    """Rows of the open version that ``other`` lacks, has besides, or has with other values.

    Only files that one of the two has alone are asked about: they share the rest. Raises ``StorageError``.
    """
    ours = {file.path: file for file in table.files()}
    theirs = {file.path: file for file in other.files}
    alone = [file for path, file in (ours | theirs).items() if (path in ours) != (path in theirs)]
    if not alone:
        return []
    within = _within(table.layout.key, alone)
    views = {table.kind.name: table.view, "other": other}
    found = table.run(_sql(table, key, within), views, dict.fromkeys(views, within))
    columns = [found.column(name).to_pylist() for name in (*key, "gone", "back")]
    return [Differing(tuple(values[:-2]), *values[-2:]) for values in zip(*columns, strict=True)]


def _sql(table: OpenTable[Any], key: Sequence[str], within: Where) -> str:
    one, two = (f"(SELECT * FROM {name} WHERE {within})" for name in (table.kind.name, "other"))
    on = " AND ".join(f"a.{column} = b.{column}" for column in key)
    names = ", ".join(f"coalesce(a.{column}, b.{column}) AS {column}" for column in key)
    first = key[0]
    unlike = " OR ".join(
        f"({_comparable('a', name)} IS DISTINCT FROM {_comparable('b', name)})"
        for name in table.kind.columns
        if name not in key
    )
    return (
        f"SELECT {names}, b.{first} IS NULL AS gone, a.{first} IS NULL AS back FROM {one} a FULL OUTER JOIN {two} b"
        f" ON {on} WHERE (a.{first} IS NULL) OR (b.{first} IS NULL) OR {unlike}"
    )


def _comparable(alias: str, column: str) -> str:
    return f"map_entries({alias}.{column})" if column == "metadata" else f"{alias}.{column}"


def _within(column: str, files: Sequence[DataFile]) -> Where:
    """The ranges of these files' keys; everything where one of them tells none."""
    if not all(file.low and file.high for file in files):
        return EVERYTHING
    ranges = sorted({(file.low, file.high) for file in files})
    if len(ranges) > _MOST_RANGES:
        ranges = [(ranges[0][0], max(high for _, high in ranges))]
    return functools.reduce(operator.or_, (from_to(column, low, high) for low, high in ranges))
