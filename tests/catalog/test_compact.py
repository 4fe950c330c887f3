"""`compact`: what it merges, sorts and removes, and that others may write meanwhile."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bucket_tap import Tap, commit_of
from deltalake import DeltaTable
from homes import (
    Place,
    add_modalities,
    add_recordings,
    backdate,
    modality,
    rec_id,
    recording,
    recording_hash,
    registration,
)

from conftest import Buckets
from ursa import DataInterface
from ursa.catalog.catalog import Catalog
from ursa.catalog.compact import ORPHAN_AFTER, compact
from ursa.catalog.history import history
from ursa.catalog.layout import SMALL_EVERY, DataFile, depth
from ursa.catalog.metadata import REGISTERED_AT_KEY
from ursa.catalog.rows import ModalityRow
from ursa.catalog.tables import Change, LostRaceError
from ursa.catalog.where import these_modalities
from ursa.errors import StorageError, WritesNotEnabledError
from ursa.register.commit import register

NOW = datetime.now(UTC)
WRITERS = 8
EACH = 3


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Place(tmp_path).catalog()


def stamped(number: int, age: timedelta, name: str = "eeg") -> ModalityRow:
    """A modality that says that it was registered so long ago."""
    return modality(number, name, metadata={REGISTERED_AT_KEY: (NOW - age).isoformat(timespec="seconds")})


# --- files


def test_small_files_become_one(catalog: Catalog) -> None:
    for number in (3, 1, 2):
        register(catalog, registration(number, participants=(f"P {number}",)))
    rows = catalog.list_recordings(), catalog.list_modalities(), catalog.list_participants()
    result = compact(catalog)
    assert [(item.table, item.files_before, item.files_after) for item in result.tables] == [
        ("recordings", 3, 1),
        ("modalities", 3, 1),
        ("participants", 3, 1),
    ]
    assert (catalog.list_recordings(), catalog.list_modalities(), catalog.list_participants()) == rows
    assert rows[0] == Place(Path(catalog.home.base_uri).parent).catalog().list_recordings()
    assert Path(catalog.recordings.uri, "_delta_log", "_last_checkpoint").exists()


def test_again_there_is_nothing_to_do(catalog: Catalog) -> None:
    register(catalog, registration(1))
    register(catalog, registration(2))
    compact(catalog)
    versions = [item.versions for item in history(catalog)]
    assert all(item.files_before == item.files_after == 1 for item in compact(catalog).tables if item.table[0] != "p")
    assert [item.versions for item in history(catalog)] == versions


def test_a_dry_run_writes_nothing(catalog: Catalog) -> None:
    register(catalog, registration(1))
    register(catalog, registration(2))
    add_modalities(catalog, [stamped(3, 2 * ORPHAN_AFTER)])
    backdate(catalog.modalities, 2 * ORPHAN_AFTER)
    before = [item.operation_id for item in history(catalog)]
    result = compact(catalog, dry_run=True)
    assert result.dry_run
    assert [item.files_before for item in result.tables] == [2, 3, 0]
    assert [row.rec_id for row in result.removed] == [rec_id(3)]
    assert [item.operation_id for item in history(catalog)] == before


def test_files_that_lie_across_each_other_are_sorted(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings that arrive years late, in files that are too big to be merged with others."""
    for first in range(5):
        add_recordings(catalog, [recording(number) for number in range(first, 100, 5)])
    small = catalog.recordings.layout
    monkeypatch.setattr(catalog.recordings, "layout", replace(small, small_bytes=1, big_bytes=5000))
    assert depth(catalog.recordings.files()) == 5
    table = compact(catalog).tables[0]
    assert table.sorted
    assert depth(catalog.recordings.files()) <= 3
    assert catalog.list_recordings() == [recording(number) for number in range(100)]


def test_depth() -> None:
    files = [DataFile("a", 1, 1, "a", "c"), DataFile("b", 1, 1, "c", "d"), DataFile("c", 1, 1, "d1", "e")]
    assert depth(files) == 2
    assert depth([*files, DataFile("d", 1, 1, "b", "z")]) == 3
    assert depth([]) == 0


def test_a_frozen_catalog_is_left_alone(catalog: Catalog) -> None:
    catalog.participants.set_frozen("catalog/v2")
    for dry_run in (True, False):
        with pytest.raises(StorageError, match="frozen by a rebuild"):
            compact(catalog, dry_run=dry_run)


def test_it_needs_the_writing_role(home: Path) -> None:
    data = DataInterface("local")
    with pytest.raises(WritesNotEnabledError):
        data.compact_catalog()
    assert data.compact_catalog(dry_run=True).removed == ()


# --- rows of dead runs


def test_what_dead_runs_left_is_removed_when_it_is_a_day_old(catalog: Catalog) -> None:
    register(catalog, registration(1, stamped(1, 9 * ORPHAN_AFTER)))
    dead = [stamped(2, timedelta()), stamped(2, timedelta(), "mic")]
    add_modalities(catalog, [*dead, modality(4)])
    backdate(catalog.modalities, 2 * ORPHAN_AFTER)
    # By a machine whose clock is years behind.
    add_modalities(catalog, [stamped(3, 2000 * ORPHAN_AFTER)])
    assert list(compact(catalog).removed) == dead
    left = catalog.modalities.select(tail="ORDER BY rec_id")
    assert [row.rec_id for row in left] == [rec_id(1), rec_id(3), rec_id(4)]
    assert compact(catalog).removed == ()


def test_a_row_that_was_written_again_is_young(catalog: Catalog) -> None:
    """A run that counts on it does so; the removal must not take it from under its recording."""
    add_modalities(catalog, [stamped(1, 9 * ORPHAN_AFTER)])
    backdate(catalog.modalities, 2 * ORPHAN_AFTER)
    again = stamped(1, 8 * ORPHAN_AFTER)
    catalog.modalities.compare_and_swap(lambda: Change([again], these_modalities([again]), "test"))
    assert compact(catalog).removed == ()


@pytest.mark.parametrize("off", [timedelta(days=1826), timedelta(minutes=-16)])
def test_with_another_clock_than_the_servers_nothing_is_removed(catalog: Catalog, off: timedelta) -> None:
    for number in (1, 2):
        register(catalog, registration(number, stamped(number, 9 * ORPHAN_AFTER)))
    add_modalities(catalog, [stamped(3, 9 * ORPHAN_AFTER)])
    backdate(catalog.modalities, 2 * ORPHAN_AFTER)
    result = compact(catalog, clock=lambda: datetime.now(UTC) + off)
    assert "this machine's clock is" in result.refused
    assert result.removed == () and len(catalog.modalities.select()) == 3
    # What needs no clock is done.
    assert [item.files_after for item in result.tables] == [1, 1, 0]
    assert [row.rec_id for row in compact(catalog).removed] == [rec_id(3)]


def test_of_the_same_bytes_under_another_name(catalog: Catalog) -> None:
    add_recordings(catalog, [recording(1)])
    other = modality(1, rec_id=rec_id(2), metadata={REGISTERED_AT_KEY: "2020-01-01T00:00:00"})
    add_modalities(catalog, [stamped(1, 9 * ORPHAN_AFTER), other])
    backdate(catalog.modalities, 2 * ORPHAN_AFTER)
    assert compact(catalog).removed == (other,)
    assert [row.rec_id for row in catalog.list_modalities()] == [rec_id(1)]


def test_many_of_them(catalog: Catalog) -> None:
    add_modalities(catalog, [stamped(number, 2 * ORPHAN_AFTER) for number in range(250)])
    backdate(catalog.modalities, 2 * ORPHAN_AFTER)
    register(catalog, registration(300))
    assert len(compact(catalog).removed) == 250
    assert catalog.modalities.select() == [modality(300)]


def test_a_run_that_commits_at_the_last_moment_keeps_its_rows(tmp_path: Path) -> None:
    """Its recording arrives between the look and the commit, while somebody else makes the commit fail."""
    tap = Tap()
    catalog = Place(tmp_path).catalog(tap=tap)
    add_modalities(catalog, [stamped(1, 2 * ORPHAN_AFTER), stamped(2, 2 * ORPHAN_AFTER)])
    backdate(catalog.modalities, 2 * ORPHAN_AFTER)
    other = Place(tmp_path).catalog()

    def late() -> None:
        add_recordings(other, [recording(1)])
        add_modalities(other, [modality(5)])

    tap.before(commit_of("modalities"), late)
    assert [row.rec_id for row in compact(catalog).removed] == [rec_id(2)]
    assert [row.rec_id for row in catalog.list_modalities()] == [rec_id(1)]


# --- races


@pytest.fixture(scope="module")
def writers() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(WRITERS + 1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def register_some(place: Place, writer: int) -> list[str]:
    catalog = place.catalog()
    numbers = range(writer * EACH, (writer + 1) * EACH)
    return [str(register(catalog, registration(number, participants=("Everybody",)))[1]) for number in numbers]


def compact_again_and_again(place: Place) -> int:
    """Until everybody's recordings are there; how many times it did."""
    catalog = place.catalog()
    for turn in range(1000):
        found = len(catalog.list_recordings())
        assert found <= WRITERS * EACH
        if found == WRITERS * EACH:
            return turn
        # Raised where others were faster too often: the next turn has it.
        with contextlib.suppress(StorageError):
            compact(catalog)
    raise AssertionError


@pytest.mark.slow
def test_registrations_while_somebody_compacts(weed_buckets: Buckets, writers: ProcessPoolExecutor) -> None:
    server = weed_buckets.server
    place = Place(None, server.endpoint_url, weed_buckets.assets, server.access_key, server.secret_key)
    place.home().initialize()
    compacting = writers.submit(compact_again_and_again, place)
    done = [writers.submit(register_some, place, writer) for writer in range(WRITERS)]
    assert [job.result() for job in done] == [["created"] * EACH] * WRITERS
    assert compacting.result() > 0
    catalog = place.catalog()
    everybody = range(WRITERS * EACH)
    assert Counter(row.rec_id for row in catalog.list_recordings()) == Counter(map(rec_id, everybody))
    workers = Counter((row.recording_hash, row.name) for row in catalog.modalities.select())
    assert workers == Counter((recording_hash(number), "eeg_a") for number in everybody)
    assert [row.display_name for row in catalog.list_participants()] == ["Everybody"]


def test_two_that_merge_the_same_files(tmp_path: Path) -> None:
    """Delta's own optimizer rebases the second onto the first, and every row is there twice."""
    tap = Tap()
    catalog = Place(tmp_path).catalog(tap=tap)
    for number in range(4):
        add_recordings(catalog, [recording(number)])
    other = Place(tmp_path).catalog()
    other.refresh()
    tap.before(commit_of("recordings"), lambda: other.recordings.merge_files(1 << 20))
    with pytest.raises(LostRaceError):
        catalog.recordings.merge_files(1 << 20)
    assert catalog.list_recordings() == [recording(number) for number in range(4)]
    # The loser's file is there and in no version: it goes when it is 90 days old.
    assert len(list(Path(catalog.recordings.uri).glob("*.parquet"))) == 6
    assert len(DeltaTable(catalog.recordings.uri).file_uris()) == 1


def test_a_merge_beside_those_who_append(tmp_path: Path) -> None:
    """All that it takes away is still there: it comes after them, without being made again."""
    tap = Tap()
    catalog, other = Place(tmp_path).catalog(tap=tap), Place(tmp_path).catalog()
    for number in range(4):
        add_recordings(catalog, [recording(number)])
    tap.before(commit_of("recordings"), lambda: add_recordings(other, [recording(7)]))
    tap.before(commit_of("recordings"), lambda: add_recordings(other, [recording(8)]))
    catalog.recordings.merge_files(1 << 20)
    assert catalog.list_recordings() == [recording(number) for number in (0, 1, 2, 3, 7, 8)]
    assert len(catalog.recordings.files()) == 3
    assert catalog.recordings.history(1)[0]["ursa_operation"] == "compact"


def test_files_that_do_not_fit_together_are_left(catalog: Catalog) -> None:
    for number in range(2):
        add_recordings(catalog, [recording(number, metadata={"text": os.urandom(2000).hex()})])
    version = catalog.recordings.version
    catalog.recordings.merge_files(1 + max(file.size_bytes for file in catalog.recordings.files()))
    assert catalog.recordings.version == version
    assert len(catalog.list_recordings()) == 2


def test_the_everyday_merge_does_not_grow_with_the_table(catalog: Catalog) -> None:
    """Files past the small size are never written again by those who register."""
    small = catalog.recordings.layout
    catalog.recordings.layout = replace(small, often_bytes=9000)
    for number in range(2 * SMALL_EVERY):
        add_recordings(catalog, [recording(number, metadata={"text": os.urandom(2000).hex()})])
    big = {file.path for file in catalog.recordings.files() if file.size_bytes >= 9000}
    assert big
    for number in range(2 * SMALL_EVERY, 3 * SMALL_EVERY):
        add_recordings(catalog, [recording(number)])
    assert big <= {file.path for file in catalog.recordings.files()}
