"""The conflict policies: what each does with each kind of row that is there, alone and after a lost race."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from r2_tools import REC, Local, Overtake, local_store, overtaking, rows

from ursa import (
    ConflictError,
    DataInterface,
    RecordingExistsError,
    UsageError,
    WritesNotEnabledError,
)

HASH, OTHER_HASH = "ab" * 32, "cd" * 32
START = datetime(2026, 5, 20, 19, 56, 28, tzinfo=UTC)
THERE: dict[str, Any] = {
    "recording_hash": HASH,
    "started_at": START,
    "ended_at": START + timedelta(seconds=60),
    "duration_s": 60.0,
    "participant_ids": ["p_a"],
    "metadata": {"manifest_recording_id": REC, "rig": "mantis"},
}
CHANGES: dict[str, dict[str, Any]] = {
    "equal row": {},
    "longer": {"duration_s": 90.0, "ended_at": START + timedelta(seconds=90)},
    "shorter": {"duration_s": 30.0, "ended_at": START + timedelta(seconds=30)},
    "other participants": {"participant_ids": ["p_b"]},
    "other start": {"started_at": START + timedelta(seconds=1)},
    "other status": {"status": "sorted"},
    "other metadata": {"metadata": {"manifest_recording_id": REC, "rig": "motor"}},
    "nothing else given": {
        "started_at": None,
        "ended_at": None,
        "duration_s": None,
        "participant_ids": [],
        "metadata": None,
    },
}
REFUSED, CONFLICT = RecordingExistsError, ConflictError
LONGER, SHORTER = START + timedelta(seconds=90), START + timedelta(seconds=30)
# What each policy makes of each: an error, or what the row has that it had not.
CELLS: dict[str, dict[str, type[Exception] | dict[str, Any]]] = {
    "error": dict.fromkeys(CHANGES, REFUSED),
    "extend": {change: {} for change in CHANGES} | {"longer": {"duration_s": 90.0}},
    "merge_participants": dict.fromkeys(CHANGES, CONFLICT)
    | {"equal row": {}, "other participants": {"participant_ids": ("p_a", "p_b")}, "nothing else given": {}},
    "overwrite": {change: {} for change in CHANGES}
    | {
        "longer": {"duration_s": 90.0, "ended_at": LONGER},
        "shorter": {"duration_s": 30.0, "ended_at": SHORTER},
    },
}


@pytest.fixture
def local(tmp_path: Path) -> Local:
    return local_store(tmp_path)


@pytest.fixture
def data(local: Local) -> DataInterface:
    return local.open()


@pytest.fixture
def overtake(monkeypatch: pytest.MonkeyPatch) -> Overtake:
    return overtaking(monkeypatch)


@pytest.mark.parametrize("policy", CELLS)
def test_without_a_row_every_policy_makes_one(policy: str, data: DataInterface) -> None:
    row = data.register_recording(**THERE, on_conflict=policy)
    assert (row.rec_id, row.started_at, row.duration_s, row.participant_ids) == (REC, START, 60.0, ("p_a",))
    assert row.registered_at is not None and "@" in row.registered_by
    assert data.list_recordings() == [row]
    assert rows(data)["modalities"] == rows(data)["participants"] == []


@pytest.mark.parametrize(("policy", "change"), [(policy, change) for policy in CELLS for change in CHANGES])
def test_each_policy_with_each_row(policy: str, change: str, data: DataInterface) -> None:
    before = data.register_recording(**THERE)
    expected = CELLS[policy][change]
    if isinstance(expected, dict):
        row = data.register_recording(**{**THERE, **CHANGES[change]}, on_conflict=policy)
        assert row == replace(before, **expected)
        assert data.list_recordings() == [row]
        return
    with pytest.raises(expected) as refused:
        data.register_recording(**{**THERE, **CHANGES[change]}, on_conflict=policy)
    error: Any = refused.value
    assert error.exit_code == 5 and error.rec_id == REC and error.hint
    assert data.list_recordings() == [before]


def test_a_conflict_names_the_field_and_both_values(data: DataInterface) -> None:
    data.register_recording(**THERE)
    with pytest.raises(ConflictError, match=r"duration_s is 60\.0, not 61\.0.*metadata\['rig'\] is mantis, not motor"):
        data.register_recording(
            recording_hash=HASH,
            duration_s=61,
            metadata={"manifest_recording_id": REC, "rig": "motor"},
            on_conflict="merge_participants",
        )


def test_what_is_not_known_is_filled_in_by_extend_and_overwrite(data: DataInterface) -> None:
    data.register_recording(recording_hash=HASH)
    assert data.register_recording(recording_hash=HASH, duration_s=5, on_conflict="extend").duration_s == 5.0
    done = data.register_recording(recording_hash=HASH, ended_at=START, on_conflict="overwrite")
    assert (done.duration_s, done.ended_at) == (5.0, START)


@pytest.mark.parametrize("policy", CELLS)
def test_a_rec_id_and_a_hash_that_contradict_each_other_are_a_conflict(policy: str, data: DataInterface) -> None:
    before = data.register_recording(**THERE)
    with pytest.raises(ConflictError, match=OTHER_HASH):
        data.register_recording(**{**THERE, "recording_hash": OTHER_HASH}, on_conflict=policy)
    with pytest.raises(ConflictError, match=REC):
        data.register_recording(**{**THERE, "metadata": {"manifest_recording_id": f"{REC}0"}}, on_conflict=policy)
    assert data.list_recordings() == [before]


@pytest.mark.parametrize("policy", ["", "ERROR", "skip", "merge", "replace", None, 1])
def test_any_other_policy_is_a_value_error_that_names_them(policy: Any, data: DataInterface) -> None:
    with pytest.raises(ValueError, match="error, extend, merge_participants or overwrite"):
        data.register_recording(recording_hash=HASH, on_conflict=policy)
    with pytest.raises(ValueError, match="error or overwrite"):
        data.register_modality(recording_hash=HASH, modality="eeg", on_conflict=policy)
    assert data.list_recordings() == []


@pytest.mark.parametrize("policy", ["extend", "merge_participants"])
def test_a_modality_has_two_policies(policy: str, data: DataInterface) -> None:
    with pytest.raises(ValueError, match="error or overwrite"):
        data.register_modality(recording_hash=HASH, modality="eeg", on_conflict=policy)


@pytest.mark.parametrize(
    "wrong",
    [
        {"recording_hash": "AB" * 32},
        {"recording_hash": "ab"},
        {"recording_hash": None},
        {"duration_s": -1},
        {"duration_s": float("nan")},
        {"duration_s": float("inf")},
        {"duration_s": "60"},
        {"participant_ids": "p_a"},
        {"started_at": "2026-05-20"},
    ],
    ids=str,
)
def test_wrong_values_are_usage_errors(wrong: dict[str, Any], data: DataInterface) -> None:
    with pytest.raises(UsageError):
        data.register_recording(**{**THERE, **wrong})
    assert data.list_recordings() == []


def test_times_are_utc(data: DataInterface) -> None:
    naive = data.register_recording(recording_hash=HASH, started_at=START.replace(tzinfo=None))
    zoned = data.register_recording(
        recording_hash=OTHER_HASH, started_at=START.astimezone(timezone(timedelta(hours=2)))
    )
    assert naive.started_at == zoned.started_at == START
    assert {row.started_at for row in data.list_recordings()} == {START}


def test_writing_verbs_need_their_role(local: Local) -> None:
    data = DataInterface("local", local.config)
    calls: list[Callable[[], object]] = [
        lambda: data.register_recording(recording_hash=HASH),
        lambda: data.register_modality(recording_hash=HASH, modality="eeg"),
        lambda: data.register_participant("Aria Lin"),
    ]
    for call in calls:
        with pytest.raises(WritesNotEnabledError, match="assets_rw"):
            call()


@pytest.mark.parametrize(
    ("policy", "theirs", "ours", "expected"),
    [
        ("error", {}, {}, REFUSED),
        ("extend", {"duration_s": 90.0}, {"duration_s": 70.0}, {"duration_s": 90.0}),
        ("extend", {"duration_s": 70.0}, {"duration_s": 90.0}, {"duration_s": 90.0}),
        ("merge_participants", {"participant_ids": ["p_b"]}, {"participant_ids": ["p_c"]}, {"p_b", "p_c"}),
        ("merge_participants", {"duration_s": 90.0}, {}, CONFLICT),
        ("overwrite", {"duration_s": 90.0}, {"duration_s": 30.0}, {"duration_s": 30.0}),
    ],
)
def test_a_new_row_that_loses_the_race_is_decided_again(
    policy: str, theirs: dict[str, Any], ours: dict[str, Any], expected: Any, local: Local, overtake: Overtake
) -> None:
    done = overtake("recordings", lambda: local.open().register_recording(**{**THERE, **theirs}))
    data = local.open()
    if isinstance(expected, type):
        with pytest.raises(expected):
            data.register_recording(**{**THERE, **ours}, on_conflict=policy)
        assert data.list_recordings() == done
        return
    row = data.register_recording(**{**THERE, **ours}, on_conflict=policy)
    assert data.list_recordings() == [row]
    if isinstance(expected, dict):
        assert {name: getattr(row, name) for name in expected} == expected
    else:
        assert set(row.participant_ids) == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("extend", {"duration_s": 90.0, "participant_ids": ("p_a", "p_b")}),
        ("merge_participants", {"duration_s": 60.0, "participant_ids": ("p_a", "p_b", "p_c")}),
        ("overwrite", {"duration_s": 90.0, "participant_ids": ("p_a", "p_b")}),
    ],
)
def test_a_change_that_loses_the_race_keeps_what_won(
    policy: str, expected: dict[str, Any], local: Local, overtake: Overtake
) -> None:
    data = local.open()
    data.register_recording(**THERE)
    overtake(
        "recordings",
        lambda: local.open().register_recording(
            **{**THERE, "participant_ids": ["p_b"]}, on_conflict="merge_participants"
        ),
    )
    ours = {"participant_ids": ["p_c"]} if policy == "merge_participants" else {"duration_s": 90.0}
    row = data.register_recording(**{**THERE, **ours}, on_conflict=policy)
    assert data.list_recordings() == [row]
    assert {name: getattr(row, name) for name in expected} == expected


MERGE = """
import sys
from ursa import DataInterface
data = DataInterface("local", sys.argv[1])
data.enable_writes()
for i in range(3):
    data.register_recording(
        recording_hash="ab" * 32, participant_ids=[f"p_{sys.argv[2]}_{i}"], on_conflict="merge_participants"
    )
"""


def test_eight_processes_that_merge_participants_end_with_the_union(local: Local, data: DataInterface) -> None:
    data.register_recording(**{**THERE, "participant_ids": ["p_0"]})
    runs = [
        subprocess.Popen([sys.executable, "-c", MERGE, str(local.config), str(i)], stderr=subprocess.PIPE, text=True)
        for i in range(8)
    ]
    assert [(run.communicate()[1], run.returncode) for run in runs] == [("", 0)] * 8
    (row,) = data.list_recordings()
    assert set(row.participant_ids) == {"p_0"} | {f"p_{i}_{j}" for i in range(8) for j in range(3)}
