"""Rows to decide about: recordings, workers, auxiliary files, in a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.register.decide import Decision, decide

OLD, NEW = "aa" * 32, "bb" * 32
REC_ID = "rec_20260520_195628_b1dd"
NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)
EARLIER, LATER = NOON - timedelta(minutes=5), NOON + timedelta(minutes=5)
A, B = "a1" * 32, "b2" * 32

Files = Mapping[str, tuple[int, str | None]]


def row(
    recording_hash: str = OLD, *, aux: Files | None = None, flags: Sequence[str] = (), **fields: Any
) -> RecordingRow:
    """A recording's row; ``flags`` say how its times are known."""
    metadata = {"manifest_recording_id": REC_ID} | dict.fromkeys(flags, "true")
    values: dict[str, Any] = {"started_at": NOON, "metadata": metadata, "auxiliary_files": file_rows(aux or {})}
    return RecordingRow(recording_hash, REC_ID, **values | fields)


def file_rows(contents: Files) -> tuple[FileRow, ...]:
    """A row for each path, of this size and sha256."""
    return tuple(FileRow(path, f"recordings/{path}", size, sha256) for path, (size, sha256) in contents.items())


def auxiliary(of: RecordingRow) -> Files:
    """Path → size and sha256 of a row's files outside of worker directories."""
    return {file.path: (file.size_bytes, file.sha256) for file in of.auxiliary_files}


def worker(name: str, files: Files | None = None, recording_hash: str = OLD) -> ModalityRow:
    """``eeg_a`` with these files (path → size and sha256), one by default."""
    modality, _, worker_id = name.partition("_")
    contents = {f"{name}/x.bin": (10, A)} if files is None else files
    rows = file_rows(contents)
    return ModalityRow(recording_hash, modality, worker_id, files=rows, bytes=sum(file.size_bytes for file in rows))


def decided(
    registered: Sequence[ModalityRow],
    ours: Sequence[ModalityRow],
    *,
    overwrite: bool = False,
    existing: RecordingRow | None = None,
    wanted: RecordingRow | None = None,
) -> Decision:
    """The decision for a recording that is registered under ``OLD`` and comes as ``NEW``."""
    comes = wanted or row(NEW)
    mine = [replace(item, recording_hash=comes.recording_hash) for item in ours]
    return decide(existing or row(), registered, comes, mine, overwrite=overwrite)


def names(decision: Decision) -> list[str]:
    return [item.name for item in decision.modalities]
