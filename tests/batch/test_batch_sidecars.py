"""Manifests and participant.txt: what comes late, with an old mtime, is sent, and HAVE is said of what is dealt with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from batch_tools import Lab, age, make_lab, rec

from helpers import manifest_of, write_json, write_node_manifest
from ursa import ObjectConflictError, Outcome, RecordingExistsError
from ursa.catalog.metadata import SIDECARS_KEY
from ursa.catalog.rows import participant_id
from ursa.policies import Mark

FILES = {"eeg_a/seg_000.edf": b"eeg" * 400, "camera_left/seg_000.mp4": b"left" * 300}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty lab."""
    return make_lab(tmp_path)


@pytest.fixture
def registered(lab: Lab) -> Path:
    """A recording that is registered without a participant, untouched since."""
    rec_dir = lab.make(1, FILES)
    age(rec_dir)
    assert [lab.one().status, lab.one().status] == ["ok", "have"]
    return rec_dir


def without_a_look(outcome: Outcome) -> bool:
    """Whether the walk alone said so."""
    return outcome.status == "have" and outcome.error is None


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
    assert lab.one().status == "have"  # it waits, and nothing is to be done for it
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
