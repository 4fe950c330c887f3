"""Progress of a run, subscribed to the library's events: bars on a terminal, now and then a line in a pipe, JSON Lines.

Events cost next to nothing: each only replaces the last one of its recording. What is shown is drawn from those a few
times a second, in one write, however many files there are.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from ursa_cli.progress_state import Event, Moving, Overall, Standing
from ursa_cli.render import plain

if TYPE_CHECKING:
    from ursa.events import DownloadProgress, HashProgress, UploadProgress
    from ursa_cli.render import Printer
    from ursa_cli.screen import Screen

_LINE_EVERY_S = 30.0
_JSON_AFTER_S = 5.0
_JSON_EVERY_S = 1.0


class Bars:
    """A sink for upload, download and hash events, of any number of recordings at once. Thread-safe.

    Args:
        enabled: bars on stderr; not on a terminal that can't move its cursor.
        lines: instead of them, a line on stderr every 30 s.
        printer: where it prints JSON, ``progress`` records go to stdout: at most one a second, from five seconds on;
            a short run has nothing but its results.
    """

    def __init__(
        self,
        *,
        enabled: bool,
        lines: bool,
        color: bool,
        printer: Printer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        # Reentrant: a signal may come while this thread holds it, and its handler prints.
        self._lock = threading.RLock()
        self._now = monotonic
        self._state = Standing(monotonic)
        self._printer = printer if printer is not None and printer.json else None
        self._lines = lines
        self._color = color
        self._draws = enabled and self._printer is None and os.environ.get("TERM") != "dumb"
        self._screen: Screen | None = None
        self._told_at = {"line": monotonic(), "json": monotonic() + _JSON_AFTER_S - _JSON_EVERY_S}

    def expect(self, recordings: int) -> None:
        """How many recordings there are to do in all."""
        with self._lock:
            self._state.expected = recordings

    def upload(self, event: UploadProgress) -> None:
        """An ingest's event."""
        self._take(event.rec_id, "upload", event, event.bytes_uploaded, event.resumed_bytes)

    def download(self, event: DownloadProgress) -> None:
        """A download's event; one download may be of several recordings."""
        self._take("download", "download", event, event.bytes_downloaded, 0)

    def hash(self, event: HashProgress) -> None:
        """A reconstruct's or a rebuild's event."""
        self._take(event.rec_id, "hash", event, event.bytes_done, 0)

    def finished(self, rec_id: str) -> None:
        """A recording has ended, one way or the other: its bar goes, and it counts as done."""
        with self._lock:
            self._state.finish(rec_id)

    @contextmanager
    def print_above(self) -> Iterator[None]:
        """What is printed inside, on stdout or stderr, stays above the bars, and no progress line cuts it in two."""
        with self._lock if self._screen is None else self._screen.away():
            yield

    def freeze(self) -> None:
        """No bars any more: the run is being stopped. May be called in the handler of a signal."""
        if self._screen is not None:
            self._screen.freeze()

    def __enter__(self) -> Bars:
        if self._draws:
            from ursa_cli.screen import Screen

            self._screen = Screen(self._picture, color=self._color)
            self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._screen is not None:
            self._screen.stop()
            self._screen = None

    def _take(self, name: str, kind: str, event: Event, done: int, resumed: int) -> None:
        with self._lock:
            moving = self._state.take(name, event, done, resumed)
            if self._printer is not None:
                self._tell_json(self._printer, kind, event)
            elif self._lines and self._screen is None and self._due("line", _LINE_EVERY_S):
                self._tell_line(moving)

    def _due(self, what: str, every_s: float) -> bool:
        if (now := self._now()) - self._told_at[what] < every_s:
            return False
        self._told_at[what] = now
        return True

    def _tell_json(self, printer: Printer, kind: str, event: Event) -> None:
        if self._due("json", _JSON_EVERY_S):
            whole = asdict(self._state.overall())
            printer.record("progress", of=kind, **asdict(event), overall=whole)
            sys.stdout.flush()

    def _tell_line(self, moving: Moving) -> None:
        whole = self._state.overall()
        print(plain(f"{whole.told()}; {moving.told()}"), file=sys.stderr, flush=True)

    def _picture(self) -> tuple[Overall, list[Moving]]:
        with self._lock:
            moving = [replace(each, large=dict(each.large)) for each in self._state.in_flight()]
            return self._state.overall(), moving
