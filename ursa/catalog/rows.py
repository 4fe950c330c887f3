"""The catalog's rows, as the API hands them out. Times are aware and UTC; sizes are bytes."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ursa.errors import UsageError
from ursa.policies import Evidence

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """A recording. Its row is the commit point: what has one is wholly in the bucket.

    ``started_at`` and ``ended_at`` are UTC or None where nobody knows; ``duration_s`` is in seconds.
    ``metadata["manifest_recording_id"]`` equals ``rec_id``. ``registered_by`` is ``user@host``. ``auxiliary_files``: those
    outside of worker directories.
    """

    recording_hash: str
    rec_id: str
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration_s: float | None = None
    participant_ids: tuple[str, ...] = ()
    status: str = "raw"
    metadata: Mapping[str, str] = field(default_factory=dict)
    registered_at: datetime | None = None
    registered_by: str = ""
    auxiliary_files: tuple[FileRow, ...] = ()


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file of a recording: ``path`` relative to it, ``key`` in the raw bucket.

    ``evidence``: how well the object is proven to hold the bytes with this ``sha256``, while it had this ``etag``; see
    ``Evidence``. ``sha256`` is None where nobody stated or computed it. ``mtime_ns``: of the file on the disk that it was
    sent from, nanoseconds since 1970; None where nobody knows.
    """

    path: str
    key: str
    size_bytes: int
    sha256: str | None = None
    etag: str | None = None
    evidence: Evidence = Evidence.SIZE
    mtime_ns: int | None = None

    @property
    def proven(self) -> bool:
        """Whether its sha256 was measured of the object."""
        return self.sha256 is not None and self.evidence.proven


@dataclass(frozen=True, slots=True)
class ModalityRow:
    """One worker's data of a recording; key is recording_hash, modality and worker_id. ``bytes`` sums the files."""

    recording_hash: str
    modality: str
    worker_id: str = ""
    status: str = "raw"
    node: str | None = None
    files: tuple[FileRow, ...] = ()
    bytes: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    rec_id: str = ""

    @property
    def name(self) -> str:
        """``eeg_a``, or ``eeg`` where the worker has no id."""
        return f"{self.modality}_{self.worker_id}" if self.worker_id else self.modality


@dataclass(frozen=True, slots=True)
class ParticipantRow:
    """A participant: a derived id, and the name as the operator typed it."""

    participant_id: str
    display_name: str
    created_at: datetime | None = None


def normalize_name(display_name: str) -> str:
    """The form of a name that its id is derived from: NFC, whitespace folded to single spaces, case folded."""
    return unicodedata.normalize("NFC", " ".join(unicodedata.normalize("NFC", display_name).split()).casefold())


def participant_id(display_name: str) -> str:
    """A participant's id, the same on every machine: ``p_`` and the first 16 hex digits of the name's sha256.

    The name is normalised first (``normalize_name``) and encoded as UTF-8.

    >>> participant_id("Aria Lin") == participant_id("  aria   LIN ")
    True
    >>> participant_id("Aria Lin")
    'p_fb7cdd6357b63c7a'
    """
    name = normalize_name(display_name)
    if not name:
        raise UsageError("a participant's name is empty", hint="Pass None where the participant is unknown.")
    return "p_" + hashlib.sha256(name.encode()).hexdigest()[:16]
