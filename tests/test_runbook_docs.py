"""docs/runbooks/offline-ingest.md, every command and every snippet of it, in order, on a real server.

Bound by the test: the profile ``r2`` in the home's config file, and the shared drive.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording
from servers import find_executable
from ursa import DataInterface

PAGE = Path(__file__).parents[1] / "docs" / "runbooks" / "offline-ingest.md"
NAS = "/Volumes/Shared_Drive/constellation-data/recordings"
REC, DUAL, BARE = "rec_20260520_195628_b1dd", "rec_20260521_101500_c2ee", "rec_20260522_090000_d3ff"
IN_BUCKET = "rec_20260524_080000_a1b2"


def blocks() -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def put(buckets: Buckets, rec_dir: Path) -> None:
    """A recording into the bucket, as a rig's own uploader does."""
    client = buckets.server.client()
    for path in rec_dir.rglob("*"):
        if path.is_file():
            key = f"recordings/{rec_dir.name}/{path.relative_to(rec_dir).as_posix()}"
            client.upload_file(str(path), buckets.raw, key)


def run(language: str, text: str, nas: Path, cwd: Path) -> str:
    """A block in a shell of its own that stops at the first failure; what it printed."""
    bound = text.replace(NAS, str(nas))
    command = ["bash", "-euo", "pipefail", "-c", bound] if language == "sh" else [sys.executable, "-c", bound]
    path = f"{Path(find_executable('ursa')).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{bound}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_block_in_order(
    weed_buckets: Buckets, s3_config: MakeConfig, example_recordings: Path, home: Path, tmp_path: Path
) -> None:
    own = home / ".config" / "ursa" / "config.yaml"
    own.parent.mkdir(parents=True)
    shutil.copy(s3_config(weed_buckets), own)
    admin = DataInterface("r2")
    admin.enable_writes()
    admin.init_catalog()
    put(weed_buckets, example_recordings / BARE)
    put(weed_buckets, make_recording(tmp_path / "rig", IN_BUCKET, {"eeg_a/seg_000.edf": b"eeg" * 100}))
    found = blocks()
    assert {language for language, _ in found} == {"sh", "python"} and len(found) >= 14
    printed = {text: run(language, text, example_recordings, tmp_path) for language, text in found}

    def told(command: str) -> str:
        return next(out for text, out in printed.items() if command in text)

    assert f"PLAN {REC}: 9 to upload" in told("--dry-run")
    assert f"OK   {IN_BUCKET}: 2 files in the bucket" in told(f'{IN_BUCKET} --participant "Aria Lin"\n')
    assert f"MADE {BARE}" in told("ursa reconstruct")
    assert "green-mantis, green-motor" in told(f"ursa show {DUAL}")
    assert f"HAVE {REC}: already registered" in told("--report run.json")
    assert "-" not in {line.strip()[:1] for line in told("ursa verify /Volumes").splitlines()}
    assert {row.rec_id for row in admin.list_recordings()} == {REC, DUAL, BARE, IN_BUCKET}
    row = admin.find_recording(IN_BUCKET)
    assert (row.duration_s, len(row.participant_ids)) == (75.0, 2)
    assert all(check.ok for check in admin.verify([REC, DUAL, BARE, IN_BUCKET], level="full"))
