"""Progress bars subscribed to the library's events; lines where there is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from ursa_cli.render import duration, plain, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ursa.events import DownloadProgress, UploadProgress

_LINE_EVERY_S = 30.0
_PHASES = {"plan": "checking", "sidecars": "manifest", "prove": "proving", "register": "registering", "done": "done"}


class Bars:
    """A sink for ``UploadProgress`` and ``DownloadProgress``: one bar a recording. Thread-safe."""

    def __init__(self, *, enabled: bool, lines: bool, color: bool) -> None:
        self._progress: Progress | None = _rich(color) if enabled else None
        self._lines = lines
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self._told_at = time.monotonic()

    def upload(self, event: UploadProgress) -> None:
        """An upload's event."""
        what = _PHASES.get(event.phase) or event.current_file
        self._show(event.rec_id, what, event.bytes_uploaded, event)

    def download(self, event: DownloadProgress) -> None:
        """A download's event."""
        self._show("download", event.current_file or event.phase, event.bytes_downloaded, event)

    def __enter__(self) -> Bars:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def _show(self, name: str, what: str, done: int, event: UploadProgress | DownloadProgress) -> None:
        with self._lock:
            if self._progress:
                self._bar(self._progress, name, what, done, event)
            elif self._lines and time.monotonic() - self._told_at >= _LINE_EVERY_S:
                self._told_at = time.monotonic()
                told = f"{name}: {size(done)} of {size(event.bytes_total)}, {_pace(event)}, {plain(what)}"
                print(told, file=sys.stderr, flush=True)

    def _bar(
        self, progress: Progress, name: str, what: str, done: int, event: UploadProgress | DownloadProgress
    ) -> None:
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = progress.add_task(name, total=None, what="", pace="")
        total = event.bytes_total or None
        progress.update(task, completed=done, total=total, what=plain(what)[-40:], pace=_pace(event))


def _pace(event: UploadProgress | DownloadProgress) -> str:
    left = f", {duration(event.eta_s)} left" if event.eta_s is not None else ""
    return f"{size(round(event.bytes_per_s))}/s{left}"


def _rich(color: bool) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns: list[Any] = [
        # markup=False: a name from a file is text, whatever brackets it has.
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[pace]}", markup=False),
        TextColumn("{task.fields[what]}", markup=False),
    ]
    console = Console(stderr=True, no_color=not color)
    return Progress(*columns, console=console, transient=True, expand=True, refresh_per_second=8)
