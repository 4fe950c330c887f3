"""What an ingest plans and what it did, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from ursa.catalog.metadata import Sidecar
from ursa.catalog.rows import FileRow, RecordingRow
from ursa.policies import Action, Evidence
from ursa.recording import LocalFile
from ursa.register.proving import Upgrade
from ursa.transfer.digest import Digest

FileAction = Literal["upload", "skip", "replace", "keep"]


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file on the disk and what happens to it.

    ``skip``: the bucket holds this content, proven as well as ``evidence`` says. ``upload``: there is no such object.
    ``replace``: the object with ``etag`` holds other content (``theirs_sha256``, where it was read) and may be replaced.
    ``keep``: a peer's object stays, and ``theirs`` says what it is. ``sha256``: of the file on the disk, where it was read
    (``digest``), else as it is stated. ``trusted``: by what a skip counts as the same without proof. ``read_at``: when the
    file was read, where only that vouches for it.
    """

    file: LocalFile
    key: str
    action: FileAction
    sha256: str | None = None
    etag: str | None = None
    evidence: Evidence | None = None
    data: bytes | None = field(default=None, repr=False)
    theirs: Sidecar | None = None
    digest: Digest | None = field(default=None, repr=False)
    trusted: str = ""
    read_at: datetime | None = None
    theirs_sha256: str | None = None

    @property
    def row(self) -> FileRow:
        """Of a skip: the file's row as it is measured now."""
        evidence = self.evidence or Evidence.SIZE
        file = self.file
        return FileRow(file.path, self.key, file.size_bytes, self.sha256, self.etag, evidence, file.mtime_ns)

    @property
    def sends(self) -> bool:
        """Whether bytes move."""
        return self.action in ("upload", "replace")


@dataclass(frozen=True, slots=True)
class BucketFile:
    """A listed file that is not on this disk but in the bucket, and what its bytes were measured to be."""

    path: str
    key: str
    size_bytes: int
    sha256: str | None
    etag: str
    evidence: Evidence
    worker: str

    @property
    def row(self) -> FileRow:
        """The file's row."""
        return FileRow(self.path, self.key, self.size_bytes, self.sha256, self.etag, self.evidence)


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """All that an ingest will do, before a byte has moved. ``--dry-run`` prints it; ``ingest`` executes it.

    ``proven``: rows of registered files that this run has measured better than they say.

    ``kept_names``: where a peer's participant.txt stays in the bucket, the names in it and in this disk's.
    ``bytes_in_parts``: bytes of what is to be sent that earlier runs left in open uploads; only a dry run looks.
    """

    rec_id: str
    recording_hash: str | None
    action: Action
    files: tuple[PlannedFile, ...]
    sidecars: tuple[PlannedFile, ...]
    in_bucket: tuple[BucketFile, ...]
    registered_workers: frozenset[str]
    absent_nodes: tuple[str, ...]
    participant: str | None
    kept_names: tuple[str, ...]
    unlisted: tuple[str, ...]
    junk: tuple[str, ...]
    warnings: tuple[str, ...]
    bytes_in_parts: int = 0
    proven: Upgrade | None = None

    @property
    def sends(self) -> tuple[PlannedFile, ...]:
        """Files and sidecars that will be sent, in the order in which they start."""
        return tuple(item for item in (*self.files, *self.sidecars) if item.sends)

    @property
    def bytes_to_send(self) -> int:
        """What will be sent, bytes."""
        return sum(item.file.size_bytes for item in self.sends)

    @property
    def skips(self) -> tuple[PlannedFile, ...]:
        """Files and sidecars that need not be sent."""
        return tuple(item for item in (*self.files, *self.sidecars) if not item.sends)

    @property
    def files_skipped(self) -> int:
        """How many files the bucket has already."""
        return len(self.skips) + len(self.in_bucket)

    @property
    def bytes_skipped(self) -> int:
        """Their bytes."""
        return sum(item.file.size_bytes for item in self.skips) + sum(item.size_bytes for item in self.in_bucket)


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingest did. Sizes in bytes.

    ``bytes_resumed``: the share of ``bytes_uploaded`` that an earlier run had sent. ``files_uploaded`` and
    ``files_skipped`` count data files, auxiliary files and sidecars (manifest, participant.txt). ``in_bucket``: listed
    files that are not on this disk, and that the bucket was measured to hold. ``unlisted``: files that no manifest lists,
    uploaded all the same. ``junk``: files left on the disk (``.DS_Store`` and the like). ``requests``: by billing class,
    to the raw and assets buckets through the store (deltalake's own are not seen). ``evidence`` counts data files by how
    well their objects are proven; ``trusted``: of those that are, how many files of this disk were not compared with
    them, by what they count as the same. ``paused`` is False here; the rig's daemon sets it.
    """

    recording: RecordingRow
    files_uploaded: int
    files_skipped: int
    bytes_uploaded: int
    paused: bool = False
    action: Action = Action.CREATED
    bytes_skipped: int = 0
    unlisted: int = 0
    junk: int = 0
    requests: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    evidence: Mapping[str, int] = field(default_factory=dict)
    unlisted_files: tuple[str, ...] = ()
    absent_nodes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    bytes_resumed: int = 0
    in_bucket: int = 0
    trusted: Mapping[str, int] = field(default_factory=dict)

    @property
    def by_size_only(self) -> int:
        """How many data files nothing proves to be in the bucket: their size fits."""
        claims = sum(count for name, count in self.evidence.items() if not Evidence(name).proven)
        return claims + self.trusted.get("size", 0)
