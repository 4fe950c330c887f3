"""Path B killed at every step and run again ends as if it had never been killed; the bucket is never touched."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forks import Forks

from helpers import make_recording
from ursa import DataInterface

REC, OTHER = "rec_20260520_195628_b1dd", "rec_20260521_101500_c2ee"
FIRST = {"camera_left/seg_000.mp4": b"left " * 1000, "events.csv": b"a,b\n"}
LATER = FIRST | {"eeg_a/seg_000.edf": b"eeg" * 1000, "eeg_b/empty.edf": b""}
KILLED = -9


class Lab:
    """A store whose bucket holds recordings, and whose catalog a run can be killed over."""

    def __init__(self, tmp_path: Path, name: str, recordings: Path, forks: Forks) -> None:
        self.forks = forks
        self.root = tmp_path / name
        self.config = self._config("machine")
        # Who looks at what a killed run left reads every object: on this machine that would be measured for the next run.
        self.looking = self._config("looking")
        shutil.copytree(recordings, self.root / "constellation-data" / "recordings")

    def _config(self, machine: str) -> Path:
        """A config of this store for a machine that has read nothing yet."""
        path = self.root.with_name(f"{self.root.name}-{machine}.yaml")
        cache = self.root.with_name(f"{self.root.name}-{machine}-cache")
        path.write_text(f"profiles:\n  local: {{root: {self.root}, cache_dir: {cache}}}\n", encoding="utf-8")
        return path

    def run(self, point: int, *rec_ids: str) -> subprocess.CompletedProcess[str]:
        return self.forks.run(self.config, point, *rec_ids)

    def open(self) -> DataInterface:
        return DataInterface("local", self.config)

    def bucket(self) -> dict[str, tuple[int, bytes]]:
        """Every object, with the time of its last change."""
        root = self.root / "constellation-data"
        return {
            path.relative_to(root).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
            for path in root.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def forks() -> Iterator[Forks]:
    """Runs that are killed at a step, each a process of its own."""
    with Forks(Path(__file__).with_name("killed_from_r2.py")) as made:
        yield made


def rows(data: DataInterface) -> dict[str, Any]:
    """The catalog, without what no two runs have in common."""
    modalities = [
        replace(row, metadata={}, files=tuple(replace(file, etag=None) for file in row.files))
        for row in data.list_modalities()
    ]
    return {
        "recordings": [replace(row, registered_at=None, registered_by="") for row in data.list_recordings()],
        "modalities": modalities,
        "participants": [replace(row, created_at=None) for row in data.list_participants()],
    }


def check_visible_is_whole(lab: Lab, workers: dict[str, set[str]]) -> None:
    """What is visible is there, byte for byte, with the workers that it must have at least."""
    with DataInterface("local", lab.looking) as data:
        found = data.list_recordings()
        checks = data.verify([row.rec_id for row in found], level="full") if found else []
        for check in checks:
            # A worker ("eeg_a/") that a killed merge has not written yet is named as missing; no file is.
            assert not [file for file in check.files if file.mark not in "=+" and file.path[-1] != "/"], check
        for row in found:
            there = {item.name for item in data.list_modalities({"recording_hash": row.recording_hash})}
            assert there >= workers[row.rec_id]


def killed_everywhere(tmp_path: Path, prepare: Any, rec_ids: tuple[str, ...], workers: dict[str, set[str]]) -> None:
    undisturbed = prepare("undisturbed")
    run = undisturbed.run(0, *rec_ids)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    expected = rows(undisturbed.open())
    total = int(run.stdout)
    assert total >= 8
    kills = 0
    for point in range(1, total + 1):
        lab = prepare(f"killed-{point}")
        before = lab.bucket()
        code = lab.run(point, *rec_ids).returncode
        # Events are told at most ten a second: a run may have fewer steps than the first one.
        assert code in (KILLED, 0)
        kills += code == KILLED
        check_visible_is_whole(lab, workers)
        again = lab.run(0, *rec_ids)
        refused = [line for line in again.stderr.splitlines() if "Error:" in line]
        assert all("RecordingExistsError" in line for line in refused), again.stderr
        assert rows(lab.open()) == expected, f"killed at step {point} of {total}"
        assert lab.bucket() == before
    assert kills > total / 2


@pytest.mark.slow
def test_one_recording(forks: Forks, tmp_path: Path) -> None:
    make_recording(tmp_path / "in", REC, LATER)
    killed_everywhere(
        tmp_path,
        lambda name: Lab(tmp_path, name, tmp_path / "in", forks),
        (REC,),
        {REC: {"camera_left", "eeg_a", "eeg_b"}},
    )


@pytest.mark.slow
def test_a_merge_and_a_new_recording_in_one_group(forks: Forks, tmp_path: Path) -> None:
    for name, files in ((REC, FIRST), (OTHER, LATER)):
        make_recording(tmp_path / "first", name, files)
    make_recording(tmp_path / "later", REC, LATER)

    def prepare(name: str) -> Lab:
        lab = Lab(tmp_path, name, tmp_path / "first", forks)
        data = lab.open()
        data.enable_writes()
        data.ingest_from_r2(REC)
        shutil.copytree(tmp_path / "later", lab.root / "constellation-data" / "recordings", dirs_exist_ok=True)
        return lab

    # A killed merge shows its recording before the new workers; a new recording shows itself whole.
    workers = {REC: {"camera_left"}, OTHER: {"camera_left", "eeg_a", "eeg_b"}}
    killed_everywhere(tmp_path, prepare, (REC, OTHER), workers)
