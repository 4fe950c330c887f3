"""Manifests: what rigs say about a recording. Models, reading, merging, the recording_hash, names and times."""

from __future__ import annotations

from ursa.manifest.hashing import derive_recording_hash
from ursa.manifest.merge import merge_manifests
from ursa.manifest.models import SCHEMA_VERSION, FileEntry, Manifest, Node, Worker, WorkerIdentity
from ursa.manifest.names import (
    beside_in,
    check_rec_id,
    is_junk,
    is_unfinished,
    is_worker_dir,
    normalize_path,
    shown,
    split_worker_dir,
)
from ursa.manifest.reader import MAX_MANIFEST_BYTES, check_identity, parse_manifest
from ursa.manifest.times import RecordingTimes, flagged, resolve_times

__all__ = [
    "MAX_MANIFEST_BYTES",
    "SCHEMA_VERSION",
    "FileEntry",
    "Manifest",
    "Node",
    "RecordingTimes",
    "Worker",
    "WorkerIdentity",
    "beside_in",
    "check_identity",
    "check_rec_id",
    "derive_recording_hash",
    "flagged",
    "is_junk",
    "is_unfinished",
    "is_worker_dir",
    "merge_manifests",
    "normalize_path",
    "parse_manifest",
    "resolve_times",
    "shown",
    "split_worker_dir",
]
