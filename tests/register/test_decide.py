"""What a registration means for the rows that are there: every cell of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from decided import EARLIER, LATER, NEW, NOON, OLD, REC_ID, A, B, Files, auxiliary, decided, names, row, worker
from hypothesis import example, given
from hypothesis import strategies as st

from ursa.catalog.metadata import REGISTERED_AT_KEY, WORKERS_KEY, workers_text
from ursa.catalog.rows import RecordingRow
from ursa.errors import ConflictError, RecordingExistsError
from ursa.manifest.times import FROM_REC_ID, TIME_AMBIGUOUS, TIME_ASSUMED
from ursa.policies import Action
from ursa.register.decide import Decision, decide, differences, exists, identify, merged

# --- who is it


def other(recording_hash: str) -> RecordingRow:
    return RecordingRow(recording_hash, "rec_20260520_195700_c2ee")


@pytest.mark.parametrize("stated", [None, OLD])
def test_it_is_there(stated: str | None) -> None:
    assert identify([row()], REC_ID, stated) == row()
    assert identify([other(NEW), row()], REC_ID, stated) == row()


@pytest.mark.parametrize("stated", [None, OLD])
def test_it_is_not_there(stated: str | None) -> None:
    assert identify([], REC_ID, stated) is None


@pytest.mark.parametrize("more", [[], [other(NEW)]])
def test_another_hash_for_the_same_name(more: list[RecordingRow]) -> None:
    with pytest.raises(
        ConflictError, match=f"{REC_ID} is registered under recording_hash {OLD}.* states {NEW}"
    ) as caught:
        identify([row(), *more], REC_ID, NEW)
    assert caught.value.rec_id == REC_ID
    assert "Nothing was" in (caught.value.hint or "")


@pytest.mark.parametrize("stated", [None, OLD])
def test_another_name_for_the_same_hash(stated: str | None) -> None:
    with pytest.raises(ConflictError, match=f"{OLD} of {REC_ID} is registered already, as rec_20260520_195700_c2ee"):
        identify([other(OLD)], REC_ID, stated)


# --- no row


@pytest.mark.parametrize("overwrite", [False, True])
def test_created(overwrite: bool) -> None:
    ours = [worker("eeg_a", recording_hash=NEW)]
    assert decide(None, [], row(NEW), ours, overwrite=overwrite) == Decision(Action.CREATED, row(NEW), tuple(ours))


def test_created_over_what_a_dead_run_left() -> None:
    ours = [worker("eeg_a", recording_hash=NEW)]
    assert decide(None, [worker("eeg_a", {}, NEW)], row(NEW), ours, overwrite=False).modalities == tuple(ours)


# --- a row: workers and files

EQUAL = {"eeg_a/x.bin": (10, A)}
TWO = {"eeg_a/x.bin": (10, A), "eeg_a/y.bin": (20, B)}


@pytest.mark.parametrize(
    ("registered", "ours"),
    [
        pytest.param(["eeg_a"], ["eeg_a"], id="equal"),
        pytest.param(["eeg_a", "mic"], ["eeg_a", "mic"], id="equal-several"),
        pytest.param(["eeg_a", "mic"], ["mic"], id="fewer-workers"),
        pytest.param(["eeg_a"], [], id="no-worker"),
    ],
)
def test_all_workers_are_there(registered: list[str], ours: list[str]) -> None:
    with pytest.raises(RecordingExistsError) as caught:
        decided([worker(name) for name in registered], [worker(name) for name in ours])
    assert (caught.value.rec_id, caught.value.recording_hash) == (REC_ID, OLD)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("there", "here"),
    [
        pytest.param(TWO, TWO, id="equal"),
        pytest.param(TWO, EQUAL, id="subset"),
        pytest.param(TWO, {}, id="none"),
        pytest.param(EQUAL, {"eeg_a/x.bin": (10, None)}, id="our-sha256-unknown"),
        pytest.param({"eeg_a/x.bin": (10, None)}, EQUAL, id="their-sha256-unknown"),
        pytest.param({"eeg_a/x.bin": (10, None)}, {"eeg_a/x.bin": (10, None)}, id="no-sha256"),
    ],
)
def test_all_files_are_there(there: Files, here: Files) -> None:
    assert differences(worker("eeg_a", there), worker("eeg_a", here)) == []
    with pytest.raises(RecordingExistsError):
        decided([worker("eeg_a", there)], [worker("eeg_a", here)])


@pytest.mark.parametrize(
    ("there", "here", "paths"),
    [
        pytest.param(EQUAL, TWO, ["eeg_a/y.bin"], id="a-file-more"),
        pytest.param(EQUAL, {"eeg_a/z.bin": (10, A)}, ["eeg_a/z.bin"], id="another-name"),
        pytest.param(EQUAL, {"eeg_a/x.bin": (10, B)}, ["eeg_a/x.bin"], id="another-sha256"),
        pytest.param(EQUAL, {"eeg_a/x.bin": (11, A)}, ["eeg_a/x.bin"], id="another-size"),
        pytest.param(EQUAL, {"eeg_a/x.bin": (11, None)}, ["eeg_a/x.bin"], id="another-size-sha256-unknown"),
        pytest.param({}, EQUAL, ["eeg_a/x.bin"], id="none-registered"),
        pytest.param(TWO, {"eeg_a/x.bin": (10, B), "eeg_a/y.bin": (21, B)}, ["eeg_a/x.bin", "eeg_a/y.bin"], id="all"),
    ],
)
@pytest.mark.parametrize("new_worker", [False, True])
def test_other_files(there: Files, here: Files, paths: list[str], new_worker: bool) -> None:
    ours = [worker("eeg_a", here), *([worker("mic")] if new_worker else [])]
    with pytest.raises(ConflictError) as caught:
        decided([worker("eeg_a", there)], ours)
    assert (caught.value.rec_id, list(caught.value.paths)) == (REC_ID, paths)
    assert all(path in str(caught.value) for path in paths)
    assert "--overwrite" in (caught.value.hint or "")


def test_many_other_files_are_counted() -> None:
    here = {f"eeg_a/{number:03}.bin": (1, A) for number in range(50)}
    with pytest.raises(ConflictError, match="and 30 more") as caught:
        decided([worker("eeg_a", {})], [worker("eeg_a", here)])
    assert len(caught.value.paths) == 50


@pytest.mark.parametrize(
    ("registered", "ours", "written"),
    [
        pytest.param(["eeg_a"], ["mic"], ["mic"], id="disjoint"),
        pytest.param(["eeg_a"], ["eeg_a", "mic"], ["mic"], id="one-more"),
        pytest.param(["eeg_a"], ["eeg_b"], ["eeg_b"], id="same-modality-other-worker"),
        pytest.param(["eeg_a"], ["eeg"], ["eeg"], id="same-modality-no-id"),
        pytest.param([], ["eeg_a"], ["eeg_a"], id="row-without-modalities"),
    ],
)
def test_new_workers_are_merged(registered: list[str], ours: list[str], written: list[str]) -> None:
    decision = decided([worker(name) for name in registered], [worker(name) for name in ours])
    assert decision.action is Action.MERGED
    assert names(decision) == written
    assert {item.recording_hash for item in decision.modalities} == {OLD}
    assert decision.row.recording_hash == OLD


def test_a_registration_time_is_no_difference() -> None:
    ours = replace(worker("eeg_a"), metadata={REGISTERED_AT_KEY: "2026-05-21T00:00:00+00:00"}, node="other-node")
    with pytest.raises(RecordingExistsError):
        decided([worker("eeg_a")], [ours])


# --- a row: workers that its commit covers


def covering(recording_hash: str, *workers: str, **fields: Any) -> RecordingRow:
    """A row that says which workers its commit covers."""
    said = {WORKERS_KEY: workers_text([worker(name) for name in workers])}
    plain = row(recording_hash, **fields)
    return replace(plain, metadata={**plain.metadata, **said})


@pytest.mark.parametrize("files", [EQUAL, {"mic/y.bin": (1, B)}], ids=["equal", "other"])
def test_a_worker_of_a_run_that_never_committed_is_no_obstacle(files: Files) -> None:
    left = worker("mic", files)
    existing, wanted = covering(OLD, "eeg_a"), covering(NEW, "mic")
    decision = decided([worker("eeg_a"), left], [worker("mic")], existing=existing, wanted=wanted)
    assert decision.action is Action.MERGED
    assert names(decision) == ["mic"]


def test_a_covered_worker_is_an_obstacle() -> None:
    existing, wanted = covering(OLD, "eeg_a", "mic"), covering(NEW, "mic")
    with pytest.raises(ConflictError):
        decided(
            [worker("eeg_a"), worker("mic")], [worker("mic", {"mic/x.bin": (99, B)})], existing=existing, wanted=wanted
        )
    with pytest.raises(RecordingExistsError):
        decided([worker("eeg_a"), worker("mic")], [worker("mic")], existing=existing, wanted=wanted)


def test_a_merge_covers_both_halves() -> None:
    result = merged(covering(OLD, "eeg_a"), covering(NEW, "mic", "eeg_b"))
    assert result.metadata[WORKERS_KEY] == workers_text([worker("eeg_a"), worker("eeg_b"), worker("mic")])


@pytest.mark.parametrize("wanted", [row(NEW), covering(NEW, "mic")], ids=["says-nothing", "says"])
def test_a_merge_into_a_row_that_does_not_say_still_protects_its_workers(wanted: RecordingRow) -> None:
    """Rows of an older ursa cover all that is registered; a merge must not make that less."""
    first = decided([worker("eeg_a")], [worker("mic")], wanted=wanted)
    with pytest.raises(ConflictError):
        decided(
            [worker("eeg_a"), *first.modalities],
            [worker("eeg_a", {"eeg_a/x.bin": (99, B)})],
            existing=first.row,
            wanted=covering(NEW, "eeg_a"),
        )


def test_overwrite_covers_a_peers_workers_too() -> None:
    existing, wanted = covering(OLD, "eeg_a", "eeg_b"), covering(NEW, "eeg_a")
    result = decided(
        [worker("eeg_a"), worker("eeg_b")], [worker("eeg_a")], overwrite=True, existing=existing, wanted=wanted
    ).row
    assert result.metadata[WORKERS_KEY] == workers_text([worker("eeg_a"), worker("eeg_b")])


# --- a row: participants


@pytest.mark.parametrize(
    ("there", "here", "told"),
    [
        ((), (), False),
        (("p",), ("p",), False),
        (("p", "q"), ("p",), False),
        (("p",), (), False),
        (("p",), ("q",), True),
    ],
)
def test_only_the_participants_differ(there: tuple[str, ...], here: tuple[str, ...], told: bool) -> None:
    with pytest.raises(RecordingExistsError) as caught:
        decided(
            [worker("eeg_a")],
            [worker("eeg_a")],
            existing=row(participant_ids=there),
            wanted=row(NEW, participant_ids=here),
        )
    assert ("participants differ" in (caught.value.hint or "")) is told
    assert ("participants differ" in (exists(row(participant_ids=there), here).hint or "")) is told


@pytest.mark.parametrize(
    ("there", "here", "united"),
    [((), (), ()), (("q",), ("p",), ("p", "q")), (("p",), (), ("p",)), ((), ("p",), ("p",)), (("p",), ("p",), ("p",))],
)
def test_participants_are_united(there: tuple[str, ...], here: tuple[str, ...], united: tuple[str, ...]) -> None:
    assert merged(row(participant_ids=there), row(NEW, participant_ids=here)).participant_ids == united


# --- a row: times

STATED: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("there", "here", "start", "flags"),
    [
        pytest.param((NOON, STATED), (EARLIER, STATED), EARLIER, (), id="stated-stated-earlier"),
        pytest.param((NOON, STATED), (LATER, STATED), NOON, (), id="stated-stated-later"),
        pytest.param((NOON, [TIME_ASSUMED]), (LATER, STATED), LATER, (), id="assumed-loses"),
        pytest.param((NOON, STATED), (EARLIER, [TIME_ASSUMED]), NOON, (), id="assumed-never-beats"),
        pytest.param((NOON, STATED), (EARLIER, [TIME_AMBIGUOUS]), NOON, (), id="ambiguous-never-beats"),
        pytest.param((NOON, STATED), (EARLIER, [FROM_REC_ID]), NOON, (), id="from-rec-id-never-beats"),
        pytest.param((NOON, [FROM_REC_ID]), (LATER, STATED), LATER, (), id="from-rec-id-loses"),
        pytest.param((NOON, [TIME_ASSUMED]), (EARLIER, [TIME_ASSUMED]), EARLIER, (TIME_ASSUMED,), id="both-assumed"),
        pytest.param((NOON, [FROM_REC_ID]), (LATER, [FROM_REC_ID]), NOON, (FROM_REC_ID,), id="both-from-rec-id"),
        pytest.param((None, STATED), (NOON, [TIME_ASSUMED]), NOON, (TIME_ASSUMED,), id="assumed-beats-nothing"),
        pytest.param((NOON, [TIME_ASSUMED]), (None, STATED), NOON, (TIME_ASSUMED,), id="nothing-beats-nothing"),
        pytest.param((None, STATED), (NOON, STATED), NOON, (), id="stated-beats-nothing"),
        pytest.param((None, STATED), (None, STATED), None, (), id="nobody-knows"),
    ],
)
def test_the_start(
    there: tuple[datetime | None, Sequence[str]],
    here: tuple[datetime | None, Sequence[str]],
    start: datetime | None,
    flags: tuple[str, ...],
) -> None:
    result = merged(row(started_at=there[0], flags=there[1]), row(NEW, started_at=here[0], flags=here[1]))
    assert result.started_at == start
    assert sorted(flag for flag in result.metadata if flag in (TIME_ASSUMED, TIME_AMBIGUOUS, FROM_REC_ID)) == sorted(
        flags
    )


@pytest.mark.parametrize(
    ("there", "here", "end"),
    [
        pytest.param((NOON, STATED), (LATER, STATED), LATER, id="latest"),
        pytest.param((NOON, STATED), (EARLIER, STATED), NOON, id="stays"),
        pytest.param((NOON, STATED), (LATER, [TIME_ASSUMED]), NOON, id="assumed-never-beats"),
        pytest.param((NOON, [TIME_AMBIGUOUS]), (EARLIER, STATED), EARLIER, id="ambiguous-loses"),
        pytest.param((NOON, STATED), (LATER, [FROM_REC_ID]), LATER, id="rec-id-says-nothing-of-ends"),
        pytest.param((NOON, [TIME_ASSUMED]), (LATER, [TIME_ASSUMED]), LATER, id="both-assumed"),
        pytest.param((None, STATED), (LATER, [TIME_ASSUMED]), LATER, id="assumed-beats-nothing"),
        pytest.param((None, STATED), (None, STATED), None, id="nobody-knows"),
    ],
)
def test_the_end(
    there: tuple[datetime | None, Sequence[str]], here: tuple[datetime | None, Sequence[str]], end: datetime | None
) -> None:
    assert merged(row(ended_at=there[0], flags=there[1]), row(NEW, ended_at=here[0], flags=here[1])).ended_at == end


@pytest.mark.parametrize(
    ("there", "here", "longest"),
    [(60.0, 90.0, 90.0), (90.0, 60.0, 90.0), (None, 60.0, 60.0), (0.0, None, 0.0), (None, None, None)],
)
def test_the_duration(there: float | None, here: float | None, longest: float | None) -> None:
    assert merged(row(duration_s=there), row(NEW, duration_s=here)).duration_s == longest


TIMES = st.none() | st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))
FLAGS = st.lists(st.sampled_from([TIME_ASSUMED, TIME_AMBIGUOUS, FROM_REC_ID]), unique=True)
HALVES = st.builds(
    lambda start, end, duration, people, flags: row(
        started_at=start, ended_at=end, duration_s=duration, participant_ids=tuple(people), flags=flags
    ),
    TIMES,
    TIMES,
    st.none() | st.floats(0, 1e6),
    st.lists(st.sampled_from("pqrs"), unique=True).map(sorted),
    FLAGS,
)


@given(HALVES, HALVES)
def test_which_half_comes_first_does_not_matter(one: RecordingRow, two: RecordingRow) -> None:
    forth, back = merged(one, two), merged(two, one)
    assert (forth.started_at, forth.ended_at, forth.duration_s, forth.participant_ids) == (
        back.started_at,
        back.ended_at,
        back.duration_s,
        back.participant_ids,
    )


# A stated end beside an unknown start, then an assumed start: the flag must not make the stated end an assumed one.
@example(row(started_at=None, ended_at=NOON), row(started_at=NOON, ended_at=LATER, flags=[TIME_ASSUMED]))
@given(HALVES, HALVES)
def test_a_killed_merge_may_be_done_again(one: RecordingRow, two: RecordingRow) -> None:
    once = merged(one, two)
    assert merged(once, two) == once


# --- a row: what stays of it


def test_a_merge_keeps_the_rows_own_fields() -> None:
    existing = row(registered_at=EARLIER, registered_by="ada@one", status="checked", metadata={"a": "old", "b": "old"})
    wanted = row(NEW, registered_at=LATER, registered_by="zoe@two", metadata={"a": "new", "c": "new"})
    result = merged(existing, wanted)
    assert (result.recording_hash, result.registered_at, result.registered_by) == (OLD, EARLIER, "ada@one")
    assert result.status == "checked"
    assert {key: result.metadata[key] for key in "abc"} == {"a": "old", "b": "old", "c": "new"}


# --- overwrite


@pytest.mark.parametrize("here", [EQUAL, TWO, {"eeg_a/x.bin": (99, B)}, {}], ids=["equal", "more", "other", "none"])
def test_overwrite_writes_this_runs_rows(here: Files) -> None:
    wanted = row(
        NEW, started_at=LATER, duration_s=1.0, participant_ids=("q",), registered_at=LATER, registered_by="zoe@two"
    )
    existing = row(started_at=EARLIER, duration_s=9.0, participant_ids=("p",), metadata={"old": "x"}, aux=None)
    decision = decided([worker("eeg_a")], [worker("eeg_a", here)], overwrite=True, existing=existing, wanted=wanted)
    assert decision.action is Action.OVERWRITTEN
    assert decision.row == replace(wanted, recording_hash=OLD)
    assert decision.modalities == (worker("eeg_a", here),)


def test_overwrite_without_a_participant_keeps_the_registered_ones() -> None:
    decision = decided([worker("eeg_a")], [worker("eeg_a")], overwrite=True, existing=row(participant_ids=("p",)))
    assert decision.row.participant_ids == ("p",)


def test_overwrite_takes_auxiliary_files_as_they_are_here() -> None:
    existing, wanted = row(aux={"a.csv": (1, A), "gone.csv": (1, A)}), row(NEW, aux={"a.csv": (2, B)})
    assert auxiliary(
        decided([worker("eeg_a")], [worker("eeg_a")], overwrite=True, existing=existing, wanted=wanted).row
    ) == {"a.csv": (2, B)}


@pytest.mark.parametrize("ours", [["eeg_a"], ["eeg_a", "mic"], ["mic"]])
def test_overwrite_leaves_a_peers_workers(ours: list[str]) -> None:
    """The workers of the other machine are not on this disk: nothing of theirs is written or taken away."""
    here = [worker(name, {f"{name}/x.bin": (99, B)}) for name in ours]
    decision = decided([worker("eeg_a"), worker("eeg_b")], here, overwrite=True)
    assert decision.action is Action.OVERWRITTEN
    assert names(decision) == ours
    assert {item.recording_hash for item in decision.modalities} == {OLD}


def test_overwrite_keeps_what_a_peer_contributed() -> None:
    existing = row(
        started_at=EARLIER,
        ended_at=LATER,
        duration_s=90.0,
        participant_ids=("p",),
        registered_at=EARLIER,
        registered_by="ada@one",
        aux={"theirs.csv": (1, A), "both.csv": (1, A)},
    )
    wanted = row(
        NEW,
        duration_s=60.0,
        participant_ids=("q",),
        registered_at=LATER,
        registered_by="zoe@two",
        aux={"ours.csv": (1, A), "both.csv": (2, B)},
    )
    result = decided(
        [worker("eeg_a"), worker("eeg_b")], [worker("eeg_a")], overwrite=True, existing=existing, wanted=wanted
    ).row
    assert (result.recording_hash, result.started_at, result.ended_at) == (OLD, EARLIER, LATER)
    assert (result.duration_s, result.participant_ids) == (90.0, ("p", "q"))
    assert (result.registered_at, result.registered_by) == (LATER, "zoe@two")
    assert auxiliary(result) == {"theirs.csv": (1, A), "both.csv": (2, B), "ours.csv": (1, A)}


def test_overwrite_with_more_workers_than_registered_has_no_peer() -> None:
    decision = decided(
        [worker("eeg_a")], [worker("eeg_a"), worker("mic")], overwrite=True, wanted=row(NEW, duration_s=1.0)
    )
    assert names(decision) == ["eeg_a", "mic"]
    assert decision.row.duration_s == 1.0
