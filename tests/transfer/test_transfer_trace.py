"""How a link was used: bytes over time in bounded memory, and what idle time went to."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tap import BIG, comparing, item, make_file, send

from ursa.store.local import LocalStore
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.trace import MOST_BUCKETS, Stage, Trace
from ursa.transfer.upload import upload


class Clock:
    """Moved by the test."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def pass_(self, seconds: float) -> None:
        """Let so much time go by."""
        self.now_s += seconds


def test_idle_time_goes_to_what_is_being_done() -> None:
    clock = Clock()
    trace = Trace(monotonic=clock)
    clock.pass_(1)
    with trace.stage(Stage.SCAN):
        clock.pass_(2)
    with trace.sending(100), trace.stage(Stage.HASH):
        clock.pass_(10)
    with trace.stage(Stage.COMMIT), trace.stage(Stage.TIDY):
        clock.pass_(6)
    with trace.stage(Stage.COMMIT):
        clock.pass_(1)
        told = trace.told()
    assert told.idle_s == {Stage.OTHER: 1, Stage.SCAN: 2, Stage.COMMIT: 4, Stage.TIDY: 3}
    assert (told.seconds, told.idle_share, told.mostly, told.bytes_sent) == (20, 0.5, Stage.COMMIT, 100)
    assert sum(told.idle) == pytest.approx(10)


def test_a_stage_of_many_threads_counts_once() -> None:
    clock = Clock()
    trace = Trace(monotonic=clock)
    with trace.stage(Stage.HASH), trace.stage(Stage.HASH), trace.stage(Stage.LIST):
        clock.pass_(4)
    assert trace.told().idle_s == {Stage.HASH: 2, Stage.LIST: 2}


def test_the_link_is_busy_as_long_as_one_request_is_on_its_way() -> None:
    clock = Clock()
    trace = Trace(monotonic=clock)
    with trace.sending(10):
        clock.pass_(1)
        with trace.sending(10):
            clock.pass_(1)
        clock.pass_(1)
    told = trace.told()
    assert (told.idle_share, told.mostly, told.bytes_sent) == (0, None, 20)


def test_bytes_are_spread_over_the_time_that_they_took() -> None:
    clock = Clock()
    trace = Trace(monotonic=clock)
    clock.pass_(0.5)
    with trace.sending(1000):
        clock.pass_(1)
    assert trace.told().sent[:6] == (0, 0, 250, 250, 250, 250)


def test_what_failed_has_sent_nothing_and_leaves_the_link_idle() -> None:
    clock = Clock()
    trace = Trace(monotonic=clock)
    with pytest.raises(OSError, match="gone"), trace.sending(1000):
        clock.pass_(1)
        raise OSError("gone")
    with pytest.raises(OSError, match="gone"), trace.stage(Stage.HASH):
        raise OSError("gone")
    clock.pass_(1)
    told = trace.told()
    assert (told.bytes_sent, told.idle_s) == (0, {Stage.OTHER: 1})


def test_a_run_begins_anew_with_what_is_still_on_its_way() -> None:
    clock = Clock()
    trace = Trace(monotonic=clock)
    clock.pass_(5)
    with trace.sending(100):
        clock.pass_(5)
        trace.begin()
        clock.pass_(5)
    told = trace.told()
    assert (told.seconds, told.idle_share, told.bytes_sent) == (5, 0, 100)


def test_what_comes_after_the_end_is_not_the_runs() -> None:
    clock = Clock()
    trace = Trace(monotonic=clock)
    clock.pass_(2)
    with trace.sending(100):
        clock.pass_(2)
        trace.end()
    with trace.sending(100), trace.stage(Stage.HASH):
        clock.pass_(5)
    clock.pass_(5)
    told = trace.told()
    assert (told.seconds, told.idle_s, told.bytes_sent) == (4, {Stage.OTHER: 2}, 0)
    trace.begin()
    with trace.sending(100):
        clock.pass_(1)
    assert (trace.told().seconds, trace.told().bytes_sent) == (1, 100)


def test_nothing_of_a_run_that_has_not_begun() -> None:
    told = Trace(monotonic=Clock()).told()
    assert (told.seconds, told.idle_share, told.mostly, told.bytes_sent) == (0, 0, None, 0)


@given(st.lists(st.tuples(st.sampled_from(["wait", "send", "fail"]), st.floats(0, 1e5), st.integers(0, 1 << 40))))
def test_memory_is_bounded_and_nothing_is_lost(steps: list[tuple[str, float, int]]) -> None:
    clock = Clock()
    trace = Trace(monotonic=clock)
    sent = idle_s = 0.0
    for what, seconds, size in steps:
        if what == "wait":
            clock.pass_(seconds)
            idle_s += seconds
            continue
        with trace.sending(size if what == "send" else 0):
            clock.pass_(seconds)
        sent += size if what == "send" else 0
    told = trace.told()
    assert len(told.sent) == len(told.idle) <= MOST_BUCKETS
    assert told.bytes_sent == pytest.approx(sent, rel=1e-9, abs=1)
    assert sum(told.idle_s.values()) == pytest.approx(idle_s, rel=1e-6, abs=1e-6)
    assert sum(told.idle) == pytest.approx(idle_s, rel=1e-6, abs=MOST_BUCKETS / 1000)
    assert all(idle <= told.bucket_s + 0.001 for idle in told.idle)


def test_many_threads_lose_no_byte() -> None:
    trace = Trace()

    def work() -> None:
        for _ in range(500):
            with trace.stage(Stage.HASH):
                pass
            with trace.sending(7):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = trace.told()
    assert told.bytes_sent == 8 * 500 * 7
    assert sum(told.idle_s.values()) <= told.seconds + 0.01


def test_uploads_are_noted_by_what_went_out(tmp_path: Path) -> None:
    """A file that is in the store already has not gone out."""
    store = LocalStore(tmp_path / "store", "raw")
    files = [make_file(tmp_path / "big", BIG), make_file(tmp_path / "small", b"x" * 1000)]
    there = make_file(tmp_path / "there", b"y" * 500)
    send(store, [item(there)])
    with Engine(transfers=2) as engine:
        items = [item(file) for file in (*files, there)]
        upload(
            engine,
            store,
            items,
            stop=Stop(),
            open_uploads={},
            compare=comparing(store),
            on_event=lambda _event: None,
        )
        told = engine.trace.told()
    assert told.bytes_sent == len(BIG) + 1000
    assert set(told.idle_s) <= {Stage.HASH, Stage.SERVER, Stage.OTHER}
