"""Path B where the bucket changes under it, or holds manifests that nobody can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from r2_tools import FILES, NOTHING, PREFIX, REC, Local, local_store, paths, rows

from helpers import make_recording, manifest_of, write_json, write_node_manifest
from ursa import ChecksumMismatchError, DataInterface, ManifestError, MissingFilesError
from ursa.bucket import proof
from ursa.manifest import MAX_MANIFEST_BYTES
from ursa.register.bucket import BucketRecording, read_bucket
from ursa.store import ObjectInfo
from ursa.store.local import LocalStore
from ursa.store.protocol import SHA256_KEY

NODE = "_node_manifests/green-mantis.json"
BROKEN = b'{"recording_id": "'
OVERSIZE = MAX_MANIFEST_BYTES + 1


@pytest.fixture
def local(tmp_path: Path) -> Local:
    return local_store(tmp_path)


@pytest.fixture
def data(local: Local) -> DataInterface:
    return local.open()


def read(local: Local) -> BucketRecording:
    """The recording as Path B reads it."""
    store = LocalStore(local.root, local.bucket.parent.name)
    return read_bucket(store, "recordings/", REC, rig_timezone=None)


def node(there: Path, body: bytes) -> Path:
    """A node manifest, as somebody left it."""
    path = there / NODE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(body)
    return path


def oversize(path: Path) -> None:
    """A sparse file, one byte over what a manifest may have."""
    with path.open("wb") as file:
        file.truncate(OVERSIZE)


def before(monkeypatch: pytest.MonkeyPatch, seam: str, action: Callable[[], object]) -> None:
    """Do something once, after the LIST and before the first HEAD (of an object that is worth asking the server about), or
    before the object's bytes are hashed."""
    owner: Any = LocalStore if seam == "head" else proof
    if seam == "head":
        monkeypatch.setattr(proof, "_WORTH_ASKING_BYTES", 0)
    original = getattr(owner, seam)
    left = [action]

    def overtaken(*args: Any, **options: Any) -> Any:
        if left and not (seam == "head" and "/_delta_log/" in args[1]):  # the catalog asks for its own
            left.pop()()
        return original(*args, **options)

    monkeypatch.setattr(owner, seam, overtaken)


@pytest.mark.parametrize("seam", ["head", "object_sha256"])
@pytest.mark.parametrize("becomes", [b"other" * 200, b"longer" * 200, None], ids=["same size", "longer", "gone"])
def test_an_object_that_changes_while_it_is_read_is_not_registered(
    seam: str,
    becomes: bytes | None,
    local: Local,
    data: DataInterface,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = local.put(make_recording(tmp_path / "nas", REC, FILES, list_sha256=False))
    store = LocalStore(local.root, local.bucket.parent.name)
    key = f"{PREFIX}camera_left/seg_000.mp4"
    for path in (there / "eeg_a").iterdir():
        path.unlink()
    write_json(
        there / "manifest.json", manifest_of(REC, {"camera_left/seg_000.mp4": b"left " * 200}, list_sha256=False)
    )

    def change() -> None:
        store.delete(key)
        if becomes is not None:
            sha256 = hashlib.sha256(becomes).hexdigest()
            store.put(key, becomes, sha256=sha256, metadata={SHA256_KEY: sha256})

    before(monkeypatch, seam, change)
    with pytest.raises(MissingFilesError, match=r"seg_000\.mp4: gone or replaced in the bucket") as refused:
        data.ingest_from_r2(REC)
    assert refused.value.paths == ("camera_left/seg_000.mp4",)
    assert refused.value.hint is not None and "Nothing was registered" in refused.value.hint
    assert rows(data) == NOTHING


@pytest.mark.parametrize(
    "body",
    [BROKEN, b"", json.dumps(manifest_of("rec_20260521_101500_c2ee", {"eeg_a/x.edf": b"x"})).encode()],
    ids=["broken", "empty", "another recording's"],
)
def test_a_valid_manifest_json_counts_beside_a_node_manifest_that_is_broken(
    body: bytes, local: Local, data: DataInterface, tmp_path: Path
) -> None:
    there = local.put(make_recording(tmp_path / "nas", REC, FILES))
    node(there, body)
    (warning,) = read(local).warnings
    assert PREFIX + NODE in warning and "left aside" in warning
    assert data.ingest_from_r2(REC).action == "created"
    assert sorted(paths(data)) == sorted(FILES)


@pytest.mark.parametrize("stub", [False, {"recording_id": REC, "files": []}], ids=["none", "placeholder"])
def test_without_it_a_broken_node_manifest_refuses(
    stub: Any, local: Local, data: DataInterface, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, manifest=stub)
    write_node_manifest(rec_dir, "green-motor", ["camera_left", "eeg_a"])
    node(local.put(rec_dir), BROKEN)
    with pytest.raises(ManifestError) as refused:
        data.ingest_from_r2(REC)
    assert refused.value.path == PREFIX + NODE
    assert rows(data) == NOTHING


def test_a_manifest_that_is_too_large_is_not_read(
    local: Local, data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = local.put(make_recording(tmp_path / "nas", REC, FILES))
    asked: list[str] = []
    reading = LocalStore.read

    def noted(self: LocalStore, key: str) -> tuple[bytes, ObjectInfo]:
        asked.append(key)
        return reading(self, key)

    monkeypatch.setattr(LocalStore, "read", noted)
    oversize(node(there, b""))
    assert any("64 MiB" in warning for warning in read(local).warnings)
    assert asked == [PREFIX + "manifest.json"]
    oversize(there / "manifest.json")
    with pytest.raises(ManifestError, match="67,108,865 bytes, expected at most 64 MiB of JSON"):
        data.ingest_from_r2(REC)
    assert PREFIX + NODE not in asked and asked.count(PREFIX + "manifest.json") == 1
    assert rows(data) == NOTHING


def test_a_manifest_that_contradicts_what_was_measured_is_refused(
    local: Local, data: DataInterface, tmp_path: Path
) -> None:
    """Never "registered already, with the same files": also where the row is proven, and not for a claim."""
    there = local.put(make_recording(tmp_path / "nas", REC, FILES, list_sha256=False))
    data.ingest_from_r2(REC)
    before = rows(data)
    manifest = manifest_of(REC, FILES)
    manifest["files"][1]["sha256"] = "0" * 64
    write_json(there / "manifest.json", manifest)
    for overwrite in (False, True):
        with pytest.raises(ChecksumMismatchError, match=f"the manifest states {'0' * 64}") as refused:
            data.ingest_from_r2(REC, overwrite=overwrite)
        assert refused.value.path == manifest["files"][1]["path"]
    assert rows(data) == before
