"""What must never come to pass: rows without bytes, rows that vanish, proof that is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers import make_recording, manifest_of, run_ursa
from ursa import DataInterface, MissingFilesError, RecordingExistsError, UploadProgress
from ursa.register import commit

REC = "rec_20260520_195628_b1dd"
FILES = {"camera_left/v.mp4": b"v" * 1000, "eeg_a/a.edf": b"a" * 500}


@pytest.fixture
def data(tmp_path: Path) -> DataInterface:
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n")
    interface = DataInterface("local", config)
    interface.enable_writes(roles=("assets_rw", "raw_rw"))
    return interface


def on_node(rec_dir: Path, **fields: object) -> None:
    """A manifest whose files are all of one node."""
    manifest = manifest_of(REC, FILES, recording_hash="ab" * 32, node="rig1", **fields)
    manifest["files"] = [file | {"node": "rig1"} for file in manifest["files"]]
    (rec_dir / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "extra", [{}, {"eeg_a/log.txt": b"x"}, {"other_b/log.txt": b"x"}], ids=["nothing", "one", "unknown"]
)
def test_a_node_without_its_data_is_no_absent_node_where_nobody_is_here(
    extra: dict[str, bytes], data: DataInterface, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, extra, manifest=False)
    on_node(rec_dir)
    with pytest.raises(MissingFilesError) as refused:
        data.ingest(rec_dir / "manifest.json", rec_dir)
    assert set(refused.value.paths) == set(FILES)
    assert data.list_recordings() == []


def test_committed_rows_are_not_replaced_by_a_run_that_began_before(
    data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registers more files of a worker while B, which does not have them, is about to register."""
    full = make_recording(tmp_path / "a", REC, FILES | {"eeg_a/extra.bin": b"e"}, recording_hash="ab" * 32)
    less = make_recording(tmp_path / "b", REC, FILES, recording_hash="ab" * 32)
    (full / "manifest.json").write_bytes((less / "manifest.json").read_bytes())
    other = DataInterface("local", tmp_path / "ursa.yaml")
    other.enable_writes(roles=("assets_rw", "raw_rw"))
    write = commit._Round._write_modalities
    began = []

    def overtaken(*args: Any, **options: Any) -> None:
        if not began:
            began.append(True)
            other.ingest(full / "manifest.json", full)
        write(*args, **options)

    monkeypatch.setattr(commit._Round, "_write_modalities", overtaken)
    with pytest.raises(RecordingExistsError):
        data.ingest(less / "manifest.json", less)
    paths = {file.path for row in data.list_modalities() for file in row.files}
    assert paths == {*FILES, "eeg_a/extra.bin"}


def test_overwrite_keeps_rows_of_workers_that_are_not_here(data: DataInterface, tmp_path: Path) -> None:
    whole = make_recording(
        tmp_path / "a", REC, FILES | {"camera_left/unlisted.bin": b"u"}, manifest=manifest_of(REC, FILES)
    )
    data.ingest(whole / "manifest.json", whole)
    before = data.list_modalities({"modality": "camera"})
    eeg = make_recording(tmp_path / "b", REC, {"eeg_a/a.edf": FILES["eeg_a/a.edf"]}, manifest=manifest_of(REC, FILES))
    data.ingest(eeg / "manifest.json", eeg, overwrite=True)
    assert data.list_modalities({"modality": "camera"}) == before


def test_verify_of_a_directory_compares_its_manifest(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    data.ingest(rec_dir / "manifest.json", rec_dir)
    assert data.verify([rec_dir])[0].ok
    (tmp_path / "store" / "constellation-data" / "recordings" / REC / "manifest.json").unlink()
    (check,) = data.verify([rec_dir])
    assert [file.path for file in check.files if file.mark == "-"] == ["manifest.json"]
    assert not check.ok


def test_a_callback_that_fails_at_the_very_end_fails_nothing(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)

    def callback(event: UploadProgress) -> None:
        if event.phase == "done":
            raise RuntimeError

    assert data.ingest(rec_dir / "manifest.json", rec_dir, progress=callback).recording.rec_id == REC


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["download", REC, "--dest", "FILE"], 1),
        (["verify", "x" * 300], 1),
        (["ingest", "x" * 300], 1),
        (["ls", "--since", "1500-01-01"], 2),
        (["ls", "--since", "0001-01-01T00:00+01:00"], 2),
        (["show", "\udcff"], 2),
    ],
)
def test_odd_arguments_are_refused_in_words(
    arguments: list[str], code: int, data: DataInterface, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    data.ingest(rec_dir / "manifest.json", rec_dir)
    (tmp_path / "file").touch()
    words = [str(tmp_path / "file") if word == "FILE" else word for word in arguments]
    run = run_ursa(*words, "-p", "local", "--config", tmp_path / "ursa.yaml")
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
