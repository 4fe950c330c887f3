"""`ursa verify` as a process: recording by recording, with the next step where one is wrong, and no OK for nothing."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from helpers import make_recording, run_ursa
from ursa import DataInterface

LOCAL = ("-p", "local")
FILES = {"eeg_a/a.edf": b"eeg", "camera_left/a.mp4": b"left" * 900}


def rec(number: int) -> str:
    """The rec_id number so and so, in sorted order."""
    return f"rec_20260520_{number:06d}_b1dd"


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    """Three recordings, all registered."""
    for number in (1, 2, 3):
        make_recording(tmp_path / "nas", rec(number), FILES | {"eeg_a/a.edf": b"eeg %d" % number})
    assert run_ursa("batch", tmp_path / "nas", *LOCAL).returncode == 0
    return tmp_path / "nas"


@pytest.fixture
def bucket(home: Path) -> Path:
    """Where the objects are."""
    return home / ".local/share/ursa/constellation-data/recordings"


def verify(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command."""
    return run_ursa("verify", *words, *LOCAL)


def test_several_are_told_recording_by_recording(nas: Path, bucket: Path) -> None:
    (bucket / rec(2) / "eeg_a/a.edf").unlink()
    done = verify("--all")
    assert done.returncode == 6 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        rec(1),
        "= sha256  camera_left/a.mp4",
        "= sha256  eeg_a/a.edf",
        f"OK   {rec(1)}: 2 same",
    ]
    assert lines[4:8] == [
        rec(2),
        "= sha256  camera_left/a.mp4",
        "- -       eeg_a/a.edf  (not in the bucket)",
        f"FAIL {rec(2)}: 1 same, 1 missing",
    ]
    assert lines[8].startswith("     `ursa ingest REC_DIR --overwrite --profile local`, on a disk that has it,")
    assert lines[9] == rec(3)
    assert lines[-1] == "3 recordings: 2 right, 1 wrong; 6 files checked"


def test_the_next_step_mends_it(nas: Path, bucket: Path) -> None:
    (bucket / rec(1) / "eeg_a/a.edf").unlink()
    done = verify(nas / rec(1))
    assert done.returncode == 6
    step = done.stdout.splitlines()[-1]
    command = step.split("`")[1]
    assert command == f"ursa ingest {shlex.quote(str(nas / rec(1)))} --overwrite --profile local"
    assert run_ursa(*shlex.split(command)[1:]).returncode == 0
    assert verify(nas / rec(1), "--level", "full").returncode == 0


def test_what_differs_asks_which_one_is_right(nas: Path, bucket: Path) -> None:
    (bucket / rec(1) / "eeg_a/a.edf").write_bytes(b"rot 1")
    done = verify(nas / rec(1), "--level", "full")
    assert done.returncode == 6 and "* " in done.stdout
    assert "which copy is right" in done.stdout.splitlines()[-1] and "--replace-objects" in done.stdout


def test_a_directory_that_is_not_registered_says_so(nas: Path) -> None:
    rec_dir = make_recording(nas, rec(4), FILES)
    done = verify(rec_dir)
    assert done.returncode == 6 and f"FAIL {rec(4)}: 3 missing" in done.stdout
    assert f"It is not registered. `ursa ingest {rec_dir} --profile local`" in done.stdout


def test_nothing_checked_is_never_ok(nas: Path) -> None:
    empty = verify("--all", "--config", write_config(nas.parent))
    assert empty.returncode == 0 and "Nothing was verified" in empty.stderr
    parts = [verify("--all", "--subset", f"{part}/100") for part in (1, 51)]
    assert any(f"NONE {rec(1)}: 2 left out by --subset" in done.stdout for done in parts)
    for done in parts:
        assert done.returncode == 0
        ended = [line for line in done.stdout.splitlines() if line.startswith("OK ")]
        assert len(ended) == len([line for line in done.stdout.splitlines() if line.startswith("= ")])


def write_config(root: Path) -> Path:
    """Another ``local``, with an empty catalog."""
    path = root / "empty.yaml"
    path.write_text(f"profiles:\n  local: {{root: {root / 'nothing'}}}\n")
    return path


def test_json_has_the_verdict_and_the_counts(nas: Path, bucket: Path) -> None:
    (bucket / rec(3) / "eeg_a/a.edf").unlink()
    done = verify("--all", "--json")
    *recordings, summary = (json.loads(line) for line in done.stdout.splitlines())
    assert [(line["rec_id"], line["status"]) for line in recordings] == [
        (rec(1), "ok"),
        (rec(2), "ok"),
        (rec(3), "fail"),
    ]
    assert "--profile local" in recordings[2]["hint"] and recordings[0]["hint"] is None
    told = {name: summary[name] for name in ("recordings", "wrong", "not_checked", "files", "left_out", "exit_code")}
    assert told == {"recordings": 3, "wrong": 1, "not_checked": 0, "files": 6, "left_out": 0, "exit_code": 6}


def test_the_log_has_what_is_wrong_and_not_what_is_right(nas: Path, bucket: Path, tmp_path: Path) -> None:
    (bucket / rec(2) / "eeg_a/a.edf").unlink()
    assert verify("--all", "-q", "--log-file", tmp_path / "v.log").returncode == 6
    log = (tmp_path / "v.log").read_text()
    assert f"WARNING ursa.run {rec(2)}: - eeg_a/a.edf" in log and f"ERROR ursa.run FAIL {rec(2)}: " in log
    assert f"OK   {rec(1)}: 2 same" in log and "camera_left" not in log
    assert "run ends: exit status 6: 3 recordings, 1 wrong" in log


def test_a_catalog_is_looked_at_a_recording_at_a_time(nas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ursa.interface._VERIFIED_AT_ONCE", 1)
    told: list[str] = []
    with DataInterface("local") as data:
        checks = data.verify_each(everything=True, on_file=lambda rec_id, _check: told.append(rec_id))
        assert next(checks).rec_id == rec(1) and set(told) == {rec(1)}
        assert [check.rec_id for check in checks] == [rec(2), rec(3)] and len(told) == 6
        part = list(data.verify_each(everything=True, subset="1/3"))
        assert sum(len(check.files) for check in part) + sum(check.left_out for check in part) == 6


def test_several_are_all_looked_at_whatever_one_of_them_is(nas: Path) -> None:
    broken = make_recording(nas, rec(5), FILES)
    (broken / "manifest.json").write_text("{")
    zipped = nas / "rec_20260520_195700_abcd.zip"
    zipped.write_bytes(b"PK")
    good = nas / rec(1)
    done = verify(broken, zipped, good)
    assert done.returncode == 6
    assert f"OK   {rec(1)}" in done.stdout and f"FAIL {rec(5)}: 1 not checked" in done.stdout
    assert "truncated JSON" in done.stdout and "not a directory" in done.stdout
    assert "3 recordings: 1 right, 2 wrong" in done.stdout


def test_a_rotten_object_is_replaced_by_the_command_that_is_named(nas: Path, bucket: Path) -> None:
    """An object whose bytes changed under its own size and time, as on a disk that rots."""
    rec_dir = nas / rec(1)
    there = bucket / rec(1) / "eeg_a/a.edf"
    times, content = there.stat(), bytearray(there.read_bytes())
    content[0] ^= 1
    there.write_bytes(content)
    os.utime(there, ns=(times.st_atime_ns, times.st_mtime_ns))
    failed = verify(rec_dir, "--level", "full")
    assert failed.returncode == 6
    command = re.search(r"`ursa (ingest [^`]+)`", failed.stdout + failed.stderr)
    assert command is not None and run_ursa(*shlex.split(command[1])).returncode == 0
    assert verify(rec_dir, "--level", "full").returncode == 0


def test_a_root_is_pointed_to_what_is_below_it(nas: Path) -> None:
    done = verify(nas)
    assert done.returncode == 2 and "is no recording: recordings (rec_*) are below it" in done.stderr
    assert f"`ursa verify {nas}/rec_*/ --profile local`" in done.stderr


# --- what was compared


def rot(bucket: Path, number: int, path: str = "eeg_a/a.edf") -> None:
    """Flip a byte of an object so that its record still counts: neither size nor times of the file tell."""
    there = bucket / rec(number) / path
    times, content = there.stat(), bytearray(there.read_bytes())
    content[0] ^= 1
    there.write_bytes(content)
    os.utime(there, ns=(times.st_atime_ns, times.st_mtime_ns))
    record = bucket.parents[1] / ".ursa/constellation-data/metadata/recordings" / rec(number) / path
    told = json.loads(record.read_text())
    assert told["mtime_ns"] == times.st_mtime_ns
    record.write_text(json.dumps(told | {"ctime_ns": there.stat().st_ctime_ns}))


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """The verdict of one recording."""
    return done.stdout.splitlines()[-1]


def test_a_directory_is_read_on_both_sides(nas: Path, bucket: Path) -> None:
    """May this disk be wiped? A byte that flipped in the bucket is found without being asked for."""
    done = verify(nas / rec(1))
    assert done.returncode == 0 and last_line(done) == f"OK   {rec(1)}: 3 same"
    rot(bucket, 1)
    assert verify(rec(1)).returncode == 0, "only reading tells"
    done = verify(nas / rec(1))
    assert done.returncode == 6 and f"FAIL {rec(1)}: 2 same, 1 different" in done.stdout
    assert "* -       eeg_a/a.edf  (the disk and the bucket have other content)" in done.stdout


@pytest.mark.parametrize("level", ["checksum", "head"])
def test_a_directory_that_was_not_compared_by_reading_is_only_seen(nas: Path, bucket: Path, level: str) -> None:
    rot(bucket, 1)
    done = verify(nas / rec(1), "--level", level)
    assert done.returncode == 0 and last_line(done).startswith(f"SEEN {rec(1)}: 3 same")
    assert "no object was read back" in last_line(done) and "OK " not in done.stdout
    done = verify(nas / rec(1), nas / rec(2), "--level", level)
    assert last_line(done).startswith("2 recordings: 2 right, 0 wrong, 2 of them only seen; 6 files checked")
    (recording, _summary) = map(json.loads, verify(nas / rec(1), "--level", level, "--json").stdout.splitlines())
    assert (recording["status"], recording["level"]) == ("seen", level)


def test_checksum_reads_the_disk(nas: Path) -> None:
    (nas / rec(1) / "eeg_a/a.edf").write_bytes(b"eeg 9")
    done = verify(nas / rec(1), "--level", "checksum")
    assert done.returncode == 6 and "(the disk has another sha256 than is registered)" in done.stdout


def test_claims_are_printed_and_counted_as_not_proven(bucket: Path) -> None:
    """Registered from the bucket by what a manifest states: nothing has compared the bytes."""
    make_recording(bucket, rec(4), FILES)
    assert run_ursa("ingest-r2", rec(4), *LOCAL).returncode == 0
    done = verify(rec(4))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "= claimed camera_left/a.mp4",
        "= claimed eeg_a/a.edf",
        f"SEEN {rec(4)}: 2 same, 2 not proven; by size only: `--level full` reads them",
    ]
    done = verify("--all")
    assert done.stdout.splitlines()[-1] == (
        "1 recording: 1 right, 0 wrong, 1 of them only seen; 2 files checked, 2 not proven"
    )
    full = verify(rec(4), "--level", "full")
    assert full.returncode == 0 and last_line(full) == f"OK   {rec(4)}: 2 same"
    # This machine remembers what it measured.
    assert last_line(verify(rec(4))) == f"OK   {rec(4)}: 2 same"


def test_a_size_alone_is_printed_as_such(nas: Path, bucket: Path) -> None:
    (bucket / rec(1) / "stitched_a").mkdir()
    (bucket / rec(1) / "stitched_a/whole.mp4").write_bytes(b"stitched")
    with DataInterface("local") as data:
        data.enable_writes()
        data.register_modality(
            recording_hash=data.find_recording(rec(1)).recording_hash,
            modality="stitched",
            worker_id="a",
            files=[{"path": "stitched_a/whole.mp4", "size_bytes": 8}],
        )
    done = verify(rec(1))
    assert done.returncode == 0 and "= size    stitched_a/whole.mp4" in done.stdout
    assert last_line(done).startswith(f"SEEN {rec(1)}: 3 same, 1 not proven; by size only")


def test_a_directory_of_which_a_part_is_left_out_is_only_seen(nas: Path) -> None:
    ended = [verify(nas / rec(1), "--subset", f"{part}/2").stdout.splitlines()[-1] for part in (1, 2)]
    assert all(line.startswith(("SEEN", "NONE")) for line in ended)
    seen = next(line for line in ended if line.startswith("SEEN"))
    assert "left out by --subset" in seen and "before this disk is wiped, run it without --subset" in seen


def test_a_file_that_was_taken_though_it_is_called_unfinished(nas: Path) -> None:
    rec_dir = make_recording(nas, rec(5), {"eeg_a/a.edf": b"a"})
    (rec_dir / "eeg_a" / "b.part").write_bytes(b"whole")
    assert verify(rec_dir).returncode == 1
    assert run_ursa("ingest", rec_dir, "--not-unfinished", "*.part", *LOCAL).returncode == 0
    done = verify(rec_dir)
    assert done.returncode == 0 and "eeg_a/b.part" in done.stdout and done.stdout.splitlines()[-1].startswith("OK ")
