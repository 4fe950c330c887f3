"""How a batch ends: the exit status for every kind of run, and what is said to whoever reads nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from ursa.errors import CredentialsError, InterruptedRunError
from ursa_cli.batch_end import ZEROS, Course, counted, exit_status, in_words


def course(problems: tuple[str, ...] = (), error: BaseException | None = None, **told: Any) -> Course:
    """A run with these counts; ``strict`` and ``dry_run`` too."""
    flags = {name: told.pop(name, False) for name in ("strict", "dry_run")}
    more = {name: told.pop(name) for name in ("failed", "skipped", "stopped") if name in told}
    return Course(ZEROS | told, problems=problems, error=error, **flags, **more)


STATUSES = [
    (course(), 0),
    (course(ok=3), 0),
    (course(have=3), 0),
    (course(ok=1, skip=2), 0),
    (course(ok=1, skip=2, strict=True), 3),
    (course(ok=1, strict=True), 0),
    (course(ok=1, fail=1), 3),
    (course(fail=1, dry_run=True), 3),
    (course(ok=1, not_reached=1), 3),
    (course(ok=1, not_reached=1, dry_run=True), 3),
    (course(("gone",), ok=1), 1),
    (course(("gone",), fail=1, not_reached=2), 1),
    (course(ok=1, error=CredentialsError("refused")), 4),
    (course(("gone",), fail=1, error=CredentialsError("refused")), 4),
    (course(ok=1, not_reached=1, error=InterruptedRunError("stopped")), 130),
    (course(error=KeyboardInterrupt()), 130),
    (course(error=typer.Exit(11)), 11),
    (course(error=KeyError("a bug")), 1),
]


@pytest.mark.parametrize(("ended", "status"), STATUSES)
def test_the_exit_status(ended: Course, status: int) -> None:
    assert exit_status(ended) == status


def entry(number: int, message: str = "no manifest", hint: str | None = "Mend it.") -> dict[str, Any]:
    """A recording that is not registered."""
    return {"rec_id": f"rec_{number}", "message": message, "hint": hint}


def test_one_failure_is_told_with_its_own_hint() -> None:
    told = in_words(course(ok=1, fail=1, failed=[entry(1, "a.edf is short") | {"error": "MissingFilesError"}]))
    assert told == {
        "error": None,
        "message": "1 failed: rec_1 (MissingFilesError: a.edf is short);"
        " 2 recordings: 1 registered, 0 already registered, 0 skipped, 1 failed",
        "hint": "Mend it.",
    }


def test_many_failures_are_the_first_ones_and_how_many_more() -> None:
    told = in_words(course(fail=9, failed=[entry(number, "x" * 5_000) for number in range(9)]))
    assert "9 failed: rec_0 (xxx" in told["message"] and "rec_2 (xxx" in told["message"]
    assert " and 6 more; " in told["message"] and len(told["message"]) < 1_000
    assert "own hint" in told["hint"]


def test_skipped_ones_count_under_strict_alone() -> None:
    skipped = [entry(1), entry(2)]
    assert in_words(course(skip=2, skipped=skipped))["hint"] is None
    told = in_words(course(skip=2, skipped=skipped, strict=True))
    assert told["message"].startswith("2 skipped, which --strict counts: rec_1 (no manifest), rec_2 (no manifest); ")
    assert told["hint"] == "Mend it."


def test_a_root_that_is_missing_is_said_before_the_recordings() -> None:
    told = in_words(course(("/nas: is not there",), ok=1, fail=1, failed=[entry(1)]))
    assert told["message"].startswith("/nas: is not there; 1 failed: rec_1")
    assert told["hint"].startswith("Check the path") and told["hint"].endswith("Mend it.")


def test_what_was_not_reached_says_why_and_what_to_do() -> None:
    told = in_words(course(ok=1, not_reached=4, stopped="the time of --max-duration is over"))
    assert told["message"].startswith("4 not reached: the time of --max-duration is over; 5 recordings: ")
    assert told["message"].endswith("0 failed, 4 not reached") and "goes on from there" in told["hint"]


def test_an_interruption_keeps_its_own_words() -> None:
    told = in_words(
        course(ok=1, not_reached=1, stopped="interrupted", error=InterruptedRunError("rec_2 half", hint="H"))
    )
    assert told["error"] == "InterruptedRunError" and told["hint"] == "H"
    assert (
        told["message"].startswith("rec_2 half; 2 recordings: 1 registered") and "not reached: " not in told["message"]
    )


def test_the_counts_add_up_to_what_was_found() -> None:
    words = counted({"ok": 1, "have": 2, "skip": 3, "fail": 4, "not_reached": 5})
    assert words == "15 recordings: 1 registered, 2 already registered, 3 skipped, 4 failed, 5 not reached"
    assert counted(ZEROS | {"ok": 1}, dry_run=True).startswith("1 recording: 1 to register")
