"""Limits that all transfers of a process share: bandwidth, and memory for what is in flight."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from datetime import datetime
from datetime import time as clock_time

from ursa.errors import UsageError

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_rate(text: str) -> float | None:
    """``"20M"`` → bytes a second (units of 1,024, as rclone has them); ``"off"`` → None, no limit."""
    if text.strip().lower() == "off":
        return None
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([BKMG]?)i?B?(?:/s)?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is not a bandwidth", hint="Write for instance 20M, 512K or off; M is MiB a second.")
    return float(match[1]) * _UNITS[match[2].upper()]


def parse_timetable(text: str) -> tuple[tuple[clock_time, float | None], ...]:
    """``"20M"`` or ``"08:00,5M 19:00,off"`` → (from when each day, bytes a second), in the order of the day."""
    if "," not in text:
        return ((clock_time(0), parse_rate(text)),)
    entries = []
    for item in text.split():
        start, _, rate = item.partition(",")
        try:
            entries.append((clock_time.fromisoformat(start), parse_rate(rate)))
        except ValueError as error:
            raise UsageError(
                f"{item!r} is not an entry of a bandwidth timetable ({error})",
                hint='Write for instance "08:00,5M 19:00,off".',
            ) from None
    return tuple(sorted(entries, key=lambda entry: entry[0]))


class BandwidthLimit:
    """A token bucket over all threads, with the rate that the timetable gives for the time of day."""

    def __init__(
        self,
        timetable: tuple[tuple[clock_time, float | None], ...] = (),
        *,
        now: Callable[[], datetime] = datetime.now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timetable = timetable
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._free_at = 0.0

    def rate(self) -> float | None:
        """Bytes a second allowed now; None is no limit."""
        if not self._timetable:
            return None
        now = self._now().time()
        passed = [rate for start, rate in self._timetable if start <= now]
        return passed[-1] if passed else self._timetable[-1][1]

    def wait(self, count: int, stopped: threading.Event) -> None:
        """Block until ``count`` more bytes may go, or until ``stopped``."""
        rate = self.rate()
        if rate is None:
            return
        with self._lock:
            now = self._monotonic()
            start = max(self._free_at, now)
            self._free_at = start + count / rate
        stopped.wait(max(0.0, start - now))


class MemoryBudget:
    """Bytes that may be held at once; what is larger than the whole budget waits for all of it.

    Large buffers are kept and handed out again: giving 16 MiB back to the system and faulting it in anew for each part
    costs as much time as reading it.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._free = capacity_bytes
        self._waiting = 0
        self._changed = threading.Condition()
        self._buffers: list[bytearray] = []

    def buffer(self, size: int) -> bytearray:
        """A buffer of at least ``size`` bytes, whose memory ``acquire`` has granted."""
        with self._changed:
            fitting = [index for index, kept in enumerate(self._buffers) if len(kept) >= size]
            return self._buffers.pop(fitting[0]) if fitting else bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        """Keep a buffer for the next part."""
        with self._changed:
            if sum(map(len, self._buffers)) + len(buffer) <= self._capacity:
                self._buffers.append(buffer)

    def acquire(self, count: int, stopped: threading.Event) -> bool:
        """Take ``count`` bytes; False where ``stopped`` came first."""
        count = min(count, self._capacity)
        with self._changed:
            self._waiting += 1
            try:
                while self._free < count:
                    if stopped.is_set():
                        return False
                    self._changed.wait(0.2)
                self._free -= count
            finally:
                self._waiting -= 1
        return True

    def try_acquire(self, count: int) -> bool:
        """Take ``count`` bytes that are free and that nobody waits for; False where they are not."""
        count = min(count, self._capacity)
        with self._changed:
            if self._waiting or self._free < count:
                return False
            self._free -= count
        return True

    def release(self, count: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._free += min(count, self._capacity)
            if self._waiting:
                self._changed.notify_all()
