"""One pool of requests and one memory budget for every transfer of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ursa.transfer.limits import BandwidthLimit, MemoryBudget
from ursa.transfer.parts import MIB

T = TypeVar("T")

DEFAULT_TRANSFERS = 16
"""Requests in flight. Enough to keep a 100 ms link busy with 64 KiB files, few enough for a small machine."""
_MEMORY_BYTES = 160 * MIB


class Engine:
    """What all transfers share. Use it as a context manager, so that its threads end.

    Args:
        transfers: requests in flight.
        bandwidth: limit for bytes sent; none by default.
    """

    def __init__(self, *, transfers: int = DEFAULT_TRANSFERS, bandwidth: BandwidthLimit | None = None) -> None:
        self.memory = MemoryBudget(_MEMORY_BYTES)
        self.bandwidth = bandwidth or BandwidthLimit()
        self.transfers = transfers
        self._pool = ThreadPoolExecutor(transfers, thread_name_prefix="ursa-transfer")

    def submit(self, action: Callable[[], T]) -> Future[T]:
        """Run ``action`` in the pool."""
        return self._pool.submit(action)

    def close(self) -> None:
        """End the threads; what has not started is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stop(threading.Event):
    """Set once: no new work starts. Keeps the first error, which is the one to report."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._first = threading.Lock()

    def fail(self, error: BaseException) -> None:
        """Stop because of ``error``."""
        with self._first:
            if self.error is None and not self.is_set():
                self.error = error
        self.set()
