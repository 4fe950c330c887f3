"""Group commit: recordings of several threads that are ready at the same time share their commits."""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from ursa.catalog.catalog import Catalog
from ursa.errors import UrsaError, unexpected
from ursa.register.build import Registration
from ursa.register.commit import Registered, register_all
from ursa.register.proving import Upgrade, upgrade_all

MOST_AT_ONCE = 1000
"""Recordings in a commit; some 4,000 modality rows, which a table takes in a tenth of a second (docs/decisions/001)."""

_log = logging.getLogger("ursa")


@dataclass(slots=True, eq=False)
class Entry:
    """What is to be committed, and what became of it."""

    wanted: Registration | tuple[Upgrade, ...]
    outcome: Registered | BaseException | None = field(default=None)
    done: bool = False
    future: Future[Registered] = field(default_factory=Future)

    @property
    def files(self) -> int:
        """How many files' rows it is about."""
        of = self.wanted if isinstance(self.wanted, tuple) else self.wanted.modalities
        return sum(len(item.files) for item in of)

    def fail(self, error: BaseException) -> None:
        """Where it has no outcome yet, it is this error."""
        if not self.done:
            self.outcome, self.done = error, True

    def tell(self) -> None:
        """Whoever waits for the future has the outcome."""
        if isinstance(self.outcome, BaseException) and not isinstance(self.outcome, UrsaError):
            self.outcome = unexpected(self.outcome, _rec_id(self))
        if isinstance(self.outcome, BaseException):
            if isinstance(self.wanted, tuple):
                _log.warning("what was measured is not in the catalog yet: %s", self.outcome)
            self.future.set_exception(self.outcome)
        elif self.outcome is not None:
            self.future.set_result(self.outcome)


class Committer:
    """One for a process and a catalog. Whoever has the turn commits for all who wait; nobody waits for a timer."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._waiting: deque[Entry] = deque()
        self._turn = threading.Lock()

    def register(self, wanted: Registration) -> Registered:
        """Commit a recording's rows; returns when they are in the catalog. Raises as ``register_all`` refuses."""
        outcome = self._committed(wanted)
        assert isinstance(outcome, Registered)
        return outcome

    def upgrade(self, *wanted: Upgrade) -> None:
        """Write what was measured into recordings' rows; returns when it is in the catalog. Raises ``StorageError``."""
        if wanted:
            self._committed(wanted)

    def _committed(self, wanted: Registration | tuple[Upgrade, ...]) -> Registered | None:
        entry = Entry(wanted)
        self._waiting.append(entry)
        try:
            with self._turn:
                while not entry.done:
                    self._commit([self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))])
        except BaseException:
            # Interrupted while it waited: nothing may commit it later, its caller believes that it is not registered.
            with suppress(ValueError):
                self._waiting.remove(entry)
            raise
        if isinstance(entry.outcome, BaseException):
            raise entry.outcome
        return entry.outcome

    def commit(self, group: list[Entry]) -> None:
        """Commit these together; each has its outcome then, whatever happens."""
        with self._turn, suppress(BaseException):
            self._commit(group)

    def _commit(self, group: list[Entry]) -> None:
        try:
            self._upgrade([entry for entry in group if isinstance(entry.wanted, tuple)])
            new = [entry for entry in group if not entry.done]
            wanted = [entry.wanted for entry in new if isinstance(entry.wanted, Registration)]
            outcomes = register_all(self._catalog, wanted) if wanted else []
        except BaseException as error:
            # An interrupt, or a bug: it is everybody's, for nobody knows how far it came. A re-run finds out.
            for entry in group:
                entry.fail(error)
            raise
        for entry, outcome in zip(new, outcomes, strict=True):
            entry.outcome, entry.done = outcome, True

    def _upgrade(self, group: list[Entry]) -> None:
        if not group:
            return
        try:
            upgrade_all(self._catalog, [item for e in group if isinstance(e.wanted, tuple) for item in e.wanted])
        except Exception as error:  # noqa: BLE001  (theirs alone: the others of the group go on)
            for entry in group:
                entry.outcome = error if isinstance(error, UrsaError) else unexpected(error, _rec_id(entry))
        for entry in group:
            entry.done = True


def _rec_id(entry: Entry) -> str:
    wanted = entry.wanted
    return wanted[0].rec_id if isinstance(wanted, tuple) else wanted.row.rec_id
