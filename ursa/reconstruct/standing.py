"""Whether a recording in the bucket has a manifest already: what is valid and lists files stays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ursa.errors import ManifestError
from ursa.manifest import MAX_MANIFEST_BYTES, Manifest, check_identity, is_junk, parse_manifest, shown
from ursa.reconstruct.document import never_replaced, nfc
from ursa.recording import MANIFEST_NAME, NODE_MANIFESTS_DIR, classify, refuse_large_manifest
from ursa.store import NotFoundError, ObjectInfo, Store


@dataclass(frozen=True, slots=True)
class Valid:
    """A manifest that lists files. ``warnings``: node manifests beside it that are broken."""

    key: str
    manifest: Manifest
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A ``manifest.json`` without files, as it was read."""

    etag: str
    manifest: Manifest


def aggregate(store: Store, prefix: str, rec_id: str) -> Valid | None:
    """``manifest.json``, by one GET; None where there is none, or a placeholder.

    Raises:
        ManifestError: it is there and is no manifest (one that is too large is not read to its end), or another
            recording's.
    """
    key = prefix + MANIFEST_NAME
    data = bytearray()
    try:
        for block in store.stream(key):
            data += block
            # Nobody knows its size yet, and asking would be one more request.
            if len(data) > MAX_MANIFEST_BYTES:
                break
    except NotFoundError:
        return None
    manifest = _parsed(bytes(data), rec_id, key)
    return None if manifest.is_placeholder else Valid(key, manifest)


def replaceable(store: Store, prefix: str, rec_id: str, objects: Iterable[ObjectInfo]) -> Valid | Placeholder | None:
    """What a listing's ``manifest.json`` is now, by one GET where there is one: a placeholder with its ETag, as a rule.

    Raises:
        ManifestError: as ``aggregate``.
    """
    info = next((info for info in objects if info.key == prefix + MANIFEST_NAME), None)
    if info is None:
        return None
    _refuse_large(info.size_bytes, info.key)
    try:
        data, info = store.read(info.key)
    except NotFoundError:
        return None
    manifest = _parsed(data, rec_id, info.key)
    return Placeholder(info.etag, manifest) if manifest.is_placeholder else Valid(info.key, manifest)


def node_manifest(store: Store, prefix: str, rec_id: str, objects: Iterable[ObjectInfo]) -> Valid | None:
    """The first node manifest of a listing that is valid and lists files; None where there is none.

    Raises:
        ManifestError: none is valid, and one of them is broken.
    """
    broken: list[ManifestError] = []
    for info in sorted(objects, key=lambda info: info.key):
        path = nfc(info.key.removeprefix(prefix))
        if not path.startswith(f"{NODE_MANIFESTS_DIR}/") or is_junk(path) or classify(path, {})[0] != "manifest":
            continue
        try:
            _refuse_large(info.size_bytes, info.key)
            manifest = _parsed(store.read(info.key)[0], rec_id, info.key)
        except NotFoundError:
            continue
        except ManifestError as error:
            broken.append(error)
            continue
        if not manifest.is_placeholder:
            return Valid(info.key, manifest, tuple(error.message for error in broken))
    if broken:
        raise broken[0]
    return None


def _refuse_large(size_bytes: int, key: str) -> None:
    try:
        refuse_large_manifest(size_bytes, source=key)
    except ManifestError as error:
        raise never_replaced(error) from None


def _parsed(data: bytes, rec_id: str, key: str) -> Manifest:
    try:
        manifest = parse_manifest(data, source=key)
        if not manifest.is_placeholder:
            check_identity(manifest, rec_id, source=shown(key, 400))
    except ManifestError as error:
        raise never_replaced(error) from None
    return manifest
