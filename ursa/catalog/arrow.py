"""Rows to and from Arrow, and the tables' schemas. Needs no pyarrow: deltalake brings arro3."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Generic, TypeVar

from arro3.core import (
    Array,
    DataType,
    RecordBatch,
    Table,
    list_array,
    list_flatten,
    list_offsets,
    struct_array,
    struct_field,
)
from arro3.core import Field as ArrowField
from deltalake import Field, Schema
from deltalake.schema import ArrayType, MapType, PrimitiveType, StructType

from ursa.catalog.metadata import AUXILIARY_KEY, dated_auxiliary
from ursa.catalog.rows import FileRow, ModalityRow, ParticipantRow, RecordingRow
from ursa.policies import Evidence

Row = TypeVar("Row")

_STRING, _LONG, _DOUBLE, _TIMESTAMP = (PrimitiveType(name) for name in ("string", "long", "double", "timestamp"))
_MAP = MapType(_STRING, _STRING)
_FILE = StructType(
    [
        Field("path", _STRING),
        Field("key", _STRING),
        Field("size_bytes", _LONG),
        Field("mtime_ns", _LONG),
        Field("sha256", _STRING),
        Field("etag", _STRING),
        Field("evidence", _STRING),
    ]
)


@dataclass(frozen=True)
class TableKind(Generic[Row]):
    """A table: its name, its columns, and how a row becomes values and back."""

    name: str
    schema: Schema
    to_values: Callable[[Row], Mapping[str, Any]]
    from_values: Callable[[Mapping[str, Any]], Row]

    @property
    def columns(self) -> list[str]:
        """The columns' names, in order."""
        return [field.name for field in self.schema.fields]

    def column_type(self, name: str) -> Any:
        """A column's Delta type."""
        return next(field.type for field in self.schema.fields if field.name == name)

    def table(self, rows: Sequence[Row]) -> Table:
        """The rows as an Arrow table with exactly this schema."""
        values = [self.to_values(row) for row in rows]
        schema = self.schema.to_arrow()
        fields = [schema.field(name) for name in self.columns]
        arrays = [_array(field.type, [value[field.name] for value in values]) for field in fields]
        batch = RecordBatch.from_arrays([Array.from_arrow(array) for array in arrays], schema=schema)
        return Table.from_batches([batch])

    def rows(self, table: Table) -> list[Row]:
        """Rows from a query's result; columns that this ursa does not know are left aside."""
        known = [name for name in self.columns if name in table.column_names]
        columns = [_values(table.column(name)) for name in known]
        return [self.from_values(dict(zip(known, values, strict=True))) for values in zip(*columns, strict=True)]


def _values(column: Any) -> list[Any]:
    """A column's values in Python."""
    if DataType.is_list(column.type) and DataType.is_struct(column.type.value_type):
        return [files for chunk in column.chunks for files in _file_tuples(chunk)]
    values: list[Any] = column.to_pylist()
    return values


_EVIDENCE = {str(member): member for member in Evidence}
# A catalog without the column was written when a stored sha256 was taken for proof.
_DATED = _EVIDENCE | {"sha256": Evidence.CLAIMED}
MTIME = "mtime_ns"
"""The column of ``files`` that catalogs of before the rule of evidence lack."""


def _file_tuples(chunk: Array) -> list[tuple[FileRow, ...]]:
    """Lists of files, column by column: a dict a file on the way costs more than all the rest of a query."""
    flat = list_flatten(chunk)
    names = [field.name for field in flat.type.fields]
    parts = {name: Array.from_arrow(struct_field(flat, names.index(name))).to_pylist() for name in names}
    dated = MTIME not in parts
    parts |= {name: [None] * len(flat) for name in FileRow.__slots__ if name not in parts}
    read = _DATED if dated else _EVIDENCE
    parts["evidence"] = [read.get(value, Evidence.SIZE) for value in parts["evidence"]]
    files = list(map(FileRow, *(parts[name] for name in FileRow.__slots__)))
    offsets = Array.from_arrow(list_offsets(chunk)).to_pylist()
    return [tuple(files[start:end]) for start, end in pairwise(offsets)]


@dataclass(frozen=True)
class _Retyped:
    """An array under another type of the same memory layout: a map is a list of key-value structs."""

    array: Array
    type: DataType

    def __arrow_c_array__(self, _requested: object = None) -> tuple[object, object]:
        return self.type.__arrow_c_schema__(), self.array.__arrow_c_array__()[1]


def _array(kind: DataType, values: Sequence[Any]) -> Any:
    if DataType.is_map(kind):
        pairs = [list((value or {}).items()) for value in values]
        keys = Array([key for row in pairs for key, _ in row], DataType.utf8())
        items = Array([item for row in pairs for _, item in row], DataType.utf8())
        entries = struct_array(
            [keys, items],
            fields=[ArrowField("key", DataType.utf8(), nullable=False), ArrowField("value", DataType.utf8())],
        )
        return _Retyped(list_array(_offsets(pairs), entries), kind)
    if DataType.is_list(kind):
        inner = kind.value_type
        assert inner is not None
        flat = _array(inner, [item for row in values for item in row or ()])
        return _Retyped(list_array(_offsets(values), Array.from_arrow(flat)), kind)
    if DataType.is_struct(kind):
        children = [_array(field.type, [value[field.name] for value in values]) for field in kind.fields]
        return struct_array([Array.from_arrow(child) for child in children], fields=list(kind.fields))
    if DataType.is_timestamp(kind):
        return Array([_microseconds(value) for value in values], DataType.int64()).cast(kind)
    return Array(list(values), kind)


def _offsets(rows: Iterable[Sequence[Any] | None]) -> Array:
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row or ()))
    return Array(offsets, DataType.int32())


def _microseconds(value: datetime | None) -> int | None:
    if value is None:
        return None
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)


def _metadata(pairs: Iterable[tuple[str, str | None]] | None) -> Mapping[str, str]:
    return {key: value or "" for key, value in pairs or ()}


def _recording(values: Mapping[str, Any]) -> RecordingRow:
    metadata = _metadata(values["metadata"])
    return RecordingRow(
        recording_hash=values["recording_hash"],
        rec_id=values["rec_id"],
        started_at=_utc(values["started_at"]),
        ended_at=_utc(values["ended_at"]),
        duration_s=values["duration_s"],
        participant_ids=tuple(values["participant_ids"] or ()),
        status=values["status"],
        metadata={key: value for key, value in metadata.items() if key != AUXILIARY_KEY},
        registered_at=_utc(values["registered_at"]),
        registered_by=values["registered_by"] or "",
        auxiliary_files=values["auxiliary_files"] if "auxiliary_files" in values else dated_auxiliary(metadata),
    )


def _recording_values(row: RecordingRow) -> Mapping[str, Any]:
    return {
        "rec_id": row.rec_id,
        "recording_hash": row.recording_hash,
        "hash_bucket": row.recording_hash[:2],
        "started_at": row.started_at,
        "ended_at": row.ended_at,
        "duration_s": row.duration_s,
        "participant_ids": list(row.participant_ids),
        "status": row.status,
        "metadata": dict(row.metadata),
        "registered_at": row.registered_at,
        "registered_by": row.registered_by,
        "auxiliary_files": _file_values(row.auxiliary_files),
    }


def _file_values(files: Sequence[FileRow]) -> list[dict[str, Any]]:
    return [{name: getattr(file, name) for name in FileRow.__slots__} for file in files]


def _modality(values: Mapping[str, Any]) -> ModalityRow:
    return ModalityRow(
        recording_hash=values["recording_hash"],
        modality=values["modality"],
        worker_id=values["worker_id"] or "",
        status=values["status"],
        node=values["node"],
        files=values["files"],
        bytes=values["bytes"],
        metadata=_metadata(values["metadata"]),
        rec_id=values["rec_id"],
    )


def _modality_values(row: ModalityRow) -> Mapping[str, Any]:
    return {
        "rec_id": row.rec_id,
        "recording_hash": row.recording_hash,
        "hash_bucket": row.recording_hash[:2],
        "modality": row.modality,
        "worker_id": row.worker_id,
        "status": row.status,
        "node": row.node,
        "files": _file_values(row.files),
        "bytes": row.bytes,
        "metadata": dict(row.metadata),
    }


RECORDINGS: TableKind[RecordingRow] = TableKind(
    "recordings",
    Schema(
        [
            Field("rec_id", _STRING, nullable=False),
            Field("recording_hash", _STRING, nullable=False),
            Field("hash_bucket", _STRING, nullable=False),
            Field("started_at", _TIMESTAMP),
            Field("ended_at", _TIMESTAMP),
            Field("duration_s", _DOUBLE),
            Field("participant_ids", ArrayType(_STRING)),
            Field("status", _STRING),
            Field("metadata", _MAP),
            Field("registered_at", _TIMESTAMP),
            Field("registered_by", _STRING),
            Field("auxiliary_files", ArrayType(_FILE)),
        ]
    ),
    _recording_values,
    _recording,
)
MODALITIES: TableKind[ModalityRow] = TableKind(
    "modalities",
    Schema(
        [
            Field("rec_id", _STRING, nullable=False),
            Field("recording_hash", _STRING, nullable=False),
            Field("hash_bucket", _STRING, nullable=False),
            Field("modality", _STRING, nullable=False),
            Field("worker_id", _STRING, nullable=False),
            Field("status", _STRING),
            Field("node", _STRING),
            Field("files", ArrayType(_FILE)),
            Field("bytes", _LONG),
            Field("metadata", _MAP),
        ]
    ),
    _modality_values,
    _modality,
)
PARTICIPANTS: TableKind[ParticipantRow] = TableKind(
    "participants",
    Schema(
        [
            Field("participant_id", _STRING, nullable=False),
            Field("display_name", _STRING),
            Field("created_at", _TIMESTAMP),
        ]
    ),
    lambda row: {
        "participant_id": row.participant_id,
        "display_name": row.display_name,
        "created_at": row.created_at,
    },
    lambda values: ParticipantRow(values["participant_id"], values["display_name"], _utc(values["created_at"])),
)
