"""How many round trips each command waits for, one after the other, on a catalog of 200 recordings.

    python benchmarks/roundtrips.py [--rounds 3] [--recordings 200] [--commands ls,show] [--trace doctor]

Each command runs as a process behind a proxy before one weed server: with 100 ms a request and with none, in turn. Round
trips are the difference of the medians in 100 ms. `warm`: from a home that has run the command before; `first`: from a
new home, a machine that has never seen the catalog. `depth` is the longest chain of requests of which each began after
the one before it was answered, the least of the rounds: unlike the seconds, a busy machine does not change it. `requests`
are all of them. Prints a table with the goals, and the requests by method and kind. `--trace` prints the requests of one
command in the order of their start instead, with their times: which waited for which. Asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers import make_recording
from proxy import FaultProxy
from proxy_rules import Logged
from servers import S3Server, find_executable
from transfer import config_text, running
from trips import depth, kinds, trace

DELAY_S = 0.1
_WARMING = 2  # runs: what a batch reads it remembers of files that it had seen in an earlier run
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


@contextmanager
def open_bench(root: Path, recordings: int) -> Iterator[Bench]:
    """A fresh server with a catalog of so many recordings, registered past the proxy's delay."""
    with running(root / "server") as server, FaultProxy(server.endpoint_url) as proxy:
        for name in ("homes", "downloads", "new"):
            (root / name).mkdir()
        text = config_text(proxy.url)
        (root / "ursa.yaml").write_text(text + "    rig_timezone: UTC\n")
        names = [f"rec_20260101_{number:06d}_cafe" for number in range(recordings)]
        for name in names:
            _recording(root / "nas", name)
        bench = Bench(proxy, server, root, names)
        filling = bench.new_home()
        bench.run(["catalog", "init", "--yes"], filling)
        bench.run(["batch", str(root / "nas"), "--quiet"], filling)
        yield bench


def measure(bench: Bench, command: Command, rounds: int, *, warm: bool) -> tuple[list[Run], list[Run]]:
    """The runs behind a delay and behind none, in turn."""
    known = bench.new_home()
    for _ in range(_WARMING if warm else 0):
        bench.run(command.words(bench), known, exit_code=command.exit_code)
    runs: dict[float, list[Run]] = {DELAY_S: [], 0.0: []}
    for _ in range(rounds):
        for delay_s, found in runs.items():
            home = known if warm else bench.new_home()
            found.append(bench.run(command.words(bench), home, delay_s=delay_s, exit_code=command.exit_code))
    return runs[DELAY_S], runs[0.0]


def cells(far: list[Run], near: list[Run], goal: int) -> str:
    """Round trips, depth, requests and the goal, as cells of a table."""
    seconds = statistics.median(run.seconds for run in far) - statistics.median(run.seconds for run in near)
    requests = round(statistics.median(len(run.log) for run in far))
    return f"{seconds / DELAY_S:.0f} | {min(depth(run.log) for run in far)} | {requests} | {goal}"


def table(bench: Bench, names: list[str], rounds: int) -> None:
    """Measure and print each command as it comes."""
    print("| | warm | depth | requests | goal | first | depth | requests | goal |\n|" + " --- |" * 9)
    told = []
    for name in names:
        command = COMMANDS[name]
        warm = measure(bench, command, rounds, warm=True)
        first = measure(bench, command, rounds, warm=False)
        print(f"| `{name}` | {cells(*warm, command.goal.warm)} | {cells(*first, command.goal.first)} |", flush=True)
        told.append(f"* {name}: {kinds(warm[0][-1].log)}; first: {kinds(first[0][-1].log)}")
    print("\n" + "\n".join(told))


def show_trace(bench: Bench, name: str) -> None:
    """One run each, warm and from a new home, request by request."""
    for warm in (True, False):
        far, _ = measure(bench, COMMANDS[name], 1, warm=warm)
        print(
            f"\n### {name}, {'warm' if warm else 'first time'}: depth {depth(far[0].log)}, {len(far[0].log)} requests\n"
        )
        print("\n".join(trace(far[0].log)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--commands", default=";".join(COMMANDS), help="names as in the table, separated by ';'")
    parser.add_argument("--trace", metavar="COMMAND", choices=COMMANDS, help="print this command's requests instead")
    parser.add_argument("--dir", default="/dev/shm" if Path("/dev/shm").is_dir() else None)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=arguments.dir, prefix="ursa-bench-") as directory,
        open_bench(Path(directory), arguments.recordings) as bench,
    ):
        if arguments.trace:
            show_trace(bench, arguments.trace)
        else:
            table(bench, arguments.commands.split(";"), arguments.rounds)


if __name__ == "__main__":
    main()
