"""The fault proxy's vocabulary: what can be broken, for which requests, and what was seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from http_wire import Kind, Request

Match = Kind | Callable[[str, str, dict[str, str]], bool]
"""Which requests a rule hits: a kind, or a function of (method, path, query); path and query are unescaped."""


@dataclass
class Logged:
    """One request as it came in. ``status`` is 0 while, and if, no answer went out."""

    method: str
    path: str
    query: dict[str, str]
    kind: Kind
    headers: dict[str, str] = field(repr=False)
    status: int = 0
    bytes_in: int = 0
    """Body bytes received from the client (chunk framing included)."""
    bytes_out: int = 0
    """Body bytes sent to the client."""
    fault: str = ""
    started_s: float = 0.0
    """When its head had come in: ``time.monotonic``, before any delay of the proxy's."""
    answered_s: float = math.inf
    """When the answer began to go out: nothing that depends on it can have started before."""


@dataclass(frozen=True)
class Fail:
    """Answer with an S3 error without asking the server."""

    status: int
    code: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reset:
    """RST the connection after so many bytes of the request's body; the server sees nothing of it."""

    after_bytes: int


@dataclass(frozen=True)
class Cut:
    """Close the connection after so many bytes of the reply's body."""

    after_bytes: int


@dataclass(frozen=True)
class Stall:
    """Be silent for so long: before the request goes on, or after so many bytes of the reply's body; then go on."""

    seconds: float
    after_bytes: int | None


@dataclass(frozen=True)
class LoseReply:
    """Let the server do it, then RST the connection instead of answering."""


Fault = Fail | Reset | Cut | Stall | LoseReply


@dataclass
class Rule:
    """A fault and the requests that it hits: ``times`` more of them (None: all); ``hits`` were hit so far."""

    match: Match
    fault: Fault
    times: int | None
    hits: int = 0

    def takes(self, request: Request) -> bool:
        """Whether this rule hits the request; uses one of its times up if so."""
        if self.times == 0:
            return False
        if isinstance(self.match, str):
            if self.match != request.kind:
                return False
        elif not self.match(request.method, request.path, request.query):
            return False
        self.hits += 1
        self.times = None if self.times is None else self.times - 1
        return True
