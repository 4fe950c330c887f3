"""``where={column: value}`` to SQL, with every value quoted."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import operator
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ursa.catalog.arrow import TableKind
from ursa.catalog.layout import MOST_LITERALS, DataFile
from ursa.catalog.rows import ModalityRow
from ursa.errors import UsageError

_MOST_BOXES = 32
_MILLISECOND = timedelta(milliseconds=1)
Box = Mapping[str, tuple[Any, Any]]
"""Column → the least and the greatest value that can meet a condition."""


@dataclass(frozen=True, slots=True)
class Where:
    """A SQL condition, and what it takes for a data file to hold rows that meet it: values within any one of ``boxes``.

    A box without columns is met by every file.
    """

    sql: str
    boxes: tuple[Box, ...] = ({},)

    def __str__(self) -> str:
        return self.sql

    def __and__(self, other: Where) -> Where:
        boxes = tuple(_both(one, two) for one in self.boxes for two in other.boxes)
        return Where(f"({self.sql}) AND ({other.sql})", boxes if len(boxes) <= _MOST_BOXES else self.boxes)

    def __or__(self, other: Where) -> Where:
        boxes = self.boxes + other.boxes
        return Where(f"({self.sql}) OR ({other.sql})", boxes if len(boxes) <= _MOST_BOXES else ({},))

    def may_meet(self, file: DataFile) -> bool:
        """Whether a data file may hold a row that meets it, by the log's statistics."""
        return any(all(_within(file, column, *bounds) for column, bounds in box.items()) for box in self.boxes)


EVERYTHING = Where("true")
NOTHING = Where("false", ())


def _both(one: Box, two: Box) -> Box:
    return {**one, **{name: _narrowed(one[name], two[name]) if name in one else two[name] for name in two}}


def _narrowed(one: tuple[Any, Any], two: tuple[Any, Any]) -> tuple[Any, Any]:
    lows = [low for low, _ in (one, two) if low is not None]
    highs = [high for _, high in (one, two) if high is not None]
    return max(lows, default=None), min(highs, default=None)


def _within(file: DataFile, column: str, low: Any, high: Any) -> bool:
    told = file.bounds.get(column)
    if told is None:
        return True
    least, most = told
    if isinstance(most, datetime):
        most += _MILLISECOND  # the log tells times in milliseconds, cut off
    return bool((low is None or most >= low) and (high is None or least <= high))


_UNFILTERABLE = {"metadata", "files", "auxiliary_files"}
_LISTS = {"participant_ids"}


def condition(kind: TableKind[Any], where: Mapping[str, Any] | None) -> Where:
    """The SQL condition for ``where``; values are scalars, None, or lists of them (any of which may match).

    Raises:
        UsageError: a column that the table does not have, or that can't be compared.
    """
    return functools.reduce(
        operator.and_, (_term(kind, column, value) for column, value in (where or {}).items()), EVERYTHING
    )


def literal(value: object) -> str:
    """A SQL literal for a Python value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        if not 1678 <= aware.year <= 2261:
            raise UsageError(
                f"{value.isoformat()} is out of the range of times", hint="Write a year from 1678 to 2261."
            )
        return f"TIMESTAMP '{aware.astimezone(UTC).isoformat()}'"
    if isinstance(value, str):
        if not value.isprintable() and any("\ud800" <= char <= "\udfff" for char in value):
            raise UsageError(f"{value!a} is not text: it holds bytes that are not UTF-8")
        return "'" + value.replace("'", "''") + "'"
    raise UsageError(f"can't compare a column with {type(value).__name__} {value!r}")


def any_of(column: str, values: Iterable[object]) -> Where:
    """``column`` is one of ``values``."""
    wanted = list(values)
    if not wanted:
        return NOTHING
    boxes: tuple[Box, ...] = ({},)
    if all(isinstance(value, str) for value in wanted):
        texts = [str(value) for value in wanted]
        boxes = ({column: (min(texts), max(texts))},)
    return Where(f"{column} IN ({', '.join(literal(value) for value in wanted)})", boxes)


def at_or_after(column: str, moment: datetime) -> Where:
    """``column``, a time, is not before this."""
    return Where(f"{column} >= {literal(moment)}", ({column: (_aware(moment), None)},))


def before(column: str, moment: datetime) -> Where:
    """``column``, a time, is before this."""
    return Where(f"{column} < {literal(moment)}", ({column: (None, _aware(moment))},))


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def by_hash(recording_hashes: Iterable[str]) -> Where:
    """Recordings with these hashes. A bloom filter tells which row groups to read; min and max tell nothing."""
    return any_of("recording_hash", sorted(set(recording_hashes)))


def these_modalities(rows: Iterable[ModalityRow]) -> Where:
    """Exactly these rows of the modalities table; the rec_id is what files are skipped by."""
    wanted = list(rows)
    sql = " OR ".join(
        f"(rec_id = {literal(row.rec_id)} AND recording_hash = {literal(row.recording_hash)}"
        f" AND modality = {literal(row.modality)} AND worker_id = {literal(row.worker_id)})"
        for row in wanted
    )
    return Where(sql, any_of("rec_id", {row.rec_id for row in wanted}).boxes) if wanted else NOTHING


def by_rec_id(rec_ids: Iterable[str]) -> Where:
    """Rows of these recordings, and with more than ``MOST_LITERALS`` of them perhaps others between: leave those aside.

    The range is what files and row groups are skipped by.
    """
    names = sorted(set(rec_ids))
    if len(names) < 2:
        return any_of("rec_id", names)
    between = rec_ids_from_to(names)
    return between if len(names) > MOST_LITERALS else between & any_of("rec_id", names)


def rec_ids_from_to(rec_ids: Collection[str]) -> Where:
    """The first of these rec_ids, the last one, and all between."""
    return from_to("rec_id", min(rec_ids), max(rec_ids))


def from_to(column: str, low: str, high: str) -> Where:
    """``column`` is within a range, both ends included."""
    return Where(f"{column} >= {literal(low)} AND {column} <= {literal(high)}", ({column: (low, high)},))


def starting_with(column: str, prefix: str) -> Where:
    """``column`` starts with ``prefix``, as a range, so that files are skipped."""
    after = _after(prefix)
    sql = f"{column} >= {literal(prefix)}" + (f" AND {column} < {literal(after)}" if after else "")
    return Where(sql, ({column: (prefix, after or None)},))


def _after(prefix: str) -> str:
    """The first text, by code points, that no longer starts with ``prefix``; "" where every greater one does."""
    while prefix:
        last = ord(prefix[-1]) + 1
        # Surrogates are no text; the character after them is.
        if last <= 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if 0xD800 <= last <= 0xDFFF else last)
        prefix = prefix[:-1]
    return ""


def _comparable(kind: TableKind[Any], column: str, value: object) -> object:
    """A value as the column holds it. Raises ``UsageError`` where the two can't be compared."""
    stored = str(getattr(kind.column_type(column), "type", "string"))
    fitting = {
        "timestamp": isinstance(value, datetime),
        "double": isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
        "long": isinstance(value, int) and not isinstance(value, bool),
    }
    if stored == "timestamp" and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(value)
    if not fitting.get(stored, isinstance(value, str)):
        expected = {"timestamp": "a time", "double": "a number", "long": "a whole number"}.get(stored, "text")
        raise UsageError(f"{kind.name}.{column} holds {expected}; {value!r} can't be compared with it")
    return value


def _term(kind: TableKind[Any], column: str, value: object) -> Where:
    if column not in kind.columns:
        raise UsageError(
            f"{kind.name} has no column {json.dumps(str(column))}", hint=f"Its columns are {', '.join(kind.columns)}."
        )
    if column in _UNFILTERABLE:
        raise UsageError(f"{kind.name}.{column} holds a structure and can't be compared; filter the rows in Python")
    values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
    wanted = [_comparable(kind, column, item) for item in values if item is not None]
    if column in _LISTS:
        terms = [Where(f"array_has({column}, {literal(item)})") for item in wanted]
    else:
        terms = [any_of(column, wanted)] if wanted else []
    if None in values:
        terms.append(Where(f"{column} IS NULL"))
    return functools.reduce(operator.or_, terms, NOTHING)
