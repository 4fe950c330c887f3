"""How `ursa batch` runs and tells: its lines, its summary, its reports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ursa.policies import Existing, OnFailure
from ursa_cli.ingest_view import interrupted, result_record
from ursa_cli.render import duration, seconds_in, size
from ursa_cli.report import RecordingEntry, RunReport

if TYPE_CHECKING:
    from ursa import BatchRun, DataInterface, Outcome, UploadProgress
    from ursa_cli.notify import Notifier
    from ursa_cli.progress import Bars
    from ursa_cli.session import Session

_FAILED_TOLD = 1000
# Mbit/s of uplinks for the estimate of a dry run: a slow DSL line, a good office, a campus.
_UPLINKS_MBIT = (20, 100, 1000)


@dataclass(frozen=True)
class Choices:
    """The options of `ursa batch`, as typed."""

    roots: list[str]
    jobs: int
    existing: Existing
    reports: list[Path]
    on_failure: OnFailure
    strict: bool
    max_duration: str | None
    settle: str | None
    reconstruct_missing: bool
    dry_run: bool
    wait: str | None


@dataclass
class _Told:
    """What the run has told so far."""

    session: Session
    reports: list[RunReport]
    bars: Bars
    in_flight: dict[str, UploadProgress] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    bytes_uploaded: int = 0
    files_uploaded: int = 0

    def follow(self, event: UploadProgress) -> None:
        """A progress event, from any thread."""
        self.in_flight[event.rec_id] = event
        self.bars.upload(event)

    def moved(self) -> int:
        """Bytes sent in all, those of recordings in flight included."""
        return self.bytes_uploaded + sum(event.bytes_uploaded for event in list(self.in_flight.values()))


def run(session: Session, notifier: Notifier, choices: Choices, **settings: Any) -> None:
    """Everything from the lock to the last line; raises ``typer.Exit`` with the exit status."""
    started_at = datetime.now(UTC)
    reports = [
        RunReport(path, command=sys.argv, profile=session.profile, roots=choices.roots, started_at=started_at)
        for path in choices.reports
    ]
    for report in reports:
        report.check()
    with _finished(reports, notifier), session.bars() as bars:
        told = _Told(session, reports, bars)
        data = session.data(writes=() if choices.dry_run else ("assets_rw", "raw_rw"), **settings)
        with _locked(session, data, choices, told):
            batch = _begin(data, choices, told)
            bars.expect(len(batch.found.rec_dirs))
            for report in reports:
                report.expect(len(batch.found.rec_dirs))
            code = _follow(batch, choices, told)
            notifier.summary = _summary(batch, told, code)
            _last_line(batch, choices, told, code)
    if batch.credentials is not None:
        raise batch.credentials
    if code:
        raise typer.Exit(code)


def _begin(data: DataInterface, choices: Choices, told: _Told) -> BatchRun:
    return data.batch(
        choices.roots,
        jobs=choices.jobs,
        existing=choices.existing,
        on_failure=choices.on_failure,
        max_duration_s=seconds_in(choices.max_duration),
        settle_s=seconds_in(choices.settle) or 0.0,
        reconstruct_missing=choices.reconstruct_missing,
        dry_run=choices.dry_run,
        progress=told.follow,
    )


def _locked(session: Session, data: DataInterface, choices: Choices, told: _Told) -> AbstractContextManager[object]:
    """One run at a time; a dry run changes nothing, and needs no lock."""
    if choices.dry_run:
        return nullcontext()
    from ursa.lock import hold

    return hold(
        session.profile,
        str(data.config.path or ""),
        _begin(data, choices, told).found.roots,
        wait_s=seconds_in(choices.wait) or 0.0,
        command=" ".join(["ursa batch", *choices.roots]),
    )


@contextmanager
def _finished(reports: list[RunReport], notifier: Notifier) -> Iterator[None]:
    """Whatever ends the run, its reports are finished."""
    from ursa_cli.notify import exit_code

    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        code = exit_code(error) if error else int(notifier.summary.get("exit_code", 0))
        for report in reports:
            report.finish(code, notifier.summary, error)


def _follow(batch: BatchRun, choices: Choices, told: _Told) -> int:
    for problem in batch.found.problems:
        told.session.out.error(problem)
    for remark in batch.found.remarks:
        told.session.out.note(remark)
    try:
        for outcome in batch:
            last = told.in_flight.pop(outcome.rec_id, None)
            told.bars.finished(outcome.rec_id)
            if outcome.result is not None:
                told.bytes_uploaded += outcome.result.bytes_uploaded
                told.files_uploaded += outcome.result.files_uploaded
            elif last is not None:
                told.bytes_uploaded += last.bytes_uploaded
            with told.bars.print_above():
                _line(outcome, told)
            for report in told.reports:
                report.sample(batch.seconds, told.moved())
                report.add(_entry(outcome))
    except KeyboardInterrupt:
        raise interrupted(told.in_flight) from None
    if batch.found.problems:
        return 1
    if batch.counts["fail"] or (choices.strict and batch.counts["skip"]):
        return 3
    return 0


def _line(outcome: Outcome, told: _Told) -> None:
    out, rec_id, error = told.session.out, outcome.rec_id, outcome.error
    if outcome.result is not None:
        result = outcome.result
        out.record("recording", **result_record(result))
        out.line(f"OK   {rec_id}: {result.files_uploaded} uploaded, {result.files_skipped} skipped")
        told.session.remember([rec_id])
        for warning in result.warnings:
            out.note(f"     {rec_id}: {warning}")
    elif outcome.plan is not None:
        plan = outcome.plan
        out.record(
            "recording",
            rec_id=rec_id,
            status="plan",
            files=len(plan.sends),
            bytes_to_send=plan.bytes_to_send,
            files_skipped=plan.files_skipped,
            action=str(plan.action),
        )
        out.line(
            f"PLAN {rec_id}: {len(plan.sends)} to upload ({size(plan.bytes_to_send)}), {plan.files_skipped} to skip"
        )
    elif outcome.status == "have":
        out.record("recording", rec_id=rec_id, status="have")
        out.line(f"HAVE {rec_id}: already registered")
    elif outcome.status == "skip":
        out.record("recording", rec_id=rec_id, status="skip", reason=outcome.reason, hint=error.hint if error else None)
        out.line(f"SKIP {rec_id}: {outcome.reason}")
    elif error is not None:
        fields = {"rec_id": rec_id, "error": type(error).__name__, "message": error.message, "hint": error.hint}
        told.failed += [fields] if len(told.failed) < _FAILED_TOLD else []
        out.record("recording", **fields, status="fail", exit_code=error.exit_code, path=str(outcome.rec_dir))
        out.line(f"FAIL {rec_id}: {type(error).__name__}: {error.message}")
        if error.hint:
            out.note(f"     {error.hint}")


def _entry(outcome: Outcome) -> RecordingEntry:
    result, error = outcome.result, outcome.error
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
    failed = error is not None and outcome.status in ("fail", "skip")
    return RecordingEntry(
        outcome.rec_id,
        str(outcome.rec_dir),
        outcome.status,
        error=type(error).__name__ if failed and outcome.status == "fail" else None,
        message=(error.message if failed and error else outcome.reason) or None,
        hint=error.hint if failed and error else None,
        finished_at=datetime.now(UTC),
        **sent,
    )


def _summary(batch: BatchRun, told: _Told, code: int) -> dict[str, Any]:
    return {
        "counts": dict(batch.counts),
        "recordings": len(batch.found.rec_dirs),
        "bytes_uploaded": told.bytes_uploaded,
        "files_uploaded": told.files_uploaded,
        "seconds": round(batch.seconds, 3),
        "roots": [str(root) for root in batch.found.roots],
        "problems": list(batch.found.problems),
        "failed": told.failed,
        "exit_code": code,
    }


def _last_line(batch: BatchRun, choices: Choices, told: _Told, code: int) -> None:
    out, counts = told.session.out, batch.counts
    if choices.dry_run:
        _estimate(batch, told, code)
        return
    out.record("summary", **{**_summary(batch, told, code), "failed": len(told.failed)})
    pace = f" ({size(round(told.bytes_uploaded / batch.seconds))}/s)" if told.bytes_uploaded and batch.seconds else ""
    out.line(
        f"{len(batch.found.rec_dirs)} recordings: {counts['ok']} registered, {counts['have']} already registered,"
        f" {counts['skip']} skipped, {counts['fail']} failed; {size(told.bytes_uploaded)} sent in"
        f" {duration(batch.seconds)}{pace}"
    )
    if counts["fail"] or batch.found.problems:
        out.note("The recordings that failed are not registered: don't wipe this disk. Mend them, and run it again.")


def _estimate(batch: BatchRun, told: _Told, code: int) -> None:
    total, out = batch.estimate, told.session.out
    out.record(
        "summary",
        dry_run=True,
        counts=dict(batch.counts),
        recordings=len(batch.found.rec_dirs),
        files=total.files,
        bytes_to_send=total.bytes,
        class_a=total.class_a,
        class_b=total.class_b,
        dollars=round(total.dollars, 4),
        dollars_a_month=round(total.dollars_a_month, 4),
        exit_code=code,
    )
    counts = batch.counts
    out.line(
        f"{len(batch.found.rec_dirs)} recordings: {counts['ok']} to register, {counts['have']} already registered,"
        f" {counts['skip']} skipped, {counts['fail']} would fail; nothing was sent or written"
    )
    times = ", ".join(f"{duration(total.seconds(rate * 125_000))} at {rate} Mbit/s" for rate in _UPLINKS_MBIT)
    out.line(f"{total.files} files, {size(total.bytes)} to send: {times}")
    out.line(
        f"about {total.class_a} class A and {total.class_b} class B requests (${total.dollars:.2f}),"
        f" then ${total.dollars_a_month:.2f} a month to keep, at R2's list price"
    )
