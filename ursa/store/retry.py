"""Retries around any store: full jitter, Retry-After, one budget for everything that shares a policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ursa.errors import StorageError
from ursa.store.protocol import Body, ObjectInfo, OpenUpload, Page, Part, PutResult, Store, TransientError, ignore

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")


@dataclass
class RetryPolicy:
    """When to stop trying. Seconds; ``attempts`` a request; ``budget`` retries altogether.

    The defaults end a command within two minutes when a server can't be reached at all, and let a long run through
    a few minutes of an ailing one.

    An attempt counts towards ``request_deadline_s`` with ``attempt_s`` at most, the time in which one that hangs fails by
    its own time-outs. Whatever took longer came forward, or slept with the laptop: it is tried again.
    """

    attempts: int = 8
    max_delay_s: float = 20.0
    request_deadline_s: float = 75.0
    attempt_s: float = 60.0
    budget: int = 1000
    stopped: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
    _spent: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def spend(self) -> bool:
        """Take one retry from the budget; False when it is used up."""
        with self._lock:
            self._spent += 1
            return self._spent <= self.budget

    def call(self, action: Callable[[], T]) -> T:
        """Run ``action``, again after every ``TransientError`` for as long as the policy lets it.

        Raises:
            StorageError: the last ``TransientError``, as nobody tries again.
        """
        started = self.clock()
        try:
            # Most requests succeed at once: they need not pay for what only a retry needs (0.1 ms of CPU each).
            return action()
        except TransientError as error:
            failed = [error]
        try:
            return self._retry(action, failed, self._counted_s(started))
        except TransientError as error:
            fields = {name: value for name, value in error.fields.items() if name != "retry_after_s"}
            raise StorageError(error.message, hint=error.hint, **fields) from error

    def _counted_s(self, started: float) -> float:
        return min(self.clock() - started, self.attempt_s)

    def _retry(self, action: Callable[[], T], failed: list[TransientError], spent_s: float) -> T:
        """Go on after a first attempt that has ``failed`` and took so long: it counts as the first of ``attempts``."""
        # Imported here: it brings asyncio along, which takes as long to load as a request.
        import tenacity

        def attempt() -> T:
            nonlocal spent_s
            if failed:
                raise failed.pop()
            started = self.clock()
            try:
                return action()
            finally:
                spent_s += self._counted_s(started)

        def wait(seconds: float) -> None:
            nonlocal spent_s
            spent_s += seconds
            self.stopped.wait(seconds)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._again),
            wait=self._wait,
            stop=lambda state: state.attempt_number >= self.attempts or spent_s >= self.request_deadline_s,
            sleep=wait,
            reraise=True,
        )
        return retrying(attempt)

    def _again(self, error: BaseException) -> bool:
        return isinstance(error, TransientError) and not self.stopped.is_set() and self.spend()

    def _wait(self, state: tenacity.RetryCallState) -> float:
        import tenacity

        jitter = tenacity.wait_random_exponential(multiplier=0.2, max=self.max_delay_s)(state)
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, TransientError) else None
        return max(jitter, min(asked or 0.0, 60.0))


class RetryingStore:
    """A ``Store`` that tries again what another store says is worth trying again.

    A conditional write whose first reply was lost comes back as ``PreconditionFailedError``: the caller compares
    what is there with what it sent, as it must after any lost race.
    """

    def __init__(self, inner: Store, policy: RetryPolicy) -> None:
        self._inner = inner
        self._policy = policy

    @property
    def uri(self) -> str:
        return self._inner.uri

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        # A listing is small beside what it guards: fetch it whole, so that a retry cannot repeat half of it.
        return iter(self._policy.call(lambda: list(self._inner.list(prefix, start_after=start_after))))

    def list_page(self, prefix: str, *, start_after: str = "", token: str | None = None) -> Page:
        return self._policy.call(lambda: self._inner.list_page(prefix, start_after=start_after, token=token))

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        return iter(self._policy.call(lambda: list(self._inner.list_prefixes(prefix))))

    def head(self, key: str) -> ObjectInfo:
        return self._policy.call(lambda: self._inner.head(key))

    def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        return self._policy.call(lambda: self._inner.read(key))

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        position = start
        blocks: Iterator[bytes] | None = None

        def following() -> bytes | None:
            # A connection that broke is opened again where it broke off, with the waits of any other request.
            nonlocal blocks
            if blocks is None:
                blocks = self._inner.stream(key, start=position, end=end, if_match=if_match)
            try:
                return next(blocks, None)
            except TransientError:
                blocks = None
                raise

        while (block := self._policy.call(following)) is not None:
            position += len(block)
            yield block

    def put(self, key: str, body: Body, **options: Any) -> PutResult:
        return self._policy.call(lambda: self._inner.put(key, body, **options))

    def delete(self, key: str) -> None:
        self._policy.call(lambda: self._inner.delete(key))

    def create_upload(self, key: str, *, metadata: Mapping[str, str] | None = None) -> str:
        return self._policy.call(lambda: self._inner.create_upload(key, metadata=metadata))

    def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, *, md5: str, sent: Callable[[int], object] = ignore
    ) -> Part:
        return self._policy.call(lambda: self._inner.upload_part(key, upload_id, number, body, md5=md5, sent=sent))

    def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        return self._policy.call(lambda: self._inner.list_parts(key, upload_id))

    def list_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        return iter(self._policy.call(lambda: list(self._inner.list_uploads(prefix))))

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part], **options: Any) -> str:
        return self._policy.call(lambda: self._inner.complete_upload(key, upload_id, parts, **options))

    def abort_upload(self, key: str, upload_id: str) -> None:
        self._policy.call(lambda: self._inner.abort_upload(key, upload_id))
