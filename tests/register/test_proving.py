"""What was measured is written into rows that say less, and into no others."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from r2_tools import Local, local_store, overtaking, rows
from racer import rec_id, recording_hash, registration

from conftest import Buckets, MakeConfig
from helpers import run_ursa
from ursa import DataInterface
from ursa.catalog.rows import FileRow, RecordingRow
from ursa.catalog.tables import Change
from ursa.catalog.where import any_of, these_modalities
from ursa.errors import StorageError
from ursa.policies import Evidence
from ursa.register.build import Registration
from ursa.register.commit import register_all
from ursa.register.committer import Committer
from ursa.register.proving import STATED_KEY, Upgrade, better, stated_of, upgrade_all

STATED, OTHER = "cd" * 32, "ef" * 32
RAW, AUXILIARY = "eeg_a/seg_000.bin", "events.csv"
THREADS = 30


@pytest.fixture
def local(tmp_path: Path) -> Local:
    return local_store(tmp_path)


@pytest.fixture
def data(local: Local) -> DataInterface:
    return local.open()


def claim(number: int, path: str, **fields: Any) -> FileRow:
    """A file's row that says what was stated of it."""
    values = {"sha256": STATED, "etag": "etag", "evidence": Evidence.CLAIMED, "mtime_ns": 7} | fields
    return FileRow(path, f"recordings/{rec_id(number)}/{path}", 10, **values)


def claimed(number: int) -> Registration:
    """A recording with one worker and an auxiliary file, of which nothing was measured."""
    wanted = registration(number, ("eeg_a",))
    worker = replace(wanted.modalities[0], files=(claim(number, RAW),))
    return replace(wanted, row=replace(wanted.row, auxiliary_files=(claim(number, AUXILIARY),)), modalities=(worker,))


def measured(number: int, *paths: str, sha256: str = STATED, **fields: Any) -> Upgrade:
    """Its files (both, unless some are named) were measured to have this sha256."""
    seen = {path: claim(number, path) for path in paths or (RAW, AUXILIARY)}
    now = {path: replace(row, sha256=sha256, evidence=Evidence.SHA256, mtime_ns=None) for path, row in seen.items()}
    return Upgrade(
        rec_id(number), recording_hash(number), {path: replace(row, **fields) for path, row in now.items()}, seen
    )


def evidence(data: DataInterface) -> Counter[tuple[str, str]]:
    """How many files there are, by path and evidence."""
    there = rows(data)
    files = [file for row in there["recordings"] for file in row.auxiliary_files]
    files += [file for row in there["modalities"] for file in row.files]
    return Counter((file.path, str(file.evidence)) for file in files)


def proven(count: int) -> dict[tuple[str, str], int]:
    return {(RAW, "sha256"): count, (AUXILIARY, "sha256"): count}


def versions(data: DataInterface) -> list[int]:
    catalog = data._catalog
    catalog.refresh()
    return [catalog.recordings.version, catalog.modalities.version]


def operations(data: DataInterface) -> list[Mapping[str, int]]:
    """The rows of each operation that upgraded some, newest first."""
    return [item.rows for item in data.catalog_history() if item.operation == "proven"]


def test_raw_and_auxiliary_files(data: DataInterface, local: Local) -> None:
    register_all(data._catalog, [claimed(1), claimed(2)])
    before = rows(data)
    upgrade_all(data._catalog, [measured(1)])
    after = rows(data)
    for name in ("recordings", "modalities"):
        kept = {row.rec_id: row for row in before[name]}
        changed = [row for row in after[name] if row != kept[row.rec_id]]
        assert [row.rec_id for row in changed] == [rec_id(1)]
        assert changed[0].metadata == kept[rec_id(1)].metadata
    (mine,) = [row for row in after["modalities"] if row.rec_id == rec_id(1)]
    # What the disk said of its file is no part of what was measured of the object: it stays.
    assert mine.files == (claim(1, RAW, evidence=Evidence.SHA256),)
    assert mine.bytes == 10
    assert operations(data) == [{"recordings": 1, "modalities": 1}]
    done = run_ursa("catalog", "history", "-p", "local", "--config", local.config, "--limit", "1")
    assert done.returncode == 0 and "proven" in done.stdout.splitlines()[1].split()


def test_what_was_stated_is_kept(data: DataInterface) -> None:
    register_all(data._catalog, [claimed(1)])
    upgrade_all(data._catalog, [measured(1, sha256=OTHER)])
    there = rows(data)
    (row,), (worker,) = there["recordings"], there["modalities"]
    assert stated_of(row.metadata) == {AUXILIARY: STATED} and stated_of(worker.metadata) == {RAW: STATED}
    assert row.auxiliary_files[0].sha256 == worker.files[0].sha256 == OTHER
    # Uploaded again, and measured again: what the manifest states is still that.
    seen = {RAW: worker.files[0]}
    now = {RAW: replace(worker.files[0], etag="again")}
    upgrade_all(data._catalog, [Upgrade(rec_id(1), recording_hash(1), now, seen)])
    (worker,) = rows(data)["modalities"]
    assert worker.files[0].etag == "again" and stated_of(worker.metadata) == {RAW: STATED}


@pytest.mark.parametrize("text", ["", "3", "[]", "{", "null", "[" * 100_000])
def test_metadata_that_states_nothing(text: str) -> None:
    assert stated_of({STATED_KEY: text}) == {} == stated_of({})


CHANGES: dict[str, dict[str, Any]] = {
    "another claim": {"sha256": OTHER},
    "another object": {"etag": "new"},
    "another object with the same bytes": {"etag": "new", "evidence": Evidence.ETAG},
    "proven to hold other bytes": {"sha256": OTHER, "evidence": Evidence.SHA256},
    "another size": {"size_bytes": 11},
    "another key": {"key": "elsewhere/x"},
    "nothing known": {"sha256": None, "evidence": Evidence.SIZE},
}


def write(data: DataInterface, wanted: Registration) -> None:
    """Put these rows in the place of those that the recording has."""
    catalog = data._catalog
    catalog.refresh()
    catalog.modalities.compare_and_swap(lambda: Change(wanted.modalities, these_modalities(wanted.modalities), "test"))
    catalog.recordings.compare_and_swap(lambda: Change([wanted.row], any_of("rec_id", [wanted.row.rec_id]), "test"))


def changed(number: int, change: Mapping[str, Any]) -> Registration:
    wanted = claimed(number)
    (worker,) = wanted.modalities
    row = replace(wanted.row, auxiliary_files=(replace(claim(number, AUXILIARY), **change),))
    files = (replace(claim(number, RAW), **change),)
    return replace(wanted, row=row, modalities=(replace(worker, files=files),))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("sha256", [STATED, OTHER], ids=["as stated", "not as stated"])
def test_a_row_that_changed_meanwhile_stays(change: Mapping[str, Any], sha256: str, data: DataInterface) -> None:
    register_all(data._catalog, [claimed(1), claimed(2)])
    write(data, changed(1, change))
    before = rows(data)
    upgrade_all(data._catalog, [measured(1, sha256=sha256)])
    assert rows(data) == before and operations(data) == []
    # Nor does it keep others from theirs.
    upgrade_all(data._catalog, [measured(1, sha256=sha256), measured(2)])
    assert operations(data) == [{"recordings": 1, "modalities": 1}]


@pytest.mark.parametrize("table", ["recordings", "modalities"])
def test_a_row_that_changes_between_a_look_and_the_commit_stays(
    table: str, data: DataInterface, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_all(data._catalog, [claimed(1)])
    other = local.open()
    wanted = changed(1, {"etag": "new", "sha256": OTHER})
    done = overtaking(monkeypatch)(table, lambda: write(other, wanted))
    upgrade_all(data._catalog, [measured(1)])
    assert done
    there = rows(data)
    assert there["recordings" if table == "recordings" else "modalities"] == (
        [wanted.row] if table == "recordings" else list(wanted.modalities)
    )


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param(lambda: measured(3), id="recording"),
        pytest.param(lambda: measured(1, "eeg_a/seg_001.bin", "n.csv"), id="files"),
        pytest.param(lambda: replace(measured(1), recording_hash="fe" * 32), id="hash"),
    ],
)
def test_what_is_not_there_is_not_made(gone: Any, data: DataInterface) -> None:
    register_all(data._catalog, [claimed(1)])
    before = versions(data)
    upgrade_all(data._catalog, [gone()])
    assert versions(data) == before


@pytest.mark.parametrize("how", [{"evidence": Evidence.CLAIMED}, {"evidence": Evidence.SIZE}, {"sha256": None}])
def test_a_claim_is_no_measurement(how: dict[str, Any], data: DataInterface) -> None:
    register_all(data._catalog, [claimed(1)])
    before = versions(data)
    upgrade_all(data._catalog, [measured(1, **({"etag": "new"} | how))])
    assert versions(data) == before


def test_an_upgrade_that_can_not_be_written_costs_nothing_else(
    data: DataInterface, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The files cache has what was measured; the command that found it goes on."""
    register_all(data._catalog, [claimed(1)])

    def refuse(*_: object) -> None:
        raise StorageError("the server is away")

    monkeypatch.setattr("ursa.register.committer.upgrade_all", refuse)
    data._upgrade(measured(1))
    assert "what was measured is not in the catalog yet: the server is away" in caplog.text
    monkeypatch.undo()
    data._upgrade(measured(1))
    assert evidence(data) == proven(1)


def test_a_key_in_another_form_of_unicode(data: DataInterface) -> None:
    wanted = claimed(1)
    composed, decomposed = "recordings/caf\u00e9", "recordings/cafe\u0301"
    row = replace(claim(1, RAW), key=composed)
    register_all(data._catalog, [replace(wanted, modalities=(replace(wanted.modalities[0], files=(row,)),))])
    now = replace(row, key=decomposed, evidence=Evidence.SHA256)
    upgrade_all(data._catalog, [Upgrade(rec_id(1), recording_hash(1), {RAW: now}, {RAW: row})])
    assert evidence(data)[RAW, "sha256"] == 1


def test_twice_is_once(data: DataInterface) -> None:
    register_all(data._catalog, [claimed(1)])
    for _ in range(2):
        upgrade_all(data._catalog, [measured(1)])
    assert len(operations(data)) == 1 and evidence(data) == proven(1)
    row = claim(1, RAW, evidence=Evidence.SHA256)
    assert not better(row, row) and better(row, replace(row, etag="new"))


def test_two_measurements_of_one_recording(data: DataInterface) -> None:
    """Its halves came from two disks at the same time: neither is lost."""
    register_all(data._catalog, [claimed(1)])
    upgrade_all(data._catalog, [measured(1, RAW), measured(1, AUXILIARY), measured(1, RAW, sha256=OTHER)])
    assert evidence(data) == proven(1)
    assert operations(data) == [{"recordings": 1, "modalities": 1}]
    assert {row.files[0].sha256 for row in rows(data)["modalities"]} == {STATED}


def test_more_than_a_commit_can_replace(data: DataInterface) -> None:
    register_all(data._catalog, [claimed(number) for number in range(130)])
    upgrade_all(data._catalog, [measured(number) for number in range(130)])
    assert evidence(data) == proven(130)
    assert operations(data) == [{"recordings": 30, "modalities": 30}, {"recordings": 100, "modalities": 100}]


def test_thirty_threads_share_their_commits(data: DataInterface) -> None:
    """Whatever they want: some register, the others upgrade."""
    catalog = data._catalog
    register_all(catalog, [claimed(number) for number in range(THREADS)])
    committer = Committer(catalog)
    before = versions(data)
    with ThreadPoolExecutor(2 * THREADS) as pool:
        with catalog.lock:
            waiting: list[Any] = [pool.submit(committer.upgrade, measured(number)) for number in range(THREADS)]
            waiting += [pool.submit(committer.register, claimed(THREADS + number)) for number in range(THREADS)]
            while len(committer._waiting) < 2 * THREADS - 1:
                time.sleep(0.001)
        for future in waiting:
            future.result(timeout=60)
    # The first of them is alone.
    assert [now - was for now, was in zip(versions(data), before, strict=True)] == [3, 3]
    claims = {(RAW, "claimed"): THREADS, (AUXILIARY, "claimed"): THREADS}
    assert evidence(data) == {**proven(THREADS), **claims}


def race(first: DataInterface, second: DataInterface) -> None:
    """Two machines that have measured the same recordings, each with two threads."""
    numbers = range(12)
    register_all(first._catalog, [claimed(number) for number in numbers])
    committers = [Committer(data._catalog) for data in (first, second)] * 2
    with ThreadPoolExecutor(len(committers)) as pool:
        futures = [
            pool.submit(lambda c=committer, n=turn: [c.upgrade(measured(i)) for i in [*numbers[n:], *numbers[:n]]])
            for turn, committer in enumerate(committers)
        ]
        for future in futures:
            future.result(timeout=120)
    there = rows(first)
    assert Counter(row.rec_id for row in there["modalities"]) == Counter(map(rec_id, numbers))
    assert Counter(row.rec_id for row in there["recordings"]) == Counter(map(rec_id, numbers))
    assert evidence(first) == proven(12)
    assert sum(item["modalities"] for item in operations(first) if "modalities" in item) == 12


def test_writers_in_a_directory(data: DataInterface, local: Local) -> None:
    race(data, local.open())


def test_writers_on_a_server(weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    config = s3_config(weed_buckets)
    opened = [DataInterface("r2", config) for _ in range(2)]
    for data in opened:
        data.enable_writes()
    opened[0].init_catalog()
    race(*opened)


def test_an_upgrade_and_a_merge_at_the_same_time(
    data: DataInterface, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other half is registered just before the commit: both are there."""
    register_all(data._catalog, [claimed(1)])
    other = local.open()
    half = registration(1, ("camera_left",))
    done = overtaking(monkeypatch)("recordings", lambda: register_all(other._catalog, [half]))
    upgrade_all(data._catalog, [measured(1)])
    assert done
    (row,) = rows(data)["recordings"]
    assert [str(file.evidence) for file in row.auxiliary_files] == ["sha256"]
    assert json.loads(row.metadata["workers"]) == [["camera", "left"], ["eeg", "a"]]
    assert isinstance(row, RecordingRow) and len(rows(data)["modalities"]) == 2
