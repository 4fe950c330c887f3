"""What is known before the first byte is read: what is there, whose it is, and which sha256s are proven already."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ursa.access import Access
from ursa.errors import UrsaError, named
from ursa.manifest import shown
from ursa.reconstruct.hashing import replaced, vanished
from ursa.reconstruct.objects import Contents, Found, check_raw, read_contents
from ursa.reconstruct.run import each
from ursa.reconstruct.sidecar import Sidecar
from ursa.reconstruct.standing import Placeholder
from ursa.recording import parse_participant
from ursa.store import NotFoundError, ObjectInfo, PreconditionFailedError, Store
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.transfer.digest import is_md5, is_multipart_etag
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.parts import MIB, SINGLE_PUT_BYTES

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_PARTICIPANT_BYTES = 64 * 1024
_SAMPLE = 16
_WORTH_ASKING_BYTES = MIB


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a reconstruct works with. ``assets`` opens the store of finished hashes; None where there is none."""

    store: Store
    raw_prefix: str
    assets: Callable[[], Store | None]
    assets_prefix: str
    engine: Engine
    stop: Stop

    @classmethod
    def of(cls, access: Access, stop: Stop, *, dry_run: bool = False) -> Bucket:
        """A profile's buckets. Finished hashes are kept where ``assets_rw`` is enabled; a dry run only reads them."""
        writes = "assets_rw" in access._enabled

        def assets() -> Store | None:
            if not writes and not dry_run:
                return None
            store = access._store(access.profile.assets.bucket, "assets_rw" if writes else "assets_ro")
            return RetryingStore(store, RetryPolicy(stopped=stop))

        raw, own = access.profile.raw, access.profile.assets
        return cls(access._raw_for(stop), raw.prefix, assets, own.prefix, access._engine, stop)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is there before the first byte is read. ``known``: sha256s by path."""

    placeholder: Placeholder | None
    contents: Contents
    participant: str | None
    known: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def unknown(self) -> list[Found]:
        """The objects that have to be read."""
        return [found for found in self.contents.data if found.path not in self.known]


def make_plan(
    bucket: Bucket,
    rec_id: str,
    listing: Sequence[ObjectInfo],
    placeholder: Placeholder | None,
    sidecar: Sidecar,
) -> Plan:
    """The plan for a recording without a manifest.

    Raises:
        InvalidRecordingError: no raw data, names that no manifest could list, a broken participant.txt.
        MissingFilesError, StorageError: objects vanished or changed since they were listed.
    """
    prefix = f"{bucket.raw_prefix}{rec_id}/"
    contents = read_contents(rec_id, prefix, listing)
    check_raw(rec_id, contents)
    participant = _participant(bucket.store, contents.participant)
    sidecar.load()
    known = {found.path: sha256 for found in contents.data if (sha256 := sidecar.get(found)) is not None}
    known |= _proven(bucket, [found for found in contents.data if found.path not in known and _may_be_proven(found)])
    return Plan(placeholder, contents, participant, known, _warnings(bucket.store, prefix, contents))


def _participant(store: Store, found: Found | None) -> str | None:
    # S3 has no range of an empty object: it answers 416.
    if found is None or not found.size_bytes:
        return None
    try:
        blocks = store.stream(found.key, end=_MAX_PARTICIPANT_BYTES + 1, if_match=found.etag)
        data = b"".join(blocks)
    except NotFoundError:
        raise vanished([found.path]) from None
    except PreconditionFailedError:
        raise replaced([found.path]) from None
    return parse_participant(data, source=found.key)


def _proven(bucket: Bucket, candidates: Sequence[Found]) -> dict[str, str]:
    """sha256s that objects were stored with, by path.

    Asking costs as much as reading a small object: where none of a sample states one, only larger objects are asked.
    """

    def ask(chosen: Sequence[Found]) -> dict[str, str]:
        stored = each(bucket.engine, bucket.stop, chosen, lambda found: _stored(bucket.store, found))
        return {found.path: sha256 for found, sha256 in zip(chosen, stored, strict=True) if sha256 is not None}

    step = max(1, len(candidates) // _SAMPLE)
    known = ask(candidates[::step])
    others = [found for index, found in enumerate(candidates) if index % step]
    return known | ask([found for found in others if known or found.size_bytes > _WORTH_ASKING_BYTES])


def _stored(store: Store, found: Found) -> str | None:
    """The sha256 that the object was stored with."""
    try:
        info = store.head(found.key)
    except NotFoundError:
        raise vanished([found.path]) from None
    if (info.size_bytes, info.etag) != (found.size_bytes, found.etag):
        raise replaced([found.path])
    sha256 = (info.sha256 or "").lower()
    return sha256 if _SHA256.fullmatch(sha256) else None


def _warnings(store: Store, prefix: str, contents: Contents) -> tuple[str, ...]:
    warnings = [f"not listed, as junk (.DS_Store and the like): {contents.junk}"] * bool(contents.junk)
    try:
        uploading = sorted({shown(item.key) for item in store.list_uploads(prefix)})
    except UrsaError:
        # Not every key may list uploads; it is a remark, not a check.
        uploading = []
    if uploading:
        warnings.append(
            f"not listed, since their upload is not complete: {named(uploading, 5)}; is somebody still sending?"
        )
    return tuple(warnings)


def _may_be_proven(found: Found) -> bool:
    """Whether a stored sha256 would be proof: it was checked with the bytes, in one request.

    A multipart upload has its metadata from when it was begun, perhaps for an earlier version of the file: what it states
    is no proof. A directory store's ETags don't tell, but it has nothing larger in one piece.
    """
    return not is_multipart_etag(found.etag) and (is_md5(found.etag) or found.size_bytes <= SINGLE_PUT_BYTES)
