"""Files as a caller of ``register_modality`` states them, and as the bucket has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ursa.catalog.rows import FileRow
from ursa.errors import MissingFilesError, UsageError, named
from ursa.manifest import normalize_path, shown
from ursa.store import ObjectInfo, Store


def prove_files(store: Store, prefix: str, files: Sequence[FileRow]) -> tuple[FileRow, ...]:
    """The files as the bucket has them, with ETag and evidence. Raises ``MissingFilesError`` with all that is not."""
    listed = {info.key: info for info in store.list(prefix)} if files else {}
    proven: list[FileRow] = []
    wrong: list[str] = []
    for file in files:
        key = file.key or prefix + file.path
        info = listed.get(key) or _elsewhere(store, key, prefix)
        if info is None or info.size_bytes != file.size_bytes:
            wrong.append(file.path)
            continue
        stored = store.head(key).sha256 if file.sha256 is not None else None
        if stored not in (None, file.sha256):
            wrong.append(file.path)
            continue
        evidence = "sha256" if stored is not None else "size"
        proven.append(replace(file, key=key, etag=info.etag, evidence=evidence))
    if wrong:
        raise MissingFilesError(
            f"{len(wrong)} of {len(files)} files are not in the bucket as they are stated:"
            f" {named([shown(path) for path in wrong])}",
            hint="Nothing was registered. Upload them first (`ursa ingest REC_DIR`), or state their sizes as they are.",
            paths=tuple(wrong),
        )
    return tuple(proven)


def file_rows(files: Iterable[FileRow | Mapping[str, Any]]) -> tuple[FileRow, ...]:
    """Files as a caller states them: rows, or mappings with ``path``, ``size_bytes`` and perhaps ``key``, ``sha256``.

    Raises:
        UsageError: a path or size that can't be one, or a path that comes twice.
    """
    rows: dict[str, FileRow] = {}
    for item in files:
        row = item if isinstance(item, FileRow) else _file_row(item)
        try:
            path = normalize_path(row.path)
        except ValueError as error:
            raise UsageError(f"{shown(row.path)} is not a path inside a recording: {error}") from None
        if path in rows:
            raise UsageError(f"{shown(path)} is stated twice")
        if not isinstance(row.size_bytes, int) or row.size_bytes < 0:
            raise UsageError(f"{shown(path)}: size_bytes is {row.size_bytes!r}; it is bytes, 0 or more")
        rows[path] = replace(row, path=path)
    return tuple(rows[path] for path in sorted(rows))


def _file_row(item: Mapping[str, Any]) -> FileRow:
    unknown = set(item) - set(FileRow.__slots__)
    if unknown or not {"path", "size_bytes"} <= set(item):
        raise UsageError(
            f"a file is stated as {dict(item)!r}",
            hint=f"A file has path and size_bytes, and may have more of {', '.join(FileRow.__slots__)}.",
        )
    return FileRow(**{"key": "", **item})


def _elsewhere(store: Store, key: str, prefix: str) -> ObjectInfo | None:
    """An object outside of the recording's prefix (another recording's data, derived data)."""
    if key.startswith(prefix):
        return None
    return next((info for info in store.list(key) if info.key == key), None)
