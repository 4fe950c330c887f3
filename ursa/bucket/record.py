"""What a reconstruct has measured of a recording's objects, kept under the assets prefix: ``hashes/<rec_id>.json``.

It has read every byte, so Path B and the next reconstruct need not. An entry counts where the object still has this key,
size and ETag; what can't be read counts as nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from ursa.bucket.proof import Proofs
from ursa.errors import UrsaError
from ursa.names import is_sha256
from ursa.store import ObjectInfo, Store

_DIRECTORY = "hashes/"


class Entry(NamedTuple):
    """What was measured of an object."""

    size_bytes: int
    etag: str
    sha256: str


def record_key(assets_prefix: str, rec_id: str) -> str:
    """Where the record of a recording is, in the assets bucket."""
    return f"{assets_prefix}{_DIRECTORY}{rec_id}.json"


def record_bytes(bucket: str, entries: Mapping[str, Entry]) -> bytes:
    """The record as it is stored. ``bucket``: of the objects; ``entries``: by their keys."""
    objects = {key: list(entry) for key, entry in entries.items()}
    return orjson.dumps({"schema_version": 1, "bucket": bucket, "objects": objects})


def parse_record(data: bytes, bucket: str) -> dict[str, Entry]:
    """The entries that are what they must be, by key; none of a record that is of another bucket."""
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(content, dict) or content.get("bucket") != bucket:
        return {}
    entries: dict[str, Entry] = {}
    objects = content.get("objects")
    for key, value in objects.items() if isinstance(objects, dict) else ():
        match value:
            case [int(size_bytes), str(etag), str(sha256)] if is_sha256(sha256) and not isinstance(size_bytes, bool):
                entries[key] = Entry(size_bytes, etag, sha256)
    return entries


def read_record(store: Store, key: str, bucket: str) -> dict[str, Entry]:
    """The record under a key; none where there is none, or it can't be read: then the objects are."""
    try:
        return parse_record(store.read(key)[0], bucket)
    except UrsaError:
        return {}


class WithRecord:
    """Proofs of this machine, and those of a record."""

    def __init__(self, proofs: Proofs, record: Mapping[str, Entry]) -> None:
        self._proofs = proofs
        self._record = record

    def recall(self, info: ObjectInfo) -> str | None:
        """As measured here, else as the record says of this very object."""
        entry = self._record.get(info.key)
        if entry is not None and info.etag and (entry.size_bytes, entry.etag) == (info.size_bytes, info.etag):
            return entry.sha256
        return self._proofs.recall(info)

    def record(self, info: ObjectInfo, sha256: str) -> None:
        """Kept by this machine."""
        self._proofs.record(info, sha256)
