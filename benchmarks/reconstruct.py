"""`ursa reconstruct` beside `rclone hashsum sha256 --download`: the same objects, one server, alternating.

    python benchmarks/reconstruct.py [--rounds 3] [--gib 4] [--dir /dev/shm]

Three quarters of the bytes lie in three large objects, the rest in objects of 64 MiB. Each round runs both tools once, in
turn. Prints medians of wall and CPU seconds, peak memory, and the ratio of ursa's throughput to rclone's. ursa's time
includes its start, two listings and writing the manifest, which is deleted before the next round. Asserts nothing, but that both
found the same hashes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from servers import S3Server, find_executable, weed

MIB, GIB = 1 << 20, 1 << 30
REC = "rec_20260101_000000_a1"
PART = 64 * MIB


@dataclass(frozen=True)
class Sample:
    """One run of one tool."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    out: str


@contextlib.contextmanager
def running(directory: Path) -> Iterator[S3Server]:
    """A fresh server; gone afterwards, with all that it stored."""
    directory.mkdir()
    try:
        with weed(directory) as server:
            server.create_bucket("raw-bench")
            server.create_bucket("assets-bench")
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fill(server: S3Server, total: int) -> None:
    """Three large objects and many of 64 MiB, of random bytes, sent in parts as a rig would."""
    large = total // 4 // PART * PART
    sizes = {f"camera_left/{index}.mp4": large for index in range(3)}
    sizes |= {f"eeg_a/{index:03}.edf": PART for index in range((total - 3 * large) // PART)}
    client = server.client()
    for path, size in sizes.items():
        where = {"Bucket": "raw-bench", "Key": f"recordings/{REC}/{path}"}
        upload = client.create_multipart_upload(**where)["UploadId"]
        parts = []
        for number in range(1, size // PART + 1):
            reply = client.upload_part(**where, UploadId=upload, PartNumber=number, Body=os.urandom(PART))
            parts.append({"PartNumber": number, "ETag": reply["ETag"]})
        client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})


def commands(server: S3Server, config: Path) -> dict[str, list[str]]:
    """Each tool's command for the same objects."""
    keys = f"access_key_id={server.access_key},secret_access_key={server.secret_key}"
    remote = f":s3,provider=Other,endpoint='{server.endpoint_url}',{keys}"
    return {
        "ursa": [str(Path(sys.executable).with_name("ursa")), "reconstruct", REC, "--config", str(config), "--yes", "--json"],
        "rclone": [
            find_executable("rclone"), "--config", os.devnull, "hashsum", "sha256", "--download",
            f"{remote}:raw-bench/recordings/{REC}",
        ],
    }  # fmt: skip


def measure(command: list[str], environment: dict[str, str], out: Path) -> Sample:
    """Run to the end; CPU and memory are of the process and its children."""
    with out.open("w") as stdout:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=stdout)
        _pid, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, out.read_text())


def check_same(server: S3Server, rclone: Sample) -> None:
    """What ursa wrote is what rclone found; the manifest goes, for the next round."""
    where = {"Bucket": "raw-bench", "Key": f"recordings/{REC}/manifest.json"}
    listed = json.loads(server.client().get_object(**where)["Body"].read())["files"]
    found = dict(reversed(line.split(maxsplit=1)) for line in rclone.out.splitlines())
    if {entry["path"]: entry["sha256"] for entry in listed} != {k: v for k, v in found.items() if "/" in k}:
        raise SystemExit("the two tools found different hashes")
    server.client().delete_object(**where)


def report(total: int, rounds: list[dict[str, Sample]]) -> None:
    """A table of medians, as Markdown."""
    print(
        f"\n### {total / GIB:.1f} GiB, weed\n\n| | wall s | MiB/s | CPU s | peak MiB |\n| --- | --- | --- | --- | --- |"
    )
    walls = {}
    for name in rounds[0]:
        samples = [samples[name] for samples in rounds]
        walls[name] = wall = statistics.median(sample.wall_s for sample in samples)
        cpu = statistics.median(sample.cpu_s for sample in samples)
        peak = max(sample.peak_bytes for sample in samples) / MIB
        print(f"| {name} | {wall:.2f} | {total / MIB / wall:.0f} | {cpu:.2f} | {peak:.0f} |")
    print(f"\nthroughput ursa / rclone: {walls['rclone'] / walls['ursa']:.2f}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gib", type=float, default=4)
    parser.add_argument("--dir", default="/dev/shm" if Path("/dev/shm").is_dir() else None)
    arguments = parser.parse_args()
    total = int(arguments.gib * GIB)
    rounds = []
    with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="ursa-bench-") as directory:
        root = Path(directory)
        with running(root / "server") as server:
            fill(server, total)
            config = root / "ursa.yaml"
            config.write_text(config_text(server.endpoint_url))
            environment = {
                **os.environ,
                "AWS_ACCESS_KEY_ID": server.access_key,
                "AWS_SECRET_ACCESS_KEY": server.secret_key,
                "HOME": str(root),
            }
            for _ in range(arguments.rounds):
                samples = {
                    name: measure(command, environment, root / "out")
                    for name, command in commands(server, config).items()
                }
                check_same(server, samples["rclone"])
                rounds.append(samples)
    report(total, rounds)


def config_text(endpoint: str) -> str:
    """A profile for the bench's buckets."""
    return f"""profiles:
  r2:
    endpoint_url: {endpoint}
    raw: {{bucket: raw-bench, prefix: recordings/}}
    assets: {{bucket: assets-bench, prefix: ursa/}}
    credentials: {{provider: env}}
"""


if __name__ == "__main__":
    main()
