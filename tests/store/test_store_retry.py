"""Retries: how often, how long apart, and when not."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ursa.errors import StorageError
from ursa.store import NotFoundError, ObjectInfo, PreconditionFailedError, Store, TransientError
from ursa.store.local import LocalStore
from ursa.store.retry import RetryingStore, RetryPolicy

MIB = 1 << 20
BODY = bytes(range(256)) * 4096 * 3  # three blocks of a stream


class Waits(threading.Event):
    """A stop switch that notes how long it was waited on, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return self.is_set()


class Flaky:
    """A store whose calls fail as told, one error a call, and then go through."""

    def __init__(self, inner: Store, errors: list[Exception] | Callable[[], Exception]) -> None:
        self._inner = inner
        self._errors = errors
        self.calls = 0
        self.starts: list[tuple[int, str | None]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            self._fail()
            return method(*args, **options)

        return call

    def _fail(self) -> None:
        if callable(self._errors):
            raise self._errors()
        if self._errors:
            raise self._errors.pop(0)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Fails after the first entry, as a listing does between two pages."""
        self.calls += 1
        for count, info in enumerate(self._inner.list(prefix, start_after=start_after)):
            if count == 1:
                self._fail()
            yield info

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        """Gives one block, then fails."""
        self.calls += 1
        self.starts.append((start, if_match))
        for block in self._inner.stream(key, start=start, end=end, if_match=if_match):
            yield block
            self._fail()


def transient(retry_after_s: float | None = None) -> TransientError:
    return TransientError("the server answered 503", key="k", operation="head", retry_after_s=retry_after_s)


@pytest.fixture
def inner(tmp_path: Path) -> Store:
    """A store with objects under ``k``, ``l`` and ``m``."""
    store = LocalStore(tmp_path, "raw")
    for key in ("k", "l", "m"):
        store.put(key, BODY, sha256=hashlib.sha256(BODY).hexdigest())
    return store


@pytest.fixture
def waits() -> Waits:
    return Waits()


def test_until_it_works(inner: Store, waits: Waits) -> None:
    flaky = Flaky(inner, [transient() for _ in range(7)])
    assert RetryingStore(flaky, RetryPolicy(attempts=8, stopped=waits)).head("k").size_bytes == len(BODY)
    assert flaky.calls == 8
    assert len(waits.seconds) == 7


def test_until_the_attempts_are_used_up(inner: Store, waits: Waits) -> None:
    flaky = Flaky(inner, transient)
    with pytest.raises(StorageError, match="503"):
        RetryingStore(flaky, RetryPolicy(attempts=5, stopped=waits)).head("k")
    assert flaky.calls == 5


@pytest.mark.parametrize("error", [StorageError, NotFoundError, PreconditionFailedError, OSError, KeyboardInterrupt])
def test_not_at_all(inner: Store, waits: Waits, error: type[Exception]) -> None:
    flaky = Flaky(inner, lambda: error("no"))
    with pytest.raises(error):
        RetryingStore(flaky, RetryPolicy(stopped=waits)).head("k")
    assert flaky.calls == 1
    assert waits.seconds == []


def test_every_request_is_tried_again(inner: Store, waits: Waits) -> None:
    def store() -> RetryingStore:
        return RetryingStore(Flaky(inner, [transient()]), RetryPolicy(stopped=waits))

    sha256 = hashlib.sha256(b"1").hexdigest()
    md5 = hashlib.md5(b"1").hexdigest()
    store().put("new", b"1", sha256=sha256, if_absent=True)
    assert store().read("new")[0] == b"1"
    assert list(store().list_prefixes("")) == []
    assert [info.key for info in store().list_page("", start_after="k").objects] == ["l", "m", "new"]
    upload_id = store().create_upload("multi", metadata={"sha256": sha256})
    part = store().upload_part("multi", upload_id, 1, b"1", md5=md5)
    assert list(store().list_parts("multi", upload_id)) == [part]
    assert [found.upload_id for found in store().list_uploads("multi")] == [upload_id]
    store().complete_upload("multi", upload_id, [part], if_absent=True)
    assert store().head("multi").sha256 == sha256
    store().abort_upload("multi", upload_id)
    store().delete("multi")
    assert len(waits.seconds) == 12


# --- how long apart


def test_delays_grow_are_random_and_bounded(inner: Store, waits: Waits) -> None:
    flaky = Flaky(inner, transient)
    with pytest.raises(StorageError):
        RetryingStore(flaky, RetryPolicy(attempts=40, max_delay_s=3.0, stopped=waits)).head("k")
    assert len(waits.seconds) == 39
    assert all(0 <= delay <= 3.0 for delay in waits.seconds)
    assert max(waits.seconds[:2]) <= 0.4 < max(waits.seconds)
    assert len(set(waits.seconds)) > 30


@pytest.mark.parametrize(("asked", "least", "most"), [(7.0, 7.0, 7.4), (3600.0, 60.0, 60.0), (0.0, 0.0, 0.4)])
def test_retry_after(inner: Store, waits: Waits, asked: float, least: float, most: float) -> None:
    flaky = Flaky(inner, [transient(asked)])
    RetryingStore(flaky, RetryPolicy(stopped=waits)).head("k")
    (waited,) = waits.seconds
    assert least <= waited <= most


def test_retry_after_of_a_stream(inner: Store, waits: Waits) -> None:
    flaky = Flaky(inner, [transient(7.0)])
    assert b"".join(RetryingStore(flaky, RetryPolicy(stopped=waits)).stream("k")) == BODY
    assert [waited >= 7.0 for waited in waits.seconds] == [True]


def test_a_request_has_a_deadline(inner: Store, waits: Waits) -> None:
    flaky = Flaky(inner, transient)
    with pytest.raises(StorageError):
        RetryingStore(flaky, RetryPolicy(request_deadline_s=0.0, stopped=waits)).head("k")
    assert flaky.calls == 1


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lasting(clock: Clock, seconds: float) -> Callable[[], Exception]:
    """Failures of attempts that take so long."""

    def fail() -> Exception:
        clock.now += seconds
        return transient()

    return fail


@pytest.mark.parametrize("seconds", [61.0, 100.0, 36_000.0])
def test_a_laptop_that_slept_tries_again(inner: Store, waits: Waits, seconds: float) -> None:
    """What was in flight when the lid was closed fails on waking, however late that is."""
    clock, slept = Clock(), False

    def action() -> str:
        nonlocal slept
        if not slept:
            slept = True
            raise lasting(clock, seconds)()
        return "done"

    assert RetryPolicy(stopped=waits, clock=clock).call(action) == "done"
    assert len(waits.seconds) == 1


@pytest.mark.parametrize(("seconds", "calls"), [(40.0, 2), (20.0, 4), (60.0, 2), (90.0, 2)])
def test_a_server_that_hangs_is_given_up(inner: Store, waits: Waits, seconds: float, calls: int) -> None:
    """Its time-outs count in full, so that a command ends within two minutes."""
    clock = Clock()
    flaky = Flaky(inner, lasting(clock, seconds))
    with pytest.raises(StorageError):
        RetryingStore(flaky, RetryPolicy(stopped=waits, clock=clock, max_delay_s=0.0)).head("k")
    assert flaky.calls == calls


def test_what_was_waited_counts(inner: Store, waits: Waits) -> None:
    flaky = Flaky(inner, lambda: transient(30.0))
    with pytest.raises(StorageError):
        RetryingStore(flaky, RetryPolicy(stopped=waits, clock=Clock(), max_delay_s=0.0)).head("k")
    assert len(waits.seconds) == 3  # 30, 60, 90 of 75


# --- one budget


def test_the_budget_is_for_all_requests_together(inner: Store, waits: Waits) -> None:
    policy = RetryPolicy(attempts=8, budget=5, stopped=waits)
    RetryingStore(Flaky(inner, [transient() for _ in range(3)]), policy).head("k")
    spent = Flaky(inner, transient)
    with pytest.raises(StorageError):
        RetryingStore(spent, policy).read("k")
    assert spent.calls == 3  # the first try, and the two retries that were left
    after = Flaky(inner, transient)
    with pytest.raises(StorageError):
        RetryingStore(after, policy).head("k")
    with pytest.raises(StorageError):
        list(RetryingStore(after, policy).stream("k"))
    assert after.calls == 2


# --- stopping


def test_stopped_before_nothing_is_tried_again(inner: Store, waits: Waits) -> None:
    waits.set()
    flaky = Flaky(inner, transient)
    store = RetryingStore(flaky, RetryPolicy(stopped=waits))
    with pytest.raises(StorageError):
        store.head("k")
    with pytest.raises(StorageError):
        list(store.stream("k"))
    assert flaky.calls == 2
    assert waits.seconds == []


@pytest.mark.parametrize("action", ["head", "stream"])
def test_stop_ends_waiting_at_once(inner: Store, action: str) -> None:
    stop, waiting = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    def error() -> TransientError:
        waiting.set()
        return transient(60.0)

    # A stream waits up to max_delay_s, a request as long as the server asked for: a minute either way.
    store = RetryingStore(Flaky(inner, error), RetryPolicy(attempts=50, max_delay_s=60.0, stopped=stop))

    def run() -> None:
        try:
            store.head("k") if action == "head" else list(store.stream("k"))
        except StorageError as reached:
            caught.append(reached)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert waiting.wait(30)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    assert len(caught) == 1


# --- what is not repeated


def test_a_stream_goes_on_where_it_was_cut(inner: Store, waits: Waits) -> None:
    flaky = Flaky(inner, [transient(), transient()])
    etag = inner.head("k").etag
    store = RetryingStore(flaky, RetryPolicy(stopped=waits))
    assert b"".join(store.stream("k", start=5, end=len(BODY) - 5, if_match=etag)) == BODY[5:-5]
    assert flaky.starts == [(5, etag), (MIB + 5, etag), (2 * MIB + 5, etag)]


def test_a_stream_that_comes_forward_may_fail_more_often(inner: Store, waits: Waits) -> None:
    flaky = Flaky(inner, [transient() for _ in range(3)])
    assert b"".join(RetryingStore(flaky, RetryPolicy(attempts=2, stopped=waits)).stream("k")) == BODY


def test_a_stream_that_does_not_come_forward_ends(tmp_path: Path, waits: Waits) -> None:
    calls = 0

    class Stuck(LocalStore):
        def stream(self, key: str, **_options: Any) -> Iterator[bytes]:
            nonlocal calls
            calls += 1
            yield from ()
            raise transient()

    with pytest.raises(StorageError):
        list(RetryingStore(Stuck(tmp_path, "raw"), RetryPolicy(attempts=4, stopped=waits)).stream("k"))
    assert calls == 4
    assert len(waits.seconds) == 3


def test_a_stream_of_a_replaced_object_ends(inner: Store, waits: Waits) -> None:
    flaky = Flaky(inner, [transient()])
    stream = RetryingStore(flaky, RetryPolicy(stopped=waits)).stream("k", if_match=inner.head("k").etag)
    assert len(next(stream)) == MIB
    inner.put("k", b"other", sha256=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(PreconditionFailedError):
        next(stream)


def test_a_listing_repeats_nothing(inner: Store, waits: Waits) -> None:
    flaky = Flaky(inner, [transient()])
    assert [info.key for info in RetryingStore(flaky, RetryPolicy(stopped=waits)).list("")] == ["k", "l", "m"]
    assert flaky.calls == 2


def test_uri_is_the_inner_one(inner: Store) -> None:
    assert RetryingStore(inner, RetryPolicy()).uri == inner.uri
