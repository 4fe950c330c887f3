"""The manifest that is written, out of what was found and hashed; and what a manifest that is there says."""

from __future__ import annotations

import socket
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ursa import __version__
from ursa.errors import InvalidRecordingError, ManifestError
from ursa.manifest import (
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    Worker,
    derive_recording_hash,
    parse_manifest,
    split_worker_dir,
)
from ursa.manifest.names import UNKNOWN_PARTICIPANT
from ursa.reconstruct.results import Made, ReconstructResult
from ursa.recording import MANIFEST_NAME, classify


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file for the manifest. ``worker``: the worker directory of a raw file, "" for an auxiliary one."""

    path: str
    size_bytes: int
    sha256: str
    worker: str


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest that can be written: its bytes, and what they say."""

    data: bytes
    recording_hash: str
    participant: str


def build(
    rec_id: str,
    files: Iterable[Hashed],
    participant: str | None,
    *,
    placeholder: Manifest | None = None,
    now: datetime | None = None,
) -> Document:
    """The manifest of these files.

    Times are those of the placeholder that it replaces, as is whatever else that says. Without one they are left out:
    readers derive the start from the rec_id, and nobody knows the end.

    Args:
        participant: from participant.txt; None is unknown, and is noted as reconstructed.
        placeholder: the manifest without files that is there.

    Raises:
        InvalidRecordingError: no raw file, or more files than a manifest may list.
    """
    listed = sorted(files, key=lambda file: file.path)
    recording_hash = derive_recording_hash(file.sha256 for file in listed if file.worker)
    name = participant or UNKNOWN_PARTICIPANT
    manifest = Manifest(
        recording_id=rec_id,
        recording_hash=recording_hash,
        workers=_workers(listed),
        files=tuple(FileEntry(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256) for file in listed),
        participant=name,
        reconstruction={
            "tool": "ursa",
            "tool_version": __version__,
            "reconstructed_at": (now or datetime.now(UTC)).isoformat(),
            "host": socket.gethostname() or "unknown",
            "reconstructed_participant": participant is None,
        },
    )
    if placeholder is not None and placeholder.recording_id in (None, rec_id):
        manifest = _over(placeholder, manifest)
    data = manifest.to_json() + b"\n"
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidRecordingError(
            f"{rec_id}: its {len(listed):,} files need a manifest of {len(data):,} bytes, and {MAX_MANIFEST_BYTES:,} is the most"
            " that is read; nothing was written",
            hint="Pack the smallest files into archives, or split the recording.",
            path=rec_id,
        )
    # Whoever reads it is stricter than whoever writes it: what does not read back as it was is never written.
    if parse_manifest(data, source=rec_id).files != manifest.files:
        raise AssertionError(f"{rec_id}: the manifest does not read back as it was made")
    return Document(data, recording_hash, name)


def _over(placeholder: Manifest, made: Manifest) -> Manifest:
    """What the placeholder says, with what was found; where the two contradict each other, what was found alone."""
    known = {worker.dir for worker in placeholder.workers}
    found = {name: getattr(made, name) for name in made.model_fields_set}
    found["workers"] = (*placeholder.workers, *(worker for worker in made.workers if worker.dir not in known))
    if placeholder.participant is not None and placeholder.participant != made.participant:
        found["reconstruction"] = {**(made.reconstruction or {}), "placeholder_participant": placeholder.participant}
    both = placeholder.model_copy(update=found)
    try:
        parse_manifest(both.to_json(), source=MANIFEST_NAME)
    except ManifestError:
        return made
    return both


def _workers(files: Sequence[Hashed]) -> tuple[Worker, ...]:
    workers = []
    for name in dict.fromkeys(file.worker for file in files if file.worker):
        modality, worker_id = split_worker_dir(name)
        workers.append(Worker(dir=name, modality=modality, worker_id=worker_id))
    return tuple(workers)


def kept(
    rec_id: str, manifest: Manifest, location: str, seconds: float, *, dry_run: bool, warnings: tuple[str, ...] = ()
) -> ReconstructResult:
    """The result for a valid manifest that was there."""
    return ReconstructResult(
        rec_id,
        Made.KEPT,
        location,
        _hash_of(manifest),
        manifest.participant,
        len(manifest.files),
        sum(entry.size_bytes for entry in manifest.files),
        seconds=seconds,
        warnings=warnings,
        dry_run=dry_run,
    )


def never_replaced(error: ManifestError) -> ManifestError:
    """The same error with the hint that fits here."""
    return ManifestError(
        error.message,
        hint="Nothing was written: a manifest that is broken may be the rig's, and is never replaced. Put the rig's own back;"
        " where there is none, move this one away and run the same command again.",
        **error.fields,
    )


def nfc(text: str) -> str:
    """The text in NFC, as paths are spelt."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _hash_of(manifest: Manifest) -> str | None:
    if manifest.recording_hash is not None:
        return manifest.recording_hash
    raw = [entry.sha256 for entry in manifest.files if _is_raw(entry.path, manifest.files_by_path)]
    stated = [sha256 for sha256 in raw if sha256 is not None]
    return derive_recording_hash(stated) if stated and len(stated) == len(raw) else None


def _is_raw(path: str, listed: Mapping[str, FileEntry]) -> bool:
    return classify(path, listed)[0] == "raw"
