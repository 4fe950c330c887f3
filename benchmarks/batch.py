"""`ursa batch` over many recordings: the first run, and the run over what is all registered.

    python benchmarks/batch.py [--rounds 3] [--recordings 10000]

Everything against one weed server in one run: 10,000 recordings of 10 files of 64 bytes are registered (peak memory, and
how it grows), then found registered again, beside `find` over the same tree and a process that does nothing but the
catalog read. Requests are counted by a proxy in a process of its own, in a run that is not timed. Asserts nothing. What a
night of new recordings takes, beside what other tools take for it, is in `night.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from far_server import Far

from servers import S3Server, find_executable
from transfer import KIB, MIB, Sample, config_text, measure, running, write_manifest

FILES = 10

CATALOG_READ = """
import os, sys, time
from pathlib import Path
from ursa import DataInterface
from ursa.catalog.standings import Standings
config, root = sys.argv[1:]
data = DataInterface("r2", Path(config))
data.enable_writes(roles=("assets_rw", "raw_rw"))
names = sorted(os.listdir(root))
start = time.perf_counter()
catalog = data._catalog
opened = time.perf_counter()
standings, until = Standings(lambda: catalog, names), 0
while until < len(names):
    at, until = until, standings.begin(until)
    assert all(standings.of(name) for name in names[at:until])
print(opened - start, time.perf_counter() - opened)
"""


@dataclass(frozen=True)
class Bench:
    """The server, where its config is, and where recordings are."""

    server: S3Server
    root: Path
    environment: dict[str, str]

    def config(self, endpoint: str) -> Path:
        """A config file for this endpoint."""
        path = self.root / f"ursa-{endpoint.rsplit(':', 1)[-1]}.yaml"
        path.write_text(config_text(endpoint))
        return path

    def batch(self, source: Path, endpoint: str | None = None) -> list[str]:
        """The command."""
        config = self.config(endpoint or self.server.endpoint_url)
        return [find_executable("ursa"), "batch", str(source), "--config", str(config), "--no-progress"]


def make_source(
    root: Path, recordings: int, sizes: Sequence[int], *, stated: bool = False, participant: str | None = None
) -> Path:
    """Recordings as a rig writes them; random content, every sha256 listed. ``stated``: and a recording_hash."""
    root.mkdir()
    mark = secrets.token_hex(3)
    for number in range(recordings):
        rec_dir = root / f"rec_20260101_{number:06d}_{mark}"
        (rec_dir / "eeg_a").mkdir(parents=True)
        files: list[dict[str, object]] = []
        for index, size in enumerate(sizes):
            data = os.urandom(size)
            path = f"eeg_a/seg_{index:03d}.edf"
            (rec_dir / path).write_bytes(data)
            files.append({"path": path, "size_bytes": size, "sha256": hashlib.sha256(data).hexdigest()})
        write_manifest(rec_dir, files, stated=stated)
        if participant:
            (rec_dir / "participant.txt").write_text(participant)
    return root


@contextmanager
def bench(root: Path) -> Iterator[Bench]:
    """A fresh server with an empty catalog."""
    with running(root / "server") as server:
        environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_REGION": "us-east-1",
            "HOME": str(root),
        }
        made = Bench(server, root, environment)
        init = [find_executable("ursa"), "catalog", "init", "--yes", "-q", "--config"]
        subprocess.run([*init, str(made.config(server.endpoint_url))], env=environment, check=True)
        yield made


def listing(made: Bench) -> list[str]:
    """The peer's listing of all that ursa sent."""
    return [
        find_executable("rclone"),
        "--config",
        os.devnull,
        "lsf",
        "-R",
        "--fast-list",
        "--files-only",
        remote(made.server, "recordings", made.server.endpoint_url),
    ]


def remote(server: S3Server, prefix: str, url: str) -> str:
    """A prefix of the raw bucket as rclone names it, at an endpoint."""
    return (
        f":s3,provider=Other,endpoint='{url}',access_key_id={server.access_key},"
        f"secret_access_key={server.secret_key}:raw-bench/{prefix}"
    )


def many(root: Path, recordings: int, rounds: int) -> None:
    """The first run's memory; the next runs' time and requests."""
    with bench(root) as made:
        source = make_source(root / "source", recordings, [64] * FILES)
        first, growth = with_growth(made.batch(source), made.environment, recordings)
        names = ("find -printf %s", "catalog read", "rclone lsf -R --fast-list", "ursa batch, all HAVE")
        found: dict[str, list[float]] = {name: [] for name in names}
        opening: list[float] = []
        peaks = []
        for _ in range(rounds):
            walk = [find_executable("find"), str(source), "-type", "f", "-printf", "%s\n"]
            found["find -printf %s"].append(measure(walk, made.environment, None).wall_s)
            opened, read = catalog_read(made, source)
            opening.append(opened)
            found["catalog read"].append(read)
            found["rclone lsf -R --fast-list"].append(measure(listing(made), made.environment, None).wall_s)
            again = measure(made.batch(source), made.environment, None)
            found["ursa batch, all HAVE"].append(again.wall_s)
            peaks.append(again.peak_bytes)
        far = Far(made.server, 0)
        requests = measure(made.batch(source, far.url), made.environment, far).requests
        far.close()
    print(f"\n### {recordings} recordings of {FILES} × 64 bytes\n")
    print(f"first run: {first.wall_s:.1f} s, {first.cpu_s:.1f} s of CPU, peak {first.peak_bytes / MIB:.0f} MiB")
    print("resident MiB after each tenth: " + ", ".join(f"{size / MIB:.0f}" for size in growth))
    print("\n| | median s |\n| --- | --- |")
    for name, times in found.items():
        print(f"| {name} | {statistics.median(times):.2f} |")
    walked, read, listed, batch = (statistics.median(times) for times in found.values())
    opened = statistics.median(opening)
    print(
        f"\n(batch - catalog read - listing) / find: {(batch - read - listed) / walked:.2f}"
        f" (of the batch {opened:.2f} s open the catalog; its start is in it too); {requests} requests; peak"
        f" {max(peaks) / MIB:.0f} MiB",
        flush=True,
    )


def catalog_read(made: Bench, source: Path) -> tuple[float, float]:
    """Seconds to open the catalog, and to ask it for all recordings, in a process that does nothing else."""
    command = [sys.executable, "-c", CATALOG_READ, str(made.config(made.server.endpoint_url)), str(source)]
    run = subprocess.run(command, env=made.environment, check=True, capture_output=True, text=True)
    opened, read = map(float, run.stdout.split())
    return opened, read


def with_growth(command: list[str], environment: dict[str, str], recordings: int) -> tuple[Sample, list[int]]:
    """Run it, and look at its memory each time that another tenth of its lines is out (Linux)."""
    growth: list[int] = []
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:

        def follow() -> None:
            assert process.stdout is not None
            for number, _line in enumerate(process.stdout, 1):
                if number % max(1, recordings // 10) == 0:
                    growth.append(resident(process.pid))

        reader = threading.Thread(target=follow)
        reader.start()
        reader.join()
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    wall = time.perf_counter() - started
    unit = 1 if sys.platform == "darwin" else KIB
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, None), growth


def resident(pid: int) -> int:
    """Bytes; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recordings", type=int, default=10_000)
    parser.add_argument(
        "--dir", default=None, help="where sources and the server's data are; the temp directory if not given"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="ursa-bench-") as directory:
        many(Path(directory), arguments.recordings, arguments.rounds)


if __name__ == "__main__":
    main()
