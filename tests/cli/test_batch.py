"""`ursa batch` as cron runs it: the lines, JSON Lines, exit statuses, reports."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording, run_ursa
from servers import find_executable

SUMMARY = re.compile(
    r"\d+ recordings?: \d+ registered, \d+ already registered, \d+ skipped, \d+ failed; [\d.]+ \w+ sent in \d:\d\d:\d\d.*"
)


def rec(number: int) -> str:
    """The rec_id number so and so, in sorted order."""
    return f"rec_20260520_{number:06d}_b1dd"


@dataclass(frozen=True)
class Lab:
    """A NAS, and the profile ``local`` beside it."""

    root: Path

    @property
    def nas(self) -> Path:
        """Where recordings are."""
        return self.root / "nas"

    @property
    def common(self) -> tuple[str, ...]:
        """Options of every command."""
        path = self.root / "ursa.yaml"
        path.write_text(f"profiles:\n  local: {{root: {self.root / 'store'}}}\n")
        return ("-p", "local", "--config", str(path))

    def make(self, number: int, root: Path | None = None, **options: Any) -> Path:
        """A recording with two raw files."""
        files = {"eeg_a/a.edf": b"eeg %d" % number, "camera_left/a.mp4": b"left %d" % number * 900}
        return make_recording(root or self.nas, rec(number), files, **options)

    def batch(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """The command over the NAS."""
        return run_ursa("batch", self.nas, *words, *self.common, **options)

    def rows(self) -> list[str]:
        """The rec_ids in the catalog."""
        done = run_ursa("ls", "--json", *self.common)
        return [json.loads(line)["rec_id"] for line in done.stdout.splitlines()]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty lab."""
    (tmp_path / "nas").mkdir()
    return Lab(tmp_path)


@pytest.fixture
def mixed(lab: Lab) -> Lab:
    """One of each: registered, new, without a manifest, broken."""
    lab.make(2)
    assert lab.batch("-q").returncode == 0
    lab.make(1)
    lab.make(3, manifest=False)
    bad = lab.make(4)
    (bad / "camera_left/a.mp4").write_bytes(b"other")
    return lab


def records(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """JSON Lines, all of them, but for progress."""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line["schema_version"] == 1 for line in lines)
    return [line for line in lines if line["type"] != "progress"]


def test_the_lines_are_exactly_these(mixed: Lab) -> None:
    done = mixed.batch()
    assert done.returncode == 3
    *lines, last = done.stdout.splitlines()
    assert lines == [
        f"OK   {rec(1)}: 3 uploaded, 0 skipped",
        f"HAVE {rec(2)}: already registered",
        f"SKIP {rec(3)}: no manifest (run reconstruct first)",
        f"FAIL {rec(4)}: ChecksumMismatchError: camera_left/a.mp4 has 5 bytes, the manifest states 5400",
    ]
    assert SUMMARY.fullmatch(last) and "4 recordings: 1 registered, 1 already registered, 1 skipped, 1 failed" in last
    assert "\x1b" not in done.stdout + done.stderr and "\r" not in done.stdout + done.stderr
    assert "don't wipe this disk" in done.stderr and "Traceback" not in done.stderr
    assert f"{rec(4)}: " in done.stderr  # the hint says whose it is
    assert mixed.rows() == [rec(1), rec(2)]


def test_json_lines_only(mixed: Lab) -> None:
    done = mixed.batch("--json", "--verbose")
    assert done.returncode == 3
    *recordings, summary = records(done)
    assert [(line["type"], line["rec_id"], line["status"]) for line in recordings] == [
        ("recording", rec(1), "ok"),
        ("recording", rec(2), "have"),
        ("recording", rec(3), "skip"),
        ("recording", rec(4), "fail"),
    ]
    assert recordings[3]["error"] == "ChecksumMismatchError" and recordings[3]["exit_code"] == 6
    assert summary["type"] == "summary" and summary["exit_code"] == 3 and summary["failed"] == 1
    assert summary["counts"] == {"ok": 1, "have": 1, "skip": 1, "fail": 1, "not_reached": 0}
    assert done.stdout.endswith("\n") and done.stderr  # logs are on stderr


def test_have_and_nothing_to_do_is_success(lab: Lab) -> None:
    lab.make(1)
    first, again = lab.batch(), lab.batch("--strict")
    assert (first.returncode, again.returncode) == (0, 0)
    assert again.stdout.splitlines()[0] == f"HAVE {rec(1)}: already registered"
    assert again.stdout.splitlines()[1].startswith("1 recording: 0 registered, 1 already registered")
    assert again.stderr == ""


def test_strict_makes_skipped_ones_count(lab: Lab) -> None:
    lab.make(1, manifest=False)
    lab.make(2)
    assert lab.batch().returncode == 0
    strict = lab.batch("--strict")
    assert strict.returncode == 3 and "don't wipe" in strict.stderr


@pytest.mark.parametrize("root", ["empty", "missing", "pattern-*"])
def test_an_empty_or_missing_root_is_1(lab: Lab, root: str) -> None:
    (lab.root / "empty").mkdir()
    report = lab.root / "r.json"
    done = run_ursa("batch", lab.root / root, "--report", report, *lab.common)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is the NAS mounted?" in done.stderr and str(lab.root / root) in done.stderr
    told = json.loads(report.read_text())
    assert (told["state"], told["exit_code"], told["error"]["error"]) == ("finished", 1, "InvalidRecordingError")


def test_of_two_roots_one_is_missing(lab: Lab) -> None:
    lab.make(1)
    done = run_ursa("batch", lab.root / "gone", lab.nas, "--json", *lab.common)
    assert done.returncode == 1 and str(lab.root / "gone") in done.stderr
    recording, summary = records(done)
    assert (recording["status"], summary["exit_code"], len(summary["problems"])) == ("ok", 1, 1)
    assert lab.rows() == [rec(1)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--jobs", "0"), "jobs"),
        (("--max-duration", "soon"), "length of time"),
        (("--settle", "-3"), "length of time"),
        (("--wait", "x"), "length of time"),
        (("--existing", "maybe"), "maybe"),
        (("--report", "r.txt"), ".json"),
        (("--bwlimit", "fast"), "fast"),
        (("--nosuch",), "--nosuch"),
        (("-p", "nosuch"), "nosuch"),
    ],
)
def test_usage_and_configuration_are_2(lab: Lab, words: tuple[str, ...], said: str) -> None:
    lab.make(1)
    done = run_ursa("batch", lab.nas, *lab.common, *words, cwd=lab.root)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert lab.rows() == []


def test_credentials_are_4(weed_buckets: Buckets, s3_config: MakeConfig, lab: Lab) -> None:
    lab.make(1)
    report = lab.root / "r.json"
    config = s3_config(weed_buckets)
    words = ["batch", lab.nas, "--config", config, "--report", report]
    assert run_ursa("catalog", "init", "--yes", "--config", config).returncode == 0
    without = run_ursa(*words, env={"T_SECRET": ""})
    assert without.returncode == 4 and "CredentialsError" in without.stderr
    wrong = run_ursa(*words, env={"T_SECRET": "wrong"})
    assert wrong.returncode == 4 and "CredentialsError" in wrong.stderr
    assert json.loads(report.read_text())["exit_code"] == 4


def test_existing_error_and_overwrite(lab: Lab) -> None:
    lab.make(1)
    assert lab.batch().returncode == 0
    refused = lab.batch("--existing", "error")
    assert refused.returncode == 3 and f"FAIL {rec(1)}: RecordingExistsError" in refused.stdout
    again = lab.batch("--existing", "overwrite")
    assert again.returncode == 0 and f"OK   {rec(1)}: 0 uploaded, 3 skipped" in again.stdout


def test_on_failure_stop(lab: Lab) -> None:
    lab.make(1)
    (lab.make(2) / "eeg_a/a.edf").unlink()
    lab.make(3)
    done = lab.batch("--on-failure", "stop", "--jobs", "1")
    assert done.returncode == 3 and f"SKIP {rec(3)}: not tried, since {rec(2)} failed" in done.stdout
    assert f"1 not reached: not tried, since {rec(2)} failed" in done.stderr and lab.rows() == [rec(1)]
    assert "0 skipped, 1 failed, 1 not reached; " in done.stdout.splitlines()[-1]


def test_settle_and_reconstruct_missing(lab: Lab) -> None:
    lab.make(1, manifest=False)
    settling = lab.batch("--settle", "1h")
    assert settling.returncode == 0 and f"SKIP {rec(1)}: changed within the last 3600 s" in settling.stdout
    done = lab.batch("--reconstruct-missing")
    assert done.returncode == 0 and f"OK   {rec(1)}: 3 uploaded, 0 skipped" in done.stdout


def test_a_dry_run_tells_totals_time_and_cost(mixed: Lab) -> None:
    done = mixed.batch("--dry-run")
    lines = done.stdout.splitlines()
    assert (
        done.returncode == 3 and lines[0].startswith(f"PLAN {rec(1)}: 3 to upload (6.") and lines[1].startswith("HAVE")
    )
    assert re.search(r"3 files, 6\.\d KiB to send: .* at 20 Mbit/s, .* at 100 Mbit/s, .* at 1000 Mbit/s", done.stdout)
    assert re.search(r"about \d+ class A and \d+ class B requests \(\$0\.\d\d\), then \$0\.00 a month", done.stdout)
    assert lines[-1].startswith("4 recordings: 1 to register, 1 already registered, 1 skipped, 1 would fail")
    *_, summary = records(mixed.batch("--dry-run", "--json"))
    assert summary["files"] == 3 and summary["bytes_to_send"] > 5400 and summary["class_a"] > 3 and summary["dry_run"]
    assert mixed.rows() == [rec(2)]


def test_quiet_prints_only_what_failed(mixed: Lab) -> None:
    done = mixed.batch("--quiet")
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ursa: FAIL {rec(4)}: ChecksumMismatchError: ")


def test_reports_as_json_and_as_a_page(mixed: Lab) -> None:
    as_json, as_html = mixed.root / "r.json", mixed.root / "r.html"
    assert mixed.batch("--report", as_json, "--report", as_html).returncode == 3
    told = json.loads(as_json.read_text())
    assert told["state"] == "finished" and told["exit_code"] == 3 and told["verdict"]["level"] == "fail"
    assert told["counts"] == {"ok": 1, "have": 1, "skip": 1, "fail": 1} and told["expected"] == 4
    assert [entry["status"] for entry in told["recordings"]] == ["ok", "have", "skip", "fail"]
    assert told["error"] is None and told["summary"]["failed"][0]["rec_id"] == rec(4)
    assert told["totals"]["bytes_uploaded"] == told["summary"]["bytes_uploaded"] > 0
    # The one that failed sent a file of its own before.
    assert sum(told["link"]["sent"]) >= told["summary"]["bytes_uploaded"]
    assert 0 < told["link"]["idle_share"] <= 1
    assert rec(4) in as_html.read_text()


def test_a_registered_recording_with_other_participants_says_so(lab: Lab) -> None:
    rec_dir = lab.make(1, participant="Aria Lin")
    assert lab.batch().returncode == 0
    (rec_dir / "participant.txt").write_text("Bo Chen\n")
    done = lab.batch()
    assert done.returncode == 0 and done.stdout.startswith(f"OK   {rec(1)}: 0 uploaded")
    assert rec(1) in done.stderr and "the rows get both names" in done.stderr
    assert lab.batch().stdout.startswith(f"HAVE {rec(1)}: already registered\n")


def test_a_manifest_that_waits_for_the_other_half_is_no_have(lab: Lab) -> None:
    rec_dir = lab.make(1)
    manifest = json.loads((rec_dir / "manifest.json").read_text())
    for entry in manifest["workers"]:
        entry["node"] = "green-motor" if entry["dir"] == "camera_left" else "green-mantis"
    (rec_dir / "manifest.json").write_text(json.dumps(manifest))
    (rec_dir / "camera_left" / "a.mp4").unlink()
    assert lab.batch().returncode == 0
    done = lab.batch()
    assert done.returncode == 0
    assert done.stdout.startswith(
        f"SKIP {rec(1)}: registered, but manifest.json is on this disk only: lists files of a node"
    )
    done = run_ursa("ingest", rec_dir, "--existing", "skip", *lab.common)
    assert done.returncode == 0 and done.stdout.startswith(
        f"SKIP {rec(1)}: registered, but manifest.json is on this disk only"
    )


def test_what_is_left_aside_is_said(lab: Lab) -> None:
    lab.make(1)
    (lab.nas / "rec_20260101.zip").touch()
    done = lab.batch()
    assert done.returncode == 0 and "rec_20260101.zip is no directory: left aside" in done.stderr


def test_help_has_examples_and_exit_statuses() -> None:
    done = run_ursa("batch", "--help")
    assert done.returncode == 0
    for word in ("Examples:", "130  interrupted", "ursa batch", "--dry-run", "Exit status:", "lock"):
        assert word in done.stdout


def test_an_ascii_terminal_is_no_obstacle(lab: Lab) -> None:
    make_recording(lab.nas, rec(1), {"eeg_a/Übung 頭.edf": b"x"}, manifest=True)
    (lab.nas / rec(1) / "eeg_a" / "Übung 頭.edf").write_bytes(b"xy")
    done = lab.batch(env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 3 and r"eeg_a/\xdcbung \u982d.edf has 2 bytes" in done.stdout


def test_a_lost_output_is_1_and_the_run_is_done(lab: Lab) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    lab.make(1)
    words = [find_executable("ursa"), "batch", str(lab.nas), *lab.common]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1 and "can't write the output" in done.stderr and lab.rows() == [rec(1)]
