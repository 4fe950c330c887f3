"""Every exit status of the contract, from the installed command as a process; with --json each ends in a summary that says it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import make_recording, run_ursa, start_ursa
from ursa.lock import hold

REC = "rec_20260520_195628_b1dd"
BAD = "rec_20260521_195628_b1dd"
FILES = {"eeg_a/a.edf": b"eeg", "camera_left/a.mp4": b"left" * 900}
BATCH = {
    "dry_run",
    "counts",
    "recordings",
    "bytes_uploaded",
    "files_uploaded",
    "seconds",
    "roots",
    "problems",
    "stopped",
}
ENDED = {"schema_version", "type", "error", "message", "hint", "exit_code"}


class Lab:
    """A NAS with one recording, a profile ``local`` beside it, and an ``r2`` whose key is nowhere."""

    def __init__(self, root: Path) -> None:
        self.root, self.nas, self.config = root, root / "nas", root / "our lab.yaml"
        make_recording(self.nas, REC, FILES)
        keys = {"access_key_id": "NOBODY_HAS_IT", "secret_access_key": "NOR_THIS"}
        profiles: dict[str, Any] = {
            "local": {"root": str(root / "store")},
            "r2": {
                "endpoint_url": "http://127.0.0.1:9",
                "raw": {"bucket": "raw-bucket"},
                "assets": {"bucket": "assets-bucket"},
                "credentials": {"provider": "env", "roles": {"raw_rw": keys, "assets_rw": keys}},
            },
        }
        self.config.write_text(yaml.safe_dump({"profiles": profiles}))

    def run(self, *words: str | Path, profile: str = "local") -> tuple[int, dict[str, Any], str]:
        """Exit status, the last JSON line, and stderr; whatever else is on stdout is JSON too."""
        done = run_ursa(*words, "--json", "-p", profile, "--config", self.config)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert "Traceback" not in done.stderr
        return done.returncode, lines[-1] if lines else {}, done.stderr


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab."""
    return Lab(tmp_path)


def _again(lab: Lab) -> tuple[int, dict[str, Any], str]:
    assert lab.run("ingest", lab.nas / REC)[0] == 0
    return lab.run("ingest", lab.nas / REC)


def _short(lab: Lab) -> tuple[int, dict[str, Any], str]:
    (lab.nas / REC / "eeg_a/a.edf").unlink()
    return lab.run("ingest", lab.nas / REC)


def _some_failed(lab: Lab) -> tuple[int, dict[str, Any], str]:
    (make_recording(lab.nas, BAD, FILES) / "eeg_a/a.edf").unlink()
    return lab.run("batch", lab.nas)


def _spoilt(lab: Lab) -> tuple[int, dict[str, Any], str]:
    assert lab.run("ingest", lab.nas / REC)[0] == 0
    shutil.rmtree(lab.root / "store/constellation-data/recordings" / REC / "eeg_a")
    return lab.run("verify", REC)


def _locked(lab: Lab) -> tuple[int, dict[str, Any], str]:
    with hold("local", os.path.realpath(lab.config), [lab.nas]):
        return lab.run("batch", lab.nas)


def _interrupted(lab: Lab) -> tuple[int, dict[str, Any], str]:
    make_recording(lab.root / "slow", REC, {"camera_left/big.mp4": os.urandom(3 << 20)})
    words = ["batch", lab.root / "slow", "--bwlimit", "1M", "--json", "-p", "local", "--config", lab.config]
    with start_ursa(*words) as process:
        ends = time.monotonic() + 60
        while not (lab.root / "store/.ursa").exists() and time.monotonic() < ends:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    return process.returncode, json.loads(out.splitlines()[-1]), err


STATUSES: dict[str, tuple[int, str | None, Callable[[Lab], tuple[int, dict[str, Any], str]]]] = {
    "0": (0, None, lambda lab: lab.run("batch", lab.nas)),
    "1 a missing root": (1, "InvalidRecordingError", lambda lab: lab.run("batch", lab.root / "none")),
    "1 no such recording": (1, "RecordingNotFoundError", lambda lab: lab.run("show", "rec_19990101")),
    "2 an option": (2, "UsageError", lambda lab: lab.run("batch", lab.nas, "--jobs", "many")),
    "2 a value": (2, "UsageError", lambda lab: lab.run("batch", lab.nas, "--max-duration", "soon")),
    "2 a profile": (2, "ConfigError", lambda lab: lab.run("ls", profile="nosuch")),
    "2 a report": (2, "UsageError", lambda lab: lab.run("batch", lab.nas, "--report", "r.txt")),
    "3": (3, None, _some_failed),
    "4 of a batch": (4, "CredentialsError", lambda lab: lab.run("batch", lab.nas, profile="r2")),
    "4 of a list": (4, "CredentialsError", lambda lab: lab.run("ls", profile="r2")),
    "5": (5, None, _again),
    "6 on the disk": (6, None, _short),
    "6 in the bucket": (6, None, _spoilt),
    "11": (11, "LockHeldError", _locked),
    "130": (130, "InterruptedRunError", _interrupted),
}


@pytest.mark.parametrize("name", STATUSES)
def test_every_status_is_said_in_the_last_line(name: str, lab: Lab) -> None:
    code, error, attempt = STATUSES[name]
    status, summary, err = attempt(lab)
    assert status == code, err
    assert (summary["type"], summary["exit_code"]) == ("summary", code)
    assert summary.get("error") == error
    if error is not None:
        assert summary.keys() >= ENDED and summary["message"] and summary["message"].split("; ")[0][:60] in err


@pytest.mark.parametrize("name", ["0", "1 a missing root", "2 a value", "2 a report", "3", "4 of a batch", "11", "130"])
def test_the_summary_of_a_batch_has_the_same_fields_however_it_ends(name: str, lab: Lab) -> None:
    _status, summary, _err = STATUSES[name][2](lab)
    assert summary.keys() >= BATCH | ENDED
    assert set(summary["counts"]) == {"ok", "have", "skip", "fail", "not_reached"}
    assert sum(summary["counts"].values()) == summary["recordings"]
