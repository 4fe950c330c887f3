"""Participants: ids derived by hand, the overview, and the backfill of names from the bucket."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from conftest import Buckets, MakeConfig
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface, participant_id
from ursa.catalog._pointer import Pointer, write_pointer
from ursa.catalog.catalog import Catalog
from ursa.catalog.rows import RecordingRow, normalize_name
from ursa.catalog.tables import CatalogTable, Change
from ursa.errors import RecordingNotFoundError, StorageError, UsageError, WritesNotEnabledError
from ursa.register.backfill import OPERATION
from ursa.register.participants import BackfillItem, BackfillPlan, State

ARIA, BO = "p_fb7cdd6357b63c7a", "p_3d099d0f13df9d0b"


def rec_id(number: int) -> str:
    return f"rec_20260520_{number:06}_ab"


def row(number: int, *participants: str, **fields: Any) -> RecordingRow:
    values = {
        "started_at": datetime(2026, 5, 1 + number % 28, tzinfo=UTC),
        "duration_s": 60.0,
        "participant_ids": participants,
        "metadata": {"manifest_recording_id": rec_id(number), "note": "kept"},
        "registered_at": datetime(2026, 6, 1, tzinfo=UTC),
        "registered_by": "ada@green-mantis",
    } | fields
    return RecordingRow(f"{number % 256:02x}{number:062x}", rec_id(number), **values)


@dataclass(frozen=True)
class Lab:
    """A ``local`` profile: its config, its directory, and a data interface that may write the catalog only."""

    config: Path
    root: Path
    data: DataInterface

    def again(self) -> DataInterface:
        """Somebody else's."""
        data = DataInterface("local", self.config)
        data.enable_writes()
        return data

    def add(self, *rows: RecordingRow) -> None:
        self.data._catalog.recordings.compare_and_swap(lambda: Change(rows, None, "test"))

    def put(self, name: str, content: bytes | str) -> Path:
        path = self.root / "constellation-data" / "recordings" / name / "participant.txt"
        path.parent.mkdir(parents=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def rows(self) -> dict[str, RecordingRow]:
        return {item.rec_id: item for item in self.again().list_recordings()}

    def names(self) -> dict[str, str]:
        return {item.participant_id: item.display_name for item in self.again().list_participants()}

    def commits(self, table: str) -> list[dict[str, Any]]:
        """The backfill's commits to a table, the latest first."""
        history = DeltaTable(self.data.catalog_location()[table]).history()
        return [entry for entry in history if entry.get("ursa_operation") == OPERATION]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    config = tmp_path / "ursa.yaml"
    config.write_text(yaml.safe_dump({"profiles": {"local": {"root": str(tmp_path / "lab")}}}), encoding="utf-8")
    data = DataInterface("local", config)
    data.enable_writes()
    return Lab(config, tmp_path / "lab", data)


def states(found: BackfillPlan) -> dict[str, State]:
    return {item.rec_id: item.state for item in found.items}


# --- ids


def test_ids_computed_by_hand() -> None:
    # printf 'aria lin' | sha256sum, the first 16 digits; and so on.
    by_hand = {
        ARIA: ("Aria Lin", "aria lin", "  ARIA\t Lin\n", "Aria\u00a0Lin", "aria\u3000lin"),
        BO: ("Bo", "BO", "bo "),
        "p_2752b88686847fa5": ("Zoë", "Zoe\u0308", "ZOË", " zOE\u0308"),
        "p_fc8f3e4f326926e3": ("Großmann", "GROSSMANN", "großmann"),
    }
    assert "p_" + hashlib.sha256(b"aria lin").hexdigest()[:16] == ARIA
    for key, names in by_hand.items():
        assert {participant_id(name) for name in names} == {key}, names
    # What looks alike is not the same: a Cyrillic A, a missing accent, a zero-width space.
    assert len({participant_id(name) for name in ("Aria Lin", "\u0410ria Lin", "Ari\u00e1 Lin", "Aria\u200b Lin")}) == 4
    for empty in ("", " \t\n", "\u3000"):
        with pytest.raises(UsageError, match="empty"):
            participant_id(empty)


@given(st.text(min_size=1), st.sampled_from(["NFC", "NFD"]), st.sampled_from([" ", "\t", "\u3000", " \n "]))
def test_an_id_outlives_what_a_laptop_does_to_a_name(name: str, form: Any, space: str) -> None:
    if not normalize_name(name):
        return
    wanted = participant_id(name)
    composed = unicodedata.normalize("NFC", name)
    assert participant_id(normalize_name(name)) == wanted
    assert participant_id(unicodedata.normalize(form, name)) == wanted
    assert participant_id(composed.casefold()) == wanted
    assert participant_id(space + space.join(composed.split()) + space) == wanted


@given(st.text("abcxyzåäöéñøšž", min_size=1))
def test_an_id_is_blind_to_case(name: str) -> None:
    assert participant_id(name) == participant_id(name.upper()) == participant_id(name.title())


# --- what is planned and done


def test_names_go_where_there_was_nobody(lab: Lab) -> None:
    lab.data.register_participant("Bo")
    before = [row(1), row(2), row(3), row(4), row(5, BO), row(6), row(7)]
    lab.add(*before)
    lab.put(rec_id(1), "Aria Lin\n")
    lab.put(rec_id(2), "\ufeff  aria  LIN ")
    lab.put(rec_id(3), b"")
    lab.put(rec_id(4), "Aria Lin\nBo\n")
    lab.put(rec_id(5), "Aria Lin")
    lab.put(rec_id(6), "__unknown__")
    wanted = {
        rec_id(1): State.ATTACH,
        rec_id(2): State.ATTACH,
        rec_id(3): State.EMPTY,
        rec_id(4): State.BROKEN,
        rec_id(6): State.EMPTY,
        rec_id(7): State.NO_FILE,
    }
    reader = DataInterface("local", lab.config)
    plan = reader.plan_backfill()
    assert states(plan) == wanted and (plan.to_write, plan.left_alone) == (2, 1)
    assert lab.rows() == {item.rec_id: item for item in before} and set(lab.names()) == {BO}
    with pytest.raises(WritesNotEnabledError, match="assets_rw"):
        reader.backfill_participants(plan=plan)

    told: list[BackfillItem] = []
    done = lab.data.backfill_participants(plan=plan, on_recording=told.append)
    assert states(done) == wanted | {rec_id(1): State.ATTACHED, rec_id(2): State.ATTACHED}
    assert tuple(told) == done.items and (done.participants_made, done.left_alone) == (1, 1)
    expected = {item.rec_id: item for item in before}
    for number in (1, 2):
        expected[rec_id(number)] = replace(expected[rec_id(number)], participant_ids=(ARIA,))
    assert lab.rows() == expected
    assert lab.names() == {BO: "Bo", ARIA: "Aria Lin"}
    broken = next(item.error for item in done.items if item.error)
    assert broken is not None and "more than one line" in broken.message
    assert f"recordings/{rec_id(4)}/participant.txt" in broken.message
    assert f"ursa participants backfill {rec_id(4)}" in str(broken.hint)


def test_one_operation_in_the_history_and_none_the_second_time(lab: Lab) -> None:
    lab.add(row(1), row(2))
    lab.put(rec_id(1), "Aria Lin")
    lab.put(rec_id(2), "Bo")
    assert lab.data.backfill_participants().participants_made == 2
    (people,), (recordings,) = lab.commits("participants"), lab.commits("recordings")
    assert people["ursa_operation_id"] == recordings["ursa_operation_id"]
    assert (people["ursa_rows"], recordings["ursa_rows"]) == ("2", "2")
    again = lab.data.backfill_participants()
    assert (again.items, again.left_alone, again.participants_made) == ((), 2, 0)
    assert len(lab.commits("participants")) == len(lab.commits("recordings")) == 1


def test_the_recordings_that_are_named(lab: Lab) -> None:
    lab.add(*(row(number) for number in (1, 2, 300)))
    for number in (1, 2, 300):
        lab.put(rec_id(number), "Aria Lin")
    refs = [rec_id(1), row(2).recording_hash, "rec_20260520_0003", rec_id(1)]
    assert list(states(lab.data.plan_backfill(refs))) == [rec_id(1), rec_id(2), rec_id(300)]
    lab.data.backfill_participants([rec_id(2)])
    assert {name for name, item in lab.rows().items() if item.participant_ids} == {rec_id(2)}
    with pytest.raises(RecordingNotFoundError, match="rec_nobody"):
        lab.data.plan_backfill([rec_id(1), "rec_nobody"])
    with pytest.raises(UsageError, match="not unique"):
        lab.data.plan_backfill(["rec_20260520_00000"])


def test_ids_without_a_row_get_the_name_that_leads_to_them(lab: Lab) -> None:
    before = [row(1, ARIA), row(2, ARIA, BO), row(3, BO), row(4, "P-017"), row(5, ARIA)]
    lab.add(*before)
    lab.put(rec_id(1), "Aria Lin")
    lab.put(rec_id(2), "Cleo")
    lab.put(rec_id(4), "P-017")
    lab.put(rec_id(5), "ARIA LIN")
    done = lab.data.backfill_participants()
    assert states(done) == {
        rec_id(1): State.NAMED,
        rec_id(2): State.OTHER,
        rec_id(3): State.NO_FILE,
        rec_id(5): State.NAMED,
    }
    assert done.left_alone == 1, "no name leads to P-017: its participant.txt is not read"
    assert lab.names() == {ARIA: "Aria Lin"} and lab.rows() == {item.rec_id: item for item in before}
    assert len(lab.commits("participants")) == 1 and lab.commits("recordings") == []
    assert states(lab.data.plan_backfill()) == {rec_id(2): State.OTHER, rec_id(3): State.NO_FILE}


def test_names_from_hostile_files(lab: Lab) -> None:
    contents: dict[int, bytes | str] = {
        1: "[red]Bo[/red]\u202e",
        2: "Bo\x1b[2J",
        3: b"Bo\xff",
        4: "Bo\u2028Cleo",
        5: "x" * 201,
        6: b"x" * (3 << 20),
        7: "Bo\x00",
        8: "é" * 200,
    }
    for number, content in contents.items():
        lab.add(row(number))
        lab.put(rec_id(number), content)
    done = lab.data.backfill_participants()
    assert {item.rec_id for item in done.items if item.state is State.ATTACHED} == {rec_id(1), rec_id(8)}
    reasons = {item.rec_id: item.error.message.split(": ", 1)[1] for item in done.items if item.error}
    for number, word in {2: "control", 3: "UTF-8", 4: "one line", 5: "201", 6: "more than 200", 7: "control"}.items():
        assert word in reasons[rec_id(number)], number
        assert reasons[rec_id(number)].isprintable()
    assert set(lab.names().values()) == {"[red]Bo[/red]\u202e", "é" * 200}


def test_a_rec_id_that_can_have_no_objects(lab: Lab) -> None:
    for number, name in enumerate(("../rec", "a/b", "a\nb", "..", "x" * 1100)):
        lab.add(replace(row(number), rec_id=name))
    lab.add(replace(row(9), rec_id=row(9).recording_hash))
    lab.put(row(9).recording_hash, "Bo")
    done = lab.data.backfill_participants()
    assert (done.count(State.NO_FILE), done.count(State.ATTACHED)) == (5, 1)


# --- others at the same time


def others_first(table: CatalogTable[Any], action: Callable[[], object]) -> None:
    """Have ``action`` done by somebody else right before our next commit to a table, after we have decided."""
    swap, left = table.compare_and_swap, [action]

    def overtaken(decide: Callable[[], Change[Any] | None]) -> bool:
        def deciding() -> Change[Any] | None:
            change = decide()
            if change is not None and left:
                left.pop()()
            return change

        return swap(deciding)

    table.compare_and_swap = overtaken  # type: ignore[method-assign]


def give(data: DataInterface, number: int, *participants: str) -> None:
    """As somebody who registers by hand."""
    data.register_recording(
        recording_hash=row(number).recording_hash, participant_ids=participants, on_conflict="merge_participants"
    )


def remove(data: DataInterface, number: int) -> None:
    """As an undo would."""
    DeltaTable(data.catalog_location()["recordings"]).delete(f"rec_id = '{rec_id(number)}'")


@pytest.mark.parametrize("moment", ["planned", "decided"])
def test_whoever_got_a_participant_meanwhile_keeps_it(lab: Lab, moment: str) -> None:
    lab.add(*(row(number) for number in (1, 2, 3)))
    for number, name in enumerate(("Aria Lin", "Cleo", "Dan"), start=1):
        lab.put(rec_id(number), name)
    plan = lab.data.plan_backfill()

    def meanwhile() -> None:
        other = lab.again()
        give(other, 2, BO)
        remove(other, 3)

    if moment == "planned":
        meanwhile()
    else:
        others_first(lab.data._catalog.recordings, meanwhile)
    done = lab.data.backfill_participants(plan=plan)
    assert states(done) == {rec_id(1): State.ATTACHED, rec_id(2): State.OVERTAKEN, rec_id(3): State.GONE}
    assert {name: item.participant_ids for name, item in lab.rows().items()} == {rec_id(1): (ARIA,), rec_id(2): (BO,)}
    if moment == "planned":
        assert lab.names() == {ARIA: "Aria Lin"}, "nobody gets a row for a recording that is left out"


def test_two_backfills_at_once_make_one_row(lab: Lab) -> None:
    lab.add(row(1), row(2, BO))
    lab.put(rec_id(1), "Aria Lin")
    lab.put(rec_id(2), "Bo")
    plan = lab.data.plan_backfill()
    others_first(lab.data._catalog.participants, lambda: lab.again().backfill_participants())
    assert set(states(lab.data.backfill_participants(plan=plan)).values()) == {State.OVERTAKEN}
    assert [item.display_name for item in lab.again().list_participants()] == ["Aria Lin", "Bo"]
    assert lab.rows()[rec_id(1)].participant_ids == (ARIA,)


def test_an_id_that_no_longer_needs_a_name_gets_none(lab: Lab) -> None:
    lab.add(row(1, ARIA))
    lab.put(rec_id(1), "Aria Lin")
    plan = lab.data.plan_backfill()
    remove(lab.again(), 1)
    lab.again()._catalog.recordings.compare_and_swap(lambda: Change([row(1, BO)], None, "test"))
    assert states(lab.data.backfill_participants(plan=plan)) == {rec_id(1): State.OVERTAKEN}
    assert lab.names() == {}


@pytest.mark.parametrize("taken_over", [False, True])
def test_a_rebuild_that_flips_right_after_our_commit(lab: Lab, taken_over: bool) -> None:
    lab.add(row(1), row(2, BO))
    lab.put(rec_id(1), "Aria Lin")
    home, swap = lab.data._catalog.home, lab.data._catalog.recordings.compare_and_swap

    def flipped(decide: Callable[[], Change[Any] | None]) -> bool:
        written = swap(decide)
        new = "catalog/v2"
        home.create_tables(new)
        rows = [row(1, ARIA) if taken_over else row(1), row(2, BO)]
        filled = Catalog(home, Pointer(new, "", "", None))
        filled.recordings.compare_and_swap(lambda: Change(rows, None, "test"))
        write_pointer(home.store, home.assets_prefix, new, by="rebuild", replacing=home.pointer())
        return written

    lab.data._catalog.recordings.compare_and_swap = flipped  # type: ignore[method-assign]
    assert states(lab.data.backfill_participants([rec_id(1)])) == {rec_id(1): State.ATTACHED}
    assert lab.rows()[rec_id(1)].participant_ids == (ARIA,)
    assert lab.names() == {ARIA: "Aria Lin"}


def test_rows_that_contradict_each_other_are_both_kept(lab: Lab) -> None:
    twin = replace(row(1, BO), recording_hash="ff" * 32)
    lab.add(row(1), twin)
    lab.put(rec_id(1), "Aria Lin")
    plan = BackfillPlan((BackfillItem(rec_id(1), State.ATTACH, "Aria Lin", ARIA),), 0)
    assert states(lab.data.backfill_participants(plan=plan)) == {rec_id(1): State.OVERTAKEN}
    assert {item.recording_hash for item in lab.again().list_recordings()} == {
        twin.recording_hash,
        row(1).recording_hash,
    }


KILLED = """
import os, signal, sys
import ursa.catalog.tables as tables
from ursa import DataInterface

steps, swap = [int(sys.argv[2])], tables.CatalogTable.compare_and_swap

def step():
    steps[0] -= 1
    if steps[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def compare_and_swap(self, decide):
    step()
    swap(self, decide)
    step()

tables.CatalogTable.compare_and_swap = compare_and_swap
data = DataInterface("local", sys.argv[1])
data.enable_writes()
data.backfill_participants()
"""


def test_killed_at_every_step_a_re_run_has_the_rest(lab: Lab) -> None:
    for kill_at, (people, attached) in {1: (0, False), 2: (1, False), 3: (2, False), 4: (3, True)}.items():
        number = kill_at
        lab.add(row(number))
        lab.put(rec_id(number), f"Number {number}")
        died = subprocess.run([sys.executable, "-c", KILLED, str(lab.config), str(kill_at)], timeout=60, check=False)
        assert died.returncode == -9
        assert (len(lab.names()) - people, bool(lab.rows()[rec_id(number)].participant_ids)) == (
            1 if kill_at > 1 else 0,
            attached,
        )
        assert lab.again().backfill_participants().count(State.ATTACHED) == (0 if attached else 1)
        assert lab.rows()[rec_id(number)].participant_ids == (participant_id(f"Number {number}"),)
        assert len(lab.names()) == len(lab.again().list_participants()) == number


def test_a_thousand_recordings_a_commit(lab: Lab) -> None:
    numbers = range(2500)
    lab.add(*(row(number) for number in numbers))
    for number in numbers:
        lab.put(rec_id(number), f"Participant {number % 40}")
    told: list[str] = []
    done = lab.data.backfill_participants(on_recording=lambda item: told.append(item.rec_id))
    assert (done.count(State.ATTACHED), done.participants_made) == (2500, 40)
    assert told == sorted(told) == [rec_id(number) for number in numbers]
    assert [entry["ursa_rows"] for entry in lab.commits("recordings")] == ["500", "1000", "1000"]
    assert len({entry["ursa_operation_id"] for entry in lab.commits("recordings")}) == 3
    found = lab.rows()
    assert len(found) == 2500 and len(lab.again().list_recordings()) == 2500
    assert all(found[rec_id(n)].participant_ids == (participant_id(f"Participant {n % 40}"),) for n in numbers)


# --- what it costs


def test_one_get_a_recording_without_participants(
    weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Callable[[S3Server], FaultProxy]
) -> None:
    proxy = fault_proxy(weed_buckets.server)
    config = s3_config(weed_buckets.at(proxy.url))

    def fresh() -> DataInterface:
        data = DataInterface("r2", config)
        data.enable_writes()
        return data

    data = fresh()
    data.init_catalog()
    data.register_participant("Bo")
    data._catalog.recordings.compare_and_swap(
        lambda: Change([row(number, *([BO] if number > 20 else [])) for number in range(1, 31)], None, "test")
    )
    client = weed_buckets.server.client()
    for number in (1, 2, *range(21, 31)):
        key = f"recordings/{rec_id(number)}/participant.txt"
        client.put_object(Bucket=weed_buckets.raw, Key=key, Body=b"" if number == 2 else b"Aria Lin\n")

    def cost(numbers: Sequence[int]) -> tuple[int, list[str]]:
        proxy.clear()
        plan = fresh().plan_backfill([rec_id(number) for number in numbers])
        assert plan.to_write == 1 and len(plan.items) + plan.left_alone == len(numbers)
        raw = sorted(entry.path for entry in proxy.log if entry.path.startswith(f"/{weed_buckets.raw}/"))
        return proxy.count() - len(raw), raw

    constant, raw = cost(range(1, 31))
    assert raw == [f"/{weed_buckets.raw}/recordings/{rec_id(n)}/participant.txt" for n in range(1, 21)]
    # A HEAD asks whether the catalog's log has grown.
    assert {entry.method for entry in proxy.log if "/_delta_log/" not in entry.path} == {"GET"}
    assert {entry.method for entry in proxy.log} <= {"GET", "HEAD"}
    fewer, raw = cost((1, 2, 3, 30))
    assert len(raw) == 3 and fewer == constant

    done = fresh().backfill_participants()
    assert (done.count(State.ATTACHED), done.count(State.EMPTY), done.count(State.NO_FILE)) == (1, 1, 18)
    assert data.get_recording(row(1).recording_hash).participant_ids == (ARIA,)


def test_a_server_that_fails_leaves_all_as_it_was(
    weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Callable[[S3Server], FaultProxy]
) -> None:
    proxy = fault_proxy(weed_buckets.server)
    data = DataInterface("r2", s3_config(weed_buckets.at(proxy.url)))
    data.enable_writes()
    data.init_catalog()
    data._catalog.recordings.compare_and_swap(lambda: Change([row(1), row(2)], None, "test"))
    proxy.fail(lambda _method, path, _query: path.endswith("participant.txt"), times=None, status=400, code="Odd")
    with pytest.raises(StorageError, match=r"participant\.txt"):
        data.backfill_participants()
    assert data.list_participants() == []


def test_the_overview(lab: Lab) -> None:
    lab.data.register_participant("Bo")
    lab.data.register_participant("Zoë")
    lab.add(row(3, BO), row(1, BO, ARIA), row(9, BO, started_at=None), row(5), row(6, "P-017", started_at=None))
    found = lab.data.participants_overview()
    assert found.recordings_without == 1
    told = [
        (item.participant_id, item.display_name, item.recordings, item.first, item.last) for item in found.participants
    ]
    first, last = datetime(2026, 5, 2, tzinfo=UTC), datetime(2026, 5, 4, tzinfo=UTC)
    assert told == [
        (BO, "Bo", 3, first, last),
        (participant_id("Zoë"), "Zoë", 0, None, None),
        ("P-017", None, 1, None, None),
        (ARIA, None, 1, first, first),
    ]
