"""Rows of the files cache: fingerprints as text, and a seal on each row, so that a damaged one is noticed and ignored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from ursa.disk.fingerprint import Fingerprint
from ursa.names import is_sha256

COLUMNS = "rec_id, path, fingerprint, boot, seen_s, sha256, etags, read_at"
MOST_ETAGS = 64
_ETAG_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that was read whole. ``sha256``: hex; None where it was only seen, too shortly before it was read.
    ``etags``: those that its bytes have or were computed to have. ``read_at``: UTC.
    """

    fingerprint: Fingerprint
    sha256: str | None
    etags: tuple[str, ...] = ()
    read_at: datetime | None = None


class Reading(NamedTuple):
    """A file that was read whole just now. ``etags``: those that its bytes have or were computed to have."""

    path: str
    fingerprint: Fingerprint
    sha256: str
    etags: Iterable[str] = ()


class FileRow(NamedTuple):
    """A fingerprint of a file. ``sha256`` is None, and ``read_at`` when it was seen, where it was not read."""

    rec_id: str
    path: str
    fingerprint: str
    boot: str
    seen_s: float
    sha256: str | None
    etags: str
    read_at: str

    def entry(self) -> Entry | None:
        """What it says; None where it is no such thing."""
        fingerprint = parse_fingerprint(self.fingerprint)
        if fingerprint is None:
            return None
        if self.sha256 is None:
            return Entry(fingerprint, None)
        sha256, read_at = parse_sha256_or_none(self.sha256), parse_time(self.read_at)
        return Entry(fingerprint, sha256, parse_etags(self.etags), read_at) if sha256 and read_at else None

    @property
    def rank(self) -> tuple[bool, str]:
        """What is dropped first has the lowest: what was only seen, then the oldest reading."""
        return self.sha256 is not None, self.read_at

    def sealed(self) -> tuple[object, ...]:
        """As it is written."""
        return (*self, seal(tuple(self)))


def checked_row(values: tuple[object, ...]) -> FileRow | None:
    """A row that is as it was written; None where it is not."""
    fields = values[:-1]
    return FileRow._make(fields) if seal(fields) == values[-1] else None


def seal(values: tuple[object, ...]) -> str:
    """A checksum of a row."""
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def fingerprint_text(fingerprint: Fingerprint) -> str:
    """The same text for equal fingerprints alone. (Inodes and times may be wider than SQLite's integers.)"""
    ctime = "-" if fingerprint.ctime_ns is None else fingerprint.ctime_ns
    inode = "-" if fingerprint.inode is None else fingerprint.inode
    return f"{fingerprint.size_bytes} {fingerprint.mtime_ns} {ctime} {inode} {fingerprint.volume}"


def parse_fingerprint(text: object) -> Fingerprint | None:
    """The reverse; None where it is not one."""
    if not isinstance(text, str):
        return None
    try:
        size, mtime, ctime, inode, volume = text.split(" ", 4)
        return Fingerprint(
            int(size), int(mtime), None if ctime == "-" else int(ctime), None if inode == "-" else int(inode), volume
        )
    except ValueError:
        return None


def etags_text(etags: Iterable[str], before: str | None = None) -> str:
    """ETags as they are kept, those that were kept ``before`` at the end."""
    known = dict.fromkeys((*etags, *(parse_etags(before) if before else ())))
    return orjson.dumps([etag for etag in known if _is_etag(etag)][:MOST_ETAGS]).decode()


def parse_etags(text: str) -> tuple[str, ...]:
    """The reverse; none where it is not a list of them."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return ()
    return tuple(etag for etag in found if isinstance(etag, str)) if isinstance(found, list) else ()


def parse_sha256_or_none(text: object) -> str | None:
    """A sha256 that was kept; None where it is none."""
    return text if isinstance(text, str) and is_sha256(text) else None


def time_text(time: datetime) -> str:
    """A time as text that sorts as times do."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def parse_time(text: str) -> datetime | None:
    """The reverse; None where it is not one."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


def _is_etag(etag: object) -> bool:
    return isinstance(etag, str) and 0 < len(etag) <= _ETAG_CHARACTERS and etag.isprintable()
