"""``where={column: value}`` to SQL, with every value quoted."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ursa.catalog.arrow import TableKind
from ursa.catalog.layout import MOST_LITERALS
from ursa.catalog.rows import ModalityRow
from ursa.errors import UsageError

_UNFILTERABLE = {"metadata", "files", "auxiliary_files"}
_LISTS = {"participant_ids"}


def condition(kind: TableKind[Any], where: Mapping[str, Any] | None) -> str:
    """The SQL condition for ``where``; values are scalars, None, or lists of them (any of which may match).

    Raises:
        UsageError: a column that the table does not have, or that can't be compared.
    """
    terms = [_term(kind, column, value) for column, value in (where or {}).items()]
    return " AND ".join(terms) or "true"


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


def any_of(column: str, values: Iterable[object]) -> str:
    """``column`` is one of ``values``."""
    literals = ", ".join(literal(value) for value in values)
    return f"{column} IN ({literals})" if literals else "false"


def by_hash(recording_hashes: Iterable[str]) -> str:
    """Recordings with these hashes. A bloom filter tells which row groups to read; min and max tell nothing."""
    return any_of("recording_hash", sorted(set(recording_hashes)))


def these_modalities(rows: Iterable[ModalityRow]) -> str:
    """Exactly these rows of the modalities table; the rec_id is what files are skipped by."""
    return " OR ".join(
        f"(rec_id = {literal(row.rec_id)} AND recording_hash = {literal(row.recording_hash)}"
        f" AND modality = {literal(row.modality)} AND worker_id = {literal(row.worker_id)})"
        for row in rows
    )


def by_rec_id(rec_ids: Iterable[str]) -> str:
    """Rows of these recordings, and with more than ``MOST_LITERALS`` of them perhaps others between: leave those aside.

    The range is what files and row groups are skipped by.
    """
    names = sorted(set(rec_ids))
    if len(names) < 2:
        return any_of("rec_id", names)
    between = rec_ids_from_to(names)
    return between if len(names) > MOST_LITERALS else f"{between} AND {any_of('rec_id', names)}"


def rec_ids_from_to(rec_ids: Collection[str]) -> str:
    """The first of these rec_ids, the last one, and all between."""
    return f"rec_id >= {literal(min(rec_ids))} AND rec_id <= {literal(max(rec_ids))}"


def starting_with(column: str, prefix: str) -> str:
    """``column`` starts with ``prefix``, as a range, so that files are skipped."""
    after = _after(prefix)
    return f"{column} >= {literal(prefix)}" + (f" AND {column} < {literal(after)}" if after else "")


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


def _term(kind: TableKind[Any], column: str, value: object) -> str:
    if column not in kind.columns:
        raise UsageError(
            f"{kind.name} has no column {json.dumps(str(column))}", hint=f"Its columns are {', '.join(kind.columns)}."
        )
    if column in _UNFILTERABLE:
        raise UsageError(f"{kind.name}.{column} holds a structure and can't be compared; filter the rows in Python")
    values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
    wanted = [_comparable(kind, column, item) for item in values if item is not None]
    if column in _LISTS:
        terms = [f"array_has({column}, {literal(item)})" for item in wanted]
    else:
        terms = [any_of(column, wanted)] if wanted else []
    if None in values:
        terms.append(f"{column} IS NULL")
    return f"({' OR '.join(terms) or 'false'})"
