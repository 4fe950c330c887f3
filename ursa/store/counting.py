"""Count requests by billing class (R2: writes and lists are class A, reads class B; ``spec``: R2 pricing)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from ursa.store.forked import begin_anew_in_child


class RequestCounter:
    """Requests by class, shared by the stores of one run. Thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        begin_anew_in_child(self)

    def after_fork(self) -> None:
        """In a child."""
        self._lock = threading.Lock()

    def class_a(self) -> None:
        """A write or a list."""
        self._add("class_a")

    def class_b(self) -> None:
        """A GET or a HEAD."""
        self._add("class_b")

    def _add(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def snapshot(self) -> dict[str, int]:
        """The counts so far: ``{"class_a": …, "class_b": …}``."""
        with self._lock:
            return {"class_a": self._counts["class_a"], "class_b": self._counts["class_b"]}

    def since(self, before: dict[str, int]) -> dict[str, int]:
        """What was counted after ``before``, an earlier snapshot."""
        return {name: count - before.get(name, 0) for name, count in self.snapshot().items()}

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.snapshot().items())
