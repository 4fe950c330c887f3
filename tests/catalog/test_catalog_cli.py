"""`ursa catalog history`, `undo` and `compact`, as typed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from helpers import run_ursa
from ursa import DataInterface
from ursa.catalog.rows import RecordingRow
from ursa.catalog.tables import Author, Change

REC = "rec_20260520_195628_b1dd"


@pytest.fixture
def ingested(example_recordings: Path) -> list[str]:
    """The operations of two ingests to the profile ``local``, oldest first."""
    data = DataInterface("local")
    data.enable_writes(roles=("assets_rw", "raw_rw"))
    for name in (REC, "rec_20260521_101500_c2ee"):
        rec_dir = example_recordings / name
        data.ingest(rec_dir / "manifest.json", rec_dir)
    return [item.operation_id for item in data.catalog_history(2)][::-1]


def lines(*args: str) -> list[dict[str, Any]]:
    done = run_ursa("catalog", *args, "--profile", "local", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_history(ingested: list[str]) -> None:
    done = run_ursa("catalog", "history", "--profile", "local", "--limit", "2")
    head, newest, older, *_ = done.stdout.splitlines()
    assert head.split() == ["OPERATION", "WHEN", "WHO", "URSA", "WHAT", "ROWS", "VERSIONS"]
    assert newest.startswith(ingested[1][:12])
    assert older.startswith(ingested[0][:12])
    assert "ingest:created" in newest
    found = lines("history")
    assert [item["operation_id"] for item in found][:2] == ingested[::-1]
    assert found[0]["rows"]["recordings"] == 1
    assert [item["type"] for item in found] == ["operation"] * 3


def test_who_and_host_are_no_markup() -> None:
    data = DataInterface("local")
    data.enable_writes()
    table = data._catalog.recordings
    table.author = Author("ev\x1b[31mil", "host\nrec_1", "0")
    table.compare_and_swap(lambda: Change([RecordingRow("ab" * 32, REC)], None, "tes\x1bt"))
    done = run_ursa("catalog", "history", "--profile", "local", "--limit", "1")
    assert "\x1b" not in done.stdout
    assert r"ev\x1b[31mil@host\nrec_1" in done.stdout


def test_undo(ingested: list[str]) -> None:
    plan = run_ursa("catalog", "undo", "--to", ingested[0][:10], "--dry-run", "--profile", "local")
    assert plan.returncode == 0
    assert "1 would disappear" in plan.stdout
    assert "  rec_20260521_101500_c2ee\n" in plan.stdout
    assert len(DataInterface("local").list_recordings()) == 2
    planned, undone = lines("undo", "--to", ingested[0], "--yes")
    assert (planned["disappear"], planned["reappear"], planned["change"]) == (["rec_20260521_101500_c2ee"], [], [])
    assert undone == {"schema_version": 1, "type": "undone", "to": ingested[0]}
    assert [row.rec_id for row in DataInterface("local").list_recordings()] == [REC]
    again = run_ursa("catalog", "undo", "--to", ingested[0], "--yes", "--profile", "local")
    assert (again.returncode, "nothing to do" in again.stdout) == (0, True)


def test_nobody_to_ask(ingested: list[str]) -> None:
    done = run_ursa("catalog", "undo", "--to", ingested[0], "--profile", "local")
    assert done.returncode == 2
    assert "nobody to ask" in done.stderr
    assert "--dry-run" in done.stderr
    assert len(DataInterface("local").list_recordings()) == 2


@pytest.mark.usefixtures("ingested")
def test_no_such_operation() -> None:
    done = run_ursa("catalog", "undo", "--to", "zzz", "--yes", "--profile", "local")
    assert done.returncode == 2
    assert "no operation 'zzz'" in done.stderr
    assert "ursa catalog history" in done.stderr


@pytest.mark.usefixtures("ingested")
def test_compact() -> None:
    done = run_ursa("catalog", "compact", "--dry-run", "--profile", "local")
    assert done.returncode == 0
    assert "recordings    2      -" in done.stdout
    found = lines("compact")
    assert [(item["table"], item["files_before"], item["files_after"]) for item in found][:2] == [
        ("recordings", 2, 1),
        ("modalities", 2, 1),
    ]


@pytest.fixture
def in_2031() -> dict[str, str]:
    """An environment whose clock is five years ahead; that of the disk's files is not."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": "+1826d",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


@pytest.mark.usefixtures("ingested")
def test_compact_with_a_clock_in_2031(in_2031: dict[str, str]) -> None:
    """It warns, merges, and deletes nothing; doctor says since when, until a clean-up went through."""
    table = Path(DataInterface("local").catalog_location()["recordings"].removeprefix("file://"))
    stray = table / "part-old.parquet"
    stray.write_bytes(b"x")
    old = time.time() - 91 * 86400
    os.utime(stray, (old, old))
    before = {path.name for path in table.rglob("*")}
    done = run_ursa("catalog", "compact", "--profile", "local", env=in_2031)
    assert done.returncode == 0, done.stderr
    warning = "nothing was deleted for its age: this machine's clock is 1,826 days ahead of the server's"
    assert f"warning: {warning}" in done.stdout
    assert before <= {path.name for path in table.rglob("*")}
    refused = "clean-up has been refused since"
    assert refused in run_ursa("doctor", "--profile", "local").stdout
    again = run_ursa("catalog", "compact", "--profile", "local")
    assert again.returncode == 0 and "warning" not in again.stdout and not stray.exists()
    assert refused not in run_ursa("doctor", "--profile", "local").stdout
