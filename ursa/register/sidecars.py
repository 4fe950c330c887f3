"""Step 6, planned: participant.txt and the manifests, and whom in the bucket they give way to."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace

from ursa.errors import FileChangedError, InvalidRecordingError, ObjectConflictError, UrsaError
from ursa.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, parse_manifest, shown
from ursa.recording import MAX_PARTICIPANT_BYTES, LocalFile, ManifestSource, parse_participant
from ursa.register.local import LocalRecording
from ursa.register.planning import Context, Listing, source_of
from ursa.register.results import PlannedFile
from ursa.store import ObjectInfo, Store
from ursa.transfer.digest import SourceFile, read_whole, reading


def plan_sidecars(
    local: LocalRecording, listing: Listing, context: Context, absent_nodes: Sequence[str]
) -> tuple[tuple[PlannedFile, ...], list[str], str | None]:
    """participant.txt, then the manifests, ``manifest.json`` last; warnings; the name in a peer's participant.txt.

    A manifest in the bucket is the mark that all of its files are there: one that lists files of an absent node waits
    for that node's half.

    Raises:
        ObjectConflictError: the bucket has a different manifest that is no placeholder and was not reconstructed.
        FileChangedError: a manifest was rewritten since it was read.
    """
    planned: list[PlannedFile] = []
    warnings: list[str] = []
    peer = None
    participant = local.scan.by_path.get("participant.txt")
    if participant is not None:
        data = read_whole(source_of(participant))
        item = _sidecar(participant, data, listing, context.store)
        if item.action == "replace" and not context.options.replace_objects:
            item = replace(item, action="keep")
            peer = _peer_participant(context.store, listing.get(participant.path))
            warnings.append("the bucket has a different participant.txt, which stays; the rows get both names")
        planned.append(item)
    sources = sorted(local.loaded.sources, key=lambda source: (source.path == "manifest.json", source.path))
    for source in sources:
        if any(local.manifest.node_of(entry) in absent_nodes for entry in _merged_entries(local, source)):
            warnings.append(
                f"{source.path} lists files of {', '.join(absent_nodes)}, which is not here: it is uploaded with that half"
            )
            continue
        item = _sidecar(_as_it_was(local, source), source.data, listing, context.store)
        if item.action == "replace" and source.manifest.is_placeholder:
            item = replace(item, action="keep")
        elif item.action == "replace" and not context.options.replace_objects:
            there = _manifest_there(context.store, listing.get(source.path))
            if there is None or not (there.is_placeholder or there.reconstruction):
                raise _other_manifest(source.path, item.key)
            if there.reconstruction and source.manifest.reconstruction:
                item = replace(item, action="keep")
                warnings.append(
                    f"the bucket has another reconstructed {source.path}, which stays: only a rig's own replaces it"
                )
        planned.append(item)
    return tuple(planned), warnings, peer


def local_sidecars(local: LocalRecording, elsewhere: Collection[str]) -> dict[str, tuple[int, str | None]]:
    """Size and sha256 of the disk's manifests and participant.txt, without a manifest that waits for another half: one
    that lists files which are neither here nor ``elsewhere``.
    """
    found = {
        source.path: source.data
        for source in local.loaded.sources
        if all(entry.path in local.scan.by_path or entry.path in elsewhere for entry in source.manifest.files)
    }
    participant = local.scan.by_path.get("participant.txt")
    if participant is not None:
        found[participant.path] = read_whole(source_of(participant))
    return {path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in found.items()}


def _other_manifest(path: str, key: str) -> ObjectConflictError:
    return ObjectConflictError(
        f"the bucket holds another {shown(path)} than this disk: {shown(key, 400)}",
        hint="Nothing was uploaded and nothing was changed; only this version of the manifest would be lost with this"
        " disk, if its data files are in the bucket already. Compare the two; where the disk is right, run"
        " `ursa ingest REC_DIR --replace-objects`.",
        keys=(key,),
    )


def _as_it_was(local: LocalRecording, source: ManifestSource) -> LocalFile:
    """The file of a manifest, which still holds what was read from it, and what the recording is planned by.

    Raises:
        FileChangedError: it was rewritten or removed since.
    """
    file = local.scan.by_path.get(source.path)
    if file is None:
        # It lies elsewhere, where no scan went.
        with reading(SourceFile(source.path, source.source, len(source.data), 0)):
            stat = source.source.stat()
        file = LocalFile(source.path, source.source, stat.st_size, stat.st_mtime_ns, "manifest", "")
    if file.size_bytes != len(source.data) or read_whole(source_of(file)) != source.data:
        raise FileChangedError(
            f"{shown(source.path)} was rewritten while the recording was read",
            hint="Nothing was uploaded. Wait until the copy or the rig is done, then run the same command again.",
            path=source.path,
        )
    return file


def _merged_entries(local: LocalRecording, source: ManifestSource) -> list[FileEntry]:
    """A manifest's entries as merged: those know their nodes."""
    merged = local.manifest.files_by_path
    return [merged[entry.path] for entry in source.manifest.files if entry.path in merged]


def _sidecar(file: LocalFile, data: bytes, listing: Listing, store: Store) -> PlannedFile:
    info = listing.get(file.path)
    sha256 = hashlib.sha256(data).hexdigest()
    if info is None:
        return PlannedFile(file, listing.key(file.path), "upload", sha256, data=data)
    if info.size_bytes == len(data) and store.read(info.key)[0] == data:
        return PlannedFile(file, info.key, "skip", sha256, info.etag)
    return PlannedFile(file, info.key, "replace", sha256, info.etag, data=data)


def _peer_participant(store: Store, info: ObjectInfo | None) -> str | None:
    if info is None or info.size_bytes > MAX_PARTICIPANT_BYTES:
        return None
    try:
        return parse_participant(store.read(info.key)[0], source=info.key)
    except InvalidRecordingError:
        return None


def _manifest_there(store: Store, info: ObjectInfo | None) -> Manifest | None:
    """The bucket's manifest, which gives way where it is a placeholder or was reconstructed; None: it can't be read."""
    if info is None or info.size_bytes > MAX_MANIFEST_BYTES:
        return None
    try:
        return parse_manifest(store.read(info.key)[0], source=info.key)
    except UrsaError:
        return None
