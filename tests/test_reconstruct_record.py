"""What a reconstruct takes as measured: what this machine has read, and the record of earlier runs; no claim."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import manifest_of, write_json
from reconstructed import FILES, RAW, REC, Lab, by_hand, sha256
from ursa import HashProgress
from ursa.store.local import LocalStore


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.mark.parametrize("stated", [sha256(RAW["camera_left/seg_000.mp4"]), "0" * 64, "no hash at all"])
def test_what_an_object_states_of_itself_is_not_taken(lab: Lab, stated: str) -> None:
    """An upload that was taken over keeps the metadata of its beginning, and anybody can write some."""
    lab.fill(FILES)
    path = "camera_left/seg_000.mp4"
    LocalStore(lab.root, "constellation-data").put(
        f"recordings/{REC}/{path}", FILES[path], sha256=sha256(FILES[path]), metadata={"sha256": stated}
    )
    result = lab.reconstruct()
    assert result.files_known == 0
    assert result.bytes_hashed == sum(len(data) for data in FILES.values())
    assert result.recording_hash == by_hand(RAW)


def test_what_this_machine_has_measured_is_not_read_again(lab: Lab) -> None:
    """By a Path B, say; in the files cache, so without the record."""
    lab.fill(RAW)
    write_json(lab.put("manifest.json", b""), manifest_of(REC, RAW, list_sha256=False))
    with lab.data() as data:
        data.ingest_from_r2(REC)
    (lab.recordings / REC / "manifest.json").unlink()
    result = lab.reconstruct()
    assert (result.files_known, result.bytes_hashed) == (len(RAW), 0)
    assert result.recording_hash == by_hand(RAW)


def test_the_record_is_believed_only_where_size_and_etag_are_the_same(lab: Lab) -> None:
    lab.fill(RAW)
    etags = {info.key: info.etag for info in LocalStore(lab.root, "constellation-data").list(f"recordings/{REC}/")}
    etag = {path: etags[f"recordings/{REC}/{path}"] for path in RAW}
    left, eeg, mic = RAW
    prefix = f"recordings/{REC}/"
    entries = {
        prefix + left: [len(RAW[left]), etag[left], sha256(RAW[left])],
        prefix + eeg: [len(RAW[eeg]), "another etag", "0" * 64],
        prefix + mic: [len(RAW[mic]) + 1, etag[mic], "0" * 64],
        prefix + "eeg_a/odd": ["1", None, 7],
    }
    lab.record.parent.mkdir(parents=True)
    lab.record.write_text(json.dumps({"schema_version": 1, "bucket": "constellation-data", "objects": entries}))
    planned = lab.reconstruct(dry_run=True)
    result = lab.reconstruct()
    assert (planned.files_known, planned.bytes_hashed) == (1, len(RAW[eeg]))
    assert (result.files_known, result.bytes_hashed) == (1, len(RAW[eeg]))
    assert result.recording_hash == by_hand(RAW)
    assert lab.measured() == {path: sha256(data) for path, data in RAW.items()}


BROKEN = [
    b"",
    b"[]",
    b"{",
    b'{"a": 1}',
    b"\xff",
    b'{"bucket": "constellation-data"}',
    b'{"bucket": "constellation-data", "objects": [1]}',
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_record_counts_as_none(lab: Lab, content: bytes) -> None:
    lab.fill(RAW)
    lab.record.parent.mkdir(parents=True)
    lab.record.write_bytes(content)
    result = lab.reconstruct()
    assert (result.recording_hash, result.files_known) == (by_hand(RAW), 0)
    assert lab.measured() == {path: sha256(data) for path, data in RAW.items()}


def test_the_record_of_another_bucket_counts_as_none(lab: Lab) -> None:
    """Two profiles may share an assets prefix, and a server's ETags of the same bytes are the same."""
    lab.fill(RAW)
    lab.reconstruct()
    record = json.loads(lab.record.read_bytes())
    wrong = {key: [*entry[:2], "0" * 64] for key, entry in record["objects"].items()}
    lab.record.write_text(json.dumps(record | {"bucket": "another", "objects": wrong}))
    (lab.recordings / REC / "manifest.json").unlink()
    assert lab.reconstruct().recording_hash == by_hand(RAW)
    assert lab.measured() == {path: sha256(data) for path, data in RAW.items()}


def test_interrupted_goes_on_where_it_stopped(lab: Lab) -> None:
    lab.fill(RAW)

    def callback(event: HashProgress) -> None:
        if event.phase == "file_done" and event.files_done == 2:
            data.stop()

    with lab.data() as data:
        with pytest.raises(KeyboardInterrupt):
            data.reconstruct(REC, progress=callback)
        assert len(lab.measured()) == 2 and not lab.has_manifest()
        again = data.reconstruct(REC)
    assert again.files_known == 2 and again.recording_hash == by_hand(RAW)
    assert lab.measured() == {path: sha256(data) for path, data in RAW.items()}


def test_what_this_machine_knew_is_in_the_record_too(lab: Lab) -> None:
    """Another machine's Path B has only that: every row of it is proven, and no object read again."""
    lab.fill(FILES)
    lab.reconstruct()
    for path in (lab.record, lab.recordings / REC / "manifest.json"):
        path.unlink()
    assert lab.reconstruct().bytes_hashed == 0
    assert lab.measured() == {path: sha256(data) for path, data in FILES.items()}
    text = lab.config.read_text().replace("}", f", cache_dir: {lab.root.with_name('other-cache')}}}")
    lab.config.write_text(text)
    with lab.data() as data:
        row = data.ingest_from_r2(REC).recording
        files = [*row.auxiliary_files, *(file for item in data.list_modalities() for file in item.files)]
    assert {file.path: file.evidence for file in files} == dict.fromkeys(FILES, "sha256")
