"""Progress of one ingest: from the engine's events to ``UploadProgress``, the callback and the logger."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable

from ursa.events import UploadCallback, UploadPhase, UploadProgress
from ursa.register.results import IngestPlan
from ursa.telling import Teller
from ursa.transfer.items import Moved, UploadEvent


class Progress(Teller[UploadProgress]):
    """Counts what an ingest sends, and tells."""

    logger = logging.getLogger("ursa.register.orchestrator")
    quiet = frozenset({"plan", "upload", "file_done"})

    def __init__(
        self, rec_id: str, callback: UploadCallback | None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(rec_id, callback, monotonic=monotonic)
        self._file_bytes: dict[str, int] = defaultdict(int)
        self._bytes_skipped = self._resumed = 0

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
        """Registered."""
        self._send_last(lambda: self.phase("done"))

    def _count(self, event: Moved) -> None:
        path = event.item.file.path
        self._file_bytes[path] += event.bytes_done
        self._bytes_done += event.bytes_done
        self._resumed += event.resumed
        self._tell("upload", path, self._file_bytes[path], event.item.file.size_bytes)

    def _tell(self, phase: UploadPhase, path: str, done: int, total: int, *, always: bool = False) -> None:
        if not self._due(path, self._bytes_done - self._resumed, always=always):
            return
        self._send(
            UploadProgress(
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
                elapsed_s=self.seconds,
                bytes_per_s=self._speed.bytes_per_s,
                eta_s=self._speed.eta_s(self._bytes_total - self._bytes_done),
            )
        )
