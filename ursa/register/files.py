"""Files as a caller of ``register_modality`` states them, and as the bucket has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ursa.beside import each
from ursa.bucket.listing import Listing
from ursa.bucket.proof import Proofs, known, measure_now
from ursa.catalog.rows import FileRow
from ursa.errors import MissingFilesError, UsageError, named
from ursa.manifest import normalize_path, shown
from ursa.manifest.names import has_control, is_unicode
from ursa.names import parse_sha256
from ursa.policies import Evidence
from ursa.store import NotFoundError, PreconditionFailedError, Store

_AT_ONCE = 16


def prove_files(store: Store, prefix: str, files: Sequence[FileRow], proofs: Proofs) -> tuple[FileRow, ...]:
    """The files as the bucket has them, with ETag and evidence. Raises ``MissingFilesError`` with all that is not."""
    listing = Listing(prefix, store.list(prefix) if files else ())
    proven = each(lambda file: _proven(store, listing, file, proofs), files, _AT_ONCE)
    wrong = {file.path: found for file, found in zip(files, proven, strict=True) if isinstance(found, str)}
    if wrong:
        raise MissingFilesError(
            f"{len(wrong)} of {len(files)} files are not in the bucket as they are stated:"
            f" {named([f'{shown(path)} ({why})' for path, why in wrong.items()])}",
            hint="Nothing was registered. Upload them first (`ursa ingest REC_DIR`), or state size and sha256 as they are.",
            paths=tuple(wrong),
        )
    return tuple(found for found in proven if isinstance(found, FileRow))


def _proven(store: Store, listing: Listing, file: FileRow, proofs: Proofs) -> FileRow | str:
    """The file as it is in the bucket, or in words why it is not. A sha256 that is stated is proven."""
    key = file.key or listing.key(file.path)
    try:
        info = listing.get(file.path) if key == listing.key(file.path) else store.head(key)
        if info is None:
            return "not there"
        if info.size_bytes != file.size_bytes:
            return f"{info.size_bytes:,} bytes there, {file.size_bytes:,} stated"
        row = replace(file, key=key, etag=info.etag, evidence=Evidence.SIZE)
        if file.sha256 is None:
            return row
        proof = known(info, None, proofs) or measure_now(store, info, proofs)
        if proof.sha256 != file.sha256:
            return f"other content: sha256 {proof.sha256}"
        return replace(row, etag=proof.info.etag, evidence=proof.evidence)
    except NotFoundError:
        return "not there"
    except PreconditionFailedError:
        return "replaced while it was read"


def file_rows(files: Iterable[FileRow | Mapping[str, Any]] | None) -> tuple[FileRow, ...]:
    """Files as a caller states them: rows, or mappings with ``path``, ``size_bytes`` and perhaps ``key``, ``sha256``.

    Raises:
        UsageError: a path or size that can't be one, or a path that comes twice.
    """
    rows: dict[str, FileRow] = {}
    if files is not None and not isinstance(files, Iterable):
        raise UsageError(f"files is {files!r:.80}; pass a list of files")
    for item in files or ():
        row = item if isinstance(item, FileRow) else _file_row(item)
        if not isinstance(row.path, str) or not isinstance(row.key, str):
            raise UsageError(f"a file is stated with path {row.path!r} and key {row.key!r}; both are text")
        if not is_unicode(row.key) or has_control(row.key):
            raise UsageError(f"{shown(row.path)}: {shown(row.key)} is not the key of an object")
        try:
            path = normalize_path(row.path)
        except ValueError as error:
            raise UsageError(f"{shown(row.path)} is not a path inside a recording: {error}") from None
        sha256 = parse_sha256(row.sha256)
        if row.sha256 is not None and sha256 is None:
            raise UsageError(
                f"{shown(path)}: sha256 is {row.sha256!r}; it is 64 hex digits, base64 of 32 bytes, or None"
            )
        if path in rows:
            raise UsageError(f"{shown(path)} is stated twice")
        if not isinstance(row.size_bytes, int) or isinstance(row.size_bytes, bool) or row.size_bytes < 0:
            raise UsageError(f"{shown(path)}: size_bytes is {row.size_bytes!r}; it is bytes, 0 or more")
        rows[path] = replace(row, path=path, sha256=sha256)
    return tuple(rows[path] for path in sorted(rows))


def _file_row(item: Any) -> FileRow:
    if not isinstance(item, Mapping):
        raise UsageError(f"a file is stated as {item!r}; it is a FileRow, or a mapping with path and size_bytes")
    unknown = set(item) - set(FileRow.__slots__)
    if unknown or not {"path", "size_bytes"} <= set(item):
        raise UsageError(
            f"a file is stated as {dict(item)!r}",
            hint=f"A file has path and size_bytes, and may have more of {', '.join(FileRow.__slots__)}.",
        )
    return FileRow(**{"key": "", **item})
