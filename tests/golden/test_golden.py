"""What every command prints, word for word: on terminals of 80 and 120 columns, in a pipe, as JSON.

One story a mode, in one fresh home, with good input, bad input and an interrupted run. ``pytest tests/golden
--refresh-golden`` writes the files anew; read the difference before it is committed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from golden_terminal import run_on_terminal

from conftest import EXAMPLES
from helpers import make_recording

OUTPUTS = Path(__file__).parent / "outputs"
ONE = "rec_20260520_195628_b1dd"
TWO = "rec_20260521_101500_c2ee"
NONE = "rec_20260522_090000_d3ff"
BAD = "rec_20260523_090000_e4aa"
HOSTILE = "rec_20260524_090000_f5bb"
MODES = {"pipe": (), "json": ("--json",), "80": (), "120": ()}
URSA = str(Path(sys.executable).with_name("ursa"))


@dataclass(frozen=True)
class Stage:
    """Where a story plays: ``nas`` has recordings, ``home`` is empty at first."""

    root: Path

    @property
    def nas(self) -> Path:
        return self.root / "nas"

    @property
    def data(self) -> Path:
        return self.root / "home" / ".local" / "share" / "ursa"

    def spoil(self) -> None:
        """Take a file out of the bucket, as nobody should."""
        next((self.data / "constellation-data" / "recordings" / ONE / "eeg_a").glob("*.edf")).unlink()


Step = tuple[str, Callable[[Stage], list[str | Path]]]
STORY: tuple[Step, ...] = (
    ("help", lambda s: ["--help"]),
    ("no-such-command", lambda s: ["ingset"]),
    ("ls-empty", lambda s: ["ls"]),
    ("ingest-dry-run", lambda s: ["ingest", s.nas / ONE, "--dry-run"]),
    ("ingest", lambda s: ["ingest", s.nas / ONE]),
    ("ingest-again", lambda s: ["ingest", s.nas / ONE]),
    ("ingest-no-manifest", lambda s: ["ingest", s.nas / NONE]),
    ("ingest-bad-manifest", lambda s: ["ingest", s.nas / BAD]),
    ("batch-dry-run", lambda s: ["batch", s.nas, "--dry-run"]),
    ("batch", lambda s: ["batch", s.nas]),
    ("batch-again", lambda s: ["batch", s.nas]),
    ("batch-empty", lambda s: ["batch", s.root / "empty"]),
    ("ls", lambda s: ["ls"]),
    ("ls-modality", lambda s: ["ls", "--modality", "eeg"]),
    ("show", lambda s: ["show", TWO]),
    ("show-files", lambda s: ["show", HOSTILE, "--files"]),
    ("show-unknown", lambda s: ["show", "rec_19"]),
    ("verify", lambda s: ["verify", ONE, TWO]),
    ("verify-directory", lambda s: ["verify", s.nas / ONE]),
    ("download", lambda s: ["download", TWO, "--modality", "eeg", "--dest", s.root / "down"]),
    ("participants", lambda s: ["participants", "list"]),
    ("participants-backfill", lambda s: ["participants", "backfill", "--dry-run"]),
    ("reconstruct-dry-run", lambda s: ["reconstruct", s.nas / NONE, "--dry-run"]),
    ("reconstruct", lambda s: ["reconstruct", s.nas / NONE, "--yes"]),
    ("ingest-r2-again", lambda s: ["ingest-r2", ONE]),
    ("ingest-r2-nothing", lambda s: ["ingest-r2", "rec_20200101_000000_aa"]),
    ("gc-uploads", lambda s: ["gc-uploads", "--yes"]),
    ("catalog-location", lambda s: ["catalog", "location"]),
    ("catalog-history", lambda s: ["catalog", "history"]),
    ("catalog-undo-unknown", lambda s: ["catalog", "undo", "--to", "ffffffff", "--yes"]),
    ("catalog-rebuild-dry-run", lambda s: ["catalog", "rebuild", "--dry-run"]),
    ("config-show", lambda s: ["config", "show"]),
    ("no-such-profile", lambda s: ["ls", "--profile", "lcoal"]),
    ("verify-missing", lambda s: (s.spoil(), ["verify", ONE])[1]),
)
# Their columns are as wide as this machine's name.
NOT_ON_A_TERMINAL = {"catalog-history"}
NO_PROFILE = {"help", "no-such-command", "no-such-profile"}
SCRUBBED = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)", "<time>"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\dZ", "<time to the minute>"),
    # Of registrations and operations: this year's recordings of the examples keep their own.
    (r"(?<!\d)(?!2026-05)\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "<date and time, UTC>"),
    (r'"(operation_id|registered_by|who|host|version|ursa)": "[^"]*"', r'"\1": "<it>"'),
    (r'"(seconds|elapsed_s|bytes_per_s|eta_s)": (null|[-\d.e]+)', r'"\1": 0'),
    (r"\b\S+@\S+\b(?=  |$)", "<who>"),
    (r"^[0-9a-f]{12}  ", "<operation> "),
    (r"\(\d[\d.]* [KMG]?i?B/s\)", "(<rate>)"),
    (r"\d+\.\d s$", "<s> s"),
    (r"in \d:\d\d:\d\d", "in <h:mm:ss>"),
)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """The examples, a recording with a bad manifest, and one with names that a terminal must not obey."""
    # A short path that is always as long: columns and line breaks depend on it.
    root = Path("/tmp") / f"ug{os.getpid() % 100_000:05}"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(EXAMPLES, root / "nas")
    (root / "empty").mkdir()
    (root / "home").mkdir()
    make_recording(root / "nas", BAD, {"eeg_a/a.edf": b"eeg"}, manifest=False)
    (root / "nas" / BAD / "manifest.json").write_text('{"recording_id": ', encoding="utf-8")
    make_recording(root / "nas", HOSTILE, {"eeg_a/[red]x‮.edf": b"eeg", "eeg_a/<b>.edf": b"e"}, participant="[bold]Ari⁦a‮")
    for path in root.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    try:
        yield Stage(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def scrubbed(text: str, stage: Stage) -> str:
    """Without what differs from run to run."""
    text = text.replace(str(stage.root), "/tmp/stage")
    for pattern, mark in SCRUBBED:
        text = re.sub(pattern, mark, text, flags=re.MULTILINE)
    # A table with this machine's name in it is as wide as that.
    return "\n".join(
        re.sub(" {2,}", "  ", line) if "  <who>" in line or "WHO" in line else line for line in text.split("\n")
    )


def told(argv: list[str], mode: str, stage: Stage) -> str:
    """What a command prints, and its exit status."""
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
        "HOME": str(stage.root / "home"),
        "LOGNAME": "admin",
        "TZ": "UTC",
    }
    shown = "$ ursa " + " ".join(argv[1:])
    if mode.isdigit():
        code, screen = run_on_terminal(argv, int(mode), environment)
        return scrubbed(f"{shown}\n{screen}exit status {code}\n", stage)
    run = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    parts = [shown, run.stdout.rstrip("\n"), *(["--- stderr", run.stderr.rstrip("\n")] if run.stderr else [])]
    return scrubbed("\n".join([part for part in parts if part] + [f"exit status {run.returncode}", ""]), stage)


def compare(name: str, text: str, refresh: bool) -> str | None:
    """None where ``text`` is the golden one, else what to look at."""
    path = OUTPUTS / f"{name}.txt"
    if refresh:
        path.write_text(text, encoding="utf-8")
        return None
    golden = path.read_text(encoding="utf-8") if path.exists() else ""
    return None if text == golden else f"--- {name}: golden\n{golden}--- {name}: now\n{text}"


@pytest.mark.parametrize("mode", MODES)
def test_every_command(mode: str, stage: Stage, request: pytest.FixtureRequest) -> None:
    refresh = request.config.getoption("--refresh-golden")
    changed = []
    for name, step in STORY:
        if mode.isdigit() and name in NOT_ON_A_TERMINAL:
            continue
        command, *rest = map(str, step(stage))
        profile = [] if name in NO_PROFILE else ["--profile", "local"]
        as_json = [] if name in ("help", "no-such-command") else list(MODES[mode])
        changed.append(
            compare(f"{name}.{mode}", told([URSA, command, *rest, *profile, *as_json], mode, stage), refresh)
        )
    different = [text for text in changed if text]
    assert not different, "\n".join(["is this right? then: pytest tests/golden --refresh-golden", *different])


@pytest.mark.parametrize("command", ["ingest", "batch"])
def test_interrupted(command: str, stage: Stage, request: pytest.FixtureRequest) -> None:
    """Ctrl-C in the middle of a file; numbers differ from run to run."""
    make_recording(stage.root / "slow", ONE, {"camera_left/big.mp4": os.urandom(40 << 20), "eeg_a/a.edf": b"e"})
    where = stage.root / "slow" / (ONE if command == "ingest" else "")
    argv = [URSA, command, str(where), "--profile", "local", "--bwlimit", "5M", "--no-progress", "--jobs", "1"]
    environment = {**os.environ, "HOME": str(stage.root / "home")}
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        uploads = stage.data / ".ursa" / "constellation-data" / "uploads"
        ends = time.monotonic() + 60
        while not list(uploads.glob("*/00002-*")) and time.monotonic() < ends:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    text = re.sub(r"\d[\d.]* ([KM]i)?B\b", "<size>", f"{scrubbed(out, stage)}exit status {process.returncode}\n")
    text = re.sub(r"has \d+ of", "has <n> of", text)
    changed = compare(f"interrupted-{command}", text, request.config.getoption("--refresh-golden"))
    assert changed is None, changed
