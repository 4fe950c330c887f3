"""Path C on a disk: the manifest that is written, what is kept or refused, and what a crash or a full disk leaves."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import make_recording, manifest_of, write_json, write_node_manifest
from ursa import (
    DataInterface,
    FileChangedError,
    HashProgress,
    InvalidRecordingError,
    ManifestError,
    StorageError,
    derive_recording_hash,
)
from ursa.reconstruct import directory
from ursa.recording import load_manifest

REC = "rec_20260520_195628_b1dd"
RAW = {"camera_left/seg_000.mp4": b"left " * 20_000, "eeg_a/seg_000.edf": b"eeg" * 3_000, "mic/empty.wav": b""}
FILES = RAW | {"events.csv": b"a,b\n", ".DS_Store": b"\0"}


@pytest.fixture
def data(tmp_path: Path) -> DataInterface:
    """Without a role."""
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n")
    return DataInterface("local", config)


@pytest.fixture
def rec_dir(tmp_path: Path) -> Path:
    return make_recording(tmp_path / "nas", REC, FILES, manifest=False)


def by_hand(files: dict[str, bytes]) -> str:
    """The recording_hash of these files."""
    return derive_recording_hash(hashlib.sha256(content).hexdigest() for content in files.values())


def names(rec_dir: Path) -> set[str]:
    """What is at the directory's root."""
    return {path.name for path in rec_dir.iterdir()}


def at(phase: str, action: Callable[[], object]) -> Callable[[HashProgress], None]:
    """A callback that does something at a phase."""

    def callback(event: HashProgress) -> None:
        if event.phase == phase:
            action()

    return callback


def test_the_manifest(data: DataInterface, rec_dir: Path) -> None:
    before = names(rec_dir)
    planned = data.reconstruct_dir(rec_dir, dry_run=True)
    assert (planned.action, planned.bytes_hashed, planned.recording_hash) == ("made", 109_004, None)
    assert names(rec_dir) == before
    result = data.reconstruct_dir(str(rec_dir))
    assert (result.action, result.files, result.bytes_hashed) == ("made", 4, 109_004)
    assert result.recording_hash == by_hand(RAW) and "junk" in result.warnings[0]
    assert names(rec_dir) == before | {"manifest.json"}
    written = load_manifest(rec_dir).manifest
    assert written.recording_hash == by_hand(RAW) and written.participant == "__unknown__"
    assert {entry.path for entry in written.files} == {*RAW, "events.csv"}
    assert written.reconstruction is not None and written.reconstruction["reconstructed_participant"] is True
    again = data.reconstruct_dir(rec_dir)
    assert (again.action, again.recording_hash, again.bytes_hashed) == ("kept", by_hand(RAW), 0)


def test_it_can_be_ingested(data: DataInterface, rec_dir: Path) -> None:
    (rec_dir / "participant.txt").write_text("Aria Lin\n")
    made = data.reconstruct_dir(rec_dir)
    assert made.participant == "Aria Lin"
    data.enable_writes(roles=("assets_rw", "raw_rw"))
    row = data.ingest(rec_dir / "manifest.json", rec_dir, "Aria Lin").recording
    assert (row.rec_id, row.recording_hash) == (REC, made.recording_hash)
    assert row.started_at is not None


def test_a_placeholder_is_replaced(data: DataInterface, rec_dir: Path) -> None:
    write_json(rec_dir / "manifest.json", {"recording_id": REC, "files": []})
    assert data.reconstruct_dir(rec_dir).action == "replaced"
    assert load_manifest(rec_dir).manifest.recording_hash == by_hand(RAW)


def test_a_rigs_manifests_are_kept(data: DataInterface, rec_dir: Path) -> None:
    node = write_node_manifest(rec_dir, "green-mantis", ["eeg_a"])
    assert data.reconstruct_dir(rec_dir).action == "kept"
    assert "manifest.json" not in names(rec_dir)
    node.unlink()
    write_json(rec_dir / "manifest.json", manifest_of(REC, RAW))
    before = (rec_dir / "manifest.json").read_bytes()
    assert data.reconstruct_dir(rec_dir).action == "kept"
    assert (rec_dir / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    "content", ["", "{", "[]", json.dumps({"recording_id": "rec_20260101_000000_a", "files": []})[:-9]]
)
def test_a_broken_manifest_is_refused_and_stays(data: DataInterface, rec_dir: Path, content: str) -> None:
    (rec_dir / "manifest.json").write_text(content)
    with pytest.raises(ManifestError, match=r"manifest\.json") as caught:
        data.reconstruct_dir(rec_dir)
    assert "never replaced" in (caught.value.hint or "")
    assert (rec_dir / "manifest.json").read_text() == content


@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("eeg_a/x.edf.part", b"", "unfinished"),
        ("participant.txt", b"a\nb", "participant.txt"),
        ("mic_/x.wav", b"", "same modality"),
    ],
)
def test_what_is_refused(data: DataInterface, rec_dir: Path, path: str, content: bytes, why: str) -> None:
    target = rec_dir / path
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)
    with pytest.raises(InvalidRecordingError, match=why):
        data.reconstruct_dir(rec_dir)
    assert "manifest.json" not in names(rec_dir)


def test_no_raw_file_is_refused(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, {"events.csv": b"x"}, manifest=False)
    with pytest.raises(InvalidRecordingError, match="no raw file"):
        data.reconstruct_dir(rec_dir)
    with pytest.raises(InvalidRecordingError, match="no such directory"):
        data.reconstruct_dir(tmp_path / "gone" / REC)


@pytest.mark.parametrize(
    ("phase", "change"),
    [
        ("plan", lambda path: path.write_bytes(b"grown")),
        ("write", lambda path: path.unlink()),
    ],
)
def test_a_file_that_changes_writes_nothing(
    data: DataInterface, rec_dir: Path, phase: str, change: Callable[[Path], object]
) -> None:
    with pytest.raises(FileChangedError, match=r"eeg_a/seg_000\.edf"):
        data.reconstruct_dir(rec_dir, progress=at(phase, lambda: change(rec_dir / "eeg_a/seg_000.edf")))
    assert "manifest.json" not in names(rec_dir)
    assert not [name for name in names(rec_dir) if "ursa" in name]


@pytest.mark.parametrize("path", ["eeg_a/seg_000.edf", "eeg_a/seg_001.edf"], ids=["touched", "new"])
def test_a_change_after_hashing_writes_nothing(
    data: DataInterface, rec_dir: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def then_change(event: HashProgress) -> None:
        if event.phase == "file_done" and event.files_done == event.files_total:
            (rec_dir / path).write_bytes(b"changed")

    with pytest.raises(FileChangedError, match=path):
        data.reconstruct_dir(rec_dir, progress=then_change)
    assert "manifest.json" not in names(rec_dir)


def test_a_manifest_that_comes_meanwhile_is_kept(data: DataInterface, rec_dir: Path) -> None:
    write = lambda: write_json(rec_dir / "manifest.json", manifest_of(REC, RAW, node="rig"))  # noqa: E731
    result = data.reconstruct_dir(rec_dir, progress=at("write", write))
    assert result.action == "kept"
    assert load_manifest(rec_dir).manifest.node_hostname == "rig"


def test_a_broken_manifest_that_comes_meanwhile_stays(data: DataInterface, rec_dir: Path) -> None:
    with pytest.raises(ManifestError):
        data.reconstruct_dir(rec_dir, progress=at("write", lambda: (rec_dir / "manifest.json").write_text("{")))
    assert (rec_dir / "manifest.json").read_text() == "{"


def test_a_placeholder_that_changes_meanwhile_stays(data: DataInterface, rec_dir: Path) -> None:
    write_json(rec_dir / "manifest.json", {"files": []})
    newer = at("write", lambda: write_json(rec_dir / "manifest.json", {"files": [], "note": 1}))
    with pytest.raises(StorageError, match="somebody else"):
        data.reconstruct_dir(rec_dir, progress=newer)
    assert json.loads((rec_dir / "manifest.json").read_text()) == {"files": [], "note": 1}


def test_several_at_once_leave_one_manifest(tmp_path: Path, rec_dir: Path, data: DataInterface) -> None:
    results: list[str] = []
    ready = threading.Barrier(4)

    def run() -> None:
        waited = at("write", lambda: ready.wait(20))
        results.append(str(data.reconstruct_dir(rec_dir, progress=waited).action))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["kept", "kept", "kept", "made"]
    assert load_manifest(rec_dir).manifest.recording_hash == by_hand(RAW)
    assert not [name for name in names(rec_dir) if "ursa" in name]


def test_without_hard_links(data: DataInterface, rec_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(directory.os, "link", no_links)
    assert data.reconstruct_dir(rec_dir).action == "made"
    assert load_manifest(rec_dir).manifest.recording_hash == by_hand(RAW)
    assert not [name for name in names(rec_dir) if "ursa" in name]


def test_what_a_killed_run_left_goes(data: DataInterface, rec_dir: Path) -> None:
    (rec_dir / "._ursa-manifest-0123").write_bytes(b"{")
    assert data.reconstruct_dir(rec_dir, dry_run=True).files == 4
    assert data.reconstruct_dir(rec_dir).action == "made"
    assert not [name for name in names(rec_dir) if "ursa" in name]


def test_a_disk_that_cant_be_written_is_told_in_words(
    data: DataInterface, rec_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory.os, "fsync", full)
    with pytest.raises(StorageError, match=r"can't write .*manifest\.json: No space left on device") as caught:
        data.reconstruct_dir(rec_dir)
    assert "run the same command again" in (caught.value.hint or "")
    assert names(rec_dir) == {path.partition("/")[0] for path in FILES}


def test_interrupted(data: DataInterface, rec_dir: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        data.reconstruct_dir(rec_dir, progress=at("hash", data.stop))
    assert "manifest.json" not in names(rec_dir)
    assert data.reconstruct_dir(rec_dir).action == "made"


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_what_a_placeholder_says_stays(tmp_path: Path, where: str) -> None:
    """A dashboard's stub may be all that knows when it was, and what it was about."""
    stub = {
        "recording_id": REC,
        "started_at": "2026-05-20T12:00:00+02:00",
        "duration_s": 77,
        "timezone": "Europe/Berlin",
        "nodes": [{"hostname": "green-mantis", "rack": 3}],
        "workers": [{"dir": "eeg_a", "modality": "emg", "worker_id": "left", "gain": 24}],
        "dashboard": {"protocol": "N-back"},
        "participant": "Aria Lin",
        "files": [],
    }
    root = tmp_path if where == "disk" else tmp_path / "store" / "constellation-data" / "recordings"
    rec_dir = make_recording(root, REC, {"eeg_a/a.edf": b"a", "mic/b.wav": b"b"}, manifest=stub)
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n")
    with DataInterface("local", config) as data:
        data.enable_writes(roles=("assets_rw", "raw_rw"))
        made = data.reconstruct_dir(rec_dir) if where == "disk" else data.reconstruct(REC)
    assert made.action == "replaced"
    written = json.loads((rec_dir / "manifest.json").read_text())
    kept = {name: stub[name] for name in stub.keys() - {"files", "workers", "participant"}}
    assert {name: written[name] for name in kept} == kept
    assert [(worker["dir"], worker["modality"]) for worker in written["workers"]] == [("eeg_a", "emg"), ("mic", "mic")]
    assert written["workers"][0]["gain"] == 24 and len(written["files"]) == 2
    assert written["reconstruction"]["placeholder_participant"] == "Aria Lin"


def test_a_placeholder_that_contradicts_what_is_there_gives_way(tmp_path: Path) -> None:
    workers = [{"dir": "eeg_b", "modality": "eeg", "worker_id": "a"}]
    rec_dir = make_recording(tmp_path, REC, {"eeg_a/a.edf": b"a", "eeg_b/b.edf": b"b"}, manifest={"workers": workers})
    with DataInterface("local") as data:
        data.reconstruct_dir(rec_dir)
    written = json.loads((rec_dir / "manifest.json").read_text())
    assert [worker["worker_id"] for worker in written["workers"]] == ["a", "b"]
