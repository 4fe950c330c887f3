"""The storage protocol: small enough to fake, and passed by one contract suite (``tests/contract``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ursa.errors import StorageError
from ursa.names import parse_sha256
from ursa.policies import Evidence

Body = bytes | bytearray | memoryview
"""What a write takes: bytes, or a view of a buffer that stays as it is until the call returns."""

SHA256_KEY = "sha256"
"""User metadata that holds an object's sha256, 64 lowercase hex digits."""


class NotFoundError(StorageError):
    """No object under this key."""


class PreconditionFailedError(StorageError):
    """If-None-Match or If-Match did not hold: somebody else wrote the key."""


class NoSuchUploadError(StorageError):
    """The multipart upload was completed, aborted or expired."""


class TransientError(StorageError):
    """Worth trying again. ``retry_after_s``: what the server asked for, seconds, or None."""

    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says about an object. ``metadata`` is None where it was not asked for (a listing).

    ``checked_sha256``: the store's own checksum of the whole object, told by a HEAD of a store that was seen to refuse a
    wrong one; None else.
    """

    key: str
    size_bytes: int
    etag: str
    modified_at: datetime | None = None
    metadata: Mapping[str, str] | None = None
    checked_sha256: str | None = None

    @property
    def sha256(self) -> str | None:
        """The sha256 that the uploader claims, where metadata was asked for and states one. It proves nothing."""
        return parse_sha256((self.metadata or {}).get(SHA256_KEY))


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing. ``token`` asks for the next one; None: this is the last. ``now``: the store's clock as it told
    it with this page, for whatever is judged by age; None where it told none.
    """

    objects: Sequence[ObjectInfo] = ()
    prefixes: Sequence[str] = ()
    token: str | None = None
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class PutResult:
    """An object as written: its ETag, and how good the proof is that it holds our bytes."""

    etag: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a multipart upload. ``number`` counts from 1; ``etag`` is unquoted."""

    number: int
    size_bytes: int
    etag: str


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A multipart upload that nobody has completed or aborted."""

    key: str
    upload_id: str
    initiated_at: datetime | None


def ignore(_count: int) -> None:
    """Progress that nobody follows."""


class Store(Protocol):
    """Objects under '/'-separated keys. ETags are unquoted. Every method may raise ``StorageError``.

    ``if_absent`` and ``if_match`` make a write conditional; where the condition does not hold it raises
    ``PreconditionFailedError`` and changes nothing.
    """

    @property
    def uri(self) -> str:
        """``s3://bucket`` or ``file:///directory``."""

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, in any order, a page of 1,000 a request; those after
        ``start_after`` as ``list_page`` has it.
        """

    def list_page(self, prefix: str, *, start_after: str = "", token: str | None = None) -> Page:
        """A page of up to 1,000 keys, in the order of their bytes: those after ``start_after``, or what follows the page
        that told ``token`` (then ``start_after`` counts no more). One request.

        ``start_after`` is a key, or a directory with its '/': a server that lists directories by their names (SeaweedFS)
        leaves out all that is below ``a`` after ``a``, gives what is below ``a/`` after ``a/``, and lists ``a/b`` before
        ``a.txt``, so that its order differs where one name begins with another. It never leaves out a key that is meant.
        """

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        """The next level below ``prefix`` (which ends with '/'), each with its trailing '/'."""

    def head(self, key: str) -> ObjectInfo:
        """Size, ETag and metadata. Raises ``NotFoundError``."""

    def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        """A whole small object. Raises ``NotFoundError``."""

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        """Bytes ``start`` up to but not including ``end``, in blocks of at most 1 MiB."""

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
        """Write an object in one request and prove that it holds ``body``, whose sha256 the caller has computed."""

    def delete(self, key: str) -> None:
        """Remove an object; a key that is not there is fine."""

    def create_upload(self, key: str, *, metadata: Mapping[str, str] | None = None) -> str:
        """Start a multipart upload; returns its upload_id."""

    def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, *, md5: str, sent: Callable[[int], object] = ignore
    ) -> Part:
        """Send one part; ``md5`` is the hex digest of ``body``. Raises ``NoSuchUploadError``.

        ``sent`` is told how many bytes of the part have gone out, from the start again where it is sent again.
        """

    def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        """The parts that arrived, by number. Raises ``NoSuchUploadError``."""

    def list_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        """Open multipart uploads of keys that start with ``prefix``."""

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        """Make the object from its parts; returns its ETag. Raises ``NoSuchUploadError``."""

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop a multipart upload; one that is gone is fine."""
