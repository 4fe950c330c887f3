"""Requests that do not depend on each other, side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 32


def begin(action: Callable[[], T]) -> Future[T]:
    """Run it in a thread that does not keep the process from ending: a server that hangs must not hold up Ctrl-C."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001  (raised where the result is asked for)
            future.set_exception(error)

    threading.Thread(target=run, name="ursa-catalog", daemon=True).start()
    return future


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

    for worker in [begin(work) for _ in range(min(at_once, len(wanted)))]:
        worker.result()
    return [results[number] for number in range(len(wanted))]
