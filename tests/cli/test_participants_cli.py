"""`ursa participants`: what it lists, what it asks, what it says of names from files; and the script onto it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import make_recording, run_ursa
from servers import find_executable
from ursa import DataInterface
from ursa.catalog.rows import RecordingRow
from ursa.catalog.tables import Change

ROOT = Path(__file__).parents[2]
ARIA = "p_fb7cdd6357b63c7a"
NAMED, BARE, BROKEN, SILENT = (f"rec_2026052{day}_195628_b1dd" for day in range(4))
LOCAL = ("-p", "local")


def bucket_file(rec_id: str) -> Path:
    """Where the local profile keeps a recording's participant.txt."""
    raw = Path(os.environ["HOME"]) / ".local" / "share" / "ursa" / "constellation-data"
    return raw / "recordings" / rec_id / "participant.txt"


@pytest.fixture
def registered(tmp_path: Path) -> None:
    """One recording with a participant; three without, of which one has a name in the bucket and one a broken file."""
    named = make_recording(tmp_path, NAMED, {"eeg/a.edf": b"1"}, participant="Bo")
    others = [make_recording(tmp_path, name, {"eeg/a.edf": name.encode()}) for name in (BARE, BROKEN, SILENT)]
    data = DataInterface("local")
    data.enable_writes(roles=("assets_rw", "raw_rw"))
    assert [outcome.status for outcome in data.ingest_dirs([named, *others])] == ["ok"] * 4
    bucket_file(BARE).write_text("Aria Lin\n", encoding="utf-8")
    bucket_file(BROKEN).write_text("Aria Lin\nBo\n", encoding="utf-8")


def lines(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def participants() -> dict[str, list[str]]:
    """rec_id → names, as `ls` has them."""
    return {item.recording.rec_id: list(item.participants) for item in DataInterface("local").overview()}


def answered(answer: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``ursa participants backfill`` with somebody at a terminal who types this."""
    main, other = pty.openpty()
    os.write(main, answer.encode())
    try:
        return subprocess.run(
            [find_executable("ursa"), "participants", "backfill", *LOCAL, *words],
            stdin=other,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(main)
        os.close(other)


UNTOUCHED = {NAMED: ["Bo"], BARE: [], BROKEN: [], SILENT: []}


def test_a_dry_run_tells_and_writes_nothing(registered: None) -> None:
    done = run_ursa("participants", "backfill", "--dry-run", *LOCAL)
    key = bucket_file(BROKEN).as_uri()
    assert done.stdout.splitlines() == [
        f"PLAN {BARE}: would get Aria Lin ({ARIA})",
        f"FAIL {BROKEN}: InvalidRecordingError: {key}: it has more than one line",
        "     No participant was attached. Put the name there, on one line of at most 200 characters, as UTF-8,"
        f" then run `ursa participants backfill {BROKEN} --profile local`.",
        f"SKIP {SILENT}: no participant.txt in the bucket",
        "1 to attach, 1 without participant.txt, 1 broken, 1 with participants left alone; nothing was written",
    ]
    assert (done.returncode, done.stderr) == (1, "")
    assert participants() == UNTOUCHED


def test_nobody_to_ask(registered: None) -> None:
    done = run_ursa("participants", "backfill", *LOCAL)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nobody to ask" in done.stderr and "--yes" in done.stderr and "--dry-run" in done.stderr
    assert participants() == UNTOUCHED


def test_asked_and_answered(registered: None) -> None:
    refused = answered("n\n")
    assert refused.returncode == 1 and f"PLAN {BARE}: would get Aria Lin" in refused.stdout
    assert "Write the participants of this recording? [y/N]" in refused.stderr and "nothing was done" in refused.stderr
    assert participants() == UNTOUCHED
    done = answered("y\n", "--json")
    assert [(item["type"], item.get("status")) for item in lines(done.stdout)] == [
        ("plan", "attach"),
        ("plan", "broken"),
        ("plan", "no_file"),
        ("recording", "attached"),
        ("recording", "broken"),
        ("recording", "no_file"),
        ("summary", None),
    ]
    assert participants() == UNTOUCHED | {BARE: ["Aria Lin"]}


def test_yes_does_it_and_a_mended_file_the_rest(registered: None) -> None:
    done = run_ursa("participants", "backfill", "--yes", *LOCAL)
    assert done.returncode == 1, "one is broken; the others are done"
    quiet = run_ursa("participants", "backfill", "--yes", "-q", *LOCAL)
    assert (quiet.returncode, quiet.stdout) == (1, "") and "more than one line" in quiet.stderr
    assert [line[:4] for line in done.stdout.splitlines()] == ["OK  ", "FAIL", "    ", "SKIP", "1 at"]
    assert participants() == UNTOUCHED | {BARE: ["Aria Lin"]}
    bucket_file(BROKEN).write_text("aria lin", encoding="utf-8")
    done = run_ursa("participants", "backfill", "--yes", "--json", *LOCAL)
    attached, silent, summary = lines(done.stdout)
    assert (done.returncode, summary["exit_code"], summary["attached"], summary["left_alone"]) == (0, 0, 1, 2)
    assert (attached["rec_id"], attached["participant_id"], silent["status"]) == (BROKEN, ARIA, "no_file")
    assert participants() == UNTOUCHED | {BARE: ["Aria Lin"], BROKEN: ["Aria Lin"]}


def test_the_list(registered: None) -> None:
    data = DataInterface("local")
    data.enable_writes()
    # As another hand may have written it: ursa itself refuses such an id.
    row = RecordingRow("ab" * 32, "ab" * 32, participant_ids=(ARIA, "P\x1b[2J"))
    data._catalog.recordings.compare_and_swap(lambda: Change([row], None, "test"))
    done = run_ursa("participants", "list", *LOCAL)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["ID", "NAME", "RECORDINGS", "FIRST", "LAST"],
        ["p_3d099d0f13df9d0b", "Bo", "1", "2026-05-20", "2026-05-20"],
        ["P\\x1b[2J", "(no", "name", "in", "the", "catalog)", "1", "-", "-"],
        [ARIA, "(no", "name", "in", "the", "catalog)", "1", "-", "-"],
    ]
    assert "2 ids have no name, 3 recordings no participant" in done.stderr
    *people, summary = lines(run_ursa("participants", "list", "--json", *LOCAL).stdout)
    assert [(item["display_name"], item["known"], item["recordings"]) for item in people] == [
        ("Bo", True, 1),
        (None, False, 1),
        (None, False, 1),
    ]
    assert people[0]["first"] == people[0]["last"] == "2026-05-20T19:56:28+00:00"
    assert (summary["participants"], summary["unknown"], summary["recordings_without"]) == (3, 2, 3)


def test_names_never_reach_the_terminal_as_markup_or_controls(registered: None) -> None:
    bucket_file(BARE).write_text("[red]Bo[/red] \u202eniL airA", encoding="utf-8")
    bucket_file(BROKEN).write_text("Bo\x1b]0;title\x07", encoding="utf-8")
    words = ("participants", "backfill", "--yes", *LOCAL)
    done = run_ursa(*words, env={"FORCE_COLOR": "1"})
    assert f"OK   {BARE}: [red]Bo[/red] \\u202eniL airA (p_" in done.stdout
    assert "control characters: Bo\\x1b]0;title\\x07" in done.stdout
    listed = run_ursa("participants", "list", *LOCAL)
    assert "[red]Bo[/red] \\u202eniL airA" in listed.stdout
    assert all(line.isprintable() for line in (done.stdout + listed.stdout).splitlines())


def test_the_script_is_the_command(registered: None, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "backfill_participants.py"), "--profile", "local"]
    refused = subprocess.run(script, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2 and "--yes" in refused.stderr
    for words, wanted in (["--dry-run"], []), (["--yes"], ["Aria Lin"]):
        done = subprocess.run([*script, *words, BARE], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert participants()[BARE] == wanted


def test_usage(tmp_path: Path) -> None:
    for words in (["list"], ["backfill"]):
        done = run_ursa("participants", *words, "--help")
        assert done.returncode == 0 and "Examples:" in done.stdout and "Exit status:" in done.stdout
    unknown = run_ursa("participants", "backfill", "--yes", "rec_nobody", *LOCAL)
    assert unknown.returncode == 1 and "rec_nobody" in unknown.stderr
    empty = run_ursa("participants", "list", *LOCAL)
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "no participants in this catalog yet\n")
    nothing = run_ursa("participants", "backfill", "--yes", *LOCAL)
    assert (nothing.returncode, nothing.stdout) == (0, "nothing to do, 0 with participants left alone\n")
