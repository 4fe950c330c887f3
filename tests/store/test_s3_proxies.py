"""Proxies: which one a URL goes through, what goes through it, and what is said when it does not let us."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Buckets
from proxy import FaultProxy
from relays import Authority, ForwardProxy, TlsFront
from servers import S3Server
from ursa.credentials import Credentials
from ursa.errors import ConfigError, StorageError
from ursa.store import TransientError
from ursa.store.counting import RequestCounter
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.store.s3 import S3Location, S3Store
from ursa.store.s3.proxies import proxy_for

Proxied = Callable[[S3Server], FaultProxy]
BODY = b"body" * 100_000
VARIABLES = [name for base in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (base, base.upper())]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def store_at(url: str, buckets: Buckets, ca_bundle: Path | None = None) -> S3Store:
    server = buckets.server
    location = S3Location(url, buckets.raw, "us-east-1", "raw_rw", ca_bundle)
    return S3Store(location, lambda _again: Credentials(server.access_key, server.secret_key), RequestCounter())


def round_trip(store: S3Store) -> None:
    """A write, a listing, two reads."""
    store.put("k", BODY, sha256=hashlib.sha256(BODY).hexdigest(), if_absent=True)
    assert [info.key for info in store.list("")] == ["k"]
    assert store.read("k")[0] == b"".join(store.stream("k")) == BODY
    store.delete("k")


# --- the rule


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://h", {}, None),
        ("https://h", {"HTTPS_PROXY": "http://p:8080"}, "http://p:8080 (HTTPS_PROXY)"),
        ("https://h", {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://p:8080"}, "http://low:1 (https_proxy)"),
        ("https://h", {"https_proxy": "", "HTTPS_PROXY": "http://p:8080"}, "http://p:8080 (HTTPS_PROXY)"),
        ("https://h", {"HTTP_PROXY": "http://p:8080"}, None),
        ("http://h", {"HTTP_PROXY": "http://p:8080"}, "http://p:8080 (HTTP_PROXY)"),
        ("http://h", {"http_proxy": "p:8080"}, "http://p:8080 (http_proxy)"),
        ("https://h", {"ALL_PROXY": "http://p:1"}, "http://p:1 (ALL_PROXY)"),
        ("https://h", {"all_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"}, "http://q:2 (HTTPS_PROXY)"),
        ("https://h", {"HTTPS_PROXY": "https://p"}, "https://p:443 (HTTPS_PROXY)"),
        ("https://h", {"HTTPS_PROXY": "http://p/"}, "http://p:1080 (HTTPS_PROXY)"),
        ("https://h", {"HTTPS_PROXY": "http://[::1]:8080"}, "http://[::1]:8080 (HTTPS_PROXY)"),
        ("https://h", {"HTTPS_PROXY": "http://user:p%40ss@p:1"}, "http://p:1 (HTTPS_PROXY)"),
    ],
)
def test_which_proxy(url: str, environ: dict[str, str], expected: str | None) -> None:
    found = proxy_for(url, environ)
    assert (str(found) if found else None) == expected


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        ("https://s3.lab.org", "*", True),
        ("https://s3.lab.org", "lab.org", True),
        ("https://s3.lab.org", ".lab.org", True),
        ("https://s3.lab.org", "*.lab.org", True),
        ("https://s3.lab.org", "other.org, LAB.ORG", True),
        ("https://s3.lab.org", "other.org s3.lab.org", True),
        ("https://s3.lab.org.", "lab.org.", True),
        ("https://lab.org", ".lab.org", True),
        ("https://notlab.org", "lab.org", False),
        ("https://s3.lab.org", "ab.org", False),
        ("https://s3.lab.org", "", False),
        ("https://s3.lab.org", " , ", False),
        ("https://s3.lab.org:9000", "lab.org:9000", True),
        ("https://s3.lab.org:9000", "lab.org:9001", False),
        ("https://s3.lab.org", "lab.org:443", True),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3:9000", "10.0.0.0/8:9000", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://s3.lab.org", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.0.0.0/99", False),
        ("https://[fd00::1]:9000", "fd00::/8", True),
        ("https://[fd00::1]:9000", "[fd00::1]:9000", True),
        ("https://[fd00::1]", "::1", False),
    ],
)
def test_no_proxy(url: str, no_proxy: str, direct: bool) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        assert (proxy_for(url, {"HTTPS_PROXY": "http://p:1", name: no_proxy}) is None) is direct


@pytest.mark.parametrize(
    "value", ["socks5://u:s3cret@p:1", "http://", "ftp://p:1", "http://p:port", "http://u:s3cret@"]
)
def test_what_can_be_no_proxy(value: str) -> None:
    with pytest.raises(ConfigError, match="ALL_PROXY") as raised:
        proxy_for("https://h", {"ALL_PROXY": value})
    assert raised.value.key == "ALL_PROXY"
    assert "s3cret" not in f"{raised.value} {raised.value.hint}"


# --- through it


def test_plain_requests_go_through(weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy(hosts={"s3.only-there": "127.0.0.1"}) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        url = weed_buckets.server.endpoint_url.replace("127.0.0.1", "s3.only-there")
        round_trip(store_at(url, weed_buckets))
        assert len(proxy.asked) == 5 and all(f" {url}/" in line for line in proxy.asked)


@pytest.mark.parametrize("to_proxy", ["http", "https"])
def test_tls_goes_through_a_tunnel(
    weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, to_proxy: str
) -> None:
    authority = Authority(tmp_path)
    own = authority.context() if to_proxy == "https" else None
    with (
        TlsFront(weed_buckets.server.endpoint_url, authority, "s3.only-there") as front,
        ForwardProxy(hosts={"s3.only-there": "127.0.0.1"}, password="lab user:p@ss", tls=own) as proxy,
    ):
        monkeypatch.setenv("https_proxy", proxy.url.replace("://", "://lab%20user:p%40ss@"))
        round_trip(store_at(f"https://s3.only-there:{front.port}", weed_buckets, authority.bundle))
        assert set(proxy.asked) == {f"CONNECT s3.only-there:{front.port} HTTP/1.1"}
        # One connection, which is kept.
        assert front.opened == len(proxy.asked) == 1


def test_not_through_it_where_no_proxy_says_so(weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy(status=403) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
        round_trip(store_at(weed_buckets.server.endpoint_url, weed_buckets))
        assert proxy.asked == []


# --- when it does not let us


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("given", "said"), [("", "asks for a user and password"), ("u:s3cret@", "refuses the user")])
def test_a_password_that_is_wrong(
    weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch, scheme: str, given: str, said: str
) -> None:
    with ForwardProxy(password="u:right") as proxy:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy.url.replace("://", f"://{given}"))
        url = weed_buckets.server.endpoint_url.replace("http:", f"{scheme}:")
        store = RetryingStore(store_at(url, weed_buckets), RetryPolicy(max_delay_s=0.01))
        with pytest.raises(StorageError, match=said) as raised:
            store.head("k")
        assert f"{proxy.url} ({scheme.upper()}_PROXY)" in raised.value.message
        assert "s3cret" not in f"{raised.value!r} {raised.value.hint} {raised.value.fields}"
        assert "NO_PROXY" in (raised.value.hint or "")
        assert len(proxy.asked) == 1, "another try would be refused as well"


@pytest.mark.parametrize(("status", "again"), [(403, False), (502, True), (504, True)])
def test_a_proxy_that_refuses_to_connect(
    weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch, status: int, again: bool
) -> None:
    with ForwardProxy(status=status) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(StorageError, match=f"the proxy {proxy.url} .HTTPS_PROXY. refuses.*{status}") as raised:
            store_at("https://s3.lab.org", weed_buckets).head("k")
        assert isinstance(raised.value, TransientError) is again


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there(weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with ForwardProxy() as proxy:
        gone = proxy.url
    monkeypatch.setenv("ALL_PROXY", gone.replace("://", "://u:s3cret@"))
    with pytest.raises(TransientError, match="can't be reached") as raised:
        store_at(f"{scheme}://s3.lab.org", weed_buckets).head("k")
    assert f"the proxy {gone} (ALL_PROXY)" in raised.value.message and raised.value.unreachable
    assert "s3cret" not in str(raised.value)


def test_a_server_in_place_of_the_proxy(weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", weed_buckets.server.endpoint_url)
    with pytest.raises(StorageError, match=r"the proxy .*HTTPS_PROXY"):
        store_at("https://s3.lab.org", weed_buckets).head("k")
