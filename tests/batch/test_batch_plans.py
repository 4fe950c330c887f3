"""A plan writes nothing, also where its data interface may write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_tools import Lab, make_lab, rec

from ursa import RecordingExistsError


def by_batch(data: Any, rec_dir: Path) -> None:
    """A dry run."""
    assert [outcome.status for outcome in data.batch([rec_dir], dry_run=True)] == ["have"]


def by_path(data: Any, rec_dir: Path) -> None:
    """Path A."""
    with pytest.raises(RecordingExistsError):
        data.plan_ingest(None, rec_dir)


def by_rec_id(data: Any, rec_dir: Path) -> None:
    """Path B."""
    with pytest.raises(RecordingExistsError):
        data.plan_from_r2(rec_dir.name)


@pytest.mark.parametrize("plan", [by_batch, by_path, by_rec_id])
def test_a_plan_upgrades_no_row(tmp_path: Path, plan: Callable[[Any, Path], None]) -> None:
    lab: Lab = make_lab(tmp_path)
    rec_dir = lab.make(1, {"eeg_a/a.edf": b"eeg" * 100})
    with lab.data() as data:
        data.init_catalog()
        for path in (*rec_dir.rglob("*.edf"), rec_dir / "manifest.json"):
            there = lab.stored / rec(1) / path.relative_to(rec_dir)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())
        data.ingest_from_r2(rec(1))
        assert [file.evidence for row in data.list_modalities() for file in row.files] == ["claimed"]
        if plan is by_rec_id:
            data._proofs.record(
                next(data._raw.list(f"recordings/{rec(1)}/eeg_a/")), hashlib.sha256(b"eeg" * 100).hexdigest()
            )
        before = len(data.catalog_history())
        plan(data, rec_dir)
        assert len(data.catalog_history()) == before
        assert [file.evidence for row in data.list_modalities() for file in row.files] == ["claimed"]
