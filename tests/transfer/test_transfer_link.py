"""What of a file may be in flight: a sixteenth, or what the link was measured to send in a second."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ursa.transfer.engine import Stop
from ursa.transfer.link import Link, Share
from ursa.transfer.parts import floor_bytes, part_bytes

MIB = 1 << 20
GIB = 1 << 30


class Clock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def settled(link: Link, clock: Clock, parts: int, size_bytes: int, took_s: float) -> None:
    """A link that has brought the same for a while: nothing is tried any more."""
    for _ in range(16):
        side_by_side(link, clock, parts, size_bytes, took_s)


def side_by_side(link: Link, clock: Clock, parts: int, size_bytes: int, took_s: float) -> None:
    """``parts`` that go out and arrive at the same time."""
    under_way = [link.measured(size_bytes) for _ in range(parts)]
    for part in under_way:
        part.__enter__()
    clock.now += took_s
    for part in under_way:
        part.__exit__(None, None, None)


def admitted(link: Link, share: Share, size_bytes: int) -> int:
    """How many parts of a file may go before the first of them has arrived."""
    stop = Stop()
    stop.set()
    count = 0
    while link.enter(share, size_bytes, stop):
        count += 1
        assert count < 1_000
    return count


def test_of_a_link_that_nothing_is_known_of_a_sixteenth() -> None:
    link = Link()
    assert link.bytes_per_s == 0
    assert admitted(link, Share(24 * MIB), 8 * MIB) == 3


@given(st.integers(1, 40), st.integers(1, 64 * MIB), st.floats(0.01, 100))
def test_the_rate_is_what_all_parts_together_get_through(parts: int, size: int, took_s: float) -> None:
    clock = Clock()
    link = Link(monotonic=clock)
    side_by_side(link, clock, parts, size, took_s)
    # The first one to arrive was among all; those after it, at the same moment, were too.
    assert link.bytes_per_s == pytest.approx(parts * size / took_s)


def test_one_after_the_other_gives_the_same_rate_as_side_by_side() -> None:
    clock = Clock()
    link = Link(monotonic=clock)
    for _ in range(5):
        with link.measured(8 * MIB):
            clock.now += 0.5
        clock.now += 3  # nothing was under way: that tells nothing of the link
    assert link.bytes_per_s == pytest.approx(16 * MIB)


def test_a_link_that_gets_slower_is_noticed() -> None:
    clock = Clock()
    link = Link(monotonic=clock)
    side_by_side(link, clock, 4, 8 * MIB, 0.1)
    for _ in range(8):
        side_by_side(link, clock, 4, 8 * MIB, 4)
    assert link.bytes_per_s == pytest.approx(8 * MIB, rel=0.1)


def test_a_part_that_failed_tells_nothing() -> None:
    clock = Clock()
    link = Link(monotonic=clock)
    with pytest.raises(OSError), link.measured(8 * MIB):
        clock.now += 0.001
        raise OSError
    assert link.bytes_per_s == 0
    with link.measured(8 * MIB):
        clock.now += 1
    assert link.bytes_per_s == pytest.approx(8 * MIB)


def test_a_second_of_a_fast_link_is_shared_by_all_files() -> None:
    clock = Clock()
    link = Link(monotonic=clock)
    settled(link, clock, 4, 8 * MIB, 0.32)  # 100 MiB a second
    first, second = Share(24 * MIB), Share(24 * MIB)
    many = admitted(link, first, 8 * MIB)
    assert many * 8 == pytest.approx(100, abs=8)
    assert admitted(link, second, 8 * MIB) == 3  # its floor: no file waits for another
    for _ in range(many):
        link.leave(first, 8 * MIB)
    assert admitted(link, second, 8 * MIB) == many - 3
    for _ in range(many):
        link.leave(second, 8 * MIB)
    assert (first.in_flight, second.in_flight) == (0, 0)


def test_on_a_slow_link_no_more_than_the_floor() -> None:
    """256 MiB at 100 Mbit/s: a kill at half costs three parts, so that the next run sends 55 % or so."""
    clock = Clock()
    link = Link(monotonic=clock)
    size = part_bytes(256 * MIB)
    settled(link, clock, 3, size, 3 * size / (100e6 / 8))
    floor = floor_bytes(256 * MIB, size)
    assert admitted(link, Share(floor), size) * size == floor <= 16 * MIB


@pytest.mark.parametrize(
    ("most", "ends_at"), [(1_000, 64), (6, 6)], ids=["each-connection-is-slow", "the-link-is-slow"]
)
def test_more_is_tried_while_it_pays(most: int, ends_at: int) -> None:
    """A connection that takes a second for a part: only more of them tell whether the link is at its end."""
    clock = Clock()
    link = Link(monotonic=clock)
    share = Share(3 * MIB)
    for _ in range(40):
        parts = admitted(link, share, MIB)
        for _ in range(parts):
            link.leave(share, MIB)
        parts = min(parts, 64)  # what memory holds
        side_by_side(link, clock, parts, MIB, max(1.0, parts / most))
    assert ends_at - 1 <= min(admitted(link, share, MIB), 64) <= ends_at + 1


def test_who_waits_goes_when_a_part_has_arrived() -> None:
    link, share, stop = Link(), Share(MIB), Stop()
    assert link.enter(share, MIB, stop)
    gone = threading.Event()

    def wait() -> None:
        if link.enter(share, MIB, stop):
            gone.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert not gone.wait(0.05)
    link.leave(share, MIB)
    assert gone.wait(30)


@given(st.integers(1, 5 << 40))
def test_the_floor_is_a_sixteenth_or_three_parts(size_bytes: int) -> None:
    part = part_bytes(size_bytes)
    floor = floor_bytes(size_bytes, part)
    assert floor % part == 0
    assert floor == 3 * part or size_bytes / 16 - part < floor <= size_bytes / 16
