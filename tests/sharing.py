"""One server for all the pytest workers of a run (pytest-xdist), without anything that runs beside them.

The worker that asks first starts the server and writes where it is; it stops it when nobody else uses it any more.
Users hold a shared ``flock``, which the kernel takes back also from a killed worker.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from servers import S3Server

Start = Callable[[Path], AbstractContextManager[S3Server]]


@contextmanager
def shared(root: Path, name: str, start: Start) -> Iterator[S3Server]:
    """The run's server ``name``, from ``start(directory below root)`` unless another worker has started it.

    Args:
        root: a directory that all workers of this run share, and no other run.
    """
    state, lock = root / f"{name}.json", root / f"{name}.lock"
    with ExitStack() as own, (root / f"{name}.users").open("a") as users:
        with _locked(lock):
            server = _running(state)
            started = server is None
            if server is None:
                server = own.enter_context(start(root / f"{name}-{uuid.uuid4().hex[:8]}"))
                state.write_text(json.dumps(asdict(server)))
            else:
                fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield server
        finally:
            if started:
                _retire(state, lock, users)


def _running(state: Path) -> S3Server | None:
    """The server that ``state`` tells of, if it still answers: its owner may have been killed."""
    if not state.exists():
        return None
    server = S3Server(**json.loads(state.read_text()))
    address = urlsplit(server.endpoint_url)
    try:
        socket.create_connection((address.hostname or "", address.port or 0), timeout=5).close()
    except OSError:
        return None
    return server


def _retire(state: Path, lock: Path, users: IO[str]) -> None:
    """Wait until nobody uses the server, or the run is gone; then take it off the board, so that nobody new comes."""
    parent = os.getppid()
    while os.getppid() == parent:
        with _locked(lock):
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                state.unlink(missing_ok=True)
                return
        time.sleep(0.1)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
