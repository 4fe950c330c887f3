"""An S3 server as a store, written for Cloudflare R2 and true to any server that speaks the API.

Single-request writes go through obstore (Rust: a third of the CPU of boto3 a request, see ``docs/performance.md``),
everything with state through boto3. Neither is visible above this module.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import obstore
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, SSLError
from botocore.parsers import ResponseParserError
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PreconditionError,
)
from obstore.store import S3Store as RustStore

from ursa.credentials import Credentials
from ursa.errors import CredentialsError, StorageError, UrsaError
from ursa.names import parse_sha256
from ursa.policies import Evidence
from ursa.store.conduct import Conduct, KnownConduct
from ursa.store.counting import RequestCounter
from ursa.store.protocol import (
    SHA256_KEY,
    Body,
    NoSuchUploadError,
    NotFoundError,
    ObjectInfo,
    OpenUpload,
    Page,
    Part,
    PreconditionFailedError,
    PutResult,
    TransientError,
    ignore,
)
from ursa.store.wire import BadReplyError, NoS3Error, ReplyError, Wire, unquoted

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Credential

T = TypeVar("T")

_BLOCK_BYTES = 1 << 20
_CONNECT_TIMEOUT_S = 20
# Twice, with the wait between: a server that takes connections and says nothing ends a command within two minutes.
_READ_TIMEOUT_S = 40
# obstore has a timeout for the whole request only, so it gets what even a slow link sends in that time.
_RUST_BYTES = 1 << 20
_SEND_BYTES = 1 << 18
_CREATING = threading.Lock()  # botocore's session is not thread-safe while it makes a client
# Credentials younger than this are not read again when a server refuses them: they are simply wrong.
_FRESH_S = 60.0
_CLASS_B = {"GetObject", "HeadObject"}
# What a probe takes for the server's answer to a condition or a checksum; anything else is an error.
_ANSWERS = {400, 405, 409, 412, 501}
# A HEAD's 404 has no body to say why; what is deleted may be gone.
_BODILESS = {"head", "delete"}

_AUTH_CODES = {
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "Unauthorized",
    "401",
    "403",
}
_TRANSIENT_CODES = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "TooManyRequests",
    "429",
    "500",
    "502",
    "503",
    "504",
}


@dataclass(frozen=True)
class S3Location:
    """Where a bucket is. ``role`` names the credentials in messages."""

    endpoint_url: str
    bucket: str
    region: str
    role: str


@dataclass(frozen=True)
class _Clients:
    """Ways to one bucket with the same keys. ``boto`` is made when it is needed: small files never do."""

    wire: Wire
    rust: RustStore
    made_at: float
    make_boto: Callable[[], S3Client]

    @cached_property
    def boto(self) -> S3Client:
        return self.make_boto()


class S3Store:
    """A ``Store`` in one bucket of an S3 server.

    Args:
        location: endpoint, bucket and region.
        credentials: returns them; called with True to read them again. Not called before the first request.
        counter: counts every request that goes out, retries included.
        conduct: what is known of the server, which is asked before the first write. None (a tool's or a test's store):
            it is not asked, and no checksum of its counts as a proof.
    """

    def __init__(
        self,
        location: S3Location,
        credentials: Callable[[bool], Credentials],
        counter: RequestCounter,
        conduct: KnownConduct | None = None,
    ) -> None:
        self._at = location
        self._credentials = credentials
        self._counter = counter
        self._clients: _Clients | None = None
        self._conduct = conduct
        self._ailing_until = 0.0
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return f"s3://{self._at.bucket}"

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for page in self._listing(prefix):
            yield from page.objects

    def list_page(self, prefix: str, *, start_after: str = "", token: str | None = None) -> Page:
        def action(clients: _Clients) -> Page:
            self._counter.class_a()
            return clients.wire.page(prefix, start_after=start_after, token=token)

        return self._attempt("list", prefix, action)

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        for page in self._listing(prefix, "/"):
            yield from page.prefixes

    def head(self, key: str) -> ObjectInfo:
        known = self._conduct.known() if self._conduct else None
        if known is None or not known.checks_sha256:
            return self._head(key, {})[0]
        info, headers = self._head(key, {"x-amz-checksum-mode": "ENABLED"})
        return replace(info, checked_sha256=_whole_sha256(headers, info.etag))

    def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        def action(clients: _Clients) -> tuple[bytes, ObjectInfo]:
            self._counter.class_b()
            return clients.wire.read(key)

        return self._attempt("read", key, action)

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        if end is not None and end <= start:
            return
        options: dict[str, Any] = {"Bucket": self._at.bucket, "Key": key}
        if start or end is not None:
            options["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if if_match is not None:
            options["IfMatch"] = f'"{if_match}"'
        reply = self._call("read", key, lambda s3: s3.get_object(**options))
        body = reply["Body"]
        try:
            with self._words("read", key):
                while block := body.read(_BLOCK_BYTES):
                    yield block
        finally:
            body.close()

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
        metadata = dict(metadata or {}) | {SHA256_KEY: sha256}
        if if_match is None and len(body) <= _RUST_BYTES and time.monotonic() >= self._ailing_until:
            with contextlib.suppress(InvalidPathError):
                return PutResult(*self._rust_put(key, body, if_absent, metadata, checks))
        condition = _condition(if_absent, if_match)
        reply = self._call(
            "write",
            key,
            lambda s3: _with_etag(
                s3.put_object(
                    Bucket=self._at.bucket,
                    Key=key,
                    Body=_sent_body(body, ignore),
                    Metadata=metadata,
                    ChecksumSHA256=_base64(sha256),
                    **condition,
                )
            ),
        )
        etag = unquoted(reply["ETag"])
        return PutResult(etag, _evidence(etag, body, checks))

    def delete(self, key: str) -> None:
        self._call("delete", key, lambda s3: s3.delete_object(Bucket=self._at.bucket, Key=key))

    def create_upload(self, key: str, *, metadata: Mapping[str, str] | None = None) -> str:
        self.admit()
        reply = self._call(
            "start a multipart upload of",
            key,
            lambda s3: _said(
                s3.create_multipart_upload(Bucket=self._at.bucket, Key=key, Metadata=dict(metadata or {})), "UploadId"
            ),
        )
        return str(reply)

    def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, *, md5: str, sent: Callable[[int], object] = ignore
    ) -> Part:
        self.admit()
        reply = self._call(
            f"write part {number} of",
            key,
            lambda s3: _with_etag(
                s3.upload_part(
                    Bucket=self._at.bucket,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=_sent_body(body, sent),
                    ContentMD5=base64.b64encode(bytes.fromhex(md5)).decode(),
                )
            ),
        )
        return Part(number, len(body), unquoted(reply["ETag"]))

    def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        return [
            Part(item["PartNumber"], item["Size"], unquoted(item["ETag"]))
            for page in self._pages("list_parts", Key=key, UploadId=upload_id)
            for item in page.get("Parts", ())
        ]

    def list_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        # A server that has none, or that can't tell (rclone serve), says so in an error.
        with contextlib.suppress(NoSuchUploadError, NotFoundError):
            for page in self._pages("list_multipart_uploads", Prefix=prefix):
                for item in page.get("Uploads", ()):
                    yield OpenUpload(item["Key"], item["UploadId"], item.get("Initiated"))

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
        condition = _condition(if_absent, if_match)
        reply = self._call(
            "complete a multipart upload of",
            key,
            lambda s3: _with_etag(
                s3.complete_multipart_upload(
                    Bucket=self._at.bucket,
                    Key=key,
                    UploadId=upload_id,
                    MultipartUpload={
                        "Parts": [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
                    },
                    **condition,
                )
            ),
        )
        return unquoted(reply["ETag"])

    def abort_upload(self, key: str, upload_id: str) -> None:
        with contextlib.suppress(NoSuchUploadError, NotFoundError):
            self._call(
                "abort a multipart upload of",
                key,
                lambda s3: s3.abort_multipart_upload(Bucket=self._at.bucket, Key=key, UploadId=upload_id),
            )

    def conduct(self, *, fresh: bool = False) -> Conduct | None:
        """How this bucket's server treats conditions and checksums; None where this store asks nobody. ``fresh``: asked now.

        Raises:
            StorageError: it could not be asked; a ``TransientError`` is worth another call.
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

        def action(s3: S3Client) -> int:
            checksum, condition = _base64(sha256), _condition(if_absent, if_match)
            try:
                s3.put_object(Bucket=self._at.bucket, Key=key, Body=body, ChecksumSHA256=checksum, **condition)
            except ClientError as error:
                status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
                known = self._from_client_error(error, "write", key)
                if status not in _ANSWERS or isinstance(known, CredentialsError | TransientError):
                    raise
                return status
            return 200

        return self._call("write", key, action)

    def _rust_put(
        self, key: str, body: Body, if_absent: bool, metadata: dict[str, str], checks: bool
    ) -> tuple[str, Evidence]:
        mode: Any = "create" if if_absent else "overwrite"

        def action(clients: _Clients) -> str:
            self._counter.class_a()
            reply = obstore.put(clients.rust, key, body, mode=mode, use_multipart=False, attributes=metadata)
            return unquoted(_said(reply, "e_tag"))

        try:
            etag = self._attempt("write", key, action)
        except TransientError:
            # obstore does not tell Retry-After: as long as the server ails, requests go the way that does.
            self._ailing_until = time.monotonic() + _FRESH_S
            raise
        # Every such request carries x-amz-checksum-sha256.
        return etag, _evidence(etag, body, checks)

    def _head(self, key: str, headers: Mapping[str, str]) -> tuple[ObjectInfo, Mapping[str, str]]:
        def action(clients: _Clients) -> tuple[ObjectInfo, Mapping[str, str]]:
            self._counter.class_b()
            return clients.wire.head(key, headers)

        return self._attempt("head", key, action)

    def _listing(self, prefix: str, delimiter: str = "") -> Iterator[Page]:
        def action(clients: _Clients) -> Page:
            self._counter.class_a()
            return clients.wire.page(prefix, delimiter=delimiter, token=token)

        token: str | None = None
        while True:
            page = self._attempt("list", prefix, action)
            yield page
            token = page.token
            if token is None:
                return

    def _pages(self, operation: str, **options: Any) -> Iterator[Any]:
        key = options.get("Key") or options.get("Prefix", "")

        pages: Iterator[Any] = iter(())

        def start(s3: S3Client) -> Any:
            nonlocal pages
            pages = iter(s3.get_paginator(operation).paginate(Bucket=self._at.bucket, **options))  # type: ignore[call-overload]
            page = next(pages, None)
            # What every listing says, and a page of HTML does not.
            if page is not None:
                _said(page, "IsTruncated")
            return page

        page = self._call("list", key, start)
        while page is not None:
            yield page
            page = self._following(pages, key)

    def _following(self, pages: Iterator[Any], key: str) -> Any:
        """The next page. A paginator that raised has ended: its listing is begun anew, never taken for complete."""
        clients = self._connected()
        try:
            with self._words("list", key):
                return next(pages, None)
        except CredentialsError as error:
            if time.monotonic() - clients.made_at < _FRESH_S:
                raise
            self._connected(replacing=clients)
            raise TransientError(error.message, hint=error.hint, key=key, operation="list") from None

    def _call(self, operation: str, key: str, action: Callable[[S3Client], T]) -> T:
        return self._attempt(operation, key, lambda clients: action(clients.boto))

    def _attempt(self, operation: str, key: str, action: Callable[[_Clients], T]) -> T:
        """Run one request; where old credentials are refused, read them again once (a long run outlives a token)."""
        clients = self._connected()
        try:
            with self._words(operation, key):
                return action(clients)
        except CredentialsError:
            if time.monotonic() - clients.made_at < _FRESH_S:
                raise
        with self._words(operation, key):
            return action(self._connected(replacing=clients))

    def _connected(self, replacing: _Clients | None = None) -> _Clients:
        with self._lock:
            if self._clients is None or self._clients is replacing:
                secret = self._credentials(replacing is not None)
                wire = Wire(
                    self._at.endpoint_url,
                    self._at.bucket,
                    self._at.region,
                    secret,
                    connect_s=_CONNECT_TIMEOUT_S,
                    read_s=_READ_TIMEOUT_S,
                )
                boto = partial(self._boto_client, secret)
                self._clients = _Clients(wire, self._rust_client(secret), time.monotonic(), boto)
            return self._clients

    def _boto_client(self, secret: Credentials) -> S3Client:
        from botocore.config import Config

        from ursa.store.boto import session

        with _CREATING:
            client: Any = session().create_client(
                "s3",
                endpoint_url=self._at.endpoint_url,
                region_name=self._at.region,
                aws_access_key_id=secret.access_key_id,
                aws_secret_access_key=secret.secret_access_key,
                aws_session_token=secret.session_token,
                config=Config(
                    connect_timeout=_CONNECT_TIMEOUT_S,
                    read_timeout=_READ_TIMEOUT_S,
                    retries={"total_max_attempts": 1},
                    max_pool_connections=128,
                    tcp_keepalive=True,
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    # Parts carry Content-MD5 and their ETags are compared: signing the payload as well proves nothing new.
                    s3={"addressing_style": "path", "payload_signing_enabled": False},
                ),
            )
        client.meta.events.register("before-send.s3", self._count)
        # botocore's answer to a redirect is to ask for the bucket's region, which is redirected as well, and so on.
        client.meta.events.register("before-call.s3.HeadBucket", self._redirected)
        return client  # type: ignore[no-any-return]

    def _rust_client(self, secret: Credentials) -> RustStore:
        return RustStore(
            self._at.bucket,
            # Both names: the environment's AWS_ENDPOINT_URL_S3 would win over `endpoint` alone.
            endpoint=self._at.endpoint_url,
            aws_endpoint_url_s3=self._at.endpoint_url,
            region=self._at.region,
            # A provider rather than keys: keys alone would let AWS_SESSION_TOKEN of the environment in.
            credential_provider=lambda: _rust_credential(secret),
            virtual_hosted_style_request=False,
            checksum_algorithm="SHA256",
            conditional_put="etag",
            skip_signature=False,
            s3_express=False,
            retry_config={"max_retries": 0},
            client_options={
                "allow_http": True,
                "connect_timeout": f"{_CONNECT_TIMEOUT_S}s",
                "timeout": f"{_READ_TIMEOUT_S}s",
            },
        )

    def _redirected(self, **_: Any) -> None:
        raise self._elsewhere()

    def _elsewhere(self) -> StorageError:
        return StorageError(
            f"{self._at.endpoint_url} sends every request somewhere else",
            hint="Check endpoint_url (`ursa config show`): https, not http? And whether this network asks for a login.",
        )

    def _count(self, event_name: str, **_: Any) -> None:
        operation = event_name.rpartition(".")[2]
        if operation in _CLASS_B:
            self._counter.class_b()
        else:
            self._counter.class_a()

    @contextlib.contextmanager
    def _words(self, operation: str, key: str) -> Iterator[None]:
        """Turn what the two clients raise into ursa's errors, with words."""
        try:
            yield
        except ClientError as error:
            raise self._from_client_error(error, operation, key) from None
        except NoS3Error as error:
            raise self._no_server(str(error), operation, key) from None
        except ResponseParserError:
            raise self._no_server("no XML", operation, key) from None
        except ReplyError as error:
            if 300 <= error.status < 400:
                raise self._elsewhere() from None
            wait = _seconds(error.retry_after)
            raise self._from_code(error.code, error.status, error.message, operation, key, wait) from None
        except BadReplyError as error:
            raise self._unreachable(str(error), operation, key) from None
        except (AlreadyExistsError, PreconditionError):
            raise self._from_code("PreconditionFailed", 412, "", operation, key) from None
        except InvalidPathError:
            raise
        except FileNotFoundError as error:
            # What obstore raises for a 404.
            raise self._from_rust(str(error), operation, key) from None
        except BaseError as error:
            raise self._from_rust(str(error), operation, key) from None
        except SSLError as error:
            raise StorageError(
                f"can't {operation} {self._at.endpoint_url}: no TLS connection ({error})",
                hint="Check endpoint_url (is it https there, or http?), its name, and this machine's clock and certificates.",
                key=key,
                operation=operation,
            ) from None
        except (HTTPClientError, BotoCoreError, OSError) as error:
            raise self._unreachable(str(error), operation, key) from None

    def _from_client_error(self, error: ClientError, operation: str, key: str) -> UrsaError:
        detail = error.response.get("Error", {})
        meta = error.response.get("ResponseMetadata", {})
        retry_after = _seconds(meta.get("HTTPHeaders", {}).get("retry-after"))
        return self._from_code(
            detail.get("Code", ""),
            meta.get("HTTPStatusCode", 0),
            detail.get("Message", ""),
            operation,
            key,
            retry_after,
        )

    def _from_rust(self, text: str, operation: str, key: str) -> UrsaError:
        status = re.search(r"status code: (\d{3})", text)
        code = re.search(r"<Code>([^<]{1,80})</Code>", text)
        message = re.search(r"<Message>([^<]{1,300})</Message>", text)
        if "Header missing from response" in text:
            return self._no_server(_last_cause(text), operation, key)
        if status is None:
            return self._unreachable(_last_cause(text), operation, key)
        return self._from_code(
            code[1] if code else status[1], int(status[1]), message[1] if message else "", operation, key
        )

    def _from_code(
        self, code: str, status: int, message: str, operation: str, key: str, retry_after_s: float | None = None
    ) -> UrsaError:
        where = f"{self.uri}/{key}"
        fields: dict[str, Any] = {"key": key, "operation": operation}
        if status == 412 or code == "PreconditionFailed":
            return PreconditionFailedError(f"can't {operation} {where}: somebody else wrote it first", **fields)
        if code == "NoSuchUpload":
            return NoSuchUploadError(f"can't {operation} {where}: the multipart upload is gone", **fields)
        if code == "NoSuchBucket":
            return StorageError(
                f"there is no bucket {self._at.bucket} at {self._at.endpoint_url}",
                hint="Check raw.bucket and assets.bucket with `ursa config show`, or create the bucket.",
                **fields,
            )
        if code == "RequestTimeTooSkewed":
            return StorageError(
                f"can't {operation} {where}: this machine's clock is too far from the server's",
                hint="Set the clock (turn on network time), then run the same command again.",
                **fields,
            )
        if code in _TRANSIENT_CODES or status in (429, 500, 502, 503, 504):
            return TransientError(
                f"can't {operation} {where}: the server answered {code or status} {message}".rstrip(),
                hint="The server is ailing or busy; run the same command again later, it goes on where it stopped.",
                retry_after_s=retry_after_s,
                **fields,
            )
        if code in _AUTH_CODES or status in (401, 403):
            return self._refused(code, message, operation, where)
        if status == 404 and (code == "NoSuchKey" or operation in _BODILESS):
            return NotFoundError(f"there is no object {where}", **fields)
        if status == 404:
            return self._no_server(f"404 {code} {message}".rstrip(), operation, key)
        return StorageError(
            f"can't {operation} {where}: the server answered {code or status} {message}".rstrip(), **fields
        )

    def _refused(self, code: str, message: str, operation: str, where: str) -> CredentialsError:
        expired = code in ("ExpiredToken", "TokenRefreshRequired")
        return CredentialsError(
            f"can't {operation} {where}: the server refuses the credentials of role {self._at.role}"
            f" ({'they have expired' if expired else ' '.join(filter(None, (code, message)))})",
            hint=f"Check credentials.roles.{self._at.role} in the config (`ursa config show`) and what that key may do.",
            role=self._at.role,
        )

    def _no_server(self, text: str, operation: str, key: str) -> StorageError:
        return StorageError(
            f"can't {operation} {self.uri}/{key}: {self._at.endpoint_url} answers, but not as an S3 server does ({text})",
            hint="Check endpoint_url (`ursa config show`), and whether this network asks for a login or a proxy stands between.",
            key=key,
            operation=operation,
        )

    def _unreachable(self, text: str, operation: str, key: str) -> TransientError:
        return TransientError(
            f"can't {operation} {self.uri}/{key}: no answer from {self._at.endpoint_url} ({text})",
            hint="Check the network and endpoint_url (`ursa config show`), then run the same command again:"
            " it goes on where it stopped.",
            key=key,
            operation=operation,
            unreachable=True,
        )


def _said(reply: Any, name: str) -> Any:
    if reply.get(name) is None:
        raise NoS3Error(f"an answer without {name}")
    return reply[name]


def _with_etag(reply: Any) -> Any:
    _said(reply, "ETag")
    return reply


def _condition(if_absent: bool, if_match: str | None) -> dict[str, Any]:
    if if_absent:
        return {"IfNoneMatch": "*"}
    return {} if if_match is None else {"IfMatch": f'"{if_match}"'}


def _rust_credential(secret: Credentials) -> S3Credential:
    return {
        "access_key_id": secret.access_key_id,
        "secret_access_key": secret.secret_access_key,
        "token": secret.session_token,
        "expires_at": None,
    }


def _base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def _whole_sha256(headers: Mapping[str, str], etag: str) -> str | None:
    """The sha256 of a whole object that a HEAD's headers tell: none of its parts' checksums."""
    kind = headers.get("x-amz-checksum-type", "").upper()
    # A multipart object's ETag ends with the number of its parts.
    if kind != "FULL_OBJECT" and (kind or "-" in etag):
        return None
    return parse_sha256(headers.get("x-amz-checksum-sha256"))


def _evidence(etag: str, body: Body, checked: bool) -> Evidence:
    if checked:
        return Evidence.SHA256
    return Evidence.ETAG if etag == hashlib.md5(body, usedforsecurity=False).hexdigest() else Evidence.SIZE


def _sent_body(data: Body, sent: Callable[[int], object]) -> IO[bytes]:
    return cast("IO[bytes]", _SentBody(data, sent))


class _SentBody(io.RawIOBase):
    """A body that tells how far it has gone out. Hands out large blocks, whatever size is asked for: http.client asks
    for 16 KiB at a time, which would be 65,536 calls a GiB.
    """

    def __init__(self, data: Body, sent: Callable[[int], object]) -> None:
        super().__init__()
        self._view = memoryview(data)
        self._sent = sent
        self._position = 0

    def read(self, size: int = -1) -> Any:
        del size
        block = self._view[self._position : self._position + _SEND_BYTES]
        self._position += len(block)
        self._sent(self._position)
        return block

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._view)


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None


def _last_cause(text: str) -> str:
    """The innermost reason of a Rust error chain, in one line."""
    first = text.split("\n\nDebug source", 1)[0]
    return " ".join(first.split())[-200:]
