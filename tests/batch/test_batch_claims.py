"""What a hostile review found: ways to say HAVE or OK that nothing had measured."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from batch_tools import Lab, age, make_lab, rec

from ursa import ConflictError, ObjectConflictError
from ursa_cli.ingest_view import ok_line

FILES = {"eeg_a/seg_000.edf": b"eeg" * 400, "camera_left/seg_000.mp4": b"left" * 300, "events.csv": b"a,b\n1,2\n"}
PATH = "eeg_a/seg_000.edf"
OTHER = b"EEG" * 400


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty lab."""
    return make_lab(tmp_path)


def replace_object(lab: Lab, path: str, body: bytes) -> None:
    """Somebody puts another object there."""
    (lab.stored / rec(1) / path).unlink()
    (lab.stored / rec(1) / path).write_bytes(body)


@pytest.mark.parametrize("overwrite", [False, True])
def test_trust_mtime_never_takes_a_measured_stranger(lab: Lab, overwrite: bool) -> None:
    rec_dir = lab.make(1, FILES)
    age(rec_dir)
    assert lab.one().status == "ok"
    replace_object(lab, PATH, OTHER)
    with lab.data() as data:
        list(data.verify([rec(1)]))
        outcome = next(iter(data.ingest_dirs([rec_dir], trust_mtime=True, existing="skip", overwrite=overwrite)))
    assert outcome.status == "fail" and isinstance(outcome.error, ObjectConflictError)


def test_disk_and_bucket_that_agree_against_a_proven_row(lab: Lab) -> None:
    rec_dir = lab.make(1, FILES, list_sha256=False)
    age(rec_dir)
    assert lab.one().status == "ok"
    replace_object(lab, PATH, OTHER)
    (rec_dir / PATH).write_bytes(OTHER)
    age(rec_dir)
    outcome = lab.one()
    assert outcome.status == "fail" and isinstance(outcome.error, ConflictError)


def changed(lab: Lab, *, list_sha256: bool) -> Path:
    """A recording that is registered and proven, and of which the disk has another file of the same size now."""
    assert lab.make(1, FILES, list_sha256=list_sha256).is_dir()
    assert lab.one().status == "ok"
    shutil.rmtree(lab.nas / rec(1))
    return lab.make(1, FILES | {PATH: OTHER}, list_sha256=list_sha256)


def test_trust_size_says_so_of_a_proven_object(lab: Lab) -> None:
    rec_dir = changed(lab, list_sha256=False)
    with lab.data() as data:
        result = data.ingest(None, rec_dir, trust_size=True, overwrite=True)
    assert result.by_size_only == len(FILES) and "3 by size only" in ok_line(result)


def test_trust_size_heeds_what_was_measured(lab: Lab) -> None:
    rec_dir = changed(lab, list_sha256=True)
    (lab.stored / rec(1) / "manifest.json").unlink()
    with lab.data() as data, pytest.raises(ObjectConflictError):
        data.ingest(None, rec_dir, trust_size=True, overwrite=True)


def test_an_ok_line_says_what_was_trusted(lab: Lab) -> None:
    rec_dir = lab.make(1, FILES)
    assert lab.one().status == "ok"
    with lab.data() as data:
        result = data.ingest(None, rec_dir, trust_mtime=True, overwrite=True)
    assert "3 by size and mtime; not read" in ok_line(result)


def test_a_registered_file_of_another_disk_that_was_replaced(lab: Lab) -> None:
    rec_dir = lab.make(1, FILES)
    age(rec_dir)
    assert lab.one().status == "ok"
    (rec_dir / "events.csv").unlink()
    assert lab.one().told == "; 2 of 3 files on this disk"
    replace_object(lab, "events.csv", FILES["events.csv"])
    assert lab.one().status == "have"
    replace_object(lab, "events.csv", b"A,B\n1,2\n")
    outcome = lab.one()
    assert outcome.status == "fail" and "events.csv (other content)" in str(outcome.error)
