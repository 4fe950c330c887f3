"""`ursa doctor` as a process: what it prints where, its exit codes, no terminal, no secret."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from api.api_tools import writer
from conftest import Buckets, MakeConfig
from helpers import make_recording, run_ursa
from servers import find_executable

REC = "rec_20260520_195628_b1dd"
FILES = {"camera_left/seg_000.mp4": b"left " * 20, "eeg_a/seg_000.edf": b"eeg" * 30}


def test_lines_of_text(tmp_path: Path) -> None:
    make_recording(tmp_path / "nas", REC, FILES)
    done = run_ursa("doctor", tmp_path / "nas", "-p", "local", env={"FORCE_COLOR": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok    version        ursa ")
    assert "ok    catalog        none yet; made on first use" in lines
    at = next(i for i, line in enumerate(lines) if line.startswith("warn  timezone "))
    assert lines[at + 1].startswith("      mend: Add rig_timezone")
    assert f"ok    recordings {tmp_path / 'nas'} 1 recording" in lines
    assert lines[-1].endswith(" ok, 1 warn") or " 2 warn" in lines[-1]  # this machine's disk may be full


def test_json_lines(tmp_path: Path) -> None:
    done = run_ursa("doctor", tmp_path / "nothing", "-p", "local", "--json", "-v")
    *probes, summary = map(json.loads, done.stdout.splitlines())
    fields = {"schema_version", "type", "name", "status", "detail", "mend", "seconds"}
    assert all(set(probe) == fields and probe["type"] == "probe" for probe in probes)
    assert {probe["status"] for probe in probes} <= {"ok", "warn", "fail", "skip"}
    assert summary["type"] == "summary" and summary["exit_code"] == done.returncode == 1
    assert summary["fail"] == 1 and sum(summary[status] for status in ("ok", "warn", "fail", "skip")) == len(probes)


def test_a_broken_config_is_told_not_raised(tmp_path: Path) -> None:
    config = tmp_path / "ursa.yaml"
    config.write_text("profiles: {r2: {endpont_url: https://h}}\n")
    done = run_ursa("doctor", "--config", config)
    assert (done.returncode, done.stderr) == (2, "")
    assert "FAIL  config         " in done.stdout and "endpoint_url" in done.stdout
    assert "skip  role raw_rw    not asked: config failed" in done.stdout
    missing = run_ursa("doctor", "--config", tmp_path / "none.yaml")
    assert missing.returncode == 2 and "there is no such config file" in missing.stdout


def test_quiet_prints_failures_only(tmp_path: Path) -> None:
    done = run_ursa("doctor", "-q", "-p", "local", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is empty" in done.stderr and "Mount it" in done.stderr
    make_recording(tmp_path, REC, FILES)
    done = run_ursa("doctor", "-q", "-p", "local", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_names_never_reach_the_terminal_as_controls(tmp_path: Path) -> None:
    evil = tmp_path / "n\x1b[31mas"
    make_recording(evil, REC, FILES)
    (evil / "rec_\u202eX").mkdir()
    done = run_ursa("doctor", evil, "-p", "local")
    assert "\x1b" not in done.stdout and "\u202e" not in done.stdout
    assert "\\x1b[31mas" in done.stdout and "\\u202e" in done.stdout


def test_from_cron_and_without_a_secret_in_any_output(
    tmp_path: Path, weed_buckets: Buckets, s3_config: MakeConfig
) -> None:
    config = s3_config(weed_buckets)
    writer(config).close()
    secrets = {"T_KEY": "AKIDOFNOBODY12345", "T_SECRET": "wr0ng-s3cret-that-nobody-may-read"}
    cases = [({"T_KEY": weed_buckets.server.access_key, "T_SECRET": weed_buckets.server.secret_key}, 0), (secrets, 4)]
    for variables, code in cases:
        for words in ((), ("--json",), ("-v", "--log-file", str(tmp_path / "log"))):
            done = subprocess.run(
                [find_executable("ursa"), "doctor", "--config", str(config), *words],
                env={"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "LC_ALL": "C", **variables},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == code, done.stdout + done.stderr
            log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
            for value in variables.values():
                assert value not in done.stdout + done.stderr + log
