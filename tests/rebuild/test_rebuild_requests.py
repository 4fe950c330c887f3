"""What a rebuild asks a server for: a LIST and a GET a recording, and a constant for each chunk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grown import content, name

from conftest import Buckets, MakeConfig
from helpers import manifest_of
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface
from ursa.rebuild.flip import tables as tables_of

COUNT = 200
SCRIPT = """
import sys
from ursa import DataInterface
data = DataInterface("r2", sys.argv[1])
data.enable_writes()
result = data.rebuild()
assert result.flipped and result.recordings == int(sys.argv[2]), result
assert not result.told, result.told
"""


@pytest.mark.slow
def test_requests(
    weed_buckets: Buckets,
    s3_config: MakeConfig,
    fault_proxy: Callable[[S3Server], FaultProxy],
) -> None:
    client = weed_buckets.server.client()
    rec_ids = [name(number) for number in range(COUNT)]

    def put(number: int) -> None:
        prefix, files = f"recordings/{name(number)}/", content(number)
        for path, data in files.items():
            client.put_object(Bucket=weed_buckets.raw, Key=prefix + path, Body=data)
        body = json.dumps(manifest_of(name(number), files)).encode()
        client.put_object(Bucket=weed_buckets.raw, Key=f"{prefix}manifest.json", Body=body)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(COUNT)))
    with DataInterface("r2", s3_config(weed_buckets)) as data:
        data.enable_writes()
        data.init_catalog()
        assert all(outcome.error is None for outcome in data.ingest_from_r2_several(rec_ids, "Aria Lin"))
    proxy = fault_proxy(weed_buckets.server)
    config = s3_config(weed_buckets.at(proxy.url))
    # In a process of its own: a catalog query holds Python's lock, so a proxy in the same process could not answer.
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(config), str(COUNT)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    raw = [item for item in proxy.log if Path(item.path).parts[1:2] == (weed_buckets.raw,)]
    catalog = len(proxy.log) - len(raw)
    print(f"{len(raw)} requests for {COUNT} recordings, {catalog} for the catalog")
    # A LIST and a GET each, and twice a LIST of what there is.
    assert len(raw) <= 2 * COUNT + 4
    # Opened three times, two tables filled, three frozen, each with its refreshes: the same for any number in a chunk.
    assert catalog <= 260


def test_given_up_on_a_server(weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    """Frozen by a run that is gone: --abort thaws it, the pointer is another object with the same content."""
    server, config = weed_buckets.server, s3_config(weed_buckets)

    def pointer() -> tuple[str, dict[str, str]]:
        found = server.client().get_object(Bucket=weed_buckets.assets, Key="ursa/ACTIVE.json")
        return found["ETag"], json.loads(found["Body"].read())

    with DataInterface("r2", config) as data:
        data.enable_writes()
        data.init_catalog()
        data.register_participant("Aria Lin")
        assert data.rebuild(flip=False).prefix == "catalog/v2"
        for table in tables_of(data._catalog):
            table.set_frozen("catalog/v2")
        before = pointer()
        assert data.abort_rebuild() == "catalog/v2"
        assert [table.frozen for table in tables_of(data._catalog)] == [None] * 3
        after = pointer()
        # On S3 an ETag is that of the content: it must be one that no flip has ever read.
        assert after[0] != before[0] and after[1] == {**before[1], "mark": after[1]["mark"]}
        assert data.rebuild().prefix == "catalog/v2"
        assert [row.display_name for row in data.list_participants()] == ["Aria Lin"]
    keys = [item["Key"] for item in server.client().list_objects_v2(Bucket=weed_buckets.assets)["Contents"]]
    assert "ursa/REBUILD.json" not in keys
