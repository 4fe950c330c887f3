"""What an earlier run sent is told as such: by a dry run before, and not as this run's speed afterwards."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from helpers import make_recording, run_ursa, start_ursa

REC = "rec_20260520_195628_b1dd"
PART = 5 << 20
LOCAL = ("-p", "local", "--no-progress")


@pytest.fixture
def begun(tmp_path: Path, home: Path) -> Path:
    """A recording of which a killed run has sent a part or two."""
    rec_dir = make_recording(tmp_path / "nas", REC, {"camera_left/big.mp4": os.urandom(24 << 20), "eeg_a/a.edf": b"e"})
    uploads = home / ".local/share/ursa/.ursa/constellation-data/uploads"
    with start_ursa("ingest", rec_dir, "--bwlimit", "8M", *LOCAL) as process:
        ends = time.monotonic() + 60
        while not list(uploads.glob("*/00001-*")) and time.monotonic() < ends:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert list(uploads.glob("*/00001-*"))
    return rec_dir


def test_what_was_there_in_parts_is_not_sent_again_nor_counted(begun: Path) -> None:
    plan = run_ursa("ingest", begun, "--dry-run", *LOCAL)
    assert "24.0 MiB to send (of which " in plan.stdout and "MiB are there in parts from an earlier run)" in plan.stdout
    planned = json.loads(run_ursa("batch", begun.parent, "--dry-run", "--json", *LOCAL).stdout.splitlines()[-1])
    assert PART <= planned["bytes_in_parts"] < planned["bytes_to_send"]
    totals = run_ursa("batch", begun.parent, "--dry-run", *LOCAL).stdout
    assert "in parts from an earlier run): " in totals and "of it there in parts), 1 to skip" in totals
    done = run_ursa("batch", begun.parent, "--json", "--report", begun.parent.parent / "r.json", *LOCAL)
    recording, summary = (json.loads(line) for line in done.stdout.splitlines())
    assert recording["bytes_resumed"] == summary["bytes_resumed"] == planned["bytes_in_parts"]
    assert summary["bytes_uploaded"] == planned["bytes_to_send"]
    report = json.loads((begun.parent.parent / "r.json").read_text())
    assert report["throughput"][-1][1] == summary["bytes_uploaded"] - summary["bytes_resumed"]
    assert report["totals"]["bytes_resumed"] == summary["bytes_resumed"]


def test_the_lines_say_how_much_was_sent_now(begun: Path) -> None:
    done = run_ursa("ingest", begun, *LOCAL)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if " sent, " in line]
    assert " of these files by an earlier run, 1 B were there, " in line and not line.strip().startswith(
        "24.0 MiB sent"
    )
