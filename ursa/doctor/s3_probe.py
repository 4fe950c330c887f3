"""What only a doctor asks a server: one key of a listing, and its answer to a request that nobody signed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

from botocore.awsrequest import AWSRequest
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from ursa.store.s3 import S3Store

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
        one = {"MaxItems": 1, "PageSize": 1}
        page = next(self._pages("list_objects_v2", Prefix=prefix, PaginationConfig=one), None)
        return bool(page and page.get("Contents"))

    def ask(self, times: int) -> list[Answer]:
        """GET an object that is not there, unsigned, over one connection: any answer tells date and round trip.

        Raises:
            StorageError: no answer, or its certificate is not accepted.
        """
        url = f"{self._at.endpoint_url}/{self._at.bucket}/.ursa-doctor/clock"
        with self._words("reach", ".ursa-doctor/clock"), _http(url) as session:
            return [_answer(session, url) for _ in range(times)]


@contextmanager
def _http(url: str) -> Iterator[URLLib3Session]:
    """The client that every signed request goes through, with the same certificates and proxies."""
    verify = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE") or True
    timeouts: Any = (_TIMEOUT_S, _TIMEOUT_S)  # connect, read
    session = URLLib3Session(verify=cast("bool", verify), proxies=get_environ_proxies(url), timeout=timeouts)
    with closing(session):
        yield session


def _answer(session: URLLib3Session, url: str) -> Answer:
    sent, started = time.time(), time.monotonic()
    reply = session.send(AWSRequest(method="GET", url=url).prepare())
    seconds = time.monotonic() - started
    return Answer(reply.status_code, _date(reply.headers.get("Date")), sent + seconds / 2, seconds)


def _date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
