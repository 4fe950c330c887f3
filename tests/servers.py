"""Real S3 servers on loopback, each from a PyPI package: ``weed``, ``moto`` and ``rclone_sink``.

Each is a context manager that yields a ready ``S3Server``. A server's process leads its own group and is killed and
waited for when the context ends, at exit, and (Linux) when the process that started it dies: start one from a thread
that outlives it, since Linux counts the death of the starting thread.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
from botocore.config import Config

READY_TIMEOUT_S = 60.0
STARTS = 4  # a port can be lost between the look and the bind
ACCESS_KEY, SECRET_KEY = "test-access-key", "test-secret-key"
# Below 22,768: with the 10,000 that weed adds, still outside the range that Linux gives to outgoing connections.
PORTS = range(12_000, 22_000, 4)
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ServerError(RuntimeError):
    """A server did not start; the message ends with the tail of its log."""


@dataclass(frozen=True)
class S3Server:
    """Where a running server listens, and one pair of keys that may do everything."""

    endpoint_url: str
    access_key: str
    secret_key: str

    def client(self, *, attempts: int = 1, **config: Any) -> Any:
        """A new boto3 client: path-style, checksums only when required, ``attempts`` tries a call (1: no retries)."""
        settings: dict[str, Any] = {
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "s3": {"addressing_style": "path"},
            "retries": {"total_max_attempts": attempts, "mode": "standard"},
            "max_pool_connections": 32,
            "proxies": {},
        }
        return _session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(**(settings | config)),
        )

    def at(self, endpoint_url: str) -> S3Server:
        """The same server and keys by another way: through a proxy's ``url``."""
        return replace(self, endpoint_url=endpoint_url)

    def create_bucket(self, name: str) -> str:
        """Make a bucket and return its name."""
        self.client(attempts=5).create_bucket(Bucket=name)
        return name


@functools.cache
def _session() -> boto3.Session:
    """One session for all clients: its loader reads botocore's big JSON files once."""
    return boto3.Session()


def find_executable(name: str) -> str:
    """The path of ``name``: beside the running interpreter, else from PATH. Raises ``ServerError``."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise ServerError(f"{name} is neither beside {sys.executable} nor on PATH: pip install -e '.[dev]'")
    return found


def free_ports(count: int = 1, *, mirrored: bool = False) -> int:
    """The first of ``count`` (up to 4) ports that can be bound on loopback now; ``mirrored``: each + 10,000 as well."""
    for first in random.SystemRandom().sample(PORTS, len(PORTS)):
        wanted = [first + offset for offset in range(count)]
        if mirrored:
            wanted += [port + 10_000 for port in wanted]
        if all(_bindable(port) for port in wanted):
            return first
    raise ServerError(f"no {count} free ports in a row between {PORTS.start} and {PORTS.stop}")


def _bindable(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


@contextmanager
def weed(directory: Path) -> Iterator[S3Server]:
    """SeaweedFS with its data below ``directory``: the fullest S3 of the three. Ready in two to seven seconds."""
    directory.mkdir(parents=True, exist_ok=True)
    ids = directory / "ids.json"
    keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    ids.write_text(json.dumps({"identities": [{"name": "t", "credentials": [keys], "actions": actions}]}))
    data = directory / "data"
    data.mkdir(exist_ok=True)

    def command(port: int) -> list[str]:
        return [find_executable("weed"), "server", *_weed_flags(port, data, ids)]

    def ready(port: int) -> bool:
        return _weed_has_volumes(port) and _accepts(port) and _weed_shares_volumes(port)

    try:
        with _server(command, ready, directory, count=4, mirrored=True) as port:
            yield S3Server(f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _weed_flags(port: int, data: Path, ids: Path) -> list[str]:
    return [
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={port + 1}",
        f"-volume.port={port + 2}",
        "-filer",
        f"-filer.port={port + 3}",
        "-s3",
        f"-s3.port={port}",
        f"-s3.config={ids}",
        # The catalog listeners sit on fixed ports, so that a second server would die of them.
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=1000",
        "-master.telemetry=false",
        # One node elects itself at once; the defaults are for a cluster.
        "-master.electionTimeout=500ms",
        "-master.heartbeatInterval=50ms",
    ]


def _weed_has_volumes(port: int) -> bool:
    """Whether the master knows a data node: the S3 port opens before that, and its writes fail."""
    status = json.loads(_http("GET", f"http://127.0.0.1:{port + 1}/dir/status"))
    centers = status["Topology"].get("DataCenters") or []
    return any(rack.get("DataNodes") for center in centers for rack in center.get("Racks") or [])


def _weed_shares_volumes(port: int) -> bool:
    """Put all buckets into one collection.

    Else each bucket takes seven volumes of the 1,000, and its first write waits 0.2 s for them.
    """
    rule = {"locations": [{"locationPrefix": "/buckets/", "collection": "shared"}]}
    _http("PUT", f"http://127.0.0.1:{port + 3}/etc/seaweedfs/filer.conf", json.dumps(rule).encode())
    return True


@contextmanager
def moto() -> Iterator[S3Server]:
    """moto in a process of its own, all in memory. Ready in a second or two; ignores credentials and checksums."""

    def command(port: int) -> list[str]:
        return [find_executable("moto_server"), "-H", "127.0.0.1", "-p", str(port)]

    with TemporaryDirectory(prefix="moto-") as directory, _server(command, _accepts, Path(directory)) as port:
        yield S3Server(f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY)


@contextmanager
def rclone_sink(directory: Path) -> Iterator[S3Server]:
    """``rclone serve s3`` over ``directory``: the fastest, for throughput only, since it ignores conditions."""
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)

    def command(port: int) -> list[str]:
        program = [find_executable("rclone"), "serve", "s3", str(data), "--config", os.devnull]
        return [*program, "--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]

    with _server(command, _accepts, directory) as port:
        yield S3Server(f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY)


@contextmanager
def _server(
    command: Callable[[int], Sequence[str]],
    ready: Callable[[int], bool],
    directory: Path,
    *,
    count: int = 1,
    mirrored: bool = False,
) -> Iterator[int]:
    """Run ``command(port)`` until the context ends, from when ``ready(port)``; on other ports if the first try dies."""
    log = directory / "server.log"
    for left in reversed(range(STARTS)):
        port = free_ports(count, mirrored=mirrored)
        process = _spawn(command(port), log, directory)
        try:
            if _wait_ready(process, functools.partial(ready, port)):
                yield port
                return
        finally:
            _kill(process)
            _remove_weed_sockets(port)
        if not left:
            raise ServerError(f"{process.args!r} did not start (exit {process.returncode}):\n{_tail(log)}")


def _spawn(command: Sequence[str], log: Path, home: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=_clean_environment(home),
            start_new_session=True,
            preexec_fn=functools.partial(_die_with, os.getpid()) if _libc is not None else None,
        )
    _running.append(process)
    return process


def _die_with(parent: int) -> None:
    """In the child, before exec: ask the kernel for SIGKILL when the parent goes; leave if it has gone already."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _clean_environment(home: Path) -> Mapping[str, str]:
    """The environment without anybody's cloud accounts and without this machine's server settings."""
    dropped = ("AWS_", "MOTO_", "RCLONE_", "S3_", "URSA_", "WEED_")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)} | {"HOME": str(home)}


def _wait_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, ValueError, KeyError):  # refused, half-written or not yet meaningful answers
            if ready():
                return process.poll() is None
        time.sleep(0.05)
    return False


def _accepts(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return True


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _http(method: str, url: str, body: bytes | None = None) -> bytes:
    with _direct.open(urllib.request.Request(url, data=body, method=method), timeout=5) as answer:
        return bytes(answer.read())


def _tail(log: Path, lines: int = 40) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _remove_weed_sockets(port: int) -> None:
    """weed leaves Unix sockets with fixed names in /tmp behind; other servers have none."""
    for offset, part in enumerate(("s3", "master", "volume", "filer")):
        for name in (f"{part}-grpc-{port + offset + 10_000}", f"{part}-{port + offset}"):
            Path(f"/tmp/seaweedfs-{name}.sock").unlink(missing_ok=True)


_running: list[subprocess.Popen[bytes]] = []


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process's group and wait for it. The data are disposable: nobody waits for a polite end."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process in _running:
        _running.remove(process)


@atexit.register
def _kill_all() -> None:
    for process in list(_running):
        _kill(process)
