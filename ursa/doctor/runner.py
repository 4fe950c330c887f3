"""Run probes side by side and tell them in order: whatever one of them does, the others run, and the whole ends in time.

A probe runs in a thread of its own that nobody has to wait for: a request to a dead NAS may never come back.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ursa.doctor.results import Finding, ProbeResult, Status, fail, failed, skip
from ursa.errors import UrsaError

ALL_S = 110.0
"""Seconds after which no probe is waited for: a command ends within two minutes."""

_INTERRUPTED_S = 10.0  # for what the probes in flight have made and must delete


@dataclass(frozen=True)
class Probe:
    """One thing to look at.

    ``run`` returns a ``Finding``; what it raises is a failure. ``needs``: names of probes without which this one makes
    no sense. ``after``: names of probes that would disturb this one, or it them, and must have ended, well or not; both
    mean probes that come before it. ``limit_s``: seconds after which it is given up. ``left``: what it may have left
    behind by then, in words.
    """

    name: str
    run: Callable[[], Finding]
    needs: tuple[str, ...] = ()
    limit_s: float = 30.0
    left: Callable[[], str | None] = field(default=lambda: None)
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Running:
    """A probe in its thread. ``started`` and ``until``: monotonic seconds; given up at the latter."""

    thread: threading.Thread
    started: float
    until: float


def run_all(
    probes: Iterable[Probe], on_probe: Callable[[ProbeResult], object], hide: Callable[[str], str]
) -> list[ProbeResult]:
    """Run every probe as soon as those that it waits for have ended.

    ``on_probe`` is told the results in this thread and in the order of the probes, each as soon as those before it are
    known. ``hide`` masks secrets in a text.
    """
    run = _Run(list(probes), hide)
    told: list[ProbeResult] = []
    try:
        for result in run.results():
            told.append(result)
            on_probe(result)
    except BaseException:
        run.let_tidy()
        raise
    return told


class _Run:
    """Which probes wait, run and have ended, each by its place. Only ``_ended`` is touched by their threads."""

    def __init__(self, probes: list[Probe], hide: Callable[[str], str]) -> None:
        self._probes = probes
        self._hide = hide
        self._deadline = time.monotonic() + ALL_S
        self._waiting = list(range(len(probes)))
        self._running: dict[int, _Running] = {}
        self._results: dict[int, ProbeResult] = {}
        self._ended: queue.SimpleQueue[tuple[int, Finding]] = queue.SimpleQueue()

    def results(self) -> Iterator[ProbeResult]:
        """Every probe's result, in order."""
        for place in range(len(self._probes)):
            self._start_ready()
            while place not in self._results:
                self._wait()
                self._start_ready()
            yield self._results[place]

    def let_tidy(self) -> None:
        """Give the probes in flight some seconds to delete what they have made."""
        until = time.monotonic() + _INTERRUPTED_S
        for running in self._running.values():
            running.thread.join(max(0.0, until - time.monotonic()))

    def _start_ready(self) -> None:
        """Start what waits for nothing that is still to come. In order: what is skipped lets the next one be judged."""
        for place in list(self._waiting):
            if not self._ready(place):
                continue
            self._waiting.remove(place)
            now = time.monotonic()
            finding = self._lacking(place) or (_too_late() if now >= self._deadline else None)
            if finding:
                self._settle(place, finding, now)
            else:
                self._running[place] = self._started(place, now)

    def _started(self, place: int, now: float) -> _Running:
        probe = self._probes[place]
        thread = threading.Thread(
            target=lambda: self._ended.put((place, _caught(probe))), name=f"doctor-{probe.name}", daemon=True
        )
        thread.start()
        return _Running(thread, now, min(now + probe.limit_s, self._deadline))

    def _wait(self) -> None:
        """Until a probe ends, or has had its time. One that was given up and ends after all is not heard."""
        until = min(running.until for running in self._running.values())
        try:
            place, finding = self._ended.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            self._give_up()
            return
        if place in self._running:
            self._settle(place, finding, self._running.pop(place).started)

    def _give_up(self) -> None:
        now = time.monotonic()
        for place, running in list(self._running.items()):
            if running.until <= now:
                del self._running[place]
                finding = _no_answer(self._probes[place], running.until - running.started)
                self._settle(place, finding, running.started)

    def _settle(self, place: int, finding: Finding, started: float) -> None:
        self._results[place] = ProbeResult(
            self._probes[place].name,
            finding.status,
            self._hide(finding.detail),
            self._hide(finding.mend) if finding.mend else None,
            round(time.monotonic() - started, 3),
            finding.exit_code,
        )

    def _ready(self, place: int) -> bool:
        awaited = {*self._probes[place].needs, *self._probes[place].after}
        return all(before in self._results or self._probes[before].name not in awaited for before in range(place))

    def _lacking(self, place: int) -> Finding | None:
        """Why the probe can't be asked, if it can't."""
        for before in range(place):
            result = self._results.get(before)
            if result and result.name in self._probes[place].needs and result.status in (Status.FAIL, Status.SKIP):
                return skip(f"not asked: {result.name} {'failed' if result.status is Status.FAIL else 'was skipped'}")
        return None


def _too_late() -> Finding:
    return skip(f"not asked: the other probes took {ALL_S:.0f} s already")


def _no_answer(probe: Probe, waited_s: float) -> Finding:
    left = probe.left()
    return fail(
        f"no answer in {waited_s:.0f} s" + (f"; {left}" if left else ""),
        "Something hangs: the network, the server, a mount (`mount`, `df`), or a prompt on the screen. Try again.",
    )


def _caught(probe: Probe) -> Finding:
    try:
        return probe.run()
    except UrsaError as error:
        return failed(error)
    except OSError as error:
        return fail(f"{error.filename or 'the system'}: {error.strerror or error}", "Check the path and its mount.")
    except Exception as error:  # noqa: BLE001  (a bug in one probe must not hide what the others find)
        return fail(
            f"the probe itself broke: {type(error).__name__}: {error}",
            "This is a bug in ursa. Please report this line with `ursa --version`.",
        )
