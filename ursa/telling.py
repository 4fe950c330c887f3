"""How a run tells where it stands: typed events to a callback and the log, ten a second for a file at the most."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import ClassVar, Generic, TypeVar

from ursa.events import HashProgress, Speed, UploadProgress


def of_callback(error: BaseException) -> bool:
    """Whether a caller's own progress callback raised it: that is no bug of ours, and ends what it was called from."""
    return bool(getattr(error, "of_callback", False))


Event = TypeVar("Event", UploadProgress, HashProgress)

_EVENTS_PER_SECOND = 10.0


class Teller(Generic[Event]):
    """Of one recording, called from its own thread only. ``quiet``: phases that are logged at DEBUG."""

    logger: ClassVar[logging.Logger]
    quiet: ClassVar[frozenset[str]]

    def __init__(
        self,
        rec_id: str,
        callback: Callable[[Event], object] | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rec_id = rec_id
        self._callback: Callable[[Event], object] | None = callback
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

    def _due(self, path: str, bytes_moved: int, *, always: bool) -> bool:
        """Whether an event is to be told now; where it is, the speed is up to date."""
        now = self._now()
        if not always and now - self._told_at[path] < 1 / _EVENTS_PER_SECOND:
            return False
        self._told_at[path] = now
        self._speed.update(now, bytes_moved)
        return True

    def _send(self, event: Event) -> None:
        level = logging.DEBUG if event.phase in self.quiet else logging.INFO
        if self.logger.isEnabledFor(level):
            self.logger.log(level, "%s %s %s", self._rec_id, event.phase, event.current_file, extra=asdict(event))
        if self._callback is not None:
            try:
                self._callback(event)
            except BaseException as error:
                with suppress(AttributeError):
                    error.of_callback = True  # type: ignore[attr-defined]
                raise

    def _send_last(self, send: Callable[[], object]) -> None:
        """All is done: a callback that raises now can stop nothing any more."""
        try:
            send()
        except Exception:
            self.logger.exception("%s: the progress callback failed after all was done", self._rec_id)
