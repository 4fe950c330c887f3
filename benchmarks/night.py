"""A night's backlog, `ursa batch` beside the tools that people would copy it with: the table of docs/performance.md.

    python benchmarks/night.py [--rounds 3] [--parts backlog,door,link,tail,many] [--tools stated,derived,rclone,s5cmd,aws]

Each round starts a fresh weed server and runs every tool once, in turn, each to a prefix of its own; medians. What is far
away is behind a proxy in a process of its own (`far_server.py` measures what it can take). ursa runs from a new home with a
catalog of one recording, once over recordings whose manifests state a recording_hash, as rigs' do (`stated`), and once over
ones whose hash follows from their files (`derived`); it hashes, proves and registers what the others copy.

* backlog: 60 recordings of 10 × 16 KiB, a manifest and participant.txt, 50 ms a request
* door: 500 of them next door: wall and CPU seconds; then the same again twice, nothing new
* link: 24 recordings of 20 MiB and three small files, 50 ms, 25 MB/s: the share of the link that was used, and a plot of it
  in docs/plots/night.svg
* tail: from the last answer to a byte of a recording to the end of the process, in round trips, for 60 and 300 recordings
* many: 5,000 recordings of 2 small files, 50 ms: requests. Takes minutes; not by default

Asserts nothing. `--trace FILE` writes the requests of ursa's last run of each part behind a proxy, which waited for which.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from far_server import Far, Traffic
from plot import Line, plot

from batch import make_source, remote
from proxy_rules import Logged
from servers import S3Server, find_executable
from transfer import KIB, MIB, Sample, config_text, measure, running
from trips import depth, trace

DELAY_S = 0.05
RATE = 25e6
OURS = ("stated", "derived")
TOOLS = (*OURS, "rclone", "s5cmd", "aws")
HEADS = ("ursa, stated", "ursa, derived", "rclone copy", "s5cmd sync", "aws s3 sync")
PICTURE = Path(__file__).parents[1] / "docs" / "plots" / "night.svg"


class Work(NamedTuple):
    """``recordings`` of files of these sizes, a manifest and participant.txt each; and how far away the server is."""

    recordings: int
    sizes: Sequence[int]
    delay_s: float = DELAY_S
    rate: float | None = None

    @property
    def files(self) -> int:
        """What a recording sends, its manifest and participant.txt included."""
        return len(self.sizes) + 2


BACKLOG = Work(60, (16 * KIB,) * 10)
LONG_BACKLOG = BACKLOG._replace(recordings=300)
DOOR = Work(500, (16 * KIB,) * 10, delay_s=0)
LINK = Work(24, (20 * MIB, *(16 * KIB,) * 3), rate=RATE)
MANY = Work(5000, (4 * KIB,) * 2)


@dataclass(frozen=True)
class Ran:
    """One run of one tool. Times are of ``time.monotonic``, as the proxy's."""

    sample: Sample
    began_s: float
    ended_s: float
    traffic: Traffic

    @property
    def wall_s(self) -> float:
        """From the start of the process to its end."""
        return self.sample.wall_s

    @property
    def cpu_s(self) -> float:
        """Of the process and its children."""
        return self.sample.cpu_s

    def of(self, bucket: str) -> list[Logged]:
        """The requests to one of the bench's buckets."""
        return [entry for entry in self.traffic.requests if entry.path.startswith(f"/{bucket}-bench")]

    def link_used(self, payload_bytes: int) -> float:
        """The share of what the link could have sent."""
        return payload_bytes / RATE / self.wall_s

    def after_last_byte(self) -> tuple[float, int]:
        """Round trips from the last answer to a byte of a recording to the end: by the clock, and the longest chain."""
        last = max(entry.answered_s for entry in self.of("raw") if entry.method in ("PUT", "POST"))
        rest = [entry for entry in self.traffic.requests if entry.started_s >= last]
        return (self.ended_s - last) / DELAY_S, depth(rest)

    def commits_at_once(self) -> int:
        """The most commits that were under way at once for one table."""
        tables: dict[str, list[Logged]] = defaultdict(list)
        for entry in self.of("assets"):
            table, _, name = entry.path.partition("/_delta_log/")
            if entry.method == "PUT" and name.endswith(".json") and "if-none-match" in entry.headers:
                tables[table].append(entry)
        return max((most_at_once(commits) for commits in tables.values()), default=0)

    def look_ups(self) -> int:
        """How often the catalog was read or listed."""
        return sum(entry.method in ("GET", "HEAD") for entry in self.of("assets"))


Rounds = dict[str, list[Ran]]


def most_at_once(requests: Iterable[Logged]) -> int:
    """How many of them were under way at once, at most."""
    edges = sorted((at, step) for each in requests for at, step in ((each.started_s, 1), (each.answered_s, -1)))
    most = now = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


@dataclass(frozen=True)
class Bench:
    """A fresh server, by the way that the tools take to it. ``home``: empty but for a catalog of one recording."""

    server: S3Server
    url: str
    far: Far | None
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """The server's keys, and nothing of this machine's accounts."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "URSA_", "XDG_"))}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        keys = {"AWS_ACCESS_KEY_ID": self.server.access_key, "AWS_SECRET_ACCESS_KEY": self.server.secret_key}
        region = {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
        return {**kept, **keys, **region, "HOME": str(self.home)}

    def command(self, tool: str, source: Path) -> list[str]:
        """How this tool sends all of ``source``; the same words again find that it is there."""
        to = f"s3://raw-bench/{tool}/"
        match tool:
            case "rclone":
                words = ["--config", os.devnull, "copy", "--transfers", "16", str(source)]
                return [find_executable("rclone"), *words, remote(self.server, "rclone", self.url)]
            case "s5cmd":
                words = ["--endpoint-url", self.url, "--log", "error", "sync"]
                return [find_executable("s5cmd"), *words, f"{source}/", to]
            case "aws":
                words = ["--endpoint-url", self.url, "s3", "sync", "--quiet"]
                return [find_executable("aws"), *words, str(source), to]
        return [find_executable("ursa"), "batch", str(source), "--config", str(self._config(tool)), "--no-progress"]

    def begin(self, variant: str) -> None:
        """A catalog of one recording: what a machine asks of a server once a month is asked."""
        ursa, config = find_executable("ursa"), str(self._config(variant))
        first = make_source(self.home / f"first-{variant}", 1, [KIB])
        for words in (["catalog", "init", "--yes"], ["batch", str(first), "--no-progress"]):
            subprocess.run([ursa, *words, "--config", config, "--quiet"], env=self.environment, check=True)

    def run(self, tool: str, source: Path) -> Ran:
        """Once, to its end."""
        if self.far:
            self.far.traffic()
        began = time.monotonic()
        sample = measure(self.command(tool, source), self.environment, None)
        ended = time.monotonic()
        return Ran(sample, began, ended, self.far.traffic() if self.far else Traffic([], []))

    def _config(self, variant: str) -> Path:
        path = self.home / f"{variant}.yaml"
        path.write_text(config_text(self.url, raw=f"{variant}/", assets=f"{variant}/"))
        return path


@contextmanager
def bench(root: Path, work: Work, variants: Iterable[str]) -> Iterator[Bench]:
    """A fresh server, and a home whose catalogs have a recording each."""
    home = Path(tempfile.mkdtemp(dir=root, prefix="home-"))
    with running(root / "server") as server:
        far = Far(server, work.delay_s, work.rate) if work.delay_s or work.rate else None
        try:
            made = Bench(server, far.url if far else server.endpoint_url, far, home)
            for variant in variants:
                made.begin(variant)
            yield made
        finally:
            if far:
                far.close()
    shutil.rmtree(home)


def in_turn(root: Path, work: Work, tools: Sequence[str], rounds: int, *, times: int = 1) -> list[Rounds]:
    """Every tool once a round, another one first each time; ``times``: and so often in all, over what is all there."""
    sources = {tool: root / f"source-{tool == 'stated'}" for tool in tools}
    for stated in {tool == "stated" for tool in tools}:
        make_source(root / f"source-{stated}", work.recordings, work.sizes, stated=stated, participant="Aria Lin")
    runs: list[Rounds] = [{tool: [] for tool in tools} for _ in range(times)]
    for number in range(rounds):
        turned = [*tools[number % len(tools) :], *tools[: number % len(tools)]]
        with bench(root, work, [tool for tool in tools if tool in OURS]) as made:
            for found in runs:
                for tool in turned:
                    found[tool].append(made.run(tool, sources[tool]))
    return runs


def payload(work: Work) -> int:
    """Bytes of the recordings' files; of manifests and participant.txt there are too few to matter."""
    return work.recordings * sum(work.sizes)


def median(runs: Sequence[Ran], figure: Callable[[Ran], float]) -> float:
    """Of one figure of all rounds."""
    return statistics.median(map(figure, runs))


def walls(runs: Rounds) -> dict[str, float]:
    """Seconds by tool."""
    return {tool: median(each, lambda ran: ran.wall_s) for tool, each in runs.items()}


def row(work: str, cells: dict[str, str], goal: str, met: bool | None) -> None:
    """A line of the table."""
    told = "" if met is None else "yes" if met else "**no**"
    print(f"| {work} | {' | '.join(cells.get(tool, '–') for tool in TOOLS)} | {goal} | {told} |", flush=True)


def within(ours: dict[str, float], most: float | None) -> bool | None:
    """Whether both of ours are below ``most``; None where there is nothing to compare."""
    mine = [value for tool, value in ours.items() if tool in OURS]
    return max(mine) <= most if mine and most else None


def seconds(found: dict[str, float]) -> dict[str, str]:
    """As cells."""
    return {tool: f"{value:.2f}" for tool, value in found.items()}


def backlog(root: Path, tools: Sequence[str], rounds: int) -> Rounds:
    """60 recordings far away."""
    (runs,) = in_turn(root, BACKLOG, tools, rounds)
    found = walls(runs)
    limits = [found["rclone"]] if "rclone" in found else []
    limits += [3 * found["s5cmd"]] if "s5cmd" in found else []
    goal = "≤ 1.0 × rclone, ≤ 3 × s5cmd"
    row("60 recordings behind 50 ms, s", seconds(found), goal, within(found, min(limits, default=None)))
    tail_row(60, {tool: each for tool, each in runs.items() if tool in OURS})
    return runs


def door(root: Path, tools: Sequence[str], rounds: int) -> Rounds:
    """500 next door, and again. ursa's second run reads what is registered once more: of files that it had not seen some
    seconds before it read them, it can't know that nobody wrote to them meanwhile.
    """
    tools = [tool for tool in tools if tool != "aws"]
    first, *more = in_turn(root, DOOR, tools, rounds, times=3)
    found = walls(first)
    cpu = {tool: median(each, lambda ran: ran.cpu_s) for tool, each in first.items()}
    row("500 recordings next door, s", seconds(found), "≤ 1.0 × the best", within(found, best_peer(found)))
    limit = 1.5 * cpu["rclone"] if "rclone" in cpu else None
    row("… CPU s", seconds(cpu), "≤ 1.5 × rclone's", within(cpu, limit))
    for title, runs in zip(("… again, nothing new, s", "… and once more, s"), more, strict=True):
        later = walls(runs)
        row(title, seconds(later), "stay ahead", within(later, best_peer(later)))
    return first


def best_peer(found: dict[str, float]) -> float | None:
    """The fastest of the others."""
    return min((value for tool, value in found.items() if tool not in OURS), default=None)


def link(root: Path, tools: Sequence[str], rounds: int) -> Rounds:
    """24 × 20 MiB over a link of 25 MB/s."""
    (runs,) = in_turn(root, LINK, tools, rounds)
    found = walls(runs)
    at_best = payload(LINK) / RATE
    row(f"24 × 20 MiB, 50 ms, 25 MB/s ({at_best:.1f} s at best), s", seconds(found), "", None)
    used = {tool: median(each, lambda ran: ran.link_used(payload(LINK))) for tool, each in runs.items()}
    met = all(value >= 0.95 for tool, value in used.items() if tool in OURS)
    row("… link used", seconds(used), "≥ 0.95", met)
    return runs


def tail(root: Path, tools: Sequence[str], rounds: int) -> Rounds:
    """300 recordings far away: how long after the last byte."""
    (runs,) = in_turn(root, LONG_BACKLOG, [tool for tool in tools if tool in OURS], rounds)
    tail_row(300, runs)
    return runs


def tail_row(recordings: int, runs: Rounds) -> None:
    """Round trips by the clock; in brackets the longest chain of requests."""
    found = {tool: median(each, lambda ran: ran.after_last_byte()[0]) for tool, each in runs.items()}
    chains = {tool: median(each, lambda ran: ran.after_last_byte()[1]) for tool, each in runs.items()}
    cells = {tool: f"{value:.1f} ({chains[tool]:.0f})" for tool, value in found.items()}
    title = f"round trips from the last byte to the end, {recordings} recordings (the longest chain)"
    row(title, cells, "≤ 10", within(found, 10))


def many(root: Path, tools: Sequence[str], _rounds: int) -> Rounds:
    """5,000 recordings far away, once: requests."""
    (runs,) = in_turn(root, MANY, [tool for tool in tools if tool in OURS], 1)
    row("5,000 recordings behind 50 ms, s", seconds(walls(runs)), "", None)
    request_rows(MANY, runs)
    return runs


def request_rows(work: Work, runs: Rounds) -> None:
    """What was asked, beside the files."""

    def told(title: str, figure: Callable[[Ran], float], goal: str, most: float, form: str = ".0f") -> None:
        found = {tool: median(each, figure) for tool, each in runs.items()}
        row(title, {tool: f"{value:{form}}" for tool, value in found.items()}, goal, within(found, most))

    count = work.recordings
    told(
        "… requests a recording over its files",
        lambda ran: len(ran.traffic.requests) / count - work.files,
        "≤ 3",
        3,
        ".2f",
    )
    told("… catalog requests in all", lambda ran: len(ran.of("assets")), "≤ 60", 60)
    told("… commits of a table in flight at once", Ran.commits_at_once, "≤ 1", 1)
    told("… look-ups in the catalog a recording", lambda ran: ran.look_ups() / count, "0", 0.05, ".3f")


def draw(runs: Rounds) -> None:
    """MB/s over time of the last round, ours beside rclone's."""
    lines = []
    for tool, name in (("stated", "ursa batch"), ("rclone", "rclone copy")):
        if tool in runs:
            last = runs[tool][-1]
            lines.append(Line(name, rates(last), last.wall_s))
    PICTURE.parent.mkdir(exist_ok=True)
    plot(PICTURE, "24 recordings of 20 MiB over a link of 25 MB/s, 50 ms away", lines, limit=RATE / 1e6)


def rates(ran: Ran, wide_s: float = 0.5) -> list[tuple[float, float]]:
    """(seconds since the start, MB/s) in slices of so many seconds."""
    sent = [(0.0, 0), *((at - ran.began_s, count) for at, count in ran.traffic.sent if at > ran.began_s)]
    found, (since, before) = [], sent[0]
    for at, count in sent[1:]:
        if at - since >= wide_s or at == sent[-1][0]:
            found.append(((at + since) / 2, (count - before) / (at - since) / 1e6))
            since, before = at, count
    return found


PARTS = {"backlog": backlog, "door": door, "link": link, "tail": tail, "many": many}


def write_trace(path: Path, part: str, runs: Rounds) -> None:
    """The requests of ursa's last runs."""
    with path.open("a") as file:
        for tool in (tool for tool in OURS if tool in runs):
            lines = trace(runs[tool][-1].traffic.requests)
            file.write("\n".join([f"### {part}, {tool}", *lines, "", ""]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="backlog,door,link,tail", help=", ".join(PARTS))
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--trace", type=Path, default=None, metavar="FILE")
    parser.add_argument("--dir", default="/dev/shm" if Path("/dev/shm").is_dir() else None)
    arguments = parser.parse_args()
    for package in ("ursa", "ursa_cli"):  # as after an installation
        compileall.compile_dir(Path(__file__).parents[1] / package, quiet=1)
    tools = [tool for tool in TOOLS if tool in arguments.tools.split(",")]
    print(f"| work | {' | '.join(HEADS)} | goal | met |\n|{' --- |' * (len(HEADS) + 3)}", flush=True)
    for part in arguments.parts.split(","):
        with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="ursa-bench-") as directory:
            runs = PARTS[part](Path(directory), tools, arguments.rounds)
        if part == "link":
            draw(runs)
        if arguments.trace and part != "door":
            write_trace(arguments.trace, part, runs)


if __name__ == "__main__":
    main()
