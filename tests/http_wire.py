"""As much of HTTP/1.1 and of S3's URLs as the fault proxy needs: heads, body framing, and what a request is for."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from urllib.parse import parse_qsl, unquote

BUFFER_BYTES = 256 * 1024
MAX_HEAD_BYTES = 1024 * 1024

Kind = Literal[
    "put",
    "get",
    "head",
    "list",
    "create_multipart",
    "upload_part",
    "complete",
    "abort",
    "list_uploads",
    "list_parts",
    "delete",
    "probe",
    "other",
]

# Of S3's many sub-resources those that clients of ours or the peers might touch.
_SUBRESOURCES = frozenset(
    {"acl", "attributes", "cors", "encryption", "legal-hold", "lifecycle", "location", "object-lock", "policy"}
    | {"restore", "retention", "select", "tagging", "versioning", "versions"}
)
_OBJECT_KINDS: dict[str, Kind] = {"PUT": "put", "GET": "get", "HEAD": "head", "DELETE": "delete"}
_UPLOAD_KINDS: dict[str, Kind] = {
    "PUT": "upload_part",
    "GET": "list_parts",
    "POST": "complete",
    "DELETE": "abort",
}


def readable(*socks: socket.socket, timeout_s: float | None = None) -> list[socket.socket]:
    """Those of ``socks`` that have data (or an end) to read, after at most ``timeout_s``. No limit on descriptors."""
    poll = select.poll()
    for sock in socks:
        poll.register(sock, select.POLLIN)
    ready = {fd for fd, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)}
    return [sock for sock in socks if sock.fileno() in ready]


class WireError(OSError):
    """The other side spoke something that isn't HTTP, or left in the middle of it."""


@dataclass(frozen=True)
class Framing:
    """How a body ends: after ``length`` bytes, with the last chunk, or when the connection closes."""

    length: int = 0
    chunked: bool = False
    until_close: bool = False


class Stream:
    """A socket with what was read from it too far."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._ahead = bytearray()
        self._window = memoryview(bytearray(BUFFER_BYTES))

    def head(self) -> bytes | None:
        """Everything to the blank line, which is included; None if the other side closed before it began."""
        searched = 0
        while (end := self._ahead.find(b"\r\n\r\n", searched)) < 0:
            searched = max(0, len(self._ahead) - 3)
            if searched > MAX_HEAD_BYTES:
                raise WireError("a head of more than 1 MiB")
            data = self.sock.recv(64 * 1024)
            if not data:
                if self._ahead:
                    raise WireError("closed in the middle of a head")
                return None
            self._ahead += data
        return self._from_ahead(end + 4)

    def body(self, framing: Framing) -> Iterator[bytes | memoryview]:
        """The body as it is on the wire, in pieces that are valid until the next one is asked for."""
        if framing.chunked:
            yield from self._chunks()
        elif framing.until_close:
            while piece := self._some(BUFFER_BYTES):
                yield piece
        else:
            yield from self._exactly(framing.length)

    def first_to_speak(self, other: Stream, timeout_s: float) -> bool:
        """Whether data from this side come before data from ``other`` and before the timeout."""
        if self._ahead or other._ahead:
            return bool(self._ahead)
        return self.sock in readable(self.sock, other.sock, timeout_s=timeout_s)

    def stale(self) -> bool:
        """Whether an idle connection has been closed by the other side (or speaks out of turn)."""
        return bool(self._ahead) or bool(readable(self.sock, timeout_s=0))

    def _from_ahead(self, count: int) -> bytes:
        taken = bytes(self._ahead[:count])
        del self._ahead[:count]
        return taken

    def _some(self, count: int) -> bytes | memoryview:
        if self._ahead:
            return self._from_ahead(min(count, len(self._ahead)))
        return self._window[: self.sock.recv_into(self._window, min(count, BUFFER_BYTES))]

    def _exactly(self, count: int) -> Iterator[bytes | memoryview]:
        while count:
            piece = self._some(count)
            if not piece:
                raise WireError(f"closed {count} bytes before the end of a body")
            count -= len(piece)
            yield piece

    def _line(self) -> bytes:
        while (end := self._ahead.find(b"\n")) < 0:
            data = self.sock.recv(64 * 1024)
            if not data:
                raise WireError("closed in a chunked body")
            self._ahead += data
        return self._from_ahead(end + 1)

    def _chunks(self) -> Iterator[bytes | memoryview]:
        size = -1
        while size:
            line = self._line()
            size = int(line.split(b";")[0], 16)
            yield line
            if size:
                yield from self._exactly(size + 2)
        while True:  # trailers, then a blank line
            line = self._line()
            yield line
            if line in (b"\r\n", b"\n"):
                return


@dataclass(frozen=True)
class Head:
    """A request's or a reply's first lines: ``raw`` is what was on the wire and is what gets forwarded."""

    raw: bytes

    @cached_property
    def first(self) -> list[str]:
        """The first line's words: method, target, version; or version, status, reason."""
        return self.raw[: self.raw.index(b"\r\n")].decode("latin-1").split(" ", 2)

    @cached_property
    def headers(self) -> dict[str, str]:
        """Headers by lower-case name; of a repeated one the last."""
        lines = self.raw.decode("latin-1").split("\r\n")[1:-2]
        pairs = (line.partition(":") for line in lines)
        return {name.lower(): value.strip() for name, _, value in pairs}

    @property
    def closes(self) -> bool:
        """Whether the connection ends after this message."""
        return "close" in self.headers.get("connection", "").lower() or b"HTTP/1.0" in self.raw[: self.raw.index(b"\r")]

    def framing(self) -> Framing | None:
        """How the body ends as far as the headers say; None when they don't."""
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return Framing(chunked=True)
        length = self.headers.get("content-length")
        return None if length is None else Framing(length=int(length))


@dataclass(frozen=True)
class Request(Head):
    """A request's head, taken apart."""

    @property
    def method(self) -> str:
        """The method in capitals."""
        return self.first[0]

    @cached_property
    def path(self) -> str:
        """The path with its percent escapes undone: ``/bucket/key``."""
        return unquote(self.first[1].partition("?")[0])

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters; one without a value is ``""``."""
        return dict(parse_qsl(self.first[1].partition("?")[2], keep_blank_values=True))

    @cached_property
    def kind(self) -> Kind:
        """What the request asks of S3."""
        return kind_of(self.method, self.path, self.query)

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a ``100 Continue`` before it sends the body."""
        return self.headers.get("expect", "").lower() == "100-continue"


@dataclass(frozen=True)
class Reply(Head):
    """A reply's head, taken apart."""

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.first[1])

    def body_framing(self, method: str) -> Framing:
        """How this reply's body ends, when it answers ``method``."""
        if method == "HEAD" or self.status in (204, 304) or self.status < 200:
            return Framing()
        return self.framing() or Framing(until_close=True)


def kind_of(method: str, path: str, query: dict[str, str]) -> Kind:
    """Which S3 operation a path-style request is, by its class."""
    bucket, _, key = path.lstrip("/").partition("/")
    if not bucket or not _SUBRESOURCES.isdisjoint(query):
        return "other"
    if ".ursa-probe/" in key and method != "GET":
        # How a server treats conditions is asked once a bucket: apart from what a run asks of it.
        return "probe"
    if key:
        return _object_kind(method, query)
    if method == "GET":
        return "list_uploads" if "uploads" in query else "list"
    return "delete" if method == "POST" and "delete" in query else "other"


def _object_kind(method: str, query: dict[str, str]) -> Kind:
    if "uploadId" in query:
        return _UPLOAD_KINDS.get(method, "other")
    if method == "POST":
        return "create_multipart" if "uploads" in query else "other"
    return _OBJECT_KINDS.get(method, "other")
