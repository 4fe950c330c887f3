"""What does not depend on each other, side by side: requests above all, each of which waits for a server.

In threads that don't keep the process from ending: a server that hangs must not hold up Ctrl-C.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, overload

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

_AT_ONCE = 32
_MOST_IDLE = 64
IDLE = "ursa-idle"
"""The name of a thread that has nothing to do."""


class _Worker:
    """A thread that does one thing after the other: starting one anew takes as long as ten of the things it does here."""

    def __init__(self) -> None:
        self._given: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def give(self, work: Callable[[], object]) -> None:
        """Have it done next. It raises nothing."""
        self._given.put(work)

    def _work(self) -> None:
        while True:
            work: Callable[[], object] | None = self._given.get()
            assert work is not None
            self._thread.name = "ursa-beside"
            work()
            self._thread.name, work = IDLE, None
            if len(_IDLE) >= _MOST_IDLE:
                return
            _IDLE.append(self)


_IDLE: deque[_Worker] = deque()


def begin(action: Callable[[], T]) -> Future[T]:
    """Begin it in a thread. An error is raised where the result is asked for, and nowhere if it never is."""
    future: Future[T] = Future()
    try:
        worker = _IDLE.pop()
    except IndexError:
        worker = _Worker()
    worker.give(lambda: run_into(future, action))
    return future


@overload
def at_once(one: Callable[[], R], other: Callable[[], T], /) -> tuple[R, T]: ...


@overload
def at_once(one: Callable[[], R], other: Callable[[], T], third: Callable[[], S], /) -> tuple[R, T, S]: ...


@overload
def at_once(*actions: Callable[[], R]) -> tuple[R, ...]: ...


def at_once(*actions: Callable[[], Any]) -> tuple[Any, ...]:
    """Results of a few actions, in their order; all have ended when it returns or raises. The first runs in this thread.

    Raises:
        Exception: that of the first, in their order, that failed.
    """
    others = [begin(action) for action in actions[1:]]
    first: Future[Any] = Future()
    run_into(first, actions[0])
    for future in others:
        future.exception()  # waits for it
    return tuple(future.result() for future in (first, *others))


def each(action: Callable[[T], R], items: Iterable[T], at_once: int = _AT_ONCE) -> list[R]:
    """The results of ``action``, in the order of ``items``. Raises the first error; what has not begun then never does."""
    wanted = list(items)
    if len(wanted) < 2:
        return [action(item) for item in wanted]
    waiting: SimpleQueue[int] = SimpleQueue()
    for number in range(len(wanted)):
        waiting.put(number)
    failed = threading.Event()
    results: dict[int, R] = {}

    def work() -> None:
        while not failed.is_set():
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            try:
                results[number] = action(wanted[number])
            except BaseException:
                failed.set()
                raise

    workers = [begin(work) for _ in range(min(at_once, len(wanted)))]
    for worker in workers:
        worker.exception()  # waits for it: what is under way ends before an error is told
    for worker in workers:
        worker.result()
    return [results[number] for number in range(len(wanted))]


def failed(error: BaseException) -> Future[Any]:
    """A future that raises it."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def run_into(future: Future[T], action: Callable[[], T]) -> None:
    """Run it in this thread; what it returns or raises is the future's."""
    try:
        future.set_result(action())
    except BaseException as error:  # noqa: BLE001  (raised where the result is asked for)
        future.set_exception(error)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_IDLE.clear)  # its threads are the parent's
