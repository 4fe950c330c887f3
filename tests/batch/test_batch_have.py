"""HAVE: said of what is registered whole, and of nothing else. Somebody wipes a disk believing it."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from batch_tools import Lab, age, make_lab, on_disks, rec, without_a_look

from helpers import manifest_of, write_json
from ursa import ConflictError, ObjectConflictError

FILES = {"eeg_a/seg_000.edf": b"eeg" * 400, "camera_left/seg_000.mp4": b"left" * 300, "events.csv": b"a,b\n1,2\n"}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An empty lab."""
    on_disks(monkeypatch)
    return make_lab(tmp_path)


@pytest.fixture
def registered(lab: Lab) -> Path:
    """A recording that is registered, untouched since."""
    rec_dir = lab.make(1, FILES, participant="Aria Lin")
    age(rec_dir)
    assert lab.one().status == "ok"
    assert without_a_look(lab.one())
    return rec_dir


def stored(lab: Lab, path: str) -> bytes:
    """An object of the recording."""
    return (lab.stored / rec(1) / path).read_bytes()


def test_untouched_is_known_by_a_walk(lab: Lab, registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ursa.transfer.digest.open_beneath", lambda *_: pytest.fail("a file was read"))
    assert registered.is_dir() and without_a_look(lab.one())


def test_what_was_read_too_soon_after_it_was_seen_is_read_again(
    lab: Lab, registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write between the look and the reading need not show in the times."""
    for module in ("ursa.register.memory", "ursa.disk.cache"):
        monkeypatch.setattr(f"{module}.SETTLED_S", 3600.0)
    age(registered)
    for _ in range(2):
        outcome = lab.one()
        assert outcome.status == "have" and outcome.error is not None
    on_disks(monkeypatch)  # and that time has gone by
    assert lab.one().error is not None
    assert without_a_look(lab.one())


def test_a_new_worker_is_merged(lab: Lab, registered: Path) -> None:
    (registered / "eeg_b").mkdir()
    (registered / "eeg_b" / "seg_000.edf").write_bytes(b"new")
    age(registered)
    outcome = lab.one()
    assert outcome.status == "ok" and outcome.result is not None
    assert (outcome.result.action, outcome.result.files_uploaded) == ("merged", 1)
    assert stored(lab, "eeg_b/seg_000.edf") == b"new"
    assert without_a_look(lab.one())


@pytest.mark.parametrize("path", ["eeg_a/seg_001.edf", "camera_left/deep/er.mp4"])
def test_another_file_in_a_registered_worker_is_a_conflict(lab: Lab, registered: Path, path: str) -> None:
    (registered / path).parent.mkdir(exist_ok=True)
    (registered / path).write_bytes(b"another")
    age(registered)
    outcome = lab.one()
    assert outcome.status == "fail" and isinstance(outcome.error, ConflictError) and path in outcome.error.message
    assert not (lab.stored / rec(1) / path).exists()


def test_touched_and_equal_is_hashed_and_have(lab: Lab, registered: Path) -> None:
    for path in FILES:
        os.utime(registered / path)
    outcome = lab.one()
    assert outcome.status == "have" and outcome.error is not None  # an ingest looked, and found it the same
    assert without_a_look(lab.one())


@pytest.mark.parametrize("path", FILES)
def test_changed_with_the_same_size_is_a_conflict(lab: Lab, registered: Path, path: str) -> None:
    content = bytearray(FILES[path])
    content[0] ^= 1
    (registered / path).write_bytes(content)
    files = FILES | {path: bytes(content)}
    write_json(registered / "manifest.json", manifest_of(rec(1), files))  # the rig wrote both anew
    outcome = lab.one()
    assert outcome.status == "fail" and isinstance(outcome.error, ConflictError) and path in outcome.error.message
    assert stored(lab, path) == FILES[path]


def test_changed_by_somebody_who_restores_the_time_is_seen(lab: Lab, registered: Path) -> None:
    """Size and mtime tell nothing; the disk's own change time does, and then the bytes are compared."""
    (registered / "eeg_a/seg_000.edf").write_bytes(b"EEG" * 400)
    write_json(registered / "manifest.json", manifest_of(rec(1), FILES | {"eeg_a/seg_000.edf": b"EEG" * 400}))
    age(registered)
    outcome = lab.one()
    assert outcome.status == "fail" and isinstance(outcome.error, ConflictError)
    assert stored(lab, "eeg_a/seg_000.edf") == FILES["eeg_a/seg_000.edf"]


def test_another_size_is_never_have(lab: Lab, registered: Path) -> None:
    (registered / "eeg_a/seg_000.edf").write_bytes(b"short")
    age(registered)
    assert lab.one().status == "fail"


def test_junk_is_have(lab: Lab, registered: Path) -> None:
    for path in (".DS_Store", "eeg_a/._seg_000.edf", "@eaDir/x/thumb.jpg", "camera_left/Thumbs.db"):
        (registered / path).parent.mkdir(parents=True, exist_ok=True)
        (registered / path).write_bytes(b"junk")
    assert without_a_look(lab.one())


def test_an_unlisted_file_outside_of_workers_is_sent(lab: Lab, registered: Path) -> None:
    for path, content in {"notes.txt": b"late", "_calibration/board.json": b"{}"}.items():
        (registered / path).parent.mkdir(exist_ok=True)
        (registered / path).write_bytes(content)
    age(registered)
    outcome = lab.one()
    assert outcome.status == "ok" and outcome.result is not None and outcome.result.files_uploaded == 2
    assert (stored(lab, "notes.txt"), stored(lab, "_calibration/board.json")) == (b"late", b"{}")
    assert without_a_look(lab.one())
    (registered / "notes.txt").write_bytes(b"LATE")
    assert isinstance(lab.one().error, ConflictError)


def test_an_unfinished_copy_is_refused_by_name(lab: Lab, registered: Path) -> None:
    (registered / "eeg_a" / "seg_001.edf.part").write_bytes(b"half")
    outcome = lab.one()
    assert outcome.status == "fail" and "seg_001.edf.part" in (outcome.error.message if outcome.error else "")


def test_a_manifest_that_was_changed_is_no_have(lab: Lab, registered: Path) -> None:
    manifest = json.loads((registered / "manifest.json").read_text())
    manifest["operator_note"] = "electrode 3 was loose"
    write_json(registered / "manifest.json", manifest)
    outcome = lab.one()
    assert outcome.status == "fail" and isinstance(outcome.error, ObjectConflictError)
    assert "manifest.json" in outcome.error.message and "operator_note" not in stored(lab, "manifest.json").decode()


def test_a_manifest_that_was_only_touched_is_have(lab: Lab, registered: Path) -> None:
    os.utime(registered / "manifest.json")
    assert without_a_look(lab.one())


def test_a_manifest_that_is_gone_leaves_have(lab: Lab, registered: Path) -> None:
    (registered / "manifest.json").unlink()
    assert without_a_look(lab.one())


def test_two_files_that_are_one_in_nfc_are_not_both_registered(lab: Lab) -> None:
    name = "eeg_a/Übung.edf"
    rec_dir = lab.make(1, {name: b"eeg"})
    age(rec_dir)
    assert lab.one().status == "ok"
    (rec_dir / unicodedata.normalize("NFD", name)).write_bytes(b"EEG")
    age(rec_dir)
    outcome = lab.one()
    assert outcome.status == "fail" and "NFC" in (outcome.error.message if outcome.error else "")


def test_a_name_in_nfd_is_the_registered_one(lab: Lab) -> None:
    rec_dir = lab.make(1, {"eeg_a/Übung.edf": b"eeg"})
    age(rec_dir)
    assert lab.one().status == "ok"
    (rec_dir / "eeg_a/Übung.edf").rename(rec_dir / unicodedata.normalize("NFD", "eeg_a/Übung.edf"))
    assert lab.one().status == "have"
    assert without_a_look(lab.one())


def test_a_link_inside_is_looked_into_and_have(lab: Lab) -> None:
    rec_dir = lab.make(1, {"eeg_a/a.edf": b"eeg"})
    (rec_dir / "eeg_a" / "b.edf").symlink_to("a.edf")
    age(rec_dir)
    assert [lab.one().status, lab.one().status] == ["ok", "have"]


@pytest.mark.parametrize("make", ["fifo", "dangling", "loop"])
def test_what_can_not_be_uploaded_is_no_have(lab: Lab, registered: Path, make: str) -> None:
    odd = registered / "eeg_a" / "odd"
    if make == "fifo":
        os.mkfifo(odd)
    else:
        odd.symlink_to("nothing" if make == "dangling" else ".")
    outcome = lab.one()
    assert outcome.status == "fail" and "eeg_a/odd" in (outcome.error.message if outcome.error else "")


def test_an_empty_directory_of_a_registered_recording_is_no_have(lab: Lab, registered: Path) -> None:
    for path in sorted(registered.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert lab.one().status == "skip"


def test_existing_error_and_overwrite(lab: Lab, registered: Path) -> None:
    failed = lab.one(existing="error")
    assert failed.status == "fail" and type(failed.error).__name__ == "RecordingExistsError"
    again = lab.one(existing="overwrite")
    assert again.status == "ok" and again.result is not None and again.result.action == "overwritten"
    assert lab.rows() == [rec(1)]
