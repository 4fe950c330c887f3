"""Killed at every step and run again, an ingest ends as if it had never been killed."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forks import Forks

from conftest import Buckets, MakeConfig
from helpers import make_recording
from servers import find_executable
from ursa import DataInterface

REC = "rec_20260520_195628_b1dd"
FILES = {
    "camera_left/seg_000.mp4": random.Random(1).randbytes(17 << 20),
    "eeg_a/seg_000.edf": b"eeg" * 3_000,
    "eeg_b/empty.edf": b"",
    "events.csv": b"a,b\n",
}
KILLED = -9
# Every step on `local`; on a server, where each run takes seconds, every fifth.
STRIDE = 5


@pytest.fixture
def forks(s3_config: MakeConfig, weed_buckets: Buckets) -> Iterator[Forks]:
    """Ingests that are killed at a step: each a process of its own, with the server's keys."""
    s3_config(weed_buckets)
    with Forks(Path(__file__).with_name("killed.py")) as made:
        yield made


def rows(data: DataInterface) -> dict[str, Any]:
    """What the catalog says, without what no two runs have in common: times of registration, ETags and how they were proven."""
    with data:
        recordings = data.list_recordings()
        modalities = data.list_modalities()
        return {
            "recordings": [
                replace(row, registered_at=None, registered_by="", auxiliary_files=without_etags(row.auxiliary_files))
                for row in recordings
            ],
            "modalities": [replace(row, metadata={}, files=without_etags(row.files)) for row in modalities],
            "participants": [replace(row, created_at=None) for row in data.list_participants()],
            "uploads": data.list_uploads(),
        }


def without_etags(files: tuple[Any, ...]) -> tuple[Any, ...]:
    """File rows without what differs with how often a file was sent; every one of them is proven."""
    assert all(file.proven for file in files)
    return tuple(replace(file, etag=None, evidence="") for file in files)


def check_visible_is_whole(data: DataInterface) -> None:
    """At no moment is a recording visible that isn't wholly there."""
    with data:
        found = data.list_recordings()
        if found:
            assert len(found) == 1
            (check,) = data.verify([found[0].rec_id], level="full")
            assert check.ok, check
            assert {file.path for file in check.files if file.mark == "="} == set(FILES)


def check_finished(run: subprocess.CompletedProcess[str]) -> None:
    """A re-run registers what was not, and says so where everything was."""
    assert run.returncode == 0 or "RecordingExistsError" in run.stderr, run.stderr


def points(total: int, stride: int) -> Iterator[int]:
    """The steps to be killed at."""
    return iter(range(1, total + 1, stride))


@pytest.mark.slow
def test_local(forks: Forks, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, participant="Aria Lin")
    config = tmp_path / "ursa.yaml"

    def fresh(name: str) -> DataInterface:
        config.write_text(f"profiles:\n  local: {{root: {tmp_path / name}}}\n")
        return DataInterface("local", config)

    undisturbed = fresh("undisturbed")
    run = forks.run(config, "local", rec_dir, 0)
    assert run.returncode == 0, run.stderr
    expected = rows(undisturbed)
    total = int(run.stdout)
    assert total > 30
    for point in points(total, 1):
        data = fresh(f"killed-{point}")
        # 0: events are told at most ten a second, so a run may have fewer steps than the first one.
        assert forks.run(config, "local", rec_dir, point).returncode in (KILLED, 0)
        check_visible_is_whole(DataInterface("local", config))
        check_finished(forks.run(config, "local", rec_dir, 0))
        assert rows(data) == expected, f"killed at step {point} of {total}"
        stored = tmp_path / f"killed-{point}" / "constellation-data" / "recordings" / REC
        assert {
            path.relative_to(stored).as_posix(): path.read_bytes() for path in stored.rglob("*") if path.is_file()
        } == {path.relative_to(rec_dir).as_posix(): path.read_bytes() for path in rec_dir.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_server(forks: Forks, weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path) -> None:
    config = s3_config(weed_buckets)
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, participant="Aria Lin")
    run = run_killed_fresh(forks, config, weed_buckets, rec_dir, 0)
    assert run.returncode == 0, run.stderr
    expected = rows(DataInterface("r2", config))
    total = int(run.stdout)
    for point in points(total, STRIDE):
        assert run_killed_fresh(forks, config, weed_buckets, rec_dir, point).returncode in (KILLED, 0)
        check_visible_is_whole(DataInterface("r2", config))
        check_finished(forks.run(config, "r2", rec_dir, 0))
        assert rows(DataInterface("r2", config)) == expected, f"killed at step {point} of {total}"
        assert_rclone_finds_no_difference(weed_buckets, rec_dir)


def run_killed_fresh(
    forks: Forks, config: Path, buckets: Buckets, rec_dir: Path, point: int
) -> subprocess.CompletedProcess[str]:
    """An ingest that is killed at ``point``, in emptied buckets with a new catalog."""
    client = buckets.server.client()
    for bucket in (buckets.raw, buckets.assets):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page.get("Contents", ()):
                client.delete_object(Bucket=bucket, Key=item["Key"])
        for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
            client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    data = DataInterface("r2", config)
    data.enable_writes()
    data.init_catalog()
    return forks.run(config, "r2", rec_dir, point)


def assert_rclone_finds_no_difference(buckets: Buckets, rec_dir: Path) -> None:
    """A tool that has nothing to do with ours compares disk and bucket, byte for byte."""
    server = buckets.server
    remote = (
        f":s3,provider=Other,endpoint='{server.endpoint_url}',access_key_id={server.access_key},"
        f"secret_access_key={server.secret_key}:{buckets.raw}/recordings/{REC}"
    )
    command = [find_executable("rclone"), "--config", os.devnull, "check", "--download", str(rec_dir), remote]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
