"""An undo that brings rows back looks into the bucket first: nothing is registered without its bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ursa.catalog.turning as turning
from helpers import make_recording, run_ursa
from ursa import DataInterface, MissingFilesError

REC = "rec_20260520_195628_b1dd"
FILES = {"camera_left/a.mp4": b"left", "eeg_a/a.edf": b"eeg", "eeg_a/b.edf": b"more"}


@pytest.fixture(autouse=True)
def nobody_is_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader has to be waited for."""
    monkeypatch.setattr(turning, "READERS_S", 0.0)


@pytest.fixture
def data(tmp_path: Path) -> DataInterface:
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n", encoding="utf-8")
    made = DataInterface("local", config)
    made.enable_writes(roles=("assets_rw", "raw_rw"))
    return made


def bucket(tmp_path: Path) -> Path:
    return tmp_path / "store" / "constellation-data" / "recordings" / REC


def ingest(data: DataInterface, tmp_path: Path, files: dict[str, bytes] = FILES, **options: Any) -> str:
    """An ingest; its operation."""
    rec_dir = make_recording(tmp_path / f"nas{len(list(tmp_path.glob('nas*')))}", REC, files)
    data.ingest(rec_dir / "manifest.json", rec_dir, **options)
    return data.catalog_history(1)[0].operation_id


def undone(data: DataInterface, tmp_path: Path, files: dict[str, bytes] = FILES) -> str:
    """A recording that was registered and is not any more; the operation that would bring it back."""
    data.init_catalog()
    created = data.catalog_history(1)[0].operation_id
    registered = ingest(data, tmp_path, files)
    data.undo(created)
    assert data.list_recordings() == []
    return registered


def replace_object(path: Path) -> None:
    """Other bytes of the same length, as another tool would put them there."""
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("harm", "path"),
    [
        pytest.param(Path.unlink, "eeg_a/a.edf", id="deleted"),
        pytest.param(lambda path: path.write_bytes(b"longer than it was"), "eeg_a/b.edf", id="another size"),
        pytest.param(replace_object, "camera_left/a.mp4", id="another object of the same size"),
        pytest.param(Path.unlink, "events.csv", id="an auxiliary file"),
    ],
)
def test_bytes_that_are_not_there_any_more(
    data: DataInterface, tmp_path: Path, harm: Callable[[Path], object], path: str
) -> None:
    registered = undone(data, tmp_path, FILES | {"events.csv": b"a,b\n"})
    harm(bucket(tmp_path) / path)
    plan = data.undo(registered, dry_run=True)
    assert plan.missing == (f"{REC}/{path}",)
    operations = len(data.catalog_history())
    for to in (registered, plan):
        with pytest.raises(MissingFilesError, match=path) as refused:
            data.undo(to)
        assert refused.value.paths == (f"{REC}/{path}",) and refused.value.exit_code == 6
        assert "ursa ingest-r2" in (refused.value.hint or "")
    assert data.list_recordings() == [] and len(data.catalog_history()) == operations


def test_bytes_that_vanish_after_the_plan(data: DataInterface, tmp_path: Path) -> None:
    plan = data.undo(undone(data, tmp_path), dry_run=True)
    assert plan.missing == ()
    (bucket(tmp_path) / "eeg_a" / "a.edf").unlink()
    with pytest.raises(MissingFilesError):
        data.undo(plan)
    assert data.list_recordings() == []


def test_the_same_bytes_uploaded_again(data: DataInterface, tmp_path: Path) -> None:
    """Another ETag, and the sha256 that it was stored with is the registered one."""
    registered = undone(data, tmp_path)
    (bucket(tmp_path) / "eeg_a" / "a.edf").unlink()
    again = ingest(data, tmp_path)
    data.undo(data.catalog_history()[-1].operation_id)
    data.undo(registered)
    assert [row.rec_id for row in data.list_recordings()] == [REC]
    assert all(check.ok for check in data.verify([REC])) and again != registered


def test_back_to_before_objects_were_replaced(data: DataInterface, tmp_path: Path) -> None:
    """The rows of then speak of bytes that are gone; those of now stay."""
    first = ingest(data, tmp_path)
    ingest(data, tmp_path, FILES | {"eeg_a/a.edf": b"EEG"}, overwrite=True, replace_objects=True)
    before = data.list_modalities()
    with pytest.raises(MissingFilesError, match=r"eeg_a/a\.edf"):
        data.undo(first)
    assert data.list_modalities() == before
    assert all(check.ok for check in data.verify([REC]))


def test_what_disappears_needs_no_bytes(data: DataInterface, tmp_path: Path) -> None:
    """A recording that was registered and lost goes from the catalog as any other; its neighbours aren't looked at."""
    data.init_catalog()
    created = data.catalog_history(1)[0].operation_id
    ingest(data, tmp_path)
    (bucket(tmp_path) / "eeg_a" / "a.edf").unlink()
    assert data.undo(created).disappear == (REC,)
    assert data.list_recordings() == []


def test_as_typed(data: DataInterface, tmp_path: Path) -> None:
    registered = undone(data, tmp_path)
    (bucket(tmp_path) / "eeg_a" / "a.edf").unlink()
    for word in ("--dry-run", "--yes"):
        done = run_ursa(
            "catalog", "undo", "--to", registered, word, "--profile", "local", "--config", tmp_path / "ursa.yaml"
        )
        assert done.returncode == 6
        assert "1 would come back:" in done.stdout
        assert "MissingFilesError" in done.stderr and f"{REC}/eeg_a/a.edf" in done.stderr
        assert "Nothing was changed" in done.stderr
    assert data.list_recordings() == []
