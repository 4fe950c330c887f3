"""History and undo: who did what, and all three tables back to just after it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from homes import (
    AUTHOR,
    Place,
    add_modalities,
    add_recordings,
    modality,
    rec_id,
    recording,
    recording_hash,
    registration,
)

import ursa.catalog.turning as turning
import ursa.catalog.undo as undo_module
from ursa.catalog.catalog import Catalog
from ursa.catalog.compact import compact
from ursa.catalog.history import Operation, history
from ursa.catalog.metadata import WORKERS_KEY, workers_text
from ursa.catalog.tables import Change
from ursa.catalog.undo import UndoPlan, plan_undo, undo
from ursa.catalog.where import any_of
from ursa.errors import StorageError, UsageError
from ursa.register.commit import register

KILLED = Path(__file__).parent / "killed_undo.py"


@pytest.fixture(autouse=True)
def nobody_is_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader has to be waited for."""
    monkeypatch.setattr(turning, "READERS_S", 0.0)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Place(tmp_path).catalog()


def newest(catalog: Catalog) -> str:
    """The operation that was the last one."""
    return history(catalog, 1)[0].operation_id


def after(catalog: Catalog, *steps: Callable[[], object]) -> list[str]:
    """Do these one after the other; the operation of each."""
    done = []
    for step in steps:
        step()
        done.append(newest(catalog))
    return done


def ingest(catalog: Catalog, number: int, *modalities: Any, **fields: Any) -> Callable[[], object]:
    return lambda: register(catalog, registration(number, *modalities, **fields))


def state(catalog: Catalog) -> tuple[object, ...]:
    """All that a reader sees, and the rows that nobody sees."""
    hidden = catalog.modalities.select(tail="ORDER BY rec_id, modality, worker_id")
    return (*seen(catalog), hidden)


def seen(catalog: Catalog) -> tuple[object, ...]:
    """All that a reader sees."""
    return catalog.list_recordings(), catalog.list_modalities(), catalog.list_participants()


# --- history


def test_an_ingest_is_one_operation(catalog: Catalog) -> None:
    register(catalog, registration(1, modality(1), modality(1, "mic", ""), participants=("Ada",)))
    ingested, created = history(catalog)
    assert ingested.operation == "ingest:created"
    assert (ingested.who, ingested.host, ingested.version) == (AUTHOR.who, AUTHOR.host, AUTHOR.version)
    assert ingested.rows == {"recordings": 1, "modalities": 2, "participants": 1}
    assert ingested.versions == {"recordings": 1, "modalities": 1, "participants": 1}
    assert abs(datetime.now(UTC) - ingested.at) < timedelta(minutes=5)
    assert created.operation == "create"
    assert created.versions == {"recordings": 0, "modalities": 0, "participants": 0}


def test_newest_first_so_many_and_since(catalog: Catalog) -> None:
    done = after(catalog, *(ingest(catalog, number) for number in range(4)))
    assert [item.operation_id for item in history(catalog)][:4] == done[::-1]
    assert [item.operation_id for item in history(catalog, 2)] == done[:1:-1]
    third = history(catalog)[1]
    assert [item.operation_id for item in history(catalog, since=third.at)] == done[:1:-1]


def test_every_kind_of_commit_is_shown(catalog: Catalog) -> None:
    register(catalog, registration(1))
    register(catalog, registration(2))
    catalog.recordings.set_frozen("catalog/v2")
    catalog.recordings.set_frozen(None)
    compact(catalog)
    undo(catalog, plan_undo(catalog, history(catalog)[-2].operation_id))
    assert [item.operation for item in history(catalog)] == [
        "undo",
        "compact",
        "thaw",
        "freeze",
        "ingest:created",
        "ingest:created",
        "create",
    ]


def test_a_commit_of_another_tool(catalog: Catalog) -> None:
    register(catalog, registration(1))
    DeltaTable(catalog.recordings.uri).delete("rec_id = 'none'")
    DeltaTable(catalog.recordings.uri).delete()
    theirs = history(catalog)[0]
    assert (theirs.operation, theirs.operation_id, theirs.who) == ("delete", "recordings@2", "")
    undo(catalog, plan_undo(catalog, history(catalog)[1].operation_id))
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1)]


# --- undo


def test_undo_of_an_ingest(catalog: Catalog) -> None:
    (first,) = after(catalog, ingest(catalog, 1, participants=("Ada",)))
    before = state(catalog)
    after(catalog, ingest(catalog, 2, participants=("Zoë",)), ingest(catalog, 3))
    plan = plan_undo(catalog, first)
    assert (plan.disappear, plan.reappear, plan.change) == ((rec_id(2), rec_id(3)), (), ())
    assert len(catalog.list_recordings()) == 3
    undo(catalog, plan)
    assert state(catalog) == before == state(Place(Path(catalog.home.base_uri).parent).catalog())
    assert plan_undo(catalog, first).nothing
    # The participant of the recording that is gone is made again where she is needed again.
    register(catalog, registration(4, participants=("Zoë",)))
    assert [row.display_name for row in catalog.list_participants()] == ["Ada", "Zoë"]


def test_undo_of_an_overwrite(catalog: Catalog) -> None:
    (first,) = after(catalog, ingest(catalog, 1), ingest(catalog, 2))[:1]
    before = state(catalog)
    second = newest(catalog)
    register(catalog, registration(1, modality(1, bytes=77), overwrite=True, status="new"))
    plan = plan_undo(catalog, second)
    assert (plan.disappear, plan.reappear, plan.change) == ((), (), (rec_id(1),))
    undo(catalog, plan)
    assert state(catalog) == before
    assert plan_undo(catalog, first).disappear == (rec_id(2),)


def test_undo_of_a_merge(catalog: Catalog) -> None:
    (first,) = after(catalog, ingest(catalog, 1))
    before = state(catalog)
    register(catalog, registration(1, modality(1, "mic", ""), participants=("Ada",)))
    plan = plan_undo(catalog, first)
    assert (plan.disappear, plan.change) == ((), (rec_id(1),))
    undo(catalog, plan)
    assert state(catalog) == before


def test_undo_of_a_modality_alone(catalog: Catalog) -> None:
    (first,) = after(catalog, ingest(catalog, 1))
    before = state(catalog)
    add_modalities(catalog, [modality(1, "mic", "")])
    both = workers_text([modality(1), modality(1, "mic", "")])
    change = Change(
        [recording(1, metadata={WORKERS_KEY: both})], any_of("rec_id", [rec_id(1)]), "register_modality:error"
    )
    catalog.recordings.compare_and_swap(lambda: change)
    plan = plan_undo(catalog, first)
    assert plan.change == (rec_id(1),)
    undo(catalog, plan)
    assert state(catalog) == before


def test_a_row_that_nobody_sees_is_left_alone(catalog: Catalog) -> None:
    """A run that has written its modalities and not its recording yet is alive, for all we know."""
    (first,) = after(catalog, ingest(catalog, 1))
    add_modalities(catalog, [modality(2), modality(1, "notes", "")])
    assert plan_undo(catalog, first).nothing
    register(catalog, registration(3))
    undo(catalog, plan_undo(catalog, first))
    assert len(catalog.modalities.select()) == 3
    assert catalog.list_modalities() == [modality(1)]


def test_an_undo_is_undone(catalog: Catalog) -> None:
    first, third = after(catalog, ingest(catalog, 1), ingest(catalog, 2), ingest(catalog, 3))[::2]
    register(catalog, registration(1, modality(1, bytes=77), overwrite=True))
    fourth = newest(catalog)
    all_of_it = state(catalog)
    undo(catalog, plan_undo(catalog, first))
    undone = newest(catalog)
    register(catalog, registration(5))
    plan = plan_undo(catalog, fourth)
    assert (plan.disappear, plan.reappear, plan.change) == ((rec_id(5),), (rec_id(2), rec_id(3)), (rec_id(1),))
    undo(catalog, plan)
    assert state(catalog) == all_of_it
    assert plan_undo(catalog, undone).disappear == (rec_id(2), rec_id(3))
    assert plan_undo(catalog, third).change == (rec_id(1),)


def test_undo_across_compactions(catalog: Catalog) -> None:
    (first,) = after(catalog, ingest(catalog, 1), ingest(catalog, 2))[:1]
    compact(catalog)
    register(catalog, registration(3))
    compact(catalog)
    undo(catalog, plan_undo(catalog, first))
    assert catalog.list_modalities() == [modality(1)]
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1)]


def test_a_compaction_changes_nothing_to_undo(catalog: Catalog) -> None:
    last = after(catalog, ingest(catalog, 1), ingest(catalog, 2))[-1]
    compact(catalog)
    assert plan_undo(catalog, last).nothing


def test_modalities_that_another_run_had_written(catalog: Catalog) -> None:
    """A group commit writes modalities for two recordings and dies between; a second run finds one's there, and commits.

    Later a third run commits under the first one's operation id, as a group does whose member was overtaken.
    """
    group = "0" * 32
    rows = [modality(1), modality(2)]
    catalog.modalities.compare_and_swap(lambda: Change(rows, None, "ingest:modalities", group))
    covering = {WORKERS_KEY: workers_text([modality(1)])}
    add_recordings(catalog, [recording(1, metadata=covering)])
    second = newest(catalog)
    late = recording(2, metadata=covering)
    catalog.recordings.compare_and_swap(lambda: Change([late], None, "ingest:created", group))
    plan = plan_undo(catalog, second)
    assert plan.disappear == (rec_id(2),)
    undo(catalog, plan)
    assert catalog.list_modalities() == [modality(1)]


def test_the_start_of_an_id_is_enough(catalog: Catalog) -> None:
    first, second = after(catalog, ingest(catalog, 1), ingest(catalog, 2))
    length = next(n for n in range(1, 33) if first[:n] != second[:n] and len(_starting(catalog, first[:n])) == 1)
    assert plan_undo(catalog, first[:length]).operation.operation_id == first


def _starting(catalog: Catalog, prefix: str) -> list[Operation]:
    return [item for item in history(catalog) if item.operation_id.startswith(prefix)]


def test_an_unknown_operation(catalog: Catalog) -> None:
    for name in ("", "nobody"):
        with pytest.raises(UsageError, match="reaches back to 20") as caught:
            plan_undo(catalog, name)
        assert "ursa catalog history" in (caught.value.hint or "")


def test_an_id_that_several_have(catalog: Catalog) -> None:
    for number, name in enumerate(("abc1", "abc2")):
        row = recording(number)
        catalog.recordings.compare_and_swap(lambda row=row, name=name: Change([row], None, "test", name))
    with pytest.raises(UsageError, match="2 operations start with it"):
        plan_undo(catalog, "abc")
    assert plan_undo(catalog, "abc1").disappear == (rec_id(1),)


# --- refusals


def test_somebody_commits_after_the_plan(tmp_path: Path, catalog: Catalog) -> None:
    (first,) = after(catalog, ingest(catalog, 1), ingest(catalog, 2))[:1]
    plan = plan_undo(catalog, first)
    register(Place(tmp_path).catalog(), registration(3))
    with pytest.raises(StorageError, match="since the undo was planned: nothing was changed"):
        undo(catalog, plan)
    assert len(catalog.list_recordings()) == 3


def test_a_frozen_catalog(catalog: Catalog) -> None:
    (first,) = after(catalog, ingest(catalog, 1), ingest(catalog, 2))[:1]
    plan = plan_undo(catalog, first)
    catalog.modalities.set_frozen("catalog/v2")
    for action in (lambda: plan_undo(catalog, first), lambda: undo(catalog, plan)):
        with pytest.raises(StorageError, match="frozen by a rebuild"):
            action()
    assert len(catalog.list_recordings()) == 2


def test_a_time_when_it_was_frozen(catalog: Catalog) -> None:
    register(catalog, registration(1))
    catalog.recordings.set_frozen("catalog/v2")
    frozen = newest(catalog)
    catalog.recordings.set_frozen(None)
    register(catalog, registration(2))
    undo(catalog, plan_undo(catalog, frozen))
    assert catalog.recordings.frozen is None
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1)]


def test_rows_that_are_gone_for_good(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = after(catalog, ingest(catalog, 1), ingest(catalog, 2))[:1]
    before = state(catalog)
    catalog.recordings.write_checkpoint()
    Path(catalog.recordings.uri, "_delta_log", f"{0:020}.json").unlink()
    # A machine that has read them has them.
    assert plan_undo(Place(tmp_path).catalog(), first).disappear == (rec_id(2),)
    catalog = Place(tmp_path).elsewhere(tmp_path / "elsewhere").catalog()
    assert state(catalog) == before
    with pytest.raises(StorageError, match="version 1"):
        plan_undo(catalog, first)
    monkeypatch.setattr(undo_module, "RETENTION_DAYS", 0)
    with pytest.raises(StorageError, match="are kept for 0 days") as caught:
        plan_undo(catalog, first)
    assert "Nothing was changed" in (caught.value.hint or "")


# --- killed


@pytest.mark.parametrize("point", [1, 2, 3])
def test_killed_between_the_tables_and_run_again(tmp_path: Path, catalog: Catalog, point: int) -> None:
    (first,) = after(catalog, ingest(catalog, 1, participants=("Ada",)))
    before = seen(catalog)
    last = after(catalog, ingest(catalog, 2, participants=("Zoë",)), ingest(catalog, 1, _other(), overwrite=True))[-1]
    end = seen(catalog)
    _kill(tmp_path, first, point)
    _whole(catalog)
    undo(catalog, plan_undo(catalog, first))
    assert seen(catalog) == before
    _kill(tmp_path, last, point)
    _whole(catalog)
    undo(catalog, plan_undo(catalog, last))
    assert seen(catalog) == end


def test_what_a_kill_between_the_tables_leaves(tmp_path: Path, catalog: Catalog) -> None:
    first = after(catalog, ingest(catalog, 1), ingest(catalog, 2))[0]
    _kill(tmp_path, first, 2)
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1)]
    assert catalog.list_modalities() == [modality(1)]
    assert len(catalog.modalities.select()) == 2


def _other() -> Any:
    return replace(modality(1), bytes=77)


def _kill(root: Path, operation: str, point: int) -> None:
    command = [sys.executable, str(KILLED), str(root), operation, str(point)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def _whole(catalog: Catalog) -> None:
    """Whatever recording is seen, its modality is."""
    seen = {row.recording_hash for row in catalog.list_recordings()}
    assert {row.recording_hash for row in catalog.list_modalities()} == seen
    assert recording_hash(1) in seen


def test_a_plan_says_nothing_is_to_do() -> None:
    same = {"recordings": 1, "modalities": 1, "participants": 1}
    operation = Operation("a", datetime(2026, 5, 20, tzinfo=UTC), "", "", "", "x", {}, {})
    assert UndoPlan(operation, (), (), (), same, same).nothing
    assert not UndoPlan(operation, (), (), (), same | {"recordings": 0}, same).nothing
