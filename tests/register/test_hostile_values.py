"""What a script passes by mistake is refused in words, and nothing that is stored makes a later call fail."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import ursa.register.local as local_module
from helpers import make_recording, write_json, write_node_manifest
from ursa import (
    DataInterface,
    FileChangedError,
    InvalidRecordingError,
    ManifestError,
    MissingFilesError,
    UsageError,
)
from ursa.bucket.proof import NoProofs
from ursa.catalog.metadata import dated_auxiliary, workers_of
from ursa.catalog.rows import FileRow, RecordingRow
from ursa.catalog.tables import Change
from ursa.policies import Evidence
from ursa.recording import clean_participant, read_participant
from ursa.register.files import prove_files
from ursa.store import ObjectInfo
from ursa.store.local import LocalStore

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
        recording(metadata={"manifest_recording_id": ""}),
        recording(metadata={"note": "\ud800"}),
        recording(metadata={"manifest_recording_id": "/etc/x"}),
        recording(metadata={"manifest_recording_id": "../up"}),
        recording(metadata={"manifest_recording_id": "\x00\n"}),
        recording(metadata="x"),
        recording(participant_ids=[None]),
        recording(participant_ids=[3]),
        recording(participant_ids="p_1"),
        recording(participant_ids=5),
        recording(started_at=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=3)))),
        recording(duration_s=10**400),
        recording(duration_s=10**5000),
        recording(duration_s=-1),
        recording(status=""),
        modality(modality=None),
        modality(modality=""),
        modality(modality="x\n\x1b[31m"),
        modality(worker_id=0),
        modality(node=0),
        modality(recording_hash=5),
        modality(metadata={"\ud800": "x"}),
        modality(files=5),
        modality(files=["a"]),
        modality(files=[{"path": "a", "size_bytes": 1, "key": "a\x00b"}]),
        modality(files=[{"path": "a", "size_bytes": 1, "key": "\ud800"}]),
        modality(files=[{"path": None, "size_bytes": 1}]),
        modality(files=[{"path": "a", "size_bytes": 1, "key": 5}]),
        modality(files=[{"path": "a", "size_bytes": 1, "sha256": "not a hash"}]),
        lambda data: data.register_participant("Aria Lin", participant_id=5),
        lambda data: data.register_participant("Aria Lin", participant_id=""),
        lambda data: data.register_participant("__unknown__"),
        lambda data: data.ingest(None, None),
        lambda data: data.ingest(5, "."),
        lambda data: data.ingest_from_r2(REC, participant=5),
        lambda data: data.ingest_from_r2(None),
        lambda data: data.reconstruct(None),
    ],
)
def test_refused_in_words(call: Call, data: DataInterface) -> None:
    with pytest.raises((UsageError, InvalidRecordingError)):
        call(data)
    assert data.list_recordings() == [] and data.list_participants() == []


def test_no_participants_and_no_files_are_fine(data: DataInterface) -> None:
    recording(participant_ids=None, metadata={"k": None})(data)
    assert modality(files=None)(data).files == ()
    row = data.overview()[0].recording
    assert row.metadata == {"manifest_recording_id": row.rec_id}


@pytest.mark.parametrize(
    "text", ["3", "null", '"ab"', "{", '{"ab": 1}', '["ab"]', '[["eeg", 1]]', '[["eeg"]]', "[" * 100_000]
)
def test_metadata_that_nobody_can_read_says_nothing(text: str) -> None:
    row = RecordingRow(HASH, REC, metadata={"workers": text, "auxiliary_files": text})
    assert workers_of(row) is None and dated_auxiliary(row.metadata) == ()


def test_of_auxiliary_files_in_metadata_what_can_be_read_counts_and_proves_nothing() -> None:
    text = (
        '{"a": "xy", "b": ["1", null], "c": [true, null], "d": [1, 2], "e": [1, null], "f": [2, "%s"], "g": [3, "ab"]}'
    )
    assert dated_auxiliary({"auxiliary_files": text % HASH}) == (
        FileRow("e", "", 1, None, None, Evidence.SIZE),
        FileRow("f", "", 2, HASH, None, Evidence.CLAIMED),
        FileRow("g", "", 3, None, None, Evidence.SIZE),
    )


@pytest.mark.parametrize("workers", ["3", '["ab"]'])
def test_rubbish_in_a_catalog_fails_nobody(workers: str, data: DataInterface, tmp_path: Path) -> None:
    row = RecordingRow(HASH, "../out", metadata={"workers": workers, "auxiliary_files": "[]"})
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
    with pytest.raises(MissingFilesError, match=rf"eeg_a/a\.edf \(other content: sha256 {file.sha256}\)") as refused:
        data.register_modality(recording_hash=row.recording_hash, modality="bad", files=[stated | {"sha256": "0" * 64}])
    assert refused.value.paths == (file.path,)
    # An object that states no sha256 is read.
    bare = tmp_path / "store" / "constellation-data" / "recordings" / REC / "mic_a" / "m.wav"
    bare.parent.mkdir()
    bare.write_bytes(b"wav")
    stated = {"path": "mic_a/m.wav", "size_bytes": 3, "sha256": hashlib.sha256(b"wav").hexdigest()}
    made = data.register_modality(recording_hash=row.recording_hash, modality="mic", files=[stated])
    assert (made.files[0].evidence, made.files[0].sha256) == ("sha256", stated["sha256"])
    bare.write_bytes(b"WAV")
    with pytest.raises(MissingFilesError, match="other content"):
        data.register_modality(recording_hash=row.recording_hash, modality="mic_2", files=[stated])


def test_an_object_counts_under_the_key_that_it_has(data: DataInterface, tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "mic_a/\u00fcber.wav")
    stored = tmp_path / "store" / "constellation-data" / "recordings" / REC / decomposed
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"wav")
    recording(metadata={"manifest_recording_id": REC})(data)
    sha256 = hashlib.sha256(b"wav").hexdigest()
    made = modality(modality="mic", files=[{"path": decomposed, "size_bytes": 3, "sha256": sha256}])(data)
    (file,) = made.files
    assert file.path == unicodedata.normalize("NFC", decomposed) and file.key == f"recordings/{REC}/{decomposed}"
    data.download(data.query(recording_hash=HASH), tmp_path / "dest")
    assert (tmp_path / "dest" / REC / file.path).read_bytes() == b"wav"


class Watched(LocalStore):
    """Counts its listings and HEADs, and lets another program act between a listing and a reading."""

    def __init__(self, root: Path, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__(root, "raw")
        self.listed = 0
        self.heads: list[str] = []
        self.meanwhile = meanwhile

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        self.listed += 1
        yield from super().list(prefix, start_after=start_after)

    def head(self, key: str) -> ObjectInfo:
        self.heads.append(key)
        return super().head(key)

    def stream(self, key: str, **options: Any) -> Iterator[bytes]:
        self.meanwhile()
        yield from super().stream(key, **options)


def test_one_listing_proves_the_sizes_of_all_files(tmp_path: Path) -> None:
    store = Watched(tmp_path)
    (tmp_path / "raw" / "p").mkdir(parents=True)
    for number in range(50):
        (tmp_path / "raw" / "p" / f"{number}").write_bytes(b"x")
    (tmp_path / "raw" / "elsewhere-not").write_bytes(b"x")
    files = [FileRow(f"{number}", "", 1) for number in range(50)]
    assert [row.key for row in prove_files(store, "p/", files, NoProofs())] == [f"p/{number}" for number in range(50)]
    assert (store.listed, store.heads) == (1, [])
    # An object that lies elsewhere is asked for by its whole key, not found by the beginning of one.
    with pytest.raises(MissingFilesError, match=r"e \(not there\)"):
        prove_files(store, "p/", [FileRow("e", "elsewhere", 1)], NoProofs())
    assert store.heads == ["elsewhere"]


@pytest.mark.parametrize("times", [1, 99])
def test_an_object_that_is_replaced_before_it_is_read_counts_as_what_it_is_then(times: int, tmp_path: Path) -> None:
    target = tmp_path / "raw" / "p" / "a"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"old")
    contents = [b"new", *(f"{number:03}".encode() for number in range(1, times))]

    def replaced() -> None:
        if contents:
            fresh = target.with_name("fresh")
            fresh.write_bytes(contents.pop(0))
            fresh.replace(target)

    stated = FileRow("a", "", 3, hashlib.sha256(b"new").hexdigest())
    store = Watched(tmp_path, replaced)
    if times == 1:
        (row,) = prove_files(store, "p/", [stated], NoProofs())
        assert (row.etag, row.evidence) == (store.head("p/a").etag, Evidence.SHA256)
        return
    with pytest.raises(MissingFilesError, match=r"a \(replaced while it was read\)"):
        prove_files(store, "p/", [stated], NoProofs())


def test_the_unknown_participant_is_nobody(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    assert data.ingest(rec_dir / "manifest.json", rec_dir, "__unknown__").recording.participant_ids == ()
    assert data.list_participants() == []
    (rec_dir / "participant.txt").write_text(" __unknown__\n")
    assert data.ingest_from_r2(REC, "__unknown__", overwrite=True).recording.participant_ids == ()
    assert read_participant(rec_dir) is None and clean_participant("__unknown__") is None


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


def test_a_row_s_own_metadata_may_be_passed_on(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES | {"events.csv": b"e"})
    row = data.ingest(rec_dir / "manifest.json", rec_dir).recording
    longer = data.register_recording(
        recording_hash=row.recording_hash, metadata=row.metadata, duration_s=10_000, on_conflict="extend"
    )
    assert longer.duration_s == 10_000 and longer.metadata == row.metadata
    same = data.register_recording(
        recording_hash=row.recording_hash,
        metadata=row.metadata,
        participant_ids=["p_1"],
        on_conflict="merge_participants",
    )
    assert same.participant_ids == ("p_1",)
