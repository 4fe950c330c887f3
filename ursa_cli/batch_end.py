"""How a batch ended: its exit status, and in words what went wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ursa_cli.ending import exit_code, told

ZEROS = {"ok": 0, "have": 0, "skip": 0, "fail": 0, "not_reached": 0}
AGAIN = "Run the same command again: it goes on from there."

_FIRST = 3
_LONGEST = 240


@dataclass(frozen=True, slots=True)
class Course:
    """What a batch did, as far as its ending depends on it. ``counts`` add up to the recordings that were found.

    ``failed`` and ``skipped``: at least the first of them, each with ``rec_id``, ``message`` and ``hint``.
    """

    counts: Mapping[str, int]
    strict: bool = False
    dry_run: bool = False
    problems: Sequence[str] = ()
    stopped: str | None = None
    failed: Sequence[Mapping[str, Any]] = field(default=())
    skipped: Sequence[Mapping[str, Any]] = field(default=())
    error: BaseException | None = None


def exit_status(course: Course) -> int:
    """What ended the run as a whole, else 1 for a root, else 3 for a recording; 0 where everything asked for is so."""
    counts = course.counts
    if course.error is not None:
        return exit_code(course.error)
    if course.problems:
        return 1
    if counts["fail"] or counts["not_reached"] or (course.strict and counts["skip"]):
        return 3
    return 0


def counted(counts: Mapping[str, int], *, dry_run: bool = False) -> str:
    """The counts in words."""
    total = sum(counts.values())
    done, failed = ("to register", "would fail") if dry_run else ("registered", "failed")
    left = f", {counts['not_reached']} not reached" if counts["not_reached"] else ""
    return (
        f"{total} recording{'' if total == 1 else 's'}: {counts['ok']} {done}, {counts['have']} already registered,"
        f" {counts['skip']} skipped, {counts['fail']} {failed}{left}"
    )


def in_words(course: Course) -> dict[str, Any]:
    """``error`` (the class of what ended the run, or None), ``message`` and ``hint``, for who reads nothing else."""
    ended = told(course.error, "")
    parts = [ended["message"]] if ended["message"] else []
    parts += _parts(course)
    hints = [ended["hint"], *_hints(course)] if ended["hint"] else _hints(course)
    return {
        "error": ended["error"],
        "message": "; ".join([*parts, counted(course.counts, dry_run=course.dry_run)]),
        "hint": " ".join(dict.fromkeys(hints)) or None,
    }


def _parts(course: Course) -> Iterator[str]:
    counts = course.counts
    yield from course.problems[:_FIRST]
    if len(course.problems) > _FIRST:
        yield f"and {len(course.problems) - _FIRST} more roots"
    if counts["fail"]:
        yield f"{counts['fail']} {'would fail' if course.dry_run else 'failed'}: {_named(course.failed, counts['fail'])}"
    if counts["skip"] and course.strict:
        yield f"{counts['skip']} skipped, which --strict counts: {_named(course.skipped, counts['skip'])}"
    if counts["not_reached"] and course.stopped and course.error is None:
        yield f"{counts['not_reached']} not reached: {course.stopped.removeprefix('not tried: ')}"


def _named(entries: Sequence[Mapping[str, Any]], count: int) -> str:
    first = [f"{entry['rec_id']} ({_short(_why(entry))})" for entry in entries[:_FIRST]]
    return ", ".join(first) + (f" and {count - len(first)} more" if count > len(first) else "")


def _why(entry: Mapping[str, Any]) -> str:
    return ": ".join(part for part in (entry.get("error"), entry["message"]) if part)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _hints(course: Course) -> list[str]:
    """The next steps, the most important one first."""
    counts, hints = course.counts, []
    if course.problems:
        hints.append("Check the path, and that the NAS or the drive is mounted; then run the same command again.")
    if counts["fail"] == 1 and course.failed and course.failed[0]["hint"]:
        hints.append(str(course.failed[0]["hint"]))
    elif counts["fail"]:
        hints.append(
            "Each failure has its own hint, in the log, the report and the lines of the run. Mend them, and run it again."
        )
    if counts["skip"] and course.strict:
        own = [entry["hint"] for entry in course.skipped[:1] if entry["hint"]]
        hints += own or ["What is skipped is nowhere but on that disk: don't wipe it."]
    if counts["not_reached"] and course.error is None:
        hints.append(AGAIN)
    return hints
