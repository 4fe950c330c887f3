"""What a script passes by mistake is refused in words, and nothing that is stored makes a later call fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ursa.register.local as local_module
from helpers import make_recording, write_json, write_node_manifest
from ursa import DataInterface, FileChangedError, InvalidRecordingError, ManifestError, MissingFilesError, UrsaError
from ursa.catalog.rows import RecordingRow
from ursa.catalog.tables import Change

REC = "rec_20260520_195628_b1dd"
FILES = {"camera_left/a.mp4": b"mp4" * 100, "eeg_a/a.edf": b"edf" * 50}
HASH = "ab" * 32
Call = Callable[[DataInterface], Any]


@pytest.fixture
def data(tmp_path: Path) -> DataInterface:
    (tmp_path / "ursa.yaml").write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n")
    data = DataInterface("local", tmp_path / "ursa.yaml")
    data.enable_writes(roles=("assets_rw", "raw_rw"))
    return data


def recording(**fields: Any) -> Call:
    return lambda data: data.register_recording(recording_hash=HASH, **fields)


def modality(**fields: Any) -> Call:
    return lambda data: data.register_modality(**{"recording_hash": HASH, "modality": "eeg"} | fields)


@pytest.mark.parametrize(
    "call",
    [
        recording(metadata={"workers": 3}),
        recording(metadata={"auxiliary_files": "x"}),
        recording(metadata={"manifest_recording_id": "/etc/x"}),
        recording(metadata={"manifest_recording_id": "../up"}),
        recording(metadata={"manifest_recording_id": "\x00\n"}),
        recording(metadata="x"),
        recording(participant_ids=[None]),
        recording(participant_ids=[3]),
        recording(participant_ids="p_1"),
        recording(duration_s=10**400),
        recording(duration_s=-1),
        recording(status=""),
        modality(modality=None),
        modality(modality=""),
        modality(modality="x\n\x1b[31m"),
        modality(files=["a"]),
        modality(files=[{"path": None, "size_bytes": 1}]),
        modality(files=[{"path": "a", "size_bytes": 1, "key": 5}]),
        modality(files=[{"path": "a", "size_bytes": 1, "sha256": "not a hash"}]),
        lambda data: data.register_participant("Aria Lin", participant_id=5),
        lambda data: data.register_participant("__unknown__"),
        lambda data: data.ingest(None, None),
        lambda data: data.ingest_from_r2(REC, participant=5),
        lambda data: data.ingest_from_r2(None),
        lambda data: data.reconstruct(None),
    ],
)
def test_refused_in_words(call: Call, data: DataInterface) -> None:
    with pytest.raises(UrsaError):
        call(data)
    assert data.list_recordings() == [] and data.list_participants() == []


def test_no_participants_and_no_files_are_fine(data: DataInterface) -> None:
    recording(participant_ids=None, metadata={"k": None})(data)
    assert modality(files=None)(data).files == ()
    assert data.overview()[0].recording.metadata == {}


def test_rubbish_in_a_catalog_fails_nobody(data: DataInterface, tmp_path: Path) -> None:
    row = RecordingRow(HASH, "../out", metadata={"workers": "3", "auxiliary_files": "[]"})
    data._catalog.recordings.compare_and_swap(lambda: Change([row], None, "test"))
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    data.ingest(rec_dir / "manifest.json", rec_dir)
    assert len(data.overview()) == len(data.verify(everything=True)) == 2
    modality(modality="eeg")(data)
    (tmp_path / "store" / "constellation-data" / "x").write_bytes(b"x")
    data.register_modality(
        recording_hash=HASH,
        modality="mic",
        files=[{"path": "x", "key": "x", "size_bytes": 1}],
    )
    with pytest.raises(InvalidRecordingError, match="would leave"):
        data.download(data.query(recording_hash=HASH), tmp_path / "dest")
    assert not (tmp_path / "out").exists()


def test_a_stated_sha256_is_proven(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    row = data.ingest(rec_dir / "manifest.json", rec_dir).recording
    (file,) = data.list_modalities({"modality": "eeg"})[0].files
    stated = {"path": file.path, "size_bytes": file.size_bytes, "sha256": f"SHA256:{file.sha256}".upper()}
    made = data.register_modality(recording_hash=row.recording_hash, modality="copy", files=[stated])
    assert [(item.sha256, item.evidence) for item in made.files] == [(file.sha256, "sha256")]
    with pytest.raises(MissingFilesError):
        data.register_modality(recording_hash=row.recording_hash, modality="bad", files=[stated | {"sha256": "0" * 64}])


def test_the_unknown_participant_is_nobody(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    assert data.ingest(rec_dir / "manifest.json", rec_dir, "__unknown__").recording.participant_ids == ()
    assert data.list_participants() == []


def test_a_broken_node_manifest_beside_a_good_aggregate_is_told(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    write_node_manifest(rec_dir, "green-mantis", ["camera_left"])
    broken = rec_dir / "_node_manifests" / "green-motor.json"
    broken.write_text('{"recording_id": ')
    result = data.ingest(rec_dir / "manifest.json", rec_dir)
    assert any("green-motor" in warning for warning in result.warnings)
    stored = tmp_path / "store" / "constellation-data" / "recordings" / REC / "_node_manifests" / broken.name
    assert stored.read_bytes() == broken.read_bytes()
    assert data.ingest_from_r2(REC, overwrite=True).recording.recording_hash == result.recording.recording_hash
    (rec_dir / "manifest.json").unlink()
    with pytest.raises(ManifestError):
        data.ingest(rec_dir / "manifest.json", rec_dir)


def test_a_manifest_that_is_rewritten_meanwhile_is_still_being_written(
    data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    load = local_module.load_manifest

    def then_rewritten(*args: Any, **options: Any) -> Any:
        loaded = load(*args, **options)
        write_json(rec_dir / "manifest.json", {"recording_id": REC, "files": [], "later": True})
        return loaded

    monkeypatch.setattr(local_module, "load_manifest", then_rewritten)
    with pytest.raises(FileChangedError, match=r"manifest\.json"):
        data.ingest(rec_dir / "manifest.json", rec_dir)
    assert data.list_recordings() == []


def test_one_half_s_reconstruction_does_not_replace_the_whole_one(data: DataInterface, tmp_path: Path) -> None:
    whole = make_recording(tmp_path / "whole", REC, FILES, manifest=False)
    data.reconstruct_dir(whole)
    data.ingest(whole / "manifest.json", whole)
    half = make_recording(tmp_path / "half", REC, {"eeg_a/a.edf": FILES["eeg_a/a.edf"]}, manifest=False)
    data.reconstruct_dir(half)
    result = data.ingest(half / "manifest.json", half, overwrite=True)
    stored = tmp_path / "store" / "constellation-data" / "recordings" / REC / "manifest.json"
    assert stored.read_bytes() == (whole / "manifest.json").read_bytes()
    assert any("reconstructed" in warning for warning in result.warnings)
