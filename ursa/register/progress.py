"""Progress of one ingest: from the engine's events to ``UploadProgress``, the callback and the logger."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict

from ursa.events import Speed, UploadCallback, UploadPhase, UploadProgress
from ursa.register.results import IngestPlan
from ursa.transfer.upload import Moved, UploadEvent

logger = logging.getLogger("ursa.register.orchestrator")

_EVENTS_PER_SECOND = 10.0
_QUIET: frozenset[UploadPhase] = frozenset({"plan", "upload", "file_done"})


class Progress:
    """Counts, and tells. Called from the ingest's own thread only."""

    def __init__(
        self, rec_id: str, callback: UploadCallback | None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._rec_id = rec_id
        self._callback = callback
        self._now = monotonic
        self._started = monotonic()
        self._told_at: dict[str, float] = defaultdict(lambda: float("-inf"))
        self._file_bytes: dict[str, int] = defaultdict(int)
        self._bytes_total = self._bytes_done = self._bytes_skipped = self._resumed = 0
        self._files_total = self._files_done = 0
        self._speed = Speed()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._now() - self._started

    @property
    def files_done(self) -> int:
        """Files that have been sent."""
        return self._files_done

    @property
    def bytes_resumed(self) -> int:
        """Bytes that an earlier run had sent and this one took over."""
        return self._resumed

    def checked(self, path: str, size_bytes: int) -> None:
        """A file was read and compared while planning."""
        self._tell("plan", path, size_bytes, size_bytes)

    def expect(self, bytes_total: int) -> None:
        """What will be sent if everything that the bucket has turns out to be the same."""
        self._bytes_total = bytes_total

    def planned(self, plan: IngestPlan) -> None:
        """The plan stands: what will be sent is known."""
        self._bytes_total = plan.bytes_to_send
        self._bytes_skipped = plan.bytes_skipped
        self._files_total = len(plan.sends)
        self._tell("plan", "", 0, 0, always=True)

    def moved(self, event: UploadEvent) -> None:
        """What the engine tells."""
        if isinstance(event, Moved):
            self._count(event)
            return
        file = event.result.item.file
        self._files_done += 1
        self._bytes_done += event.bytes_done
        self._tell("file_done", file.path, file.size_bytes, file.size_bytes, always=True)

    def phase(self, phase: UploadPhase, current_file: str = "") -> None:
        """The next step begins."""
        self._tell(phase, current_file, 0, 0, always=True)

    def done(self) -> None:
        """Registered. A callback that raises now can stop nothing any more."""
        try:
            self.phase("done")
        except Exception:
            logger.exception("%s: the progress callback failed after the registration", self._rec_id)

    def _count(self, event: Moved) -> None:
        path = event.item.file.path
        self._file_bytes[path] += event.bytes_done
        self._bytes_done += event.bytes_done
        self._resumed += event.resumed
        self._tell("upload", path, self._file_bytes[path], event.item.file.size_bytes)

    def _tell(self, phase: UploadPhase, path: str, done: int, total: int, *, always: bool = False) -> None:
        now = self._now()
        if not always and now - self._told_at[path] < 1 / _EVENTS_PER_SECOND:
            return
        self._told_at[path] = now
        self._speed.update(now, self._bytes_done - self._resumed)
        event = UploadProgress(
            phase=phase,
            rec_id=self._rec_id,
            current_file=path,
            file_bytes_done=done,
            file_bytes_total=total,
            bytes_uploaded=self._bytes_done,
            bytes_total=self._bytes_total,
            files_done=self._files_done,
            files_total=self._files_total,
            bytes_skipped=self._bytes_skipped,
            resumed_bytes=self._resumed,
            elapsed_s=now - self._started,
            bytes_per_s=self._speed.bytes_per_s,
            eta_s=self._speed.eta_s(self._bytes_total - self._bytes_done),
        )
        level = logging.DEBUG if phase in _QUIET else logging.INFO
        if logger.isEnabledFor(level):
            logger.log(level, "%s %s %s", self._rec_id, phase, path, extra=asdict(event))
        if self._callback is not None:
            self._callback(event)
