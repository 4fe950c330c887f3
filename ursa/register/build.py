"""From a manifest and a recording's files to rows: the same for a disk and for a bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from ursa.catalog.metadata import (
    NODES_KEY,
    REGISTERED_AT_KEY,
    SIDECARS_KEY,
    WORKERS_KEY,
    Sidecar,
    sidecars_text,
    workers_text,
)
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow, participant_id
from ursa.manifest import Manifest, RecordingTimes, derive_recording_hash


@dataclass(frozen=True, slots=True)
class Contents:
    """What a recording holds. ``workers``: worker directory → its files; ``auxiliary``: the files outside of them;
    ``participants``: display names; ``sidecars``: manifests and participant.txt with which nothing is left to do once
    this is registered.
    """

    rec_id: str
    manifest: Manifest
    times: RecordingTimes
    workers: Mapping[str, Sequence[FileRow]]
    auxiliary: Sequence[FileRow]
    participants: tuple[str, ...] = ()
    sidecars: Mapping[str, Sequence[Sidecar]] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[ModalityRow, ...]:
        """A row for each worker, under no recording_hash yet."""
        return tuple(self._modality(worker, self.workers[worker]) for worker in sorted(self.workers))

    def recording(self, recording_hash: str) -> RecordingRow:
        """The recording's row, not yet registered."""
        metadata = {"manifest_recording_id": self.rec_id} | dict.fromkeys(self.times.flags, "true")
        metadata[WORKERS_KEY] = workers_text(self.modalities)
        if self.manifest.expected_nodes:
            metadata[NODES_KEY] = ",".join(self.manifest.expected_nodes)
        if self.sidecars:
            metadata[SIDECARS_KEY] = sidecars_text(self.sidecars)
        return RecordingRow(
            recording_hash=recording_hash,
            rec_id=self.rec_id,
            started_at=self.times.started_at,
            ended_at=self.times.ended_at,
            duration_s=self.times.duration_s,
            participant_ids=tuple(sorted({participant_id(name) for name in self.participants})),
            metadata=metadata,
            auxiliary_files=tuple(sorted(self.auxiliary, key=lambda file: file.path)),
        )

    def derived_hash(self) -> str:
        """The recording_hash over all raw files. Raises ``InvalidRecordingError`` where there is none."""
        return derive_recording_hash(row.sha256 for rows in self.workers.values() for row in rows if row.sha256)

    def _modality(self, worker: str, files: Sequence[FileRow]) -> ModalityRow:
        identity = self.manifest.worker_identity(worker)
        return ModalityRow(
            recording_hash="",
            rec_id=self.rec_id,
            modality=identity.modality,
            worker_id=identity.worker_id,
            node=identity.node,
            files=tuple(sorted(files, key=lambda file: file.path)),
            bytes=sum(file.size_bytes for file in files),
        )


@dataclass(frozen=True, slots=True)
class Registration:
    """What one run wants in the catalog. ``stated_hash``: what its manifest states, None where it was derived.
    ``replaced``: sidecars in the bucket that gave way to this run's. ``ready_at``, on the monotonic clock: the catalog as it
    was seen since then will do to decide by; without it, as it is seen now.
    """

    row: RecordingRow
    modalities: tuple[ModalityRow, ...]
    participants: tuple[str, ...]
    stated_hash: str | None
    overwrite: bool
    replaced: frozenset[str] = frozenset()
    ready_at: float = float("inf")


def registration(
    contents: Contents,
    *,
    recording_hash: str | None,
    overwrite: bool,
    by: str,
    now: datetime | None = None,
    replaced: frozenset[str] = frozenset(),
    ready_at: float = float("inf"),
) -> Registration:
    """The rows that a run asks for, stamped. ``recording_hash``: None derives it."""
    now = now or datetime.now(UTC)
    under = recording_hash or contents.derived_hash()
    stamp = {REGISTERED_AT_KEY: now.isoformat(timespec="seconds")}
    return Registration(
        replace(contents.recording(under), registered_at=now, registered_by=by),
        tuple(replace(row, recording_hash=under, metadata=stamp) for row in contents.modalities),
        contents.participants,
        contents.manifest.identity_hash,
        overwrite,
        replaced,
        ready_at,
    )
