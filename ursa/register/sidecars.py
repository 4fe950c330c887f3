"""Step 6, planned: participant.txt and the manifests, and whom in the bucket they give way to."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ursa.beside import each
from ursa.bucket.listing import Listing
from ursa.catalog.metadata import Sidecar
from ursa.errors import FileChangedError, InvalidRecordingError, ManifestError, ObjectConflictError
from ursa.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, parse_manifest, shown
from ursa.recording import (
    MAX_PARTICIPANT_BYTES,
    PARTICIPANT_NAME,
    LocalFile,
    ManifestSource,
    parse_participant,
    read_participant,
)
from ursa.register.local import LocalRecording
from ursa.register.memory import source_of
from ursa.register.planning import node_here
from ursa.register.results import PlannedFile
from ursa.store import ObjectInfo, Store
from ursa.transfer.digest import SourceFile, read_whole, reading


@dataclass(frozen=True, slots=True)
class Judged:
    """What happens to a sidecar. ``names``: of a participant.txt that gives way to a peer's, those in both."""

    item: PlannedFile
    warning: str = ""
    names: tuple[str, ...] = ()


def plan_sidecars(
    local: LocalRecording,
    listing: Listing,
    store: Store,
    absent_nodes: Sequence[str],
    *,
    replace_objects: bool,
    registered: bool,
) -> tuple[list[Judged], list[str]]:
    """participant.txt, then the manifests, ``manifest.json`` last; and warnings.

    A manifest in the bucket is the mark that all of its files are there: one that lists files of an absent node waits
    for that node's half.

    Raises:
        ObjectConflictError: the bucket has a different manifest that is no placeholder and was not reconstructed.
        FileChangedError: a manifest was rewritten since it was read.
    """
    paths = [PARTICIPANT_NAME] if PARTICIPANT_NAME in local.scan.by_path else []
    warnings: list[str] = []
    for source in sorted(local.loaded.sources, key=lambda source: (source.path == "manifest.json", source.path)):
        if any(local.manifest.node_of(entry) in absent_nodes for entry in _merged_entries(local, source)):
            warnings.append(
                f"{source.path} lists files of {', '.join(absent_nodes)}, which is not here: it is uploaded with that half"
            )
        else:
            paths.append(source.path)

    def judged_as_listed(path: str) -> Judged:
        there = listing.get(path)
        return judge(
            local, path, listing.key(path), there, store, replace_objects=replace_objects, registered=registered
        )

    judged = each(judged_as_listed, paths)
    return judged, warnings + [item.warning for item in judged if item.warning]


def judge(
    local: LocalRecording,
    path: str,
    key: str,
    info: ObjectInfo | None,
    store: Store,
    *,
    replace_objects: bool,
    registered: bool,
) -> Judged:
    """What happens to one sidecar, given the object under its key. Raises as ``plan_sidecars``.

    ``registered``: the recording is, and so its files are as they are in the rows: a manifest that was reconstructed from
    them says no more than the rig's own.
    """
    source = next((source for source in local.loaded.sources if source.path == path), None)
    file = _as_it_was(local, source) if source else local.scan.by_path[path]
    data = source.data if source else read_whole(source_of(file))
    sha256 = hashlib.sha256(data).hexdigest()
    if info is None:
        return Judged(PlannedFile(file, key, "upload", sha256, data=data))
    largest = MAX_MANIFEST_BYTES if source else MAX_PARTICIPANT_BYTES
    theirs = store.read(info.key)[0] if info.size_bytes <= max(largest, len(data)) else None
    if theirs == data:
        return Judged(PlannedFile(file, info.key, "skip", sha256, info.etag))
    replaced = PlannedFile(file, info.key, "replace", sha256, info.etag, data=data)
    seen = None if theirs is None else Sidecar(len(theirs), hashlib.sha256(theirs).hexdigest(), etag=info.etag)
    kept = PlannedFile(file, info.key, "keep", sha256, info.etag, theirs=seen)
    if source is None:
        return Judged(replaced) if replace_objects else _both_names(kept, data, theirs)
    if source.manifest.is_placeholder:
        why = f"the bucket has another {path}, which stays: nobody can read this disk's" if source.left_aside else ""
        return Judged(kept, why)
    there = _parsed(theirs, info.key)
    if replace_objects or (there and there.is_placeholder):
        return Judged(replaced)
    if there and source.manifest.reconstruction and (there.reconstruction or registered):
        whose = "another reconstructed" if there.reconstruction else "the rig's own"
        return Judged(kept, f"the bucket has {whose} {path}, which stays: this disk's was reconstructed")
    if there and there.reconstruction:
        return Judged(replaced)
    raise _other_manifest(path, info.key, ours=source.manifest)


def settled(
    items: Sequence[PlannedFile], local: LocalRecording, participant: str | None, etags: Mapping[str, str]
) -> dict[str, list[Sidecar]]:
    """Of sidecars that are sent or stand back: the versions with which nothing is left to do, by path.

    ``etags``: of what this run has sent, by key.
    """
    ours = _without_unnamed(local, participant, {item.file.path for item in items})
    return {
        item.file.path: [
            Sidecar(item.file.size_bytes, item.sha256 or "", item.file.mtime_ns, _etag(item, etags)),
            *([item.theirs] if item.theirs else ()),
        ]
        for item in items
        if item.file.path in ours
    }


def _etag(item: PlannedFile, etags: Mapping[str, str]) -> str | None:
    """Of the object that a sidecar's own bytes are in."""
    return None if item.action == "keep" else etags.get(item.key, item.etag if item.action == "skip" else None)


def local_sidecars(
    local: LocalRecording, elsewhere: Collection[str], participant: str | None
) -> tuple[dict[str, list[Sidecar]], list[str]]:
    """What ``settled`` would say if all were sent, as far as the disk alone can tell; and the manifests that wait for
    the half of a node that has nothing here. ``elsewhere``: paths that are registered.
    """
    waiting = [source.path for source in local.loaded.sources if _waits(local, source, elsewhere)]
    found = {source.path: source.data for source in local.loaded.sources if source.path not in waiting}
    file = local.scan.by_path.get(PARTICIPANT_NAME)
    if file is not None and _without_unnamed(local, participant, {PARTICIPANT_NAME}):
        found[PARTICIPANT_NAME] = read_whole(source_of(file))
    ours = {path: [Sidecar(len(data), hashlib.sha256(data).hexdigest())] for path, data in found.items()}
    return ours, waiting


def disk_participant(local: LocalRecording) -> str | None:
    """The name in participant.txt as it was when the directory was read; None where there is none.

    Raises:
        InvalidRecordingError: as ``ursa.recording.read_participant``. FileChangedError: it was rewritten since.
    """
    file = local.scan.by_path.get(PARTICIPANT_NAME)
    if file is None or file.size_bytes > MAX_PARTICIPANT_BYTES:
        return read_participant(local.root)
    return parse_participant(read_whole(source_of(file)), source=str(local.root / PARTICIPANT_NAME))


def _without_unnamed(local: LocalRecording, participant: str | None, paths: set[str]) -> set[str]:
    """Without participant.txt where it has a name and the caller gave none: nobody has dealt with that name."""
    if PARTICIPANT_NAME not in paths or participant is not None:
        return paths
    with suppress(InvalidRecordingError):
        if disk_participant(local) is None:
            return paths
    return paths - {PARTICIPANT_NAME}


def _waits(local: LocalRecording, source: ManifestSource, elsewhere: Collection[str]) -> bool:
    """Whether what a manifest lists and nobody has is of nodes that have nothing here: then that half brings it."""
    lost = [
        entry
        for entry in _merged_entries(local, source)
        if entry.path not in local.scan.by_path and entry.path not in elsewhere
    ]
    if not lost:
        return False
    absent = {local.manifest.node_of(entry) for entry in lost}
    here = {node_here(local, file) for file in local.scan.raw}
    return None not in absent | here and not absent & here


def _both_names(kept: PlannedFile, ours: bytes, theirs: bytes | None) -> Judged:
    names: list[str] = []
    told = "the rows get both names"
    for data, whose in ((ours, "this disk's"), (theirs, "that one")):
        try:
            name = parse_participant(b"\0" if data is None else data, source=PARTICIPANT_NAME)
        except InvalidRecordingError:
            told = f"{whose} holds no name that can be read"
        else:
            names += [name] if name else []
    return Judged(kept, f"the bucket has a different participant.txt, which stays; {told}", tuple(names))


def _other_manifest(path: str, key: str, ours: Manifest) -> ObjectConflictError:
    mend = (
        "This disk's was reconstructed, and does not replace the rig's own: move it away, then run the same command again"
        " with the rig's manifest, or `ursa ingest-r2` where all files are in the bucket."
        if ours.reconstruction
        else "Only this version of the manifest would be lost with this disk, if its data files are in the bucket already."
        " Compare the two; where the disk is right, run `ursa ingest REC_DIR --replace-objects`."
    )
    return ObjectConflictError(
        f"the bucket holds another {shown(path)} than this disk: {shown(key, 400)}",
        hint=f"Nothing was uploaded and nothing was changed. {mend}",
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


def _parsed(data: bytes | None, source: str) -> Manifest | None:
    """The bucket's manifest; None where nobody can read it."""
    with suppress(ManifestError):
        return parse_manifest(data, source=source) if data is not None else None
    return None
