"""A rebuild gives the rows that the catalog has, and says every difference."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grown
import pytest
from grown import DAY_S, Lab, content, name, tables

from helpers import make_recording, manifest_of, write_json, write_node_manifest
from ursa import ModalityRow, RecordingRow
from ursa.catalog.metadata import SIDECARS_KEY
from ursa.catalog.rows import FileRow
from ursa.policies import Evidence
from ursa.register.proving import stated_of

EDITED_TOLD = (
    "duration_s 12.5 is taken over, the manifest says 60.0",
    "ended_at 2026-06-01T00:00:00+00:00 is taken over, the manifest says 2026-01-01T00:50:00+00:00",
)


@pytest.fixture
def here(tmp_path: Path) -> Lab:
    """An empty directory store, and a NAS beside it."""
    return grown.lab(tmp_path)


def test_the_same_rows(here: Lab) -> None:
    """Halves in both orders, node manifests, an absent node, unlisted files, edits by hand: nothing changes."""
    grown.zoo(here)
    before = tables(here.open())
    result = here.rebuild()
    assert tables(here.open()) == before
    assert result.told == {name(7): EDITED_TOLD}
    assert set(result.carried) == {name(3), f"{9:064x}"}
    assert (result.left, result.lost, result.new, result.resumed) == ({}, {}, (), "")
    assert (result.recordings, result.recordings_before) == (10, 10)
    assert (result.modalities, result.modalities_before) == (len(before["modalities"]),) * 2
    assert grown.pointer(here)["prefix"] == result.prefix == "catalog/v2" and result.flipped
    # From the new catalog to a third, the same again.
    again = here.rebuild()
    assert (again.prefix, again.previous, again.told) == ("catalog/v3", "catalog/v2", result.told)
    assert tables(here.open()) == before


def of_a_manifest(rows: dict[str, list[Any]]) -> dict[str, Any]:
    """What the bucket alone can tell, by rec_id."""
    found: dict[str, Any] = {}
    for row in rows["recordings"]:
        assert isinstance(row, RecordingRow)
        metadata = {key: value for key, value in row.metadata.items() if key != SIDECARS_KEY}
        plain = replace(
            row,
            recording_hash="",
            participant_ids=(),
            metadata=metadata,
            registered_at=None,
            registered_by="",
            auxiliary_files=told_by_bucket(row.auxiliary_files),
        )
        found[row.rec_id] = (plain, [])
    for item in sorted(rows["modalities"], key=lambda row: (row.modality, row.worker_id)):
        assert isinstance(item, ModalityRow)
        files = told_by_bucket(item.files)
        found[item.rec_id][1].append(replace(item, recording_hash="", files=files, metadata={}))
    return found


def told_by_bucket(files: Iterable[FileRow]) -> tuple[FileRow, ...]:
    """Without what only the run that uploaded them knows: how they were proven, the times of the disk's files."""
    return tuple(replace(file, evidence=Evidence.SIZE, mtime_ns=None) for file in files)


def evidence(rows: dict[str, list[Any]], rec_id: str) -> dict[str, str]:
    """How well each raw file of a recording is proven."""
    return {file.path: str(file.evidence) for row in rows["modalities"] if row.rec_id == rec_id for file in row.files}


def test_from_the_manifests_alone(here: Lab) -> None:
    """With no catalog to take anything over from, the rows are what the ingests made of the same manifests."""
    grown.zoo(here)
    ingested = of_a_manifest(tables(here.open()))
    for unknowable in (name(3), name(7), f"{9:064x}"):
        del ingested[unknowable]
    here.age(2 * DAY_S)
    with grown.fresh_catalog(here):
        result = here.rebuild()
        found = tables(here.open())
    rebuilt = of_a_manifest(found)
    assert set(result.new) == {*ingested, name(7)}
    assert result.left.keys() == {name(3)} and "no manifest" in result.left[name(3)]
    del rebuilt[name(7)]
    for rec_id, (row, modalities) in ingested.items():
        assert rebuilt[rec_id] == (row, modalities)
    # Who uploaded what a manifest states is unknown now: a claim. What none states was read.
    assert set(evidence(found, name(0)).values()) == {"claimed"}
    listed = dict.fromkeys(content(4), "claimed")
    assert evidence(found, name(4)) == listed | {"eeg_a/extra.edf": "sha256", "mic_room/a.wav": "sha256"}
    assert set(evidence(found, name(6)).values()) == {"sha256"}


def test_a_new_recording(here: Lab) -> None:
    """Whole in the bucket and in no row; what has no manifest or is broken is left."""
    here.ingest(make_recording(here.nas, name(0), content(0)))
    make_recording(here.bucket, name(1), content(1))
    make_recording(here.bucket, name(2), content(2), manifest=False)
    (make_recording(here.bucket, name(3), content(3), manifest=False) / "manifest.json").write_text("{")
    (make_recording(here.bucket, name(4), content(4)) / "eeg_a" / "seg_000.edf").unlink()
    (here.bucket / "not a recording").mkdir()
    here.age(20, name(1))
    result = here.rebuild(flip=False)
    assert result.new == (name(1),) and not result.flipped
    assert result.told[name(1)] == ("new: it is whole in the bucket, and was in no row",)
    assert set(result.left) == {name(2), name(3), name(4)}
    assert "eeg_a/seg_000.edf" in result.left[name(4)]
    assert here.rebuild().new == (name(1),)
    with here.open() as data:
        row = data.find_recording(name(1))
        digests = sorted(hashlib.sha256(item).hexdigest() for item in content(1).values())
        assert row.recording_hash == hashlib.sha256("\n".join(digests).encode()).hexdigest()
        (check,) = data.verify([name(1)], level="full")
        assert check.ok and len(check.files) == 2


def test_the_same_data_under_two_names(here: Lab) -> None:
    """A recording_hash is the key: the second name gets no row, whichever of them is registered."""
    here.ingest(make_recording(here.nas, name(5), content(5)))
    for rec_id in (name(4), name(6)):
        make_recording(here.bucket, rec_id, content(5))
    for rec_id in (name(7), name(8)):
        make_recording(here.bucket, rec_id, content(7))
    here.age(DAY_S)
    for result in (here.rebuild(dry_run=True), here.rebuild()):
        assert result.new == (name(7),)
        assert set(result.left) == {name(4), name(6), name(8)}
        assert f"is that of {name(5)}" in result.left[name(4)] and f"is that of {name(7)}" in result.left[name(8)]


def test_a_half_that_is_being_uploaded(here: Lab) -> None:
    """Its raw objects are there, no manifest lists them, they are new: left alone, and its ingest merges as ever."""
    files = content(0)
    camera = {path: data for path, data in files.items() if "camera" in path}
    here.ingest(make_recording(here.nas / "host", name(0), camera), "Aria Lin")
    motor = make_recording(here.nas / "motor", name(0), {"eeg_a/seg_000.edf": b"eeg0"}, manifest=False)
    write_node_manifest(motor, "green-motor", ["eeg_a"])
    shutil.copytree(motor / "eeg_a", here.bucket / name(0) / "eeg_a")
    result = here.rebuild()
    assert result.told == {name(0): ("eeg_a: left alone, it is being uploaded and no manifest lists it yet",)}
    assert (result.modalities, result.modalities_before) == (1, 1)
    assert here.ingest(motor, "Bo Sun").action == "merged"
    with here.open() as data:
        assert len(data.find_recording(name(0)).participant_ids) == 2


def test_a_half_that_nobody_lists_any_more(here: Lab) -> None:
    """The same a day later: what is in the bucket is registered."""
    files = content(0)
    here.ingest(make_recording(here.nas, name(0), {path: data for path, data in files.items() if "camera" in path}))
    (here.bucket / name(0) / "eeg_a").mkdir()
    (here.bucket / name(0) / "eeg_a" / "seg_000.edf").write_bytes(b"eeg0")
    here.age(DAY_S + 60, f"{name(0)}/eeg_a")
    result = here.rebuild()
    assert result.told == {name(0): ("eeg_a: new, it is in the bucket and was in no row",)}
    with here.open() as data:
        assert [row.name for row in data.list_modalities()] == ["camera_left", "eeg_a"]


def test_objects_that_were_replaced(here: Lab) -> None:
    """A rebuild must not make a replaced object look proven: verify goes on to say that it is another one."""
    here.ingest(make_recording(here.nas, name(0), content(0)))
    before = tables(here.open())
    target = here.bucket / name(0) / "eeg_a" / "seg_000.edf"
    shutil.rmtree(here.root / "store" / ".ursa")  # and with it the sha256 that it was stored with
    target.write_bytes(b"EEG0")
    result = here.rebuild()
    (told,) = result.told[name(0)]
    assert told.startswith("eeg_a/seg_000.edf: the object was replaced since it was registered and nothing proves")
    assert tables(here.open()) == before
    with here.open() as data:
        (check,) = data.verify([name(0)], level="head")
        assert [file.path for file in check.files if file.mark == "*"] == ["eeg_a/seg_000.edf"]


def test_what_changed_in_a_worker(here: Lab) -> None:
    """New files of a registered worker are added; registered ones stay, whatever a manifest says now."""
    here.ingest(make_recording(here.nas, name(0), content(0)))
    target = here.bucket / name(0)
    (target / "eeg_a" / "late.edf").write_bytes(b"late")
    (target / "new.csv").write_bytes(b"a,b\n")
    manifest = manifest_of(name(0), content(0), started_at="2026-01-01T00:00:07+00:00")
    manifest["files"][1]["sha256"] = "0" * 64
    write_json(target / "manifest.json", manifest)
    result = here.rebuild()
    sha256 = hashlib.sha256(content(0)["eeg_a/seg_000.edf"]).hexdigest()
    assert result.told[name(0)] == (
        f"eeg_a/seg_000.edf: sha256 {sha256} is taken over, the manifest states {'0' * 64}",
        "eeg_a: new files, in the bucket and in no row: eeg_a/late.edf",
        "started_at is 2026-01-01T00:00:07+00:00, was 2026-01-01T00:00:00+00:00",
        "new.csv: new, an auxiliary file in the bucket and in no row",
    )
    with here.open() as data:
        (check,) = data.verify([name(0)], level="full")
        assert check.ok and not check.count("+"), check


def test_files_elsewhere(here: Lab) -> None:
    """A worker that register_modality made of objects outside of the recording: carried, and lost when they are gone."""
    hash_ = here.ingest(make_recording(here.nas, name(0), content(0))).recording.recording_hash
    derived = here.bucket.parent / "derived" / "a.npy"
    derived.parent.mkdir()
    beside = here.bucket.parent / "beside.npy"
    for path in (derived, beside):
        path.write_bytes(b"numbers")
    files = [
        {"path": "a.npy", "key": "derived/a.npy", "size_bytes": 7},
        {"path": "b.npy", "key": "beside.npy", "size_bytes": 7},
    ]
    with here.open() as data:
        data.register_modality(recording_hash=hash_, modality="spikes", files=files)
    before = tables(here.open())
    assert here.rebuild().told == {}
    assert tables(here.open()) == before
    for path, gone in ((derived, "a.npy"), (beside, "b.npy")):
        path.unlink()
        assert gone in here.rebuild(dry_run=True).lost[name(0)]


@pytest.mark.slow
def test_two_thousand(here: Lab) -> None:
    """The same for a catalog that grew for months; nothing is told but what was edited by hand."""
    number = 0
    for _ in range(5):
        number = grown.zoo(here, number)
        grown.many(here, number, 390)
        number += 390
    before = tables(here.open())
    assert len(before["recordings"]) == 2_000
    result = here.rebuild()
    print(f"{result.seconds:.1f} s")
    assert tables(here.open()) == before
    assert (result.recordings, result.lost, result.left, result.new) == (2_000, {}, {}, ())
    edits = {name(first + 7) for first in range(0, 2_000, 400)}
    assert result.told.keys() == edits
    assert all("is taken over, the manifest says" in told for words in result.told.values() for told in words)
    assert len(result.carried) == 10


def test_what_was_measured_and_what_was_stated_stay(here: Lab) -> None:
    """A manifest states a wrong sha256, a download has measured another: both are kept, and told each time."""
    rec_dir = make_recording(here.bucket, name(0), content(0), manifest=False)
    manifest = manifest_of(name(0), content(0))
    manifest["files"][1]["sha256"] = "0" * 64
    write_json(rec_dir / "manifest.json", manifest)
    with here.open() as data:
        data.ingest_from_r2(name(0))
        data.download(data.query(), here.root / "dest")
    before = tables(here.open())
    assert set(evidence(before, name(0)).values()) == {"sha256"}
    (eeg,) = [row for row in before["modalities"] if row.modality == "eeg"]
    assert stated_of(eeg.metadata) == {"eeg_a/seg_000.edf": "0" * 64}
    for _ in range(2):
        told = f"eeg_a/seg_000.edf: sha256 {eeg.files[0].sha256} is taken over, the manifest states {'0' * 64}"
        assert here.rebuild().told == {name(0): (told,)}
        assert tables(here.open()) == before
