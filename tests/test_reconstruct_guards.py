"""Path C beside an empty participant.txt, and manifests that are too large to read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording
from ursa import DataInterface, ManifestError
from ursa.manifest import MAX_MANIFEST_BYTES
from ursa.store.local import LocalStore

REC = "rec_20260520_195628_b1dd"
PREFIX = f"recordings/{REC}/"
FILES = {"eeg_a/seg_000.edf": b"eeg" * 300}
BLOCK = 1 << 20


@pytest.mark.parametrize("server", ["weed_buckets", "moto_buckets"])
def test_an_empty_participant_file_names_nobody(
    server: str, s3_config: MakeConfig, request: pytest.FixtureRequest
) -> None:
    buckets: Buckets = request.getfixturevalue(server)
    client = buckets.server.client()
    for path, body in {**FILES, "participant.txt": b""}.items():
        client.put_object(Bucket=buckets.raw, Key=PREFIX + path, Body=body)
    with DataInterface("r2", s3_config(buckets)) as data:
        data.enable_writes(roles=("assets_rw", "raw_rw"))
        result = data.reconstruct(REC)
    assert (result.action, result.participant) == ("made", "__unknown__")
    made = json.loads(client.get_object(Bucket=buckets.raw, Key=PREFIX + "manifest.json")["Body"].read())
    assert made["reconstruction"]["reconstructed_participant"] is True


@pytest.mark.parametrize("path", ["manifest.json", "_node_manifests/green-mantis.json"])
def test_a_manifest_that_is_too_large_is_not_read_to_its_end(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "local.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n", encoding="utf-8")
    raw = tmp_path / "store" / "constellation-data"
    target = make_recording(raw / "recordings", REC, FILES, manifest=False) / path
    target.parent.mkdir(exist_ok=True)
    with target.open("wb") as file:
        file.truncate(3 * MAX_MANIFEST_BYTES)
    came: list[int] = []
    streaming, reading = LocalStore.stream, LocalStore.read

    def stream(self: LocalStore, key: str, **options: Any) -> Iterator[bytes]:
        for block in streaming(self, key, **options):
            came.append(len(block))
            yield block

    def read(self: LocalStore, key: str) -> Any:
        found = reading(self, key)
        came.append(len(found[0]))
        return found

    monkeypatch.setattr(LocalStore, "stream", stream)
    monkeypatch.setattr(LocalStore, "read", read)
    with DataInterface("local", config) as data:
        data.enable_writes(roles=("assets_rw", "raw_rw"))
        with pytest.raises(ManifestError, match="expected at most 64 MiB of JSON") as refused:
            data.reconstruct(REC)
    assert refused.value.hint is not None and "never replaced" in refused.value.hint
    assert sum(came) <= MAX_MANIFEST_BYTES + BLOCK
    assert (target.stat().st_size, target.parent.joinpath("manifest.json").exists()) == (
        3 * MAX_MANIFEST_BYTES,
        path == "manifest.json",
    )
