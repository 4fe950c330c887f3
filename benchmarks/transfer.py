"""Uploads side by side with the tools that people would use instead: same source, same server, alternating.

    python benchmarks/transfer.py [--rounds 3] [--scenarios small,large,mixed,few50,small50,large50] [--tools ursa,s5cmd]

Each round starts a fresh server and runs every tool once, in turn. Prints medians of wall and CPU seconds, peak memory,
requests (where a proxy is in between), and the ratio of ursa's wall time to each peer's, round by round. ursa's times include
its start, hashing everything, proving it and registering it; the peers copy. What it asks of a server once a month, and what
it keeps of the catalog, is there from a recording of one file before. Asserts nothing.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from far_server import Far

from servers import S3Server, find_executable, weed

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Scenario(NamedTuple):
    """What is sent: (number, size in bytes) groups; and how far away the server is."""

    groups: tuple[tuple[int, int], ...]
    delay_s: float
    title: str


SCENARIOS = {
    "small": Scenario(((2000, 64 * KIB),), 0, "2,000 × 64 KiB"),
    "large": Scenario(((1, 2 * GIB),), 0, "1 × 2 GiB"),
    "mixed": Scenario(((8, 128 * MIB), (3000, 16 * KIB)), 0, "8 × 128 MiB and 3,000 × 16 KiB"),
    "few50": Scenario(((600, 64 * KIB),), 0.05, "600 × 64 KiB, 50 ms away"),
    "small50": Scenario(((2000, 64 * KIB),), 0.05, "2,000 × 64 KiB, 50 ms away"),
    "large50": Scenario(((1, 512 * MIB),), 0.05, "1 × 512 MiB, 50 ms away"),
}

BOTO3 = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import boto3
from botocore.config import Config
endpoint, bucket, prefix, source = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, config=Config(max_pool_connections=64,
    request_checksum_calculation="when_required"))
root = Path(source)
with ThreadPoolExecutor(16) as pool:
    for _ in pool.map(lambda p: s3.upload_file(str(p), bucket, prefix + str(p.relative_to(root))),
                      [p for p in root.rglob("*") if p.is_file()]):
        pass
"""


@dataclass(frozen=True)
class Sample:
    """One run of one tool."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    requests: int | None


def make_source(root: Path, scenario: Scenario) -> Path:
    """A recording with the scenario's files; its manifest states every sha256."""
    rec_dir = root / "rec_20260101_000000_a1"
    (rec_dir / "camera_left").mkdir(parents=True)
    files = []
    for group, (number, size) in enumerate(scenario.groups):
        for index in range(number):
            path = rec_dir / "camera_left" / f"{group}_{index:05d}"
            hasher = hashlib.sha256()
            with path.open("wb") as file:
                for start in range(0, size, MIB):
                    block = os.urandom(min(MIB, size - start))
                    hasher.update(block)
                    file.write(block)
            files.append({"path": f"camera_left/{path.name}", "size_bytes": size, "sha256": hasher.hexdigest()})
    write_manifest(rec_dir, files)
    return rec_dir


def write_manifest(rec_dir: Path, files: list[dict[str, object]], *, stated: bool = True) -> None:
    """A manifest under the directory's name. ``stated``: with an identity of its own, else it follows from the files."""
    manifest = {"recording_id": rec_dir.name, "started_at": "2026-01-01T00:00:00Z", "files": files}
    if stated:
        manifest["recording_hash"] = hashlib.sha256(rec_dir.name.encode()).hexdigest()
    (rec_dir / "manifest.json").write_text(json.dumps(manifest))


def make_warm_up(root: Path) -> Path:
    """A recording of one small file."""
    return make_source(root / "warm-up", Scenario(((1, KIB),), 0, ""))


def copy_of(source: Path) -> Path:
    """The same bytes (hard links) as a new recording."""
    copy = source.with_name(f"rec_20260101_000000_{secrets.token_hex(6)}")
    shutil.copytree(source, copy, copy_function=os.link)
    files = json.loads((source / "manifest.json").read_text())["files"]
    (copy / "manifest.json").unlink()
    write_manifest(copy, files)
    return copy


def commands(endpoint: str, server: S3Server, source: Path, config: Path, run: str) -> dict[str, list[str]]:
    """Each tool's command for the same upload."""
    bin_dir = Path(sys.executable).parent
    remote = f":s3,provider=Other,endpoint='{endpoint}',access_key_id={server.access_key},secret_access_key={server.secret_key}"
    return {
        "ursa": [str(bin_dir / "ursa"), "ingest", str(source), "--config", str(config), "--quiet"],
        "rclone": [
            find_executable("rclone"), "--config", os.devnull, "copy", "--transfers", "16",
            str(source), f"{remote}:raw-bench/rclone-{run}",
        ],
        "s5cmd": [find_executable("s5cmd"), "--endpoint-url", endpoint, "--log", "error", "cp", f"{source}/", f"s3://raw-bench/s5cmd-{run}/"],
        "aws": [str(bin_dir / "aws"), "--endpoint-url", endpoint, "s3", "cp", "--recursive", "--quiet", str(source), f"s3://raw-bench/aws-{run}"],
        "boto3": [sys.executable, "-c", BOTO3, endpoint, "raw-bench", f"boto3-{run}/", str(source)],
    }  # fmt: skip


def measure(command: list[str], environment: dict[str, str], far: Far | None) -> Sample:
    """Run to the end; CPU and memory are of the process and its children."""
    if far:
        far.count()
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _pid, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else KIB
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, far.count() if far else None)


@contextlib.contextmanager
def running(directory: Path) -> Iterator[S3Server]:
    """A fresh server with its buckets; gone afterwards, with all that it stored."""
    directory.mkdir()
    try:
        with weed(directory) as server:
            server.create_bucket("raw-bench")
            server.create_bucket("assets-bench")
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def one_round(scenario: Scenario, source: Path, root: Path, wanted: list[str]) -> tuple[dict[str, Sample], Sample]:
    """Every tool once on a fresh server; and ursa once more on what it has just registered."""
    with running(root / "server") as server:
        far = Far(server, scenario.delay_s) if scenario.delay_s else None
        endpoint = far.url if far else server.endpoint_url
        config = root / "ursa.yaml"
        config.write_text(config_text(endpoint))
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "HOME": str(root),
        }
        ursa = str(Path(sys.executable).with_name("ursa"))
        for words in (["catalog", "init", "--yes"], ["ingest", str(make_warm_up(root))]):
            subprocess.run([ursa, *words, "--config", str(config), "-q"], env=environment, check=True)
        shutil.rmtree(root / "warm-up")
        recording = copy_of(source)
        tools = commands(endpoint, server, recording, config, secrets.token_hex(4))
        tools = {name: command for name, command in tools.items() if name in wanted}
        samples = {name: measure(command, environment, far) for name, command in tools.items()}
        again = measure([*tools["ursa"], "--existing", "skip"], environment, far)
        shutil.rmtree(recording)
        if far:
            far.close()
    return samples, again


def config_text(endpoint: str, raw: str = "recordings/", assets: str = "ursa/") -> str:
    """A profile for the bench's buckets, with these prefixes in them."""
    return f"""profiles:
  r2:
    endpoint_url: {endpoint}
    raw: {{bucket: raw-bench, prefix: {raw}}}
    assets: {{bucket: assets-bench, prefix: {assets}}}
    credentials: {{provider: env}}
"""


def report(title: str, rounds: list[dict[str, Sample]], again: list[Sample]) -> None:
    """A table of medians, as Markdown, and ursa's ratio to each peer."""
    print(
        f"\n### {title}\n\n| | wall s | CPU s | peak MiB | requests | ursa to it |\n| --- | --- | --- | --- | --- | --- |"
    )
    walls = {name: statistics.median(samples[name].wall_s for samples in rounds) for name in rounds[0]}
    for name in rounds[0]:
        ratios = [samples["ursa"].wall_s / samples[name].wall_s for samples in rounds]
        ratio = "" if name == "ursa" else f"{statistics.median(ratios):.2f}"
        print(f"{row(name, [samples[name] for samples in rounds])} {ratio} |")
    print(f"{row('ursa, again', again)} |")
    best = min((wall, name) for name, wall in walls.items() if name != "ursa")
    print(f"\nursa / best peer ({best[1]}): {walls['ursa'] / best[0]:.2f}", flush=True)


def row(name: str, samples: list[Sample]) -> str:
    """One line of the table."""
    wall = statistics.median(sample.wall_s for sample in samples)
    cpu = statistics.median(sample.cpu_s for sample in samples)
    peak = max(sample.peak_bytes for sample in samples) / MIB
    requests = samples[-1].requests
    return f"| {name} | {wall:.2f} | {cpu:.2f} | {peak:.0f} | {requests if requests is not None else '-'} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--tools", default="ursa,rclone,s5cmd,aws,boto3")
    parser.add_argument("--dir", default="/dev/shm" if Path("/dev/shm").is_dir() else None)
    arguments = parser.parse_args()
    for package in ("ursa", "ursa_cli"):  # as after an installation
        compileall.compile_dir(Path(__file__).parents[1] / package, quiet=1)
    for name in arguments.scenarios.split(","):
        scenario = SCENARIOS[name]
        with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="ursa-bench-") as directory:
            root = Path(directory)
            source = make_source(root / "source", scenario)
            results = [one_round(scenario, source, root, arguments.tools.split(",")) for _ in range(arguments.rounds)]
        report(scenario.title, [samples for samples, _ in results], [again for _, again in results])


if __name__ == "__main__":
    main()
