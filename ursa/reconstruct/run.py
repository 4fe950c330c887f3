"""Work in the engine's pool, told to the one thread that called: blocks as they are hashed, items as they finish."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from ursa.transfer.engine import Engine, Stop

T = TypeVar("T")
R = TypeVar("R")

# What is in flight notices a stop at its next block; a connection that hangs is left to its own timeout.
_END_S = 3.0


@dataclass(frozen=True, slots=True)
class Block:
    """So many more bytes of a file are hashed."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Done(Generic[R]):
    """An item's result."""

    path: str
    result: R


class Run(Generic[R]):
    """One batch of work. Memory that it was granted is given back at its end, whatever happened."""

    def __init__(self, engine: Engine, stop: Stop) -> None:
        self.engine = engine
        self.stop = stop
        self._events: queue.SimpleQueue[Block | Done[R]] = queue.SimpleQueue()
        self._futures: list[Future[None]] = []
        self._grants: dict[object, int] = {}
        self._lock = threading.Lock()

    def tell(self, event: Block | Done[R]) -> None:
        """Hand an event to the calling thread."""
        self._events.put(event)

    def submit(self, token: object, size_bytes: int, task: Callable[[], object]) -> bool:
        """Run ``task`` once there is memory and a place among the requests in flight; False where the run is stopped.

        The memory stays granted until ``release(token)``.
        """
        if self.stop.is_set() or not self.engine.memory.acquire(size_bytes, self.stop):
            return False
        with self._lock:
            self._grants[token] = size_bytes
        if not self.engine.window.enter(self.stop):
            self.release(token)
            return False
        self._futures.append(self.engine.submit(lambda: self._guarded(task)))
        return True

    def release(self, token: object) -> None:
        """Give the memory back; a second time is fine."""
        with self._lock:
            size_bytes = self._grants.pop(token, None)
        if size_bytes is not None:
            self.engine.memory.release(size_bytes)

    def events(self, count: int, feed: Callable[[], object]) -> Generator[Block | Done[R]]:
        """Start ``feed``, which submits, in a thread of its own; yield events until ``count`` items are done.

        Raises:
            KeyboardInterrupt: the run was stopped from outside; else the first error of a task.
        """
        feeder = threading.Thread(target=self._fed, args=(feed,), daemon=True)
        feeder.start()
        try:
            while count:
                event = self._next()
                count -= isinstance(event, Done)
                yield event
        except BaseException:
            self.stop.set()
            raise
        finally:
            feeder.join(_END_S)
            wait(self._futures, timeout=_END_S)
            for token in list(self._grants):
                self.release(token)

    def _next(self) -> Block | Done[R]:
        while not self.stop.is_set():
            try:
                return self._events.get(timeout=0.2)
            except queue.Empty:
                continue
        raise self.stop.error or KeyboardInterrupt

    def _fed(self, feed: Callable[[], object]) -> None:
        try:
            feed()
        except BaseException as error:  # noqa: BLE001  (raised in the calling thread)
            self.stop.fail(error)

    def _guarded(self, task: Callable[[], object]) -> None:
        try:
            if not self.stop.is_set():
                task()
        except BaseException as error:  # noqa: BLE001  (raised in the calling thread)
            self.stop.fail(error)
        finally:
            self.engine.window.leave()


def each(engine: Engine, stop: Stop, items: Sequence[T], action: Callable[[T], R], *, claim_bytes: int = 0) -> list[R]:
    """``action`` of every item, in parallel; results in the order of the items. For small requests.

    ``claim_bytes``: what one holds in memory, so that not too many do at once.

    Raises:
        KeyboardInterrupt: stopped from outside; else the first error.
    """
    run: Run[tuple[int, R]] = Run(engine, stop)

    def one(index: int, item: T) -> None:
        with engine.window.timed():
            result = action(item)
        run.release(index)
        run.tell(Done("", (index, result)))

    def feed() -> None:
        for index, item in enumerate(items):
            if not run.submit(index, claim_bytes, lambda index=index, item=item: one(index, item)):  # type: ignore[misc]
                return

    results: dict[int, R] = {}
    with contextlib.closing(run.events(len(items), feed)) as events:
        for event in events:
            if isinstance(event, Done):
                index, result = event.result
                results[index] = result
    return [results[index] for index in range(len(items))]
