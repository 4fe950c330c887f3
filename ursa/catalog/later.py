"""A value that is made when somebody needs it, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """The result of ``make``, which is called at most once at a time, and again where it has failed. Thread-safe."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._future: Future[T] | None = None

    @property
    def begun(self) -> bool:
        """Whether somebody has asked for it."""
        return self._future is not None

    def begin(self) -> None:
        """Have it made in another thread, for whoever asks for it soon."""
        future, mine = self._claim()
        if mine:
            # Python waits for it at its end: a thread that is in foreign code then would crash.
            threading.Thread(target=self._run, args=(future,)).start()

    def get(self) -> T:
        """The value. Raises what ``make`` raises."""
        future, mine = self._claim()
        if mine:
            self._run(future)
        return future.result()

    def _claim(self) -> tuple[Future[T], bool]:
        with self._lock:
            mine = self._future is None
            future = self._future = self._future or Future()
            return future, mine

    def _run(self, future: Future[T]) -> None:
        try:
            future.set_result(self._make())
        except BaseException as error:  # noqa: BLE001  (raised where the value is asked for)
            self._future = None
            future.set_exception(error)
