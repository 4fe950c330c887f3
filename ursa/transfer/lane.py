"""Small files through the pool: who has sent one goes on with the next, and keeps its place among the requests.

Handing each file to the pool anew costs a few switches between threads, which at 64 KiB a file is a quarter of the
CPU time that sending it takes. A place is given up after each file where anybody waits for one, so that large files
and other recordings have their turn.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Generic, Protocol, TypeVar

from ursa.transfer.engine import Engine, Stop


class Sized(Protocol):
    """What a lane carries."""

    @property
    def size_bytes(self) -> int:
        """Bytes of memory that it takes while it is sent."""


T = TypeVar("T", bound=Sized)


class Lane(Generic[T]):
    """The small files of one upload. ``action`` sends one; its first error stops the run, and is in ``stop``."""

    def __init__(self, engine: Engine, stop: Stop, items: Iterable[T], action: Callable[[T], object]) -> None:
        self._engine = engine
        self._stop = stop
        self._action = action
        self._left = deque(items)
        self._changed = threading.Condition()
        self._runners = 0
        self._handed_back = False

    def run(self) -> None:
        """Send all; returns when they are sent, or when the run was stopped and what was in flight has ended."""
        while (item := self._next()) is not None and self._engine.claim(item.size_bytes, self._stop):
            self._start(item)
            with self._changed:
                self._changed.wait_for(lambda: self._handed_back or not self._runners)
                self._handed_back = False
        with self._changed:
            self._changed.wait_for(lambda: not self._runners)

    def _next(self) -> T | None:
        try:
            return None if self._stop.is_set() else self._left.popleft()
        except IndexError:
            return None

    def _start(self, item: T) -> None:
        with self._changed:
            self._runners += 1
        self._engine.submit(partial(self._send_from, item)).add_done_callback(partial(self._ended, item))

    def _send_from(self, first: T) -> None:
        """In the pool: this item, then one after the other; memory and the place are claimed for the first."""
        item: T | None = first
        try:
            while item is not None:
                self._grow()
                try:
                    self._action(item)
                finally:
                    self._engine.memory.release(item.size_bytes)
                item = self._following()
        except BaseException as error:  # noqa: BLE001  (kept for the thread that waits for the run)
            self._stop.fail(error)
        finally:
            self._engine.window.leave()

    def _ended(self, item: T, future: Future[None]) -> None:
        if future.cancelled():
            self._engine.unclaim(item.size_bytes)
        with self._changed:
            self._runners -= 1
            self._changed.notify()

    def _grow(self) -> None:
        """Another thread for the same files, where there is a place that nobody waits for."""
        if self._left and self._engine.window.try_enter():
            item = self._next()
            if item is not None and self._engine.memory.try_acquire(item.size_bytes):
                self._start(item)
                return
            if item is not None:
                self._left.appendleft(item)
            self._engine.window.leave()

    def _following(self) -> T | None:
        """The next item, its memory claimed; None where there is none, or others have their turn first."""
        if not self._left or self._stop.is_set():
            return None
        if self._engine.window.may_stay():
            item = self._next()
            if item is None or self._engine.memory.try_acquire(item.size_bytes):
                return item
            self._left.appendleft(item)
        with self._changed:
            self._handed_back = True
            self._changed.notify()
        return None
