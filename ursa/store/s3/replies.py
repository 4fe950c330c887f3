"""What an S3 server's replies say. What isn't whole is never taken for an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TypeVar
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from ursa.names import parse_sha256
from ursa.store.protocol import ObjectInfo, OpenUpload, Page, Part
from ursa.store.s3.failures import BadReplyError, NoS3Error, ReplyError

T = TypeVar("T")
Marked = tuple[Sequence[T], Mapping[str, str] | None]
"""A page of what is listed, and the markers in the query of the next one; None: this is the last."""

_META = "x-amz-meta-"


def refused(status: int, content: bytes, headers: Mapping[str, str]) -> ReplyError:
    """The error that a reply is."""
    try:
        told = _texts(ET.fromstring(content.lstrip()))
    except ET.ParseError:
        told = {}
    region = headers.get("x-amz-bucket-region") or told.get("Region")
    return ReplyError(status, told.get("Code", ""), told.get("Message", ""), region, headers)


def page(content: bytes, headers: Mapping[str, str], asked_by: str | None = None) -> Page:
    """A page of ListObjectsV2. ``asked_by``: the token that asked for it.

    Raises:
        BadReplyError: it is cut. NoS3Error, ReplyError.
    """
    root = _root(content, "ListBucketResult")
    told = _texts(root)
    encoded = told.get("EncodingType") == "url"
    objects = [_listed(item, encoded) for item in root if _name(item) == "Contents"]
    prefixes = [
        _decoded(child.text or "", encoded) for item in root if _name(item) == "CommonPrefixes" for child in item
    ]
    following = told.get("NextContinuationToken") or None
    truncated = told.get("IsTruncated") == "true"
    if truncated and (following is None or following == asked_by):
        # Taken for complete, it would say of objects that they are not there.
        raise BadReplyError("a listing that is cut and does not say how it goes on")
    return Page(objects, prefixes, following if truncated else None, _date(headers.get("date")))


def parts(content: bytes, asked: Mapping[str, str]) -> Marked[Part]:
    """A page of ListParts, and the markers of the next one. Raises as ``page``."""
    root = _root(content, "ListParts")
    try:
        found = [
            Part(int(told["PartNumber"]), int(told["Size"]), unquoted(told["ETag"])) for told in _items(root, "Part")
        ]
    except (KeyError, ValueError) as error:
        raise BadReplyError(f"a listing with a part that has no right {error}") from None
    return found, _following(root, asked, {"part-number-marker": "NextPartNumberMarker"})


def uploads(content: bytes, asked: Mapping[str, str]) -> Marked[OpenUpload]:
    """A page of ListMultipartUploads, and the markers of the next one. Raises as ``page``."""
    root = _root(content, "ListMultipartUploads")
    encoded = _texts(root).get("EncodingType") == "url"
    try:
        found = [
            OpenUpload(_decoded(told["Key"], encoded), told["UploadId"], _moment(told.get("Initiated")))
            for told in _items(root, "Upload")
        ]
    except (KeyError, ValueError) as error:
        raise BadReplyError(f"a listing with an upload that has no right {error}") from None
    return found, _following(root, asked, {"key-marker": "NextKeyMarker", "upload-id-marker": "NextUploadIdMarker"})


def said(content: bytes, root_name: str, name: str) -> str:
    """One text of a short reply. Raises as ``page``; ``NoS3Error`` where it isn't there."""
    told = _texts(_root(content, root_name)).get(name)
    if not told:
        raise NoS3Error(f"an answer without {name}")
    return told


def etag_of(headers: Mapping[str, str]) -> str:
    """The ETag of what was written."""
    if not headers.get("etag"):
        raise NoS3Error("an answer without ETag")
    return unquoted(headers["etag"])


def info(key: str, headers: Mapping[str, str], size_bytes: int | None = None) -> ObjectInfo:
    """An object by the headers of a GET or HEAD. ``size_bytes``: None where the headers tell it."""
    length = headers.get("content-length", "")
    if size_bytes is None and not length.isdigit():
        raise NoS3Error("an object without Content-Length")
    metadata = {name[len(_META) :]: value for name, value in headers.items() if name.startswith(_META)}
    etag, modified = headers.get("etag"), headers.get("last-modified")
    if not etag or not modified:
        raise NoS3Error(f"an object without {'Last-Modified' if etag else 'ETag'}")
    size = int(length) if size_bytes is None else size_bytes
    return ObjectInfo(key, size, unquoted(etag), _moment_of(modified), metadata)


def whole_sha256(headers: Mapping[str, str], etag: str) -> str | None:
    """The sha256 of a whole object that a HEAD's headers tell: none of its parts' checksums."""
    kind = headers.get("x-amz-checksum-type", "").upper()
    # A multipart object's ETag ends with the number of its parts.
    if kind != "FULL_OBJECT" and (kind or "-" in etag):
        return None
    return parse_sha256(headers.get("x-amz-checksum-sha256"))


def unquoted(etag: str) -> str:
    """An ETag without its quotes."""
    return etag.removeprefix("W/").strip('"')


def _root(content: bytes, name: str) -> ET.Element:
    try:
        # A server that takes its time for an answer sends blanks to keep the connection open.
        root = ET.fromstring(content.lstrip())
    except ET.ParseError as error:
        if name.encode() in content[:500]:
            raise BadReplyError(f"an answer that is cut: {error}") from None
        raise NoS3Error("an answer that is no XML") from None
    if _name(root) == "Error":
        # An answer that was begun as a success, before the server knew: its code is all that counts.
        raise refused(200, content, {})
    if not _name(root).startswith(name):
        raise NoS3Error(f"an answer that begins with {_name(root)[:80]}")
    return root


def _following(root: ET.Element, asked: Mapping[str, str], markers: Mapping[str, str]) -> Mapping[str, str] | None:
    told = _texts(root)
    if "IsTruncated" not in told:
        raise NoS3Error("an answer without IsTruncated")
    if told["IsTruncated"] != "true":
        return None
    following = {marker: told[name] for marker, name in markers.items() if told.get(name)}
    if not following or all(asked.get(marker) == value for marker, value in following.items()):
        raise BadReplyError("a listing that is cut and does not say how it goes on")
    return following


def _items(root: ET.Element, name: str) -> list[dict[str, str]]:
    return [_texts(item) for item in root if _name(item) == name]


def _texts(element: ET.Element) -> dict[str, str]:
    return {_name(child): child.text or "" for child in element}


def _listed(item: ET.Element, encoded: bool) -> ObjectInfo:
    told = _texts(item)
    try:
        return ObjectInfo(
            _decoded(told["Key"], encoded),
            int(told["Size"]),
            unquoted(told.get("ETag", "")),
            datetime.fromisoformat(told["LastModified"]),
        )
    except (KeyError, ValueError) as error:
        raise BadReplyError(f"a listing with an object that has no right {error}") from None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _moment_of(text: str) -> datetime:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        raise NoS3Error("an object whose Last-Modified is no date") from None


def _date(text: str | None) -> datetime | None:
    try:
        told = parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
    # Without a zone it is not what HTTP has, and judging ages by it would be a guess.
    return told.astimezone(UTC) if told and told.tzinfo else None


def _name(element: ET.Element) -> str:
    """Without its namespace, which servers do not agree upon."""
    return _local(element.tag)


@lru_cache(maxsize=256)
def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _decoded(text: str, encoded: bool) -> str:
    return unquote_plus(text) if encoded else text
