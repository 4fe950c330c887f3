"""Signed requests to one bucket, each counted as it goes out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from ursa import __version__
from ursa.credentials import Credentials
from ursa.store.counting import RequestCounter
from ursa.store.protocol import Body, ignore
from ursa.store.s3.pool import Pool, Reply
from ursa.store.s3.replies import refused
from ursa.store.s3.signing import EMPTY_SHA256, Signer, quoted_path, quoted_query

_AGENT = f"ursa/{__version__}"
_WITH_BODY = {"PUT", "POST"}


class Client:
    """Requests to one bucket with one key. Thread-safe."""

    def __init__(self, pool: Pool, bucket: str, region: str, secret: Credentials, counter: RequestCounter) -> None:
        self._pool = pool
        self._bucket = bucket
        self._base = urlsplit(pool.url).path.rstrip("/")
        self._signer = Signer(secret, region)
        self._counter = counter
        self.made_at = time.monotonic()

    @contextmanager
    def reply(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        *,
        payload: str | None = None,
        sent: Callable[[int], object] = ignore,
    ) -> Iterator[Reply]:
        """A reply of success, its body still to be read, for the time of a ``with``.

        Args:
            key: "" for a request about the bucket. ``query``, ``headers``: unquoted; headers' names in lower case.
            payload: what stands for the body in the signature; None: its sha256.
            sent: told how many bytes of the body have gone out.

        Raises:
            WireError.
        """
        path = quoted_path(f"{self._base}/{self._bucket}/{key}" if key else f"{self._base}/{self._bucket}")
        asked = quoted_query(query or {})
        signed = {"host": self._pool.route.netloc, **(headers or {})}
        signed |= {"user-agent": _AGENT, "accept-encoding": "identity"}
        if method in _WITH_BODY:
            signed["content-length"] = str(len(body))
        if payload is None:
            payload = hashlib.sha256(body).hexdigest() if len(body) else EMPTY_SHA256
        self._signer.sign(method, path, asked, signed, payload)
        reads = method in ("GET", "HEAD") and bool(key) and "uploadId" not in (query or {})
        counted = self._counter.class_b if reads else self._counter.class_a
        target = f"{path}?{asked}" if asked else path
        again = method != "POST" and not (method == "PUT" and {"if-match", "if-none-match"} & signed.keys())
        with self._pool.request(method, target, signed, body, sent=sent, counted=counted, repeatable=again) as reply:
            if not 200 <= reply.status < 300:
                raise refused(reply.status, reply.read(), reply.headers)
            yield reply

    def send(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        *,
        payload: str | None = None,
        sent: Callable[[int], object] = ignore,
    ) -> tuple[bytes, Mapping[str, str]]:
        """The body and the headers of a reply of success. As ``reply``."""
        with self.reply(method, key, query, headers, body, payload=payload, sent=sent) as reply:
            return reply.read(), reply.headers
