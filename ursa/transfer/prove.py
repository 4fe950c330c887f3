"""Proof that an object holds the bytes of a local file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from ursa.store import ObjectInfo, Store
from ursa.store.protocol import Evidence
from ursa.transfer.digest import Digest, is_md5, is_multipart_etag


def same_content(store: Store, found: ObjectInfo, local: Digest) -> Evidence | None:
    """How well ``found`` is proven to hold ``local``; None where it holds something else.

    The cheapest proof first: the ETag (no request), the sha256 that the uploader stored (one HEAD; not believed
    against an md5 ETag that says otherwise), at last the bytes themselves, read back and hashed.
    """
    if found.size_bytes != local.size_bytes:
        return None
    if found.etag in local.etags:
        return "etag"
    # Where the ETag says other content (its cut is one of those that were tried), stored metadata is not believed: an
    # upload that was begun for another version of the file keeps what it was told then.
    contradicted = is_md5(found.etag) or (is_multipart_etag(found.etag) and bool(local.etags))
    if not contradicted and store.head(found.key).sha256 == local.sha256:
        return "sha256"
    return read_back(store, found.key, local.sha256)


def read_back(store: Store, key: str, sha256: str) -> Evidence | None:
    """Read an object and hash it: ``"sha256"`` where it is equal, else None."""
    return "sha256" if object_sha256(store, key) == sha256 else None


def object_sha256(
    store: Store,
    key: str,
    *,
    if_match: str | None = None,
    progress: Callable[[int], object] = lambda _count: None,
) -> str:
    """The sha256 of an object, read whole. ``progress`` gets the size of each block; what it raises stops the reading.

    ``if_match``: the ETag that it must have from the first block to the last (``PreconditionFailedError``).
    """
    hasher = hashlib.sha256()
    for block in store.stream(key, if_match=if_match):
        hasher.update(block)
        progress(len(block))
    return hasher.hexdigest()
