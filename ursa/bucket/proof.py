"""What do we know about this object? One rule, for whoever asks: a skip, Path B, reconstruct, rebuild, verify, download.

A *measurement*: ursa hashed the object's bytes, or those of a file whose ETag the object has; or a server that was seen to
refuse a wrong checksum has checked ours. A *claim* is what is stated: by a manifest, by the object's own metadata (whoever
wrote it), by a row whose evidence is a claim. A claim proves nothing (``docs/decisions/006-claims-and-measurements.md``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ursa.catalog.rows import FileRow
from ursa.disk.cache import FilesCache
from ursa.names import nfc
from ursa.policies import Evidence
from ursa.store import ObjectInfo, PreconditionFailedError, Store
from ursa.transfer.digest import Digest, is_md5, is_multipart_etag

Progress = Callable[[int], object]
# A HEAD for the server's own checksum costs as much as reading an object of this size.
_WORTH_ASKING_BYTES = 1 << 20
_ATTEMPTS = 3


def _ignored(_count: int) -> None:
    """Progress that is not followed."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The sha256 that an object was measured to have while it had ``info``'s ETag, and how."""

    info: ObjectInfo
    sha256: str
    evidence: Evidence


class Proofs(Protocol):
    """Where measurements of objects are kept, so that nothing is measured twice: the files cache of this machine."""

    def recall(self, info: ObjectInfo) -> str | None:
        """The sha256 that was measured of this very object (key, size and ETag)."""

    def record(self, info: ObjectInfo, sha256: str) -> None:
        """Keep one."""


class NoProofs:
    """Keeps none."""

    def recall(self, info: ObjectInfo) -> str | None:
        del info
        return None

    def record(self, info: ObjectInfo, sha256: str) -> None:
        """Nothing."""


class CachedProofs:
    """In the files cache. ``store``: which bucket of which server, or which directory."""

    def __init__(self, cache: FilesCache, store: str) -> None:
        self._cache = cache
        self._store = store

    def recall(self, info: ObjectInfo) -> str | None:
        """As it was measured; nothing of an object without an ETag, since any other one has none as well."""
        if not info.etag:
            return None
        return self._cache.proof(self._store, info.key, info.size_bytes, info.etag)

    def record(self, info: ObjectInfo, sha256: str) -> None:
        """Keep it."""
        if info.etag:
            self._cache.prove(self._store, info.key, info.size_bytes, info.etag, sha256)


def from_row(row: FileRow | None, info: ObjectInfo) -> Proof | None:
    """What a row proves of the object that is listed now: its key, size and ETag are those that were measured."""
    if row is None or not row.proven or row.sha256 is None or not info.etag or row.etag != info.etag:
        return None
    if row.size_bytes != info.size_bytes or nfc(row.key) != nfc(info.key):
        return None
    return Proof(info, row.sha256, row.evidence)


def from_etags(info: ObjectInfo, local: Digest) -> Proof | None:
    """What an ETag proves: it is the one that bytes which we hashed must have (a directory's ETags are sha256s).

    One that is no digest (a version, a time) was that of these bytes in another bucket perhaps: it proves nothing.
    """
    computed = info.etag in local.etags and (is_md5(info.etag) or is_multipart_etag(info.etag))
    if info.size_bytes == local.size_bytes and (computed or info.etag == local.sha256):
        return Proof(info, local.sha256, Evidence.ETAG)
    return None


def known(info: ObjectInfo, row: FileRow | None, proofs: Proofs) -> Proof | None:
    """What is known of an object without a request: by its row, by what this machine has measured."""
    proof = from_row(row, info)
    if proof is None and (sha256 := proofs.recall(info)) is not None:
        proof = Proof(info, sha256, Evidence.SHA256)
    return proof


def holds(store: Store, info: ObjectInfo, local: Digest, proofs: Proofs, progress: Progress = _ignored) -> Proof | None:
    """The proof that an object holds bytes of which we know the digest; None where it holds others.

    The cheapest first: what was measured before, the ETag, at last the object. Raises as ``measure_now``.
    """
    if info.size_bytes != local.size_bytes:
        return None
    proof = known(info, None, proofs) or from_etags(info, local)
    if proof is None:
        proof = measure_now(store, info, proofs, progress)
    elif proof.evidence is Evidence.ETAG:
        proofs.record(info, proof.sha256)
    return proof if proof.sha256 == local.sha256 else None


def measure(
    store: Store, info: ObjectInfo, proofs: Proofs, progress: Progress = _ignored, *, read: bool = False
) -> Proof:
    """Measure an object: by the server's own checksum of the whole of it, where there is one that counts, else by reading.

    Args:
        read: nothing but the bytes will do.

    Raises:
        PreconditionFailedError: it is not ``info`` any more. NotFoundError, StorageError.
    """
    if not read and info.size_bytes > _WORTH_ASKING_BYTES:
        now = store.head(info.key)
        if (now.size_bytes, now.etag) != (info.size_bytes, info.etag):
            raise PreconditionFailedError(f"{info.key} was replaced", key=info.key)
        if now.checked_sha256 is not None:
            proofs.record(info, now.checked_sha256)
            return Proof(info, now.checked_sha256, Evidence.SHA256)
    sha256 = object_sha256(store, info, progress)
    proofs.record(info, sha256)
    return Proof(info, sha256, Evidence.SHA256)


def measure_now(
    store: Store, info: ObjectInfo, proofs: Proofs, progress: Progress = _ignored, *, read: bool = False
) -> Proof:
    """As ``measure``, of whatever the object is now: one that was replaced meanwhile is looked at anew, a few times."""
    for attempt in range(_ATTEMPTS):
        try:
            return measure(store, info, proofs, progress, read=read)
        except PreconditionFailedError:
            if attempt == _ATTEMPTS - 1:
                raise
            info = store.head(info.key)
    raise AssertionError("unreachable")


def object_sha256(store: Store, info: ObjectInfo, progress: Progress = _ignored) -> str:
    """The sha256 of an object, read whole, being ``info`` from the first block to the last.

    ``progress`` gets the size of each block; what it raises stops the reading.

    Raises:
        PreconditionFailedError: it is not ``info`` any more, or came in another length.
    """
    hasher = hashlib.sha256()
    count = 0
    # S3 has no range of an empty object, and nothing to read in one.
    for block in store.stream(info.key, if_match=info.etag or None):
        hasher.update(block)
        count += len(block)
        progress(len(block))
    if count != info.size_bytes:
        raise PreconditionFailedError(f"{info.key}: {count:,} bytes came, {info.size_bytes:,} are listed", key=info.key)
    return hasher.hexdigest()
