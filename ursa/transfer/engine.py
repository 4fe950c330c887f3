"""One pool of requests and one memory budget for every transfer of a process."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from ursa.transfer.limits import BandwidthLimit, MemoryBudget
from ursa.transfer.link import Link
from ursa.transfer.parts import MIB
from ursa.transfer.trace import Trace

T = TypeVar("T")

FEWEST_TRANSFERS = 16
MOST_TRANSFERS = 256
_MOST_RECORDINGS = 64
# Large files under way, of all recordings: a network disk seeks between them. More where they are short: the requests that
# begin and end each of them take as long as sending it.
_FEWEST_LARGE = 4
_MOST_LARGE_BYTES = 256 * MIB
# What a small request costs this process in CPU time (measured: docs/performance.md). So many fit into a round trip.
_REQUEST_CPU_S = 0.0005
_NEWEST_WEIGHS = 0.1  # of the requests a second: one that stalled does not halve them
_MEMORY_BYTES = 96 * MIB


class Engine:
    """What all transfers share. Use it as a context manager, so that its threads end.

    Args:
        transfers: requests in flight; None follows the link: as many as keep one core busy over the shortest round
            trip seen so far, from 16 (a server next door) to 256 (one 130 ms away), and no more than are answered in a
            second.
        bandwidth: limit for bytes sent; none by default.
        round_trip_s: the shortest round trip that the connections have seen so far, 0 where none.
    """

    def __init__(
        self,
        *,
        transfers: int | None = None,
        bandwidth: BandwidthLimit | None = None,
        round_trip_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.memory = MemoryBudget(_MEMORY_BYTES)
        self.bandwidth = bandwidth or BandwidthLimit()
        self.window = Window(transfers, round_trip_s)
        self.link = Link()
        self.large = LargeFiles()
        self.trace = Trace()
        self._pool = ThreadPoolExecutor(transfers or MOST_TRANSFERS, thread_name_prefix="ursa-transfer")

    def recordings_at_once(self) -> int:
        """How many recordings may be under way now: as many as keep the link busy with a request each, up to 64."""
        return min(_MOST_RECORDINGS, self.window.size)

    def submit(self, action: Callable[[], T]) -> Future[T]:
        """Run ``action`` in the pool."""
        return self._pool.submit(action)

    def claim(self, size_bytes: int, stopped: threading.Event) -> bool:
        """Memory and a place among the requests in flight, both or neither; False where the run is stopped."""
        if stopped.is_set() or not self.memory.acquire(size_bytes, stopped):
            return False
        if not self.window.enter(stopped):
            self.memory.release(size_bytes)
            return False
        return True

    def unclaim(self, size_bytes: int) -> None:
        """Give both back."""
        self.window.leave()
        self.memory.release(size_bytes)

    def close(self) -> None:
        """End the threads; what has not started is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Window:
    """How many requests may be in flight: fixed, or following the shortest round trip, and the requests a second, so far."""

    def __init__(self, fixed: int | None, round_trip_s: Callable[[], float] = lambda: 0.0) -> None:
        self._fixed = fixed
        self._round_trip_s = round_trip_s
        self._in_flight = 0
        self._waiting = 0
        self._shortest_s = 0.0
        self._per_s = 0.0
        self._changed = threading.Condition()

    @property
    def size(self) -> int:
        """Requests that may be in flight now."""
        if self._fixed is not None:
            return self._fixed
        wanted = min(MOST_TRANSFERS, round((self._round_trip_s() or self._shortest_s) / _REQUEST_CPU_S))
        # More than are answered in a second only wait on a slow link, and are what a kill costs.
        return max(FEWEST_TRANSFERS, min(wanted, round(self._per_s) or wanted))

    def enter(self, stopped: threading.Event) -> bool:
        """Wait for a place; False where ``stopped`` came first."""
        with self._changed:
            self._waiting += 1
            try:
                while self._in_flight >= self.size:
                    if stopped.is_set():
                        return False
                    self._changed.wait(0.2)
                self._in_flight += 1
            finally:
                self._waiting -= 1
        return True

    def try_enter(self) -> bool:
        """Take a place that is free and that nobody waits for; False where there is none."""
        if self._waiting or self._in_flight >= self.size:  # most often so, and then not worth a lock
            return False
        with self._changed:
            if self._waiting or self._in_flight >= self.size:
                return False
            self._in_flight += 1
        return True

    def may_stay(self) -> bool:
        """Whether a place may serve another request: nobody waits for it."""
        return not self._waiting

    def leave(self) -> None:
        """Give the place back."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Learn from a request of a small body: its time is the link's round trip, or more."""
        started = time.monotonic()
        yield
        took = time.monotonic() - started
        if took > 0 and self._in_flight >= FEWEST_TRANSFERS:  # fewer do not show what the link could do
            per_s = self._in_flight / took  # Little's law
            self._per_s += (per_s - self._per_s) * (_NEWEST_WEIGHS if self._per_s else 1)
        if not self._shortest_s or took < self._shortest_s:
            with self._changed:
                self._shortest_s = min(self._shortest_s or took, took)


class LargeFiles:
    """Which of the files that go in parts are under way: four, or as many as have 256 MiB together. In the order in which
    they came: short ones would keep a long one waiting for good.
    """

    def __init__(self) -> None:
        self._count = self._bytes = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    def enter(self, size_bytes: int, stopped: threading.Event) -> bool:
        """Wait for this one's turn; False where ``stopped`` came first."""
        own = object()
        with self._changed:
            self._queue.append(own)
            try:
                while self._queue[0] is not own or not self._has_room(size_bytes):
                    if stopped.is_set():
                        return False
                    self._changed.wait(0.2)
                self._count += 1
                self._bytes += size_bytes
            finally:
                self._queue.remove(own)
                self._changed.notify_all()
        return True

    def _has_room(self, size_bytes: int) -> bool:
        return self._count < _FEWEST_LARGE or self._bytes + size_bytes <= _MOST_LARGE_BYTES

    def leave(self, size_bytes: int) -> None:
        """It has been sent, or won't be."""
        with self._changed:
            self._count -= 1
            self._bytes -= size_bytes
            self._changed.notify_all()


class Stop(threading.Event):
    """Set once: no new work starts. Keeps the first error, which is the one to report."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._first = threading.Lock()
        self._parts: set[Stop] = set()

    def set(self) -> None:
        """Stop, and whatever is a part of it."""
        super().set()
        for part in list(self._parts):
            part.set()

    @contextmanager
    def part(self) -> Iterator[Stop]:
        """One of its own for something that can fail alone, set with this one as well."""
        own = Stop()
        self._parts.add(own)
        if self.is_set():
            own.set()
        try:
            yield own
        finally:
            self._parts.discard(own)

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` where it is set."""
        if self.is_set():
            raise KeyboardInterrupt

    def fail(self, error: BaseException) -> None:
        """Stop because of ``error``."""
        with self._first:
            if self.error is None and not self.is_set():
                self.error = error
        self.set()
