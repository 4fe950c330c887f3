"""Finished hashes of a recording, kept under the assets prefix: an interrupted run resumes from them, and Path B takes
them as what was measured (``ursa.bucket.record``). A run goes on without where they can't be written.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from typing import Final

from ursa.bucket.record import Entry, parse_record, record_bytes
from ursa.errors import UrsaError
from ursa.reconstruct.objects import Found
from ursa.store import NotFoundError, Store
from ursa.transfer.parts import MIB

logger = logging.getLogger("ursa.reconstruct")

# R2 takes about one write a second to a key.
_EVERY_S: Final = 5.0
_AT_MOST_EVERY_S: Final = 2.0
_WORTH_BYTES: Final = 64 * MIB


class HashCheckpoint:
    """``<assets prefix>hashes/<rec_id>.json``. Without a store it keeps nothing. ``bucket``: of the objects."""

    def __init__(
        self, store: Store | None, key: str, bucket: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._key = key
        self._now = monotonic
        self._entries: dict[str, Entry] = {}
        self._unsaved = False
        self._unsaved_bytes = 0
        self._tried_at = monotonic() - _AT_MOST_EVERY_S
        self._pause_s = _AT_MOST_EVERY_S

    def load(self) -> None:
        """Read what earlier runs have finished."""
        self._entries = self._read()

    def get(self, found: Found) -> str | None:
        """The sha256 of an object that is still as it was when it was hashed."""
        size_bytes, etag, sha256 = self._entries.get(found.key, (-1, "", ""))
        return sha256 if (size_bytes, etag) == (found.size_bytes, found.etag) else None

    def add(self, found: Found, sha256: str) -> None:
        """An object was hashed; saved now and then."""
        self._entries[found.key] = Entry(found.size_bytes, found.etag, sha256)
        self._unsaved = True
        self._unsaved_bytes += found.size_bytes
        since = self._now() - self._tried_at
        if since >= max(_EVERY_S, self._pause_s) or (since >= self._pause_s and self._unsaved_bytes >= _WORTH_BYTES):
            self.save()

    def save(self) -> None:
        """Write what is not saved yet, united with what another run has written meanwhile."""
        if self._store is None or not self._unsaved:
            return
        started = self._now()
        try:
            self._entries = self._read() | self._entries
            data = record_bytes(self._bucket, self._entries)
            self._store.put(self._key, data, sha256=hashlib.sha256(data).hexdigest())
            self._unsaved, self._unsaved_bytes = False, 0
        except UrsaError as error:
            logger.warning("finished hashes can't be kept, an interrupted run would hash again: %s", error.message)
        self._tried_at = self._now()
        # A very large one takes at most a tenth of the time.
        self._pause_s = max(_AT_MOST_EVERY_S, 10 * (self._tried_at - started))

    def _read(self) -> dict[str, Entry]:
        if self._store is None:
            return {}
        try:
            return parse_record(self._store.read(self._key)[0], self._bucket)
        except NotFoundError:
            return {}
        except UrsaError as error:
            logger.warning("finished hashes can't be read, everything is hashed: %s", error.message)
            return {}
