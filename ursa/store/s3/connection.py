"""One connection to a server, direct or through a proxy, and one request at a time on it."""

from __future__ import annotations

import contextlib
import io
import os
import select
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from ursa.store.protocol import Body, ignore
from ursa.store.s3.failures import BadReplyError, NoAnswerError, ProxyError, StaleError, TlsError
from ursa.store.s3.proxies import Proxy
from ursa.store.s3.trust import Trust

# http.client's own: what one call of the socket takes, and what progress is told by.
_SEND_BYTES = 1 << 18
# Sent in one packet with the head: a small object is one call and one segment less.
_JOINED_BYTES = 1 << 16
_PROXY_REFUSES = 407
_SWITCHED = 101
BODILESS = {204, 304}
# A server that says no more than "wait" is none that answers.
_INTERIM_REPLIES = 100


@dataclass(frozen=True, slots=True)
class Route:
    """How a server is reached. ``trust`` is asked for certificates where there is TLS; times in seconds."""

    scheme: str
    host: str
    port: int
    netloc: str
    proxy: Proxy | None
    trust: Trust
    connect_s: float
    read_s: float

    @classmethod
    def to(cls, url: str, proxy: Proxy | None, trust: Trust, connect_s: float, read_s: float) -> Route:
        """The route to a URL's server."""
        parts = urlsplit(url)
        default = 443 if parts.scheme == "https" else 80
        host = parts.hostname or ""
        if not host.isascii():
            with contextlib.suppress(UnicodeError):
                host = host.encode("idna").decode()
        port = parts.port or default
        bracketed = f"[{host}]" if ":" in host else host
        netloc = bracketed if port == default else f"{bracketed}:{port}"
        return cls(parts.scheme, host, port, netloc, proxy, trust, connect_s, read_s)


class _Incoming(io.BufferedReader):
    """What comes in on a connection, for all of its replies in turn: none takes away what was read beyond its end."""

    def makefile(self, _mode: str) -> _Incoming:
        """As of a socket, for ``HTTPResponse``."""
        return self

    def close(self) -> None:
        """Nothing: a reply has ended, and another may follow."""


class Connection:
    """An open connection. ``idle_since``: for the pool. Not thread-safe."""

    def __init__(self, route: Route) -> None:
        """Connect: through the proxy, with TLS, as the route says.

        Raises:
            NoAnswerError, ProxyError, TlsError, ConfigError.
        """
        self._sock: Any = _connected(route)
        self._raw: Any = self._sock.makefile("rb", buffering=0)
        self._incoming: Any = _Incoming(self._raw)
        self._read_s = route.read_s
        self._pid = os.getpid()
        self._forwarded = route.proxy if route.scheme == "http" else None
        self._base = f"http://{route.netloc}" if self._forwarded else ""
        self.idle_since = 0.0
        self.used = False
        self.spoilt = False  # a body that did not go out whole

    def exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: Body = b"",
        sent: Callable[[int], object] = ignore,
    ) -> HTTPResponse:
        """Send a request and wait for the head of its reply.

        Args:
            sent: told how many bytes of the body have gone out.

        Raises:
            StaleError: the connection, used before, was closed before any answer came.
            NoAnswerError, BadReplyError.
        """
        try:
            self._send(self._head(method, target, headers), body, sent)
            reply = self._final(method)
        except (ConnectionError, ssl.SSLError) as error:
            raise StaleError(str(error)) if self.used else NoAnswerError(_words(error)) from None
        except HTTPException as error:
            raise BadReplyError(f"no HTTP: {error!r:.100}") from None
        except OSError as error:
            raise NoAnswerError(_words(error)) from None
        self.used = True
        return reply

    def is_mine(self) -> bool:
        """False in a process forked since: the socket is the parent's, and so is what comes in on it."""
        return self._pid == os.getpid()

    def is_quiet(self) -> bool:
        """Whether an idle connection is good for a request: not closed, and nothing has come that was not asked for."""
        try:
            self._sock.settimeout(0)
            try:
                self._sock.recv(1)  # also what TLS has read and not yet handed out
            except (BlockingIOError, ssl.SSLWantReadError):
                return not self._buffered()
            finally:
                self._sock.settimeout(self._read_s)
        except (OSError, ValueError):
            pass
        return False

    def close(self) -> None:
        """Close it, whatever is under way."""
        for what in (self._raw, self._sock):
            with contextlib.suppress(OSError):
                what.close()

    def _buffered(self) -> bool:
        try:
            return bool(self._incoming.peek(1))
        except ssl.SSLWantReadError:
            return False

    def _final(self, method: str) -> HTTPResponse:
        """The reply itself, after those (103 Early Hints, 102 Processing) that only say that it will come."""
        for _ in range(_INTERIM_REPLIES):
            reply = HTTPResponse(self._incoming, method=method)
            reply.begin()
            if reply.status in BODILESS:
                reply.chunked, reply.length = False, 0  # whatever is announced: http.client would wait for chunks
            if reply.status >= 200 or reply.status == _SWITCHED:
                return reply
        raise BadReplyError(f"{_INTERIM_REPLIES} replies that another will follow")

    def _has_said(self) -> bool:
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _head(self, method: str, target: str, headers: Mapping[str, str]) -> bytes:
        lines = [f"{method} {self._base}{target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if self._forwarded and self._forwarded.authorization:
            lines.append(f"proxy-authorization: {self._forwarded.authorization}")
        if any("\n" in line or "\r" in line for line in lines):
            raise ValueError("a line break in a header")
        return "\r\n".join([*lines, "", ""]).encode()

    def _send(self, head: bytes, body: Body, sent: Callable[[int], object]) -> None:
        if len(body) <= _JOINED_BYTES:
            self._sock.sendall(b"".join((head, body)))
            sent(len(body))
            return
        view = memoryview(body)
        try:
            self._sock.sendall(head)
            for start in range(0, len(view), _SEND_BYTES):
                block = view[start : start + _SEND_BYTES]
                self._sock.sendall(block)
                sent(start + len(block))
        except ConnectionError:
            # A server that refuses may say so and close before it has read the body: what it said is there to be read.
            if not self._has_said():
                raise
            self.spoilt = True


def _connected(route: Route) -> Any:
    at = route.proxy or route
    try:
        sock = socket.create_connection((at.host, at.port), route.connect_s)
    except (OSError, UnicodeError) as error:  # the latter: a name that no DNS can have
        if route.proxy:
            raise ProxyError(f"the proxy {route.proxy} can't be reached ({_words(error)})", passing=True) from None
        raise NoAnswerError(_words(error)) from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        wrapped = _through(route, sock)
        wrapped.settimeout(route.read_s)
    except BaseException:
        sock.close()
        raise
    return wrapped


def _through(route: Route, sock: socket.socket) -> Any:
    """The socket after the proxy's answer and the TLS handshakes."""
    tunnel: Any = sock
    if route.proxy and route.proxy.scheme == "https":
        tunnel = _wrapped(route, sock, route.proxy.host)
    if route.scheme == "http":
        return tunnel
    if route.proxy:
        _ask_for_tunnel(route, route.proxy, tunnel)
    return _wrapped(route, tunnel, route.host)


def _wrapped(route: Route, sock: Any, host: str) -> Any:
    context = route.trust.context()
    try:
        if isinstance(sock, ssl.SSLSocket):  # within the TLS of the proxy
            from urllib3.util.ssltransport import SSLTransport

            return SSLTransport(sock, context, host)
        return context.wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        words = f"the certificate of {host} is not trusted ({error.verify_message}; asked was {route.trust})"
        raise TlsError(words, certificate=True) from None
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise NoAnswerError(f"the TLS handshake was cut: {_words(error)}") from None
    except ssl.SSLError as error:
        raise TlsError(_words(error)) from None
    except OSError as error:
        raise NoAnswerError(_words(error)) from None


def _ask_for_tunnel(route: Route, proxy: Proxy, sock: Any) -> None:
    name = f"{f'[{route.host}]' if ':' in route.host else route.host}:{route.port}"
    lines = [f"CONNECT {name} HTTP/1.1", f"host: {name}"]
    if proxy.authorization:
        lines.append(f"proxy-authorization: {proxy.authorization}")
    try:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        reply = HTTPResponse(sock, method="CONNECT")
        reply.begin()
    except HTTPException as error:
        raise ProxyError(f"the proxy {proxy} answers, but not as a proxy does ({error!r:.100})") from None
    except OSError as error:
        raise ProxyError(f"the proxy {proxy} gave no answer ({_words(error)})", passing=True) from None
    if reply.status != 200:
        raise refused_by(proxy, reply.status, reply.reason)
    reply.close()


def refused_by(proxy: Proxy, status: int, reason: str) -> ProxyError:
    """What a proxy's own refusal means."""
    if status == _PROXY_REFUSES:
        what = "refuses the user or password" if proxy.authorization else "asks for a user and password"
        return ProxyError(f"the proxy {proxy} {what} (407)")
    return ProxyError(f"the proxy {proxy} refuses the connection ({status} {reason[:80]})", passing=status >= 500)


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())[:200]
