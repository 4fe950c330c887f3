"""Which recordings of the bucket have no manifest."""

from __future__ import annotations

from collections.abc import Callable

from ursa.errors import InvalidRecordingError, ManifestError, UrsaError
from ursa.manifest import check_rec_id
from ursa.reconstruct.run import each
from ursa.reconstruct.standing import aggregate, node_manifest
from ursa.recording import NODE_MANIFESTS_DIR
from ursa.store import Store
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.parts import MIB

# A manifest of 10,000 files, as bytes and as read: so much is granted to each that is in flight.
_MANIFEST_BYTES = 4 * MIB


def missing_manifests(
    engine: Engine,
    store: Store,
    raw_prefix: str,
    *,
    stop: Stop,
    on_left_out: Callable[[str, UrsaError], object],
) -> list[str]:
    """rec_ids without a valid manifest, sorted; see ``DataInterface.missing_manifests``."""
    names = [item.removeprefix(raw_prefix).rstrip("/") for item in store.list_prefixes(raw_prefix)]
    rec_ids = []
    for name in sorted(name for name in names if name.startswith("rec_")):
        try:
            rec_ids.append(check_rec_id(name))
        except InvalidRecordingError as error:
            on_left_out(name, error)

    def look(rec_id: str) -> bool | ManifestError:
        try:
            return _has_manifest(store, f"{raw_prefix}{rec_id}/", rec_id)
        except ManifestError as error:
            return error

    looked = each(engine, stop, rec_ids, look, claim_bytes=_MANIFEST_BYTES)
    missing = []
    for rec_id, found in zip(rec_ids, looked, strict=True):
        if isinstance(found, ManifestError):
            on_left_out(rec_id, found)
        elif not found:
            missing.append(rec_id)
    return missing


def _has_manifest(store: Store, prefix: str, rec_id: str) -> bool:
    if aggregate(store, prefix, rec_id) is not None:
        return True
    return node_manifest(store, prefix, rec_id, store.list(f"{prefix}{NODE_MANIFESTS_DIR}/")) is not None
