"""How a server treats conditions and checksums: asked once, believed where it was seen, refused in words where it fails."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets, make_buckets
from proxy import FaultProxy
from servers import S3Server, rclone_sink
from ursa.credentials import Credentials
from ursa.errors import CredentialsError, StorageError
from ursa.names import host_in_key
from ursa.policies import Evidence
from ursa.store import Store, TransientError, conduct
from ursa.store.conduct import ASK_AGAIN_S, PROBE_DIR, Conduct, KnownConduct
from ursa.store.counting import RequestCounter
from ursa.store.protocol import Page, Part
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.store.s3 import S3Location, S3Store

MIB = 1 << 20
Proxied = Callable[[S3Server], FaultProxy]
GOOD = Conduct(conditions=True, checks_sha256=True)


class Notebook:
    """Notes of one machine."""

    def __init__(self) -> None:
        self.notes: dict[tuple[str, str], Mapping[str, Any]] = {}

    def note(self, topic: str, about: str) -> Mapping[str, Any] | None:
        return self.notes.get((topic, about))

    def put_note(self, topic: str, about: str, value: Mapping[str, Any] | None) -> None:
        self.notes.pop((topic, about), None)
        if value is not None:
            self.notes[topic, about] = value


@pytest.fixture
def another_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forgets what only this process knows."""
    return lambda: monkeypatch.setattr(conduct, "_PROCESSES", {})


@pytest.fixture
def rclone_buckets(tmp_path: Path) -> Iterator[Buckets]:
    with rclone_sink(tmp_path / "rclone") as server:
        yield make_buckets(server)


def store_at(buckets: Buckets, notes: Notebook | None = None, role: str = "raw_rw") -> S3Store:
    server = buckets.server
    location = S3Location(server.endpoint_url, buckets.raw, "us-east-1", role)
    known = KnownConduct(notes, server.endpoint_url, buckets.raw, "recordings/")
    return S3Store(location, lambda _again: Credentials(server.access_key, server.secret_key), RequestCounter(), known)


def put(store: Store, key: str, body: bytes = b"1") -> Evidence:
    return store.put(key, body, sha256=hashlib.sha256(body).hexdigest(), if_absent=True).evidence


def probes(proxy: FaultProxy) -> list[str]:
    return [entry.method for entry in proxy.log if entry.kind == "probe"]


# --- what is asked, and how often


def test_four_puts_and_nothing_left(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    store = store_at(weed_buckets.at(proxy.url))
    assert store.conduct() == GOOD
    asked = [entry for entry in proxy.log if entry.method == "PUT"]
    # Two and two go side by side.
    assert [sorted(entry.status for entry in asked[i : i + 2]) for i in (0, 2)] == [[200, 400], [412, 412]]
    assert all(f"/recordings/{PROBE_DIR}" in entry.path for entry in asked)
    new = next(entry.path for entry in asked if entry.status == 200)
    assert [entry.path for entry in asked if entry.status != 400] == [new] * 3
    # Beside the DELETE it looks for what killed runs have left.
    assert probes(proxy) == ["PUT"] * 4 + ["DELETE"]
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    ("host", "pid", "age_s", "stays"),
    [
        ("here", "dead", 0, False),
        ("here", "alive", 0, True),
        ("elsewhere", "dead", 0, True),
        ("elsewhere", "dead", 25 * 3600, False),
        ("here", "not a number", 0, True),
        ("of the same name", "dead", 0, True),
    ],
)
def test_what_a_killed_probe_left_is_removed(
    moto_buckets: Buckets, monkeypatch: pytest.MonkeyPatch, host: str, pid: str, age_s: float, stays: bool
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    number = {"dead": str(ended.pid), "alive": str(os.getppid())}.get(pid, "1x")
    named = {"here": conduct._here(), "of the same name": f"{host_in_key()}-01234567"}.get(host, host)
    key = f"recordings/{PROBE_DIR}{named}_{number}_0a1b-2"
    store = store_at(moto_buckets)
    moto_buckets.server.client().put_object(Bucket=moto_buckets.raw, Key=key, Body=b"ursa")
    listed = S3Store.list_page

    def later(self: S3Store, prefix: str, **how: Any) -> Page:
        page = listed(self, prefix, **how)
        assert page.now is not None
        return replace(page, now=page.now + timedelta(seconds=age_s))

    monkeypatch.setattr(S3Store, "list_page", later)
    store.conduct()
    assert [info.key for info in store.list("recordings/")] == ([key] if stays else [])


def test_once_a_process_and_once_a_machine(
    weed_buckets: Buckets, fault_proxy: Proxied, another_process: Callable[[], None]
) -> None:
    proxy, notes = fault_proxy(weed_buckets.server), Notebook()
    buckets = weed_buckets.at(proxy.url)
    first = store_at(buckets, notes)
    for number in range(3):
        assert put(first, f"a{number}") is Evidence.SHA256
    assert put(store_at(buckets), "b") is Evidence.SHA256
    assert probes(proxy).count("PUT") == 4
    another_process()
    assert put(store_at(buckets, notes), "c") is Evidence.SHA256
    assert probes(proxy).count("PUT") == 4
    another_process()
    assert put(store_at(buckets), "d") is Evidence.SHA256
    assert probes(proxy).count("PUT") == 8


@pytest.mark.parametrize(
    "change",
    [{"at": time.time() - ASK_AGAIN_S - 1}, {"at": time.time() + 86_400}, {"at": "x"}, {"checks_sha256": 1}, {"conditions": "y"}],
    ids=["old", "of the future", "no time", "no bool", "no conditions"],
)  # fmt: skip
def test_a_note_that_does_not_count(
    weed_buckets: Buckets, fault_proxy: Proxied, another_process: Callable[[], None], change: dict[str, Any]
) -> None:
    proxy, notes = fault_proxy(weed_buckets.server), Notebook()
    store_at(weed_buckets.at(proxy.url), notes).conduct()
    ((about, noted),) = notes.notes.items()
    assert about == ("server", f"{proxy.url}/{weed_buckets.raw}")
    notes.notes[about] = {**noted, **change}
    another_process()
    assert store_at(weed_buckets.at(proxy.url), notes).conduct() == GOOD
    assert probes(proxy).count("PUT") == 8


def test_threads_ask_once(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    store, start = store_at(weed_buckets.at(proxy.url)), threading.Barrier(8)

    def write(number: int) -> Evidence:
        start.wait()
        return put(store, f"k{number}")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(8))) == {Evidence.SHA256}
    assert probes(proxy).count("PUT") == 4


def test_a_fresh_look_is_asked_again(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    store = store_at(weed_buckets.at(proxy.url))
    assert store.conduct() == store.conduct(fresh=True) == GOOD
    assert probes(proxy).count("PUT") == 8


def test_reading_asks_nothing(weed_buckets: Buckets, fault_proxy: Proxied, another_process: Callable[[], None]) -> None:
    notes = Notebook()
    put(store_at(weed_buckets, notes), "k")
    another_process()
    proxy = fault_proxy(weed_buckets.server)
    reader = store_at(weed_buckets.at(proxy.url), notes, role="raw_ro")
    # Another endpoint is another server: nothing is known of it.
    assert reader.head("k").checked_sha256 is None
    list(reader.list("")), reader.read("k")
    assert proxy.count("put", "probe") == 0
    about, noted = notes.notes.popitem()
    notes.put_note(about[0], f"{proxy.url}/{weed_buckets.raw}", noted)
    assert reader.head("k").checked_sha256 == hashlib.sha256(b"1").hexdigest()
    assert proxy.count("put", "probe") == 0


# --- servers that fail it


def test_an_echoed_checksum_proves_nothing(moto_buckets: Buckets) -> None:
    """moto answers 200 to a wrong checksum and tells it again."""
    store = store_at(moto_buckets)
    assert store.conduct() == Conduct(conditions=True, checks_sha256=False)
    for body in (b"small", bytes(MIB + 1)):
        assert put(store, f"k{len(body)}", body) is Evidence.ETAG
        assert store.head(f"k{len(body)}").checked_sha256 is None
    assert {info.key for info in store.list("")} == {"k5", f"k{MIB + 1}"}


def test_a_store_that_asks_nobody_believes_no_checksum(weed_buckets: Buckets) -> None:
    server = weed_buckets.server
    location = S3Location(server.endpoint_url, weed_buckets.raw, "us-east-1", "raw_rw")
    store = S3Store(location, lambda _again: Credentials(server.access_key, server.secret_key), RequestCounter())
    for body in (b"small", bytes(MIB + 1)):
        assert put(store, f"k{len(body)}", body) is Evidence.ETAG
    assert store.head("k5").checked_sha256 is None


WRITES: dict[str, Callable[[Store], object]] = {
    "put": lambda store: put(store, "recordings/k"),
    "put large": lambda store: put(store, "recordings/k", bytes(MIB + 1)),
    "create upload": lambda store: store.create_upload("recordings/k"),
    "upload part": lambda store: store.upload_part("recordings/k", "1", 1, b"1", md5=hashlib.md5(b"1").hexdigest()),
    "complete upload": lambda store: store.complete_upload("recordings/k", "1", [Part(1, 1, "e")], if_absent=True),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_server_that_ignores_conditions_is_not_written_to(
    rclone_buckets: Buckets, fault_proxy: Proxied, tmp_path: Path, name: str
) -> None:
    proxy, notes = fault_proxy(rclone_buckets.server), Notebook()
    store = RetryingStore(store_at(rclone_buckets.at(proxy.url), notes), RetryPolicy())
    for _ in range(2):
        with pytest.raises(StorageError) as raised:
            WRITES[name](store)
        assert f"{proxy.url} ignores conditions in the bucket {rclone_buckets.raw}" in str(raised.value)
        assert "(If-None-Match: *, If-Match)" in str(raised.value) and "R2 does" in (raised.value.hint or "")
        assert raised.value.exit_code == 1 and type(raised.value) is StorageError
    assert [entry for entry in proxy.log if PROBE_DIR not in entry.path + entry.query.get("prefix", "")] == []
    assert probes(proxy).count("PUT") >= 4  # rclone may answer 500 to one of two writes of a key
    assert list(store.list("")) == []
    assert [path for path in (tmp_path / "rclone" / "data").rglob("*") if path.is_file()] == []
    # A server that is fixed must not be refused for a month.
    assert notes.notes == {}


@pytest.mark.parametrize(("nth", "ignored"), [
    (0, {"If-None-Match: * on a new key, which it answered with 501"}),
    (1, {"If-None-Match: *", "If-Match"}),
])  # fmt: skip
def test_a_condition_that_is_not_known_there(
    weed_buckets: Buckets, fault_proxy: Proxied, nth: int, ignored: set[str]
) -> None:
    proxy = fault_proxy(weed_buckets.server)
    count = iter(range(10))
    # The probe's second key: the first request asks alone, which of the next two comes first nobody knows.
    proxy.fail(lambda _, path, *__: path.endswith("-2") and next(count) == nth, 1, 501, code="NotImplemented")
    found = store_at(weed_buckets.at(proxy.url)).conduct()
    assert found is not None and not found.conditions and ignored & {*found.ignored}


# --- what is no answer


@pytest.mark.parametrize("nth", range(4))
@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_ailing_server_answers_nothing(weed_buckets: Buckets, fault_proxy: Proxied, nth: int, status: int) -> None:
    proxy = fault_proxy(weed_buckets.server)
    count = iter(range(100))
    proxy.fail(lambda method, *_: method == "PUT" and nth <= next(count) < nth + 2, 2, status, retry_after=0)
    store = store_at(weed_buckets.at(proxy.url))
    assert put(RetryingStore(store, RetryPolicy(max_delay_s=0.01)), "k") is Evidence.SHA256
    assert store.conduct() == GOOD
    # What was answered is not asked again.
    assert probes(proxy).count("PUT") == 6
    assert [info.key for info in store.list("")] == ["k"]


@pytest.mark.parametrize("nth", range(4))
def test_a_lost_reply_answers_nothing(weed_buckets: Buckets, fault_proxy: Proxied, nth: int) -> None:
    proxy = fault_proxy(weed_buckets.server)
    count = iter(range(100))
    proxy.lose_reply(lambda method, *_: method == "PUT" and next(count) == nth)
    store = store_at(weed_buckets.at(proxy.url))
    assert put(RetryingStore(store, RetryPolicy(max_delay_s=0.01)), "k") is Evidence.SHA256
    assert store.conduct() == GOOD
    assert [info.key for info in store.list("")] == ["k"]


def test_a_key_that_may_not_write(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    proxy.fail("probe", None, 403)
    store = store_at(weed_buckets.at(proxy.url))
    with pytest.raises(CredentialsError, match="role raw_rw"):
        put(store, "k")
    assert proxy.count() == 2  # side by side
    proxy.clear()
    assert put(store, "k") is Evidence.SHA256


def test_no_answer_at_all(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    store = store_at(weed_buckets.at(proxy.url))
    proxy.down()
    with pytest.raises(TransientError) as raised:
        put(store, "k")
    assert raised.value.unreachable
    proxy.up()
    assert put(store, "k") is Evidence.SHA256


def test_no_such_bucket(moto_buckets: Buckets) -> None:
    with pytest.raises(StorageError, match="there is no bucket nobody-made-this"):
        put(store_at(replace(moto_buckets, raw="nobody-made-this")), "k")


def test_an_object_that_can_not_be_deleted_does_no_harm(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    proxy.fail(lambda method, *_: method == "DELETE", None, 403)
    store = store_at(weed_buckets.at(proxy.url))
    assert put(store, "recordings/k") is Evidence.SHA256
    left = [info.key for info in store.list("") if info.key != "recordings/k"]
    assert len(left) == 1 and left[0].startswith(f"recordings/{PROBE_DIR}")
