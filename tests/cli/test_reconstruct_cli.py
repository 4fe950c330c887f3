"""`ursa reconstruct` as a process, and its runbook, command by command."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording, manifest_of, run_ursa, start_ursa, write_json
from proxy import FaultProxy
from servers import S3Server, find_executable

REC, OTHER, THIRD = "rec_20260520_195628_b1dd", "rec_20260521_101500_c2ee", "rec_20260522_090000_d3ff"
FILES = {"camera_left/seg_000.mp4": b"left " * 2_000, "eeg_a/seg_000.edf": b"eeg" * 3_000}
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "runbooks" / "reconstruct.md").read_text(encoding="utf-8")


@pytest.fixture
def bucket(home: Path) -> Path:
    """The recordings of the profile ``local``."""
    return home / ".local" / "share" / "ursa" / "constellation-data" / "recordings"


def local(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """``ursa reconstruct … -p local``."""
    return run_ursa("reconstruct", *words, "-p", "local", **options)


def records(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """JSON Lines, every one of them, without those of progress."""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [record for record in found if record["type"] != "progress"]


def test_made_then_kept(bucket: Path) -> None:
    make_recording(bucket, REC, FILES, participant="Aria Lin", manifest=False)
    planned = local(REC, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout == f"PLAN {REC}: 2 files, 18.6 KiB to hash; nothing was read or written\n"
    made = local("--rec-id", REC, "--yes")
    assert made.returncode == 0, made.stderr
    first, last = made.stdout.splitlines()
    assert re.fullmatch(rf"MADE {REC}: 2 files, 18\.6 KiB hashed, recording_hash [0-9a-f]{{64}}", first)
    assert last == f"next: ursa ingest-r2 {REC} --participant 'Aria Lin' --profile local"
    kept = local(REC, "--yes")
    assert kept.returncode == 0 and kept.stdout.startswith(f"KEPT {REC}: has a valid manifest")
    assert made.stderr == planned.stderr == kept.stderr == ""


def test_a_directory(tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES, manifest=False)
    for ref in (rec_dir, f"./{REC}", REC):  # a name that is a directory here is one
        done = local(ref, "--yes", cwd=tmp_path)
        assert done.returncode == 0 and REC in done.stdout, done.stderr
        (rec_dir / "manifest.json").unlink()
    assert f"next: ursa ingest {REC} --profile local" in done.stdout


def test_one_failure_does_not_stop_the_others(bucket: Path, tmp_path: Path) -> None:
    make_recording(bucket, REC, FILES, manifest=False)
    (make_recording(bucket, OTHER, FILES, manifest=False) / "manifest.json").write_text("{")
    rec_dir = make_recording(tmp_path, THIRD, FILES, manifest=False)
    for jobs in ("1", "3"):
        done = local(OTHER, "rec_1", REC, rec_dir, "--yes", "--jobs", jobs)
        lines = done.stdout.splitlines()
        assert done.returncode == 1, done.stderr
        assert lines[0].startswith(f"FAIL {OTHER}: ManifestError: recordings/{OTHER}/manifest.json: ")
        assert any(line.startswith("FAIL rec_1: InvalidRecordingError: ") for line in lines)
        told = [line[:4] for line in lines if line[:4] in ("MADE", "KEPT", "FAIL")]
        assert told == ["FAIL", "FAIL", *(["MADE"] * 2 if jobs == "1" else ["KEPT"] * 2)]
        assert "2 failed" in done.stdout and f"next: ursa ingest-r2 {REC} " in done.stdout


def test_json(bucket: Path) -> None:
    make_recording(bucket, REC, FILES, manifest=False)
    (make_recording(bucket, OTHER, FILES, manifest=False) / "manifest.json").write_text("{")
    done = local("--all-missing", REC, OTHER, "--yes", "--json")
    left_out, failed, made, summary = (
        next(record for record in records(done) if wanted in (record["type"], record.get("status")))
        for wanted in ("left_out", "fail", "made", "summary")
    )
    assert (left_out["type"], left_out["rec_id"], left_out["error"]) == ("left_out", OTHER, "ManifestError")
    assert (failed["rec_id"], failed["error"], failed["exit_code"]) == (OTHER, "ManifestError", 1)
    assert (made["rec_id"], made["files"], made["bytes_hashed"], len(made["recording_hash"])) == (REC, 2, 19_000, 64)
    assert summary["type"] == "summary" and (summary["made"], summary["fail"], summary["exit_code"]) == (1, 1, 1)
    assert summary["next"] == [f"ursa ingest-r2 {REC} --profile local"]
    assert done.returncode == 1 and all(record["schema_version"] == 1 for record in records(done))


def test_all_missing(bucket: Path) -> None:
    make_recording(bucket, REC, FILES, manifest=False)
    make_recording(bucket, OTHER, FILES)
    make_recording(bucket, "rec_odd", FILES, manifest=False)
    done = local("--all-missing", "--yes")
    assert done.returncode == 0, done.stderr
    told = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert told == ["SKIP rec_odd", "1 left out (SKIP above)", f"MADE {REC}", "next"]
    again = local("--all-missing", "--yes", "-q")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.parametrize("words", [(), (REC,), ("--all-missing",), ("--rec-id", REC)])
def test_usage(bucket: Path, words: tuple[str, ...]) -> None:
    make_recording(bucket, REC, FILES, manifest=False)
    done = local(*words)
    assert done.returncode == 2 and "UsageError" in done.stderr and done.stdout == ""
    assert not (bucket / REC / "manifest.json").exists()
    assert "--yes" in done.stderr or not words


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_on_a_terminal_it_asks(bucket: Path, answer: bytes, code: int) -> None:
    make_recording(bucket, REC, FILES, manifest=False)
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    done = local(REC, stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == code, done.stderr
    assert "write manifest.json" in done.stdout
    assert (bucket / REC / "manifest.json").exists() == (code == 0)


def test_names_from_the_bucket_are_text(bucket: Path) -> None:
    make_recording(
        bucket, REC, {"eeg_a/[red]\x1b[31mx": b"1", "eeg_a/ok": b"2"}, participant="[b]; $(rm) 'x'", manifest=False
    )
    refused = local(REC, "--yes")
    assert refused.returncode == 1 and "\x1b" not in refused.stdout + refused.stderr
    assert "[red]\\x1b[31mx" in refused.stdout
    (bucket / REC / "eeg_a" / "[red]\x1b[31mx").unlink()
    made = local(REC, "--yes")
    assert made.returncode == 0 and """--participant '[b]; $(rm) '"'"'x'"'"''""" in made.stdout


def test_it_runs_from_cron(bucket: Path, home: Path) -> None:
    make_recording(bucket, REC, FILES, participant="Zoë 李", manifest=False)
    done = subprocess.run(
        [find_executable("ursa"), "reconstruct", REC, "--yes", "-p", "local"],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"MADE {REC}: 2 files") and done.stderr == ""


def test_interrupted_is_130_and_the_next_run_goes_on(
    weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Callable[[S3Server], FaultProxy]
) -> None:
    client = weed_buckets.server.client()
    for number in range(12):
        client.put_object(
            Bucket=weed_buckets.raw, Key=f"recordings/{REC}/eeg_a/{number:02}.edf", Body=b"%d" % number * 9_000
        )
    proxy = fault_proxy(weed_buckets.server)
    config = s3_config(weed_buckets.at(proxy.url))
    # The last file takes for ever: the others are finished when the signal comes.
    stalled = proxy.stall(lambda method, path, query: method == "GET" and path.endswith("11.edf"), 60)
    with start_ursa("reconstruct", REC, "--yes", "--config", config) as process:
        ends = time.monotonic() + 30
        while not stalled.hits or proxy.count("get") < 12:
            assert time.monotonic() < ends, "it did not come to that"
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        while process.poll() is None and time.monotonic() < started + 15:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode in (130, -signal.SIGINT), err
    assert "Traceback" not in err and "same command again" in err
    proxy.clear()
    again = run_ursa("reconstruct", REC, "--yes", "--config", config, "--json")
    assert again.returncode == 0, again.stderr
    made, _ = records(again)
    assert made["status"] == "made" and made["files_known"] >= 11
    assert len([entry for entry in proxy.log if entry.method == "GET" and entry.path.endswith(".edf")]) <= 1


def test_help() -> None:
    done = run_ursa("reconstruct", "--help")
    assert done.returncode == 0 and "Examples:" in done.stdout and "Exit status:" in done.stdout
    assert "Usage: ursa reconstruct [OPTIONS] [REC_ID_OR_DIR]..." in done.stdout


def test_the_runbook(bucket: Path, example_recordings: Path) -> None:
    """The page's commands as they stand, but for the profile, the USB drive's mount and how Python is called."""
    rec_dir = make_recording(bucket, REC, FILES, participant="Aria Lin", manifest=False)
    make_recording(bucket, OTHER, FILES | {"eeg_a/more.edf": b"more"}, manifest=False)
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    script = 'ursa() { command ursa "$@" --profile local; }\n' + "\n".join(blocks)
    ours = {"/mnt/usb": str(example_recordings), "uv run python": sys.executable, "--profile r2": "--profile local"}
    for theirs, there in ours.items():
        script = script.replace(theirs, there)
    done = subprocess.run(
        ["bash", "-euc", script],
        env={**os.environ, "PATH": f"{Path(find_executable('ursa')).parent}:{os.environ['PATH']}"},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"PLAN {REC}: 2 files" in done.stdout and f"MADE {REC}: 2 files" in done.stdout
    assert f"KEPT {REC}" in done.stdout and f"MADE {THIRD}: 3 files" in done.stdout
    listed = run_ursa("ls", "--json", "-p", "local")
    rows = {row["rec_id"]: row["participants"] for row in records(listed)}
    assert rows == {REC: ["Aria Lin"], THIRD: []}
    assert json.loads((rec_dir / "manifest.json").read_bytes())["participant"] == "Aria Lin"
    assert (bucket / OTHER / "manifest.json").exists()


def test_the_script_of_old(bucket: Path) -> None:
    rec_dir = make_recording(bucket, REC, FILES, manifest=False)
    write_json(make_recording(bucket, OTHER, FILES, manifest=False) / "manifest.json", manifest_of(OTHER, FILES))
    script = str(ROOT / "examples" / "reconstruct_missing_manifests.py")
    words = [sys.executable, script, "--profile", "local", "--rec-id", REC, "--rec-id", OTHER]
    asked = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert asked.returncode == 2 and not (rec_dir / "manifest.json").exists()
    done = subprocess.run([*words, "--yes"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"MADE {REC}") and f"\nKEPT {OTHER}" in done.stdout
