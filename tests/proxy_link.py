"""The fault proxy's connections: accepting the clients', keeping the server's."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from http_wire import Framing, Reply, Request, Stream, readable
from proxy_rules import Logged

CONTINUE_TIMEOUT_S = 1.0


class Acceptor:
    """The thread that accepts connections on a listening socket and gives each a thread."""

    def __init__(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        self._listener, self._serve = listener, serve
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return when no more connections will be accepted."""
        self._wake.send(b"x")
        self._thread.join()
        self._wake.close()
        self._woken.close()

    def _run(self) -> None:
        while True:
            if self._woken in readable(self._listener, self._woken):
                return
            with contextlib.suppress(OSError):  # the client went before it was accepted
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), name="fault-proxy-client", daemon=True).start()


class Pace:
    """So many body bytes a second over all connections, as an uplink has them; None: as many as go."""

    def __init__(self, bytes_per_s: float | None, closing: threading.Event) -> None:
        self._bytes_per_s, self._closing = bytes_per_s, closing
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, count: int) -> None:
        """Return when ``count`` bytes more have passed."""
        if self._bytes_per_s is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._bytes_per_s
            wait_s = self._free_at - now
        self._closing.wait(wait_s)


class Link:
    """The upstream connection that belongs to one client connection."""

    def __init__(
        self,
        address: tuple[str, int],
        tracked: Callable[[socket.socket], contextlib.AbstractContextManager[None]],
        pace: Pace,
    ) -> None:
        self._address, self._tracked, self._pace = address, tracked, pace
        self._open = contextlib.ExitStack()
        self._stream: Stream | None = None

    @property
    def stream(self) -> Stream:
        """The open connection; a closed or stale one is opened anew by ``forward``."""
        if self._stream is None:
            sock = socket.create_connection(self._address)
            self._open.enter_context(self._tracked(sock))
            self._stream = Stream(sock)
        return self._stream

    def close(self) -> None:
        """Close the connection, if it is open."""
        self._stream = None
        self._open.close()

    def forward(self, client: Stream, request: Request, entry: Logged) -> tuple[Reply, bool]:
        """Send a request on and wait for its reply's head; and whether the client's body was read to its end."""
        if self._stream is not None and self._stream.stale():
            self.close()
        upstream = self.stream
        framing = request.framing() or Framing()
        if not request.expects_continue:
            self._send(client.body(framing), request.raw, entry)
            return self._final(), True
        upstream.sock.sendall(request.raw)
        early = self._await_continue(client)
        if early is not None:
            return early, False
        self._send(client.body(framing), b"", entry)
        return self._final(), True

    def _await_continue(self, client: Stream) -> Reply | None:
        """The server's final reply if it answers before the body; None when the body is to be sent."""
        if not self.stream.first_to_speak(client, CONTINUE_TIMEOUT_S):
            client.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        reply = self._reply()
        if reply.status >= 200:
            return reply
        client.sock.sendall(reply.raw)
        return None

    def _send(self, body: Iterator[bytes | memoryview], waiting: bytes, entry: Logged) -> None:
        """Send ``waiting`` and the body; if the server stops listening, read the client's body to its end anyway."""
        listens = True
        for piece in body:
            self._pace.wait(len(piece))
            entry.bytes_in += len(piece)
            if listens:
                listens = self._try_send(b"".join((waiting, piece)) if waiting else piece)
            waiting = b""
        if waiting:
            self._try_send(waiting)

    def _try_send(self, data: bytes | memoryview) -> bool:
        try:
            self.stream.sock.sendall(data)
        except ConnectionError:
            return False  # its answer may have come before; reading it will tell
        return True

    def _final(self) -> Reply:
        while (reply := self._reply()).status < 200:
            pass
        return reply

    def _reply(self) -> Reply:
        raw = self.stream.head()
        if raw is None:
            raise ConnectionResetError("the server closed the connection without an answer")
        return Reply(raw)
