"""A reverse proxy of our own that counts requests, delays them and breaks them on demand.

It stands between a client and a real S3 server. Heads and bodies pass through unchanged, so that the signature over
the client's Host header still holds at the server. One thread and one upstream connection serve each client
connection; both stay open between requests.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

from http_wire import Framing, Kind, Reply, Request, Stream
from proxy_link import Acceptor, Link, Pace
from proxy_rules import Cut, Fail, Fault, Logged, LoseReply, Match, Reset, Rule, Stall

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_ERROR_CODES = {
    400: "BadRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}


class _ResetError(Exception):
    """Ends a connection with an RST."""


class _CutError(Exception):
    """Ends a connection without more words."""


class FaultProxy:
    """A proxy before ``upstream_url`` (``http://host:port``) that listens on ``url`` until ``close``.

    ``delay_s`` is slept before each request goes on; ``bytes_per_s`` is what the uplink takes, over all connections.
    ``log`` has every request in the order of arrival and ``counts`` how many by (method, kind); both are written before
    the client can see an answer.
    """

    def __init__(self, upstream_url: str, *, delay_s: float = 0.0, bytes_per_s: float | None = None) -> None:
        parts = urlsplit(upstream_url)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None:
            raise ValueError(f"{upstream_url!r} is not of the form http://host:port")
        self._upstream = (parts.hostname, parts.port)
        self.delay_s = delay_s
        self.log: list[Logged] = []
        self.counts: Counter[tuple[str, Kind]] = Counter()
        self.peak_in_flight = 0
        self._in_flight = 0
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._closing = threading.Event()
        self._pace = Pace(bytes_per_s, self._closing)
        self._listener = _bound(0)
        self._port: int = self._listener.getsockname()[1]
        self._acceptor: Acceptor | None = None
        self.up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The endpoint to give to a client."""
        return f"http://127.0.0.1:{self._port}"

    def count(self, *kinds: Kind) -> int:
        """How many requests of these kinds came in; of all kinds without an argument."""
        with self._lock:
            return sum(n for (_, kind), n in self.counts.items() if not kinds or kind in kinds)

    def clear(self) -> None:
        """Forget log, counts, peak and rules."""
        with self._lock:
            self.log.clear()
            self.counts.clear()
            self._rules.clear()
            self.peak_in_flight = self._in_flight

    # Rules: the first one, in the order they were made, that takes a request breaks it.

    def fail(
        self,
        match: Match,
        times: int | None = 1,
        status: int = 503,
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        code: str | None = None,
    ) -> Rule:
        """Answer with ``status`` and the S3 error ``code``; ``retry_after`` in seconds."""
        extra = dict(headers or {})
        if retry_after is not None:
            extra["Retry-After"] = f"{retry_after:g}"
        return self._add(match, times, Fail(status, code or _ERROR_CODES.get(status, "InternalError"), extra))

    def reset(self, match: Match, times: int | None = 1, *, after_bytes: int = 0) -> Rule:
        """RST before answering, after ``after_bytes`` of the request's body."""
        return self._add(match, times, Reset(after_bytes))

    def cut(self, match: Match, after_bytes: int, times: int | None = 1) -> Rule:
        """Close the connection after ``after_bytes`` of the reply's body."""
        return self._add(match, times, Cut(after_bytes))

    def stall(self, match: Match, seconds: float, times: int | None = 1, *, after_bytes: int | None = None) -> Rule:
        """Be silent for ``seconds`` before the request goes on, or after ``after_bytes`` of the reply's body."""
        return self._add(match, times, Stall(seconds, after_bytes))

    def lose_reply(self, match: Match, times: int | None = 1) -> Rule:
        """Forward the request, wait for the server's whole answer, then RST instead of passing it on."""
        return self._add(match, times, LoseReply())

    def down(self) -> None:
        """Break every connection and refuse new ones, on the same port, until ``up``."""
        if self._acceptor is None:
            return
        self._acceptor.stop()
        self._acceptor = None
        self._listener.close()
        # Bound and not listening: connections are refused, and nobody else can take the port.
        self._listener = _bound(self._port)
        with self._lock:
            for sock in self._sockets:
                _break(sock)

    def up(self) -> None:
        """Listen (again)."""
        if self._acceptor is None:
            self._listener.listen(512)
            self._acceptor = Acceptor(self._listener, self._serve)

    def close(self) -> None:
        """Stop for good."""
        self._closing.set()
        self.down()
        self._listener.close()

    def _add(self, match: Match, times: int | None, fault: Fault) -> Rule:
        rule = Rule(match, fault, times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def _serve(self, sock: socket.socket) -> None:
        """One client connection, from accept to close."""
        client, link = Stream(sock), Link(self._upstream, self._tracked, self._pace)
        with self._tracked(sock), contextlib.closing(link):
            try:
                while (raw := client.head()) is not None and self._one(client, Request(raw), link):
                    pass
            except _ResetError:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except (_CutError, OSError, ValueError):
                pass  # closing is all that is left to say

    @contextlib.contextmanager
    def _tracked(self, sock: socket.socket) -> Iterator[None]:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)
            sock.close()

    def _one(self, client: Stream, request: Request, link: Link) -> bool:
        """Serve one request; whether the connection stays open."""
        entry = Logged(request.method, request.path, request.query, request.kind, request.headers)
        with self._lock:
            entry.started_s = time.monotonic()
            self.log.append(entry)
            self.counts[request.method, request.kind] += 1
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
            rule = next((rule for rule in self._rules if rule.takes(request)), None)
        try:
            if self.delay_s:
                self._closing.wait(self.delay_s)
            return self._exchange(client, request, link, entry, rule.fault if rule else None)
        finally:
            with self._lock:
                self._in_flight -= 1

    def _exchange(self, client: Stream, request: Request, link: Link, entry: Logged, fault: Fault | None) -> bool:
        entry.fault = type(fault).__name__ if fault else ""
        if isinstance(fault, Reset):
            _swallow(client, request, entry, fault.after_bytes)
            raise _ResetError
        if isinstance(fault, Fail):
            return _refuse(client, request, entry, fault)
        if isinstance(fault, Stall) and fault.after_bytes is None:
            self._closing.wait(fault.seconds)
        try:
            reply, complete = link.forward(client, request, entry)
        except ConnectionError as exc:
            raise _ResetError from exc
        framing = reply.body_framing(request.method)
        if isinstance(fault, LoseReply):
            for _ in link.stream.body(framing):
                pass
            raise _ResetError
        entry.status, entry.answered_s = reply.status, time.monotonic()
        self._relay(client, link.stream, reply, framing, entry, fault)
        return complete and not (framing.until_close or reply.closes or request.closes)

    def _relay(
        self, client: Stream, upstream: Stream, reply: Reply, framing: Framing, entry: Logged, fault: Fault | None
    ) -> None:
        """Pass a reply on: head and first piece in one send, which is all there is for most."""
        limit = fault.after_bytes if isinstance(fault, Cut | Stall) else None
        waiting = reply.raw
        for piece in _split_at(upstream.body(framing), limit):
            if piece is None:
                client.sock.sendall(waiting)
                waiting = b""
                if not isinstance(fault, Stall):
                    raise _CutError
                self._closing.wait(fault.seconds)
                continue
            entry.bytes_out += len(piece)
            client.sock.sendall(b"".join((waiting, piece)) if waiting else piece)
            waiting = b""
        if waiting:
            client.sock.sendall(waiting)


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _break(sock: socket.socket) -> None:
    """Wake the thread that reads from ``sock``; it then closes it, with an RST."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        sock.shutdown(socket.SHUT_RDWR)


def _swallow(client: Stream, request: Request, entry: Logged, at_least: int) -> None:
    """Read ``at_least`` so many bytes of the request's body."""
    if not at_least:
        return
    if request.expects_continue:
        client.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    for piece in client.body(request.framing() or Framing()):
        entry.bytes_in += len(piece)
        if entry.bytes_in >= at_least:
            return


def _refuse(client: Stream, request: Request, entry: Logged, fault: Fail) -> bool:
    """Answer in the server's stead; a client that waits for a ``100 Continue`` is spared sending its body."""
    keep = not (request.expects_continue or request.closes)
    if not request.expects_continue:
        for piece in client.body(request.framing() or Framing()):
            entry.bytes_in += len(piece)
    body = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
    headers = {
        "Content-Type": "application/xml",
        "Content-Length": str(len(body)),
        "Connection": "keep-alive" if keep else "close",
    } | dict(fault.headers)
    lines = [f"HTTP/1.1 {fault.status} {fault.code}", *(f"{name}: {value}" for name, value in headers.items())]
    body = b"" if request.method == "HEAD" else body
    entry.status, entry.bytes_out, entry.answered_s = fault.status, len(body), time.monotonic()
    client.sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    return keep


def _split_at(pieces: Iterator[bytes | memoryview], limit: int | None) -> Iterator[bytes | memoryview | None]:
    """The pieces, with a None where ``limit`` bytes have passed (at the end, if there are fewer)."""
    if limit is None:
        yield from pieces
        return
    left = limit
    for piece in pieces:
        if len(piece) < left:
            left -= len(piece)
            yield piece
            continue
        yield piece[:left]
        yield None
        yield piece[left:]
        yield from pieces
        return
    yield None


__all__ = ["FaultProxy", "Logged", "Match", "Rule"]
