"""Registrations that wait for company: when they are committed, together with whom, and what an end does to them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from ursa.catalog.catalog import Catalog
from ursa.catalog.rows import RecordingRow
from ursa.errors import ConflictError, StorageError, UrsaError
from ursa.register import gathering as module
from ursa.register.build import Registration
from ursa.register.committer import Committer, Entry
from ursa.register.gathering import LONGEST_S, SHORTEST_S, Gathering


class Books(Committer):
    """Commits in memory. ``holding``: a commit waits for it. ``refused``: rec_ids that are."""

    def __init__(self) -> None:
        self.commits: list[list[Any]] = []
        self.begun: list[int] = []
        self.now = self.most = 0
        self.holding: threading.Event | None = None
        self.refused: set[Any] = set()

    def commit(self, group: list[Entry]) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.append(len(group))
        if self.holding is not None:
            assert self.holding.wait(30)
        for entry in group:
            name = getattr(entry.wanted, "row", None)
            entry.outcome = ConflictError("refused") if name in self.refused else name
            entry.done = True
        self.commits.append([getattr(entry.wanted, "row", entry.wanted) for entry in group])
        self.now -= 1


class Quiet:
    """A catalog to which nothing is owed."""

    def upkeep_later(self) -> threading.Lock:
        return threading.Lock()

    def upkeep(self) -> None:
        pass


def make(books: Committer, clock: list[float] | None = None) -> Gathering:
    quiet: Any = Quiet()
    return Gathering(lambda: quiet, lambda: books, clock=(lambda: clock[0]) if clock else lambda: 0.0)


def wanted(name: str) -> Registration:
    row: Any = name
    return Registration(row, (), (), None, False)


def test_what_is_ready_together_is_one_commit() -> None:
    """At once when nothing more can come."""
    books = Books()
    with make(books) as gathering:
        for _ in range(5):
            gathering.enter()
        gathering.all_begun()
        futures = []
        for number in range(5):
            futures.append(gathering.register(wanted(str(number))))
            gathering.leave()
        assert [future.result(30) for future in futures] == list("01234")
    assert books.commits == [list("01234")]


def test_while_others_are_under_way_it_waits() -> None:
    books, clock = Books(), [0.0]
    with make(books, clock) as gathering:
        gathering.enter()
        gathering.enter()
        first = gathering.register(wanted("a"))
        gathering.leave()
        with pytest.raises(TimeoutError):
            first.result(0.2)
        clock[0] = SHORTEST_S
        gathering.enter()  # any sign of life
        gathering.leave()
        assert first.result(30) is not None
        assert books.commits == [["a"]]


@pytest.mark.parametrize(("after_s", "waits_s"), [(0.0, SHORTEST_S), (10.0, 10.0), (3600.0, LONGEST_S)])
def test_each_commit_gathers_as_long_as_the_run_has_lasted(after_s: float, waits_s: float) -> None:
    clock = [0.0]
    gathering = make(Books(), clock)
    gathering._ended = after_s
    gathering.enter()
    gathering._waiting.append(Entry(wanted("a")))
    clock[0] = after_s
    assert gathering._wait_s() == pytest.approx(waits_s)


def test_somebody_who_waits_is_not_kept_waiting() -> None:
    books = Books()
    with make(books) as gathering:
        gathering.enter()
        gathering.enter()
        first = gathering.register(wanted("a"))
        with gathering.awaited():
            assert first.result(30) is not None


def test_a_group_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 3)
    books = Books()
    with make(books) as gathering:
        for _ in range(8):
            gathering.enter()
        futures = [gathering.register(wanted(str(number))) for number in range(7)]
        for future in futures[:6]:
            future.result(30)
        assert not futures[6].done()
    assert [len(group) for group in books.commits] == [3, 3, 1]
    assert [name for group in books.commits for name in group] == list("0123456")


def test_what_a_group_leaves_behind_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five with three files each, two at a time: those that are left are too many to wait for company."""
    monkeypatch.setattr(module, "MOST_AT_ONCE", 2)
    monkeypatch.setattr(module, "_MOST_FILES", 3)
    books = Books()
    books.holding = threading.Event()
    modality: Any = type("Modality", (), {"files": "abc"})()
    with make(books) as gathering:
        for _ in range(6):
            gathering.enter()
        futures = [gathering.register(replace(wanted(str(number)), modalities=(modality,))) for number in range(5)]
        books.holding.set()
        assert [future.result(30) for future in futures] == list("01234")


def test_one_commit_at_a_time_and_the_next_carries_all_that_came_meanwhile() -> None:
    books = Books()
    books.holding = threading.Event()
    with make(books) as gathering:
        for _ in range(6):
            gathering.enter()
        futures = [gathering.register(wanted("0"))]
        gathering.ending()
        while not books.begun:
            threading.Event().wait(0.01)
        futures += [gathering.register(wanted(str(number))) for number in range(1, 6)]
        for _ in range(6):
            gathering.leave()
        gathering.all_begun()
        books.holding.set()
        for future in futures:
            future.result(30)
    assert books.most == 1 and books.begun == [1, 5]


def test_a_refusal_is_one_s_own() -> None:
    books = Books()
    books.refused = {"b"}
    with make(books) as gathering:
        first, second = gathering.register(wanted("a")), gathering.register(wanted("b"))
    assert first.result(0) is not None
    with pytest.raises(ConflictError):
        second.result(0)


def test_what_was_given_is_committed_at_the_end_whatever_ends_it() -> None:
    books = Books()
    futures: list[Future[Any]] = []
    with pytest.raises(KeyboardInterrupt), make(books) as gathering:
        gathering.enter()
        gathering.enter()
        futures.append(gathering.register(wanted("a")))
        raise KeyboardInterrupt
    assert futures[0].done() and books.commits == [["a"]]


def test_measurements_go_with_the_next_commit_and_fail_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Books):
        def commit(self, group: list[Entry]) -> None:
            super().commit(group)
            for entry in group:
                if isinstance(entry.wanted, tuple):
                    entry.outcome = StorageError("no answer")

    books = Failing()
    measured: Any = type("Measured", (), {"files": {}})()
    with make(books) as gathering:
        gathering.enter()
        gathering.upgrade(measured)
        future = gathering.register(wanted("a"))
    assert future.result(0) is not None and books.begun == [2]
    assert "what was measured is not in the catalog yet" in caplog.text


def test_nothing_given_opens_nothing() -> None:
    def never() -> Catalog:
        raise AssertionError

    with Gathering(never, lambda: pytest.fail("nothing is to be committed")) as gathering:
        gathering.enter()
        gathering.leave()
        gathering.all_begun()


def test_whoever_waits_is_not_forgotten_while_it_is_sent() -> None:
    """A twin waits for a first half that is still being sent: the commit of another one meanwhile is not what it waits for."""
    books = Books()
    with make(books) as gathering:
        for _ in range(3):
            gathering.enter()
        with gathering.awaited():
            assert gathering.register(wanted("another")).result(30) is not None
            assert gathering.register(wanted("first")).result(30) is not None
    assert books.commits == [["another"], ["first"]]


class Panic(BaseException):
    """As a library in Rust raises it."""


@pytest.mark.parametrize("raised", [Panic("rust"), RuntimeError("arrow"), StorageError("no answer")])
def test_an_outcome_whatever_the_commit_raises(raised: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise raised

    monkeypatch.setattr("ursa.register.committer.register_all", broken)
    quiet: Any = Quiet()
    with Gathering(lambda: quiet, lambda: Committer(quiet)) as gathering:
        gathering.ending()
        for name in "ab":
            future = gathering.register(_row(name))
            with pytest.raises(UrsaError):
                future.result(30)


def _row(name: str) -> Registration:
    return Registration(RecordingRow("0" * 64, name), (), (), None, False)


@pytest.mark.parametrize("raised", [Panic("rust"), RuntimeError("arrow")])
def test_what_is_owed_and_fails_ends_nobody_s_registration(
    raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Owing(Quiet):
        def upkeep(self) -> None:
            raise raised

    owing: Any = Owing()
    books = Books()
    with Gathering(lambda: owing, lambda: books) as gathering:
        gathering.enter()
        gathering.ending()
        for name in "ab":
            assert gathering.register(wanted(name)).result(30) is not None
    assert "could not be tidied" in caplog.text
