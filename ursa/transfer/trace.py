"""How a run used its link: bytes that went out over time, and what it was doing while nothing was on its way.

Memory is bounded: a few hundred buckets, which become twice as wide when the run outgrows them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from typing import Final

MOST_BUCKETS: Final = 600
_FIRST_BUCKET_S: Final = 0.25


class Stage(StrEnum):
    """What a run may be doing while nothing is on its way; as in "idle, mostly while …"."""

    SCAN = "looking through the disks"
    CATALOG = "reading the catalog"
    LIST = "listing the bucket"
    HASH = "reading and hashing files"
    SERVER = "waiting for the server's answers"
    COMMIT = "waiting for the catalog's commit"
    TIDY = "tidying the catalog"
    OTHER = "planning what to send"


@dataclass(frozen=True, slots=True)
class LinkUse:
    """How the link was used in the ``seconds`` since the run began.

    ``sent`` and ``idle``: bytes that went out, and seconds in which none was on its way, in each ``bucket_s`` seconds; the
    last one may have more of them to come. ``idle_s``: these seconds by what the run was doing; where it did several things
    at once, each has its share.
    """

    seconds: float
    bucket_s: float
    sent: tuple[int, ...]
    idle: tuple[float, ...]
    idle_s: Mapping[Stage, float]

    @property
    def bytes_sent(self) -> int:
        """In all."""
        return sum(self.sent)

    @property
    def idle_share(self) -> float:
        """Of the run, 0 to 1."""
        return min(1.0, sum(self.idle) / self.seconds) if self.seconds > 0 else 0.0

    @property
    def mostly(self) -> Stage | None:
        """What most of the idle time went to; None where there was none."""
        return max(self.idle_s, key=lambda stage: self.idle_s[stage], default=None)


class Trace:
    """Takes it down. Thread-safe. A request or a stage costs a microsecond or two.

    Args:
        monotonic: seconds.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = monotonic
        self._lock = threading.Lock()
        self._in_flight = 0
        self._active: dict[Stage, int] = {}
        self._stages = {stage: _Staged(self, stage) for stage in Stage}
        self.begin()

    def begin(self) -> None:
        """A run begins; what was before is forgotten."""
        with self._lock:
            self._began = self._idle_until = self._now()
            self._ended: float | None = None
            self._bucket_s = _FIRST_BUCKET_S
            self._sent: list[float] = [0.0]
            self._idle: list[float] = [0.0]
            self._idle_s: dict[Stage, float] = {}

    def end(self) -> None:
        """The run has ended: what comes now is not its."""
        with self._lock:
            now = self._now()
            self._note_idle(now)
            self._ended = now

    def stage(self, stage: Stage) -> AbstractContextManager[None]:
        """While a thread is doing this."""
        return self._stages[stage]

    def sending(self, size_bytes: int) -> AbstractContextManager[None]:
        """While a request with so many bytes is on its way, or held back by a limit. One that fails has sent none."""
        return _Sending(self, size_bytes)

    def told(self) -> LinkUse:
        """How it was used so far."""
        with self._lock:
            now = self._now() if self._ended is None else self._ended
            self._note_idle(now)
            return LinkUse(
                now - self._began,
                self._bucket_s,
                tuple(_whole(self._sent)),
                tuple(round(seconds, 3) for seconds in self._idle),
                dict(self._idle_s),
            )

    def _enter(self, stage: Stage) -> None:
        with self._lock:
            if not self._in_flight:
                self._note_idle(self._now())
            self._active[stage] = self._active.get(stage, 0) + 1

    def _leave(self, stage: Stage) -> None:
        with self._lock:
            if not self._in_flight:
                self._note_idle(self._now())
            left = self._active[stage] - 1
            if left:
                self._active[stage] = left
            else:
                del self._active[stage]

    def _depart(self) -> float:
        now = self._now()
        with self._lock:
            if not self._in_flight:
                self._note_idle(now)
            self._in_flight += 1
        return now

    def _arrive(self, departed: float, size_bytes: int) -> None:
        now = self._now()
        with self._lock:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle_until = max(self._idle_until, now)
            if size_bytes and self._ended is None:
                self._spread(self._sent, departed, now, size_bytes)

    def _note_idle(self, now: float) -> None:
        """Nothing was on its way since the last time that this was noted."""
        since = self._idle_until
        if self._in_flight or now <= since or self._ended is not None:
            return
        self._idle_until = now
        self._spread(self._idle, since, now, now - since)
        doing = list(self._active) or [Stage.OTHER]
        for stage in doing:
            self._idle_s[stage] = self._idle_s.get(stage, 0.0) + (now - since) / len(doing)

    def _spread(self, buckets: list[float], since: float, until: float, amount: float) -> None:
        """Evenly over this time."""
        start, end = max(0.0, since - self._began), max(0.0, until - self._began)
        self._make_room(end)
        wide = self._bucket_s
        first, last = int(start / wide), int(end / wide)
        if first == last:
            buckets[last] += amount
            return
        for number in range(first, last + 1):
            covered = min(end, (number + 1) * wide) - max(start, number * wide)
            buckets[number] += amount * covered / (end - start)

    def _make_room(self, end: float) -> None:
        while end >= MOST_BUCKETS * self._bucket_s:
            self._bucket_s *= 2
            for buckets in (self._sent, self._idle):
                buckets[:] = [sum(buckets[at : at + 2]) for at in range(0, len(buckets), 2)]
        missing = int(end / self._bucket_s) + 1 - len(self._sent)
        if missing > 0:
            self._sent += [0.0] * missing
            self._idle += [0.0] * missing


def _whole(amounts: Iterable[float]) -> Iterator[int]:
    """As whole numbers that add up to the same."""
    told = 0
    for total in accumulate(amounts):
        yield round(total) - told
        told = round(total)


class _Staged(AbstractContextManager[None]):
    """Of all threads: it keeps nothing of its own."""

    def __init__(self, trace: Trace, stage: Stage) -> None:
        self._trace = trace
        self._stage = stage

    def __enter__(self) -> None:
        self._trace._enter(self._stage)

    def __exit__(self, *_: object) -> None:
        self._trace._leave(self._stage)


class _Sending(AbstractContextManager[None]):
    __slots__ = ("_departed", "_size_bytes", "_trace")

    def __init__(self, trace: Trace, size_bytes: int) -> None:
        self._trace = trace
        self._size_bytes = size_bytes

    def __enter__(self) -> None:
        self._departed = self._trace._depart()

    def __exit__(self, kind: object, *_: object) -> None:
        self._trace._arrive(self._departed, 0 if kind else self._size_bytes)
