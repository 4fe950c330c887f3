"""`ursa catalog rebuild` as a process, and its runbook, command by command."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import grown
import pytest
from grown import Lab, content, name, tables

from helpers import make_recording, run_ursa, start_ursa
from servers import find_executable

PAGE = (Path(__file__).parents[2] / "docs" / "runbooks" / "catalog-rebuild.md").read_text(encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path) -> Lab:
    """An empty directory store, and a NAS beside it."""
    return grown.lab(tmp_path)


@pytest.fixture
def grown_lab(here: Lab) -> Lab:
    """Two recordings as they are, one in no row, one without a manifest."""
    for number in (0, 1):
        here.ingest(make_recording(here.nas, name(number), content(number)), "Aria Lin")
    make_recording(here.bucket, name(2), content(2), participant="Bo Sun")
    make_recording(here.bucket, name(3), content(3), manifest=False)
    here.age(60, name(2))
    return here


def ursa_rebuild(lab: Lab, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """``ursa catalog rebuild … -p local``."""
    return run_ursa("catalog", "rebuild", *words, "-p", "local", "--config", lab.config, **options)


def records(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """JSON Lines, every one of them."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_in_place(grown_lab: Lab) -> None:
    before = tables(grown_lab.open())
    planned = ursa_rebuild(grown_lab, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    lines = planned.stdout.splitlines()
    assert lines[0] == "recordings: 3 after, 2 before; modality rows: 6 after, 4 before"
    assert f"  {name(2)}: new: it is whole in the bucket, and was in no row" in lines
    assert any(line.startswith(f"  {name(3)}: {name(3)}: the bucket has no manifest of it") for line in lines)
    assert lines[-1] == "dry run: nothing was written"
    assert tables(grown_lab.open()) == before and grown.pointer(grown_lab)["prefix"] == "catalog/v1"
    done = ursa_rebuild(grown_lab, "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "catalog/v2 is live, in place of catalog/v1, which stays as it was",
        "next: ursa participants backfill --profile local",
    ]
    assert grown.pointer(grown_lab)["prefix"] == "catalog/v2"
    assert planned.stderr == done.stderr == ""


def test_json(grown_lab: Lab) -> None:
    done = ursa_rebuild(grown_lab, "--yes", "--json")
    told = {(item["status"], item["rec_id"]) for item in records(done) if item["type"] == "recording"}
    assert told == {("new", name(2)), ("left", name(3))}
    summary = records(done)[-1]
    assert summary["type"] == "summary" and summary["exit_code"] == 0
    wanted = {"prefix": "catalog/v2", "previous": "catalog/v1", "recordings": 3, "recordings_before": 2, "new": 1}
    assert wanted.items() <= summary.items() and summary["flipped"] and not summary["dry_run"]


def test_no_terminal(grown_lab: Lab) -> None:
    before = sorted(path for path in grown_lab.assets.rglob("*"))
    for words in ((), ("--abort",), ("--drop-lost",)):
        done = ursa_rebuild(grown_lab, *words)
        assert done.returncode == 2 and "UsageError: there is nobody to ask" in done.stderr and done.stdout == ""
    assert ursa_rebuild(grown_lab, "--abort", "--dry-run").returncode == 2
    assert sorted(path for path in grown_lab.assets.rglob("*")) == before


def test_more_than_twenty(here: Lab) -> None:
    for number in range(23):
        make_recording(here.bucket, name(number), content(number), manifest=False)
    text = ursa_rebuild(here, "--dry-run").stdout.splitlines()
    assert "left: 23 (no row, as before)" in text and "  and 3 more; --json has them all" in text
    assert sum(line.startswith("  rec_") for line in text) == 20
    told = [item["type"] for item in records(ursa_rebuild(here, "--dry-run", "--json")) if item["type"] != "progress"]
    assert told == ["recording"] * 23 + ["summary"]


def test_lost(grown_lab: Lab) -> None:
    (grown_lab.bucket / name(1) / "eeg_a" / "seg_000.edf").unlink()
    for words in (("--yes",), ("--dry-run",)):
        done = ursa_rebuild(grown_lab, *words)
        assert done.returncode == 6
        assert (
            f"MissingFilesError: 1 registered recording would have no row in the new catalog: {name(1)}" in done.stderr
        )
        assert "eeg_a/seg_000.edf" in done.stdout and "--drop-lost" in done.stderr
    assert grown.pointer(grown_lab)["prefix"] == "catalog/v1"
    (summary,) = [item for item in records(ursa_rebuild(grown_lab, "--yes", "--json")) if item["type"] == "summary"]
    assert (summary["lost"], summary["exit_code"]) == (1, 6)
    dropped = ursa_rebuild(grown_lab, "--yes", "--drop-lost")
    assert dropped.returncode == 0 and grown.pointer(grown_lab)["prefix"] == "catalog/v2"
    with grown_lab.open() as data:
        assert [row.rec_id for row in data.list_recordings()] == [name(0), name(2)]


def test_abort(grown_lab: Lab) -> None:
    nothing = ursa_rebuild(grown_lab, "--abort", "--yes")
    assert (nothing.returncode, nothing.stdout) == (0, "no rebuild is under way; nothing was changed\n")
    grown_lab.rebuild(flip=False)
    done = ursa_rebuild(grown_lab, "--abort", "--yes")
    assert done.returncode == 0 and done.stdout.startswith("the rebuild into catalog/v2 is given up")
    assert not (grown_lab.assets / "REBUILD.json").exists()


def test_asked_on_a_terminal(grown_lab: Lab) -> None:
    """Said no, the new catalog stays filled; said yes, the next one goes on with it."""
    for answer, code, prefix in ((b"n\n", 1, "catalog/v1"), (b"y\n", 0, "catalog/v2")):
        master, terminal = pty.openpty()
        command = [find_executable("ursa"), "catalog", "rebuild", "-p", "local", "--config", str(grown_lab.config)]
        with subprocess.Popen(
            command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            os.write(master, answer)
            out, _ = process.communicate(timeout=60)
        os.close(master)
        os.close(terminal)
        assert process.returncode == code, out
        assert "Make catalog/v2 the live catalog in place of catalog/v1?" in out
        assert grown.pointer(grown_lab)["prefix"] == prefix
    assert "goes on with the rebuild into catalog/v2" in out


def test_interrupted(grown_lab: Lab) -> None:
    """Exit 130, writers go on, and the same command goes on."""
    grown.many(grown_lab, 100, 300)
    with start_ursa("catalog", "rebuild", "--yes", "-p", "local", "--config", grown_lab.config) as process:
        deadline = time.monotonic() + 60
        while not (grown_lab.assets / "REBUILD.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted: " in errors and "--abort" in errors
    grown_lab.ingest(make_recording(grown_lab.nas, name(9), content(9)))
    done = ursa_rebuild(grown_lab, "--yes")
    assert done.returncode == 0 and grown.pointer(grown_lab)["prefix"] == "catalog/v2", done.stderr


def test_runbook(grown_lab: Lab) -> None:
    """Every ``sh`` block, with the profile and the config added to each command."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) >= 7 and all(line.startswith("ursa ") for line in commands)
    for line in commands:
        done = run_ursa(*line.split()[1:], "-p", "local", "--config", grown_lab.config)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    assert grown.pointer(grown_lab)["prefix"] == "catalog/v2"
    with grown_lab.open() as data:
        assert all(row.participant_ids for row in data.list_recordings())


def test_help() -> None:
    text = run_ursa("catalog", "rebuild", "--help").stdout
    for word in (
        "--yes",
        "--dry-run",
        "--abort",
        "--drop-lost",
        "--dask",
        "Examples:",
        "Exit status:",
        "130",
        "goes on",
    ):
        assert word in text
