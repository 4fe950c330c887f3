"""Path C on a disk: the manifest of a recording directory that has none. Touches no network."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from ursa.errors import FileChangedError, InvalidRecordingError, ManifestError, ManifestNotFoundError, StorageError
from ursa.events import HashCallback
from ursa.manifest import parse_manifest, shown
from ursa.manifest.names import UNKNOWN_PARTICIPANT
from ursa.reconstruct.document import Hashed, build, kept, never_replaced
from ursa.reconstruct.hashing import hash_files
from ursa.reconstruct.progress import Progress
from ursa.reconstruct.results import Made, ReconstructResult
from ursa.reconstruct.run import Block
from ursa.recording import (
    MANIFEST_NAME,
    LoadedManifest,
    RecordingDir,
    load_manifest,
    os_error_in_words,
    read_participant,
    scan_recording,
)
from ursa.store.local import sync_directory
from ursa.transfer.digest import SourceFile
from ursa.transfer.engine import Engine, Stop

# Junk by its name (`._*`): what a killed run leaves never uploads, and refuses no ingest.
_TEMPORARY = "._ursa-manifest-"


def reconstruct_dir(
    root: Path,
    *,
    engine: Engine,
    stop: Stop,
    key_prefix: str,
    dry_run: bool = False,
    callback: HashCallback | None = None,
) -> ReconstructResult:
    """Make ``root/manifest.json``; see ``DataInterface.reconstruct_dir``."""
    progress = Progress(Path(os.path.abspath(root)).name, callback)  # noqa: PTH100  (resolve() would lose a symlink's name)
    target = root / MANIFEST_NAME
    loaded, placeholder = _look(root)
    if not dry_run:
        _remove_leftovers(root)
    if loaded is None:
        scan = scan_recording(root, key_prefix=key_prefix)
        result = _make(scan, placeholder, progress, engine, stop, key_prefix, dry_run=dry_run)
    else:
        name = loaded.manifest.recording_id or root.name
        result = kept(name, loaded.manifest, str(target), progress.seconds, dry_run=dry_run)
    if not dry_run:
        progress.done()
    return result


def _look(root: Path) -> tuple[LoadedManifest | None, bytes | None]:
    """The valid manifest that is there, or the bytes of the placeholder.

    Raises:
        ManifestError: one is there and is no manifest.
    """
    try:
        return load_manifest(root), None
    except ManifestNotFoundError:
        with contextlib.suppress(FileNotFoundError):
            return None, (root / MANIFEST_NAME).read_bytes()
        return None, None
    except ManifestError as error:
        raise never_replaced(error) from None


def _make(
    scan: RecordingDir,
    placeholder: bytes | None,
    progress: Progress,
    engine: Engine,
    stop: Stop,
    key_prefix: str,
    *,
    dry_run: bool,
) -> ReconstructResult:
    participant = read_participant(scan.root)
    files = [file for file in scan.files if file.kind in ("raw", "auxiliary")]
    size_bytes = sum(file.size_bytes for file in files)
    _check_raw(scan)
    progress.planned(len(files), size_bytes)
    recording_hash, standing = None, None
    if not dry_run:
        sources = [SourceFile(file.path, file.source, file.size_bytes, file.mtime_ns, file.sighting) for file in files]
        hashes = _hash(sources, progress, engine, stop)
        progress.writing(MANIFEST_NAME)
        _check_unchanged(scan, key_prefix)
        listed = (Hashed(file.path, file.size_bytes, hashes[file.path], file.worker) for file in files)
        stub = None if placeholder is None else parse_manifest(placeholder, source=str(scan.root / MANIFEST_NAME))
        document = build(scan.rec_id, listed, participant, placeholder=stub)
        recording_hash = document.recording_hash
        if stop.is_set():
            raise KeyboardInterrupt
        standing = _write(scan.root, document.data, placeholder)
    if standing is not None:
        return kept(scan.rec_id, standing.manifest, str(scan.root / MANIFEST_NAME), progress.seconds, dry_run=False)
    warnings = [f"not listed, as junk (.DS_Store and the like): {len(scan.junk)}"] * bool(scan.junk)
    return ReconstructResult(
        scan.rec_id,
        Made.MADE if placeholder is None else Made.REPLACED,
        str(scan.root / MANIFEST_NAME),
        recording_hash,
        participant or UNKNOWN_PARTICIPANT,
        len(files),
        size_bytes,
        bytes_hashed=size_bytes,
        seconds=progress.seconds,
        warnings=(*warnings, *scan.warnings),
        dry_run=dry_run,
    )


def _check_raw(scan: RecordingDir) -> None:
    if not scan.raw:
        raise InvalidRecordingError(
            f"{scan.rec_id}: no raw file in {shown(str(scan.root), 400)}; no manifest was written",
            hint="Check that the worker directories (camera_*, eeg_*, …) were copied along.",
            path=str(scan.root),
        )


def _hash(sources: list[SourceFile], progress: Progress, engine: Engine, stop: Stop) -> dict[str, str]:
    hashes: dict[str, str] = {}
    with contextlib.closing(hash_files(engine, sources, stop=stop)) as events:
        for event in events:
            if isinstance(event, Block):
                progress.hashed(event.path, event.size_bytes)
            else:
                hashes[event.path] = event.result
                progress.file_done(event.path)
    return hashes


def _check_unchanged(scan: RecordingDir, key_prefix: str) -> None:
    """Walk once more: what came, went or changed since the first walk means that somebody still writes here."""
    before, after = _state(scan), _state(scan_recording(scan.root, key_prefix=key_prefix))
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if changed:
        more = f" and {len(changed) - 20} more" if len(changed) > 20 else ""
        raise FileChangedError(
            f"{scan.rec_id}: {', '.join(shown(path) for path in changed[:20])}{more} changed while the recording was hashed;"
            " no manifest was written",
            hint="Wait until the copy or the rig is done, then run the same command again.",
            path=changed[0],
        )


def _state(scan: RecordingDir) -> Mapping[str, tuple[int, int]]:
    return {file.path: (file.size_bytes, file.mtime_ns) for file in scan.files if file.kind != "manifest"}


def _write(root: Path, data: bytes, placeholder: bytes | None) -> LoadedManifest | None:
    """Give the manifest its name, whole and on the disk; a valid one that somebody else has written first is returned."""
    target = root / MANIFEST_NAME
    with _words(target), _temporary(root, data) as temporary:
        try:
            if placeholder is None:
                _link(temporary, target)
            elif target.read_bytes() == placeholder:
                temporary.replace(target)
            else:
                raise FileExistsError
        except (FileExistsError, FileNotFoundError):
            return _lost_race(root)
        sync_directory(root)
    return None


def _lost_race(root: Path) -> LoadedManifest:
    loaded, _ = _look(root)
    if loaded is None:
        raise StorageError(
            f"{shown(str(root / MANIFEST_NAME), 400)} was written or removed by somebody else at the same moment;"
            " this run wrote nothing",
            hint="Run the same command again.",
            operation="write",
        )
    return loaded


@contextlib.contextmanager
def _temporary(root: Path, data: bytes) -> Iterator[Path]:
    path = root / f"{_TEMPORARY}{secrets.token_hex(6)}"
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if parse_manifest(path.read_bytes(), source=str(path)).is_placeholder:
            raise OSError(errno.EIO, "the disk gave back other bytes than were written")
        yield path
    finally:
        path.unlink(missing_ok=True)


def _link(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        # No hard links here (exFAT, SMB): the check and the rename are two steps.
        if os.path.lexists(target):
            raise FileExistsError from None
        temporary.rename(target)


def _remove_leftovers(root: Path) -> None:
    """What killed runs have left; a run that is at it now finds its own gone, and looks who was first."""
    with contextlib.suppress(OSError):
        for path in root.glob(f"{_TEMPORARY}*"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _words(target: Path) -> Iterator[None]:
    """Put what the operating system says about the write into words."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"can't write {shown(str(target), 400)}: {os_error_in_words(error)}; there is no manifest yet, and nothing else"
            " was changed",
            hint="Make the directory writable or free some space, or copy the recording to a disk where you may write,"
            " then run the same command again.",
            operation="write",
        ) from None
