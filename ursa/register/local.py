"""Step 1 of an ingest: read and check everything on the disk, before anything connects."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ursa.errors import ChecksumMismatchError, InvalidRecordingError
from ursa.manifest import FileEntry, Manifest, RecordingTimes, derive_recording_hash, resolve_times, shown
from ursa.recording import LoadedManifest, LocalFile, RecordingDir, load_manifest, scan_recording

_NAMED_AT_MOST = 20


@dataclass(frozen=True, slots=True)
class LocalRecording:
    """A recording on the disk that may be ingested, as far as the disk alone can tell.

    ``missing``: listed files that are not on this disk. ``unlisted``: files that no manifest lists.
    """

    rec_id: str
    root: Path
    loaded: LoadedManifest
    scan: RecordingDir
    times: RecordingTimes
    missing: tuple[FileEntry, ...]
    unlisted: tuple[str, ...]

    @property
    def manifest(self) -> Manifest:
        """What the rig says, merged over its nodes."""
        return self.loaded.manifest

    @property
    def data_files(self) -> tuple[LocalFile, ...]:
        """Raw and auxiliary files: all that is neither a manifest nor participant.txt."""
        return tuple(file for file in self.scan.files if file.kind in ("raw", "auxiliary"))

    def stated_hash(self) -> str | None:
        """The recording_hash as far as it is known before a byte is read: stated, or derived from stated sha256s."""
        if self.manifest.recording_hash:
            return self.manifest.recording_hash
        listed = self.manifest.files_by_path
        stated = [listed[file.path].sha256 if file.path in listed else None for file in self.scan.raw]
        if self.missing or not stated or None in stated:
            return None
        return derive_recording_hash(sha256 for sha256 in stated if sha256)

    def stated_sha256(self, path: str) -> str | None:
        """What the manifest states about a file."""
        entry = self.manifest.files_by_path.get(path)
        return entry.sha256 if entry else None


def read_local(
    manifest_path: Path | None,
    source_dir: Path,
    *,
    key_prefix: str,
    rig_timezone: str | None,
    not_unfinished: Collection[str] = (),
) -> LocalRecording:
    """Read manifests and directory, and refuse what can't be right.

    Raises:
        InvalidRecordingError, ManifestError, ManifestNotFoundError, ChecksumMismatchError
    """
    loaded = load_manifest(source_dir, manifest_path, rig_timezone=rig_timezone)
    scan = scan_recording(source_dir, manifest=loaded.manifest, key_prefix=key_prefix, not_unfinished=not_unfinished)
    times = resolve_times(loaded.manifest, scan.rec_id, rig_timezone=rig_timezone)
    listed = loaded.manifest.files_by_path
    _check_sizes(scan, loaded.manifest)
    _check_workers(scan, loaded.manifest)
    local = LocalRecording(
        rec_id=scan.rec_id,
        root=source_dir,
        loaded=loaded,
        scan=scan,
        times=times,
        missing=tuple(entry for path, entry in listed.items() if path not in scan.by_path),
        unlisted=tuple(
            file.path for file in scan.files if file.kind in ("raw", "auxiliary") and file.path not in listed
        ),
    )
    if not scan.raw and not any(loaded.manifest.worker_of(entry) for entry in local.missing):
        raise InvalidRecordingError(
            f"{scan.rec_id} holds no raw data file: there is nothing in a worker directory such as camera_left/",
            hint="Nothing was uploaded. Check that the copy is whole and that the path is the recording's own directory.",
            path=str(source_dir),
        )
    return local


def _check_sizes(scan: RecordingDir, manifest: Manifest) -> None:
    wrong = []
    for path, entry in manifest.files_by_path.items():
        file = scan.by_path.get(path)
        if file is not None and file.kind != "manifest" and file.size_bytes != entry.size_bytes:
            wrong.append((path, entry.size_bytes, file.size_bytes))
    if not wrong:
        return
    told = "; ".join(
        f"{shown(path)} has {found} bytes, the manifest states {stated}"
        for path, stated, found in wrong[:_NAMED_AT_MOST]
    )
    more = f"; and {len(wrong) - _NAMED_AT_MOST} more" if len(wrong) > _NAMED_AT_MOST else ""
    raise ChecksumMismatchError(
        told + more,
        hint="Nothing was uploaded. Copy these files from the rig again and run the same command.",
        path=wrong[0][0],
        expected=str(wrong[0][1]),
        found=str(wrong[0][2]),
    )


def _check_workers(scan: RecordingDir, manifest: Manifest) -> None:
    seen: dict[tuple[str, str], str] = {}
    for worker in dict.fromkeys(file.worker for file in scan.raw):
        identity = manifest.worker_identity(worker)
        other = seen.setdefault((identity.modality, identity.worker_id), worker)
        if other != worker:
            raise InvalidRecordingError(
                f"{shown(other)}/ and {shown(worker)}/ are both {identity.modality} {identity.worker_id!r} by the manifest",
                hint="Nothing was uploaded. Correct workers[] in the manifest.",
                path=worker,
            )
