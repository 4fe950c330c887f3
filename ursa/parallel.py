"""The one runner: the same action over many recordings, in threads of this process or in any executor's workers."""

from __future__ import annotations

import functools
import pickle
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from ursa.access import Access
from ursa.beside import begin, failed, run_into
from ursa.config import Config
from ursa.errors import StorageError, UrsaError
from ursa.manifest import shown

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2  # times as many results as are under way may wait for an earlier one
_MOST_SUBMITTED = 1000
_LOOKS_EVERY_S = 0.2


@dataclass(frozen=True)
class RemoteCall:
    """A method of a data interface, callable in a worker of an executor. Pickles; holds no secret.

    The worker makes its own data interface, once for each profile and config, with the credentials that it finds where
    it runs: the config names a provider, never a key.
    """

    kind: type[Access]
    profile: str
    config: Config
    roles: tuple[str, ...]
    method: str

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        opened = _opened(pickle.dumps((self.kind, self.profile, self.config, self.roles)))
        return getattr(opened, self.method)(*arguments, **options)


@functools.lru_cache(maxsize=4)
def _opened(description: bytes) -> Access:
    # Made by RemoteCall in this very process: these are not bytes from elsewhere.
    kind, profile, config, roles = pickle.loads(description)
    opened: Access = kind(profile, config=config)
    if roles:
        opened.enable_writes(roles=roles)
    return opened


class Switch(Protocol):
    """Tells what is in flight to end; ``ursa.transfer.engine.Stop`` is one."""

    def is_set(self) -> bool:
        """Whether nothing new is to begin."""

    def set(self) -> object:
        """Have nothing new begin."""


def in_order(
    stop: Switch,
    action: Callable[[T], R],
    items: Iterable[T],
    at_once: Callable[[], int],
    *,
    waiting: int | None = None,
) -> Generator[R, None, None]:
    """The results of ``action``, in the order of ``items``, a few of which are under way at once.

    ``items`` are taken as their turn comes, in any thread, one at a time. The first error, in their order, ends it, and
    sets ``stop`` for what is in flight, as does whoever takes no more results. Returns, however it ends, when nothing is in
    flight any more.

    Args:
        at_once: how many may be under way now.
        waiting: how many may have been taken whose results nobody has taken yet; None: twice as many as are under way.
    """
    return _Run(stop, action, items, at_once, waiting).results(ordered=True)


def as_they_come(
    stop: Switch, action: Callable[[T], R], items: Iterable[T], at_once: Callable[[], int]
) -> Generator[R, None, None]:
    """As ``in_order``, each result as soon as it is there; the first error in time ends it."""
    return _Run(stop, action, items, at_once, None).results(ordered=False)


class _Run(Generic[T, R]):
    def __init__(
        self,
        stop: Switch,
        action: Callable[[T], R],
        items: Iterable[T],
        at_once: Callable[[], int],
        waiting: int | None,
    ) -> None:
        self._stop = stop
        self._action = action
        self._items = iter(items)
        self._at_once = at_once
        self._waiting = waiting
        self._taken = 0  # items
        self._all_taken = False
        self._cut = False  # by ``stop``, before all were taken
        self._told = 0  # results
        self._working = 0  # threads
        self._ended: dict[int, Future[R]] = {}
        self._changed = threading.Condition()

    def results(self, *, ordered: bool) -> Generator[R, None, None]:
        try:
            while (future := self._next(ordered)) is not None:
                yield future.result()
            if self._cut:
                raise KeyboardInterrupt
        except BaseException:
            self._stop.set()
            raise
        finally:
            with self._changed:
                self._all_taken = True
                self._changed.wait_for(lambda: not self._working)

    def _next(self, ordered: bool) -> Future[R] | None:
        """The result that is to be told now; None after the last one."""
        with self._changed:
            while True:
                self._grow()
                number = self._told if ordered else next(iter(self._ended), -1)
                if number in self._ended:
                    self._told += 1
                    return self._ended.pop(number)
                if self._all_taken and self._told == self._taken:
                    return None
                self._changed.wait()

    def _grow(self) -> None:
        while self._working < self._at_once() and (task := self._take()) is not None:
            self._working += 1
            try:
                begin(partial(self._work, task))
            except RuntimeError as error:  # no thread can be started
                self._working -= 1
                self._ended[task[0]] = failed(error)

    def _take(self) -> tuple[int, T] | None:
        """The next item, where it may begin. Under the lock."""
        if self._stop.is_set() and not self._all_taken:
            self._all_taken = self._cut = True
        if self._all_taken or self._taken - self._told >= (self._waiting or _AHEAD * self._at_once()):
            return None
        number = self._taken
        try:
            item = next(self._items)
        except StopIteration:
            self._all_taken = True
            return None
        except BaseException as error:  # noqa: BLE001  (raised where its result is asked for)
            self._all_taken, self._taken = True, number + 1
            self._ended[number] = failed(error)
            return None
        self._taken += 1
        return number, item

    def _work(self, task: tuple[int, T] | None) -> None:
        while task is not None:
            number, item = task
            future: Future[R] = Future()
            run_into(future, lambda item=item: self._action(item))  # type: ignore[misc]
            with self._changed:
                self._ended[number] = future
                task = self._take() if self._working <= self._at_once() else None
                self._working -= task is None
                self._grow()
                self._changed.notify_all()


def by_executor(executor: Executor, call: Callable[..., R], items: Iterable[tuple[Any, ...]]) -> Generator[R]:
    """As ``in_order``, in the executor's workers, which get a thousand ahead; ``call`` gets an item's members."""
    futures: deque[Future[R]] = deque()
    try:
        for item in items:
            futures.append(submit(executor, call, *item))
            if len(futures) >= _MOST_SUBMITTED:
                yield result_of(futures.popleft())
        while futures:
            yield result_of(futures.popleft())
    finally:
        for future in futures:
            future.cancel()


def submit(executor: Executor, call: Callable[..., R], *arguments: Any) -> Future[R]:
    """Give a call to an executor. Raises ``StorageError`` where it takes none any more."""
    try:
        return executor.submit(call, *arguments)
    except (RuntimeError, OSError) as error:
        raise _worker_failed(error) from error


def result_of(future: Future[R]) -> R:
    """What came out of an executor's worker.

    Raises:
        UrsaError: as the call did. StorageError: the worker itself failed: died, or could not run ursa.
    """
    try:
        return future.result()
    except UrsaError:
        raise
    except Exception as error:
        raise _worker_failed(error) from error


def awaited(future: Future[R], stop: Switch) -> R:
    """As ``result_of``; where ``stop`` is set before it is there, what has not begun never does.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    while not wait([future], timeout=_LOOKS_EVERY_S).done:
        if stop.is_set():
            future.cancel()
            raise KeyboardInterrupt
    return result_of(future)


def _worker_failed(error: Exception) -> StorageError:
    return StorageError(
        f"a worker of the executor failed: {type(error).__name__}: {shown(str(error), 400)}",
        hint="Is the same ursa installed there, and does its profile find credentials there? Then run the same command"
        " again.",
    )
