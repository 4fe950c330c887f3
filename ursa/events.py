"""Progress as typed events.

The library never prints: it hands these values to whoever subscribed. A progress bar, a log line, a JSON line and a
user's callback are four sinks of one event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

UploadPhase = Literal["plan", "upload", "file_done", "sidecars", "prove", "register", "done"]
HashPhase = Literal["plan", "hash", "file_done", "write", "done"]
DownloadPhase = Literal["start", "plan_done", "modality_start", "file_done", "modality_done", "finish"]


@dataclass(frozen=True, slots=True)
class UploadProgress:
    """Where an ingest stands. Sizes in bytes, times in seconds.

    ``bytes_total`` is what the plan sends, sidecars included; it is known before the first byte moves.
    ``bytes_uploaded`` never goes backwards and ends equal to it. ``resumed_bytes`` is the share of
    ``bytes_uploaded`` that an earlier run had sent and this one took over. ``bytes_per_s`` and ``eta_s`` are of the
    last ten seconds; ``eta_s`` is None where nobody can tell.
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
    bytes_per_s: float = 0.0
    eta_s: float | None = None


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
    bytes_per_s: float = 0.0
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class HashProgress:
    """Where a reconstruct or a rebuild stands: what has been read and hashed. Sizes in bytes, times in seconds.

    ``bytes_total`` is what has to be read; what an earlier run or the store's own checksums prove is not in it.
    """

    phase: HashPhase
    rec_id: str
    current_file: str
    bytes_done: int
    bytes_total: int
    files_done: int
    files_total: int
    elapsed_s: float
    bytes_per_s: float = 0.0
    eta_s: float | None = None


class Speed:
    """Throughput and remaining time, computed here for every sink: over the last ten seconds, by what really moved."""

    WINDOW_S = 10.0

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, now_s: float, bytes_moved: int) -> None:
        """``bytes_moved`` in all by ``now_s`` (a monotonic clock)."""
        samples = self._samples
        if samples and now_s - samples[-1][0] < self.WINDOW_S / 100:
            samples[-1] = (samples[-1][0], bytes_moved)
        else:
            samples.append((now_s, bytes_moved))
        while len(samples) > 2 and now_s - samples[0][0] > self.WINDOW_S:
            samples.popleft()

    @property
    def bytes_per_s(self) -> float:
        """0 until something has moved."""
        if len(self._samples) < 2:
            return 0.0
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def eta_s(self, bytes_left: int) -> float | None:
        """Seconds until ``bytes_left`` have moved at this speed; None where nobody can tell."""
        speed = self.bytes_per_s
        return bytes_left / speed if speed > 0 else None


UploadCallback = Callable[[UploadProgress], object]
HashCallback = Callable[[HashProgress], object]
DownloadCallback = Callable[[DownloadProgress], object]
