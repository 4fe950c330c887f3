"""A lane of small files: all are sent, once; others have their turn in between; nothing is kept when it ends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from ursa.transfer.engine import FEWEST_TRANSFERS, Engine, Stop
from ursa.transfer.lane import Lane
from ursa.transfer.limits import MemoryBudget


@dataclass(frozen=True)
class Item:
    name: int
    size_bytes: int = 10


class Sender:
    """Counts what is sent, and how much at once."""

    def __init__(self) -> None:
        self.sent: Counter[int] = Counter()
        self.peak = 0
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, item: Item) -> None:
        with self._lock:
            self._now += 1
            self.peak = max(self.peak, self._now)
        time.sleep(0.001)
        with self._lock:
            self._now -= 1
            self.sent[item.name] += 1


def left_clean(engine: Engine) -> bool:
    """All places and all memory are free again."""
    free = engine.memory.try_acquire(1 << 40)
    return free and engine.window._in_flight == 0


@pytest.mark.parametrize("transfers", [1, 3, None])
@pytest.mark.parametrize("count", [0, 1, 200])
def test_every_item_is_sent_once_within_the_window(transfers: int | None, count: int) -> None:
    sender, stop = Sender(), Stop()
    with Engine(transfers=transfers) as engine:
        engine.window._shortest_s = 0.0001  # a server next door
        Lane(engine, stop, [Item(n) for n in range(count)], sender).run()
        assert left_clean(engine)
    assert sender.sent == Counter(range(count))
    assert sender.peak <= (transfers or FEWEST_TRANSFERS)
    assert not stop.is_set()


def test_several_lanes_and_a_part_share_one_place() -> None:
    sender, stop = Sender(), Stop()
    with Engine(transfers=1) as engine:
        lanes = [Lane(engine, stop, [Item(n) for n in range(start, start + 60)], sender) for start in (0, 60, 120)]
        threads = [threading.Thread(target=lane.run) for lane in lanes]
        for thread in threads:
            thread.start()
        for _ in range(5):
            assert engine.claim(10, stop)
            engine.unclaim(10)
        for thread in threads:
            thread.join()
        assert left_clean(engine)
    assert sender.sent == Counter(range(180))
    assert sender.peak == 1


def test_who_waits_for_the_only_place_gets_it_after_one_file() -> None:
    stop, begun = Stop(), threading.Event()
    sent: list[int] = []
    waiting = threading.Event()

    def send(item: Item) -> None:
        begun.set()
        waiting.wait(10)
        time.sleep(0.05 if not sent else 0.001)  # the other one waits for the place by then
        sent.append(item.name)

    with Engine(transfers=1) as engine:
        thread = threading.Thread(target=Lane(engine, stop, [Item(n) for n in range(500)], send).run)
        thread.start()
        assert begun.wait(10)
        waiting.set()
        assert engine.window.enter(stop)
        assert len(sent) < 400
        engine.window.leave()
        thread.join()
        assert left_clean(engine)
    assert sent == list(range(500))


def test_items_wait_for_memory() -> None:
    held, peak, lock = 0, 0, threading.Lock()

    def send(item: Item) -> None:
        nonlocal held, peak
        with lock:
            held += item.size_bytes
            peak = max(peak, held)
        time.sleep(0.002)
        with lock:
            held -= item.size_bytes

    with Engine(transfers=16) as engine:
        engine.memory = MemoryBudget(100)
        # The second kind is larger than the budget: it has it alone.
        Lane(engine, Stop(), [Item(n, 40 if n % 5 else 100) for n in range(60)], send).run()
        assert engine.memory.try_acquire(100)
    assert 40 <= peak <= 100


@pytest.mark.parametrize("transfers", [1, 8])
def test_the_first_error_stops_the_rest_and_gives_everything_back(transfers: int) -> None:
    stop, sender = Stop(), Sender()

    def send(item: Item) -> None:
        if item.name == 20:
            raise ValueError("twenty")
        sender(item)

    with Engine(transfers=transfers) as engine:
        Lane(engine, stop, [Item(n) for n in range(300)], send).run()
        assert left_clean(engine)
    assert isinstance(stop.error, ValueError)
    assert 20 <= sender.sent.total() < 60


def test_a_stop_from_outside_ends_it() -> None:
    stop, sender = Stop(), Sender()

    def send(item: Item) -> None:
        sender(item)
        if item.name == 10:
            stop.set()

    with Engine(transfers=2) as engine:
        Lane(engine, stop, [Item(n) for n in range(300)], send).run()
        assert left_clean(engine)
    assert stop.error is None
    assert sender.sent.total() < 30


def test_what_a_closed_pool_drops_is_given_back() -> None:
    """The pool has no thread for it, and never will: the lane must not wait for it."""
    stop, hold = Stop(), threading.Event()
    engine = Engine(transfers=1)
    engine.submit(hold.wait)
    thread = threading.Thread(target=Lane(engine, stop, [Item(0)], Sender()).run)
    thread.start()
    while not engine.window._in_flight:
        time.sleep(0.001)
    closing = threading.Thread(target=engine.close)
    closing.start()
    thread.join(20)
    assert not thread.is_alive()
    hold.set()
    closing.join()
    assert left_clean(engine)
