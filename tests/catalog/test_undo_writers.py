"""An undo among others: who registers meanwhile keeps what they have registered, whole, and readers see whole recordings."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from bucket_tap import Tap, commit_of
from homes import Place, add_modalities, modality, rec_id, recording, registration

import ursa.catalog.turning as turning
from ursa.catalog.catalog import Catalog
from ursa.catalog.history import history
from ursa.catalog.metadata import workers_of
from ursa.catalog.tables import Change
from ursa.catalog.undo import plan_undo, undo
from ursa.catalog.where import any_of, these_modalities
from ursa.errors import StorageError, UrsaError
from ursa.register.commit import register


@pytest.fixture(autouse=True)
def nobody_is_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader has to be waited for."""
    monkeypatch.setattr(turning, "READERS_S", 0.0)


@pytest.fixture
def catalog(tmp_path: Path, tap: Tap) -> Catalog:
    return Place(tmp_path).catalog(tap=tap)


@pytest.fixture
def tap() -> Tap:
    """What the requests of ``catalog`` go through: an undo has decided what to commit, and has not committed it."""
    return Tap()


@pytest.fixture
def other(tmp_path: Path, catalog: Catalog) -> Catalog:
    """The same catalog as another machine has it open."""
    return Place(Path(catalog.home.base_uri).parent).catalog()


def newest(catalog: Catalog) -> str:
    return history(catalog, 1)[0].operation_id


def whole(catalog: Catalog) -> dict[str, set[tuple[str, str]]]:
    """rec_id → its modalities, which are those that its row covers."""
    catalog.refresh()
    names = [row.rec_id for row in catalog.recordings.select()]
    found = catalog.registered(names)
    seen = {name: {(row.modality, row.worker_id) for row in rows} for name, (_, rows) in found.items()}
    assert seen == {name: workers_of(row) for name, (row, _) in found.items()}
    return seen


def test_registered_again_before_its_modalities_go(catalog: Catalog, other: Catalog, tap: Tap) -> None:
    """The rig's laptop finds the recording gone and its modality rows equal: it writes none, and they must not go."""
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(2))
    plan = plan_undo(catalog, first)
    tap.before(commit_of("modalities"), lambda: register(other, registration(2)))
    undo(catalog, plan)
    assert whole(other).keys() == {rec_id(1), rec_id(2)}
    assert other.modalities_for([recording(2)]) == [modality(2)]


def test_registered_again_after_the_recordings(
    catalog: Catalog, other: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole and with its own rows, in whichever way it was registered; a new one as well."""
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(2))
    plan, settle = plan_undo(catalog, first), turning.Turning._settle

    def late(run: turning.Turning) -> None:
        register(other, registration(2, modality(2, bytes=77), modality(2, "mic", "")))
        register(other, registration(3))
        settle(run)

    monkeypatch.setattr(turning.Turning, "_settle", late)
    undo(catalog, plan)
    assert whole(other).keys() == {rec_id(1), rec_id(2), rec_id(3)}
    assert [row.bytes for row in other.modalities_for([recording(2)])] == [77, 10]


def test_registered_just_before_the_recordings(catalog: Catalog, other: Catalog, tap: Tap) -> None:
    """The plan did not show it: nothing that a reader sees is changed."""
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(2))
    plan = plan_undo(catalog, first)
    tap.before(commit_of("recordings"), lambda: register(other, registration(3)))
    with pytest.raises(StorageError, match=f"nothing was changed.*{rec_id(3)}"):
        undo(catalog, plan)
    assert len(whole(other)) == 3
    undo(catalog, plan_undo(catalog, first))
    assert whole(other).keys() == {rec_id(1)}


def test_overwritten_just_before_the_modalities(catalog: Catalog, other: Catalog, tap: Tap) -> None:
    """The rows that the plan replaces are not those that are there."""
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(1, modality(1, bytes=77), overwrite=True))
    plan = plan_undo(catalog, first)
    latest = registration(1, modality(1, bytes=88), overwrite=True)
    tap.before(commit_of("modalities"), lambda: register(other, latest))
    with pytest.raises(StorageError, match=f"nothing was changed.*{rec_id(1)}"):
        undo(catalog, plan)
    whole(other)
    assert other.modalities_for([recording(1)]) == [modality(1, bytes=88)]


def test_a_compaction_meanwhile(catalog: Catalog, other: Catalog, tap: Tap) -> None:
    for number in (1, 2, 3):
        register(catalog, registration(number))
    first = history(catalog)[2].operation_id
    plan = plan_undo(catalog, first)
    other.refresh()
    tap.before(commit_of("recordings"), lambda: other.recordings.merge_files(10**9))
    other.modalities.merge_files(10**9)
    undo(catalog, plan)
    assert whole(other).keys() == {rec_id(1)}


@pytest.mark.parametrize("edited", [1, 2])
def test_edited_after_the_plan(catalog: Catalog, other: Catalog, edited: int) -> None:
    """Whether the plan showed the recording or not, what would be taken away is not what it showed."""
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(2))
    plan = plan_undo(catalog, first)
    row = replace(other.find_recording(rec_id(edited)), duration_s=99.0)
    other.recordings.compare_and_swap(lambda: Change([row], any_of("rec_id", [row.rec_id]), "edit"))
    with pytest.raises(StorageError, match=f"since the undo was planned: nothing was changed.*{rec_id(edited)}"):
        undo(catalog, plan)
    assert len(whole(other)) == 2


def test_a_run_that_lost_writes_over_what_came_back(catalog: Catalog, other: Catalog, tap: Tap) -> None:
    """Modalities are back, their recording is not yet: to another run they look like nobody's."""
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(2))
    second = newest(catalog)
    undo(catalog, plan_undo(catalog, first))
    strange = modality(2, bytes=77)
    tap.before(
        commit_of("recordings"),
        lambda: other.modalities.compare_and_swap(
            lambda: Change([strange], these_modalities([strange]), "ingest:modalities")
        ),
    )
    undo(catalog, plan_undo(catalog, second))
    whole(other)
    assert other.modalities_for([recording(2)]) == [modality(2)]


def test_frozen_in_the_middle(catalog: Catalog, other: Catalog, tap: Tap) -> None:
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(2))

    def freeze() -> None:
        other.modalities.refresh()
        other.modalities.set_frozen("catalog/v2")

    tap.before(commit_of("modalities"), freeze)
    with pytest.raises(StorageError, match=r"frozen the catalog, catalog/v2 .* recordings are as they were then"):
        undo(catalog, plan_undo(catalog, first))
    assert whole(other).keys() == {rec_id(1)}


def test_participants_that_somebody_names(catalog: Catalog, other: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A participant who was new, and whom a recording that came meanwhile names, stays."""
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(2, participants=("Ada", "Zoë")))
    settle = turning.Turning._settle

    def late(run: turning.Turning) -> None:
        register(other, registration(3, participants=("Ada",)))
        settle(run)

    monkeypatch.setattr(turning.Turning, "_settle", late)
    undo(catalog, plan_undo(catalog, first))
    assert [row.display_name for row in other.list_participants()] == ["Ada"]


def test_another_catalog_was_put_in_place(catalog: Catalog) -> None:
    """A plan is of one catalog: its versions mean nothing in another one."""
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(2))
    plan = replace(plan_undo(catalog, first), prefix="catalog/v7")
    with pytest.raises(StorageError, match="another catalog in place since the undo was planned: nothing was changed"):
        undo(catalog, plan)
    assert len(whole(catalog)) == 2


def test_readers_of_a_merge(catalog: Catalog, other: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undone and done again, a reader always sees the workers that the row speaks of."""
    monkeypatch.setattr(turning, "READERS_S", 0.3)
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(1, modality(1, "mic", "")))
    second = newest(catalog)
    register(catalog, registration(2))
    third = newest(catalog)
    seen: list[dict[str, set[tuple[str, str]]]] = []
    wrong: list[Exception] = []
    ended = threading.Event()

    def read() -> None:
        try:
            while not ended.is_set():
                seen.append(whole(other))
        except (AssertionError, UrsaError) as error:
            wrong.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for operation in (first, third, second, third):
        undo(catalog, plan_undo(catalog, operation))
    ended.set()
    reader.join()
    assert not wrong
    assert {len(item[rec_id(1)]) for item in seen} == {1, 2} and {len(item) for item in seen} == {1, 2}


def test_rows_of_a_run_that_is_under_way(catalog: Catalog, other: Catalog) -> None:
    """Its modalities are there before the plan and its recording comes after the undo."""
    register(catalog, registration(1))
    first = newest(catalog)
    register(catalog, registration(2))
    add_modalities(other, [modality(3)])
    undo(catalog, plan_undo(catalog, first))
    register(other, registration(3))
    assert whole(catalog).keys() == {rec_id(1), rec_id(3)}
