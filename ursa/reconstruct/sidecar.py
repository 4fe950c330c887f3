"""Finished hashes of a large recording, kept under the assets prefix: a run that was interrupted goes on from them.

Only a cache: an entry counts where the object still has the same size and ETag, what can't be read counts as nothing, and
a run goes on without it where it can't be written.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

import orjson

from ursa.errors import UrsaError
from ursa.reconstruct.objects import Found
from ursa.store import NotFoundError, Store
from ursa.transfer.parts import MIB

logger = logging.getLogger("ursa.reconstruct")

Entry = tuple[int, str, str]
"""Size in bytes, ETag, sha256."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
# R2 takes about one write a second to a key.
_EVERY_S: Final = 5.0
_AT_MOST_EVERY_S: Final = 2.0
_WORTH_BYTES: Final = 64 * MIB


class Sidecar:
    """``<assets prefix>hashes/<rec_id>.json``: path → [size, ETag, sha256]. Without a store it keeps nothing."""

    def __init__(self, store: Store | None, key: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._key = key
        self._now = monotonic
        self._entries: dict[str, Entry] = {}
        self._unsaved = self._stored = False
        self._unsaved_bytes = 0
        self._tried_at = monotonic() - _AT_MOST_EVERY_S
        self._pause_s = _AT_MOST_EVERY_S

    def load(self) -> None:
        """Read what earlier runs have finished."""
        self._entries = self._read()

    def get(self, found: Found) -> str | None:
        """The sha256 of an object that is still as it was when it was hashed."""
        size_bytes, etag, sha256 = self._entries.get(found.path, (-1, "", ""))
        return sha256 if (size_bytes, etag) == (found.size_bytes, found.etag) else None

    def add(self, found: Found, sha256: str) -> None:
        """An object was hashed; saved now and then."""
        self._entries[found.path] = (found.size_bytes, found.etag, sha256)
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
            data = orjson.dumps(self._entries)
            self._store.put(self._key, data, sha256=hashlib.sha256(data).hexdigest())
            self._stored, self._unsaved, self._unsaved_bytes = True, False, 0
        except UrsaError as error:
            logger.warning("finished hashes can't be kept, an interrupted run would hash again: %s", error.message)
        self._tried_at = self._now()
        # A very large one takes at most a tenth of the time.
        self._pause_s = max(_AT_MOST_EVERY_S, 10 * (self._tried_at - started))

    def remove(self) -> None:
        """The manifest has it all now."""
        if self._store is None or not self._stored:
            return
        try:
            self._store.delete(self._key)
        except UrsaError as error:
            logger.warning("%s is not needed any more and can't be deleted: %s", self._key, error.message)

    def _read(self) -> dict[str, Entry]:
        if self._store is None:
            return {}
        try:
            content = orjson.loads(self._store.read(self._key)[0])
        except NotFoundError:
            return {}
        except UrsaError as error:
            logger.warning("finished hashes can't be read, everything is hashed: %s", error.message)
            return {}
        except orjson.JSONDecodeError:
            content = None
        self._stored = True
        return _checked(content)


def _checked(content: object) -> dict[str, Entry]:
    """The entries that are what they must be."""
    entries: dict[str, Entry] = {}
    for path, value in content.items() if isinstance(content, Mapping) else ():
        match value:
            case [int(size_bytes), str(etag), str(sha256)] if _SHA256.fullmatch(sha256):
                entries[path] = (size_bytes, etag, sha256)
    return entries
