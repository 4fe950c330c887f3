"""Catalogs and directory stores as ursa made them before the rule of evidence, from those that it makes now."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deltalake import Field, Schema
from deltalake.schema import ArrayType, PrimitiveType, StructType

from foreign import bucket_table, overwrite
from ursa import DataInterface
from ursa.catalog.arrow import MODALITIES, RECORDINGS, TableKind
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.policies import Evidence

_FIELDS = {
    "path": "string",
    "key": "string",
    "size_bytes": "long",
    "sha256": "string",
    "etag": "string",
    "evidence": "string",
}
_FILE = StructType([Field(name, PrimitiveType(kind)) for name, kind in _FIELDS.items()])


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _recording_values(row: RecordingRow) -> Mapping[str, Any]:
    files = {file.path: [file.size_bytes, file.sha256] for file in row.auxiliary_files}
    values = _without(RECORDINGS.to_values(row), "auxiliary_files")
    return values | {"metadata": {**row.metadata, **({"auxiliary_files": json.dumps(files)} if files else {})}}


def _modality_values(row: ModalityRow) -> Mapping[str, Any]:
    files = [{name: getattr(file, name) for name in _FIELDS} for file in row.files]
    return {**MODALITIES.to_values(row), "files": files}


def _kind(of: TableKind[Any], to_values: Callable[[Any], Mapping[str, Any]], *gone: str) -> TableKind[Any]:
    fields = [
        Field("files", ArrayType(_FILE)) if field.name == "files" else field
        for field in of.schema.fields
        if field.name not in gone
    ]
    return TableKind(of.name, Schema(fields), to_values, of.from_values)


def make_dated(
    data: DataInterface, etag: Callable[[FileRow], str | None] = lambda row: row.etag, *, first: bool = False
) -> None:
    """Rewrite the live tables of recordings and modalities as they were: proofs are what was said then.

    Args:
        etag: what a file's row had as its ETag.
        first: as the very first ursa did, without ``rec_id`` in modalities.
    """
    catalog = data._catalog
    catalog.refresh()
    modalities = _kind(MODALITIES, _modality_values, *(["rec_id"] if first else []))
    for table, kind in (
        (catalog.recordings, _kind(RECORDINGS, _recording_values, "auxiliary_files")),
        (catalog.modalities, modalities),
    ):
        rows = [_as_said_then(row, etag) for row in table.select()]
        there = bucket_table(data, table.kind.name)
        overwrite(there, kind.table(rows))
        assert [field.name for field in there.schema().fields] == kind.columns


def _as_said_then(row: Any, etag: Callable[[FileRow], str | None]) -> Any:
    if isinstance(row, RecordingRow):
        return row
    # What an upload had checked, and what a manifest stated, was all "sha256".
    files = tuple(
        replace(file, etag=etag(file), evidence=Evidence.SHA256 if file.sha256 else Evidence.SIZE) for file in row.files
    )
    return replace(row, files=files)


def old_etag(path: Path) -> str:
    """The ETag that a directory's object had: of its inode, not of its content."""
    stat = path.stat()
    return f"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"


def make_store_dated(root: Path, bucket: str) -> None:
    """Beside each object of a directory, what was kept there: its ETag of then, and its metadata."""
    own = root / ".ursa" / bucket / "metadata"
    for path in own.rglob("*"):
        if path.is_file():
            metadata = json.loads(path.read_bytes())["metadata"]
            there = root / bucket / path.relative_to(own)
            path.write_text(json.dumps({"etag": old_etag(there), "metadata": metadata}))
