"""Something answers at the endpoint that is no S3 server: a login page, a proxy, a web server of a router."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_store_s3 import ACTIONS, Action, caught, every_action

from ursa import StorageError
from ursa.credentials import Credentials
from ursa.store import NotFoundError
from ursa.store.counting import RequestCounter
from ursa.store.s3 import S3Location, S3Store


class Portal(BaseHTTPRequestHandler):
    """Answers every request with ``status`` and a page of HTML."""

    protocol_version = "HTTP/1.1"
    status = 200
    page = b"<html><body>login</body></html>"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.page)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def portal(request: pytest.FixtureRequest) -> Iterator[S3Store]:
    """A store at a portal of this status and page."""
    status, page = request.param
    methods = {f"do_{name}": Portal.answer for name in ("GET", "PUT", "POST", "HEAD", "DELETE")}
    handler = type("Handler", (Portal,), {"status": status, "page": page, **methods})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        location = S3Location(f"http://127.0.0.1:{server.server_port}", "raw", "auto", "raw_rw")
        yield S3Store(location, lambda _again: Credentials("K", "S"), RequestCounter())
        server.shutdown()


@pytest.mark.parametrize("portal", [(200, Portal.page), (200, b"")], indirect=True, ids=["login", "empty"])
@every_action
def test_a_good_answer_of_no_s3_server(portal: S3Store, action: Action) -> None:
    if action in (ACTIONS["delete"], ACTIONS["abort upload"], ACTIONS["stream"]):
        return  # their answers hold nothing to check; what was streamed is compared with its sha256
    error = caught(action, portal)
    assert isinstance(error, StorageError) and "not as an S3 server" in error.message
    assert error.hint is not None and "endpoint_url" in error.hint


@pytest.mark.parametrize("portal", [(404, Portal.page), (404, b"")], indirect=True, ids=["page", "empty"])
@pytest.mark.parametrize("action", ["read", "list", "put small", "stream", "list uploads", "create upload"])
def test_a_404_of_no_s3_server_says_nothing_of_an_object(portal: S3Store, action: str) -> None:
    error = caught(ACTIONS[action], portal)
    assert isinstance(error, StorageError) and not isinstance(error, NotFoundError)
    assert "not as an S3 server" in error.message
