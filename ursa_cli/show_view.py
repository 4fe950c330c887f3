"""How `ls` and `show` tell of recordings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ursa_cli.render import duration, size, when
from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa import ModalityRow, RecordingOverview


def modality_names(item: RecordingOverview) -> list[str]:
    """``eeg`` where the recording has one eeg worker, ``eeg_a`` and ``eeg_b`` where it has several."""
    families = Counter(row.modality for row in item.modalities)
    return [row.modality if families[row.modality] == 1 else row.name for row in item.modalities]


def summary(item: RecordingOverview) -> dict[str, Any]:
    """A recording as `ls --json` prints it."""
    row = item.recording
    return {
        "rec_id": row.rec_id,
        "recording_hash": row.recording_hash,
        "started_at": row.started_at,
        "duration_s": row.duration_s,
        "participants": list(item.participants),
        "modalities": modality_names(item),
        "bytes": item.bytes,
    }


def show(session: Session, item: RecordingOverview, *, files: bool) -> None:
    """One recording, whole."""
    row = item.recording
    session.out.record(
        "recording",
        **summary(item),
        ended_at=row.ended_at,
        status=row.status,
        participant_ids=list(row.participant_ids),
        nodes_expected=list(item.nodes_expected),
        nodes_here=list(item.nodes_here),
        metadata=dict(row.metadata),
        registered_at=row.registered_at,
        registered_by=row.registered_by,
        workers=[_worker(modality) for modality in item.modalities],
        auxiliary_files=list(row.auxiliary_files),
    )
    line = session.out.line
    line(row.rec_id)
    line(f"  recording_hash  {row.recording_hash}")
    line(f"  started         {when(row.started_at)}{_doubt(item)}")
    line(f"  ended           {when(row.ended_at)}")
    line(f"  duration        {duration(row.duration_s)}")
    line(f"  participants    {', '.join(item.participants) or 'unknown'}")
    line(f"  status          {row.status}")
    line(f"  registered      {when(row.registered_at)} by {row.registered_by}")
    if item.nodes_expected:
        missing = [name for name in item.nodes_expected if name not in item.nodes_here]
        note = f"; not here yet: {', '.join(missing)}" if missing else ""
        line(f"  nodes           {', '.join(item.nodes_here) or 'none'}{note}")
    line(f"  raw data        {sum(len(entry.files) for entry in item.modalities)} files, {size(item.bytes)}")
    line()
    session.out.table(
        ["MODALITY", "WORKER", "NODE", "FILES", "SIZE", "EVIDENCE"],
        [
            [
                entry.modality,
                entry.worker_id or "-",
                entry.node or "-",
                len(entry.files),
                size(entry.bytes),
                _evidence(entry),
            ]
            for entry in item.modalities
        ],
    )
    if files:
        line()
        session.out.table(
            ["FILE", "SIZE", "SHA256", "EVIDENCE"],
            [
                [file.path, size(file.size_bytes), file.sha256 or "-", file.evidence]
                for file in (*(file for entry in item.modalities for file in entry.files), *row.auxiliary_files)
            ],
        )


def _worker(row: ModalityRow) -> dict[str, Any]:
    return {
        "modality": row.modality,
        "worker_id": row.worker_id,
        "node": row.node,
        "status": row.status,
        "bytes": row.bytes,
        "files": list(row.files),
    }


def _evidence(row: ModalityRow) -> str:
    counts = Counter(file.evidence for file in row.files)
    return ", ".join(f"{count} {name}" if len(counts) > 1 else name for name, count in sorted(counts.items()))


def _doubt(item: RecordingOverview) -> str:
    metadata = item.recording.metadata
    if metadata.get("time_assumed") in ("true", "started_at"):
        return "  (no time zone stated: UTC assumed)"
    if metadata.get("time_ambiguous") in ("true", "started_at"):
        return "  (ambiguous hour when the clocks change: the first was taken)"
    return "  (from the rec_id)" if "started_at_from_rec_id" in metadata else ""
