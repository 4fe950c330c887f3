"""Killed at every step and run again, a rebuild ends as if it had never been killed; --abort undoes it at every step."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "rebuild"))

import grown
from forks import Forks
from grown import Lab, content, name, tables

from helpers import make_recording

KILLED = -9


@pytest.fixture
def forks() -> Iterator[Forks]:
    """Rebuilds that are killed at a step (0: never), each a process of its own."""
    with Forks(Path(__file__).with_name("killed_rebuild.py")) as made:
        yield made


def start(root: Path) -> Lab:
    """A catalog with halves in both orders, edits, and a recording in no row."""
    root.mkdir()
    here = grown.lab(root)
    grown.dual(here, 0, first="host")
    grown.dual(here, 1, first="motor")
    grown.edited(here, 2)
    make_recording(here.bucket, name(4), content(4))
    here.age(grown.DAY_S, name(4))
    return here


def again(here: Lab, root: Path) -> Lab:
    """The same lab once more, with the same ETags: links, and whoever writes an object makes a new file."""
    shutil.copytree(here.root, root, copy_function=os.link)
    (root / "ursa.yaml").unlink()
    (root / "ursa.yaml").write_text(f"profiles:\n  local: {{root: {root / 'store'}}}\n", encoding="utf-8")
    return Lab(root)


def without_times(here: Lab) -> dict[str, list[Any]]:
    """The rows; those that a rebuild makes anew are registered when it is."""

    def plain(row: Any) -> Any:
        if getattr(row, "rec_id", "") != name(4):
            return row
        return replace(row, registered_at=None) if hasattr(row, "registered_at") else replace(row, metadata={})

    return {table: [plain(row) for row in rows] for table, rows in tables(here.open()).items()}


def points(total: int) -> Iterator[int]:
    """Every step."""
    return iter(range(1, total + 1))


@pytest.mark.slow
def test_every_step(forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ursa.rebuild.run.SETTLES_S", 0.0)
    monkeypatch.setattr("ursa.rebuild.run.WAITS_S", 0.0)
    here = start(tmp_path / "start")
    undisturbed = again(here, tmp_path / "undisturbed")
    run = forks.run(undisturbed.config, 0)
    assert run.returncode == 0, run.stderr
    expected, total = without_times(undisturbed), int(run.stdout)
    before = tables(here.open())
    assert total > 30
    flipped = 0
    for point in points(total):
        killed = again(here, tmp_path / f"killed-{point}")
        assert forks.run(killed.config, point).returncode in (KILLED, 0)
        # Whoever reads meanwhile sees one catalog or the other, whole.
        seen = without_times(killed)
        assert seen == expected or tables(killed.open()) == before, f"killed at step {point} of {total}"
        flipped += seen == expected
        given_up = again(killed, tmp_path / f"given-up-{point}")
        assert killed.rebuild().flipped
        assert without_times(killed) == expected, f"killed at step {point} of {total}"
        with given_up.open() as data:
            data.abort_rebuild()
        assert without_times(given_up) == seen
        with given_up.open() as data:
            data.register_participant("Whoever writes next")
        for path in (killed.root, given_up.root):
            shutil.rmtree(path)
    assert 0 < flipped < total
