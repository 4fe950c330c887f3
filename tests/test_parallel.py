"""The one runner: order, how many are under way, what ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ursa import beside, parallel
from ursa.parallel import as_they_come, awaited, by_executor, in_order
from ursa.transfer.engine import Stop


class Action:
    """Doubles; keeps what is under way, and the most that ever was. ``hold``: waits for this."""

    def __init__(self, hold: threading.Event | None = None) -> None:
        self.hold = hold
        self.now = self.most = 0
        self.begun: list[int] = []
        self._lock = threading.Lock()

    def __call__(self, number: int) -> int:
        with self._lock:
            self.begun.append(number)
            self.now += 1
            self.most = max(self.most, self.now)
        if self.hold is not None:
            self.hold.wait(30)
        else:
            time.sleep(0.001 * (number % 3))
        with self._lock:
            self.now -= 1
        return 2 * number


def test_results_come_in_order_and_not_more_than_so_many_are_under_way() -> None:
    action = Action()
    assert list(in_order(Stop(), action, range(100), lambda: 7)) == [2 * number for number in range(100)]
    assert 1 < action.most <= 7
    assert sorted(as_they_come(Stop(), Action(), range(100), lambda: 7)) == [2 * number for number in range(100)]
    assert list(in_order(Stop(), action, [], lambda: 7)) == []


def test_items_are_taken_as_their_turn_comes() -> None:
    """However many there are, a few are in memory: twice as many as are under way, for one that waits."""
    hold, taken = threading.Event(), []

    def items() -> Iterator[int]:
        for number in range(1_000_000):
            taken.append(number)
            yield number

    first_waits = Action(hold)
    results = in_order(Stop(), lambda number: first_waits(number) if number == 0 else number, items(), lambda: 4)
    timer = threading.Timer(0.3, hold.set)
    timer.start()
    assert next(results) == 0
    assert len(taken) <= 2 * 4 + 1
    assert [next(results) for _ in range(20)] == list(range(1, 21))
    results.close()
    timer.join()
    assert len(taken) < 60


def test_the_first_error_in_their_order_ends_it() -> None:
    stop, begun = Stop(), []

    def action(number: int) -> int:
        begun.append(number)
        if number in (3, 5):
            raise ValueError(number)
        return number

    results = in_order(stop, action, range(1000), lambda: 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
    assert stop.is_set() and len(begun) < 20
    with pytest.raises(ValueError, match=r"[35]"):
        list(as_they_come(Stop(), action, range(1000), lambda: 1))


def test_what_is_stopped_from_outside_is_no_end() -> None:
    """Somebody who was told less than all of it must not believe that it was all."""
    stop = Stop()

    def action(number: int) -> int:
        if number == 5:
            stop.set()
        return number

    told = []
    with pytest.raises(KeyboardInterrupt):
        told.extend(in_order(stop, action, range(1000), lambda: 2))
    assert len(told) < 20


def test_items_that_can_not_be_taken() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    results = in_order(Stop(), lambda number: number, items(), lambda: 4)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(results)


def test_nothing_is_in_flight_when_it_has_ended() -> None:
    before = set(threading.enumerate())
    hold = threading.Event()
    action = Action(hold)
    results = in_order(Stop(), lambda number: number if number == 0 else action(number), range(100), lambda: 4)
    assert next(results) == 0
    threading.Timer(0.1, hold.set).start()
    results.close()
    assert action.now == 0
    assert {thread for thread in threading.enumerate() if thread.name == "ursa-recording"} <= before


def test_a_width_that_grows_is_used() -> None:
    width, action = [1], Action()

    def counted(number: int) -> int:
        width[0] = 8
        return action(number)

    assert list(in_order(Stop(), counted, range(64), lambda: width[0])) == [2 * number for number in range(64)]
    assert action.most > 1


def test_an_executor_gets_some_ahead_and_results_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ursa.parallel._MOST_SUBMITTED", 5)
    taken: list[int] = []

    def items() -> Iterator[tuple[int]]:
        for number in range(100):
            taken.append(number)
            yield (number,)

    with ThreadPoolExecutor(3) as pool:
        results = by_executor(pool, Action(), items())
        assert next(results) == 0 and len(taken) == 5
        assert list(results) == [2 * number for number in range(1, 100)]
        action = Action(threading.Event())
        some = by_executor(pool, action, [(number,) for number in range(5)])
        waiting = threading.Thread(target=lambda: next(some), daemon=True)
        waiting.start()
        while not action.begun:
            time.sleep(0.01)
        assert action.hold is not None
        action.hold.set()
        waiting.join()
        some.close()


def test_what_waits_for_an_executor_hears_a_stop() -> None:
    stop, hold = Stop(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        busy, never = pool.submit(hold.wait, 30), pool.submit(int)
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(KeyboardInterrupt):
            awaited(never, stop)
        assert never.cancelled() and not busy.done()
        hold.set()
    assert awaited(busy, stop) is True


def test_a_part_of_a_stop() -> None:
    """Set with the whole, also where that was set before; alone it stops nobody else."""
    whole = Stop()
    with whole.part() as one, whole.part() as other:
        one.fail(ValueError("one"))
        assert one.is_set() and not other.is_set() and not whole.is_set()
        whole.set()
        assert other.is_set() and other.error is None
    with whole.part() as late:
        assert late.is_set()


def test_where_no_thread_can_be_started_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def begin(action: Callable[[], object]) -> object:
        begun.append(1)
        if len(begun) > 2:
            raise RuntimeError("can't start new thread")
        return beside.begin(action)

    monkeypatch.setattr(parallel, "begin", begin)
    with pytest.raises(RuntimeError, match="new thread"):
        list(in_order(Stop(), Action(), range(10), lambda: 4))
