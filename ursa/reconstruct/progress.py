"""Progress of one reconstruct: from counts to ``HashProgress``, the callback and the logger."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict

from ursa.events import HashCallback, HashPhase, HashProgress, Speed

logger = logging.getLogger("ursa.reconstruct")

_EVENTS_PER_SECOND = 10.0
_QUIET: frozenset[HashPhase] = frozenset({"plan", "hash", "file_done"})


class Progress:
    """Counts, and tells. Called from the reconstruct's own thread only."""

    def __init__(
        self, rec_id: str, callback: HashCallback | None, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._rec_id = rec_id
        self._callback = callback
        self._now = monotonic
        self._started = monotonic()
        self._told_at: dict[str, float] = defaultdict(lambda: float("-inf"))
        self._bytes_total = self._bytes_done = 0
        self._files_total = self._files_done = 0
        self._speed = Speed()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._now() - self._started

    def planned(self, files: int, size_bytes: int) -> None:
        """So much has to be read."""
        self._files_total, self._bytes_total = files, size_bytes
        self._tell("plan", "", always=True)

    def hashed(self, path: str, size_bytes: int) -> None:
        """More bytes of a file are hashed."""
        self._bytes_done += size_bytes
        self._tell("hash", path)

    def file_done(self, path: str) -> None:
        """A file's sha256 is known."""
        self._files_done += 1
        self._tell("file_done", path, always=True)

    def writing(self, name: str) -> None:
        """The manifest is about to be written."""
        self._tell("write", name, always=True)

    def done(self) -> None:
        """It is there. A callback that raises now can stop nothing any more."""
        try:
            self._tell("done", "", always=True)
        except Exception:
            logger.exception("%s: the progress callback failed after the manifest was written", self._rec_id)

    def _tell(self, phase: HashPhase, path: str, *, always: bool = False) -> None:
        now = self._now()
        self._speed.update(now, self._bytes_done)
        if not always and now - self._told_at[path] < 1 / _EVENTS_PER_SECOND:
            return
        self._told_at[path] = now
        event = HashProgress(
            phase=phase,
            rec_id=self._rec_id,
            current_file=path,
            bytes_done=self._bytes_done,
            bytes_total=self._bytes_total,
            files_done=self._files_done,
            files_total=self._files_total,
            elapsed_s=now - self._started,
            bytes_per_s=self._speed.bytes_per_s,
            eta_s=self._speed.eta_s(self._bytes_total - self._bytes_done),
        )
        level = logging.DEBUG if phase in _QUIET else logging.INFO
        if logger.isEnabledFor(level):
            logger.log(level, "%s %s %s", self._rec_id, phase, path, extra=asdict(event))
        if self._callback is not None:
            self._callback(event)
