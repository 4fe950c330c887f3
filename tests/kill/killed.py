"""An ingest that kills itself: ``killed.py CONFIG PROFILE REC_DIR POINT``.

POINT counts every step at which the world can change: each event, and before and after each call of the stores and
each commit of a table. The process gets SIGKILL when the count is reached; a run that gets by prints how many there were.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ursa.catalog.tables as tables
from ursa import DataInterface
from ursa.store import Store


class Countdown:
    """Kills this process at the given step."""

    def __init__(self, point: int) -> None:
        self.point = point
        self.steps = 0
        self.lock = threading.Lock()

    def step(self, *_: object) -> None:
        with self.lock:
            self.steps += 1
            if self.steps == self.point:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.step()
            result = action(*args, **options)
            self.step()
            return result

        return call


class Killing:
    """A store that counts what changes something."""

    CHANGES = ("put", "delete", "create_upload", "upload_part", "complete_upload", "abort_upload")

    def __init__(self, inner: Store, countdown: Countdown) -> None:
        self._inner = inner
        self._countdown = countdown

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._countdown.around(found) if name in self.CHANGES else found


def main() -> None:
    config, profile, rec_dir, point = sys.argv[1:]
    countdown = Countdown(int(point))
    data = DataInterface(profile, None if config == "-" else Path(config))
    data.enable_writes(roles=("assets_rw", "raw_rw"))
    if profile == "local":
        data.init_catalog()
    make_store = data._store
    data._store = lambda *args: Killing(make_store(*args), countdown)  # type: ignore[method-assign, return-value]
    tables.write_deltalake = countdown.around(tables.write_deltalake)
    data.ingest(Path(rec_dir) / "manifest.json", rec_dir, "Aria Lin", progress=countdown.step)
    print(countdown.steps)


if __name__ == "__main__":
    main()
