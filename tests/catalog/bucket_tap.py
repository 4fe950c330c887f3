"""A store in between, so that something happens at a request: before it, after it, in its place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ursa.store import Page, PutResult, Store, TransientError

Go = Callable[[], Any]
"""Sends the request and gives its reply."""


@dataclass
class Rule:
    """``act`` gets the next ``times`` requests (None: all) whose method and key ``match``, in place of the store."""

    match: Callable[[str, str], bool]
    act: Callable[[Go], Any]
    times: int | None = 1
    hits: int = 0

    def takes(self, method: str, key: str) -> bool:
        if self.times == 0 or not self.match(method, key):
            return False
        self.hits += 1
        self.times = None if self.times is None else self.times - 1
        return True


@dataclass
class Tap:
    """What happens at which requests: the first rule that takes one decides. ``log``: (method, key) of each.

    ``page_size``: how many keys a page of a directory's listing holds.
    """

    rules: list[Rule] = field(default_factory=list)
    log: list[tuple[str, str]] = field(default_factory=list)
    page_size: int = 1000
    _lock: Any = field(default_factory=threading.Lock)

    def on(self, store: Store) -> Store:
        """The same store behind this tap."""
        return TappedStore(store, self)  # type: ignore[return-value]

    def add(self, match: Callable[[str, str], bool], act: Callable[[Go], Any], times: int | None = 1) -> Rule:
        """Make a rule."""
        self.rules.append(Rule(match, act, times))
        return self.rules[-1]

    def before(self, match: Callable[[str, str], bool], action: Callable[[], object]) -> Rule:
        """Do something once, just before the request goes on."""

        def act(go: Go) -> Any:
            action()
            return go()

        return self.add(match, act)

    def after(self, match: Callable[[str, str], bool], action: Callable[[], object]) -> Rule:
        """Do something once, when the server has done it and nobody knows yet."""

        def act(go: Go) -> Any:
            done = go()
            action()
            return done

        return self.add(match, act)

    def lose(self, match: Callable[[str, str], bool], times: int | None = 1) -> Rule:
        """The server does it, and its reply is lost."""

        def act(go: Go) -> Any:
            go()
            raise TransientError("the reply was lost")

        return self.add(match, act, times)

    def fail(self, match: Callable[[str, str], bool], error: Exception, times: int | None = 1) -> Rule:
        """The request is refused, and never done."""

        def act(_go: Go) -> Any:
            raise error

        return self.add(match, act, times)

    def delay(self, match: Callable[[str, str], bool]) -> Rule:
        """It times out on its way, and arrives when the next one like it is about to be sent."""
        late: list[Go] = []

        def act(go: Go) -> Any:
            if not late:
                late.append(go)
                raise TransientError("timed out")
            late[0]()
            return go()

        return self.add(match, act, 2)

    def count(self, *methods: str) -> int:
        """How many requests of these methods there were; of all without an argument."""
        with self._lock:
            return sum(not methods or method in methods for method, _ in self.log)

    def clear(self) -> None:
        """Forget rules and requests."""
        with self._lock:
            self.rules.clear()
            self.log.clear()

    def run(self, method: str, key: str, go: Go) -> Any:
        """One request."""
        with self._lock:
            self.log.append((method, key))
            rule = next((rule for rule in self.rules if rule.takes(method, key)), None)
        return rule.act(go) if rule else go()


class TappedStore:
    """Whatever else it is asked for is the store's own."""

    def __init__(self, store: Store, tap: Tap) -> None:
        self._store, self._tap = store, tap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, body: Any, **options: Any) -> PutResult:
        return self._tap.run("put", key, lambda: self._store.put(key, body, **options))

    def read(self, key: str) -> Any:
        return self._tap.run("get", key, lambda: self._store.read(key))

    def head(self, key: str) -> Any:
        return self._tap.run("head", key, lambda: self._store.head(key))

    def delete(self, key: str) -> None:
        self._tap.run("delete", key, lambda: self._store.delete(key))

    def list_page(self, prefix: str, **options: Any) -> Any:
        return self._tap.run("list", prefix, lambda: self._paged(self._store.list_page(prefix, **options)))

    def _paged(self, page: Page) -> Page:
        """A page as of a server with small ones; of a directory, whose tokens are keys."""
        size = self._tap.page_size
        if len(page.objects) <= size:
            return page
        return replace(page, objects=page.objects[:size], token=page.objects[size - 1].key)


def commit_of(table: str = "") -> Callable[[str, str], bool]:
    """The PUTs that make a commit to this table, or to any."""

    def match(method: str, key: str) -> bool:
        return method == "put" and f"{table}/_delta_log/" in key and key.endswith(".json")

    return match


def asked_of(table: str) -> Callable[[str, str], bool]:
    """The reads of a table's log: its listing, its commits and checkpoints."""
    return lambda method, key: method in ("get", "list", "head") and f"{table}/_delta_log/" in key
