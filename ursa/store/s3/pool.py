"""Connections to one server: kept open, as many as there are requests in flight, opened side by side."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Self, TypeVar

from ursa.store.forked import begin_anew_in_child
from ursa.store.protocol import Body, ignore
from ursa.store.s3.connection import BODILESS, Connection, Route, refused_by
from ursa.store.s3.failures import BadReplyError, NoAnswerError, StaleError
from ursa.store.s3.proxies import proxy_for
from ursa.store.s3.trust import find_trust

T = TypeVar("T")

CONNECT_S = 20.0
# Twice, with the wait between: a server that takes connections and says nothing ends a command within two minutes.
READ_S = 40.0
# What a NAT on the way has forgotten by then swallows a request, and its time-out, without a word.
_IDLE_S = 60.0
_PROXY_REFUSES = 407
# aws-chunked: what a client once said of its upload, which some servers tell of the object.
_AS_IS = {"", "identity", "aws-chunked"}


class Reply:
    """A reply whose body is still to be read. A context manager: leaving it gives its connection back, or closes it."""

    def __init__(self, pool: Pool, connection: Connection, raw: HTTPResponse) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self._raw = raw
        self.status = raw.status
        self.headers: dict[str, str] = {name.lower(): value for name, value in raw.headers.items()}
        self._left = raw.length

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> bytes:
        """The whole body. Raises ``BadReplyError`` where it is cut, ``NoAnswerError``."""
        data = self._guarded(self._raw.read)
        self._count(len(data))
        self._left = 0
        return data

    def blocks(self, size_bytes: int) -> Iterator[bytes]:
        """The body in blocks of ``size_bytes``, the last one shorter. Raises as ``read``."""
        while block := self._guarded(lambda: self._raw.read(size_bytes)):
            self._count(len(block))
            yield block
        self._end()

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer as far as one read of the socket goes; 0: the body has ended. Raises as ``read``."""
        count = self._guarded(lambda: self._raw.readinto(buffer))
        self._count(count)
        if not count:
            self._end()
        return count

    def close(self) -> None:
        """Give the connection back where the body was read to its end, else close it. Fine to call twice."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        whole = self._raw.isclosed() and not self._left and not self._raw.will_close and not connection.spoilt
        if self.status < 200 or (self.status in BODILESS and self._announces_body()):
            whole = False
        self._raw.close()
        if whole:
            self._pool.keep(connection)
        else:
            connection.close()

    def _announces_body(self) -> bool:
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers

    def _count(self, count: int) -> None:
        if self._left is not None:
            self._left -= count

    def _end(self) -> None:
        if self._left:
            raise BadReplyError(f"a reply was cut {self._left} bytes before its end")

    def _guarded(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except HTTPException as error:
            raise BadReplyError(f"a reply that was cut: {error!r:.100}") from None
        except OSError as error:
            raise NoAnswerError(f"the reply broke off: {error}") from None


class Pool:
    """Connections to the server of one URL. Thread-safe; it holds no lock while it connects or waits.

    Proxy and certificates are looked up at the first request, in the environment as it then is.
    """

    def __init__(
        self, url: str, ca_bundle: Path | None = None, *, connect_s: float = CONNECT_S, read_s: float = READ_S
    ) -> None:
        self.url = url
        self._ca_bundle = ca_bundle
        self._times_s = (connect_s, read_s)
        self.shortest_s = 0.0
        """The shortest time from a request to its reply so far: the link's round trip, or more; 0: nobody has asked."""
        self._idle: deque[Connection] = deque()
        self._lock = threading.Lock()
        begin_anew_in_child(self)

    @cached_property
    def route(self) -> Route:
        """How the server is reached. Raises ``ConfigError`` for a proxy that can't be one."""
        return Route.to(self.url, proxy_for(self.url, os.environ), find_trust(self._ca_bundle), *self._times_s)

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body = b"",
        *,
        sent: Callable[[int], object] = ignore,
        counted: Callable[[], object] = lambda: None,
        repeatable: bool = True,
    ) -> Reply:
        """Send a request; its reply, whatever the status.

        Args:
            repeatable: it may reach the server twice. A conditional write may not: its own first coming would refuse it,
                and a caller that was told of no failure would take that for another writer's.
            sent: told how many bytes of the body have gone out, from the start again where it is sent again.
            counted: called for each time that the request goes out.

        Raises:
            WireError: no answer to what was asked. ConfigError.
        """
        connection = self._kept()
        if connection is not None:
            try:
                return self._exchanged(connection, counted, method, target, headers, body, sent)
            except StaleError:
                # Closed while nothing was under way, as a rule: no failure of the server's.
                if not repeatable:
                    raise
        return self._exchanged(Connection(self.route), counted, method, target, headers, body, sent)

    def keep(self, connection: Connection) -> None:
        """Take a connection back that is ready for another request."""
        if not connection.is_mine():
            connection.close()
            return
        connection.idle_since = time.time()
        with self._lock:
            self._idle.append(connection)

    def close(self) -> None:
        """Close what is idle. The pool stays usable."""
        with self._lock:
            idle, self._idle = self._idle, deque()
        for connection in idle:
            connection.close()

    def __del__(self) -> None:
        self.close()

    def after_fork(self) -> None:
        """In a child: what is idle is the parent's, and a thread that held the lock is not here to release it."""
        self._lock = threading.Lock()
        idle, self._idle = self._idle, deque()
        for connection in idle:
            connection.close()

    def _exchanged(self, connection: Connection, counted: Callable[[], object], *request: Any) -> Reply:
        try:
            counted()
            began = time.monotonic()
            reply = Reply(self, connection, connection.exchange(*request))
            took_s = time.monotonic() - began
            if not self.shortest_s or took_s < self.shortest_s:
                self.shortest_s = took_s
        except BaseException as error:
            connection.close()
            if isinstance(error, NoAnswerError):
                # What ended this connection (a night's sleep, another network) has ended those beside it.
                self.close()
            raise
        if reply.status == _PROXY_REFUSES and self.route.proxy and self.route.scheme == "http":
            reply.close()
            raise refused_by(self.route.proxy, reply.status, "")
        encoding = reply.headers.get("content-encoding", "").lower()
        # An object may have been stored under such a name, as it is: then its length is known, and here it comes in chunks.
        chunked = "content-length" not in reply.headers
        if request[0] != "HEAD" and chunked and not {part.strip() for part in encoding.split(",")} <= _AS_IS:
            reply.close()
            raise BadReplyError(
                f"a reply compressed on the way, which was not asked for: Content-Encoding {encoding:.40}"
            )
        return reply

    def _kept(self) -> Connection | None:
        """The connection used last, if it is still good."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            # By the wall clock, which goes on while a laptop sleeps.
            fresh = abs(time.time() - connection.idle_since) <= _IDLE_S
            if connection.is_mine() and fresh and connection.is_quiet():
                return connection
            connection.close()
