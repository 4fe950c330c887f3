"""`ursa ingest-r2` as a process: what it prints, its exit codes, and the next command that it tells."""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from helpers import make_recording, manifest_of, run_ursa, start_ursa, write_json
from ursa import DataInterface, derive_recording_hash, participant_id

REC, OTHER, THIRD = "rec_20260520_195628_b1dd", "rec_20260521_101500_c2ee", "rec_20260522_090000_d3ff"
FILES = {"camera_left/seg_000.mp4": b"left " * 2_000, "eeg_a/seg_000.edf": b"eeg" * 3_000}


@pytest.fixture
def bucket(home: Path) -> Path:
    """What lies under ``recordings/`` on the local profile; a new participant.txt and manifest beside two files."""
    there = home / ".local" / "share" / "ursa" / "constellation-data" / "recordings"
    make_recording(there, REC, FILES, participant="Not Asked")
    return there


def ursa(*words: str | Path, **options: Any) -> Any:
    return run_ursa("ingest-r2", *words, "-p", "local", **options)


def records(done: Any) -> list[dict[str, Any]]:
    """The JSON lines, without the progress that a slow machine sees."""
    return [record for record in map(json.loads, done.stdout.splitlines()) if record["type"] != "progress"]


def wait_until_open(pid: int, name: str) -> None:
    """Until the process has a file of this name open; where the system does not tell, as long as that takes."""
    opened = Path(f"/proc/{pid}/fd")
    if not opened.exists():
        time.sleep(1.5)
        return
    ends = time.monotonic() + 60
    while not any(os.path.realpath(link).endswith(name) for link in opened.iterdir()):
        assert time.monotonic() < ends, f"{name} is never read"
        time.sleep(0.01)


def registered_hash() -> str:
    return DataInterface("local").find_recording(REC).recording_hash


def test_ok(bucket: Path) -> None:
    done = ursa(REC, "--participant", "Aria Lin")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # The two whose sha256 only the manifest states; nothing has compared their bytes.
    reads = f"`ursa verify {REC} --profile local --level full` reads them"
    assert lines[0] == f"OK   {REC}: 4 files in the bucket, registered as {registered_hash()} (2 by size only: {reads})"
    assert "created" in lines[1] and "nothing was sent" in lines[1]
    assert lines[-1].strip() == f"next: ursa show {REC} --profile local"
    assert done.stderr == ""
    (row,) = DataInterface("local").list_recordings()
    assert row.participant_ids == (participant_id("Aria Lin"),)
    assert run_ursa(*lines[-1].split()[2:]).returncode == 0


def test_unknown_participants_unlisted_files_and_junk_are_told(bucket: Path) -> None:
    write_json(bucket / REC / "manifest.json", manifest_of(REC, {"eeg_a/seg_000.edf": FILES["eeg_a/seg_000.edf"]}))
    (bucket / REC / ".DS_Store").write_bytes(b"junk")
    done = ursa(REC)
    assert "1 not in the manifest, registered all the same: camera_left/seg_000.mp4" in done.stdout
    assert "1 left out as junk" in done.stdout
    assert "participant: unknown (`ursa participants backfill --profile local`" in done.stdout


def test_json_is_as_ingest_prints_it(bucket: Path, tmp_path: Path) -> None:
    done = ursa(REC, "--json")
    recording, summary = records(done)
    assert (recording["type"], recording["rec_id"], recording["status"]) == ("recording", REC, "ok")
    assert (recording["files_uploaded"], recording["files_skipped"], recording["bytes_uploaded"]) == (0, 4, 0)
    assert recording["recording_hash"] == registered_hash()
    assert summary == {"schema_version": 1, "type": "summary", "ok": 1, "have": 0, "fail": 0, "exit_code": 0}
    ingested = run_ursa("ingest", make_recording(tmp_path, OTHER, {"mic/a": b"m"}), "-p", "local", "--json")
    assert records(ingested)[0].keys() == recording.keys()
    assert records(ingested)[1].keys() == summary.keys()


def test_a_refusal_alone_is_an_error_with_its_exit_code(bucket: Path) -> None:
    (bucket / REC / "eeg_a" / "seg_000.edf").write_bytes(b"short")
    done = ursa(REC)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith(f"ursa: MissingFilesError: {REC}: 1 of 2 listed files is not whole in the bucket")
    assert "eeg_a/seg_000.edf (5 bytes instead of 9,000)" in done.stderr
    assert "Nothing was registered. `ursa ingest REC_DIR --profile local` uploads what is missing" in done.stderr
    assert DataInterface("local").list_recordings() == []


@pytest.mark.parametrize(
    ("mend", "code", "error"),
    [
        (lambda there: (there / REC / "manifest.json").unlink(), 1, "ManifestNotFoundError"),
        (lambda there: (there / REC / "manifest.json").write_text("{"), 1, "ManifestError"),
        (lambda there: (there / REC / "eeg_a" / "x.part").touch(), 1, "InvalidRecordingError"),
        (lambda there: ursa(REC), 5, "RecordingExistsError"),
    ],
)
def test_exit_codes(mend: Any, code: int, error: str, bucket: Path) -> None:
    mend(bucket)
    done = ursa(REC)
    assert done.returncode == code
    assert done.stderr.startswith(f"ursa: {error}: ")
    assert len(done.stderr.splitlines()) >= 2 and "Traceback" not in done.stderr
    (record, summary) = records(ursa(REC, "--json"))
    assert (record["status"], record["error"], record["exit_code"], summary["exit_code"]) == ("fail", error, code, code)
    assert record["hint"]


def test_several_one_line_each_and_the_first_failures_code(bucket: Path) -> None:
    make_recording(bucket, OTHER, {"mic_room/a.wav": b"wav", "mic_room/b.wav": b"b"})
    (bucket / OTHER / "mic_room" / "b.wav").unlink()
    make_recording(bucket, THIRD, {"mic_room/a.wav": b"other"}, manifest=False)
    done = ursa(REC, OTHER, THIRD)
    assert done.returncode == 6, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("     ")]
    assert lines[0].startswith(f"OK   {REC}: 4 files in the bucket, registered as ")
    assert lines[1].startswith(f"FAIL {OTHER}: MissingFilesError: ") and "mic_room/b.wav (missing)" in lines[1]
    assert lines[2].startswith(f"FAIL {THIRD}: ManifestNotFoundError: ")
    assert lines[3] == "1 registered, 2 failed"
    assert f"     Nothing was registered. `ursa reconstruct {THIRD} --profile local` makes one" in done.stdout
    assert done.stderr == ""
    again = ursa(THIRD, REC, REC)
    assert again.returncode == 1
    assert "0 registered, 2 failed" in again.stdout


def test_overwrite(bucket: Path) -> None:
    assert ursa(REC).returncode == 0
    assert ursa(REC).returncode == 5
    done = ursa(REC, "--overwrite", "--participant", "Aria Lin")
    assert done.returncode == 0 and "overwritten" in done.stdout
    assert DataInterface("local").find_recording(REC).participant_ids == (participant_id("Aria Lin"),)


def test_a_dry_run_writes_nothing_and_tells_the_next_command(bucket: Path) -> None:
    done = ursa(REC, "--dry-run", "--participant", "Aria O'Lin")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"PLAN {REC}: 4 files in the bucket; nothing was written"
    assert all(path in done.stdout for path in (*FILES, "manifest.json", "participant.txt"))
    assert "participant: Aria O'Lin" in done.stdout
    assert DataInterface("local").list_recordings() == []
    (plan, summary) = records(ursa(REC, "--dry-run", "--json"))
    assert (plan["type"], plan["action"], len(plan["files"])) == ("plan", "created", 2)
    assert plan["recording_hash"] == derive_recording_hash(file["sha256"] for file in plan["files"])
    assert summary["ok"] == 1
    words = shlex.split(lines[-1].strip().removeprefix("next: "))
    assert words[0] == "ursa"
    assert run_ursa(*words[1:]).returncode == 0
    assert [row.display_name for row in DataInterface("local").list_participants()] == ["Aria O'Lin"]


def test_a_dry_run_of_several_goes_on_and_has_the_first_failures_code(bucket: Path) -> None:
    done = ursa(OTHER, REC, "--dry-run")
    assert done.returncode == 1
    assert done.stdout.startswith(f"FAIL {OTHER}: ManifestNotFoundError: ")
    assert f"PLAN {REC}:" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 can be registered, 1 failed"


@pytest.mark.parametrize("word", [f"nas/{REC}", f"{REC}/", f"./{REC}", ".", ".."])
def test_a_directory_is_told_where_to_go(word: str, bucket: Path, tmp_path: Path) -> None:
    make_recording(tmp_path / "nas", REC, FILES)
    make_recording(tmp_path, REC, FILES)
    done = ursa(word, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "UsageError" in done.stderr and f"`ursa ingest {word} --profile local`" in done.stderr
    assert DataInterface("local").list_recordings() == []


def test_a_rec_id_beside_a_directory_of_that_name_is_a_rec_id(bucket: Path, tmp_path: Path) -> None:
    make_recording(tmp_path, REC, FILES)
    assert ursa(REC, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("word", ["REC", "rec_1", "x" * 300, "\x1b[31mrec", "[bold]rec", "\udcff", ""])
def test_what_is_no_rec_id_is_refused_in_words(word: str, bucket: Path) -> None:
    done = ursa(word)
    assert done.returncode == 1
    assert done.stderr.startswith("ursa: InvalidRecordingError: ") and "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr


def test_usage(bucket: Path) -> None:
    assert ursa().returncode == 2
    assert ursa(REC, "--replace-objects").returncode == 2
    shown = ursa("--help").stdout
    assert "Examples:" in shown and "Exit status:" in shown
    quiet = ursa(REC, "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    again = ursa(REC, "-q")
    assert again.returncode == 5 and again.stdout == "" and REC in again.stderr


def test_interrupted_while_objects_are_read(bucket: Path) -> None:
    """Objects whose sha256 nobody states are read; Ctrl-C then ends with 130 and registers nothing."""
    rec_dir = bucket / REC
    with (rec_dir / "eeg_a" / "large.edf").open("wb") as file:
        file.truncate(2 << 30)  # sparse: takes no disk, and long enough to read
    with start_ursa("ingest-r2", REC, "-p", "local") as process:
        wait_until_open(process.pid, "large.edf")
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == "" and "InterruptedRunError: interrupted: nothing" in err
    assert "Run the same command again" in err
    assert "Traceback" not in err
    assert DataInterface("local").list_recordings() == []
