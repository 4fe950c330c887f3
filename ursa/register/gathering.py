"""Registrations of a run over many recordings: each waits for company, while the next recordings are sent.

A commit costs some ten requests and the time of a version for everybody who reads the catalog later, whether it carries one
recording or a thousand. So a run commits once three seconds of it have gathered, then after twice as long each time, up to
once a minute; and at once when nothing more can come. What a kill takes away is the commit alone: the next run finds the
bytes in the bucket.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from ursa.beside import begin
from ursa.catalog.catalog import Catalog
from ursa.register.build import Registration
from ursa.register.commit import Registered
from ursa.register.committer import MOST_AT_ONCE, Committer, Entry
from ursa.register.proving import Upgrade
from ursa.transfer.trace import Stage, Trace

_log = logging.getLogger("ursa")

SHORTEST_S: Final = 3.0
LONGEST_S: Final = 60.0
# Once all have begun: so long it waits for the last ones, rather than to commit twice.
_LAST_S: Final = 5.0
_MOST_FILES: Final = 20_000


class Gathering:
    """One for a run. Its commits happen in a thread of its own, one after the other; what they owe to later readers of the
    catalog between them, or at the end. Use it as a context manager: at the end all is committed that was given.

    Args:
        committer: asked for once there is something to commit, as the catalog is.
        trace: told while a commit is under way.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        committer: Callable[[], Committer],
        *,
        trace: Trace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._committer = committer
        self._trace = trace or Trace()
        self._clock = clock
        self._began = self._ended = clock()  # the run, and its last commit
        self._waiting: list[Entry] = []
        self._files = 0  # of those that wait
        self._under_way = 0
        self._all_begun_at: float | None = None
        self._awaited = 0
        self._ending = self._closed = False
        self._thread: Future[None] | None = None
        self._changed = threading.Condition()

    def __enter__(self) -> Gathering:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def enter(self) -> None:
        """A recording has begun, and may want to be registered."""
        with self._changed:
            self._under_way += 1

    def leave(self) -> None:
        """It has been given, or won't be."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def all_begun(self) -> None:
        """No other recording begins."""
        with self._changed:
            self._all_begun_at = self._clock()
            self._changed.notify_all()

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """While somebody waits for one of them, nothing waits for company."""
        with self._changed:
            self._awaited += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._awaited -= 1

    def ending(self) -> None:
        """The run is being ended: nothing waits for company any more."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def register(self, wanted: Registration) -> Future[Registered]:
        """Have a recording's rows written; done when they are in the catalog. Fails as ``register_all`` refuses."""
        # By what this run has seen of the catalog a minute ago: what others commit meanwhile shows as a lost race.
        wanted = replace(wanted, ready_at=time.monotonic() - LONGEST_S)
        return self._add(Entry(wanted))

    def upgrade(self, *wanted: Upgrade) -> None:
        """Have written what was measured of registered files. Nobody waits for it: that it fails is logged."""
        if wanted:
            self._add(Entry(wanted))

    def close(self) -> None:
        """Commit what is there; returns when that is done. Nothing may be given any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.result()
            self._tidy()  # after the last ones, which are told by now

    def _add(self, entry: Entry) -> Future[Registered]:
        with self._changed:
            assert not self._closed, "given after the end"
            self._waiting.append(entry)
            self._files += entry.files
            self._thread = self._thread or begin(self._work)
            self._changed.notify_all()
        return entry.future

    def _work(self) -> None:
        """Whatever happens, everybody has an outcome: they would wait for good."""
        while group := self._due():
            try:
                with self._trace.stage(Stage.COMMIT), self._catalog().upkeep_later():
                    self._committer().commit(group)
            except BaseException as error:  # noqa: BLE001
                for entry in group:
                    entry.fail(error)
            for entry in group:
                entry.tell()
            self._ended = self._clock()
            if not self._all_are_here():
                self._tidy()

    def _tidy(self) -> None:
        """What is registered stands, whatever becomes of this."""
        try:
            with self._trace.stage(Stage.TIDY):
                self._catalog().upkeep()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001
            _log.warning("the catalog could not be tidied: %r", error)

    def _due(self) -> list[Entry]:
        """Wait for the next group; an empty one is the end."""
        with self._changed:
            while (wait_s := self._wait_s()) > 0:
                self._changed.wait(wait_s if wait_s < float("inf") else None)
            group, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            self._files -= sum(entry.files for entry in group)
            return group

    def _wait_s(self) -> float:
        if self._closed or (self._waiting and (self._awaited or self._ending or self._all_are_here())):
            return 0
        if not self._waiting:
            return float("inf")
        if len(self._waiting) >= MOST_AT_ONCE or self._files >= _MOST_FILES:
            return 0
        due = self._ended + min(LONGEST_S, max(SHORTEST_S, self._ended - self._began))
        if self._all_begun_at is not None:
            due = max(due, self._all_begun_at + _LAST_S)
        return due - self._clock()

    def _all_are_here(self) -> bool:
        return self._all_begun_at is not None and not self._under_way
