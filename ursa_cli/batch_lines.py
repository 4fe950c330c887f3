"""What `ursa batch` prints: a line a recording, the summary, the estimate of a dry run; and what its report says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ursa_cli.ingest_view import result_record
from ursa_cli.render import duration, plain, size
from ursa_cli.report import RecordingEntry, RunReport

if TYPE_CHECKING:
    from ursa import BatchRun, IngestPlan, IngestResult, Outcome, UploadProgress
    from ursa.errors import UrsaError
    from ursa_cli.progress import Bars
    from ursa_cli.session import Session

_FAILED_TOLD = 1000
_REMEMBERED = 1000
# Mbit/s of uplinks for the estimate of a dry run: a slow DSL line, a good office, a campus.
_UPLINKS_MBIT = (20, 100, 1000)


@dataclass
class Told:
    """What the run has told so far."""

    session: Session
    reports: list[RunReport]
    bars: Bars
    in_flight: dict[str, UploadProgress] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    registered: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    bytes_uploaded: int = 0
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
            self.files_uploaded += outcome.result.files_uploaded
        elif last is not None and outcome.plan is None:
            self.bytes_uploaded += last.bytes_uploaded
        with self.bars.print_above():
            self._line(outcome)
        for report in self.reports:
            report.sample(seconds, self._moved())
            report.add(entry(outcome))

    def _moved(self) -> int:
        """Bytes sent in all, those of recordings in flight included."""
        return self.bytes_uploaded + sum(event.bytes_uploaded for event in list(self.in_flight.values()))

    def _line(self, outcome: Outcome) -> None:
        error = outcome.error
        if outcome.result is not None:
            self._registered(outcome.rec_id, outcome.result)
        elif outcome.plan is not None:
            self._planned(outcome.rec_id, outcome.plan)
        elif outcome.status == "have":
            self._one(f"HAVE {outcome.rec_id}: already registered")
            self._record(outcome, hint=_worth_telling(error))
            if _worth_telling(error):
                self._note(f"{outcome.rec_id}: {_worth_telling(error)}")
        elif outcome.status == "skip":
            self._one(f"SKIP {outcome.rec_id}: {outcome.reason}")
            self._record(outcome, reason=outcome.reason, hint=error.hint if error else None)
        elif error is not None:
            self._refused(outcome, error)

    def _registered(self, rec_id: str, result: IngestResult) -> None:
        self._one(f"OK   {rec_id}: {result.files_uploaded} uploaded, {result.files_skipped} skipped")
        self.session.out.record("recording", **result_record(result))
        self.registered.append(rec_id)
        for warning in result.warnings:
            self._note(f"{rec_id}: {warning}")

    def _planned(self, rec_id: str, plan: IngestPlan) -> None:
        to_send = f"{len(plan.sends)} to upload ({size(plan.bytes_to_send)})"
        self._one(f"PLAN {rec_id}: {to_send}, {plan.files_skipped} to skip")
        self.session.out.record(
            "recording",
            rec_id=rec_id,
            status="plan",
            files=len(plan.sends),
            bytes_to_send=plan.bytes_to_send,
            files_skipped=plan.files_skipped,
            action=str(plan.action),
        )
        for warning in plan.warnings:
            self._note(f"{rec_id}: {warning}")

    def _refused(self, outcome: Outcome, error: UrsaError) -> None:
        told = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        if len(self.failed) < _FAILED_TOLD:
            self.failed.append({"rec_id": outcome.rec_id, **told})
        line = f"FAIL {outcome.rec_id}: {told['error']}: {error.message}"
        self._one(line)
        self._record(outcome, **told, exit_code=error.exit_code)
        if self.session.out.quiet:
            self.session.out.error(line)
        if error.hint:
            # With its name: the lines are on stdout, and this may be read without them.
            self._note(f"{outcome.rec_id}: {error.hint}")

    def _one(self, text: str) -> None:
        # A newline in a name must not begin a line that looks like another recording's.
        self.session.out.line(plain(text) if "\n" in text else text)

    def _note(self, text: str) -> None:
        self.session.out.note(f"     {text}")

    def _record(self, outcome: Outcome, **fields: Any) -> None:
        said = {"rec_id": outcome.rec_id, "status": outcome.status, "path": str(outcome.rec_dir)}
        self.session.out.record("recording", **said, **fields)


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
        hint=error.hint if error else None,
        finished_at=datetime.now(UTC),
        **sent,
    )


def summary(batch: BatchRun, told: Told, code: int, *, dry_run: bool) -> dict[str, Any]:
    """What scripts, reports and --notify learn of the whole run."""
    total = batch.estimate
    estimate = {
        "files": total.files,
        "bytes_to_send": total.bytes,
        "class_a": total.class_a,
        "class_b": total.class_b,
        "dollars": round(total.dollars, 4),
        "dollars_a_month": round(total.dollars_a_month, 4),
    }
    sent = {"bytes_uploaded": told.bytes_uploaded, "files_uploaded": told.files_uploaded}
    return {
        "dry_run": dry_run,
        "counts": dict(batch.counts),
        "recordings": len(batch.found.rec_dirs),
        **(estimate if dry_run else sent),
        "seconds": round(batch.seconds, 3),
        "roots": [str(root) for root in batch.found.roots],
        "problems": list(batch.found.problems),
        "stopped": batch.why_stopped,
        "failed": told.failed,
        "exit_code": code,
    }


def last_line(batch: BatchRun, told: Told, code: int, *, dry_run: bool) -> None:
    """The summary: the last line on stdout."""
    out, counts = told.session.out, batch.counts
    for line in _estimate(batch) if dry_run else ():
        out.line(line)
    out.record("summary", **{**summary(batch, told, code, dry_run=dry_run), "failed": batch.counts["fail"]})
    if dry_run:
        ending = f"{counts['fail']} would fail; nothing was sent or written"
    else:
        pace = f" ({size(round(told.bytes_uploaded / batch.seconds))}/s)" if told.bytes_uploaded else ""
        ending = f"{counts['fail']} failed; {size(told.bytes_uploaded)} sent in {duration(batch.seconds)}{pace}"
    untried = len(batch.found.rec_dirs) - sum(counts.values())
    left = f" {untried} not finished," if untried else ""
    out.line(
        f"{_recordings(len(batch.found.rec_dirs))}: {counts['ok']} {'to register' if dry_run else 'registered'},"
        f" {counts['have']} already registered, {counts['skip']} skipped,{left} {ending}"
    )
    if batch.why_stopped:
        out.note(f"Not all was tried: {batch.why_stopped}. Run the same command again: it goes on from there.")
    if counts["fail"] or counts["skip"] or untried or batch.found.problems:
        out.note("What is neither OK nor HAVE is not registered: don't wipe this disk. Mend it, and run it again.")


def _estimate(batch: BatchRun) -> Iterator[str]:
    total = batch.estimate
    times = ", ".join(f"{duration(total.seconds(rate * 125_000))} at {rate} Mbit/s" for rate in _UPLINKS_MBIT)
    yield f"{total.files} files, {size(total.bytes)} to send: {times}"
    yield (
        f"about {total.class_a} class A and {total.class_b} class B requests (${total.dollars:.2f}),"
        f" then ${total.dollars_a_month:.2f} a month to keep, at R2's list price"
    )


def _recordings(count: int) -> str:
    return "1 recording" if count == 1 else f"{count} recordings"


def _worth_telling(error: UrsaError | None) -> str | None:
    """Of a recording that is registered: that its participants differ, which only the hint says."""
    hint = error.hint if error else None
    return hint if hint and "participants differ" in hint else None
