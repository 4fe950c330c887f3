"""A server that ignores conditions holds no catalog and takes no uploads: through the installed command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Buckets, MakeConfig, make_buckets
from helpers import make_recording, run_ursa, start_ursa
from proxy import FaultProxy
from servers import S3Server, rclone_sink

RECS = [f"rec_2026052{number}_195628_b1d{number}" for number in range(3)]
FILES = {"camera_left/seg_000.mp4": b"left " * 20, "eeg_a/seg_000.edf": b"eeg" * 30}
Proxied = Callable[[S3Server], FaultProxy]


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[Buckets]:
    """Buckets of `rclone serve s3`, which takes every write."""
    with rclone_sink(tmp_path / "rclone") as server:
        yield make_buckets(server)


def contents(tmp_path: Path) -> dict[str, bytes]:
    """All that lies in the careless server's buckets."""
    data = tmp_path / "rclone" / "data"
    return {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def migrate_catalog(source: Buckets, target: Buckets) -> None:
    """Copy a catalog to another server, as people who move their buckets do."""
    reading, writing = source.server.client(), target.server.client()
    for item in reading.list_objects_v2(Bucket=source.assets)["Contents"]:
        body = reading.get_object(Bucket=source.assets, Key=item["Key"])["Body"].read()
        writing.put_object(Bucket=target.assets, Key=item["Key"], Body=body)


def test_no_catalog_is_made(careless: Buckets, s3_config: MakeConfig, tmp_path: Path) -> None:
    config = s3_config(careless)
    for _ in range(2):
        done = run_ursa("catalog", "init", "--yes", "--config", config)
        assert done.returncode == 1 and done.stdout == "", done.stderr
        assert f"{careless.server.endpoint_url} ignores conditions in the bucket {careless.assets}" in done.stderr
        assert "two writers could overwrite each other" in done.stderr and "R2 does" in done.stderr
        assert "Traceback" not in done.stderr
    assert contents(tmp_path) == {}


def test_three_ingests_at_once_are_refused(
    careless: Buckets, weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    assert run_ursa("catalog", "init", "--yes", "--config", s3_config(weed_buckets)).returncode == 0
    migrate_catalog(weed_buckets, careless)
    config, before = s3_config(careless, rig_timezone="UTC"), contents(tmp_path)
    recordings = [make_recording(tmp_path / "nas", rec_id, FILES, participant="Aria Lin") for rec_id in RECS]
    running = [start_ursa("ingest", path, "--config", config) for path in recordings]
    for process in running:
        _out, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert "ignores conditions in the bucket" in err and "Traceback" not in err
    done = run_ursa("catalog", "compact", "--config", config)
    assert done.returncode == 1 and "ignores conditions in the bucket" in done.stderr, done.stderr
    assert before and contents(tmp_path) == before
    # Whoever only reads is not kept from it.
    assert run_ursa("ls", "--config", config).returncode == 0


def test_the_next_command_does_not_ask_again(
    weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Proxied, tmp_path: Path
) -> None:
    proxy = fault_proxy(weed_buckets.server)
    config = s3_config(weed_buckets.at(proxy.url), rig_timezone="UTC")

    def asked(bucket: str) -> int:
        return sum(
            entry.method == "PUT" and entry.kind == "probe" and f"/{bucket}/" in entry.path for entry in proxy.log
        )

    assert run_ursa("catalog", "init", "--yes", "--config", config).returncode == 0
    assert (asked(weed_buckets.assets), asked(weed_buckets.raw)) == (4, 0)
    for rec_id in RECS[:2]:
        path = make_recording(tmp_path / "nas", rec_id, {"eeg_a/x": rec_id.encode()}, participant="A B")
        done = run_ursa("ingest", path, "--config", config)
        assert done.returncode == 0, done.stderr
        assert (asked(weed_buckets.assets), asked(weed_buckets.raw)) == (4, 4)
