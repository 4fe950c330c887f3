"""Commands behind a far server: a catalog of some recordings behind a proxy, and how many round trips each may take.

For ``benchmarks/roundtrips.py``, which measures them on 200 recordings, and for ``test_roundtrips.py``.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

from helpers import make_recording
from proxy import FaultProxy
from proxy_rules import Logged
from servers import S3Server, find_executable

DELAY_S = 0.1
FILES = ("camera_left/seg_000.mp4", "camera_left/seg_001.mp4", "eeg_a/seg_000.edf", "mic_b/seg_000.wav")


class Goal(NamedTuple):
    """Round trips to reach: from a home that knows the catalog, and from a new one."""

    warm: int
    first: int


@dataclass(frozen=True)
class Bench:
    """A server behind a proxy, its config, a disk with what is registered, and names for what is not yet."""

    proxy: FaultProxy
    server: S3Server
    root: Path
    registered: list[str]
    numbers: Iterator[int] = field(default_factory=count)

    def run(self, words: list[str], home: Path, *, delay_s: float = 0.0, exit_code: int = 0) -> Run:
        """A command through the proxy, to its end."""
        self.proxy.clear()
        self.proxy.delay_s = delay_s
        command = [find_executable("ursa"), *words, "--config", str(self.root / "ursa.yaml")]
        started = time.perf_counter()
        done = subprocess.run(command, env=self.environment(home), capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode != exit_code:
            raise SystemExit(f"ursa {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return Run(seconds, list(self.proxy.log))

    def environment(self, home: Path) -> dict[str, str]:
        """Nothing of this machine's accounts, and the server's keys."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "URSA_", "XDG_"))}
        keys = {"AWS_ACCESS_KEY_ID": self.server.access_key, "AWS_SECRET_ACCESS_KEY": self.server.secret_key}
        return {**kept, **keys, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"}

    def new_recording(self) -> Path:
        """A directory that nobody has registered."""
        return _recording(self.root / "new", f"rec_20260601_{next(self.numbers):06d}_beef")

    def new_home(self) -> Path:
        """A home in which nothing has run."""
        return Path(tempfile.mkdtemp(dir=self.root / "homes"))


class Run(NamedTuple):
    """One run of a command: wall time, and the requests in the order of their arrival."""

    seconds: float
    log: list[Logged]


class Command(NamedTuple):
    """``words``: the arguments, made anew for each run. ``exit_code``: what it must end with."""

    words: Callable[[Bench], list[str]]
    goal: Goal
    exit_code: int = 0


def _recording(root: Path, rec_id: str) -> Path:
    files = {path: f"{rec_id} {path}".encode() * 8 for path in FILES}
    return make_recording(root, rec_id, files, participant="Aria Lin")


def _download(bench: Bench) -> list[str]:
    to = tempfile.mkdtemp(dir=bench.root / "downloads")
    return ["download", bench.registered[0], "--modality", "eeg", "--dest", to]


COMMANDS = {
    "ls": Command(lambda _: ["ls"], Goal(3, 6)),
    "participants list": Command(lambda _: ["participants", "list"], Goal(3, 6)),
    "show REC": Command(lambda bench: ["show", bench.registered[0]], Goal(4, 7)),
    "catalog history": Command(lambda _: ["catalog", "history"], Goal(4, 7)),
    "download REC --modality eeg": Command(_download, Goal(6, 9)),
    "verify REC": Command(lambda bench: ["verify", bench.registered[0]], Goal(6, 9)),
    "ingest, new": Command(lambda bench: ["ingest", str(bench.new_recording())], Goal(14, 18)),
    "ingest again, refused": Command(
        lambda bench: ["ingest", str(bench.root / "nas" / bench.registered[0])], Goal(5, 8), exit_code=5
    ),
    "batch, nothing new": Command(lambda bench: ["batch", str(bench.root / "nas")], Goal(5, 8)),
    "doctor": Command(lambda _: ["doctor"], Goal(25, 25)),
}


def filled(root: Path, proxy: FaultProxy, server: S3Server, config: str, recordings: int) -> Bench:
    """A catalog of so many recordings, registered past the proxy's delay. ``config``: as text, through the proxy."""
    for name in ("homes", "downloads", "new"):
        (root / name).mkdir()
    (root / "ursa.yaml").write_text(config)
    names = [f"rec_20260101_{number:06d}_cafe" for number in range(recordings)]
    for name in names:
        _recording(root / "nas", name)
    bench = Bench(proxy, server, root, names)
    filling = bench.new_home()
    bench.run(["catalog", "init", "--yes"], filling)
    bench.run(["batch", str(root / "nas"), "--quiet"], filling)
    return bench
