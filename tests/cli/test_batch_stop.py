"""`ursa batch` that is interrupted, out of time, locked out, or fails early: what it says, and that the next one goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import make_recording, run_ursa, start_ursa

BLOCK = os.urandom(100_000)


def rec(number: int) -> str:
    """The rec_id number so and so, in sorted order."""
    return f"rec_20260520_{number:06d}_b1dd"


@pytest.fixture
def common(tmp_path: Path) -> tuple[str, ...]:
    """Options of every command: the profile ``local`` below tmp_path."""
    path = tmp_path / "ursa.yaml"
    path.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n")
    return ("-p", "local", "--config", str(path))


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    """A large recording before two small ones."""
    make_recording(tmp_path / "nas", rec(1), {f"eeg_a/{number}.edf": BLOCK[number:] for number in range(200)})
    for number in (2, 3):
        make_recording(tmp_path / "nas", rec(number), {"eeg_a/a.edf": b"eeg %d" % number})
    return tmp_path / "nas"


SLOW = ("--bwlimit", "0.5M", "--jobs", "4")  # the large one takes some forty seconds


def rows(common: tuple[str, ...]) -> list[str]:
    """The rec_ids in the catalog."""
    done = run_ursa("ls", "--json", *common)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["rec_id"] for line in done.stdout.splitlines()]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Poll until ``condition``."""
    ends = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)


def stored(common: tuple[str, ...], *numbers: int) -> Callable[[], bool]:
    """Whether the manifests of these are in the store; of number 1, its first bytes."""
    raw = Path(common[-1]).parent / "store" / "constellation-data" / "recordings"
    return lambda: (raw / rec(1)).exists() and all((raw / rec(number) / "manifest.json").exists() for number in numbers)


def test_a_signal_is_130_and_what_had_ended_is_told(nas: Path, common: tuple[str, ...], tmp_path: Path) -> None:
    reports = [tmp_path / "r.json", tmp_path / "r.html"]
    words = [word for path in reports for word in ("--report", str(path))]
    note = tmp_path / "note.json"
    with start_ursa("batch", nas, *SLOW, *words, "--notify", f"cat > '{note}'", *common) as process:
        wait_for(stored(common, 2, 3), process)
        time.sleep(1.0)  # the two are registered, and wait for the first one to be told
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    *lines, last = out.splitlines()
    assert lines == [f"OK   {rec(2)}: 2 uploaded, 0 skipped", f"OK   {rec(3)}: 2 uploaded, 0 skipped"]
    assert last.startswith("3 recordings: 2 registered, 0 already registered, 0 skipped, 0 failed, 1 not reached; ")
    assert "interrupted" in err and rec(1) in err and "same command again" in err and "Traceback" not in err
    assert rows(common) == [rec(2), rec(3)]
    told = json.loads(reports[0].read_text())
    assert (told["state"], told["exit_code"], told["error"]["error"]) == ("finished", 130, "InterruptedRunError")
    assert [entry["rec_id"] for entry in told["recordings"]] == [rec(2), rec(3)]
    assert rec(2) in reports[1].read_text()
    payload = json.loads(note.read_text())
    assert payload["exit_code"] == 130 and payload["error"] == "InterruptedRunError"
    assert payload["counts"] == {"ok": 2, "have": 0, "skip": 0, "fail": 0, "not_reached": 1}
    assert f"interrupted: {rec(1)} has" in payload["message"] and "2 registered" in payload["message"]
    assert "again" in payload["hint"]
    again = run_ursa("batch", nas, *common)
    assert again.returncode == 0 and again.stdout.startswith(f"OK   {rec(1)}: ")
    assert f"HAVE {rec(3)}: already registered" in again.stdout and rows(common) == [rec(1), rec(2), rec(3)]


def test_the_time_is_over(nas: Path, common: tuple[str, ...]) -> None:
    started = time.monotonic()
    report, note = nas.parent / "r.json", nas.parent / "note.json"
    words = ("--bwlimit", "0.5M", "--jobs", "1", "--max-duration", "2s", "--report", report)
    done = run_ursa("batch", nas, *words, "--notify", f"cat > '{note}'", "--json", *common)
    assert time.monotonic() - started < 15, "the large one alone takes some forty"
    assert done.returncode == 3, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    recordings = {line["rec_id"]: line for line in lines if line["type"] == "recording"}
    assert [line["status"] for line in recordings.values()] == ["skip"] * 3
    assert recordings[rec(1)]["reason"] == "the time of --max-duration is over; it goes on next time"
    assert not any(line["reached"] for line in recordings.values())
    assert lines[-1]["stopped"] == "the time of --max-duration is over"
    assert lines[-1]["counts"] == {"ok": 0, "have": 0, "skip": 0, "fail": 0, "not_reached": 3}
    payload = json.loads(note.read_text())
    for said in (done.stderr, payload["message"], lines[-1]["message"]):
        assert "3 not reached: the time of --max-duration is over" in said
    assert "goes on from there" in payload["hint"] and payload["exit_code"] == 3
    assert "3 of 3 recordings were not reached" in json.loads(report.read_text())["verdict"]["words"]
    assert rows(common) == []
    again = run_ursa("batch", nas, *common)
    first = again.stdout.splitlines()[0]
    assert again.returncode == 0 and first.startswith(f"OK   {rec(1)}: ") and not first.endswith(" 0 skipped")
    assert rows(common) == [rec(1), rec(2), rec(3)]


def test_one_run_at_a_time_and_wait(nas: Path, common: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(nas)
    report, note = tmp_path / "r.json", tmp_path / "note.json"
    with start_ursa("batch", nas, *SLOW, *common) as first:
        wait_for(stored(common), first)
        held = run_ursa("batch", tmp_path / "link", "--report", report, "--notify", f"cat > '{note}'", *common)
        assert held.returncode == 11 and f"pid {first.pid}" in held.stderr and held.stdout == ""
        assert "nothing was started" in held.stderr and "Traceback" not in held.stderr
        assert json.loads(report.read_text())["error"]["error"] == "LockHeldError"
        assert json.loads(note.read_text())["error"] == "LockHeldError"
        waited = run_ursa("batch", nas, "--wait", "0.5s", *common)
        assert waited.returncode == 11 and "after waiting" in waited.stderr
        assert run_ursa("batch", nas, "--dry-run", *common).returncode == 0  # changes nothing, needs no lock
        assert run_ursa("batch", nas / rec(2), *common).returncode == 0  # other roots
        with start_ursa("batch", nas, "--wait", "60s", *common) as second:
            time.sleep(0.8)
            assert second.poll() is None
            first.send_signal(signal.SIGTERM)
            first.communicate(timeout=30)
            out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert out.splitlines()[0].startswith(f"OK   {rec(1)}: ")


def test_a_killed_run_leaves_no_lock(nas: Path, common: tuple[str, ...]) -> None:
    with start_ursa("batch", nas, *SLOW, *common) as process:
        wait_for(stored(common), process)
        process.kill()
        process.communicate()
    assert run_ursa("batch", nas, *common).returncode == 0
    assert rows(common) == [rec(1), rec(2), rec(3)]


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("--max-duration", "soon"), 2, "UsageError"),
        (("--config", "/nowhere.yaml"), 2, "ConfigError"),
        (("ROOT/none",), 1, None),
    ],
)
def test_an_early_failure_is_notified(
    words: tuple[str, ...], code: int, error: str | None, nas: Path, common: tuple[str, ...], tmp_path: Path
) -> None:
    note, report = tmp_path / "note.json", tmp_path / "r.json"
    more = [word.replace("ROOT", str(nas)) for word in words]
    done = run_ursa("batch", nas, "--notify", f"cat > '{note}'", "--report", report, *common, *more)
    assert done.returncode == code, done.stderr
    payload: dict[str, Any] = json.loads(note.read_text())
    assert (payload["exit_code"], payload["command"], payload["error"]) == (code, "batch", error)
    assert json.loads(report.read_text())["exit_code"] == code


def test_a_clean_run_notifies_nobody(nas: Path, common: tuple[str, ...], tmp_path: Path) -> None:
    assert run_ursa("batch", nas, "--notify", f"touch '{tmp_path / 'note'}'", *common).returncode == 0
    assert not (tmp_path / "note").exists()
