"""Manifests and participant.txt: what comes late, with an old mtime, is sent, and HAVE is said of what is dealt with."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from batch_tools import Lab, age, make_lab, on_disks, rec, without_a_look

from helpers import manifest_of, write_json, write_node_manifest
from ursa import MissingFilesError, ObjectConflictError, RecordingExistsError, UploadProgress
from ursa.catalog.metadata import SIDECARS_KEY
from ursa.catalog.rows import participant_id
from ursa.policies import Mark

FILES = {"eeg_a/seg_000.edf": b"eeg" * 400, "camera_left/seg_000.mp4": b"left" * 300}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An empty lab."""
    on_disks(monkeypatch)
    return make_lab(tmp_path)


@pytest.fixture
def registered(lab: Lab) -> Path:
    """A recording that is registered without a participant, untouched since."""
    rec_dir = lab.make(1, FILES)
    age(rec_dir)
    assert [lab.one().status, lab.one().status] == ["ok", "have"]
    return rec_dir


def participants(lab: Lab) -> tuple[str, ...]:
    """The ids in the recording's row."""
    with lab.data() as data:
        return data.find_recording(rec(1)).participant_ids


def stored(lab: Lab, path: str) -> bytes:
    """An object of the recording."""
    return (lab.stored / rec(1) / path).read_bytes()


def test_a_participant_that_comes_late_is_sent_and_registered(lab: Lab, registered: Path) -> None:
    (registered / "participant.txt").write_text("Aria Lin\n")
    age(registered)
    outcome = lab.one()
    assert outcome.status == "ok" and outcome.result is not None
    assert (outcome.result.action, outcome.result.files_uploaded) == ("merged", 1)
    assert participants(lab) == (participant_id("Aria Lin"),)
    assert stored(lab, "participant.txt") == b"Aria Lin\n"
    assert without_a_look(lab.one())


def test_another_manifest_is_no_have_whatever_its_time(lab: Lab, registered: Path) -> None:
    write_json(registered / "manifest.json", manifest_of(rec(1), FILES) | {"note": "electrode 3 was loose"})
    age(registered)
    outcome = lab.one()
    assert outcome.status == "fail" and isinstance(outcome.error, ObjectConflictError)
    assert "another manifest.json" in outcome.error.message and "note" not in stored(lab, "manifest.json").decode()
    with lab.data() as data:
        data.ingest(registered / "manifest.json", registered, replace_objects=True)
    assert "electrode 3" in stored(lab, "manifest.json").decode()
    assert without_a_look(lab.one())


def test_a_node_manifest_that_comes_late_is_sent(lab: Lab, registered: Path) -> None:
    write_node_manifest(registered, "green-mantis", ["eeg_a"])
    age(registered)
    assert lab.one().status == "ok"
    assert json.loads(stored(lab, "_node_manifests/green-mantis.json"))["recording_id"] == rec(1)
    assert without_a_look(lab.one())


def test_the_rigs_manifest_replaces_a_reconstructed_one(lab: Lab) -> None:
    rec_dir = lab.make(1, FILES)
    rigs = (rec_dir / "manifest.json").read_bytes()
    (rec_dir / "manifest.json").unlink()
    age(rec_dir)
    assert lab.one(reconstruct_missing=True).status == "ok"
    assert b"reconstruction" in stored(lab, "manifest.json")
    (rec_dir / "manifest.json").write_bytes(rigs)
    age(rec_dir)
    outcome = lab.one()
    assert outcome.status == "ok" and outcome.result is not None and outcome.result.files_uploaded == 1
    assert stored(lab, "manifest.json") == rigs
    assert without_a_look(lab.one())


def test_two_disks_with_other_participants_are_both_have(lab: Lab) -> None:
    one = lab.make(1, {"eeg_a/a.edf": b"a"}, participant="Aria Lin")
    two = lab.make(1, {"mic_room/a.wav": b"b"}, root=lab.root / "usb", participant="Bo Berg", manifest=False)
    write_node_manifest(two, "green-motor", ["mic_room"])
    age(one)
    age(two)
    roots = (lab.nas, lab.root / "usb")
    assert [outcome.status for outcome in lab.run(*roots)] == ["ok", "ok"]
    assert participants(lab) == tuple(sorted(map(participant_id, ("Aria Lin", "Bo Berg"))))
    assert all(map(without_a_look, lab.run(*roots)))
    with lab.data() as data:
        checks = data.verify([one, two])
    assert all(check.ok for check in checks)
    (kept,) = [check for check in checks[1].files if check.path == "participant.txt"]
    assert kept.mark is Mark.SAME and "peer" in kept.detail


def test_a_manifest_that_waits_for_the_other_half_is_sent_with_it(lab: Lab) -> None:
    halves = {"eeg_a/a.edf": b"a" * 50, "mic_room/a.wav": b"b" * 50}
    one = lab.make(1, halves, nodes=[{"hostname": "green-mantis"}, {"hostname": "green-motor"}])
    manifest = json.loads((one / "manifest.json").read_text())
    for entry in manifest["workers"]:
        entry["node"] = "green-motor" if entry["dir"] == "mic_room" else "green-mantis"
    write_json(one / "manifest.json", manifest)
    two = lab.make(1, halves, root=lab.root / "usb", manifest=False)
    for path in (one / "mic_room/a.wav", two / "eeg_a/a.edf"):
        path.unlink()
        path.parent.rmdir()
    write_node_manifest(two, "green-motor", ["mic_room"])
    age(one)
    age(two)
    assert lab.one().status == "ok"
    assert not (lab.stored / rec(1) / "manifest.json").exists()
    waits = lab.one()
    assert waits.status == "skip" and "manifest.json is on this disk only" in waits.reason
    assert [outcome.status for outcome in lab.run(lab.root / "usb")] == ["ok"]
    assert lab.one().status == "ok"
    assert json.loads(stored(lab, "manifest.json")) == manifest
    assert without_a_look(lab.one())


def test_a_row_that_knows_no_sidecars_gets_them(lab: Lab, registered: Path) -> None:
    """As a row made by register_recording, or by an ursa that did not note them."""
    with lab.data() as data:
        row = data.find_recording(rec(1))
        known = {key: value for key, value in row.metadata.items() if key != SIDECARS_KEY}
        modalities = data.list_modalities({"recording_hash": row.recording_hash})
    (lab.root / "store").rename(lab.root / "before")
    (lab.root / "store").mkdir()
    (lab.root / "before" / "constellation-data").rename(lab.root / "store" / "constellation-data")
    (lab.stored / rec(1) / "manifest.json").unlink()
    with lab.data() as data:
        data.register_recording(recording_hash=row.recording_hash, started_at=row.started_at, metadata=known)
        for item in modalities:
            data.register_modality(
                recording_hash=row.recording_hash, modality=item.modality, worker_id=item.worker_id, files=item.files
            )
    assert lab.one().status == "ok"
    assert stored(lab, "manifest.json") == (registered / "manifest.json").read_bytes()
    assert without_a_look(lab.one())


def test_path_b_deals_with_the_manifest_and_leaves_the_name_to_the_disk(lab: Lab) -> None:
    rec_dir = lab.make(1, FILES, participant="Aria Lin")
    age(rec_dir)
    for path in [path for path in rec_dir.rglob("*") if path.is_file()]:
        there = lab.stored / rec(1) / path.relative_to(rec_dir)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
    with lab.data() as data:
        data.ingest_from_r2(rec(1))
        with pytest.raises(RecordingExistsError):
            data.ingest_from_r2(rec(1))
    assert lab.one().status == "ok" and participants(lab) == (participant_id("Aria Lin"),)
    assert without_a_look(lab.one())


@pytest.mark.parametrize("path", ["manifest.json", "participant.txt"])
def test_verify_sees_a_sidecar_that_is_gone_or_another(lab: Lab, path: str) -> None:
    rec_dir = lab.make(1, FILES, participant="Aria Lin")
    assert lab.one().status == "ok"
    there = lab.stored / rec(1) / path
    with lab.data() as data:
        assert all(check.ok for check in data.verify([rec(1), rec_dir]))
        there.write_bytes(b"Xa Lin\n" if path == "participant.txt" else b"{}")
        assert [check.ok for check in data.verify([rec_dir])] == [False]
        there.unlink()
        assert [check.ok for check in data.verify([rec(1), rec_dir])] == [False, False]


def test_a_manifest_that_lists_what_is_nowhere_is_no_have(lab: Lab, registered: Path) -> None:
    write_json(registered / "manifest.json", manifest_of(rec(1), FILES | {"eeg_a/seg_001.edf": b"more"}))
    age(registered)
    outcome = lab.one()
    assert outcome.status == "fail" and isinstance(outcome.error, MissingFilesError)
    assert outcome.error.paths == ("eeg_a/seg_001.edf",)


def test_names_of_one_length_are_told_apart(lab: Lab) -> None:
    for root, name in (("nas", "Ann"), ("usb", "Bob")):
        age(lab.make(1, FILES, root=lab.root / root, participant=name), 7200)
    assert [outcome.status for outcome in lab.run(lab.nas, lab.root / "usb")] == ["ok", "ok"]
    assert participants(lab) == tuple(sorted(map(participant_id, ("Ann", "Bob"))))


def test_a_participant_that_is_overtaken_by_a_peers_is_registered_with_it(lab: Lab) -> None:
    rec_dir = lab.make(1, FILES, participant="Aria Lin")

    def overtake(event: UploadProgress) -> None:
        if event.phase == "plan":
            (lab.stored / rec(1)).mkdir(parents=True, exist_ok=True)
            (lab.stored / rec(1) / "participant.txt").write_text("Bo Berg\n")

    with lab.data() as data:
        result = data.ingest(rec_dir / "manifest.json", rec_dir, "Aria Lin", progress=overtake)
    assert any("participant.txt" in warning for warning in result.warnings)
    assert participants(lab) == tuple(sorted(map(participant_id, ("Aria Lin", "Bo Berg"))))
    assert lab.one().status == "have"


@pytest.mark.parametrize("given", [None, "Xaver"])
def test_both_names_are_registered_whatever_the_caller_gives(lab: Lab, given: str | None) -> None:
    rec_dir = lab.make(1, FILES, participant="Bo Berg")
    (lab.stored / rec(1)).mkdir(parents=True)
    (lab.stored / rec(1) / "participant.txt").write_text("Aria Lin\n")
    with lab.data() as data:
        data.ingest(rec_dir / "manifest.json", rec_dir, given)
    names = {"Bo Berg", "Aria Lin", *([given] if given else [])}
    assert participants(lab) == tuple(sorted(map(participant_id, names)))


def test_a_name_that_the_caller_did_not_give_is_registered_by_the_batch(lab: Lab) -> None:
    rec_dir = lab.make(1, FILES, participant="Aria Lin")
    with lab.data() as data:
        data.ingest(rec_dir / "manifest.json", rec_dir, None)
        assert data.find_recording(rec(1)).participant_ids == ()
        with pytest.raises(RecordingExistsError):
            data.ingest(rec_dir / "manifest.json", rec_dir, None)
    assert lab.one().status == "ok" and participants(lab) == (participant_id("Aria Lin"),)
    assert lab.one().status == "have"


def test_path_b_with_a_name_is_have(lab: Lab) -> None:
    rec_dir = lab.make(1, FILES, participant="Aria Lin")
    shutil.copytree(rec_dir, lab.stored / rec(1))
    with lab.data() as data:
        data.ingest_from_r2(rec(1), "Aria Lin")
    assert lab.one().status == "have"
    (rec_dir / "participant.txt").write_text("Cy Dahl!\n")
    age(rec_dir)
    assert lab.one().status == "ok" and participant_id("Cy Dahl!") in participants(lab)


def test_a_manifest_that_gave_way_is_no_have_on_its_own_disk(lab: Lab, registered: Path) -> None:
    other = lab.make(1, FILES, root=lab.root / "usb", note="the right one")
    with lab.data() as data:
        data.ingest(other / "manifest.json", other, replace_objects=True)
    assert "the right one" in stored(lab, "manifest.json").decode()
    assert isinstance(lab.one().error, ObjectConflictError)
    with lab.data() as data:
        data.ingest(registered / "manifest.json", registered, replace_objects=True)
    assert stored(lab, "manifest.json") == (registered / "manifest.json").read_bytes()
    assert without_a_look(lab.one())


def test_a_manifest_that_is_gone_from_the_bucket_is_missed_by_an_ingest(lab: Lab, registered: Path) -> None:
    (lab.stored / rec(1) / "manifest.json").unlink()
    with lab.data() as data:
        with pytest.raises(MissingFilesError, match=r"manifest\.json") as caught:
            data.ingest(registered / "manifest.json", registered)
        assert caught.value.hint is not None and "--overwrite" in caught.value.hint
        data.ingest(registered / "manifest.json", registered, overwrite=True)
    assert stored(lab, "manifest.json") == (registered / "manifest.json").read_bytes()


def test_what_an_admin_wrote_stays_when_a_name_comes_late(lab: Lab, registered: Path) -> None:
    end = datetime(2026, 5, 20, 12, tzinfo=UTC)
    with lab.data() as data:
        row = data.find_recording(rec(1))
        data.register_recording(
            recording_hash=row.recording_hash, duration_s=12.5, ended_at=end, on_conflict="overwrite"
        )
    (registered / "participant.txt").write_text("Aria Lin")
    assert lab.one().status == "ok"
    with lab.data() as data:
        row = data.find_recording(rec(1))
    assert (row.duration_s, row.ended_at, len(row.participant_ids)) == (12.5, end, 1)


def test_a_reconstructed_manifest_gives_way_to_the_rigs_in_the_bucket(lab: Lab, registered: Path) -> None:
    rigs = stored(lab, "manifest.json")
    copy = lab.root / "usb" / rec(1)
    shutil.copytree(registered, copy)
    (copy / "manifest.json").unlink()
    for path in copy.rglob("*.edf"):
        os.utime(path)
    usb: dict[str, Any] = {"reconstruct_missing": True}
    first = lab.run(copy.parent, **usb)[0]
    assert first.status == "ok" and first.result is not None and "the rig's own" in first.result.warnings[-1]
    assert stored(lab, "manifest.json") == rigs
    assert lab.run(copy.parent, **usb)[0].status == "have"
    with lab.data() as data:
        assert data.verify([copy])[0].ok


def test_a_node_manifest_that_nobody_can_read_is_told(lab: Lab) -> None:
    rec_dir = lab.make(1, FILES)
    broken = rec_dir / "_node_manifests" / "green-motor.json"
    broken.parent.mkdir()
    broken.write_text("{")
    (lab.stored / rec(1) / "_node_manifests").mkdir(parents=True)
    write_json(lab.stored / rec(1) / "_node_manifests" / "green-motor.json", manifest_of(rec(1), FILES))
    outcome = lab.one()
    assert outcome.result is not None and "nobody can read" in outcome.result.warnings[-1]
    with lab.data() as data:
        assert not data.verify([rec_dir])[0].ok


def test_apple_doubles_of_sidecars_are_junk(lab: Lab, registered: Path) -> None:
    (registered / "_node_manifests").mkdir()
    (registered / "_node_manifests" / "._green-mantis.json").write_bytes(b"Mac OS X")
    assert without_a_look(lab.one())


def test_a_row_read_before_a_sidecar_came_can_still_be_merged_into(lab: Lab, registered: Path) -> None:
    with lab.data() as data:
        row = data.find_recording(rec(1))
        (registered / "participant.txt").write_text("Aria Lin")
        assert lab.one().status == "ok"
        options: dict[str, Any] = {"participant_ids": ["p_1"], "metadata": row.metadata}
        data.register_recording(recording_hash=row.recording_hash, on_conflict="merge_participants", **options)
        modality = data.list_modalities({"recording_hash": row.recording_hash})[0]
        data.register_modality(
            recording_hash=row.recording_hash,
            modality=modality.modality,
            worker_id=modality.worker_id,
            files=modality.files,
            metadata={"registered_at": "yesterday"},
            on_conflict="overwrite",
        )
    assert lab.one().status == "have"


def test_another_manifest_of_the_same_size_in_the_bucket_is_no_have(lab: Lab, registered: Path) -> None:
    assert without_a_look(lab.one())
    ours = stored(lab, "manifest.json")
    (lab.stored / rec(1) / "manifest.json").write_bytes(bytes(len(ours)))
    outcome = lab.one()
    assert outcome.status == "fail" and isinstance(outcome.error, MissingFilesError)
    assert "manifest.json (other content)" in outcome.error.message
    with lab.data() as data:
        data.ingest(registered / "manifest.json", registered, None, overwrite=True, replace_objects=True)
    assert stored(lab, "manifest.json") == ours and without_a_look(lab.one())


@pytest.mark.parametrize(
    ("there", "status"), [(b"Bo Berg\n", "have"), (bytes(9), "fail"), (b"", "fail")], ids=["a name", "zeros", "empty"]
)
def test_another_participant_in_the_bucket(lab: Lab, there: bytes, status: str) -> None:
    """A peer's half brings its own; what holds no name has lost one."""
    rec_dir = lab.make(1, {"eeg_a/a.edf": b"a"}, participant="Aria Lin")
    age(rec_dir)
    assert lab.one().status == "ok" and without_a_look(lab.one())
    (lab.stored / rec(1) / "participant.txt").write_bytes(there)
    assert lab.one().status == status


@pytest.mark.parametrize("level", ["head", "checksum", "full"])
def test_verify_of_a_recording_looks_at_its_sidecars(lab: Lab, registered: Path, level: str) -> None:
    with lab.data() as data:
        assert data.verify([rec(1)], level=level)[0].ok
        whole = stored(lab, "manifest.json")
        (lab.stored / rec(1) / "manifest.json").write_bytes(b"x" * len(whole))
        assert not data.verify([rec(1)], level=level)[0].ok
        (lab.stored / rec(1) / "manifest.json").write_bytes(b"")
        assert not data.verify([rec(1)], level=level)[0].ok


def test_verify_of_a_directory_that_is_in_no_row(lab: Lab) -> None:
    rec_dir = lab.make(1, FILES)
    shutil.copytree(rec_dir, lab.stored / rec(1))
    (lab.nas / rec(2)).mkdir()
    with lab.data() as data:
        data.catalog_history()
        assert [check.ok for check in data.verify([rec_dir, lab.nas / rec(2)])] == [False, False]
