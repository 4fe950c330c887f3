"""How many round trips a client waited for, one after the other, from what the fault proxy logged.

Behind a proxy with a delay, requests that go side by side overlap, whatever the machine does meanwhile. So the longest
chain of requests, of which each began after the one before it was answered, is what a far server makes a command wait
for; unlike seconds it does not depend on how fast or how busy the machine is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from proxy_rules import Logged

_SHOWN_KEY = 76
_CONDITIONS = ("range", "if-match", "if-none-match")


def longest_chain(log: Iterable[Logged]) -> list[Logged]:
    """The most requests of which each began after the one before it was answered.

    Taking whichever is answered first, of those that began late enough, is the longest there is. A request that was
    never answered (reset by a rule) ends nothing, so it can only be the last.
    """
    chain: list[Logged] = []
    for entry in sorted(log, key=lambda entry: entry.answered_s):
        if not chain or entry.started_s >= chain[-1].answered_s:
            chain.append(entry)
    return chain


def depth(log: Iterable[Logged]) -> int:
    """The sequential depth: how many round trips one after the other."""
    return len(longest_chain(log))


def kinds(log: Iterable[Logged]) -> str:
    """How many requests by method and kind: ``GET get 12, GET list 3``."""
    found = Counter((entry.method, entry.kind) for entry in log)
    return ", ".join(f"{method} {kind} {count}" for (method, kind), count in sorted(found.items()))


def trace(log: Iterable[Logged]) -> Iterator[str]:
    """A line a request in the order of their start: number in the chain, start and answer in ms, what was asked."""
    entries = sorted(log, key=lambda entry: entry.started_s)
    place = {id(entry): number for number, entry in enumerate(longest_chain(entries), 1)}
    begun = entries[0].started_s if entries else 0.0
    yield f"{'chain':>5} {'from ms':>8} {'to ms':>8} {'status':>6}  request"
    for entry in entries:
        span = f"{(entry.started_s - begun) * 1000:8.0f} {(entry.answered_s - begun) * 1000:8.0f}"
        yield f"{place.get(id(entry), ''):>5} {span} {entry.status:>6}  {entry.kind:<16} {entry.method} {_asked(entry)}"


def _asked(entry: Logged) -> str:
    """The key, shortened in its middle, with what tells two requests for it apart."""
    path = entry.path if len(entry.path) <= _SHOWN_KEY else f"{entry.path[:30]}…{entry.path[29 - _SHOWN_KEY :]}"
    told = [f"{name}={entry.query[name]}" for name in ("prefix", "start-after", "partNumber") if entry.query.get(name)]
    told += [f"{name}: {entry.headers[name]}" for name in _CONDITIONS if name in entry.headers]
    return " ".join([path, *told])
