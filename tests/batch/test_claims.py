"""Rows that only claim something: compared once, upgraded, then believed; and times that are believed for who asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_tools import Lab, age, make_lab, on_disks, rec, without_a_look

from helpers import manifest_of, write_json
from ursa import ChecksumMismatchError, ConflictError, ObjectConflictError, Outcome
from ursa.policies import Evidence

FILES = {"eeg_a/a.edf": b"eeg" * 300, "camera_left/a.mp4": b"left" * 100, "events.csv": b"t\n"}
FIRST = "eeg_a/a.edf"
BY_MTIME = " (by size and mtime; not read)"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An empty lab."""
    on_disks(monkeypatch)
    return make_lab(tmp_path)


def evidence(lab: Lab) -> dict[str, Evidence]:
    """Of every file of the recording."""
    with lab.data() as data:
        row = data.find_recording(rec(1))
        files = [file for item in data.list_modalities() for file in item.files]
        return {file.path: file.evidence for file in (*files, *row.auxiliary_files)}


def operations(lab: Lab) -> list[str]:
    """What was done to the catalog, the latest first."""
    with lab.data() as data:
        return [item.operation for item in data.catalog_history()]


def was_read(outcome: Outcome) -> bool:
    """Whether it was HAVE since an ingest compared it."""
    return outcome.status == "have" and outcome.error is not None


@pytest.fixture
def from_bucket(lab: Lab) -> Path:
    """A recording whose rows are of what its manifest states; the directory that the bucket's is a copy of."""
    rec_dir = lab.make(1, FILES)
    age(rec_dir)
    shutil.copytree(rec_dir, lab.stored / rec(1))
    with lab.data() as data:
        data.ingest_from_r2(rec(1))
    assert {path for path, how in evidence(lab).items() if how is Evidence.CLAIMED} == {FIRST, "camera_left/a.mp4"}
    return rec_dir


def test_a_claim_is_compared_once_and_the_row_says_so(lab: Lab, from_bucket: Path) -> None:
    assert from_bucket.is_dir() and was_read(lab.one())
    assert set(evidence(lab).values()) <= {Evidence.SHA256, Evidence.ETAG}
    done = operations(lab)
    assert done.count("proven") == 1
    assert without_a_look(lab.one())
    assert operations(lab) == done


def test_what_this_machine_has_measured_outlives_the_catalog(lab: Lab, from_bucket: Path) -> None:
    assert was_read(lab.one())
    shutil.rmtree(lab.root / "store" / "constellation-assets")
    with lab.data() as data:
        data.ingest_from_r2(rec(1))
    assert set(evidence(lab).values()) == {Evidence.SHA256}
    assert from_bucket.is_dir() and without_a_look(lab.one())


def test_a_claim_that_is_wrong_is_no_have(lab: Lab, from_bucket: Path) -> None:
    (lab.stored / rec(1) / FIRST).write_bytes(FILES[FIRST][::-1])
    for _ in range(2):
        outcome = lab.one()
        assert outcome.status == "fail" and isinstance(outcome.error, ObjectConflictError)
        assert FIRST in outcome.error.message
    assert from_bucket.is_dir() and evidence(lab)[FIRST] is Evidence.CLAIMED


def test_a_disk_that_is_not_as_its_manifest_states_is_no_have(lab: Lab, from_bucket: Path) -> None:
    """Nor where the bucket has the very same bytes."""
    for directory in (from_bucket, lab.stored / rec(1)):
        (directory / FIRST).write_bytes(FILES[FIRST][::-1])
    outcome = lab.one()
    assert outcome.status == "fail" and isinstance(outcome.error, ChecksumMismatchError) and FIRST in str(outcome.error)


# --trust-mtime


@pytest.fixture
def registered(lab: Lab) -> Path:
    """A recording that is registered; the machine that did it is another one."""
    rec_dir = lab.make(1, FILES)
    age(rec_dir)
    assert lab.one().status == "ok"
    shutil.rmtree(Path.home() / ".cache" / "ursa")
    return rec_dir


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on no data file may be read."""

    def refuse() -> None:
        monkeypatch.setattr("ursa.register.planning.digest", lambda *_args, **_options: pytest.fail("a file was read"))

    return refuse


def shift(rec_dir: Path, seconds: float) -> None:
    """All data files were written so much later."""
    for path in FILES:
        stat = (rec_dir / path).stat()
        os.utime(rec_dir / path, ns=(stat.st_atime_ns, stat.st_mtime_ns + int(seconds * 1e9)))


def test_times_are_believed_for_who_asks(lab: Lab, registered: Path, unread: Callable[[], None]) -> None:
    unread()
    outcome = lab.one(trust_mtime=True)
    assert registered.is_dir() and was_read(outcome) and outcome.told == BY_MTIME


def test_times_are_not_believed_unasked(lab: Lab, registered: Path) -> None:
    outcome = lab.one()
    assert registered.is_dir() and was_read(outcome) and outcome.told == ""


@pytest.mark.parametrize("seconds", [3600.0, 2.0, -1.0])
def test_another_time_is_read(lab: Lab, registered: Path, seconds: float) -> None:
    shift(registered, seconds)
    outcome = lab.one(trust_mtime=True)
    assert was_read(outcome) and outcome.told == ""


def test_a_copy_with_whole_seconds_is_the_same(lab: Lab, registered: Path, unread: Callable[[], None]) -> None:
    for path in FILES:
        os.utime(registered / path, (0, int((registered / path).stat().st_mtime)))
    unread()
    assert lab.one(trust_mtime=True).told == BY_MTIME


@pytest.mark.parametrize(("seconds", "told"), [(3600.0, BY_MTIME), (-7200.0, BY_MTIME), (3660.0, "")])
def test_whole_hours_are_the_same_on_a_disk_that_keeps_local_time(
    lab: Lab, registered: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, told: str
) -> None:
    monkeypatch.setattr("ursa.register.planning.keeps_local_time", lambda _directory: True)
    shift(registered, seconds)
    outcome = lab.one(trust_mtime=True)
    assert was_read(outcome) and outcome.told == told


def test_a_row_that_knows_no_time_is_read(lab: Lab, from_bucket: Path) -> None:
    outcome = lab.one(trust_mtime=True)
    assert from_bucket.is_dir() and was_read(outcome) and outcome.told == ""


def test_another_size_is_a_conflict_whatever_the_time(lab: Lab, registered: Path) -> None:
    target = registered / FIRST
    stat = target.stat()
    target.write_bytes(FILES[FIRST] + b"x")
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    write_json(registered / "manifest.json", manifest_of(rec(1), FILES | {FIRST: FILES[FIRST] + b"x"}))
    assert isinstance(lab.one(trust_mtime=True).error, ConflictError)


def test_what_is_gone_from_the_bucket_is_missed_all_the_same(lab: Lab, registered: Path) -> None:
    (lab.stored / rec(1) / FIRST).unlink()
    outcome = lab.one(trust_mtime=True)
    assert registered.is_dir() and type(outcome.error).__name__ == "MissingFilesError"
