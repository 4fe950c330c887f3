"""A dask cluster's workers as an ``Executor``. No secret goes there: each worker finds its own credentials."""

from __future__ import annotations

import importlib
import re
import socket
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from ursa.errors import ConfigError, StorageError, UsageError

_TIMEOUT_S = 30


@contextmanager
def executor(address: str | None) -> Iterator[Executor | None]:
    """An executor on the cluster whose scheduler is at ``address`` (``tcp://host:8786``); None for None.

    What is submitted names a profile, a config and recordings. Its workers make their own connections, with the
    credentials that the profile's provider finds where they run, so ursa must be installed there.

    Raises:
        ConfigError: dask is not installed here.
        StorageError: no scheduler answers there.
        UsageError: that is no address.
    """
    if address is None:
        yield None
        return
    host, port = _parsed(address)
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise ConfigError(
            f"can't use the dask cluster at {address}: dask is not installed here",
            hint="pip install 'ursa[dask]'",
            key="dask",
        ) from None
    try:
        # dask itself takes half a minute, and ends in tracebacks of its own.
        socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
    except OSError as error:
        raise _unreachable(address, error) from None
    try:
        client = distributed.Client(address, timeout=_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise _unreachable(address, error) from None
    with client:
        # pure=False: a task reads the world, and is never the same as one before it.
        yield client.get_executor(pure=False)


def _parsed(address: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:(?:tcp|tls)://)?(\[[0-9A-Fa-f:]+\]|[^\s/:]+):([0-9]{1,5})", address)
    if found is None:
        raise UsageError(
            f"{address!r} is not the address of a dask scheduler",
            hint="Write it as `dask scheduler` prints it, for instance tcp://10.0.0.5:8786.",
        )
    return found[1].strip("[]"), int(found[2])


def _unreachable(address: str, error: Exception) -> StorageError:
    return StorageError(
        f"can't reach a dask scheduler at {address}: {error}",
        hint="Nothing was begun. Check the address that `dask scheduler` prints, for instance tcp://10.0.0.5:8786.",
    )
