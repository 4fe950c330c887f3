"""How much of what is sent in parts may be in flight: what the link sends in a second, shared by all files of a run.

A part that has not arrived whole is lost when the process is killed, so what is in flight is what a kill costs. Too little
of it leaves a fast or distant link idle: a sixteenth of a 512 MiB file is a fifth of what such a link could take.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_NEWEST_WEIGHS = 0.25  # a part that was lucky does not count for all
# A server that gives each connection little is only found to give more by asking for more: twice as much may be in flight
# while that pays, until so many rounds (all that is in flight, once) have brought less than a quarter more.
_PROBING = 2
_ROUNDS = 2
_PAYS = 1.25


@dataclass
class Share:
    """One file's part of the link. ``floor_bytes``: so much of it may be in flight however slow the link is; at least one
    part.
    """

    floor_bytes: int
    in_flight: int = 0


class Link:
    """Thread-safe. Measured by Little's law: rate = bytes under way / the time that one part is under way."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._now = monotonic
        self._in_flight = 0
        self._rate = 0.0
        self._paid = 0.0  # the rate when more in flight last brought more
        self._rounds_left = 0
        self._round_at = self._now()
        self._under_way = 0
        self._area = 0.0  # bytes under way, integrated over time
        self._area_at = monotonic()
        self._changed = threading.Condition()

    @property
    def bytes_per_s(self) -> float:
        """What parts get through; 0 until one has arrived."""
        return self._rate

    @property
    def second_bytes(self) -> float:
        """How much of all files together may be in flight: what the link sends in a second, twice that while probing."""
        return self._rate * (_PROBING if self._rounds_left else 1)

    def enter(self, share: Share, size_bytes: int, stopped: threading.Event) -> bool:
        """Wait until a part may be sent: its file has less in flight than its floor, or all files together less than
        ``second_bytes``. False where ``stopped`` came first.
        """
        with self._changed:
            while not self._has_room(share, size_bytes):
                if stopped.is_set():
                    return False
                self._changed.wait(0.2)
            share.in_flight += size_bytes
            self._in_flight += size_bytes
        return True

    def leave(self, share: Share, size_bytes: int) -> None:
        """The part has arrived, or won't."""
        with self._changed:
            share.in_flight -= size_bytes
            self._in_flight -= size_bytes
            self._changed.notify_all()

    @contextmanager
    def measured(self, size_bytes: int) -> Iterator[None]:
        """While a part is under way. One that fails tells nothing of the link."""
        began = self._now()
        area = self._move(size_bytes, began)
        try:
            yield
        except BaseException:
            self._move(-size_bytes, self._now())
            raise
        arrived = self._now()
        self._learn(self._move(-size_bytes, arrived) - area, began, arrived)

    def _has_room(self, share: Share, size_bytes: int) -> bool:
        of_second = self._in_flight + size_bytes <= self.second_bytes
        return of_second or share.in_flight + size_bytes <= share.floor_bytes

    def _move(self, size_bytes: int, now: float) -> float:
        """So many bytes more are under way; the area until now."""
        with self._changed:
            self._area += self._under_way * max(0.0, now - self._area_at)
            self._area_at = now
            self._under_way += size_bytes
            return self._area

    def _learn(self, area: float, began: float, arrived: float) -> None:
        took_s = arrived - began
        if took_s <= 0:
            return
        with self._changed:
            self._rate += (area / took_s / took_s - self._rate) * (_NEWEST_WEIGHS if self._rate else 1)
            if began >= self._round_at:
                self._end_round(arrived)
            self._changed.notify_all()

    def _end_round(self, now: float) -> None:
        """A part that was sent in this round has arrived."""
        self._round_at = now
        if self._rate >= self._paid * _PAYS:
            self._paid, self._rounds_left = self._rate, _ROUNDS
        elif self._rounds_left:
            self._rounds_left -= 1
