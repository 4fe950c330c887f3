"""The same action over many items: in threads of this process, or in any executor's workers."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, TypeVar

from ursa.access import Access
from ursa.config import Config
from ursa.errors import StorageError, UrsaError
from ursa.manifest import shown
from ursa.transfer.engine import Stop

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 8
"""Recordings in flight in this process; their requests share the one pool."""


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


def unordered(stop: Stop, action: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Results as they come; the first error ends it, and sets ``stop`` for what is in flight."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ursa-recording") as pool:
        try:
            yield from _as_they_come([pool.submit(action, item) for item in items])
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def by_executor(executor: Executor, call: Callable[..., R], items: Sequence[tuple[Any, ...]]) -> Iterator[R]:
    """As ``unordered``, in the executor's workers; ``call`` gets an item's members as its arguments."""
    yield from _as_they_come([submit(executor, call, *item) for item in items], result_of)


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


def _worker_failed(error: Exception) -> StorageError:
    return StorageError(
        f"a worker of the executor failed: {type(error).__name__}: {shown(str(error), 400)}",
        hint="Is the same ursa installed there, and does its profile find credentials there? Then run the same command"
        " again.",
    )


def cancelling(futures: Collection[Future[Any]], results: Iterator[R]) -> Iterator[R]:
    """``results``; however that ends, none of these futures begins afterwards."""
    try:
        yield from results
    finally:
        for future in futures:
            future.cancel()


def _as_they_come(
    futures: Sequence[Future[R]], result: Callable[[Future[R]], R] = lambda future: future.result()
) -> Iterator[R]:
    try:
        for future in as_completed(futures):
            yield result(future)
    except BaseException:
        for future in futures:
            future.cancel()
        raise
