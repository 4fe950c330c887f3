"""Whether the files that rows speak of are in the raw bucket: by key and size, and as the objects that were registered."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from ursa.catalog.compare import Seen
from ursa.catalog.metadata import auxiliary
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.store import NotFoundError, ObjectInfo


def unproven(store: Listing, raw_prefix: str, claim: Seen) -> list[str]:
    """Files of rows of one recording that are not in the bucket as they are registered, as ``rec_id/path``."""
    row = next(iter(claim.recordings), None) or RecordingRow("", claim.modalities[0].rec_id)
    return [f"{row.rec_id}/{path}" for path in missing(store, raw_prefix, row, claim.modalities, same=True)]


class Listing(Protocol):
    """What of a store is asked."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``."""

    def head(self, key: str) -> ObjectInfo:
        """Size, ETag and metadata."""


def missing(
    store: Listing, raw_prefix: str, row: RecordingRow, modalities: Sequence[ModalityRow], *, same: bool = False
) -> list[str]:
    """Registered files that are not in the bucket, by path: raw data by key and size, auxiliary files by path.

    A LIST for each directory of keys. ``same``: also those that are there with another ETag, unless the object's stored
    sha256 is the registered one (a HEAD each), and auxiliary files of another size.
    """
    own = f"{raw_prefix}{row.rec_id}/"
    beside = auxiliary(row)
    wanted = {_directory(own, file) for item in modalities for file in item.files} | ({own} if beside else set())
    found = {info.key: info for prefix in sorted(wanted) for info in store.list(prefix)}
    spelt = {_nfc(key): info for key, info in found.items()}
    files = [file for item in modalities for file in item.files]
    # Under its key, or under the same name in the other form of Unicode.
    gone = [
        file.path for file in files if not _there(store, file, found.get(file.key, spelt.get(_nfc(file.key))), same)
    ]
    return gone + _gone_beside(own, beside, spelt, same)


def _gone_beside(
    own: str, beside: Mapping[str, Sequence[int | str | None]], spelt: Mapping[str, ObjectInfo], same: bool
) -> list[str]:
    gone = []
    for path, (size_bytes, *_) in sorted(beside.items()):
        info = spelt.get(_nfc(own + path))
        if info is None or (same and size_bytes not in (None, info.size_bytes)):
            gone.append(path)
    return gone


def _there(store: Listing, file: FileRow, info: ObjectInfo | None, same: bool) -> bool:
    if info is None or info.size_bytes != file.size_bytes:
        return False
    if not same or file.etag in (None, info.etag):
        return True
    try:
        return file.sha256 is not None and store.head(info.key).sha256 == file.sha256
    except NotFoundError:
        return False


def _directory(own: str, file: FileRow) -> str:
    """The recording's prefix where the file is below it, else the directory of its key, or the key where it is in none."""
    directory, slash, _name = file.key.rpartition("/")
    return own if file.key.startswith(own) else directory + slash or file.key


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
