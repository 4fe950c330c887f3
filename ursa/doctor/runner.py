"""Run probes one after another: whatever one of them does, the others run, and the whole ends in time.

A probe runs in a thread of its own that nobody has to wait for: a request to a dead NAS may never come back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ursa.doctor.results import Finding, ProbeResult, Status, fail, failed, skip
from ursa.errors import UrsaError

ALL_S = 110.0
"""Seconds after which no probe is waited for: a command ends within two minutes."""

_INTERRUPTED_S = 10.0  # for what the probe in flight has made and must delete


@dataclass(frozen=True)
class Probe:
    """One thing to look at.

    ``run`` returns a ``Finding``; what it raises is a failure. ``needs``: names of probes without which this one makes
    no sense. ``limit_s``: seconds after which it is given up. ``left``: what it may have left behind by then, in words.
    """

    name: str
    run: Callable[[], Finding]
    needs: tuple[str, ...] = ()
    limit_s: float = 30.0
    left: Callable[[], str | None] = field(default=lambda: None)


def run_all(
    probes: Iterable[Probe], on_probe: Callable[[ProbeResult], object], hide: Callable[[str], str]
) -> list[ProbeResult]:
    """Run every probe in order; ``on_probe`` is told each result as it comes. ``hide`` masks secrets in a text."""
    deadline = time.monotonic() + ALL_S
    results: list[ProbeResult] = []
    for probe in probes:
        started = time.monotonic()
        finding = _lacking(probe, results) or _timed(probe, min(probe.limit_s, deadline - started))
        result = ProbeResult(
            probe.name,
            finding.status,
            hide(finding.detail),
            hide(finding.mend) if finding.mend else None,
            round(time.monotonic() - started, 3),
            finding.exit_code,
        )
        results.append(result)
        on_probe(result)
    return results


def _lacking(probe: Probe, results: list[ProbeResult]) -> Finding | None:
    """Why the probe can't be asked, if it can't."""
    for result in results:
        if result.name in probe.needs and result.status in (Status.FAIL, Status.SKIP):
            return skip(f"not asked: {result.name} {'failed' if result.status is Status.FAIL else 'was skipped'}")
    return None


def _timed(probe: Probe, limit_s: float) -> Finding:
    if limit_s <= 0:
        return skip(f"not asked: the other probes took {ALL_S:.0f} s already")
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(_caught(probe)), name=f"doctor-{probe.name}", daemon=True)
    thread.start()
    try:
        thread.join(limit_s)
    except KeyboardInterrupt:
        thread.join(_INTERRUPTED_S)
        raise
    if found:
        return found[0]
    left = probe.left()
    return fail(
        f"no answer in {limit_s:.0f} s" + (f"; {left}" if left else ""),
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
