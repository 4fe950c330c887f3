"""What changes on this machine's disk: it heals, accuses nobody, and nothing of it reaches the bucket."""

from __future__ import annotations

import errno
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from homes import Place, add_recordings, rec_id, recording, registration

from ursa.catalog.catalog import Catalog
from ursa.catalog.history import history
from ursa.catalog.replica.table import TableReplica
from ursa.catalog.undo import plan_undo, undo
from ursa.errors import StorageError
from ursa.policies import Action
from ursa.register.commit import register

NUMBERS = range(1, 30)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A catalog of some recordings, of which this machine has a copy."""
    place = Place(tmp_path)
    catalog = place.catalog()
    add_recordings(catalog, [recording(number) for number in NUMBERS])
    add_recordings(catalog, [recording(300)])
    catalog.list_recordings()
    return place


def copies(place: Place, glob: str) -> list[Path]:
    """Files of this machine's copy of the recordings' table."""
    assert place.root is not None
    return sorted((place.root / "cache").rglob(f"recordings/*/{glob}"))


def change(path: Path, data: bytes) -> None:
    """As a failing disk does: the other names of the file keep their content."""
    path.unlink()
    path.write_bytes(data)


def flipped(data: bytes, seed: int) -> bytes:
    """One bit of it is another."""
    chance = random.Random(seed)
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def elsewhere(place: Place, tmp_path: Path) -> Catalog:
    """The catalog on a machine that has never seen it."""
    return place.elsewhere(tmp_path / "another machine").catalog()


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_of_a_data_file(place: Place, tmp_path: Path, seed: int) -> None:
    expected = place.catalog().list_recordings()
    biggest = max(copies(place, "*.parquet"), key=lambda path: path.stat().st_size)
    change(biggest, flipped(biggest.read_bytes(), seed))
    assert place.catalog().list_recordings() == expected
    change(biggest, flipped(biggest.read_bytes(), seed))
    place.catalog().recordings.merge_files(1 << 40)
    assert elsewhere(place, tmp_path).list_recordings() == expected


def test_a_flipped_bit_while_the_process_has_read_the_file(place: Place, tmp_path: Path) -> None:
    catalog = place.catalog()
    expected = catalog.list_recordings()
    for path in copies(place, "*.parquet"):
        change(path, flipped(path.read_bytes(), 3))
    catalog.recordings.merge_files(1 << 40)
    assert elsewhere(place, tmp_path).list_recordings() == expected


def test_another_head_of_the_log_does_not_break_the_chain(place: Place, tmp_path: Path) -> None:
    """It changes while the process lives, which commits after it: every other machine would refuse that commit."""
    catalog = place.catalog()
    register(catalog, registration(1000))
    head = copies(place, "_delta_log/*.json")[-1]
    change(head, head.read_bytes().replace(b'"ursa_who":"ada"', b'"ursa_who":"eda"'))
    assert register(catalog, registration(1001))[1] is Action.CREATED
    assert {rec_id(1000), rec_id(1001)} <= {row.rec_id for row in elsewhere(place, tmp_path).list_recordings()}


def test_other_statistics_in_the_log_reach_no_checkpoint(place: Place, tmp_path: Path) -> None:
    """A least rec_id that is another one hides a recording, and a checkpoint would hide it from everybody."""
    first = copies(place, "_delta_log/*.json")[1]
    assert rec_id(1).encode() in first.read_bytes()
    change(first, first.read_bytes().replace(rec_id(1).encode(), rec_id(901).encode(), 1))
    catalog = place.catalog()
    assert catalog.find_recording(rec_id(1)).rec_id == rec_id(1)
    change(first, first.read_bytes().replace(rec_id(1).encode(), rec_id(901).encode(), 1))
    catalog.recordings.put_checkpoint()
    assert elsewhere(place, tmp_path).find_recording(rec_id(1)).rec_id == rec_id(1)


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: flipped(data, 1)]
)
def test_a_damaged_copy_of_the_head_accuses_nobody(place: Place, damage: Callable[[bytes], bytes]) -> None:
    head = copies(place, "_delta_log/*.json")[-1]
    change(head, damage(head.read_bytes()))
    for _ in range(2):
        assert len(place.catalog().list_recordings()) == len(NUMBERS) + 1
    assert register(place.catalog(), registration(1000))[1] is Action.CREATED


def test_a_cache_that_vanishes_under_a_process(place: Place) -> None:
    assert place.root is not None
    catalog = place.catalog()
    catalog.list_recordings()
    shutil.rmtree(place.root / "cache")
    assert register(catalog, registration(1000))[1] is Action.CREATED
    assert len(catalog.list_recordings()) == len(NUMBERS) + 2


def test_what_is_committed_is_told_though_the_disk_is_full(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bucket has acknowledged it: that this machine can't keep a copy takes nothing back."""
    catalog = place.catalog()
    catalog.refresh()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TableReplica, "advance", full)
    add_recordings(catalog, [recording(1000)])
    monkeypatch.undo()
    assert rec_id(1000) in {row.rec_id for row in catalog.list_recordings()}


# --- other tools


def table_of(place: Place) -> str:
    assert place.root is not None
    return str(place.root / "assets" / "ursa" / "catalog" / "v1" / "recordings")


def test_a_commit_of_another_tool_that_only_describes_itself(place: Place) -> None:
    """An empty append commits a commitInfo alone."""
    table = DeltaTable(table_of(place))
    log = Path(table_of(place), "_delta_log", f"{table.version() + 1:020}.json")
    log.write_text(json.dumps({"commitInfo": {"operation": "WRITE", "operationParameters": {"mode": "Append"}}}))
    assert len(place.catalog().list_recordings()) == len(NUMBERS) + 1
    assert register(place.catalog(), registration(1000))[1] is Action.CREATED


def test_a_table_in_partitions_is_read_and_not_written(place: Place) -> None:
    table = DeltaTable(table_of(place))
    rows = QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all()
    write_deltalake(table, rows, mode="overwrite", partition_by=["status"], schema_mode="overwrite")
    catalog = place.catalog()
    assert {row.status for row in catalog.list_recordings()} == {"raw"}
    with pytest.raises(StorageError, match="in partitions"):
        add_recordings(catalog, [recording(1000)])
    assert {row.status for row in place.catalog().list_recordings()} == {"raw"}


def test_a_feature_that_hides_rows_is_refused(place: Place) -> None:
    """Rows that another tool deletes by a vector would be shown, and a merge would bring them back."""
    table = DeltaTable(table_of(place))
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": ["deletionVectors"],
        "writerFeatures": ["deletionVectors"],
    }
    lines = [{"commitInfo": {"operation": "SET TBLPROPERTIES"}}, {"protocol": protocol}]
    log = Path(table_of(place), "_delta_log", f"{table.version() + 1:020}.json")
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(StorageError, match="deletionVectors"):
        place.catalog().list_recordings()
    assert copies(place, "*.parquet")


def test_a_name_that_an_undo_takes_away_is_written_again(tmp_path: Path) -> None:
    """The process that had written it goes on, and registers another recording of that participant."""
    place = Place(tmp_path)
    catalog = place.catalog()
    register(catalog, registration(1, participants=("Ann",)))
    first = place.catalog()
    operation = history(first)[0].operation_id
    register(catalog, registration(2, participants=("Bob",)))
    undo(first, plan_undo(first, operation))
    register(catalog, registration(3, participants=("Bob",)))
    assert [row.display_name for row in place.catalog().list_participants()] == ["Ann", "Bob"]
