"""What is known before the first byte is read: what is there, whose it is, and which sha256s are proven already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ursa.access import Access
from ursa.beside import at_once
from ursa.bucket.proof import Proofs
from ursa.errors import UrsaError, named
from ursa.manifest import shown
from ursa.reconstruct.checkpoint import HashCheckpoint
from ursa.reconstruct.hashing import replaced, vanished
from ursa.reconstruct.objects import Contents, Found, check_raw, read_contents
from ursa.reconstruct.run import each
from ursa.reconstruct.standing import Placeholder
from ursa.recording import parse_participant
from ursa.store import NotFoundError, ObjectInfo, PreconditionFailedError, Store
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.parts import MIB

_MAX_PARTICIPANT_BYTES = 64 * 1024
_WORTH_ASKING_BYTES = MIB


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a reconstruct works with. ``assets`` opens the store of finished hashes; None where there is none. ``proofs``:
    what this machine has measured of objects; ``name``: of the raw bucket.
    """

    store: Store
    raw_prefix: str
    assets: Callable[[], Store | None]
    assets_prefix: str
    engine: Engine
    stop: Stop
    proofs: Proofs
    name: str

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
        store = access._raw_for(stop)
        return cls(store, raw.prefix, assets, own.prefix, access._engine, stop, access._proofs, raw.bucket)


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
    checkpoint: HashCheckpoint,
) -> Plan:
    """The plan for a recording without a manifest.

    Raises:
        InvalidRecordingError: no raw data, names that no manifest could list, a broken participant.txt.
        MissingFilesError, StorageError: objects vanished or changed since they were listed.
    """
    prefix = f"{bucket.raw_prefix}{rec_id}/"
    contents = read_contents(rec_id, prefix, listing)
    check_raw(rec_id, contents)
    participant, warnings, _ = at_once(
        lambda: _participant(bucket.store, contents.participant),
        lambda: _warnings(bucket.store, prefix, contents),
        checkpoint.load,
    )
    known = {found.path: sha256 for found in contents.data if (sha256 := checkpoint.get(found)) is not None}
    known |= _measured(bucket, [found for found in contents.data if found.path not in known])
    return Plan(placeholder, contents, participant, known, warnings)


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


def _measured(bucket: Bucket, candidates: Sequence[Found]) -> dict[str, str]:
    """sha256s that are measured already, by path: by this machine, or by the server's own checksum of the whole object.

    Asking a server costs as much as reading a small object, so only larger ones are asked about; and where none of a
    sample has one, none is.
    """
    known = {found.path: sha256 for found in candidates if (sha256 := bucket.proofs.recall(found.info)) is not None}
    large = [found for found in candidates if found.path not in known and found.size_bytes > _WORTH_ASKING_BYTES]

    def ask(chosen: Sequence[Found]) -> dict[str, str]:
        told = each(bucket.engine, bucket.stop, chosen, lambda found: _checked(bucket.store, found))
        return {found.path: sha256 for found, sha256 in zip(chosen, told, strict=True) if sha256 is not None}

    asked = ask(large[:1])
    return known | asked | (ask(large[1:]) if asked else {})


def _checked(store: Store, found: Found) -> str | None:
    """The server's own checksum of an object, where there is one that counts."""
    try:
        info = store.head(found.key)
    except NotFoundError:
        raise vanished([found.path]) from None
    if (info.size_bytes, info.etag) != (found.size_bytes, found.etag):
        raise replaced([found.path])
    return info.checked_sha256


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
