"""What `ursa batch` prints and logs: a line a recording, the summary, the estimate of a dry run; and what its report says."""

from __future__ import annotations

import logging
import re
import shlex
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ursa_cli.batch_end import AGAIN, ZEROS, counted
from ursa_cli.ingest_view import ok_line, result_record, to_send
from ursa_cli.render import duration, plain, size
from ursa_cli.report import RecordingEntry, RunReport

if TYPE_CHECKING:
    from ursa import BatchRun, IngestPlan, IngestResult, Outcome, UploadProgress
    from ursa.errors import UrsaError
    from ursa_cli.progress import Bars
    from ursa_cli.session import Session

_TOLD = 1000
_REMEMBERED = 1000
# Mbit/s of uplinks for the estimate of a dry run: a slow DSL line, a good office, a campus.
_UPLINKS_MBIT = (20, 100, 1000)
# Options of `ursa ingest` that a hint names, and a batch has not.
_OF_INGEST = re.compile(
    r"(?:(?:the same command |this one )?(?:again )?with )?"
    r"(--(?:overwrite|replace-objects|trust-size|trust-mtime|not-unfinished)(?: --[a-z-]+)*)"
)


@dataclass
class Told:
    """What the run has told so far. ``failed`` and ``skipped`` are the first ones."""

    session: Session
    reports: list[RunReport]
    bars: Bars
    in_flight: dict[str, UploadProgress] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    registered: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    bytes_uploaded: int = 0
    bytes_resumed: int = 0
    files_uploaded: int = 0

    def follow(self, event: UploadProgress) -> None:
        """A progress event, from any thread."""
        self.in_flight[event.rec_id] = event
        self.bars.upload(event)

    def take(self, outcome: Outcome, seconds: float) -> None:
        """A recording has ended: its line, and its entry in the reports. ``seconds``: since the run began."""
        last = self.in_flight.pop(outcome.rec_id, None)
        self.bars.finished(outcome.rec_id)
        if outcome.result is not None:
            self.bytes_uploaded += outcome.result.bytes_uploaded
            self.bytes_resumed += outcome.result.bytes_resumed
            self.files_uploaded += outcome.result.files_uploaded
        elif last is not None and outcome.plan is None:
            self.bytes_uploaded += last.bytes_uploaded
            self.bytes_resumed += last.resumed_bytes
        with self.bars.print_above():
            self._line(outcome)
        for report in self.reports:
            report.sample(seconds, self._moved())
            report.add(entry(outcome))

    @property
    def bytes_sent(self) -> int:
        """By this run, of recordings that have ended."""
        return self.bytes_uploaded - self.bytes_resumed

    def _moved(self) -> int:
        """Bytes sent in all, those of recordings in flight included."""
        return self.bytes_sent + sum(
            event.bytes_uploaded - event.resumed_bytes for event in list(self.in_flight.values())
        )

    def _line(self, outcome: Outcome) -> None:
        error = outcome.error
        if outcome.result is not None:
            self._registered(outcome.rec_id, outcome.result)
        elif outcome.plan is not None:
            self._planned(outcome.rec_id, outcome.plan)
        elif outcome.status == "have":
            hint = _to_know(outcome)
            self._one(f"HAVE {outcome.rec_id}: already registered{outcome.told}", hint=hint)
            self._record(outcome, hint=hint, told=outcome.told.strip(" ;,"))
            if hint:
                self._note(f"{outcome.rec_id}: {hint}")
        elif outcome.status == "skip":
            self._skipped(outcome)
        elif error is not None:
            self._refused(outcome, error)

    def _registered(self, rec_id: str, result: IngestResult) -> None:
        self._one(ok_line(result))
        self.session.out.record("recording", **result_record(result))
        self.registered.append(rec_id)
        for warning in result.warnings:
            self._note(f"{rec_id}: {warning}", logging.WARNING)

    def _planned(self, rec_id: str, plan: IngestPlan) -> None:
        there = f", {size(plan.bytes_in_parts)} of it there in parts" if plan.bytes_in_parts else ""
        sends = f"{len(plan.sends)} to upload ({size(plan.bytes_to_send)}{there})"
        self._one(f"PLAN {rec_id}: {sends}, {plan.files_skipped} to skip")
        self.session.out.record(
            "recording",
            rec_id=rec_id,
            status="plan",
            files=len(plan.sends),
            bytes_to_send=plan.bytes_to_send,
            bytes_in_parts=plan.bytes_in_parts,
            files_skipped=plan.files_skipped,
            action=str(plan.action),
        )
        for warning in plan.warnings:
            self._note(f"{rec_id}: {warning}", logging.WARNING)

    def _skipped(self, outcome: Outcome) -> None:
        hint = hint_of(outcome)
        if outcome.reached and len(self.skipped) < _TOLD:
            self.skipped.append({"rec_id": outcome.rec_id, "message": outcome.reason, "hint": hint})
        self._one(f"SKIP {outcome.rec_id}: {outcome.reason}", hint=hint, level=logging.WARNING)
        self._record(outcome, reason=outcome.reason, hint=hint, reached=outcome.reached)

    def _refused(self, outcome: Outcome, error: UrsaError) -> None:
        told = {"error": type(error).__name__, "message": error.message, "hint": hint_of(outcome)}
        if len(self.failed) < _TOLD:
            self.failed.append({"rec_id": outcome.rec_id, **told})
        line = f"FAIL {outcome.rec_id}: {told['error']}: {error.message}"
        self._one(line, hint=told["hint"], level=logging.ERROR)
        self._record(outcome, **told, exit_code=error.exit_code)
        if self.session.out.quiet:
            self.session.out.error(line)
        if told["hint"]:
            # With its name: the lines are on stdout, and this may be read without them.
            self._note(f"{outcome.rec_id}: {told['hint']}")

    def _one(self, text: str, *, hint: str | None = None, level: int = logging.INFO) -> None:
        # A newline in a name must not begin a line that looks like another recording's.
        self.session.out.outcome(plain(text) if "\n" in text else text, hint=hint, level=level)

    def _note(self, text: str, level: int | None = None) -> None:
        self.session.out.note(f"     {text}")
        if level is not None:
            self.session.out.log(level, text)

    def _record(self, outcome: Outcome, **fields: Any) -> None:
        said = {"rec_id": outcome.rec_id, "status": outcome.status, "path": str(outcome.rec_dir)}
        self.session.out.record("recording", **said, **fields)


def hint_of(outcome: Outcome) -> str | None:
    """The mend of a recording that is not registered, with the command in place of options that a batch has not."""
    hint = outcome.error.hint if outcome.error else None
    if not hint:
        return hint
    ingest = f"`ursa ingest {shlex.quote(str(outcome.rec_dir))}"
    # Every other piece is a command in backquotes, and has what it needs.
    pieces = hint.split("`")
    pieces[::2] = [_OF_INGEST.sub(lambda found: f"{ingest} {found[1]}`", piece) for piece in pieces[::2]]
    return "`".join(pieces)


def entry(outcome: Outcome) -> RecordingEntry:
    """A recording's entry in a report."""
    result, error = outcome.result, outcome.error if outcome.status in ("fail", "skip") else None
    sent: dict[str, Any] = {}
    if result is not None:
        sent = {
            "action": str(result.action),
            "files_uploaded": result.files_uploaded,
            "files_skipped": result.files_skipped,
            "bytes_uploaded": result.bytes_uploaded,
            "bytes_resumed": result.bytes_resumed,
            "bytes_skipped": result.bytes_skipped,
            "seconds": result.seconds,
            "recording_hash": result.recording.recording_hash,
            "evidence": result.evidence,
            "warnings": result.warnings,
        }
    elif outcome.plan is not None:
        sent = {"action": str(outcome.plan.action), "warnings": outcome.plan.warnings}
    return RecordingEntry(
        outcome.rec_id,
        str(outcome.rec_dir),
        outcome.status,
        error=type(error).__name__ if error and outcome.status == "fail" else None,
        message=(error.message if error else outcome.reason) or None,
        hint=hint_of(outcome) if error else None,
        finished_at=datetime.now(UTC),
        reached=outcome.reached,
        **sent,
    )


def counts_of(batch: BatchRun) -> dict[str, int]:
    """What became of how many; they add up to the recordings that were found."""
    return {**batch.counts, "not_reached": batch.not_reached}


NOTHING: dict[str, Any] = {
    "dry_run": False,
    "counts": ZEROS,
    "recordings": 0,
    "bytes_uploaded": 0,
    "bytes_resumed": 0,
    "files_uploaded": 0,
    "seconds": 0.0,
    "roots": [],
    "problems": [],
    "stopped": None,
    "failed": [],
    "skipped": [],
}
"""The summary of a batch that fails before it begins; how it ended comes on top."""


def on_stdout(summary: dict[str, Any], failed: int) -> dict[str, Any]:
    """The summary as the last JSON line has it: its recordings have had lines of their own."""
    return {name: value for name, value in summary.items() if name != "skipped"} | {"failed": failed}


def summary(batch: BatchRun, told: Told, ended: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
    """What scripts, reports and --notify learn of the whole run. ``ended``: error, message, hint and exit_code."""
    total = batch.estimate
    estimate = {
        "files": total.files,
        "bytes_to_send": total.bytes,
        "bytes_in_parts": total.bytes_in_parts,
        "class_a": total.class_a,
        "class_b": total.class_b,
        "dollars": round(total.dollars, 4),
        "dollars_a_month": round(total.dollars_a_month, 4),
    }
    sent = {name: getattr(told, name) for name in ("bytes_uploaded", "bytes_resumed", "files_uploaded")}
    return {
        "dry_run": dry_run,
        "counts": counts_of(batch),
        "recordings": len(batch.found.rec_dirs),
        **(estimate if dry_run else sent),
        "seconds": round(batch.seconds, 3),
        "roots": [str(root) for root in batch.found.roots],
        "problems": list(batch.found.problems),
        "stopped": batch.why_stopped,
        "failed": told.failed,
        "skipped": told.skipped,
        **ended,
    }


def last_line(batch: BatchRun, told: Told, said: dict[str, Any], *, dry_run: bool) -> None:
    """The summary: the last line on stdout, and in the log."""
    out, counts = told.session.out, counts_of(batch)
    for line in _estimate(batch) if dry_run else ():
        out.line(line)
    out.record("summary", **on_stdout(said, counts["fail"]))
    if dry_run:
        ending = "nothing was sent or written"
    else:
        pace = f" ({size(round(told.bytes_sent / batch.seconds))}/s)" if told.bytes_sent else ""
        before = f", {size(told.bytes_resumed)} of these files by an earlier run" if told.bytes_resumed else ""
        ending = f"{size(told.bytes_sent)} sent in {duration(batch.seconds)}{pace}{before}"
    level = logging.ERROR if said["exit_code"] else logging.INFO
    out.outcome(f"{counted(counts, dry_run=dry_run)}; {ending}", level=level)
    if counts["not_reached"]:
        why = (batch.why_stopped or "the run broke off").removeprefix("not tried: ")
        out.note(f"{counts['not_reached']} not reached: {why}. {AGAIN}")
    if counts["fail"] or counts["skip"] or counts["not_reached"] or batch.found.problems:
        out.note("What is neither OK nor HAVE may be nowhere else: don't wipe this disk. Mend it, and run it again.")


def _estimate(batch: BatchRun) -> Iterator[str]:
    total = batch.estimate
    times = ", ".join(f"{duration(total.seconds(rate * 125_000))} at {rate} Mbit/s" for rate in _UPLINKS_MBIT)
    yield f"{total.files} files, {to_send(total.bytes, total.bytes_in_parts)}: {times}"
    yield (
        f"about {total.class_a} class A and {total.class_b} class B requests (${total.dollars:.2f}),"
        f" then ${total.dollars_a_month:.2f} a month to keep, at R2's list price"
    )


def _to_know(outcome: Outcome) -> str | None:
    """Of a recording that is registered: that its participants differ, which only the hint says."""
    hint = hint_of(outcome)
    return hint if hint and "participants differ" in hint else None
