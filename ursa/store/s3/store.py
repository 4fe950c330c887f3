"""An S3 server as a store, written for Cloudflare R2 and true to any server that speaks the API."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar
from xml.etree import ElementTree as ET

from ursa.credentials import Credentials
from ursa.errors import CredentialsError
from ursa.policies import Evidence
from ursa.store.conduct import Conduct, KnownConduct
from ursa.store.counting import RequestCounter
from ursa.store.forked import begin_anew_in_child
from ursa.store.protocol import (
    SHA256_KEY,
    Body,
    NoSuchUploadError,
    NotFoundError,
    ObjectInfo,
    OpenUpload,
    Page,
    Part,
    PutResult,
    TransientError,
    ignore,
)
from ursa.store.s3 import replies
from ursa.store.s3.client import Client
from ursa.store.s3.failures import NoS3Error, ReplyError, WireError
from ursa.store.s3.pool import Pool
from ursa.store.s3.signing import UNSIGNED
from ursa.store.s3.words import S3Location, in_words

T = TypeVar("T")

_BLOCK_BYTES = 1 << 20
# Credentials younger than this are not read again when a server refuses them: they are simply wrong.
_FRESH_S = 60.0
# What a probe takes for the server's answer to a condition or a checksum; anything else is an error.
_ANSWERS = {400, 405, 409, 412, 501}
_WRONG_SHA256 = {"BadDigest", "XAmzContentSHA256Mismatch"}
_PARTIAL = 206


class S3Store:
    """A ``Store`` in one bucket of an S3 server.

    Args:
        location: endpoint, bucket and region.
        credentials: returns them; called with True to read them again. Not called before the first request.
        counter: counts every request that goes out, retries included.
        conduct: what is known of the server, which is asked before the first write. None (a tool's or a test's store):
            it is not asked, and no checksum of its counts as a proof.
        pool: connections to the endpoint, shared with its other buckets; None: connections of its own.
    """

    def __init__(
        self,
        location: S3Location,
        credentials: Callable[[bool], Credentials],
        counter: RequestCounter,
        conduct: KnownConduct | None = None,
        pool: Pool | None = None,
    ) -> None:
        self._at = location
        self._credentials = credentials
        self._counter = counter
        self._pool = pool or Pool(location.endpoint_url, location.ca_bundle)
        self._client: Client | None = None
        self._conduct = conduct
        self._lock = threading.Lock()
        begin_anew_in_child(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return self._at.uri

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        for page in self._listing(prefix, start_after=start_after):
            yield from page.objects

    def list_page(self, prefix: str, *, start_after: str = "", token: str | None = None) -> Page:
        return self._page(prefix, token, {"start-after": start_after} if start_after else {})

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        for page in self._listing(prefix, delimiter="/"):
            yield from page.prefixes

    def head(self, key: str) -> ObjectInfo:
        known = self._conduct.known() if self._conduct else None
        asks = known is not None and known.checks_sha256
        wanted = {"x-amz-checksum-mode": "ENABLED"} if asks else {}

        def action(client: Client) -> ObjectInfo:
            _, headers = client.send("HEAD", key, headers=wanted)
            info = replies.info(key, headers)
            return replace(info, checked_sha256=replies.whole_sha256(headers, info.etag)) if asks else info

        return self._attempt("head", key, action)

    def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        def action(client: Client) -> tuple[bytes, ObjectInfo]:
            data, headers = client.send("GET", key)
            return data, replies.info(key, headers, len(data))

        return self._attempt("read", key, action)

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        if end is not None and end <= start:
            return
        wanted = {} if if_match is None else {"if-match": f'"{if_match}"'}
        if start or end is not None:
            wanted["range"] = f"bytes={start}-{'' if end is None else end - 1}"
        opened = ExitStack()

        def action(client: Client) -> Iterator[bytes]:
            reply = opened.enter_context(client.reply("GET", key, headers=wanted))
            replies.etag_of(reply.headers)
            if "range" in wanted and reply.status != _PARTIAL:
                raise NoS3Error("the whole object instead of the range that was asked for")
            return reply.blocks(_BLOCK_BYTES)

        with opened:
            blocks = self._attempt("read", key, action)
            with self._words("read", key):
                yield from blocks

    def put(
        self,
        key: str,
        body: Body,
        *,
        sha256: str,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> PutResult:
        checks = self.admit()
        headers = _metadata({**(metadata or {}), SHA256_KEY: sha256}) | _condition(if_absent, if_match)
        headers["x-amz-checksum-sha256"] = _base64(sha256)
        # Within TLS the checksum's header, which is signed, speaks for the body.
        payload = UNSIGNED if self._at.endpoint_url.startswith("https") else sha256

        def action(client: Client) -> str:
            return replies.etag_of(client.send("PUT", key, headers=headers, body=body, payload=payload)[1])

        etag = self._attempt("write", key, action)
        return PutResult(etag, _evidence(etag, body, checks))

    def delete(self, key: str) -> None:
        self._attempt("delete", key, lambda client: client.send("DELETE", key))

    def create_upload(self, key: str, *, metadata: Mapping[str, str] | None = None) -> str:
        self.admit()

        def action(client: Client) -> str:
            content, _ = client.send("POST", key, {"uploads": ""}, _metadata(metadata or {}))
            return replies.said(content, "InitiateMultipartUploadResult", "UploadId")

        return self._attempt("start a multipart upload of", key, action)

    def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, *, md5: str, sent: Callable[[int], object] = ignore
    ) -> Part:
        self.admit()
        query = {"partNumber": str(number), "uploadId": upload_id}
        headers = {"content-md5": _base64(md5)}

        def action(client: Client) -> str:
            # The md5, which is signed, speaks for the body.
            return replies.etag_of(client.send("PUT", key, query, headers, body, payload=UNSIGNED, sent=sent)[1])

        return Part(number, len(body), self._attempt(f"write part {number} of", key, action))

    def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        return [part for page in self._marked(key, {"uploadId": upload_id}, replies.parts) for part in page]

    def list_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        # A server that has none, or that can't tell (rclone serve), says so in an error.
        with suppress(NoSuchUploadError, NotFoundError):
            for page in self._marked("", {"uploads": "", "prefix": prefix}, replies.uploads):
                yield from page

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        self.admit()
        body = _completing(parts)
        headers = _condition(if_absent, if_match) | {"content-type": "application/xml"}

        def action(client: Client) -> str:
            content, _ = client.send("POST", key, {"uploadId": upload_id}, headers, body)
            return replies.unquoted(replies.said(content, "CompleteMultipartUploadResult", "ETag"))

        return self._attempt("complete a multipart upload of", key, action)

    def abort_upload(self, key: str, upload_id: str) -> None:
        with suppress(NoSuchUploadError, NotFoundError):
            self._attempt(
                "abort a multipart upload of", key, lambda client: client.send("DELETE", key, {"uploadId": upload_id})
            )

    def conduct(self, *, fresh: bool = False) -> Conduct | None:
        """How this bucket's server treats conditions and checksums; None where this store asks nobody. ``fresh``: asked now.

        Raises:
            StorageError: it could not be asked.
        """
        return self._conduct.ask(self, fresh=fresh) if self._conduct else None

    def admit(self) -> bool:
        """Before any write. Returns whether the server is known to refuse a wrong sha256.

        Raises:
            StorageError: it ignores conditions, so that nothing may be written.
        """
        return self._conduct is not None and self._conduct.admit(self).checks_sha256

    def probe_put(
        self, key: str, body: bytes, sha256: str, *, if_absent: bool = False, if_match: str | None = None
    ) -> int:
        """For ``ursa.store.conduct``: the HTTP status of a PUT under a checksum that may be wrong."""
        headers = _condition(if_absent, if_match) | {"x-amz-checksum-sha256": _base64(sha256)}

        def action(client: Client) -> int:
            try:
                client.send("PUT", key, headers=headers, body=body)
            except ReplyError as error:
                refused = isinstance(in_words(self._at, error, "write", key), CredentialsError | TransientError)
                if error.status not in _ANSWERS or (refused and error.code not in _WRONG_SHA256):
                    raise
                return error.status
            return 200

        return self._attempt("write", key, action)

    def _listing(self, prefix: str, *, start_after: str = "", delimiter: str = "") -> Iterator[Page]:
        options = {"start-after": start_after, "delimiter": delimiter}
        token: str | None = None
        while True:
            page = self._page(prefix, token, {name: value for name, value in options.items() if value})
            yield page
            token = page.token
            if token is None:
                return

    def _page(self, prefix: str, token: str | None, options: Mapping[str, str]) -> Page:
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url", **options}
        if token is not None:
            query["continuation-token"] = token
        return self._attempt(
            "list", prefix, lambda client: replies.page(*client.send("GET", query=query), asked_by=token)
        )

    def _marked(
        self, key: str, query: Mapping[str, str], parse: Callable[..., replies.Marked[T]]
    ) -> Iterator[Sequence[T]]:
        """The pages of a listing that goes on by markers in its query."""

        def action(asked: Mapping[str, str], client: Client) -> replies.Marked[T]:
            return parse(client.send("GET", key, asked)[0], asked)

        following: Mapping[str, str] | None = {}
        while following is not None:
            query = {**query, **following}
            found, following = self._attempt("list", key or query["prefix"], partial(action, query))
            yield found

    def _attempt(self, operation: str, key: str, action: Callable[[Client], T]) -> T:
        """Run one request; where old credentials are refused, read them again once (a long run outlives a token)."""
        client = self._connected()
        try:
            with self._words(operation, key):
                return action(client)
        except CredentialsError:
            if time.monotonic() - client.made_at < _FRESH_S:
                raise
        with self._words(operation, key):
            return action(self._connected(replacing=client))

    def _connected(self, replacing: Client | None = None) -> Client:
        with self._lock:
            if self._client is None or self._client is replacing:
                secret = self._credentials(replacing is not None)
                self._client = Client(self._pool, self._at.bucket, self._at.region, secret, self._counter)
            return self._client

    @contextmanager
    def _words(self, operation: str, key: str) -> Iterator[None]:
        try:
            yield
        except WireError as error:
            raise in_words(self._at, error, operation, key) from None


def _condition(if_absent: bool, if_match: str | None) -> dict[str, str]:
    if if_absent:
        return {"if-none-match": "*"}
    return {} if if_match is None else {"if-match": f'"{if_match}"'}


def _metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    return {f"x-amz-meta-{name.lower()}": value for name, value in metadata.items()}


def _completing(parts: Sequence[Part]) -> bytes:
    root = ET.Element("CompleteMultipartUpload")
    for part in parts:
        item = ET.SubElement(root, "Part")
        ET.SubElement(item, "PartNumber").text = str(part.number)
        ET.SubElement(item, "ETag").text = f'"{part.etag}"'
    return ET.tostring(root)


def _base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def _evidence(etag: str, body: Body, checked: bool) -> Evidence:
    if checked:
        return Evidence.SHA256
    return Evidence.ETAG if etag == hashlib.md5(body, usedforsecurity=False).hexdigest() else Evidence.SIZE
