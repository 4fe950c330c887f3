"""What does not depend on each other, side by side: requests above all, each of which waits for a server.

In threads that don't keep the process from ending: a server that hangs must not hold up Ctrl-C.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 32


def begin(action: Callable[[], T]) -> Future[T]:
    """Begin it in a thread. An error is raised where the result is asked for, and nowhere if it never is."""
    future: Future[T] = Future()
    threading.Thread(target=run_into, args=(future, action), name="ursa-beside", daemon=True).start()
    return future


@overload
def at_once(one: Callable[[], R], other: Callable[[], T], /) -> tuple[R, T]: ...


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


class Gathering(Generic[T]):
    """Runs ``action`` beside, with all that was added while its last run was under way. Adding waits for nothing."""

    def __init__(self, action: Callable[[list[T]], object]) -> None:
        self._action = action
        self._waiting: list[T] = []
        self._under_way: Future[object] | None = None

    def add(self, item: T) -> None:
        """Take one more. Raises what a run has raised."""
        self._waiting.append(item)
        if self._under_way is None or self._under_way.done():
            self._run()

    def close(self) -> None:
        """Return when all that was added has been run with. Raises what a run has raised."""
        while self._waiting or self._under_way is not None:
            self._run()

    def _run(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()
        if self._waiting:
            items, self._waiting = self._waiting, []
            self._under_way = begin(lambda: self._action(items))


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
