"""Whether the files that rows name are in the raw bucket: by key and size, and as the objects that were registered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum

from ursa.bucket.listing import Listing, Lists, files_of, list_recording
from ursa.bucket.proof import Proofs, known, measure_now
from ursa.catalog.compare import Seen
from ursa.catalog.metadata import Sidecar
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.errors import InvalidRecordingError, ManifestError
from ursa.manifest import MAX_MANIFEST_BYTES, parse_manifest
from ursa.recording import MAX_PARTICIPANT_BYTES, PARTICIPANT_NAME, parse_participant
from ursa.store import NotFoundError, ObjectInfo, Store


class SidecarState(StrEnum):
    """What the bucket has of a manifest or participant.txt: one of the versions that are registered; another manifest or
    name that took its place (a half came, or the rig's own, and its run is not done); something else; nothing.
    """

    SAME = "same"
    LATER = "later"
    OTHER = "other"
    GONE = "gone"


def unproven(store: Store, raw_prefix: str, claim: Seen, proofs: Proofs) -> list[str]:
    """Files of rows of one recording that are not in the bucket as they are registered, as ``rec_id/path``.

    An object with another ETag than is registered is read: its sha256 decides.
    """
    row = next(iter(claim.recordings), None) or RecordingRow("", claim.modalities[0].rec_id)
    files = files_of(row, claim.modalities)
    listing = list_recording(store, f"{raw_prefix}{row.rec_id}/", files)
    return [f"{row.rec_id}/{file.path}" for file in files if not _same(store, file, listing, proofs)]


def sidecar_state(
    store: Store,
    path: str,
    versions: Sequence[Sidecar],
    info: ObjectInfo | None,
    proofs: Proofs,
    *,
    read: bool = False,
) -> SidecarState:
    """What is under a sidecar's key, by its ETag, else by its bytes. ``read``: by its bytes alone. Raises
    ``StorageError``.
    """
    if info is None:
        return SidecarState.GONE
    if not read and info.etag and any(info.etag == version.etag for version in versions):
        return SidecarState.SAME
    try:
        proof = (None if read else known(info, None, proofs)) or measure_now(store, info, proofs, read=read)
        if any(proof.sha256 == version.sha256 for version in versions):
            return SidecarState.SAME
        return SidecarState.LATER if _replaces(store, path, info) else SidecarState.OTHER
    except NotFoundError:
        return SidecarState.GONE


def _replaces(store: Store, path: str, info: ObjectInfo) -> bool:
    """Whether it can be read as what it is called, and says something."""
    name = path == PARTICIPANT_NAME
    if info.size_bytes > (MAX_PARTICIPANT_BYTES if name else MAX_MANIFEST_BYTES):
        return False
    data = store.read(info.key)[0]
    with suppress(ManifestError, InvalidRecordingError):
        if name:
            return parse_participant(data, source=info.key) is not None
        return not parse_manifest(data, source=info.key).is_placeholder
    return False


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
    if not file.proven and file.etag in (None, info.etag):
        return True  # the row says no more than that
    if file.sha256 is None:
        return False
    try:
        return (known(info, file, proofs) or measure_now(store, info, proofs)).sha256 == file.sha256
    except NotFoundError:
        return False
