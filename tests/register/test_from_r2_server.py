"""Path B on a server: which requests it makes, which roles it needs, and what only buckets have.

The command runs as a process of its own: a catalog query holds Python's lock, so a proxy beside it could not answer.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from r2_tools import FILES, PREFIX, REC, put_dir

from conftest import Buckets, MakeConfig
from helpers import make_recording, manifest_of, run_ursa, write_node_manifest
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface, InvalidRecordingError

Proxies = Callable[[S3Server], FaultProxy]


@pytest.fixture
def proxied(weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Proxies) -> tuple[Path, FaultProxy]:
    """A config whose requests go through a proxy, with an empty catalog behind it."""
    made = DataInterface("r2", s3_config(weed_buckets))
    made.enable_writes()
    made.init_catalog()
    proxy = fault_proxy(weed_buckets.server)
    return s3_config(weed_buckets.at(proxy.url)), proxy


def register(config: Path, *words: str) -> dict[str, Any]:
    """`ursa ingest-r2` that succeeds: its JSON record."""
    done = run_ursa("ingest-r2", REC, *words, "--json", "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    records: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    return next(record for record in records if record["type"] == "recording")


def raw_requests(proxy: FaultProxy, bucket: str) -> Counter[str]:
    """How many requests of each kind went to the raw bucket."""
    return Counter(entry.kind for entry in proxy.log if f"{entry.path}/".startswith(f"/{bucket}/"))


@pytest.mark.parametrize("count", [3, 500])
def test_requests_do_not_grow_with_files(
    count: int, proxied: tuple[Path, FaultProxy], weed_buckets: Buckets, tmp_path: Path
) -> None:
    config, proxy = proxied
    files = {f"eeg_a/seg_{i:04}.edf": b"%d" % i for i in range(count)}
    rec_dir = make_recording(tmp_path, REC, files, manifest=False)
    write_node_manifest(rec_dir, "green-mantis", ["eeg_a"])
    with ThreadPoolExecutor(16) as pool:
        client = weed_buckets.server.client()
        list(
            pool.map(
                lambda item: client.put_object(Bucket=weed_buckets.raw, Key=PREFIX + item, Body=files[item]), files
            )
        )
        client.upload_file(
            str(rec_dir / "_node_manifests" / "green-mantis.json"),
            weed_buckets.raw,
            PREFIX + "_node_manifests/green-mantis.json",
        )
    record = register(config)
    assert record["files_skipped"] == count + 1
    # One page of a LIST holds a thousand keys; one manifest is read; no object is asked for.
    assert raw_requests(proxy, weed_buckets.raw) == {"list": 2, "get": 1}


def test_what_an_object_states_of_itself_is_not_asked(
    proxied: tuple[Path, FaultProxy], weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    config, proxy = proxied
    rec_dir = make_recording(tmp_path, REC, FILES, list_sha256=False)
    done = run_ursa("ingest", rec_dir, "--config", config)
    assert done.returncode == 0, done.stderr
    data = DataInterface("r2", s3_config(weed_buckets))
    data.enable_writes()
    recording_hash = data.find_recording(REC).recording_hash
    client = weed_buckets.server.client()
    # Where no manifest states one, each object is read once by this machine, and not again.
    for reads in (len(FILES), 0):
        # The rows are lost with their catalog; the objects keep the sha256 that they were stored with.
        for item in client.list_objects_v2(Bucket=weed_buckets.assets)["Contents"]:
            client.delete_object(Bucket=weed_buckets.assets, Key=item["Key"])
        fresh = DataInterface("r2", s3_config(weed_buckets))
        fresh.enable_writes()
        fresh.init_catalog()
        through = s3_config(weed_buckets.at(proxy.url))
        proxy.clear()
        assert register(through)["recording_hash"] == recording_hash
        assert raw_requests(proxy, weed_buckets.raw) == {"list": 2, "get": 1 + reads}
        assert {file.evidence for row in fresh.list_modalities() for file in row.files} == {"sha256"}


def test_the_raw_bucket_is_not_written(proxied: tuple[Path, FaultProxy], weed_buckets: Buckets, tmp_path: Path) -> None:
    config, proxy = proxied
    # An object that nobody lists is read once, to be measured.
    put_dir(weed_buckets, make_recording(tmp_path, REC, FILES | {"eeg_a/x": b"x"}, manifest=manifest_of(REC, FILES)))
    register(config, "--participant", "Aria Lin")
    assert raw_requests(proxy, weed_buckets.raw) == {"list": 2, "get": 2}
    proxy.clear()
    again = run_ursa("ingest-r2", REC, "--overwrite", "--json", "--config", config)
    assert again.returncode == 0, again.stderr
    # Registered with this ETag already: nothing is measured twice.
    assert raw_requests(proxy, weed_buckets.raw) == {"list": 2, "get": 1}


def test_the_role_that_writes_raw_bytes_need_not_exist(
    weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    keys = {"access_key_id": "T_KEY", "secret_access_key": "T_SECRET"}
    roles = {"raw_ro": keys, "assets_rw": keys}
    config = s3_config(weed_buckets, credentials={"provider": "env", "roles": roles})
    data = DataInterface("r2", config)
    data.enable_writes()
    data.init_catalog()
    put_dir(weed_buckets, make_recording(tmp_path, REC, FILES))
    assert data.ingest_from_r2(REC).action == "created"


def test_folders_of_a_console_are_no_files_and_odd_names_are_refused(
    moto_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    data = DataInterface("r2", s3_config(moto_buckets))
    data.enable_writes()
    data.init_catalog()
    put_dir(moto_buckets, make_recording(tmp_path, REC, FILES))
    client = moto_buckets.server.client()
    odd = PREFIX + "eeg_a/back\\slash.edf"
    client.put_object(Bucket=moto_buckets.raw, Key=odd, Body=b"odd")
    with pytest.raises(InvalidRecordingError, match="backslash"):
        data.ingest_from_r2(REC)
    client.delete_object(Bucket=moto_buckets.raw, Key=odd)
    for folder in (PREFIX, PREFIX + "eeg_a/"):
        client.put_object(Bucket=moto_buckets.raw, Key=folder, Body=b"")
    result = data.ingest_from_r2(REC)
    assert result.recording.auxiliary_files == ()
    registered = {file.path for row in data.list_modalities() for file in row.files}
    assert registered == set(FILES)
    assert (
        result.recording.recording_hash
        == hashlib.sha256(
            "\n".join(sorted(hashlib.sha256(body).hexdigest() for body in FILES.values())).encode()
        ).hexdigest()
    )
