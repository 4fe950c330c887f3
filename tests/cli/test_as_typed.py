"""Hints name commands with the profile and the config that were typed: copied, they act on the same catalog."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import make_recording, run_ursa
from ursa_cli import typed
from ursa_cli.typed import as_typed

REC = "rec_20260520_195628_b1dd"
FILES = {"eeg_a/a.edf": b"eeg"}


@pytest.fixture(autouse=True)
def nothing_typed() -> Iterator[None]:
    """Before and after each test."""
    typed.remember("r2")
    yield
    typed.remember("r2")


def test_the_defaults_change_nothing() -> None:
    text = "See `ursa show rec_1`, or `ursa doctor`."
    assert as_typed(text) == text and typed.options() == ""


CASES = [
    ("See `ursa show rec_1`.", "See `ursa show rec_1 --profile local --config '/my lab/c.yaml'`."),
    ("`ursa doctor` or `ursa ls`", "`ursa doctor {}` or `ursa ls {}`"),
    ("`ursa config show --profile r2`", "`ursa config show --profile r2 --config '/my lab/c.yaml'`"),
    ("`ursa ls -p r2`", "`ursa ls -p r2 --config '/my lab/c.yaml'`"),
    ("`ursa ls --config=x`", "`ursa ls --config=x`"),
    ("`ursa config init`", "`ursa config init --config '/my lab/c.yaml'`"),
    ("`ursa config init --config x.yaml`", "`ursa config init --config x.yaml`"),
    ("another `ursa batch` is running", "another `ursa batch` is running"),
    ("See `ursa ls --help`, `ursa COMMAND --help`.", "See `ursa ls --help`, `ursa COMMAND --help`."),
    ("`ursa --version` `op signin` ursa ls", "`ursa --version` `op signin` ursa ls"),
]


@pytest.mark.parametrize(("text", "wanted"), CASES)
def test_commands_in_backquotes_are_completed(text: str, wanted: str) -> None:
    typed.remember("local", Path("/my lab/c.yaml"))
    assert as_typed(text) == wanted.replace("{}", "--profile local --config '/my lab/c.yaml'")
    assert as_typed(as_typed(text)) == as_typed(text)


def test_names_of_files_stay_in_json() -> None:
    typed.remember("local")
    told = typed.told_as_typed({"path": "a `ursa ls`", "message": "`ursa ls`", "failed": [{"hint": "`ursa ls`"}]})
    assert told == {
        "path": "a `ursa ls`",
        "message": "`ursa ls --profile local`",
        "failed": [{"hint": "`ursa ls --profile local`"}],
    }


def test_wherever_a_hint_is_told_it_can_be_copied(tmp_path: Path) -> None:
    """On stderr, as JSON, in the log, in both reports and for --notify; and the copied command works."""
    config = tmp_path / "our lab.yaml"
    config.write_text(f"profiles:\n  mine: {{root: {tmp_path / 'store'}}}\n")
    options = ("-p", "mine", "--config", config)
    rec_dir = make_recording(tmp_path / "my nas", REC, FILES)
    assert run_ursa("ingest", rec_dir, *options).returncode == 0
    (rec_dir / "eeg_a/a.edf").write_bytes(b"other")
    (rec_dir / "manifest.json").unlink()
    make_recording(tmp_path / "other", REC, {"eeg_a/a.edf": b"other"})
    (tmp_path / "other" / REC / "manifest.json").rename(rec_dir / "manifest.json")
    files = {name: tmp_path / name for name in ("r.json", "r.html", "run.log", "note.json")}
    words = ["--report", files["r.json"], "--report", files["r.html"], "--log-file", files["run.log"]]
    done = run_ursa("batch", rec_dir.parent, *words, "--notify", f"cat > '{files['note.json']}'", "--json", *options)
    assert done.returncode == 3 and "ConflictError" in done.stdout
    wanted = f"`ursa ingest {shlex.quote(str(rec_dir))} --overwrite --profile mine --config {shlex.quote(str(config))}`"
    recording, summary = (json.loads(line) for line in done.stdout.splitlines())
    (entry,) = json.loads(files["r.json"].read_text())["recordings"]
    note = json.loads(files["note.json"].read_text())
    for hint in (recording["hint"], summary["hint"], entry["hint"], note["hint"], note["failed"][0]["hint"]):
        assert wanted in hint
    for text in (done.stderr, files["run.log"].read_text()):
        assert wanted in text
    assert wanted.replace("'", "&#x27;") in files["r.html"].read_text()
    assert re.search(r"`ursa show \S+ --profile mine --config ", recording["hint"])
    _ursa, *copied = shlex.split(wanted.strip("`"))
    # It names this catalog: here the bucket holds another object, which only --replace-objects may replace.
    again = run_ursa(*copied)
    assert again.returncode == 5 and "ObjectConflictError" in again.stderr
    assert run_ursa(*copied, "--replace-objects").returncode == 0


def test_without_a_config_the_local_profile_stays_what_it_is() -> None:
    done = run_ursa("ls")
    assert done.returncode == 2 and "`ursa config init`" in done.stderr and "`--profile local`" in done.stderr
