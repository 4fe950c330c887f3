"""Signature Version 4, as S3 wants it: an HMAC over a request's line and headers."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import quote

from ursa.credentials import Credentials

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
"""In place of a body's sha256: of a body that a signed checksum header speaks for."""

_NOT_SIGNED = {"accept-encoding", "content-length", "user-agent"}  # proxies may change them
_ALGORITHM = "AWS4-HMAC-SHA256"


def quoted_path(path: str) -> str:
    """A path as it is signed and sent. S3 escapes once, and takes dots and double slashes as they are."""
    return quote(path, safe="/~")


def quoted_query(query: Mapping[str, str]) -> str:
    """A query as it is signed and sent: in order, with %20 for a space."""
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(query.items()))


class Signer:
    """Signs requests with one key in one region. Thread-safe."""

    def __init__(self, secret: Credentials, region: str) -> None:
        self._secret = secret
        self._region = region
        self._of_day = ("", b"")

    def sign(self, method: str, path: str, query: str, headers: dict[str, str], payload: str) -> None:
        """Add the signature to ``headers``, whose names are in lower case and include ``host``.

        Args:
            path, query: quoted.
            payload: the body's sha256 in hex, or ``UNSIGNED``.
        """
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers["x-amz-date"] = now
        headers["x-amz-content-sha256"] = payload
        if self._secret.session_token:
            headers["x-amz-security-token"] = self._secret.session_token
        names = sorted(headers.keys() - _NOT_SIGNED)
        lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
        request = f"{method}\n{path}\n{query}\n{lines}\n{';'.join(names)}\n{payload}"
        scope = f"{now[:8]}/{self._region}/s3/aws4_request"
        text = f"{_ALGORITHM}\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._key(now[:8]), text.encode(), "sha256").hex()
        credential = f"{self._secret.access_key_id}/{scope}"
        headers["authorization"] = (
            f"{_ALGORITHM} Credential={credential}, SignedHeaders={';'.join(names)}, Signature={signature}"
        )

    def _key(self, day: str) -> bytes:
        known, key = self._of_day
        if known != day:
            key = f"AWS4{self._secret.secret_access_key}".encode()
            for step in (day, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, step.encode(), "sha256")
            self._of_day = (day, key)
        return key
