"""Manifests that change, contradict, break or are huge: what Path A sends of them, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_tools import FILES, PREFIX, REC, ingest, on_disk

import ursa.register.local
from helpers import make_recording, manifest_of, write_json, write_node_manifest
from ursa import DataInterface, FileChangedError, ManifestError, ObjectConflictError, participant_id
from ursa.manifest import MAX_MANIFEST_BYTES
from ursa.store import ObjectInfo
from ursa.store.local import LocalStore

LEFT = {"camera_left/seg_000.mp4": FILES["camera_left/seg_000.mp4"]}
NODE = "_node_manifests/green-mantis.json"
OTHER = "rec_20260521_101500_c2ee"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The raw bucket of a directory store."""
    return tmp_path / "store" / "constellation-data"


@pytest.fixture
def data(tmp_path: Path, raw: Path) -> DataInterface:
    config = tmp_path / "local.yaml"
    config.write_text(f"profiles:\n  local: {{root: {raw.parent}}}\n", encoding="utf-8")
    made = DataInterface("local", config)
    made.enable_writes(roles=("assets_rw", "raw_rw"))
    return made


def stored(raw: Path) -> dict[str, bytes]:
    """Every object by its key."""
    return {path.relative_to(raw).as_posix(): path.read_bytes() for path in raw.rglob("*") if path.is_file()}


def before_the_scan(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something between the reading of the manifests and the scan."""
    module: Any = ursa.register.local
    scan = module.scan_recording

    def overtaken(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(module, "scan_recording", scan)
        action()
        return scan(*args, **options)

    monkeypatch.setattr(module, "scan_recording", overtaken)


@pytest.mark.parametrize("note", ["second", "a longer one", None], ids=["same size", "longer", "removed"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["in place", "elsewhere"])
def test_a_manifest_that_is_rewritten_after_it_was_read_is_not_sent(
    note: str | None, elsewhere: bool, data: DataInterface, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, session_note="first!")
    manifest = rec_dir / "manifest.json"
    if elsewhere:
        manifest = manifest.rename(tmp_path / "fetched.json")

    def rewrite() -> None:
        if note is None:
            manifest.unlink()
        else:
            write_json(manifest, manifest_of(REC, FILES, session_note=note))

    before_the_scan(monkeypatch, rewrite)
    with pytest.raises(FileChangedError, match=r"manifest\.json") as refused:
        data.ingest(manifest, rec_dir)
    assert refused.value.path == "manifest.json"
    assert stored(raw) == {}
    assert data.list_recordings() == []


def test_a_reconstructed_manifest_does_not_replace_another_one(data: DataInterface, raw: Path, tmp_path: Path) -> None:
    make_recording(raw / "recordings", REC, FILES, manifest=False)
    data.reconstruct(REC)
    both = (raw / PREFIX / "manifest.json").read_bytes()
    half = make_recording(tmp_path / "nas", REC, LEFT, manifest=False)
    data.reconstruct_dir(half)
    (warning,) = [text for text in ingest(data, half).warnings if "another reconstructed" in text]
    assert "manifest.json" in warning and "stays" in warning
    assert (raw / PREFIX / "manifest.json").read_bytes() == both
    assert len(json.loads(both)["files"]) == len(FILES)


def test_a_rigs_manifest_replaces_a_reconstructed_one_but_not_the_other_way(
    data: DataInterface, raw: Path, tmp_path: Path
) -> None:
    make_recording(raw / "recordings", REC, FILES, manifest=False)
    data.reconstruct(REC)
    rig = make_recording(tmp_path / "nas", REC, FILES)
    ingest(data, rig)
    assert stored(raw) == on_disk(rig)
    copy = make_recording(tmp_path / "copy", REC, FILES, manifest=False)
    data.reconstruct_dir(copy)
    with pytest.raises(ObjectConflictError):
        ingest(data, copy, overwrite=True)
    assert stored(raw) == on_disk(rig)


@pytest.mark.parametrize(
    "body",
    [b'{"recording_id": "', json.dumps(manifest_of(OTHER, {"eeg_a/x.edf": b"x"})).encode()],
    ids=["broken", "another recording's"],
)
def test_a_broken_node_manifest_is_sent_as_it_is_beside_a_valid_manifest(
    body: bytes, data: DataInterface, raw: Path, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    (rec_dir / "_node_manifests").mkdir()
    (rec_dir / NODE).write_bytes(body)
    result = ingest(data, rec_dir)
    assert any(NODE in warning and "left aside" in warning for warning in result.warnings)
    assert stored(raw) == on_disk(rec_dir)
    assert data.verify([REC], level="full")[0].ok


def test_a_broken_node_manifest_leaves_the_buckets_own_alone(data: DataInterface, raw: Path, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    whole = write_node_manifest(rec_dir, "green-mantis", ["camera_left"]).read_bytes()
    (raw / PREFIX / NODE).parent.mkdir(parents=True)
    (raw / PREFIX / NODE).write_bytes(whole)
    (rec_dir / NODE).write_bytes(whole[:40])
    ingest(data, rec_dir)
    assert stored(raw) == on_disk(rec_dir) | {PREFIX + NODE: whole}


@pytest.mark.parametrize("case", ["no manifest.json", "placeholder", "too large"])
def test_a_broken_node_manifest_refuses_where_nothing_stands_in_for_it(
    case: str, data: DataInterface, raw: Path, tmp_path: Path
) -> None:
    stubs: dict[str, Any] = {"no manifest.json": False, "placeholder": {"recording_id": REC, "files": []}}
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, manifest=stubs.get(case, True))
    write_node_manifest(rec_dir, "green-motor", ["camera_left", "eeg_a"])
    (rec_dir / NODE).write_bytes(b"{")
    if case == "too large":
        with (rec_dir / NODE).open("wb") as file:
            file.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(ManifestError) as refused:
        ingest(data, rec_dir)
    assert refused.value.path == str(rec_dir / NODE)
    assert stored(raw) == {}


def test_huge_sidecars_of_the_bucket_are_not_read(
    data: DataInterface, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    reading = LocalStore.read

    def read(self: LocalStore, key: str) -> tuple[bytes, ObjectInfo]:
        asked.append(key)
        return reading(self, key)

    monkeypatch.setattr(LocalStore, "read", read)
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, participant="Aria Lin")
    prefix = raw / PREFIX
    prefix.mkdir(parents=True)
    for name, size in (("manifest.json", MAX_MANIFEST_BYTES + 1), ("participant.txt", 65 * 1024)):
        with (prefix / name).open("wb") as file:
            file.truncate(size)
    with pytest.raises(ObjectConflictError) as refused:
        ingest(data, rec_dir, "Aria Lin")
    assert tuple(refused.value.keys) == (PREFIX + "manifest.json",)
    (prefix / "manifest.json").unlink()
    result = ingest(data, rec_dir, "Aria Lin")
    assert result.recording.participant_ids == (participant_id("Aria Lin"),)
    assert not {PREFIX + "manifest.json", PREFIX + "participant.txt"} & set(asked)
