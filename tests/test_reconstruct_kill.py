"""Killed at every step and run again, a reconstruct ends as if it had never been killed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "kill"))

from killed import Countdown, Killing

from helpers import make_recording
from ursa import DataInterface, ReconstructResult
from ursa.manifest import parse_manifest
from ursa.reconstruct import directory

REC = "rec_20260520_195628_b1dd"
FILES = {
    "camera_left/seg_000.mp4": b"left " * 500_000,
    "eeg_a/seg_000.edf": b"eeg" * 3_000,
    "eeg_b/empty.edf": b"",
    "events.csv": b"a,b\n",
}
KILLED = -9
# A server that has imported everything: each run is a fork of it, in a tenth of the time.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["pytest", "ursa.interface", "ursa.store.local", "ursa.catalog.tables"])


def interface(root: Path) -> DataInterface:
    """One that may write, and whose finished hashes are saved at every chance."""
    config = root / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {root / 'store'}}}\n")
    data = DataInterface("local", config)
    data.enable_writes(roles=("assets_rw", "raw_rw"))
    return data


def in_bucket(root: Path, **options: Any) -> ReconstructResult:
    """Path C in the bucket."""
    with interface(root) as data:
        return data.reconstruct(REC, **options)


def on_disk(root: Path, **options: Any) -> ReconstructResult:
    """Path C on the disk."""
    with interface(root) as data:
        return data.reconstruct_dir(recording(root), **options)


def recording(root: Path) -> Path:
    """Where both have their files."""
    return root / "store" / "constellation-data" / "recordings" / REC


def run_killed(root: Path, in_the_bucket: bool, point: int) -> None:
    """In a process of its own: SIGKILL when so many steps are done; the number of steps is written down."""
    countdown = Countdown(point)
    make_store = DataInterface._store
    DataInterface._store = lambda *args: Killing(make_store(*args), countdown)  # type: ignore[method-assign, assignment, return-value]
    own: Any = directory
    for name in ("_link", "sync_directory", "_remove_leftovers"):
        setattr(own, name, countdown.around(getattr(own, name)))
    for name in ("fsync", "link"):
        setattr(os, name, countdown.around(getattr(os, name)))
    (in_bucket if in_the_bucket else on_disk)(root, progress=countdown.step)
    (root / "steps").write_text(str(countdown.steps))


def killed(root: Path, in_the_bucket: bool, point: int) -> int | None:
    """The exit code of such a process."""
    process = _PROCESSES.Process(target=run_killed, args=(root, in_the_bucket, point))
    process.start()
    process.join(60)
    return process.exitcode


def state(root: Path) -> dict[str, Any]:
    """Every file of the recording, and of its manifest what no two runs differ in."""
    rec_dir = recording(root)
    found: dict[str, Any] = {
        path.relative_to(rec_dir).as_posix(): path.read_bytes() for path in rec_dir.rglob("*") if path.is_file()
    }
    document = json.loads(found["manifest.json"])
    del document["reconstruction"]["reconstructed_at"]
    return found | {"manifest.json": document}


def measured(root: Path) -> dict[str, str]:
    """Path → sha256 of what the record says was measured; Path B need not read it again."""
    record = root / "store" / "constellation-assets" / "ursa" / "hashes" / f"{REC}.json"
    objects = json.loads(record.read_bytes())["objects"]
    return {key.removeprefix(f"recordings/{REC}/"): entry[2] for key, entry in objects.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "placeholder"), [(in_bucket, False), (in_bucket, True), (on_disk, False), (on_disk, True)]
)
def test_killed_at_every_step(run: Callable[..., ReconstructResult], placeholder: bool, tmp_path: Path) -> None:
    def fresh(name: str) -> Path:
        root = tmp_path / name
        rec_dir = make_recording(recording(root).parent, REC, FILES, participant="Aria Lin", manifest=False)
        if placeholder:
            (rec_dir / "manifest.json").write_text('{"files": []}')
        return root

    undisturbed = fresh("undisturbed")
    assert killed(undisturbed, run is in_bucket, 0) == 0
    expected = state(undisturbed)
    assert set(expected) == {*FILES, "participant.txt", "manifest.json"}
    total = int((undisturbed / "steps").read_text())
    assert total >= 10
    deaths = 0
    points = range(1, total + 1)
    for point in points:
        root = fresh(f"killed-{point}")
        # 0: events are told at most ten a second, so a run may have fewer steps than the first one.
        code = killed(root, run is in_bucket, point)
        assert code in (KILLED, 0)
        deaths += code == KILLED
        manifest = recording(root) / "manifest.json"
        # Whatever is there after the kill is whole: nothing, the placeholder, or all of the new one.
        if manifest.exists():
            left = parse_manifest(manifest.read_bytes(), source="left")
            assert {entry.path for entry in left.files} in (set(FILES), set())
            assert placeholder or left.files
        result = run(root)
        assert state(root) == expected, f"killed at step {point} of {total}"
        assert result.recording_hash == expected["manifest.json"]["recording_hash"]
        if run is in_bucket:
            assert measured(root) == {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}
        shutil.rmtree(root)
    assert deaths > len(points) * 0.6
