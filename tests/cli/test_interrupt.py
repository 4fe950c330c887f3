"""Interrupted, terminated, killed: nothing half is ever visible, and the same command goes on."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets, MakeConfig, make_buckets
from helpers import make_recording, run_ursa, start_ursa
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface

REC = "rec_20260520_195628_b1dd"
BLOCK = os.urandom(1 << 20)
FILES = {
    **{f"camera_left/seg_{number:03}.mp4": BLOCK[number : number + 200_000] for number in range(30)},
    "camera_right/big.mp4": BLOCK * 40,
    "eeg_a/seg_000.edf": b"eeg" * 1000,
}


def rows(*where: str | Path) -> list[dict[str, Any]]:
    """What ``ursa ls`` shows."""
    done = run_ursa("ls", "--json", *where)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    """Poll until ``condition``."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.01)


def objects(buckets: Buckets) -> dict[str, bytes]:
    """Every object of the raw bucket, by path."""
    client = buckets.server.client()
    listed = client.list_objects_v2(Bucket=buckets.raw).get("Contents", [])
    return {
        item["Key"].removeprefix(f"recordings/{REC}/"): client.get_object(Bucket=buckets.raw, Key=item["Key"])[
            "Body"
        ].read()
        for item in listed
    }


def files_of(rec_dir: Path) -> dict[str, bytes]:
    """Every file of a recording, by path."""
    return {path.relative_to(rec_dir).as_posix(): path.read_bytes() for path in rec_dir.rglob("*") if path.is_file()}


@pytest.fixture
def proxied(
    weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Callable[[S3Server], FaultProxy]
) -> tuple[FaultProxy, Path]:
    """A proxy before a server with an empty catalog, and the config that goes through it."""
    assert run_ursa("catalog", "init", "--yes", "--config", s3_config(weed_buckets)).returncode == 0
    proxy = fault_proxy(weed_buckets.server)
    return proxy, s3_config(weed_buckets.at(proxy.url))


@pytest.mark.parametrize(
    ("number", "jobs"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")], ids=["SIGINT", "SIGTERM with jobs"]
)
def test_a_signal_is_130_and_the_next_run_goes_on(
    number: signal.Signals, jobs: str, proxied: tuple[FaultProxy, Path], weed_buckets: Buckets, tmp_path: Path
) -> None:
    proxy, config = proxied
    rec_dir = make_recording(tmp_path, REC, FILES)
    proxy.delay_s = 0.15
    with start_ursa("ingest", rec_dir, "--config", config, "--transfers", "4", "--jobs", jobs) as process:
        wait_for(lambda: proxy.count("upload_part") >= 2 and proxy.count("put") >= 2)
        process.send_signal(number)
        started = time.monotonic()
        out, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 10
    assert process.returncode == 130, err
    assert "Traceback" not in err and "interrupted" in err and "same command again" in err
    assert "OK" not in out
    proxy.delay_s = 0
    assert rows("--config", config) == []
    there = objects(weed_buckets)
    assert "manifest.json" not in there
    proxy.clear()
    again = run_ursa("ingest", rec_dir, "--config", config)
    assert again.returncode == 0, again.stderr
    assert objects(weed_buckets) == files_of(rec_dir)
    sent = sum(entry.bytes_in for entry in proxy.log if weed_buckets.raw in entry.path)
    assert sent < sum(map(len, files_of(rec_dir).values())) - sum(map(len, there.values())) + 100_000
    assert [row["rec_id"] for row in rows("--config", config)] == [REC]


def test_a_second_signal_ends_at_once(proxied: tuple[FaultProxy, Path], tmp_path: Path) -> None:
    proxy, config = proxied
    rec_dir = make_recording(tmp_path, REC, FILES)
    proxy.stall(lambda method, path, query: method == "PUT" and "camera" in path, 60, times=None)
    with start_ursa("ingest", rec_dir, "--config", config) as process:
        wait_for(lambda: any(entry.method == "PUT" and "camera" in entry.path for entry in list(proxy.log)))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = ""
        # A second one that comes before the first was heard is the same signal to Python.
        while "once more" not in err and (line := process.stderr.readline()):
            err += line
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=25)
        err += rest
    # To a shell both are 130.
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err


def test_a_finished_recording_stays_and_the_one_in_flight_does_not(
    proxied: tuple[FaultProxy, Path], tmp_path: Path
) -> None:
    proxy, config = proxied
    first = make_recording(tmp_path, "rec_20260519_000000_aa", {"eeg_a/a.edf": b"eeg"})
    second = make_recording(tmp_path, REC, FILES)
    proxy.stall(lambda method, path, query: method == "PUT" and REC in path, 1, times=None)
    with start_ursa("ingest", first, second, "--config", config) as process:
        wait_for(lambda: any(REC in entry.path and entry.method == "PUT" for entry in list(proxy.log)))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"OK   {first.name}" in out and REC not in out
    assert [row["rec_id"] for row in rows("--config", config)] == [first.name]


@pytest.mark.parametrize("what", ["ACTIVE.json", "/_delta_log/", "_delta_log/00000000000000000001.json", ".parquet"])
def test_a_signal_while_reading_is_130_too(what: str, proxied: tuple[FaultProxy, Path], tmp_path: Path) -> None:
    proxy, config = proxied
    rec_dir = make_recording(tmp_path, REC, {"eeg_a/a.edf": b"eeg"})
    assert run_ursa("ingest", rec_dir, "--config", config).returncode == 0
    shutil.rmtree(Path.home() / ".cache" / "ursa")  # as on a machine that has no copy of the catalog
    stalled = proxy.stall(
        lambda method, path, query: method == "GET" and (path + query.get("prefix", "")).endswith(what), 30, times=None
    )
    with start_ursa("ls", "--config", config) as process:
        wait_for(lambda: stalled.hits >= 1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=8)
        finally:
            process.kill()
    # The second one may find Python on its way out, where nobody listens any more; to a shell both are 130.
    assert process.returncode in (130, -signal.SIGINT), err
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="asks for one of a process's threads by its number")
@pytest.mark.parametrize("command", ["ingest", "batch", "verify"])
def test_a_signal_that_another_thread_gets_is_heard(
    command: str, proxied: tuple[FaultProxy, Path], tmp_path: Path
) -> None:
    """The system gives a process's signal to any of its threads; the main one, which handles it, may be waiting for good."""
    proxy, config = proxied
    rec_dir = make_recording(tmp_path / "nas", REC, {"eeg_a/a.edf": b"eeg"})
    if command == "verify":
        assert run_ursa("ingest", rec_dir, "--config", config).returncode == 0
    method = "GET" if command == "verify" else "PUT"
    stalled = proxy.stall(lambda asked, path, query: asked == method and path.endswith("a.edf"), 60, times=None)
    where = rec_dir.parent if command == "batch" else rec_dir
    with start_ursa(command, where, "--config", config) as process:
        wait_for(lambda: stalled.hits >= 1)
        others = [
            int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir() if int(task.name) != process.pid
        ]
        libc = ctypes.CDLL(None, use_errno=True)
        began = time.monotonic()
        assert libc.tgkill(process.pid, max(others), signal.SIGINT) == 0
        assert process.stderr is not None
        err = ""
        while "once more" not in err and (line := process.stderr.readline()):
            err += line
        assert "once more" in err and time.monotonic() - began < 50, "it was heard when the server had answered"
        process.kill()


def test_killed_before_its_probe_is_deleted(
    proxied: tuple[FaultProxy, Path], weed_buckets: Buckets, tmp_path: Path
) -> None:
    """The next run of this machine removes what the killed one asked the server with."""
    proxy, config = proxied
    rec_dir = make_recording(tmp_path, REC, {"eeg_a/a.edf": b"eeg"})
    stalled = proxy.stall(lambda method, path, query: method == "DELETE" and weed_buckets.raw in path, 60, times=None)
    with start_ursa("ingest", rec_dir, "--config", config) as process:
        wait_for(lambda: stalled.hits >= 1)
        process.kill()
    assert any("probe" in key for key in objects(weed_buckets))
    proxy.clear()
    assert run_ursa("ingest", rec_dir, "--config", config).returncode == 0
    assert objects(weed_buckets) == files_of(rec_dir)


def _kill_and_look(words: list[str | Path], after_s: float, look: Callable[[], list[str]]) -> None:
    """Start an ingest, kill it after a while, and see that what is visible is whole."""
    with start_ursa(*words) as process:
        try:
            process.wait(timeout=after_s)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    assert look() in ([], [REC])


def _whole(data: DataInterface, files: dict[str, bytes]) -> None:
    """Exactly one row, and every registered file has its bytes."""
    assert [row.rec_id for row in data.list_recordings()] == [REC]
    modalities = data.list_modalities()
    assert sorted(row.name for row in modalities) == ["camera_left", "camera_right", "eeg_a"]
    registered = {file.path: file.size_bytes for row in modalities for file in row.files}
    assert registered == {path: len(body) for path, body in files.items() if "/" in path}


SMALL = {path: body for path, body in FILES.items() if "big" not in path} | {"camera_right/big.mp4": BLOCK * 18}


ROUNDS = pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=pytest.mark.slow)])


@ROUNDS
def test_killed_at_any_moment_locally(rounds: int, tmp_path: Path, home: Path) -> None:
    chance = random.Random(rounds)
    root = home / ".local" / "share" / "ursa"
    rec_dir = make_recording(tmp_path, REC, SMALL, participant="Aria Lin")
    for turn in range(rounds):
        for _ in range(2):
            _kill_and_look(
                ["ingest", rec_dir, "-p", "local"],
                chance.uniform(0.15, 0.8),
                lambda: [row.rec_id for row in DataInterface("local").list_recordings()],
            )
        last = run_ursa("ingest", rec_dir, "-p", "local", "--existing", "skip")
        assert last.returncode == 0, last.stderr
        _whole(DataInterface("local"), SMALL)
        assert files_of(root / "constellation-data" / "recordings" / REC) == files_of(rec_dir)
        root.rename(tmp_path / f"store-{turn}")


@ROUNDS
def test_killed_at_any_moment_on_a_server(
    rounds: int, weed_server: S3Server, s3_config: MakeConfig, tmp_path: Path
) -> None:
    chance = random.Random(rounds)
    rec_dir = make_recording(tmp_path, REC, SMALL, participant="Aria Lin")
    for _ in range(rounds):
        buckets = make_buckets(weed_server)
        config = s3_config(buckets)
        data = DataInterface("r2", config)
        data.enable_writes()
        data.init_catalog()
        words = ["ingest", rec_dir, "--config", config]
        _kill_and_look(
            words, chance.uniform(0.3, 1.6), lambda data=data: [row.rec_id for row in data.list_recordings()]
        )
        last = run_ursa(*words, "--existing", "skip")
        assert last.returncode == 0, last.stderr
        _whole(data, SMALL)
        assert objects(buckets) == files_of(rec_dir)
