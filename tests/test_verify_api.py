"""`DataInterface.verify`: subsets, everything, executors, workers without a row; and the subset alone."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import make_recording
from ursa import DataInterface, FileCheck, Mark, UsageError
from ursa.catalog.catalog import Catalog
from ursa.catalog.tables import Change
from ursa.catalog.where import by_rec_id
from ursa.subset import Candidate, parse_subset

NAMES = [f"rec_20260520_1956{number:02d}_b1dd" for number in range(4)]
FILES = {"camera_left/seg_000.mp4": b"left " * 400, "eeg_a/seg_000.edf": b"eeg", "eeg_b/seg_000.edf": b"EEG"}

candidates = st.lists(
    st.tuples(st.sampled_from(NAMES), st.text(min_size=1, max_size=8), st.integers(0, 1 << 40)),
    unique_by=lambda item: item[:2],
    max_size=40,
)


@given(candidates, st.integers(1, 12))
def test_slices_cover_everything_once(files: list[Candidate], total: int) -> None:
    slices = [parse_subset(f"{number}/{total}").choose(files) for number in range(1, total + 1)]
    assert sorted(item for chosen in slices for item in chosen) == sorted(files)


@given(candidates, st.sampled_from("KMGT"), st.integers(1, 2_000), st.integers())
def test_an_amount_is_never_exceeded(files: list[Candidate], unit: str, count: int, seed: int) -> None:
    budget = count << {"K": 10, "M": 20, "G": 30, "T": 40}[unit]
    chosen = parse_subset(f"{count}{unit}", rng=random.Random(seed)).choose(files)
    assert set(chosen) <= set(files) and len(set(chosen)) == len(chosen)
    total = sum(size for _rec_id, _path, size in chosen)
    smallest = min((size for _rec_id, _path, size in files), default=0)
    # Not one more would fit; or the smallest alone is too much, and is taken.
    assert total <= budget or (len(chosen) == 1 and total == smallest)
    assert all(total + item[2] > budget for item in files if item not in chosen)


@given(candidates, st.floats(0.01, 100), st.integers())
def test_a_share(files: list[Candidate], percent: float, seed: int) -> None:
    chosen = parse_subset(f"{percent:.3f}%", rng=random.Random(seed)).choose(files)
    assert set(chosen) <= set(files) and len(set(chosen)) == len(chosen)
    assert len(chosen) == min(len(files), max(1, round(len(files) * float(f"{percent:.3f}") / 100)))


@given(candidates)
def test_no_subset_is_everything(files: list[Candidate]) -> None:
    assert parse_subset(None).choose(files) == files


@pytest.mark.parametrize(
    "text", ["", "0/3", "4/3", "1/0", "0%", "101%", "-1G", "10", "10X", "1/2/3", "half", "5 %", "١/٢"]
)
def test_what_is_no_subset(text: str) -> None:
    with pytest.raises(UsageError, match="is not a subset"):
        parse_subset(text)


@pytest.fixture
def data(tmp_path: Path) -> DataInterface:
    """Four recordings with three files each, in a directory store."""
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n", encoding="utf-8")
    opened = DataInterface("local", config)
    opened.enable_writes(roles=("assets_rw", "raw_rw"))
    for number, name in enumerate(NAMES):
        files = {path: content + bytes([number]) for path, content in FILES.items()}
        rec_dir = make_recording(tmp_path / "nas", name, files)
        opened.ingest(rec_dir / "manifest.json", rec_dir)
    return opened


def stored(tmp_path: Path, name: str, path: str) -> Path:
    """An object's file."""
    return tmp_path / "store" / "constellation-data" / "recordings" / name / path


def test_several_are_one_look_into_the_catalog(data: DataInterface, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    sync = Catalog._sync
    monkeypatch.setattr(Catalog, "_sync", lambda catalog: (syncs.append(1), sync(catalog))[1])
    told: list[str] = []
    checks = data.verify([*NAMES, "rec_20260520_195699_beef"], on_file=lambda rec_id, _check: told.append(rec_id))
    assert [(check.rec_id, check.ok) for check in checks] == [
        ("rec_20260520_195699_beef", False),
        *((name, True) for name in NAMES),
    ]
    assert len(syncs) == 1
    assert list(dict.fromkeys(told)) == [check.rec_id for check in checks], "told in another order"


def test_everything(data: DataInterface) -> None:
    told: list[tuple[str, FileCheck]] = []
    checks = data.verify(everything=True, on_file=lambda *check: told.append(check))
    assert [check.rec_id for check in checks] == NAMES
    assert all(check.ok and check.count(Mark.SAME) == 3 and check.left_out == 0 for check in checks)
    assert len(told) == 12 and {rec_id for rec_id, _check in told} == set(NAMES)


@pytest.mark.parametrize("workers", [0, 2])
def test_slices_of_all_recordings(data: DataInterface, workers: int) -> None:
    """Five nights see every file of the catalog once, whichever recording it is of."""
    seen: list[tuple[str, str]] = []
    for night in range(1, 6):
        with ThreadPoolExecutor(2) as pool:
            checks = data.verify(everything=True, subset=f"{night}/5", executor=pool if workers else None)
        looked_at = [(check.rec_id, file.path) for check in checks for file in check.files]
        assert all(len(check.files) + check.left_out == 3 and check.ok for check in checks)
        seen += looked_at
    assert sorted(seen) == sorted((name, path) for name in NAMES for path in FILES)


def test_a_share_and_an_amount(data: DataInterface) -> None:
    half = data.verify(NAMES, subset="50%")
    assert sum(len(check.files) for check in half) == 6 and sum(check.left_out for check in half) == 6
    little = data.verify(everything=True, subset="1K")
    assert sum(file.size_bytes for check in little for file in check.files) <= 1024
    assert sum(len(check.files) for check in little) == 8  # the small ones


def test_what_is_wrong_is_found_where_it_is_chosen(data: DataInterface, tmp_path: Path) -> None:
    path = "eeg_a/seg_000.edf"
    stored(tmp_path, NAMES[1], path).write_bytes(b"EEE\1")
    stored(tmp_path, NAMES[2], path).unlink()
    marks: dict[tuple[str, str], str] = {}
    for part in range(1, 4):
        for check in data.verify(everything=True, subset=f"{part}/3", level="full"):
            marks |= {(check.rec_id, file.path): file.mark for file in check.files}
    assert {key: mark for key, mark in marks.items() if mark != "="} == {(NAMES[1], path): "*", (NAMES[2], path): "-"}
    assert len(marks) == 12


def test_a_worker_without_a_row(data: DataInterface) -> None:
    """The recording's commit covers it and its modality row is not there: a merge was killed in between."""
    catalog = data._catalog
    row = catalog.find_recording(NAMES[0])
    covered = [*json.loads(row.metadata["workers"]), ["mic", "room"]]
    metadata = {**row.metadata, "workers": json.dumps(sorted(covered))}
    where = by_rec_id([row.rec_id])
    seen = catalog.recordings.version
    change = Change([replace(row, metadata=metadata)], where, "test")
    catalog.recordings.compare_and_swap(lambda: change if catalog.recordings.version == seen else None)
    for executor in (None, ThreadPoolExecutor(1)):
        (check,) = data.verify([NAMES[0]], executor=executor)
        wrong = [file for file in check.files if file.mark != "="]
        assert [(file.path, file.mark) for file in wrong] == [("mic_room/", "-")] and not check.ok
        assert "ingest it again" in wrong[0].detail


def test_directories_and_subsets(data: DataInterface, tmp_path: Path) -> None:
    """A directory's unregistered files are among those that a subset chooses from."""
    rec_dir = tmp_path / "nas" / NAMES[0]
    (rec_dir / "eeg_a" / "late.edf").write_bytes(b"late")
    (check,) = data.verify([rec_dir], subset="100%")
    assert {file.path: str(file.mark) for file in check.files if file.mark != "="} == {"eeg_a/late.edf": "-"}
    parts = [data.verify([rec_dir], subset=f"{part}/3")[0] for part in range(1, 4)]
    assert sum(len(part.files) for part in parts) == len(check.files)
