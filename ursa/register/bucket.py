"""A recording as the bucket holds it: manifests, objects, and what is missing. The bucket's side of ``local.py``."""

from __future__ import annotations

import hashlib
import threading
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from ursa.bucket.listing import Listing
from ursa.bucket.proof import Proofs, from_row, known, measure
from ursa.catalog.metadata import Sidecar
from ursa.catalog.rows import FileRow
from ursa.errors import (
    ChecksumMismatchError,
    InvalidRecordingError,
    ManifestError,
    ManifestNotFoundError,
    MissingFilesError,
    named,
)
from ursa.manifest import (
    Manifest,
    RecordingTimes,
    beside_in,
    check_identity,
    check_rec_id,
    is_junk,
    is_unfinished,
    normalize_path,
    parse_manifest,
    resolve_times,
    shown,
)
from ursa.manifest.models import identity_clash
from ursa.policies import Evidence
from ursa.recording import (
    MANIFEST_NAME,
    MAX_PARTICIPANT_BYTES,
    FileKind,
    classify,
    effective_manifest,
    refuse_large_manifest,
)
from ursa.register.build import Contents
from ursa.store import NotFoundError, ObjectInfo, PreconditionFailedError, Store
from ursa.transfer.engine import Engine, Stop

T = TypeVar("T")

# Bytes of a name on every file system that a recording can come from.
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class BucketObject:
    """An object of a recording. ``worker``: the worker directory of raw data, "" for an auxiliary file."""

    path: str
    info: ObjectInfo
    kind: FileKind
    worker: str


@dataclass(frozen=True)
class BucketRecording:
    """A recording in the bucket, every listed file present with its listed size.

    ``warnings``: in words, node manifests that can't be read beside a ``manifest.json`` that can. ``digests``: the
    sha256 of the sidecars that were read, by key.
    """

    rec_id: str
    manifest: Manifest
    times: RecordingTimes
    objects: tuple[BucketObject, ...]
    unlisted: tuple[str, ...]
    junk: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> tuple[BucketObject, ...]:
        """Raw and auxiliary objects."""
        return tuple(item for item in self.objects if item.kind in ("raw", "auxiliary"))

    @property
    def sidecars(self) -> tuple[BucketObject, ...]:
        """Manifests and participant.txt."""
        return tuple(item for item in self.objects if item.kind in ("manifest", "participant"))

    def contents(self, rows: Mapping[str, FileRow], participants: tuple[str, ...]) -> Contents:
        """With a row for each data object, what is to be registered."""
        workers: dict[str, list[FileRow]] = {}
        auxiliary: list[FileRow] = []
        for item in self.data:
            row = rows[item.path]
            if item.kind == "raw":
                workers.setdefault(item.worker, []).append(row)
            else:
                auxiliary.append(row)
        # A participant.txt whose name nobody has given is left to whoever has the disk.
        sidecars = {
            item.path: [Sidecar(item.info.size_bytes, self.digests[item.info.key], etag=item.info.etag)]
            for item in self.sidecars
            if item.info.key in self.digests
        }
        return Contents(self.rec_id, self.manifest, self.times, workers, auxiliary, participants, sidecars)


def read_bucket(
    store: Store, raw_prefix: str, rec_id: str, *, rig_timezone: str | None, registered: Collection[str] = ()
) -> BucketRecording:
    """One LIST, and a GET for each manifest. ``registered``: paths that are never taken for unfinished copies.

    Raises:
        ManifestNotFoundError: no manifest lists files, or there is no such recording in the bucket.
        ManifestError: one can't be read, is another recording's, or contradicts another.
        MissingFilesError: listed files are missing or have another size. All of them are named.
        InvalidRecordingError: the rec_id is none, an upload is unfinished, objects have names that can be no files', or
            there is no raw data.
    """
    prefix = f"{raw_prefix}{check_rec_id(rec_id)}/"
    if len(rec_id) > _LONGEST_NAME:
        raise InvalidRecordingError(f"{shown(rec_id)}: no directory has a name of {len(rec_id):,} bytes", path=rec_id)
    found = list(store.list(prefix))
    listing = Listing(prefix, found)
    digests: dict[str, str] = {}
    manifest, warnings = _manifest(store, listing, rec_id, rig_timezone, digests)
    listed = manifest.files_by_path
    _refuse_missing(rec_id, manifest, listing)
    objects: list[BucketObject] = []
    junk: list[str] = []
    unfinished: list[str] = []
    beside = beside_in((*listed, *(path for path, _ in listing.items())))
    for path, info in listing.items():
        if path not in listed and (is_junk(path) or _is_folder(path, info)):
            junk.append(path)
        elif path not in listed and path not in registered and is_unfinished(path, beside):
            unfinished.append(path)
        else:
            objects.append(BucketObject(path, info, *classify(path, listed)))
    if unfinished:
        raise InvalidRecordingError(
            f"{rec_id}: the bucket holds unfinished copies that no manifest lists: {_names(unfinished)}",
            hint="Nothing was registered. Upload the finished files (`ursa ingest`) and delete these objects.",
            path=unfinished[0],
        )
    _refuse_names(rec_id, manifest, objects, listing, found)
    if not any(item.kind == "raw" for item in objects):
        raise InvalidRecordingError(f"{rec_id}: the bucket holds no raw data of it", path=prefix)
    return BucketRecording(
        rec_id=rec_id,
        manifest=manifest,
        times=resolve_times(manifest, rec_id, rig_timezone=rig_timezone),
        objects=tuple(objects),
        unlisted=tuple(item.path for item in objects if item.kind in ("raw", "auxiliary") and item.path not in listed),
        junk=tuple(junk),
        warnings=tuple(warnings),
        digests=digests,
    )


def with_participant(store: Store, recording: BucketRecording) -> BucketRecording:
    """Where the caller gives the participant's name: participant.txt is dealt with as it is, whatever it says."""
    digests = {
        item.info.key: hashlib.sha256(store.read(item.info.key)[0]).hexdigest()
        for item in recording.sidecars
        if item.kind == "participant" and item.info.size_bytes <= MAX_PARTICIPANT_BYTES
    }
    return replace(recording, digests={**recording.digests, **digests})


def file_rows(
    store: Store,
    engine: Engine,
    stop: Stop,
    recording: BucketRecording,
    registered: Iterable[FileRow],
    proofs: Proofs,
    *,
    checked: Callable[[str, int], object] = lambda _path, _size: None,
) -> dict[str, FileRow]:
    """A row for each data object, by path. Objects are in flight side by side; most need no request.

    What was measured counts: by the row of the same object, by this machine, by a reconstruct. Else the manifest's sha256,
    as a claim; where it states none, the object is read. What an object's metadata states is not asked. A row that is
    proven stays as it is, whatever the manifest states now (see ``contradicted``).

    Raises:
        ChecksumMismatchError: an object of no such row was measured to have another sha256 than the manifest states.
    """
    rows = {file.path: file for file in registered}
    ended = threading.Event()

    def go_on(_count: int = 0) -> None:
        if stop.is_set() or ended.is_set():
            raise KeyboardInterrupt

    def row(item: BucketObject) -> FileRow:
        go_on()
        return _row(store, recording.manifest, item, rows.get(item.path), proofs, go_on)

    futures = {item: engine.submit(partial(row, item)) for item in recording.data}
    try:
        for item, future in futures.items():
            future.result()
            checked(item.path, item.info.size_bytes)
    except BaseException:
        ended.set()
        _cancel(futures.values())
        raise
    return {item.path: future.result() for item, future in futures.items()}


def _row(
    store: Store,
    manifest: Manifest,
    item: BucketObject,
    known_row: FileRow | None,
    proofs: Proofs,
    go_on: Callable[[int], object],
) -> FileRow:
    info = item.info
    entry = manifest.files_by_path.get(item.path)
    stated = entry.sha256 if entry else None
    proof = from_row(known_row, info)
    if proof is not None and known_row is not None:
        return known_row
    proof = known(info, None, proofs)
    if proof is None and stated is not None:
        return FileRow(item.path, info.key, info.size_bytes, stated, info.etag, Evidence.CLAIMED)
    try:
        proof = proof or measure(store, info, proofs, go_on)
    except (NotFoundError, PreconditionFailedError):
        raise _changed(item) from None
    row = FileRow(item.path, info.key, info.size_bytes, proof.sha256, info.etag, proof.evidence)
    if stated not in (None, proof.sha256):
        raise not_as_stated(row, str(stated))
    return row


def contradicted(manifest: Manifest, rows: Iterable[FileRow]) -> Iterator[tuple[FileRow, str]]:
    """Files that were measured to have another sha256 than the manifest states now, and what it states."""
    for row in rows:
        entry = manifest.files_by_path.get(row.path)
        if row.proven and entry is not None and entry.sha256 not in (None, row.sha256):
            yield row, str(entry.sha256)


def not_as_stated(row: FileRow, stated: str) -> ChecksumMismatchError:
    """The error for one of them."""
    return ChecksumMismatchError(
        f"{shown(row.key, 400)} has sha256 {row.sha256}, the manifest states {stated}",
        hint="Nothing was registered. Upload the rig's own file (`ursa ingest REC_DIR --replace-objects`), or its right"
        " manifest, then run this again.",
        path=row.path,
        expected=stated,
        found=str(row.sha256),
    )


def _changed(item: BucketObject) -> MissingFilesError:
    return MissingFilesError(
        f"{shown(item.info.key, 400)}: gone or replaced in the bucket while it was read",
        hint="Nothing was registered. Somebody deletes or replaces objects there: find out who, then run this again.",
        paths=(item.path,),
    )


def _manifest(
    store: Store, listing: Listing, rec_id: str, rig_timezone: str | None, digests: dict[str, str]
) -> tuple[Manifest, Sequence[str]]:
    """The manifest that counts, and warnings: node manifests that were left aside. ``digests`` gets their sha256s."""
    own = listing.get(MANIFEST_NAME)
    aggregate = _parsed(store, own, rec_id, digests) if own else None
    wins = aggregate is not None and not aggregate.is_placeholder
    manifests: dict[str, Manifest] = {}
    warnings: list[str] = []
    for path, info in listing.items():
        if classify(path, {})[0] != "manifest" or is_junk(path) or path == MANIFEST_NAME:
            continue
        try:
            manifest = _parsed(store, info, rec_id, digests)
        except ManifestError as error:
            # Beside a manifest.json that lists the files, a node manifest that can't be read takes nothing away.
            if not wins:
                raise
            warnings.append(f"left aside, since {MANIFEST_NAME} lists the files: {error.message}")
            continue
        if manifest is not None:
            manifests[path] = manifest
    found = effective_manifest(aggregate, manifests, rig_timezone=rig_timezone)
    if found is None:
        if not any(listing.items()):
            raise ManifestNotFoundError(
                f"{rec_id}: there is nothing below {listing.prefix} in {store.uri}",
                hint="Check the rec_id and the profile; `ursa ingest REC_DIR` uploads a recording that is on a disk.",
                rec_id=rec_id,
            )
        stub = "only a placeholder without files" if aggregate or manifests else "no manifest"
        raise ManifestNotFoundError(
            f"{rec_id}: the bucket has {stub} of it: neither manifest.json nor _node_manifests/ lists files",
            hint=f"Nothing was registered. `ursa reconstruct {rec_id}` makes one from the objects; then run this again.",
            rec_id=rec_id,
        )
    return found, warnings


def _parsed(store: Store, info: ObjectInfo, rec_id: str, digests: dict[str, str]) -> Manifest | None:
    """A manifest of the bucket; None where it vanished since it was listed."""
    refuse_large_manifest(info.size_bytes, source=info.key)
    try:
        data, _ = store.read(info.key)
    except NotFoundError:
        return None
    digests[info.key] = hashlib.sha256(data).hexdigest()
    manifest = parse_manifest(data, source=info.key)
    if not manifest.is_placeholder:
        check_identity(manifest, rec_id, source=info.key)
    return manifest


def _refuse_missing(rec_id: str, manifest: Manifest, listing: Listing) -> None:
    wrong: dict[str, str] = {}
    for entry in manifest.files:
        info = listing.get(entry.path)
        if info is None:
            wrong[entry.path] = "missing"
        elif info.size_bytes != entry.size_bytes:
            wrong[entry.path] = f"{info.size_bytes:,} bytes instead of {entry.size_bytes:,}"
    if not wrong:
        return
    told = named([f"{shown(path)} ({what})" for path, what in wrong.items()], 50)
    raise MissingFilesError(
        f"{rec_id}: {len(wrong)} of {len(manifest.files)} listed files"
        f" {'is' if len(wrong) == 1 else 'are'} not whole in the bucket: {told}",
        hint="Nothing was registered. `ursa ingest REC_DIR` uploads what is missing from the NAS or the rig.",
        paths=tuple(wrong),
    )


def _is_folder(path: str, info: ObjectInfo) -> bool:
    """A console's "folder": an empty object whose key ends with a slash."""
    return (not path or path.endswith("/")) and info.size_bytes == 0


def _refuse_names(
    rec_id: str, manifest: Manifest, objects: Iterable[BucketObject], listing: Listing, found: Iterable[ObjectInfo]
) -> None:
    """Objects that could not be told apart, or not be downloaded, once they are rows. Raises ``InvalidRecordingError``."""
    wrong = {item.path: why for item in objects if (why := _fault(item.path))}
    for info in found:
        path = unicodedata.normalize("NFC", info.key.removeprefix(listing.prefix))
        twin = listing.get(path)
        if twin is not None and twin.key != info.key and (twin.size_bytes, twin.etag) != (info.size_bytes, info.etag):
            wrong[path] = "two objects with other content have this name, spelt in two forms of Unicode"
    workers = dict.fromkeys(item.worker for item in objects if item.kind == "raw" and item.path not in wrong)
    identities = ((name, manifest.worker_identity(name)) for name in workers)
    clash = identity_clash((name, (worker.modality, worker.worker_id)) for name, worker in identities)
    if clash:
        wrong[clash[1]] = f"the same modality and worker_id as {shown(clash[0])}"
    if wrong:
        raise InvalidRecordingError(
            f"{rec_id}: objects in the bucket can't be registered as they are:"
            f" {named([f'{shown(path)} ({why})' for path, why in wrong.items()])}",
            hint="Nothing was registered. Rename or remove these objects, then run the same command again.",
            path=next(iter(wrong)),
        )


def _fault(path: str) -> str | None:
    try:
        return None if normalize_path(path) == path else "a name with a backslash, or an empty or '.' part"
    except ValueError as error:
        return str(error)


def _names(paths: list[str]) -> str:
    return named([shown(path) for path in paths])


def _cancel(futures: Iterable[Future[T]]) -> None:
    for future in futures:
        future.cancel()
