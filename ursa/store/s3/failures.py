"""How a request can fail below the store, without words for users: ``ursa.store.s3.words`` has those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class WireError(Exception):
    """A request that did not come to a good answer."""


@dataclass
class ReplyError(WireError):
    """The server answered that it will not. ``code``: of S3, "" where there is none. ``headers``: in lower case."""

    status: int
    code: str = ""
    message: str = ""
    region: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class NoAnswerError(WireError):
    """Nothing came back, or the connection broke."""


class StaleError(NoAnswerError):
    """A kept connection had been closed meanwhile. Says nothing of the server: it is asked again on a fresh one."""


class BadReplyError(WireError):
    """The server's answer is none to what was asked: cut on the way, as a rule. Worth another try."""


class NoS3Error(WireError):
    """A good answer that lacks what every S3 server says: of a login page, or of a proxy."""


class TlsError(WireError):
    """No TLS. ``certificate``: because that of the other side is not trusted."""

    def __init__(self, text: str, *, certificate: bool = False) -> None:
        super().__init__(text)
        self.certificate = certificate


class ProxyError(WireError):
    """The proxy on the way does not let us through. ``passing``: it may the next time."""

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing
