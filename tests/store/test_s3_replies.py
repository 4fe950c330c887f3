"""What may come back from a listing or a small read: pages, half replies, replies of something that is no S3 server."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ursa.credentials import Credentials
from ursa.errors import CredentialsError, StorageError
from ursa.store import NoSuchUploadError, Part, PreconditionFailedError, TransientError
from ursa.store.conduct import KnownConduct
from ursa.store.counting import RequestCounter
from ursa.store.s3 import S3Location, S3Store

Reply = tuple[int, dict[str, str], bytes]
ITEM = (
    "<Contents><Key>{key}</Key><LastModified>2026-05-20T19:56:28.000Z</LastModified>"
    "<ETag>&quot;abc&quot;</ETag><Size>7</Size></Contents>"
)


def listing(*keys: str, more: str = "", root: str = 'ListBucketResult xmlns="http://s3.amazonaws.com/doc/"') -> bytes:
    name = root.split()[0]
    items = "".join(ITEM.format(key=key) for key in keys)
    return f"<?xml version='1.0'?><{root}><EncodingType>url</EncodingType>{more}{items}</{name}>".encode()


class Noted:
    """The note of a machine that has asked a server today."""

    def __init__(self, checks: bool | None) -> None:
        self._checks = checks

    def note(self, topic: str, about: str) -> Mapping[str, Any] | None:
        assert topic == "server" and "/bucket" in about
        if self._checks is None:
            return None
        return {"conditions": True, "checks_sha256": self._checks, "at": time.time()}

    def put_note(self, topic: str, about: str, value: Mapping[str, Any] | None) -> None:
        raise AssertionError(f"a reading role noted {value} of {topic} {about}")


@contextmanager
def answering(*replies: Reply, checks: bool | None = None) -> Iterator[tuple[S3Store, list[str]]]:
    """A store at a server that gives these replies in turn, and what it was asked.

    ``checks``: what this machine has noted of whether it checks a sha256; None: nothing.
    """
    asked: list[str] = []
    left = list(replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            status, headers, body = left.pop(0)
            self.send_response_only(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.close_connection = int(headers.get("Content-Length", len(body))) != len(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Nothing: the test's output is its own."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    known = KnownConduct(Noted(checks), url, f"bucket-{uuid.uuid4().hex}")
    location = S3Location(url, "bucket", "auto", "raw_ro")
    try:
        yield S3Store(location, lambda _again: Credentials("k", "s", None), RequestCounter(), known), asked
    finally:
        server.shutdown()
        server.server_close()


def test_pages_are_followed_to_the_last() -> None:
    first = listing("a%2Bb", more="<IsTruncated>true</IsTruncated><NextContinuationToken>t+/=</NextContinuationToken>")
    last = listing("c+d", "e%20f", "%C3%A4", root="ListBucketResult")
    with answering((200, {}, first), (200, {}, last)) as (store, asked):
        found = list(store.list("pre fix/"))
    assert [info.key for info in found] == ["a+b", "c d", "e f", "ä"]
    assert found[0].etag == "abc"
    assert found[0].size_bytes == 7
    assert found[0].modified_at == datetime(2026, 5, 20, 19, 56, 28, tzinfo=UTC)
    queries = [parse_qs(urlsplit(path).query) for path in asked]
    assert [query.get("continuation-token") for query in queries] == [None, ["t+/="]]
    assert all(query["prefix"] == ["pre fix/"] for query in queries)


@pytest.mark.parametrize(
    ("date", "now"),
    [
        ("Wed, 20 May 2026 19:56:28 GMT", datetime(2026, 5, 20, 19, 56, 28, tzinfo=UTC)),
        ("Wed, 20 May 2026 21:56:28 +0200", datetime(2026, 5, 20, 19, 56, 28, tzinfo=UTC)),
        ("Wed, 20 May 2026 19:56:28 -0000", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_a_page_and_the_server_s_clock(date: str | None, now: datetime | None) -> None:
    headers = {"Date": date} if date else {}
    with answering((200, headers, listing("a"))) as (store, asked):
        page = store.list_page("p/", start_after="p/x y")
    assert page.now == now
    assert parse_qs(urlsplit(asked[0]).query)["start-after"] == ["p/x y"]


NOT_LISTINGS = {
    "a login page": b"<html><body>please log in</body></html>",
    "no XML": b"hello",
    "nothing": b"",
    "cut and without a token": listing("a", more="<IsTruncated>true</IsTruncated>"),
    "an object without a size": listing("a").replace(b"<Size>7</Size>", b""),
    "a size that is none": listing("a").replace(b"<Size>7", b"<Size>x"),
    "an error under 200": b"<Error><Code>InternalError</Code><Message>m</Message></Error>",
    "half": listing("a")[:-9],
}


@pytest.mark.parametrize("name", NOT_LISTINGS)
def test_what_is_no_whole_listing_is_never_taken_for_one(name: str) -> None:
    with answering((200, {}, NOT_LISTINGS[name])) as (store, _), pytest.raises(StorageError) as raised:
        list(store.list("p/"))
    # What is no S3 server is none the next time either.
    never = name in ("a login page", "no XML", "nothing")
    assert isinstance(raised.value, TransientError) is not never


def test_a_token_that_comes_again_does_not_go_round_for_ever() -> None:
    page = listing("a", more="<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>")
    with answering((200, {}, page), (200, {}, page)) as (store, asked), pytest.raises(TransientError):
        list(store.list("p/"))
    assert len(asked) == 2


@pytest.mark.parametrize("verb", ["list", "read"])
def test_a_reply_that_was_cut_is_no_reply(verb: str) -> None:
    body = listing("a")
    with answering((200, {"Content-Length": str(len(body) + 5)}, body)) as (store, _), pytest.raises(TransientError):
        list(store.list("p/")) if verb == "list" else store.read("k")


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_said_and_not_followed(status: int) -> None:
    with (
        answering((status, {"Location": "http://127.0.0.1:1/"}, b"")) as (store, asked),
        pytest.raises(StorageError, match="somewhere else"),
    ):
        list(store.list("p/"))
    assert len(asked) == 1


def test_what_the_server_asks_for_is_kept() -> None:
    slow = b"<Error><Code>SlowDown</Code><Message>less</Message></Error>"
    with answering((503, {"Retry-After": "7"}, slow)) as (store, _), pytest.raises(TransientError) as error:
        store.read("k")
    assert error.value.retry_after_s == 7
    assert "SlowDown less" in error.value.message


def test_a_refusal_names_the_role() -> None:
    refused = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    with answering((403, {}, refused)) as (store, _), pytest.raises(CredentialsError, match=r"raw_ro \(AccessDenied"):
        list(store.list("p/"))


COMPLETED = b"""\n  \n<?xml version='1.0'?><CompleteMultipartUploadResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<ETag>&quot;abc-1&quot;</ETag></CompleteMultipartUploadResult>"""


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<Error><Code>InternalError</Code><Message>We encountered</Message></Error>", TransientError),
        (b"   <Error><Code>SlowDown</Code></Error>", TransientError),
        (b"<Error></Error>", TransientError),
        (COMPLETED[:-10], TransientError),
        (b"<Error><Code>NoSuchUpload</Code></Error>", NoSuchUploadError),
        (b"<Error><Code>PreconditionFailed</Code></Error>", PreconditionFailedError),
        (b"<Error><Code>InvalidPart</Code><Message>one is gone</Message></Error>", StorageError),
        (b"<Error><Code>AccessDenied</Code></Error>", CredentialsError),
        (b"<html></html>", StorageError),
        (b"", StorageError),
    ],
)
def test_a_complete_that_was_begun_as_a_success(content: bytes, kind: type[Exception]) -> None:
    with answering((200, {}, content), checks=True) as (store, _), pytest.raises(kind) as raised:
        store.complete_upload("k", "id", [Part(1, 1, "abc")])
    assert type(raised.value) is kind


def test_a_complete_that_took_its_time() -> None:
    with answering((200, {}, COMPLETED), checks=True) as (store, _):
        assert store.complete_upload("k", "id", [Part(1, 1, "abc")]) == "abc-1"


@pytest.mark.parametrize(
    ("status", "headers", "content", "words"),
    [
        (
            301,
            {},
            b"<Error><Code>PermanentRedirect</Code><Region>eu-west-1</Region></Error>",
            "is in the region eu-west-1",
        ),
        (307, {"x-amz-bucket-region": "eu-west-1"}, b"", "is in the region eu-west-1"),
        (400, {"x-amz-bucket-region": "eu-west-1"}, b"", "is in the region eu-west-1"),
        (
            400,
            {},
            b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
            "is in the region eu-west-1",
        ),
        (
            400,
            {},
            b"<Error><Code>InvalidRegionName</Code><Message>wnam, auto</Message></Error>",
            "does not take the region",
        ),
        (301, {"x-amz-bucket-region": "auto"}, b"", "somewhere else"),
    ],
)
def test_another_region(status: int, headers: dict[str, str], content: bytes, words: str) -> None:
    with answering((status, headers, content)) as (store, asked), pytest.raises(StorageError, match=words) as raised:
        list(store.list("p/"))
    assert type(raised.value) is StorageError and len(asked) == 1
    assert "somewhere" in words or "region" in (raised.value.hint or "")


def test_a_listing_of_parts_goes_on_by_its_markers() -> None:
    def page(number: int, more: str) -> Reply:
        part = f"<Part><PartNumber>{number}</PartNumber><Size>5</Size><ETag>&quot;e{number}&quot;</ETag></Part>"
        return 200, {}, f"<ListPartsResult>{more}{part}</ListPartsResult>".encode()

    first = page(1, "<IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>")
    last = page(2, "<IsTruncated>false</IsTruncated>")
    with answering(first, last) as (store, asked):
        assert store.list_parts("k", "id") == [Part(1, 5, "e1"), Part(2, 5, "e2")]
    assert [parse_qs(urlsplit(path).query).get("part-number-marker") for path in asked] == [None, ["1"]]
    with answering(first, first) as (store, _), pytest.raises(TransientError):
        store.list_parts("k", "id")


def test_a_listing_of_uploads_goes_on_by_its_markers() -> None:
    def page(key: str, more: str) -> Reply:
        upload = (
            f"<Upload><Key>{key}</Key><UploadId>i</UploadId><Initiated>2026-05-20T19:56:28.000Z</Initiated></Upload>"
        )
        return 200, {}, f"<ListMultipartUploadsResult>{more}{upload}</ListMultipartUploadsResult>".encode()

    more = "<IsTruncated>true</IsTruncated><NextKeyMarker>a+b</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>"
    with answering(page("a+b", more), page("c", "<IsTruncated>false</IsTruncated>")) as (store, asked):
        assert [upload.key for upload in store.list_uploads("p/")] == ["a+b", "c"]
    queries = [parse_qs(urlsplit(path).query) for path in asked]
    assert (queries[1]["key-marker"], queries[1]["upload-id-marker"], queries[1]["prefix"]) == (["a+b"], ["i"], ["p/"])
    for broken in ("", "<IsTruncated>true</IsTruncated>"):
        with answering(page("a", broken)) as (store, _), pytest.raises(StorageError):
            list(store.list_uploads("p/"))


def test_metadata_is_found_however_its_name_is_written() -> None:
    headers = {"X-Amz-Meta-Sha256": "ff" * 32, "ETag": '"e"', "Last-Modified": "Wed, 20 May 2026 19:56:28 GMT"}
    with answering((200, headers, b"data")) as (store, asked):
        data, info = store.read("a b/ü+.txt")
    assert (data, info.size_bytes, info.etag, info.sha256) == (b"data", 4, "e", "ff" * 32)
    assert info.modified_at == datetime(2026, 5, 20, 19, 56, 28, tzinfo=UTC)
    assert asked == ["/bucket/a%20b/%C3%BC%2B.txt"]


CHECKSUM = base64.b64encode(hashlib.sha256(b"data").digest()).decode()
MULTI = '"0123456789abcdef0123456789abcdef-2"'


@pytest.mark.parametrize(
    ("headers", "checks", "counts"),
    [
        ({}, True, True),
        ({"x-amz-checksum-type": "FULL_OBJECT"}, True, True),
        ({"x-amz-checksum-type": "FULL_OBJECT", "ETag": MULTI}, True, True),
        ({"ETag": MULTI}, True, False),
        ({"x-amz-checksum-type": "COMPOSITE"}, True, False),
        ({"x-amz-checksum-type": "COMPOSITE", "ETag": MULTI}, True, False),
        ({"x-amz-checksum-sha256": f"{CHECKSUM}-2"}, True, False),
        ({"x-amz-checksum-sha256": "yes"}, True, False),
        ({}, False, False),
        ({}, None, False),
    ],
)
def test_a_checksum_of_the_whole_from_a_server_that_checks(
    headers: dict[str, str], checks: bool | None, counts: bool
) -> None:
    told = {"ETag": '"e"', "Last-Modified": "Wed, 20 May 2026 19:56:28 GMT", "x-amz-checksum-sha256": CHECKSUM}
    with answering((200, told | headers, b"data"), checks=checks) as (store, asked):
        found = store.head("k").checked_sha256
    assert found == (hashlib.sha256(b"data").hexdigest() if counts else None)
    assert len(asked) == 1
