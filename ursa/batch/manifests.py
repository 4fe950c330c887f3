"""A recording whose files are all registered may have another manifest than the bucket: that is no HAVE."""

from __future__ import annotations

from ursa.batch.have import manifests_touched
from ursa.batch.model import Standing
from ursa.errors import ObjectConflictError
from ursa.manifest import parse_manifest, shown
from ursa.register.local import LocalRecording
from ursa.register.planning import Listing
from ursa.register.services import Services


def check_manifests(services: Services, local: LocalRecording, standing: Standing | None) -> None:
    """Compare the disk's manifests with the bucket's; no request where none was touched since the registration.

    A manifest that the bucket does not have, or has as a placeholder or reconstructed, is no contradiction.

    Raises:
        ObjectConflictError: the bucket has another manifest: this disk's would be lost with it.
    """
    if standing is None or not manifests_touched(str(local.root), *standing):
        return
    prefix = f"{services.raw_prefix}{local.rec_id}/"
    listing = Listing(prefix, services.raw.list(prefix))
    for source in local.loaded.sources:
        info = listing.get(source.path)
        if info is None or source.manifest.is_placeholder:
            continue
        theirs = services.raw.read(info.key)[0]
        if theirs == source.data:
            continue
        manifest = parse_manifest(theirs, source=info.key)
        if not manifest.is_placeholder and manifest.reconstruction is None:
            raise ObjectConflictError(
                f"{shown(source.path)} was changed after the registration: the bucket holds another one; the other files"
                " are registered as they are here, nothing was changed, and only this version of the manifest would be"
                " lost with this disk",
                hint=f"Compare it with {info.key}. To keep this disk's: `ursa ingest"
                f" {shown(str(local.root), 400)} --overwrite --replace-objects`.",
                keys=(info.key,),
            )
