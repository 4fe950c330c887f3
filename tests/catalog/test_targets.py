"""Which versions an undo restores: operations that interleave, clocks that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ursa.catalog.history import TABLES, Commit
from ursa.catalog.targets import target_versions

NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)
LETTERS = {table[0]: table for table in TABLES}


def log(steps: str, clocks: dict[str, int] | None = None) -> list[Commit]:
    """Commits from ``"Am Bm Ar"``: operation A commits to modalities, B to modalities, A to recordings, a second apart.

    All tables begin with the commit of operation ``0``. ``clocks``: how far the clock of an operation's machine is
    ahead, seconds.
    """
    return commits([("0", table, 0) for table in LETTERS] + [(step[0], step[1], 0) for step in steps.split()], clocks)


def commits(steps: Sequence[tuple[str, str, int]], clocks: dict[str, int] | None = None) -> list[Commit]:
    """The same from (operation, table's letter, unused)."""
    made: list[Commit] = []
    for second, (operation, letter, _) in enumerate(steps):
        version = sum(commit.table == LETTERS[letter] for commit in made)
        at = NOON + timedelta(seconds=second + (clocks or {}).get(operation, 0))
        made.append(Commit(LETTERS[letter], version, at, operation, "x", 1, "ada", "green-mantis", "0"))
    return made


@pytest.mark.parametrize(
    ("steps", "to", "expected"),
    [
        pytest.param("Am Ar Bm Br", "A", "r1 m1 p0", id="one after the other"),
        pytest.param("Am Ar Bm Br", "B", "r2 m2 p0", id="to the last one nothing happens"),
        pytest.param("Am Ar Bm Br", "0", "r0 m0 p0", id="to the beginning"),
        pytest.param("Ap Am Ar Bp Bm Br", "A", "r1 m1 p1", id="participants as well"),
        pytest.param("Am Bm Ar Br", "A", "r1 m1 p0", id="the other one had begun"),
        pytest.param("Bm Am Ar Br", "A", "r1 m2 p0", id="the other one had begun before"),
        pytest.param("Am Bm Br Ar", "A", "r2 m2 p0", id="the other one ended in between"),
        pytest.param("Am Bm Br Ar", "B", "r1 m2 p0", id="it had begun before, and ended later"),
        pytest.param("Am Ym Ar Bm Br", "A", "r1 m2 p0", id="a modality alone, before the end"),
        pytest.param("Bm Ym Ar Br", "A", "r1 m2 p0", id="a modality alone, after one that had begun"),
        pytest.param("Am Ar Ym Bm Br", "Y", "r1 m2 p0", id="to a modality alone"),
        pytest.param("Am Bm Ym Ar Br", "Y", "r0 m3 p0", id="to a modality alone, others under way"),
        pytest.param("Am Ar Xp Bm Br", "X", "r1 m1 p1", id="to a participant alone"),
        pytest.param("Am Ar Cm Bm Br", "C", "r1 m2 p0", id="to a compaction"),
        pytest.param("Am Ar Bm Br Ur Um Up Cm Cr", "U", "r3 m3 p1", id="to an undo"),
        pytest.param("Am Ar Bm Br Ur Um Cm Cr", "B", "r2 m2 p0", id="undo an undo"),
        pytest.param("Am Ar Bm Br Ur Cm Cr", "C", "r4 m3 p0", id="after an undo that was killed"),
        pytest.param("Mr Mm Ar", "M", "r1 m1 p0", id="a merge writes its recording first"),
        pytest.param("Am Ar Xp Bp Bm Br", "A", "r1 m1 p0", id="a later participant"),
    ],
)
def test_versions(steps: str, to: str, expected: str) -> None:
    found = target_versions(log(steps), to)
    assert " ".join(f"{table[0]}{found[table]}" for table in TABLES) == expected


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_a_wrong_clock_does_not_part_a_recording_from_its_modalities(ahead: int) -> None:
    """B's machine is an hour off: its commits are placed by their operation ids."""
    found = target_versions(log("Am Ar Bm Br Cm Cr", {"B": ahead}), "B")
    assert (found["recordings"], found["modalities"]) == (2, 2)
    found = target_versions(log("Am Bm Br Ar Cm Cr", {"B": ahead}), "A")
    assert (found["recordings"], found["modalities"]) == (2, 2)
    found = target_versions(log("Am Ar Bm Br", {"A": ahead}), "A")
    assert (found["recordings"], found["modalities"]) == (1, 1)


KINDS = ("pmr", "mr", "m", "p", "r", "rm")


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Commit], str, dict[str, int]]:
    """Operations of any kind, interleaved in any way, on machines whose clocks are off by up to ten seconds."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    left = {name: list(kind) for name, kind in zip("ABCDEF", kinds, strict=False)}
    steps: list[tuple[str, str, int]] = [("0", letter, 0) for letter in LETTERS]
    while any(left.values()):
        name = draw(st.sampled_from([name for name, letters in left.items() if letters]))
        steps.append((name, left[name].pop(0), 0))
    clocks = {name: draw(st.integers(-10, 10)) for name in left}
    return commits(steps, clocks), draw(st.sampled_from(list(left))), clocks


@given(histories())
@settings(max_examples=300, deadline=None)
def test_whatever_happened(case: tuple[list[Commit], str, dict[str, int]]) -> None:
    made, to, clocks = case
    targets = target_versions(made, to)
    own = [commit for commit in made if commit.operation_id == to]
    assert all(commit.version <= targets[commit.table] for commit in own)
    mine = [commit.version for commit in own if commit.table == "recordings"]
    assert not mine or targets["recordings"] == mine[-1]
    kept = {item.operation_id for item in made if item.table == "recordings" and item.version <= targets["recordings"]}
    assert all(item.version <= targets[item.table] for item in made if item.operation_id in kept)
    if not any(clocks.values()):
        _as_it_was(made, own, targets)


def _as_it_was(made: list[Commit], own: list[Commit], targets: dict[str, int]) -> None:
    """With right clocks, recordings are as they were at the operation's last commit (at its own one, where it has one),
    and of the modalities nothing is lost that had ended then.
    """
    recordings = [item for item in made if item.table == "recordings"]
    end = next((item.at for item in reversed(own) if item.table == "recordings"), max(item.at for item in own))
    assert targets["recordings"] == max(item.version for item in recordings if item.at <= end)
    under_way = {item.operation_id for item in made if item.at > end}
    ended = [item for item in made if item.table == "modalities" and item.operation_id not in under_way]
    assert all(item.version <= targets["modalities"] for item in ended)
