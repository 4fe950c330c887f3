"""Killed at random moments, a batch never shows a recording that is not wholly there.

Twelve times; ``KILLS=40 pytest tests/kill/test_kill_batch.py`` for longer.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording, run_ursa, start_ursa
from ursa import DataInterface

RECORDINGS = 12
MANY = 40
KILLS = int(os.environ.get("KILLS", "12"))
CHANCE = random.Random(20260520)


def rec(number: int) -> str:
    """The rec_id number so and so."""
    return f"rec_20260520_{number:06d}_b1dd"


def make_nas(nas: Path) -> dict[str, set[str]]:
    """Twelve recordings, two of them with a file that goes up in parts; their raw files by rec_id."""
    made: dict[str, set[str]] = {}
    for number in range(RECORDINGS):
        files = {f"eeg_a/{index}.edf": os.urandom(2_000 + number) for index in range(6)}
        files["camera_left/a.mp4"] = os.urandom(18 << 20 if number % 6 == 3 else 70_000)
        make_recording(nas, rec(number), files, participant=f"Person {number % 3}")
        made[rec(number)] = set(files)
    return made


def kill_after(words: list[str], seconds: float) -> bool:
    """Start a batch, kill it after so long; whether it was still at it."""
    with start_ursa(*words) as process:
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    return process.returncode == -9


def visible_and_whole(common: list[str], expected: dict[str, set[str]]) -> int:
    """How many recordings another process sees; every one of them has every file of the disk, bytes compared."""
    done = run_ursa("verify", "--all", "--level", "full", "--json", *common)
    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, set[str]] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        if line["type"] == "recording":
            assert {file["mark"] for file in line["files"]} == {"="}, line
            seen[line["rec_id"]] = {file["path"] for file in line["files"]}
    assert all(seen[rec_id] >= expected[rec_id] for rec_id in seen)
    return len(seen)


def rounds(common: list[str], nas: Path, kills: int, longest_s: float, fresh: Callable[[], object]) -> None:
    """Kill again and again; start over each time that all is registered."""
    expected = make_nas(nas)
    words = ["batch", str(nas), "--jobs", "4", *common]
    killed, partly = 0, 0
    while killed < kills:
        killed += kill_after(words, CHANCE.uniform(0.2, longest_s))
        count = visible_and_whole(common, expected)
        partly += 0 < count < RECORDINGS
        if count == RECORDINGS and killed < kills:
            check_end(common, words, expected)
            fresh()
    check_end(common, words, expected)
    assert partly or kills < MANY, "never killed halfway: the moments are badly chosen"


def check_end(common: list[str], words: list[str], expected: dict[str, set[str]]) -> None:
    """The next run finishes what is left; every row is there once, every byte is right, nothing is sent again."""
    assert run_ursa(*words).returncode == 0
    assert visible_and_whole(common, expected) == RECORDINGS
    ls = run_ursa("ls", "--json", *common)
    assert [json.loads(line)["rec_id"] for line in ls.stdout.splitlines()] == sorted(expected)
    again = run_ursa(*words)
    assert again.stdout.count("HAVE") == RECORDINGS, again.stdout


@pytest.mark.slow
def test_locally(tmp_path: Path) -> None:
    config = tmp_path / "ursa.yaml"
    turn = [0]

    def fresh() -> None:
        turn[0] += 1
        config.write_text(f"profiles:\n  local: {{root: {tmp_path / f'store-{turn[0]}'}}}\n")

    fresh()
    rounds(["-p", "local", "--config", str(config)], tmp_path / "nas", KILLS, 1.6, fresh)
    for rec_dir in sorted((tmp_path / "nas").iterdir()):
        stored = tmp_path / f"store-{turn[0]}" / "constellation-data" / "recordings" / rec_dir.name
        for path in (path for path in rec_dir.rglob("*") if path.is_file()):
            assert (stored / path.relative_to(rec_dir)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_on_a_server(weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path) -> None:
    config = s3_config(weed_buckets)

    def fresh() -> None:
        client = weed_buckets.server.client()
        for bucket in (weed_buckets.raw, weed_buckets.assets):
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for item in page.get("Contents", ()):
                    client.delete_object(Bucket=bucket, Key=item["Key"])
        with DataInterface("r2", config) as data:
            data.enable_writes()
            data.init_catalog()

    fresh()
    rounds(["--config", str(config)], tmp_path / "nas", KILLS // 3, 3.0, fresh)
