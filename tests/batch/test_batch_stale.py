"""What a walk found is said soon after it, or not at all; and a walk that fails keeps nobody waiting."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch_tools import Lab, age, make_lab, rec

import ursa.batch.run
import ursa.batch.survey
from ursa.batch.survey import Survey
from ursa.disk.fingerprint import Disks
from ursa.disk.mounts import Ctime, Mount, Rules

PATH = "eeg_a/seg_000.edf"


def until_a_walk_knows(lab: Lab) -> None:
    """Runs until its recording is said to be there without an ingest."""
    lab.run()
    time.sleep(2.6)
    lab.run()
    time.sleep(2.6)
    (outcome,) = lab.run()
    assert outcome.status == "have" and outcome.error is None


@pytest.fixture
def known(tmp_path: Path) -> tuple[Lab, Path]:
    """A recording that a walk alone knows."""
    lab = make_lab(tmp_path)
    rec_dir = lab.make(1, {PATH: b"eeg" * 400}, list_sha256=False)
    age(rec_dir)
    until_a_walk_knows(lab)
    return lab, rec_dir


def test_a_file_that_changed_since_the_walk(known: tuple[Lab, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    lab, rec_dir = known
    monkeypatch.setattr(ursa.batch.run, "FRESH_FOR_S", 0.0)
    walked = Survey.of

    def changed_after(survey: Survey, where: Path) -> Any:
        look = walked(survey, where)
        (rec_dir / PATH).write_bytes(b"EEG" * 400)
        return look

    monkeypatch.setattr(Survey, "of", changed_after)
    (outcome,) = lab.run()
    assert outcome.status == "fail"


def test_a_walk_that_breaks_keeps_nobody_waiting(known: tuple[Lab, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    lab, _ = known
    monkeypatch.setattr(ursa.batch.survey, "_judged", broken)
    (outcome,) = lab.run()
    assert outcome.status == "have" and outcome.error is not None


@pytest.mark.parametrize("path", ["manifest.json", "participant.txt"])
def test_a_sidecar_that_is_gone_from_the_bucket(tmp_path: Path, path: str) -> None:
    lab = make_lab(tmp_path)
    age(lab.make(1, {PATH: b"eeg" * 400}, participant="Aria Lin"))
    until_a_walk_knows(lab)
    (lab.stored / rec(1) / path).unlink()
    (outcome,) = lab.run()
    assert outcome.status == "fail" and path in str(outcome.error)


def test_a_disk_of_which_nothing_is_kept_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some FUSE file systems tell neither change times nor a name: each run reads all of it."""
    lab = make_lab(tmp_path)
    age(lab.make(1, {PATH: b"eeg" * 400}))
    lab.run()
    monkeypatch.setattr(ursa.batch.run, "LARGE_READ_BYTES", 1000)
    monkeypatch.setattr(ursa.batch.survey, "DISKS", Disks(lambda _: Mount("fuse.shfs"), {"fuse": Rules(Ctime.NONE)}))
    told: list[str] = []
    with lab.data() as data:
        run = data.batch([lab.nas])
        run.options = replace(run.options, temporary_cache=False)
        run.warn = told.append
        assert [outcome.status for outcome in run] == ["have"]
    assert len(told) == 1 and "neither change times nor a name" in told[0]


def test_trust_mtime_waits_for_no_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a NAS whose change times moved, each recording would be left until it can be read."""
    lab = make_lab(tmp_path)
    for number in (1, 2):
        age(lab.make(number, {PATH: b"eeg %d" % number * 400}))
    lab.run()
    time.sleep(2.6)
    lab.run()
    for file in (*lab.nas.rglob("*.edf"), *lab.nas.rglob("*.json")):
        file.chmod(0o640)
    monkeypatch.setattr(Survey, "has_turn", lambda *_: False)
    assert [outcome.status for outcome in lab.run()] == ["skip", "skip"]
    outcomes = lab.run(trust_mtime=True)
    assert [(outcome.status, outcome.told) for outcome in outcomes] == [("have", " (by size and mtime; not read)")] * 2
