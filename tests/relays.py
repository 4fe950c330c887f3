"""What stands between a client and a server in a lab: a TLS front, and a proxy that asks for a password.

Each listens on loopback until it is closed, gives every connection a thread, and passes bytes on as they come.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import trustme

from http_wire import readable


class Authority:
    """A throw-away certificate authority. ``bundle``: the file of its certificate."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self.bundle = directory / "company-ca.pem"
        self._ca.cert_pem.write_to_path(self.bundle)

    def context(self, *names: str) -> ssl.SSLContext:
        """What a server of these names speaks TLS with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
        return context


class Relay:
    """Takes connections and joins each with one to a server. ``opened``: how many were taken."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self.opened = 0
        self._sockets: set[socket.socket] = set()
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL to give to a client, by name."""
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def close(self) -> None:
        """Stop, and break every connection."""
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connections that are open, as a server does with idle ones."""
        for sock in list(self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def joined(self, client: socket.socket) -> socket.socket | None:
        """The connection to the server that this client's goes on to; None: the client was told why not."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._closing:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.opened += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with ExitStack() as opened, suppress(OSError):
            client = opened.enter_context(self._tls.wrap_socket(plain, server_side=True) if self._tls else plain)
            self._sockets.add(client)
            opened.callback(self._sockets.discard, client)
            server = self.joined(client)
            if server is not None:
                _pump(client, opened.enter_context(server))


class TlsFront(Relay):
    """TLS before a server at ``upstream_url`` (``http://host:port``) that speaks none. ``bundle``: who vouches for it."""

    def __init__(self, upstream_url: str, authority: Authority, *names: str) -> None:
        self._upstream = _address(upstream_url)
        self.bundle = authority.bundle
        super().__init__(authority.context(*names))

    def joined(self, client: socket.socket) -> socket.socket | None:
        return socket.create_connection(self._upstream)


class ForwardProxy(Relay):
    """An HTTP proxy: CONNECT, and requests in absolute form. ``asked``: their first lines.

    Args:
        password: ``user:password`` that it wants to see.
        status: refuses everything with this status.
        hosts: where names are that only the proxy knows.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        status: int | None = None,
        hosts: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.asked: list[str] = []
        self._password = password
        self._status = status
        self._hosts = hosts or {}
        super().__init__(tls)

    def joined(self, client: socket.socket) -> socket.socket | None:
        head, _, rest = _head(client).partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.asked.append(lines[0])
        refusal = self._refusal({line.partition(":")[0].lower(): line.partition(": ")[2] for line in lines[1:]})
        if refusal:
            client.sendall(f"HTTP/1.1 {refusal}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return None
        method, target, _version = lines[0].split(" ")
        if method == "CONNECT":
            server = self._connected(f"http://{target}")
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            return server
        server = self._connected(target)
        path = "/" + target.split("/", 3)[3]
        kept = [line for line in lines[1:] if not line.lower().startswith("proxy-")]
        server.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]).encode() + rest)
        return server

    def _connected(self, url: str) -> socket.socket:
        host, port = _address(url)
        return socket.create_connection((self._hosts.get(host, host), port))

    def _refusal(self, headers: dict[str, str]) -> str | None:
        if self._status:
            return f"{self._status} No"
        if self._password is None:
            return None
        wanted = f"Basic {base64.b64encode(self._password.encode()).decode()}"
        return None if headers.get("proxy-authorization") == wanted else "407 Proxy Authentication Required"


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.split("/")[2].rpartition(":")
    return host, int(port)


def _head(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := client.recv(65536)):
            raise ConnectionResetError
        data += more
    return data


def _pump(one: socket.socket, other: socket.socket) -> None:
    while True:
        pending = [sock for sock in (one, other) if isinstance(sock, ssl.SSLSocket) and sock.pending()]
        for sock in pending or readable(one, other):
            data = sock.recv(65536)
            if not data:
                with contextlib.suppress(OSError):
                    (other if sock is one else one).shutdown(socket.SHUT_RDWR)
                return
            (other if sock is one else one).sendall(data)
