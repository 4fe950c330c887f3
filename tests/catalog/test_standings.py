"""How many recordings stand: what is said of each, how old it may be, and how much is looked up at once."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from deltalake import DeltaTable
from homes import Place, add_modalities, add_recordings, modality, rec_id, recording, registration

import ursa.catalog.standings as standings_module
from ursa.catalog._pointer import write_pointer
from ursa.catalog.catalog import Catalog
from ursa.catalog.standings import Standing, Standings
from ursa.errors import StorageError
from ursa.register.commit import register, register_all


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Place(tmp_path).catalog()


def of_all(catalog: Catalog, names: Sequence[str], at_once: int = 10_000) -> dict[str, Standing | None]:
    """What is said of each, in turn."""
    standings, until = Standings(lambda: catalog, names, at_once), 0
    said = {}
    while until < len(names):
        at, until = until, standings.begin(until)
        said |= {name: standings.of(name) for name in names[at:until]}
    return said


def remove(root: Path, number: int) -> None:
    """As somebody else's undo would."""
    DeltaTable(Place(root).catalog().recordings.uri).delete(f"rec_id = '{rec_id(number)}'")


@pytest.mark.parametrize("at_once", [10_000, 7])
@pytest.mark.parametrize("asked", [range(40), range(0, 40, 13), (3, 39), (5,), (100, 101)])
def test_the_same_as_one_by_one(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, asked: Sequence[int], at_once: int
) -> None:
    monkeypatch.setattr(standings_module, "_ROWS_AT_ONCE", 3)
    numbers = random.Random(1).sample(range(40), 40)
    for part in (numbers[:25], numbers[25:]):  # two files, neither of them in order
        workers = [(modality(number), modality(number, "mic", "")) for number in part]
        wanted = [registration(number, *own) for number, own in zip(part, workers, strict=True)]
        register_all(catalog, wanted)
    add_modalities(catalog, [modality(3, "gaze"), modality(50)])  # of runs that have not committed
    names = [rec_id(number) for number in asked]
    said = of_all(catalog, names, at_once)
    expected = catalog.registered(names)
    assert said == {name: expected.get(name) for name in names}
    assert all(standing is None or len(standing[1]) == 2 for standing in said.values())


def test_who_has_no_rec_id_is_not_asked_about(catalog: Catalog) -> None:
    register(catalog, registration(1))
    assert [standing is not None for standing in of_all(catalog, ["", rec_id(1), ""]).values()] == [False, True]
    assert of_all(catalog, ["", ""]) == {"": None}
    assert of_all(catalog, []) == {}


def test_no_more_than_there_is_room_for(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [rec_id(number) for number in range(30)]
    register_all(catalog, [registration(number) for number in range(30)])
    each = sum(file.size_bytes for table in (catalog.recordings, catalog.modalities) for file in table.files()) / 30
    monkeypatch.setattr(standings_module, "_MOST_BYTES", 5 * 7.5 * each)
    standings = Standings(lambda: catalog, names)
    assert standings.begin(0) == 7
    assert standings.begin(5) == 7
    assert standings.begin(7) == 14
    monkeypatch.setattr(standings_module, "_MOST_BYTES", 0)
    assert standings.begin(20) == 21
    assert standings.of(names[20]) and not standings.of(names[7])


def test_what_is_said_is_not_old(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_all(catalog, [registration(number) for number in range(4)])
    names = [rec_id(number) for number in range(4)]
    standings = Standings(lambda: catalog, names)
    standings.begin(0)
    remove(tmp_path, 2)
    other = Place(tmp_path).catalog()
    register(other, registration(3, modality(3, "mic", "b"), overwrite=True))
    monkeypatch.setattr(standings_module, "FRESH_FOR_S", 0.0)
    assert standings.of(names[1]) == catalog.registered(names)[names[1]]
    assert standings.of(names[2]) is None
    after = standings.of(names[3])
    assert after and {row.name for row in after[1]} == {"eeg_a", "mic_b"}


def test_a_group_that_begins_sees_what_was_registered_meanwhile(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standings_module, "FRESH_FOR_S", 0.0)
    names = [rec_id(number) for number in range(4)]
    standings = Standings(lambda: catalog, names)
    assert standings.begin(0) == 4
    register(Place(tmp_path).catalog(), registration(3))
    assert standings.of(names[3]) is None and standings.now(names[3])
    assert standings.begin(2) == 4
    assert standings.of(names[3])


def test_a_rebuild_that_was_put_in_place_is_followed(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(catalog, registration(1))
    standings = Standings(lambda: catalog, [rec_id(1)])
    standings.begin(0)
    home = Place(tmp_path).home()
    home.create_tables("catalog/v2")
    Place(tmp_path).catalog().recordings.set_frozen("catalog/v2")
    write_pointer(home.store, "ursa/", "catalog/v2", by="a", replacing=catalog.pointer)
    monkeypatch.setattr(standings_module, "FRESH_FOR_S", 0.0)
    assert standings.of(rec_id(1)) is None
    assert catalog.pointer.prefix == "catalog/v2"


def test_a_lookup_that_failed_is_made_again(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(catalog, registration(1))
    standings = Standings(lambda: catalog, [rec_id(1), rec_id(2)])
    standings.begin(0)
    monkeypatch.setattr(standings_module, "FRESH_FOR_S", 0.0)
    other = Place(tmp_path).elsewhere(tmp_path / "elsewhere").catalog()
    add_modalities(other, [modality(2)])
    add_recordings(other, [recording(2)])
    table, away = tmp_path / "assets" / "ursa" / "catalog" / "v1" / "modalities", tmp_path / "away"
    away.mkdir()
    for file in table.glob("*.parquet"):
        shutil.move(file, away)
    with pytest.raises(StorageError):
        standings.of(rec_id(1))
    for file in away.iterdir():
        shutil.move(file, table)
    assert standings.of(rec_id(1)) and standings.of(rec_id(2))
