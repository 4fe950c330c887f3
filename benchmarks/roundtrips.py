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
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from far import COMMANDS, DELAY_S, Bench, Command, Run, filled
from proxy import FaultProxy
from transfer import config_text, running
from trips import depth, kinds, trace

_WARMING = 2  # runs: what a batch reads it remembers of files that it had seen in an earlier run


@contextmanager
def open_bench(root: Path, recordings: int) -> Iterator[Bench]:
    """A fresh server with a catalog of so many recordings."""
    with running(root / "server") as server, FaultProxy(server.endpoint_url) as proxy:
        yield filled(root, proxy, server, config_text(proxy.url) + "    rig_timezone: UTC\n", recordings)


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
