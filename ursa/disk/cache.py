"""The files cache: which files this machine has read, by their fingerprints, and what it has measured of objects.

Lost, damaged or another machine's: it costs time, never truth. An SQLite file in the user's cache directory, or in the
profile's ``cache_dir``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from ursa.disk.fingerprint import Fingerprint

KEPT = 8
"""Fingerprints that are kept of a path: copies of a recording, on this disk and that one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that was read whole. ``sha256``: hex; None where it was only seen, too shortly before it was read.
    ``etags``: those that its bytes have or were computed to have. ``read_at``: UTC.
    """

    fingerprint: Fingerprint
    sha256: str | None
    etags: tuple[str, ...] = ()
    read_at: datetime | None = None


class FilesCache:
    """Thread-safe; several processes may have the same one open. No method raises: what fails costs a reading.

    ``temporary``: what is remembered is gone with this process (or with the machine's next start), since there is no
    place that stays.
    """

    temporary: bool = True
    path: Path | None = None

    @classmethod
    def open(cls, directory: Path | None = None) -> Self:
        """The one in ``directory``; None is the user's cache directory."""
        del directory
        return cls()

    def close(self) -> None:
        """Write what is not written yet."""

    def entries(self, rec_id: str) -> Mapping[str, Sequence[Entry]]:
        """What is remembered of a recording's files, by path, the latest reading first; entries that were only seen too."""
        del rec_id
        return {}

    def remember(
        self, rec_id: str, path: str, fingerprint: Fingerprint, sha256: str, etags: Iterable[str] = ()
    ) -> None:
        """A file was read whole, its fingerprint being this at least ``SETTLED_S`` before the first byte and after the
        last one. Of a fingerprint that is there the ETags are united.
        """

    def sight(self, rec_id: str, seen: Mapping[str, Fingerprint]) -> None:
        """These fingerprints, by path, were seen now; those that are there already stay as they are."""

    def was_sighted(self, rec_id: str, path: str, fingerprint: Fingerprint) -> bool:
        """Whether it was seen at least ``SETTLED_S`` ago, by this process's clock or before this machine's last start."""
        del rec_id, path, fingerprint
        return False

    def proof(self, store: str, key: str, size_bytes: int, etag: str) -> str | None:
        """The sha256 that this machine has measured of an object while it had this ETag."""
        del store, key, size_bytes, etag
        return None

    def prove(self, store: str, key: str, size_bytes: int, etag: str, sha256: str) -> None:
        """This machine has measured an object. ``store``: endpoint and bucket, or the directory."""

    def note(self, topic: str, about: str) -> Mapping[str, Any] | None:
        """What was noted about something (a server's conduct); None where nothing was."""
        del topic, about
        return None

    def put_note(self, topic: str, about: str, value: Mapping[str, Any] | None) -> None:
        """Note something, JSON; None takes the note away."""
