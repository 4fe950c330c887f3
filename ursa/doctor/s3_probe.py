"""What only a doctor asks a server: one key of a listing, and its answer to a request that nobody signed."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from ursa.store.s3 import S3Store
from ursa.store.s3.pool import Pool

_TIMEOUT_S = 8.0


@dataclass(frozen=True, slots=True)
class Answer:
    """``status``: HTTP. ``date``: the server's clock, whole seconds. ``middle``: ours, halfway through (Unix time)."""

    status: int
    date: datetime | None
    middle: float
    seconds: float


class ProbeStore(S3Store):
    """An ``S3Store`` that can also look at a bucket without signing or listing more than it must."""

    def has_keys(self, prefix: str) -> bool:
        """Whether any key starts with ``prefix``: ListObjectsV2 with max-keys 1, all that a scoped token may do."""
        return bool(self._page(prefix, None, {"max-keys": "1"}).objects)

    def ask(self, times: int) -> list[Answer]:
        """GET an object that is not there, unsigned, over one connection: any answer tells date and round trip.

        Raises:
            StorageError: no answer, or its certificate is not accepted.
        """
        pool = Pool(self._at.endpoint_url, self._at.ca_bundle, connect_s=_TIMEOUT_S, read_s=_TIMEOUT_S)
        with self._words("reach", ".ursa-doctor/clock"), closing(pool):
            return [_answer(pool, f"/{self._at.bucket}/.ursa-doctor/clock") for _ in range(times)]


def _answer(pool: Pool, path: str) -> Answer:
    sent, started = time.time(), time.monotonic()
    with pool.request("GET", path, {"host": pool.route.netloc}) as reply:
        reply.read()
    seconds = time.monotonic() - started
    return Answer(reply.status, _date(reply.headers.get("date")), sent + seconds / 2, seconds)


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
