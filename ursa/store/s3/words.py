"""What a failed request means: one classification for every operation, and its words.

``TransientError`` is what the same request may survive the next time (``ursa.store.retry`` sends it again).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ursa.errors import CredentialsError, StorageError, UrsaError
from ursa.store.protocol import NoSuchUploadError, NotFoundError, PreconditionFailedError, TransientError
from ursa.store.s3.failures import NoS3Error, ProxyError, ReplyError, TlsError, WireError
from ursa.store.s3.trust import HELP

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
}
_TRANSIENT_CODES = {
    # Bytes that changed or went missing on the way: those that are sent again need not.
    "BadDigest",
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    # A server that is busy.
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "TooManyRequests",
}
# 520 to 527 and 530: Cloudflare's own, where it has no good answer from what is behind it (R2).
_TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504, *range(520, 528), 530}

# A HEAD's 400 has no body: where it tells the bucket's region, that is why.
_OF_REGION = {"", "AuthorizationHeaderMalformed"}


@dataclass(frozen=True)
class S3Location:
    """Where a bucket is. ``role`` names the credentials in messages. ``ca_bundle``: of the profile, where it has one."""

    endpoint_url: str
    bucket: str
    region: str
    role: str
    ca_bundle: Path | None = None

    @property
    def uri(self) -> str:
        """``s3://bucket``."""
        return f"s3://{self.bucket}"


def in_words(at: S3Location, error: WireError, operation: str, key: str) -> UrsaError:
    """The error to raise for a failed request. ``operation``: a verb, as in "can't write s3://bucket/key"."""
    if isinstance(error, ReplyError):
        return _answered(at, error, operation, key)
    if isinstance(error, NoS3Error):
        return _no_server(at, str(error), operation, key)
    fields = {"key": key, "operation": operation}
    if isinstance(error, TlsError):
        return StorageError(
            f"can't {operation} {at.uri}/{key}: no TLS connection to {at.endpoint_url}: {error}",
            hint=f"A proxy or a firewall that opens TLS? Set ca_bundle in the profile to its certificates: {HELP}."
            " Check this machine's clock, too."
            if error.certificate
            else "Check endpoint_url (`ursa config show`): is it https there, or http?",
            **fields,
        )
    if isinstance(error, ProxyError):
        words = f"can't {operation} {at.uri}/{key}: {error}"
        hint = f"Check the variable, or name the server in NO_PROXY: {HELP}"
        return (
            TransientError(words, hint=hint, unreachable=True, **fields)
            if error.passing
            else StorageError(words, hint=hint, **fields)
        )
    return TransientError(
        f"can't {operation} {at.uri}/{key}: no answer from {at.endpoint_url} ({error})",
        hint="Check the network and endpoint_url (`ursa config show`), then run the same command again:"
        " it goes on where it stopped.",
        unreachable=True,
        **fields,
    )


def _answered(at: S3Location, error: ReplyError, operation: str, key: str) -> UrsaError:
    where, code, status = f"{at.uri}/{key}", error.code, error.status
    told = f"{code or status} {error.message}".rstrip()
    fields: dict[str, Any] = {"key": key, "operation": operation}
    if status == 412 or code == "PreconditionFailed":
        return PreconditionFailedError(f"can't {operation} {where}: another run wrote it first", **fields)
    if code == "NoSuchUpload":
        return NoSuchUploadError(f"can't {operation} {where}: the multipart upload is gone", **fields)
    if code == "NoSuchBucket":
        return StorageError(
            f"there is no bucket {at.bucket} at {at.endpoint_url}",
            hint="Check raw.bucket and assets.bucket with `ursa config show`, or create the bucket.",
            **fields,
        )
    if code == "RequestTimeTooSkewed":
        return StorageError(
            f"can't {operation} {where}: this machine's clock is too far from the server's",
            hint="Set the clock (turn on network time), then run the same command again.",
            **fields,
        )
    if "QuotaExceeded" in code:
        return StorageError(
            f"can't {operation} {where}: a quota of the account or the bucket is used up ({told})",
            hint="Free some space there or have the quota raised, then run the same command again: it goes on where it"
            " stopped.",
            **fields,
        )
    if code in _TRANSIENT_CODES or status in _TRANSIENT_STATUS or (status == 200 and not code):
        return TransientError(
            f"can't {operation} {where}: the server answered {told}",
            hint="The server is ailing or busy; run the same command again later, it goes on where it stopped.",
            retry_after_s=_seconds(error.headers.get("retry-after")),
            **fields,
        )
    if 300 <= status < 400 or code == "InvalidRegionName" or (status == 400 and error.region and code in _OF_REGION):
        return _elsewhere(at, error)
    if code in _AUTH_CODES or status in (401, 403):
        return _refused(at, error, f"can't {operation} {where}")
    if status == 404 and (code == "NoSuchKey" or operation in _BODILESS):
        return NotFoundError(f"there is no object {where}", **fields)
    if status == 404:
        return _no_server(at, f"404 {code} {error.message}".rstrip(), operation, key)
    return StorageError(f"can't {operation} {where}: the server answered {told}", **fields)


def _elsewhere(at: S3Location, error: ReplyError) -> StorageError:
    if error.region and error.region != at.region:
        return StorageError(
            f"the bucket {at.bucket} is in the region {error.region}, and the config says {at.region}",
            hint=f"Set region: {error.region} in the profile (`ursa config show`), and the endpoint_url of that region"
            " where the server has one for each.",
        )
    if error.code == "InvalidRegionName":
        return StorageError(
            f"{at.endpoint_url} does not take the region {at.region} ({error.code} {error.message})".rstrip(),
            hint="Correct region in the profile (`ursa config show`): auto on R2.",
        )
    return StorageError(
        f"{at.endpoint_url} sends every request somewhere else",
        hint="Check endpoint_url (`ursa config show`): https, not http? And whether this network asks for a login.",
    )


def _refused(at: S3Location, error: ReplyError, what: str) -> CredentialsError:
    expired = error.code in ("ExpiredToken", "TokenRefreshRequired")
    why = "they have expired" if expired else f"{error.code or error.status} {error.message}".rstrip()
    return CredentialsError(
        f"{what}: the server refuses the credentials of role {at.role} ({why})",
        hint=f"Check credentials.roles.{at.role} in the config (`ursa config show`) and what that key may do.",
        role=at.role,
    )


def _no_server(at: S3Location, text: str, operation: str, key: str) -> StorageError:
    return StorageError(
        f"can't {operation} {at.uri}/{key}: {at.endpoint_url} answers, but not as an S3 server does ({text})",
        hint="Check endpoint_url (`ursa config show`), and whether this network asks for a login or a proxy stands between.",
        key=key,
        operation=operation,
    )


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None
