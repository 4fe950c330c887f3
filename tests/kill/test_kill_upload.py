"""Killed at half of a large file on a slow link, an upload is not begun again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording, run_ursa, start_ursa
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface

REC = "rec_20260520_195628_b1dd"
SIZE = 256 << 20
LINK_BYTES_PER_S = 100e6 / 8


def parts_sent(proxy: FaultProxy) -> int:
    """Bytes of parts that went over the link."""
    return sum(entry.bytes_in for entry in list(proxy.log) if entry.kind == "upload_part")


@pytest.mark.slow
def test_the_next_run_sends_the_other_half(
    weed_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy], s3_config: MakeConfig, tmp_path: Path
) -> None:
    """256 MiB on a link of 100 Mbit/s: in flight is a sixteenth, and a kill costs no more."""
    data = os.urandom(SIZE)
    rec_dir = make_recording(tmp_path, REC, {"camera_left/seg_000.mp4": data})
    with DataInterface("r2", s3_config(weed_buckets)) as admin:
        admin.enable_writes()
        admin.init_catalog()
    with FaultProxy(weed_buckets.server.endpoint_url, bytes_per_s=LINK_BYTES_PER_S) as link:
        config = s3_config(weed_buckets.at(link.url))
        with start_ursa("ingest", str(rec_dir), "-q", "--config", str(config)) as process:
            while parts_sent(link) < SIZE // 2 and process.poll() is None:
                time.sleep(0.01)
            process.kill()
            process.communicate()
    assert process.returncode == -9
    again = fault_proxy(weed_buckets.server)
    config = s3_config(weed_buckets.at(again.url))
    done = run_ursa("ingest", str(rec_dir), "-q", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert parts_sent(again) <= 0.55 * SIZE
    client = weed_buckets.server.client()
    stored = client.get_object(Bucket=weed_buckets.raw, Key=f"recordings/{REC}/camera_left/seg_000.mp4")["Body"].read()
    assert stored == data
