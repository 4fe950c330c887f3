"""Whether the files that rows name are in the raw bucket: by key and size, and as the objects that were registered."""

from __future__ import annotations

from collections.abc import Sequence

from ursa.bucket.listing import Listing, Lists, files_of, list_recording
from ursa.bucket.proof import Proofs, known, measure_now
from ursa.catalog.compare import Seen
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.store import NotFoundError, Store


def unproven(store: Store, raw_prefix: str, claim: Seen, proofs: Proofs) -> list[str]:
    """Files of rows of one recording that are not in the bucket as they are registered, as ``rec_id/path``.

    An object with another ETag than is registered is read: its sha256 decides.
    """
    row = next(iter(claim.recordings), None) or RecordingRow("", claim.modalities[0].rec_id)
    files = files_of(row, claim.modalities)
    listing = list_recording(store, f"{raw_prefix}{row.rec_id}/", files)
    return [f"{row.rec_id}/{file.path}" for file in files if not _same(store, file, listing, proofs)]


def missing(store: Lists, raw_prefix: str, row: RecordingRow, modalities: Sequence[ModalityRow]) -> list[str]:
    """Registered files that are not in the bucket with their size, by path. A LIST for each directory of keys."""
    files = files_of(row, modalities)
    listing = list_recording(store, f"{raw_prefix}{row.rec_id}/", files)
    return [file.path for file in files if not _there(file, listing)]


def _there(file: FileRow, listing: Listing) -> bool:
    info = listing.of(file)
    return info is not None and info.size_bytes == file.size_bytes


def _same(store: Store, file: FileRow, listing: Listing, proofs: Proofs) -> bool:
    info = listing.of(file)
    if info is None or info.size_bytes != file.size_bytes:
        return False
    if file.etag in (None, info.etag):
        return True
    if file.sha256 is None:
        return False
    try:
        return (known(info, file, proofs) or measure_now(store, info, proofs)).sha256 == file.sha256
    except NotFoundError:
        return False
