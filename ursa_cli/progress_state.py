"""Where a run stands, by the last event of each recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ursa.events import DownloadProgress, HashProgress, Speed, UploadProgress
from ursa_cli.render import duration, size

Event = UploadProgress | DownloadProgress | HashProgress

LARGE_FILE_BYTES = 64 << 20
_WORDS = {
    "plan": "checking",
    "sidecars": "manifest",
    "prove": "proving",
    "register": "registering",
    "write": "manifest",
    "done": "done",
    "start": "listing",
    "plan_done": "starting",
    "finish": "done",
}
_LAST = {"done", "finish"}


@dataclass(slots=True)
class Moving:
    """A recording (or a download) in flight. ``large`` are its big files in flight: bytes done, bytes in all."""

    name: str
    event: Event
    bytes_done: int = 0
    bytes_total: int = 0
    resumed: int = 0
    large: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """The step, or the file at hand."""
        return _WORDS.get(self.event.phase) or self.event.current_file

    @property
    def pace(self) -> str:
        """Bytes per second, and how long it will take."""
        return _pace(self.event.bytes_per_s, self.event.eta_s)

    def told(self) -> str:
        """In a line."""
        return f"{self.name} {size(self.bytes_done)} of {size(self.bytes_total)}, {self.what}"


@dataclass(frozen=True, slots=True)
class Overall:
    """The whole run. ``bytes_total`` is what is known so far: recordings that have not begun are not in it.

    ``recordings_total`` is None where nobody said how many there are.
    """

    bytes_done: int
    bytes_total: int
    recordings_done: int
    recordings_in_flight: int
    recordings_total: int | None
    bytes_per_s: float
    eta_s: float | None
    elapsed_s: float

    @property
    def recordings(self) -> str:
        """How many of them are done."""
        of = "" if self.recordings_total is None else f" of {self.recordings_total}"
        return (
            f"{self.recordings_done}{of} recording{'' if (self.recordings_total or self.recordings_done) == 1 else 's'}"
        )

    @property
    def pace(self) -> str:
        """Bytes per second, and how long it will take."""
        return _pace(self.bytes_per_s, self.eta_s)

    def told(self) -> str:
        """In a line."""
        return f"{self.recordings} done, {size(self.bytes_done)}, {self.pace}"


class Standing:
    """What the events add up to. Not thread-safe."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.expected: int | None = None
        self._now = monotonic
        self._began = monotonic()
        self._moving: dict[str, Moving] = {}
        self._finished: set[str] = set()
        self._ended_bytes = self._ended_total = self._ended_resumed = 0
        self._speed = Speed()

    def take(self, name: str, event: Event, done: int, resumed: int) -> Moving:
        """The newest event of ``name``."""
        moving = self._moving.get(name)
        if moving is None:
            moving = self._moving[name] = Moving(name, event)
        moving.event, moving.bytes_done, moving.resumed = event, done, resumed
        moving.bytes_total = event.bytes_total
        if isinstance(event, UploadProgress):
            _follow_large(moving.large, event)
        return moving

    def finish(self, rec_id: str) -> None:
        """A recording is done or has failed; what it moved stays in the sum."""
        self._finished.add(rec_id)
        moving = self._moving.pop(rec_id, None)
        if moving is not None:
            self._ended_bytes += moving.bytes_done
            self._ended_total += moving.bytes_done
            self._ended_resumed += moving.resumed

    def in_flight(self) -> list[Moving]:
        """Those that have begun and not ended, the oldest first."""
        return [moving for moving in self._moving.values() if moving.event.phase not in _LAST]

    def overall(self) -> Overall:
        """The sum."""
        moving = self._moving.values()
        done = self._ended_bytes + sum(each.bytes_done for each in moving)
        total = self._ended_total + sum(each.bytes_total for each in moving)
        resumed = self._ended_resumed + sum(each.resumed for each in moving)
        now = self._now()
        self._speed.update(now, done - resumed)
        ended = len(self._finished) + sum(each.event.phase in _LAST for each in moving)
        in_flight = len(moving) - sum(each.event.phase in _LAST for each in moving)
        # Recordings that have not begun have bytes that nobody has counted: then there is no honest time left.
        known = self.expected is None or ended + in_flight >= self.expected
        return Overall(
            bytes_done=done,
            bytes_total=total,
            recordings_done=ended,
            recordings_in_flight=in_flight,
            recordings_total=self.expected,
            bytes_per_s=self._speed.bytes_per_s,
            eta_s=self._speed.eta_s(max(0, total - done)) if known else self._by_recordings(ended, now),
            elapsed_s=now - self._began,
        )

    def _by_recordings(self, ended: int, now: float) -> float | None:
        """Seconds left if the rest takes as long each as those that have ended; None until one has."""
        if not ended or self.expected is None:
            return None
        return (now - self._began) / ended * (self.expected - ended)


def _follow_large(large: dict[str, tuple[int, int]], event: UploadProgress) -> None:
    path = event.current_file
    if event.phase == "upload" and event.file_bytes_total >= LARGE_FILE_BYTES:
        large[path] = (event.file_bytes_done, event.file_bytes_total)
    elif event.phase == "file_done":
        large.pop(path, None)
    elif event.phase != "upload":
        large.clear()


def _pace(bytes_per_s: float, eta_s: float | None) -> str:
    left = f" {duration(eta_s)} left" if eta_s is not None else ""
    return f"{size(round(bytes_per_s))}/s{left}"
