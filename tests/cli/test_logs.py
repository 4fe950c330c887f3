"""--log-file: whole lines, rotated, shared by two runs, and never a reason to fail a run that has begun."""

from __future__ import annotations

import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import make_recording, run_ursa
from ursa_cli.logs import LogFile

REC = "rec_20260520_195628_b1dd"
FILES = {"eeg_a/seg_000.edf": b"eeg" * 3_000}
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d"

APPEND = """
import logging, sys
from pathlib import Path
from ursa_cli.logs import LogFile
handler = LogFile(Path(sys.argv[1]), max_bytes=int(sys.argv[4]), keep=5)
for number in range(int(sys.argv[3])):
    handler.handle(logging.makeLogRecord({"msg": f"{sys.argv[2]} {number} " + "x" * 80}))
"""


def record(text: str) -> logging.LogRecord:
    """A record with this message."""
    return logging.makeLogRecord({"msg": text, "levelname": "INFO", "name": "ursa"})


def test_the_run_is_told_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "new" / "logs" / "ursa.log"
    words = ["ingest", make_recording(tmp_path, REC, FILES), "-p", "local", "--log-file", log]
    for status in (0, 5):
        done = run_ursa(*words)
        assert done.returncode == status, done.stderr
        assert done.stdout == "" or "ursa.run" not in done.stdout
    lines = log.read_text().splitlines()
    assert all(re.match(rf"{STAMP} (INFO|ERROR|WARNING) ursa\S* ", line) for line in lines), lines
    ends = [line for line in lines if "run ends" in line]
    assert ends[0].endswith("run ends: done, exit status 0: 1 ok, 0 have, 0 fail")
    assert ends[1].endswith("run ends: exit status 5: 0 ok, 0 have, 1 fail")
    assert any(f" OK   {REC}: 2 uploaded, 0 skipped" in line for line in lines)
    assert any(f" ERROR ursa.run FAIL {REC}: RecordingExistsError: " in line and " | " in line for line in lines)
    assert len([line for line in lines if "run begins: ursa" in line and "profile local" in line]) == 2


def test_an_error_is_in_the_log_with_its_words(tmp_path: Path) -> None:
    log = tmp_path / "ursa.log"
    assert run_ursa("ls", "-p", "nowhere", "--log-file", log).returncode == 2
    assert "exit status 2: ConfigError: There is no profile 'nowhere'" in log.read_text()


@pytest.mark.parametrize("path", ["/proc/none/x.log", ".", "file/x.log", "n" * 300])
def test_a_path_that_can_be_no_file_is_refused_before_anything(path: str, tmp_path: Path, home: Path) -> None:
    (tmp_path / "file").touch()
    rec_dir = make_recording(tmp_path, REC, FILES)
    done = run_ursa("ingest", rec_dir, "-p", "local", "--log-file", path, cwd=tmp_path)
    assert done.returncode == 2 and "can't write the log file" in done.stderr and "nothing is lost" in done.stderr
    assert not (home / ".local" / "share" / "ursa").exists()


def test_a_full_disk_never_fails_the_run_and_is_said_once(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    rec_dir = make_recording(tmp_path, REC, FILES)
    log = tmp_path / "full.log"
    log.symlink_to("/dev/full")
    done = run_ursa("ingest", rec_dir, "-p", "local", "--log-file", log)
    assert done.returncode == 0 and done.stdout.startswith(f"OK   {REC}")
    assert len(done.stderr.splitlines()) == 1
    assert f"can't write the log file {log}: No space left on device; the run goes on" in done.stderr


def test_a_directory_may_vanish_and_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "nas" / "ursa.log"
    handler = LogFile(log)
    handler.begin()
    handler.handle(record("one"))
    shutil.rmtree(log.parent)
    handler.handle(record("lost"))
    handler.handle(record("lost too"))
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and str(log) in said and "the run goes on" in said
    assert not log.parent.exists(), "it may be the mount point of a disk that is away"
    log.parent.mkdir()
    handler.handle(record("two"))
    handler.close()
    assert log.read_text() == "two\n" and capsys.readouterr().err == ""


def test_a_file_that_somebody_moved_is_begun_again(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "ursa.log")
    handler.handle(record("one"))
    (tmp_path / "ursa.log").rename(tmp_path / "yesterday.log")
    handler.handle(record("two"))
    handler.close()
    assert (tmp_path / "yesterday.log").read_text() == "one\n"
    assert (tmp_path / "ursa.log").read_text() == "two\n"


def test_half_a_line_is_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogFile(tmp_path / "ursa.log")
    handler.handle(record("whole"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # As a disk that fills up: the kernel takes the first bytes of a write and no more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (12, before[1]))
    try:
        handler.handle(record("does not fit any more"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "ursa.log").read_text() == "whole\n"
    handler.handle(record("fits again"))
    handler.close()
    assert (tmp_path / "ursa.log").read_text() == "whole\nfits again\n"
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_rotation_keeps_five(tmp_path: Path) -> None:
    handler = LogFile(tmp_path / "ursa.log", max_bytes=100)
    for number in range(100):
        handler.handle(record(f"line {number:03} {'x' * 40}"))
    handler.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ursa.log", *(f"ursa.log.{n}" for n in range(1, 6))]
    kept = [*(f"ursa.log.{n}" for n in range(5, 0, -1)), "ursa.log"]
    lines = [line for name in kept for line in (tmp_path / name).read_text().splitlines()]
    assert [int(line.split()[1]) for line in lines] == list(range(100))[-len(lines) :] and len(lines) >= 11
    assert all(path.stat().st_size < 200 for path in tmp_path.iterdir())


def test_two_runs_append_whole_lines_and_lose_none(tmp_path: Path) -> None:
    log, count = tmp_path / "ursa.log", 400
    runs = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(log), name, str(count), "20000"], stderr=subprocess.PIPE)
        for name in ("a", "b")
    ]
    for run in runs:
        assert run.communicate(timeout=60)[1] == b"" and run.returncode == 0
    kept = [*(tmp_path / f"ursa.log.{n}" for n in range(5, 0, -1)), log]
    lines = [line for path in kept if path.exists() for line in path.read_text().splitlines()]
    assert all(re.fullmatch(r"[ab] \d+ x{80}", line) for line in lines)
    for name in ("a", "b"):
        assert [int(line.split()[1]) for line in lines if line[0] == name] == list(range(count))
    assert (tmp_path / "ursa.log.1").exists()


def test_a_stopped_run_that_holds_the_file_does_not_hold_up_another(tmp_path: Path) -> None:
    import fcntl

    log = tmp_path / "ursa.log"
    log.touch()
    with log.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = run_ursa("ls", "-p", "local", "--log-file", log)
    assert done.returncode == 0 and "run ends: done" in log.read_text()


@pytest.mark.parametrize("name", ["two\nlines", "esc\x1b[31m", "\u202egnp", "\x00", "ok\r", "\udcff"])
def test_one_line_a_record_whatever_is_in_it(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import ast, logging, sys\nfrom pathlib import Path\nfrom ursa_cli.logs import RunLog\n"
            "log = RunLog(Path(sys.argv[1]), profile='local')\n"
            "logging.getLogger('ursa.x').info('file %s', ast.literal_eval(sys.argv[2]))\n"
            "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    log.end(error)\n",
            str(tmp_path / "l"),
            ascii(name),
        ],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    begins, line, ends = (tmp_path / "l").read_bytes().removesuffix(b"\n").split(b"\n")
    assert b"run begins" in begins and b"ursa.x file " in line and b"bug in ursa" in ends and b"ZeroDivision" in ends
    assert all(byte >= 0x20 for byte in begins + line + ends) and "\u202e".encode() not in line
