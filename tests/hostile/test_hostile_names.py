"""Names that a disk may hold: each goes under its right key, or its recording is refused by name; never half."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers import make_recording, run_ursa

# What must never reach a terminal as it is: controls, and what reorders or hides what is read.
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
DEEP = "/".join(["d" * 60] * 14)


@dataclass(frozen=True)
class Name:
    """A file's path below ``eeg_a``. ``refused``: a word of the reason, None where it is taken under its NFC name."""

    path: str
    refused: str | None = None

    @property
    def key(self) -> str:
        """Below the recording."""
        return unicodedata.normalize("NFC", f"eeg_a/{self.path}")


NAMES = {
    "newline": Name("a\nOK   rec_20260520_000000_ff: 9 uploaded, 0 skipped", "control"),
    "carriage return": Name("a\rb.edf", "control"),
    "escape": Name("a\x1b[2J\x1b[31mred.edf", "control"),
    "bell and backspace": Name("a\x07\x08b", "control"),
    "c1 control": Name("a\x9b31mb", "control"),
    "delete": Name("a\x7fb", "control"),
    "latin-1": Name(os.fsdecode(b"caf\xe9.edf"), "UTF-8"),
    "surrogate": Name(os.fsdecode(b"\xed\xa0\x80.edf"), "UTF-8"),
    "backslash": Name("..\\..\\etc\\passwd", "backslash"),
    "deep beyond a key": Name(f"{DEEP}/{DEEP}", "over 1,024"),
    "unfinished": Name("seg_001.edf.part", "unfinished"),
    "bidi": Name("gpj\u202exe.edf"),
    "zero width": Name("a\u200b\u2060\ufeffb.edf"),
    "nfd": Name("Ubung\u0308.edf"),
    "markup": Name("[red]x[/red][/bold].edf"),
    "html": Name("<img src=x onerror=alert(1)>.edf"),
    "script end": Name("<!--<script>&amp;'\".edf"),
    "255 bytes": Name("é" * 125 + "12345"),
    "percent": Name("%00%2e%2e%2f%0a.edf"),
    "leading dash": Name("--config=x"),
    "spaces at the ends": Name(" a b "),
    "emoji with joiners": Name("👩\u200d🔬👨\u200d👩\u200d👧.edf"),
    "trailing dot": Name("a.b."),
    "device of Windows": Name("CON"),
    "shell": Name("$(rm -rf ~);`id`|&>*?.edf"),
    "deep": Name("/".join(["d"] * 300)),
    "plus and hash": Name("a+b#c?d=e&f@g:h;i,j.edf"),
    "only dots": Name("..."),
    "combining alone": Name("\u0301\u0301.edf"),
    "private use": Name("\ue000\U000f0000\ufffe.edf"),
}
IDS = {f"rec_20260520_{number:06d}_ab": name for number, name in enumerate(NAMES.values())}


@dataclass(frozen=True)
class Run:
    """What one batch over all of them did and said."""

    nas: Path
    stored: Path
    out: str
    err: str
    lines: dict[str, dict[str, Any]]
    report: str
    rows: set[str]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run as text over all recordings, a second one as JSON Lines: what was registered is then HAVE."""
    root = tmp_path_factory.mktemp("hostile")
    for rec_id, name in IDS.items():
        rec_dir = make_recording(root / "nas", rec_id, {"eeg_a/good.edf": b"good"}, list_sha256=False)
        target = rec_dir / "eeg_a" / name.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(rec_id.encode())
    config = root / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {root / 'store'}}}\n")
    common = ["-p", "local", "--config", str(config)]
    report = root / "r.html"
    text = run_ursa("batch", root / "nas", "--report", report, "--verbose", *common)
    again = run_ursa("batch", root / "nas", "--json", *common)
    assert (text.returncode, again.returncode) == (3, 3), text.stderr
    ls = run_ursa("ls", "--json", *common)
    parsed = [json.loads(line) for line in again.stdout.splitlines()]
    return Run(
        root / "nas",
        root / "store" / "constellation-data" / "recordings",
        text.stdout,
        text.stderr + again.stderr,
        {line["rec_id"]: line for line in parsed if line["type"] == "recording"},
        report.read_text(),
        {json.loads(line)["rec_id"] for line in ls.stdout.splitlines()},
    )


@pytest.mark.parametrize("rec_id", IDS, ids=list(NAMES))
def test_right_key_or_refused_by_name(done: Run, rec_id: str) -> None:
    name = IDS[rec_id]
    (line,) = [line for line in done.out.splitlines() if line[5:].startswith(rec_id)]
    if name.refused is None:
        assert line == f"OK   {rec_id}: 3 uploaded, 0 skipped"
        assert done.lines[rec_id]["status"] == "have" and rec_id in done.rows
        assert (done.stored / rec_id / name.key).read_bytes() == rec_id.encode()
    else:
        assert line.startswith(f"FAIL {rec_id}: InvalidRecordingError: ") and name.refused in line
        told = done.lines[rec_id]
        assert told["status"] == "fail" and name.refused in told["message"] and "eeg_a/" in told["message"]
        assert rec_id not in done.rows and not (done.stored / rec_id).exists(), "half done"


def test_nothing_raw_reaches_the_terminal(done: Run) -> None:
    assert RAW.search(done.out.replace("\n", "")) is None
    assert RAW.search(done.err) is None
    assert "Traceback" not in done.err and "UnexpectedError" not in done.out + done.err


def test_no_line_is_made_by_a_name(done: Run) -> None:
    *lines, _summary = done.out.splitlines()
    assert len(lines) == len(IDS) and [line[5 : 5 + len("rec_20260520_000000_ab")] for line in lines] == sorted(IDS)


def test_the_report_has_no_markup_of_theirs(done: Run) -> None:
    assert "<img src=x" not in done.report and "\u202e" not in done.report and "\x1b" not in done.report


def test_reading_commands_print_them_escaped(done: Run) -> None:
    config = ["-p", "local", "--config", str(done.nas.parent / "ursa.yaml")]
    for rec_id in [rec_id for rec_id, name in IDS.items() if name in (NAMES["bidi"], NAMES["zero width"])]:
        shown = run_ursa("show", rec_id, *config)
        assert shown.returncode == 0 and RAW.search(shown.stdout.replace("\n", "")) is None
        checked = run_ursa("verify", rec_id, "--level", "full", *config)
        assert checked.returncode == 0 and RAW.search(checked.stdout.replace("\n", "")) is None
