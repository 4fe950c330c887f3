"""S3 servers that fail: what is said about it, what is tried again, and what nobody may hear."""

from __future__ import annotations

import hashlib
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

import ursa.store.s3.store as s3_module
from conftest import Buckets
from proxy import FaultProxy
from servers import S3Server
from ursa.credentials import Credentials
from ursa.errors import CredentialsError, StorageError, UrsaError
from ursa.store import NotFoundError, PreconditionFailedError, Store, TransientError
from ursa.store.counting import RequestCounter
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.store.s3 import S3Location, S3Store
from ursa.store.s3.pool import Pool

MIB = 1 << 20
SMALL = b"small"
LARGE = bytes(MIB + 1)  # goes out in several blocks
WRONG_SECRET = "wr0ng-s3cret-that-nobody-may-read"
TOKEN = "t0ken-that-nobody-may-read"

Action = Callable[[Store], object]
Proxied = Callable[[S3Server], FaultProxy]


def put(store: Store, key: str, body: bytes, **options: Any) -> object:
    return store.put(key, body, sha256=hashlib.sha256(body).hexdigest(), **options)


ACTIONS: dict[str, Action] = {
    "put small": lambda store: put(store, "k", SMALL, if_absent=True),
    "put large": lambda store: put(store, "k", LARGE, if_absent=True),
    "list": lambda store: list(store.list("rec/")),
    "list prefixes": lambda store: list(store.list_prefixes("rec/")),
    "head": lambda store: store.head("k"),
    "read": lambda store: store.read("k"),
    "stream": lambda store: b"".join(store.stream("k")),
    "delete": lambda store: store.delete("k"),
    "create upload": lambda store: store.create_upload("k"),
    "upload part": lambda store: store.upload_part("k", "id", 1, SMALL, md5=hashlib.md5(SMALL).hexdigest()),
    "list parts": lambda store: store.list_parts("k", "id"),
    "list uploads": lambda store: list(store.list_uploads("")),
    "complete upload": lambda store: store.complete_upload("k", "id", [], if_absent=True),
    "abort upload": lambda store: store.abort_upload("k", "id"),
}
every_action = pytest.mark.parametrize("action", ACTIONS.values(), ids=[name.replace(" ", "-") for name in ACTIONS])


def store_at(buckets: Buckets, secret: Credentials | None = None, counter: RequestCounter | None = None) -> S3Store:
    server = buckets.server
    credentials = secret or Credentials(server.access_key, server.secret_key)
    location = S3Location(server.endpoint_url, buckets.raw, "us-east-1", "raw_rw")
    return S3Store(location, lambda _again: credentials, counter or RequestCounter())


def patient(store: Store) -> RetryingStore:
    """Tries again without much waiting."""
    return RetryingStore(store, RetryPolicy(max_delay_s=0.01))


def everything_told(error: UrsaError) -> str:
    """All that a log, a terminal or a bug report could show of an error."""
    shown = traceback.format_exception(error)
    return "".join([*shown, str(error), repr(error), repr(error.fields), str(error.hint)])


def caught(action: Action, store: Store) -> UrsaError:
    with pytest.raises(UrsaError) as raised:
        action(store)
    return raised.value


# --- no server, wrong server


@every_action
def test_unreachable(moto_buckets: Buckets, fault_proxy: Proxied, action: Action) -> None:
    proxy = fault_proxy(moto_buckets.server)
    proxy.down()
    store = store_at(moto_buckets.at(proxy.url))
    error = caught(action, store)
    assert isinstance(error, TransientError)
    assert error.unreachable
    assert f"no answer from {proxy.url}" in str(error)
    assert "endpoint_url" in (error.hint or "")
    assert "\n" not in str(error)
    assert moto_buckets.server.secret_key not in everything_told(error)


def test_back_again(moto_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(moto_buckets.server)
    store = store_at(moto_buckets.at(proxy.url))
    put(store, "a", SMALL)
    proxy.down()
    for action in ("put small", "list"):
        assert isinstance(caught(ACTIONS[action], store), TransientError)
    proxy.up()
    put(store, "k", SMALL, if_absent=True)
    assert [info.key for info in store.list("")] == ["a", "k"]


@pytest.mark.parametrize("status", [301, 302, 307])
@pytest.mark.parametrize("name", ["put small", "put large", "list", "head"])
def test_a_server_that_sends_everybody_elsewhere(
    moto_buckets: Buckets, fault_proxy: Proxied, name: str, status: int
) -> None:
    """As the web server does whose endpoint_url says http where it should say https, or a hotel's network."""
    proxy = fault_proxy(moto_buckets.server)
    proxy.fail(lambda *_request: True, None, status, {"Location": "http://127.0.0.1:9/elsewhere"}, code="Moved")
    error = caught(ACTIONS[name], store_at(moto_buckets.at(proxy.url)))
    assert isinstance(error, StorageError)
    assert proxy.count() <= 3


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 64 + ".org", "xn--a.invalid", "größe.invalid"])
def test_a_name_that_nobody_has(moto_buckets: Buckets, host: str) -> None:
    error = caught(ACTIONS["list"], store_at(moto_buckets.at(f"http://{host}:9000")))
    assert isinstance(error, TransientError) and error.unreachable


def test_tls_where_there_is_none(moto_buckets: Buckets) -> None:
    url = moto_buckets.server.endpoint_url.replace("http://", "https://")
    error = caught(ACTIONS["list"], store_at(moto_buckets.at(url)))
    assert "TLS" in str(error)
    assert url in str(error)
    assert not isinstance(error, TransientError)


# moto answers HEAD and the requests about uploads as if only the object or upload were missing; nobody can tell from
# a HEAD's 404, which has no body.
@pytest.mark.parametrize("name", ["put small", "put large", "list", "list prefixes", "read", "stream", "list uploads"])
def test_no_such_bucket(moto_buckets: Buckets, name: str) -> None:
    error = caught(ACTIONS[name], store_at(replace(moto_buckets, raw="no-such-bucket")))
    assert type(error) is StorageError
    assert str(error) == f"there is no bucket no-such-bucket at {moto_buckets.server.endpoint_url}"
    assert "raw.bucket" in (error.hint or "")


# --- credentials


@every_action
@pytest.mark.parametrize("wrong", ["secret", "key"])
def test_refused_credentials(weed_buckets: Buckets, action: Action, wrong: str) -> None:
    server = weed_buckets.server
    secret = Credentials(server.access_key if wrong == "secret" else "nobody", WRONG_SECRET)
    error = caught(action, store_at(weed_buckets, secret))
    assert isinstance(error, CredentialsError)
    assert (error.role, error.exit_code) == ("raw_rw", 4)
    assert f"s3://{weed_buckets.raw}" in str(error)
    assert "credentials.roles.raw_rw" in (error.hint or "")
    assert WRONG_SECRET not in everything_told(error)


@every_action
def test_no_secret_in_any_message(moto_buckets: Buckets, fault_proxy: Proxied, action: Action) -> None:
    proxy = fault_proxy(moto_buckets.server)
    store = store_at(moto_buckets.at(proxy.url), Credentials("key", WRONG_SECRET, TOKEN))
    everything: list[str] = []
    for status, code in ((400, "BadDigest"), (403, "AccessDenied"), (404, "NoSuchBucket"), (500, None)):
        proxy.clear()
        proxy.fail(lambda *_request: True, None, status, code=code)
        everything.append(everything_told(caught(action, store)))
    proxy.clear()
    proxy.reset(lambda *_request: True, None)
    everything.append(everything_told(caught(action, store)))
    assert not [text for text in everything if WRONG_SECRET in text or TOKEN in text or "Signature=" in text]


@pytest.mark.parametrize("name", ["put small", "put large", "list"])
def test_expired_token(moto_buckets: Buckets, fault_proxy: Proxied, name: str) -> None:
    proxy = fault_proxy(moto_buckets.server)
    proxy.fail(lambda *_request: True, None, 400, code="ExpiredToken")
    error = caught(ACTIONS[name], store_at(moto_buckets.at(proxy.url)))
    assert isinstance(error, CredentialsError)
    assert "they have expired" in str(error)


class Keychain:
    """Credentials that were right once: wrong when first read, right (or not) when read again."""

    def __init__(self, server: S3Server, *, mended: bool = True) -> None:
        self.asked: list[bool] = []
        right = Credentials(server.access_key, server.secret_key)
        old = Credentials(server.access_key, WRONG_SECRET)
        self._by_again = {False: old, True: right if mended else old}

    def __call__(self, again: bool) -> Credentials:
        self.asked.append(again)
        return self._by_again[again]

    def store(self, buckets: Buckets) -> S3Store:
        location = S3Location(buckets.server.endpoint_url, buckets.raw, "us-east-1", "raw_rw")
        return S3Store(location, self, RequestCounter())


@pytest.mark.parametrize("name", ["put small", "put large", "list", "create upload"])
def test_an_old_client_reads_credentials_again(
    weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(s3_module, "_FRESH_S", 0.0)
    keychain = Keychain(weed_buckets.server)
    store = keychain.store(weed_buckets)
    assert keychain.asked == []
    ACTIONS[name](store)
    assert keychain.asked == [False, True]
    ACTIONS["list"](store)
    assert keychain.asked == [False, True]


def test_credentials_are_read_again_once(weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "_FRESH_S", 0.0)
    keychain = Keychain(weed_buckets.server, mended=False)
    error = caught(ACTIONS["put small"], keychain.store(weed_buckets))
    assert isinstance(error, CredentialsError)
    assert keychain.asked == [False, True]


def test_many_threads_read_credentials_again_once(weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "_FRESH_S", 0.0)
    keychain = Keychain(weed_buckets.server)
    store = keychain.store(weed_buckets)
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        put(store, f"k{number}", SMALL)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(list(store.list(""))) == 8
    assert sorted(keychain.asked) == [False, True]


def test_a_new_client_does_not_read_credentials_again(weed_buckets: Buckets) -> None:
    keychain = Keychain(weed_buckets.server)
    store = keychain.store(weed_buckets)
    for _ in range(2):
        assert isinstance(caught(ACTIONS["list"], store), CredentialsError)
    assert keychain.asked == [False]


@pytest.mark.parametrize("name", ["put small", "put large", "list"])
def test_without_a_session_token_none_is_sent(moto_buckets: Buckets, fault_proxy: Proxied, name: str) -> None:
    """R2 refuses an empty X-Amz-Security-Token (InvalidArgument), as AWS does."""
    proxy = fault_proxy(moto_buckets.server)
    ACTIONS[name](store_at(moto_buckets.at(proxy.url)))
    assert not [request for request in proxy.log if "x-amz-security-token" in map(str.lower, request.headers)]


@pytest.mark.parametrize("name", ["put small", "put large", "list"])
def test_a_session_token_is_sent(moto_buckets: Buckets, fault_proxy: Proxied, name: str) -> None:
    proxy = fault_proxy(moto_buckets.server)
    ACTIONS[name](store_at(moto_buckets.at(proxy.url), Credentials("key", "secret", TOKEN)))
    for request in proxy.log:
        assert {key.lower(): value for key, value in request.headers.items()}["x-amz-security-token"] == TOKEN


# --- a server that ails


@every_action
def test_what_passes_is_tried_again(moto_buckets: Buckets, fault_proxy: Proxied, action: Action) -> None:
    """One classification for every operation: a busy server, Cloudflare's own errors, a bit that flipped on the way."""
    proxy = fault_proxy(moto_buckets.server)
    store = store_at(moto_buckets.at(proxy.url))
    statuses = [(status, None) for status in (408, 429, 500, 502, 503, 504, *range(520, 528), 530)]
    codes = "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "RequestTimeout", "SlowDown", "InternalError"
    for status, code in [*statuses, *((400, code) for code in codes)]:
        if code and action is ACTIONS["head"]:
            continue  # its answers have no body that could tell a code
        proxy.clear()
        proxy.fail(lambda *_request: True, 1, status, code=code or "Unknown")
        error = caught(action, store)
        assert isinstance(error, TransientError), (status, code, error)
        assert not error.unreachable
        assert proxy.count() == 1


@pytest.mark.parametrize("name", ["put small", "put large", "list"])
def test_an_ailing_server_is_asked_again(moto_buckets: Buckets, fault_proxy: Proxied, name: str) -> None:
    proxy = fault_proxy(moto_buckets.server)
    rule = proxy.fail(lambda *_request: True, 2, 522)
    ACTIONS[name](patient(store_at(moto_buckets.at(proxy.url))))
    assert rule.hits == 2
    assert [request.status for request in proxy.log[:3]] == [522, 522, 200]


@pytest.mark.parametrize("name", ["put small", "put large", "list", "head"])
def test_words_for_an_ailing_server(moto_buckets: Buckets, fault_proxy: Proxied, name: str) -> None:
    proxy = fault_proxy(moto_buckets.server)
    proxy.fail(lambda *_request: True, None, 503)
    error = caught(ACTIONS[name], store_at(moto_buckets.at(proxy.url)))
    assert isinstance(error, TransientError)
    assert not error.unreachable
    # A HEAD's answer has no body that could tell a code.
    assert ("503" if name == "head" else "SlowDown") in str(error)
    assert "it goes on where it stopped" in (error.hint or "")


class Waits(threading.Event):
    """A stop switch that notes how long it was waited on, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return self.is_set()


@pytest.mark.parametrize("name", ["put small", "put large", "list", "stream"])
def test_the_server_says_when_to_come_again(moto_buckets: Buckets, fault_proxy: Proxied, name: str) -> None:
    proxy = fault_proxy(moto_buckets.server)
    store, waits = store_at(moto_buckets.at(proxy.url)), Waits()
    put(store, "k", SMALL)
    proxy.fail(lambda *_request: True, 3, 503, retry_after=7)
    try:
        ACTIONS[name](RetryingStore(store, RetryPolicy(stopped=waits)))
    except PreconditionFailedError:
        assert "put" in name
    assert len(waits.seconds) == 3
    assert all(waited >= 7 for waited in waits.seconds)


def test_the_first_put_is_done_when_it_is_done(moto_buckets: Buckets, fault_proxy: Proxied) -> None:
    """The store asks once how well the server checks; that this question fails says nothing of the object."""
    proxy = fault_proxy(moto_buckets.server)
    rule = proxy.fail("head", None, 503)
    put(store_at(moto_buckets.at(proxy.url)), "k", SMALL, if_absent=True)
    assert rule.hits <= 1


@pytest.mark.parametrize("name", ["put small", "put large", "list", "create upload"])
def test_a_skewed_clock(moto_buckets: Buckets, fault_proxy: Proxied, name: str) -> None:
    proxy = fault_proxy(moto_buckets.server)
    proxy.fail(lambda *_request: True, None, 403, code="RequestTimeTooSkewed")
    store = store_at(moto_buckets.at(proxy.url))
    error = caught(ACTIONS[name], patient(store))
    assert type(error) is StorageError
    assert "this machine's clock" in str(error)
    assert "Set the clock" in (error.hint or "")
    assert proxy.count() == 1


@pytest.mark.parametrize("name", ["put small", "put large", "list", "create upload"])
def test_a_reset_connection(moto_buckets: Buckets, fault_proxy: Proxied, name: str) -> None:
    proxy = fault_proxy(moto_buckets.server)
    proxy.reset(lambda *_request: True, 2)
    ACTIONS[name](patient(store_at(moto_buckets.at(proxy.url))))


@every_action
def test_a_server_that_hangs(moto_buckets: Buckets, fault_proxy: Proxied, action: Action) -> None:
    proxy = fault_proxy(moto_buckets.server)
    proxy.stall(lambda *_request: True, 600, None)
    server = moto_buckets.server
    location = S3Location(proxy.url, moto_buckets.raw, "us-east-1", "raw_rw")
    secret = Credentials(server.access_key, server.secret_key)
    pool = Pool(proxy.url, connect_s=5, read_s=0.2)
    error = caught(action, S3Store(location, lambda _again: secret, RequestCounter(), pool=pool))
    assert isinstance(error, TransientError) and error.unreachable
    assert "timed out" in str(error)


@pytest.mark.parametrize(
    "name",
    ["list", "list prefixes", "read", "stream", "create upload", "list parts", "list uploads", "complete upload"],
)
@pytest.mark.parametrize("after_bytes", [0, 1])
def test_an_answer_that_is_cut(moto_buckets: Buckets, fault_proxy: Proxied, name: str, after_bytes: int) -> None:
    proxy = fault_proxy(moto_buckets.server)
    store = store_at(moto_buckets.at(proxy.url))
    put(store, "k", SMALL)
    proxy.cut(lambda *_request: True, after_bytes)
    assert isinstance(caught(ACTIONS[name], store), TransientError)


@pytest.mark.parametrize("name", ["put small", "put large"])
def test_a_lost_reply_is_a_lost_race(moto_buckets: Buckets, fault_proxy: Proxied, name: str) -> None:
    """The store does not know who was first: the caller compares (``ursa.transfer.upload`` does)."""
    proxy = fault_proxy(moto_buckets.server)
    proxy.lose_reply("put")
    store = store_at(moto_buckets.at(proxy.url))
    with pytest.raises(PreconditionFailedError):
        ACTIONS[name](patient(store))
    assert store.head("k").size_bytes == len(LARGE if name == "put large" else SMALL)


@pytest.mark.parametrize("after_bytes", [0, 1, MIB, 2 * MIB + 7])
def test_a_cut_reply_is_read_on(moto_buckets: Buckets, fault_proxy: Proxied, after_bytes: int) -> None:
    proxy = fault_proxy(moto_buckets.server)
    store = store_at(moto_buckets.at(proxy.url))
    body = bytes(range(256)) * (3 * MIB // 256)
    put(store, "k", body)
    proxy.cut("get", after_bytes)
    assert b"".join(patient(store).stream("k", if_match=store.head("k").etag)) == body
    first, second = (request.headers for request in proxy.log if request.kind == "get")
    asked = {name.lower(): value for name, value in second.items()}
    assert "range" not in {name.lower() for name in first}
    # What had come whole blocks far is not fetched again.
    start = int(asked.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    assert after_bytes - MIB < start <= after_bytes
    assert "if-match" in asked


def test_a_cut_small_object_is_read_again(moto_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(moto_buckets.server)
    store = store_at(moto_buckets.at(proxy.url))
    put(store, "k", LARGE)
    proxy.cut("get", 1000)
    assert isinstance(caught(ACTIONS["read"], store), TransientError)
    proxy.cut("get", 1000)
    assert patient(store).read("k")[0] == LARGE


# --- what else servers say


@every_action
@pytest.mark.parametrize("code", ["QuotaExceeded", "ServiceQuotaExceededException"])
def test_a_quota_is_none_of_the_credentials(
    moto_buckets: Buckets, fault_proxy: Proxied, action: Action, code: str
) -> None:
    if action is ACTIONS["head"]:
        return  # its answer has no body that could tell
    proxy = fault_proxy(moto_buckets.server)
    proxy.fail(lambda *_request: True, None, 403, code=code)
    error = caught(action, patient(store_at(moto_buckets.at(proxy.url))))
    assert type(error) is StorageError
    assert "quota" in str(error) and code in str(error)
    assert proxy.count() == 1


@every_action
@pytest.mark.parametrize("status", [301, 307])
def test_a_bucket_of_another_region(moto_buckets: Buckets, fault_proxy: Proxied, action: Action, status: int) -> None:
    proxy = fault_proxy(moto_buckets.server)
    headers = {"x-amz-bucket-region": "eu-west-1", "Location": "http://127.0.0.1:9/"}
    proxy.fail(lambda *_request: True, None, status, headers, code="PermanentRedirect")
    error = caught(action, patient(store_at(moto_buckets.at(proxy.url))))
    assert type(error) is StorageError
    assert "is in the region eu-west-1, and the config says us-east-1" in str(error)
    assert "region: eu-west-1" in (error.hint or "")
    assert proxy.count() == 1


def test_damaged_bytes_are_refused(weed_buckets: Buckets) -> None:
    """Bytes that are not those of the stated digest stand for bytes that changed on the way."""
    store = store_at(weed_buckets)
    with pytest.raises(StorageError):
        store.put("k", LARGE, sha256=hashlib.sha256(SMALL).hexdigest())
    upload_id = store.create_upload("k")
    with pytest.raises(StorageError):
        store.upload_part("k", upload_id, 1, LARGE, md5=hashlib.md5(SMALL).hexdigest())
    assert list(store.list("")) == []
    assert list(store.list_parts("k", upload_id)) == []


def test_no_such_object(weed_buckets: Buckets) -> None:
    with pytest.raises(NotFoundError, match=f"there is no object s3://{weed_buckets.raw}/a b/k"):
        store_at(weed_buckets).head("a b/k")


def test_a_server_without_multipart_listing(moto_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(moto_buckets.server)
    proxy.fail("list_uploads", None, 404, code="NoSuchUpload")
    assert list(store_at(moto_buckets.at(proxy.url)).list_uploads("rec/")) == []


def test_requests_are_counted_by_class(moto_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(moto_buckets.server)
    counter = RequestCounter()
    store = store_at(moto_buckets.at(proxy.url), counter=counter)
    put(store, "a", SMALL)
    put(store, "b", LARGE)
    before = counter.snapshot()
    sent = proxy.count()
    proxy.fail("put", 1)
    patient_store = patient(store)
    put(patient_store, "c", SMALL)
    put(patient_store, "d", LARGE)
    store.head("a")
    store.read("a")
    list(store.stream("a"))
    list(store.list(""))
    store.abort_upload("e", store.create_upload("e"))
    told = counter.since(before)
    assert told["class_b"] == 3
    assert sum(told.values()) == proxy.count() - sent
