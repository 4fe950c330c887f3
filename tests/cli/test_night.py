"""What the admin finds in the morning: the log and the --notify summary of a run that went wrong, with nothing else at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers import make_recording, run_ursa

FILES = {"eeg_a/a.edf": b"eeg", "camera_left/a.mp4": b"left" * 900}


def rec(number: int) -> str:
    """The rec_id number so and so, in sorted order."""
    return f"rec_20260520_{number:06d}_b1dd"


class Night:
    """A NAS and the run over it; ``log`` and ``note`` are what it leaves."""

    def __init__(self, root: Path) -> None:
        self.nas, self.log, self.note = root / "nas", root / "run.log", root / "note.json"
        self.nas.mkdir()

    def batch(self, *words: str | Path) -> int:
        """Run it as cron does; its exit status."""
        self.note.unlink(missing_ok=True)
        notify = f"cat > '{self.note}'"
        return run_ursa("batch", *words, "-q", "-p", "local", "--log-file", self.log, "--notify", notify).returncode

    def told(self) -> dict[str, Any]:
        """What CMD read."""
        summary: dict[str, Any] = json.loads(self.note.read_text())
        return summary


@pytest.fixture
def night(tmp_path: Path) -> Night:
    """A NAS with one of each: registered, new, without a manifest, broken."""
    night = Night(tmp_path)
    make_recording(night.nas, rec(2), FILES)
    assert night.batch(night.nas) == 0 and not night.note.exists()
    make_recording(night.nas, rec(1), {"eeg_a/a.edf": b"new"})
    make_recording(night.nas, rec(3), FILES, manifest=False)
    (make_recording(night.nas, rec(4), {"eeg_a/a.edf": b"four", "mic_a/a.wav": b"m"}) / "mic_a/a.wav").unlink()
    night.log.unlink()
    return night


def test_the_log_alone_tells_what_became_of_each_and_of_all(night: Night) -> None:
    assert night.batch(night.nas) == 3
    lines = [line.split(" ", 1)[1] for line in night.log.read_text().splitlines()]
    own = [line for line in lines if " ursa.run " in f" {line}"]
    begins, ok, have, skip, fail, counts, ends = own
    assert begins.startswith("INFO ursa.run run begins: ursa ")
    assert ok == f"INFO ursa.run OK   {rec(1)}: 2 uploaded, 0 skipped"
    assert have == f"INFO ursa.run HAVE {rec(2)}: already registered"
    assert skip.startswith(f"WARNING ursa.run SKIP {rec(3)}: no manifest (run reconstruct first) | ")
    assert fail.startswith(f"ERROR ursa.run FAIL {rec(4)}: MissingFilesError: ") and "mic_a/a.wav" in fail
    assert " | Nothing was uploaded." in fail
    all_four = "4 recordings: 1 registered, 1 already registered, 1 skipped, 1 failed"
    assert counts.startswith(f"ERROR ursa.run {all_four}; ")
    assert ends.startswith(f"ERROR ursa.run run ends: exit status 3: 1 failed: {rec(4)} (MissingFilesError: ")
    assert all_four in ends and " | Nothing was uploaded." in ends


def test_a_clean_run_is_in_the_log_with_its_counts(night: Night) -> None:
    for number in (3, 4):
        shutil.rmtree(night.nas / rec(number))
    assert night.batch(night.nas) == 0
    counts = "2 recordings: 1 registered, 1 already registered, 0 skipped, 0 failed"
    assert night.log.read_text().splitlines()[-1].endswith(f"run ends: done, exit status 0: {counts}")


def test_a_run_that_never_began_is_in_the_log(night: Night) -> None:
    assert night.batch(night.nas / "none") == 1
    ends = night.log.read_text().splitlines()[-1]
    assert (
        "run ends: exit status 1: InvalidRecordingError: nothing to ingest: " in ends and "is the NAS mounted?" in ends
    )
    assert night.batch(night.nas, "--max-duration", "soon") == 2
    assert "exit status 2: UsageError: 'soon' is not a length of time" in night.log.read_text()
    told = night.told()
    assert (told["error"], set(told["counts"].values()), told["recordings"]) == ("UsageError", {0}, 0)


def test_who_is_notified_reads_what_failed(night: Night) -> None:
    assert night.batch(night.nas) == 3
    told = night.told()
    assert told["message"].startswith(f"1 failed: {rec(4)} (MissingFilesError: ") and "mic_a/a.wav" in told["message"]
    assert told["hint"].startswith("Nothing was uploaded.")
    assert [entry["rec_id"] for entry in told["failed"]] == [rec(4)]
    assert [(entry["rec_id"], entry["message"]) for entry in told["skipped"]] == [
        (rec(3), "no manifest (run reconstruct first)")
    ]


def test_who_is_notified_reads_which_root_is_missing_though_another_works(night: Night) -> None:
    shutil.rmtree(night.nas / rec(4))
    assert night.batch(night.nas, night.nas.parent / "usb") == 1
    told = night.told()
    assert told["error"] is None and told["problems"]
    assert told["message"].startswith(f"{night.nas.parent / 'usb'}: there is no such directory (is the NAS mounted?); ")
    assert "mounted" in told["hint"] and "3 recordings: 1 registered, 1 already registered" in told["message"]


def test_who_is_notified_reads_what_was_skipped_under_strict(night: Night) -> None:
    shutil.rmtree(night.nas / rec(4))
    assert night.batch(night.nas, "--strict") == 3
    told = night.told()
    assert f"1 skipped, which --strict counts: {rec(3)} (no manifest (run reconstruct first))" in told["message"]
    assert f"`ursa reconstruct {night.nas / rec(3)}" in told["hint"] and "--profile local`" in told["hint"]
