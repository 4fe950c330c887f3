"""Who speaks to the server: our own client alone. deltalake opens files of this disk, and no connection."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording
from proxy import FaultProxy
from servers import S3Server, find_executable
from ursa import DataInterface

FILES = {"eeg_a/a.edf": b"eeg", "camera_left/a.mp4": b"left"}


def rec_id(number: int) -> str:
    return f"rec_20260520_{number:06}_ab"


def test_each_request_is_counted_by_our_client(
    weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Callable[[S3Server], FaultProxy], tmp_path: Path
) -> None:
    """Everything that a catalog is there for, and what the server was asked is what our client has sent."""
    proxy = fault_proxy(weed_buckets.server)
    data = DataInterface(config_path=s3_config(weed_buckets.at(proxy.url)))
    data.enable_writes(roles=("assets_rw", "raw_rw"))
    data.init_catalog()
    for number in range(3):
        rec_dir = make_recording(tmp_path / "nas", rec_id(number), FILES | {"eeg_a/b.edf": b"%d" % number})
        data.ingest(rec_dir / "manifest.json", rec_dir, "Ada")
    first = data.catalog_history()[-2].operation_id
    assert len(data.list_recordings()) == len(data.overview()) == 3
    data.resolve(rec_id(1))
    data.compact_catalog()
    data.undo(first)
    assert all(check.ok for check in data.verify(everything=True))
    data.close()
    counted = data._counter.snapshot()
    sent = proxy.count()
    assert sent == counted["class_a"] + counted["class_b"]
    assert sent > 50
    # The Rust library that deltalake has in it is ours as well for single PUTs, and for nothing else.
    assert {entry.method for entry in proxy.log if "object_store" in str(entry.headers)} <= {"PUT"}
    assert not [entry for entry in proxy.log if "deltalake" in str(entry.headers).lower()]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here")
def test_no_other_connection_is_opened(weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path) -> None:
    """As the kernel sees it: the configured server, and nobody else."""
    config = s3_config(weed_buckets)
    rec_dir = make_recording(tmp_path / "nas", rec_id(1), FILES)
    port = weed_buckets.server.endpoint_url.rpartition(":")[2]
    seen = 0
    for words in (["catalog", "init", "--yes"], ["ingest", str(rec_dir)], ["ls"], ["catalog", "compact"]):
        trace = tmp_path / "trace"
        command = ["strace", "-f", "-e", "trace=connect", "-o", str(trace), find_executable("ursa"), *words]
        done = subprocess.run([*command, "--config", str(config)], capture_output=True, text=True, check=False)
        if "ptrace" in done.stderr:
            pytest.skip("nobody may trace here")
        assert done.returncode == 0, done.stderr
        ports = re.findall(r"sa_family=AF_INET6?, sin6?_port=htons\((\d+)\)", trace.read_text())
        assert set(ports) <= {port}
        seen += len(ports)
    assert seen > 0
