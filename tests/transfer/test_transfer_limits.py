"""Bandwidth, memory and requests in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import working
from ursa.errors import UsageError
from ursa.transfer.engine import FEWEST_TRANSFERS, MOST_TRANSFERS, Engine, LargeFiles, Stop, Window
from ursa.transfer.limits import BandwidthLimit, MemoryBudget, parse_rate, parse_timetable

MIB = 1 << 20


class Waits(threading.Event):
    """A stop switch that notes how long it was waited on, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return self.is_set()


# --- reading them


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("20M", 20 * MIB),
        ("20m", 20 * MIB),
        ("512K", 512 << 10),
        ("1.5G", 1.5 * (1 << 30)),
        ("100", 100),
        ("100B", 100),
        ("20MiB/s", 20 * MIB),
        ("20MB/s", 20 * MIB),
        (" 20M ", 20 * MIB),
        ("off", None),
        ("OFF", None),
    ],
)
def test_rates(text: str, rate: float | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "0M", "-5M", "M", "20X", "20 M M", "1e6", "nan", "inf", "5,5M", "20M off"])
def test_no_rates(text: str) -> None:
    with pytest.raises(UsageError, match="bandwidth") as caught:
        parse_rate(text)
    assert "20M" in (caught.value.hint or "")


@given(st.text(max_size=12))
def test_any_text_is_a_rate_or_a_usage_error(text: str) -> None:
    for parse in (parse_rate, parse_timetable):
        try:
            parsed = parse(text)
        except UsageError as error:
            assert error.hint
        else:
            assert parsed is None or parsed


@given(st.integers(1, 10**6), st.sampled_from(["", "K", "M", "G"]))
def test_units(count: int, unit: str) -> None:
    assert parse_rate(f"{count}{unit}") == count * 1024 ** " KMG".index(unit or " ")


def test_timetables() -> None:
    assert parse_timetable("20M") == ((time(0), 20 * MIB),)
    assert parse_timetable("off") == ((time(0), None),)
    wanted = ((time(8), 5 * MIB), (time(19), None))
    assert parse_timetable("08:00,5M 19:00,off") == parse_timetable("19:00,off  08:00,5M") == wanted


@pytest.mark.parametrize("text", ["8am,5M", "08:00,", "25:00,5M", ",5M", "08:00,5M 19:00", "08:00,5M,19:00,off", ","])
def test_no_timetables(text: str) -> None:
    with pytest.raises(UsageError):
        parse_timetable(text)


# --- the time of day


def at(hour: int, minute: int = 0) -> Callable[[], datetime]:
    return lambda: datetime(2026, 5, 20, hour, minute)


@pytest.mark.parametrize(
    ("hour", "minute", "rate"), [(7, 59, None), (8, 0, 5 * MIB), (12, 0, 5 * MIB), (18, 59, 5 * MIB), (19, 0, None)]
)
def test_the_rate_follows_the_clock(hour: int, minute: int, rate: float | None) -> None:
    limit = BandwidthLimit(parse_timetable("08:00,5M 19:00,off"), now=at(hour, minute))
    assert limit.rate() == rate


def test_before_the_first_entry_yesterdays_last_holds() -> None:
    assert BandwidthLimit(parse_timetable("08:00,off 19:00,5M"), now=at(3)).rate() == 5 * MIB


@given(st.dictionaries(st.times(), st.integers(1, 10**9), min_size=1, max_size=6), st.times())
def test_the_last_entry_that_has_begun_holds(entries: dict[time, int], moment: time) -> None:
    table = tuple(sorted(entries.items()))
    rate = BandwidthLimit(table, now=lambda: datetime.combine(datetime(2026, 5, 20), moment)).rate()
    begun = [start for start in entries if start <= moment]
    assert rate == entries[max(begun or entries)]


# --- the bucket


def test_no_limit_waits_for_nothing() -> None:
    for limit in (BandwidthLimit(), BandwidthLimit(parse_timetable("off"))):
        waits = Waits()
        limit.wait(1 << 40, waits)
        assert waits.seconds == []


@given(st.lists(st.integers(0, 10 * MIB), max_size=20))
def test_all_bytes_share_one_rate(counts: list[int]) -> None:
    waits = Waits()
    limit = BandwidthLimit(parse_timetable("1M"), monotonic=lambda: 100.0)
    for count in counts:
        limit.wait(count, waits)
    sums = [sum(counts[:index]) / MIB for index in range(len(counts))]
    assert waits.seconds == pytest.approx(sums)


def test_idle_time_is_not_saved_up() -> None:
    now, waits = [0.0], Waits()
    limit = BandwidthLimit(parse_timetable("1M"), monotonic=lambda: now[0])
    limit.wait(MIB, waits)
    now[0] = 1000.0
    limit.wait(MIB, waits)
    limit.wait(MIB, waits)
    assert waits.seconds == pytest.approx([0, 0, 1])


def test_stop_ends_the_wait() -> None:
    stop = threading.Event()
    limit = BandwidthLimit(parse_timetable("1"))
    limit.wait(10_000, stop)
    thread = threading.Thread(target=limit.wait, args=(1, stop), daemon=True)
    thread.start()
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


# --- memory


def test_memory_waits_for_a_release() -> None:
    budget, stop = MemoryBudget(10), Stop()
    assert budget.acquire(6, stop)
    taken = threading.Event()

    def take() -> None:
        if budget.acquire(6, stop):
            taken.set()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    assert not taken.wait(0.05)
    budget.release(6)
    assert taken.wait(30)


def test_more_than_all_waits_for_all() -> None:
    budget, stop = MemoryBudget(10), Stop()
    assert budget.acquire(1_000, stop)
    stop.set()
    assert not budget.acquire(1, stop)
    budget.release(1_000)
    assert budget.acquire(10, stop)


def test_stop_ends_waiting_for_memory() -> None:
    budget, stop = MemoryBudget(10), Stop()
    assert budget.acquire(10, stop)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(budget.acquire(1, stop)), daemon=True)
    thread.start()
    stop.set()
    thread.join(30)
    assert answers == [False]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_never_more_than_the_capacity(counts: list[int]) -> None:
    budget, stopped = MemoryBudget(20), Stop()
    stopped.set()  # so that what does not fit is refused at once
    held: list[int] = []
    for count in counts:
        if budget.acquire(count, stopped):
            held.append(min(count, 20))
        elif held:
            budget.release(held.pop(0))
        assert sum(held) <= 20
    for count in held:
        budget.release(count)
    assert budget.acquire(20, stopped)


def test_buffers_are_handed_out_again() -> None:
    budget = MemoryBudget(100)
    first = budget.buffer(40)
    assert len(first) >= 40
    budget.give_back(first)
    assert budget.buffer(30) is first
    assert budget.buffer(30) is not first


@example([60, 50])
@given(st.lists(st.integers(2, 60), max_size=40))
def test_kept_buffers_are_bounded(sizes: list[int]) -> None:
    """By the capacity, whatever the mixture of part sizes and last parts."""
    budget = MemoryBudget(100)
    for buffer in [budget.buffer(size) for size in sizes]:
        budget.give_back(buffer)
    kept = 0
    while (buffer := budget.buffer(1)) and len(buffer) > 1:
        kept += len(buffer)
    assert kept <= 100


# --- requests in flight


def test_a_fixed_window() -> None:
    window, stop = Window(2), Stop()
    assert window.size == 2
    assert window.enter(stop)
    assert window.enter(stop)
    stop.set()
    assert not window.enter(stop)
    window.leave()
    assert window.enter(stop)


def test_the_window_follows_the_link() -> None:
    window = Window(None)
    assert window.size == FEWEST_TRANSFERS
    with window.timed():
        pass
    assert window.size == FEWEST_TRANSFERS
    for shortest, size in ((1.0, MOST_TRANSFERS), (0.02, 40), (0.0001, FEWEST_TRANSFERS)):
        window._shortest_s = shortest
        assert window.size == size


def test_the_first_round_trip_opens_the_window() -> None:
    """A listing tells before the first file goes: a distant server gets its hundred requests at once."""
    window = Window(None)
    with window.timed():
        pass
    window._shortest_s = 0.05
    assert window.size == 100


def test_no_more_requests_than_are_answered_in_a_second() -> None:
    window, stop = Window(None), Stop()
    window._shortest_s = 0.1
    for _ in range(100):
        assert window.enter(stop)
    for answered_per_s, size in ((1_000.0, 200), (50.0, 50), (1.0, FEWEST_TRANSFERS)):
        window._per_s = answered_per_s
        assert window.size == size
    before = window._per_s
    with window.timed():
        pass
    assert window._per_s > before


def test_an_engine_leaves_no_thread() -> None:
    before = working()
    with Engine(transfers=3) as engine:
        assert [engine.submit(lambda: 1).result() for _ in range(10)] == [1] * 10
    assert working() <= before


def test_stop_keeps_the_first_error() -> None:
    stop = Stop()
    first = LookupError("first")
    stop.fail(first)
    stop.fail(LookupError("second"))
    assert stop.is_set()
    assert stop.error is first
    asked = Stop()
    asked.set()
    asked.fail(first)
    assert asked.error is None


def test_a_long_file_has_its_turn_among_short_ones() -> None:
    """In the order in which they came: whoever comes later waits behind it."""
    turns, stop = LargeFiles(), Stop()
    first = [20 * MIB] * 12
    assert all(turns.enter(size, stop) for size in first)
    order: list[str] = []

    def enter(name: str, size: int) -> None:
        if turns.enter(size, stop):
            order.append(name)

    long = threading.Thread(target=enter, args=("long", 500 << 30))
    long.start()
    while not turns._queue:
        threading.Event().wait(0.001)
    short = threading.Thread(target=enter, args=("short", 20 * MIB))
    short.start()
    while len(turns._queue) < 2:
        threading.Event().wait(0.001)
    for size in first[:-3]:
        assert order == []
        turns.leave(size)
    long.join(30)
    assert order == ["long"]
    stop.set()
    short.join(30)
    assert not short.is_alive()


def test_a_turn_that_is_waited_for_ends_with_the_run() -> None:
    turns, stop = LargeFiles(), Stop()
    assert all(turns.enter(100 * MIB, stop) for _ in range(4))
    threading.Timer(0.1, stop.set).start()
    assert not turns.enter(100 * MIB, stop)
    turns.leave(100 * MIB)
    assert turns.enter(100 * MIB, Stop())
