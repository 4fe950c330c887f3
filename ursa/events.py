"""Progress as typed events.

The library never prints: it hands these values to whoever subscribed. A progress bar, a log line, a JSON line and a
user's callback are four sinks of one event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

UploadPhase = Literal["plan", "upload", "file_done", "sidecars", "prove", "register", "done"]
DownloadPhase = Literal["start", "plan_done", "modality_start", "file_done", "modality_done", "finish"]


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """Where an ingest stands. Sizes in bytes, times in seconds.

    ``bytes_total`` is what the plan sends, sidecars included; it is known before the first byte moves.
    ``bytes_uploaded`` never goes backwards and ends equal to it. ``resumed_bytes`` is the share of
    ``bytes_uploaded`` that an earlier run had sent and this one took over.
    """

    phase: UploadPhase
    rec_id: str
    current_file: str
    file_bytes_done: int
    file_bytes_total: int
    bytes_uploaded: int
    bytes_total: int
    files_done: int
    files_total: int
    bytes_skipped: int
    resumed_bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """Where a download stands. Sizes in bytes, times in seconds.

    Fires at six phases: ``start``, ``plan_done``, ``modality_start``, ``file_done``, ``modality_done``, ``finish``.
    ``modality`` is the key as in ``QueryResult.modalities``; empty outside of one.
    """

    phase: DownloadPhase
    rec_id: str
    modality: str
    current_file: str
    bytes_downloaded: int
    bytes_total: int
    files_done: int
    files_total: int
    elapsed_s: float


UploadCallback = Callable[[UploadProgress], object]
DownloadCallback = Callable[[DownloadProgress], object]
