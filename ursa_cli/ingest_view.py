"""How `ingest` tells what it plans and what it did."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ursa.errors import UrsaError, UsageError, named
from ursa_cli.render import print_error, size
from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa import DataInterface, IngestPlan, IngestResult, Outcome, UploadProgress
    from ursa.errors import InterruptedRunError
    from ursa.policies import Evidence, Existing

_SHOWN = 10


def refuse_roots(rec_dirs: list[Path], command: str = "`ursa batch {}` ingests them all.") -> None:
    """A directory with recordings in it is for another ``command``. Raises ``UsageError``."""
    from ursa.batch.find import holds_recordings

    for root in rec_dirs:
        if holds_recordings(root):
            quoted = shlex.quote(str(root))
            raise UsageError(
                f"{root} is no recording: recordings (rec_*) are below it; nothing was started",
                hint=command.format(quoted),
            )


def outcomes(
    session: Session,
    data: DataInterface,
    rec_dirs: list[Path],
    participant: str | None,
    existing: Existing,
    jobs: int | None,
    choices: dict[str, Any],
) -> None:
    """Ingest, or plan, and print a result each; raises ``typer.Exit`` with the first failure's code."""
    done = "can be ingested" if choices["dry_run"] else "registered"
    counts = {"ok": 0, "have": 0, "fail": 0}
    session.out.totals = counts
    code = 0
    in_flight: dict[str, UploadProgress] = {}
    with session.bars() as bars:
        bars.expect(len(rec_dirs))

        def follow(event: UploadProgress) -> None:
            in_flight[event.rec_id] = event
            bars.upload(event)

        def take(outcome: Outcome) -> int:
            counts[outcome.status] = counts.get(outcome.status, 0) + outcome.reached
            in_flight.pop(outcome.rec_id, None)
            bars.finished(outcome.rec_id)
            with bars.print_above():
                tell(session, outcome, alone=len(rec_dirs) == 1)
            return outcome.error.exit_code if outcome.status == "fail" and outcome.error else 0

        run = data.ingest_dirs(
            rec_dirs, participant=participant, existing=existing, jobs=jobs, progress=follow, **choices
        )
        try:
            with closing(run.__iter__()) as found:
                for outcome in found:
                    status = take(outcome)
                    code = code or status
        except KeyboardInterrupt:
            # What had ended by then, and waited for its turn: some of it is registered.
            for outcome in run.untold():
                take(outcome)
            session.out.totals = {**counts, "not_reached": len(rec_dirs) - sum(counts.values())}
            _count(session, counts, len(rec_dirs), done)
            raise interrupted(in_flight) from None
    if run.ended_by is not None and not code:
        # Nobody's failure: what ended the run before these were tried.
        print_error(run.ended_by)
        code = run.ended_by.exit_code
    finish(session, counts, code, len(rec_dirs), done)


def finish(session: Session, counts: Mapping[str, int], code: int, total: int, done: str = "registered") -> None:
    """The summary; raises ``typer.Exit`` where the code is not 0."""
    session.out.record("summary", **counts, exit_code=code)
    _count(session, counts, total, done)
    if code:
        raise typer.Exit(code)


def _count(session: Session, counts: Mapping[str, int], total: int, done: str = "registered") -> None:
    """The last line, where there are several."""
    told = [f"{counts['ok']} {done}", *([f"{counts['have']} already there"] if "have" in counts else [])]
    told += [f"{counts['skip']} skipped"] if counts.get("skip") else []
    told.append(f"{counts['fail']} failed")
    left = total - sum(counts.values())
    if total > 1:
        session.out.outcome(", ".join([*told, *([f"{left} not reached"] if left else [])]))


def _known_by(evidence: Evidence) -> str:
    return f"proven by {evidence}" if evidence.proven else "by size only"


def interrupted(in_flight: Mapping[str, UploadProgress]) -> InterruptedRunError:
    """What is there, and how to go on."""
    from ursa.errors import InterruptedRunError

    told = "; ".join(
        f"{rec_id} has {event.files_done} of {event.files_total} files and {size(event.bytes_uploaded)} of"
        f" {size(event.bytes_total)} in the bucket and "
        + ("was being registered (see `ursa ls`)" if event.phase in ("register", "done") else "is not registered")
        for rec_id, event in in_flight.items()
    )
    return InterruptedRunError(
        f"interrupted: {told or 'nothing was in flight'}; what was finished before stands",
        hint="What has arrived stays. Run the same command again: it goes on from there.",
    )


def tell(session: Session, outcome: Outcome, *, alone: bool) -> None:
    """The lines of one recording. ``alone``: it is the only one that was asked for."""
    if outcome.result is not None:
        _result(session, outcome.result)
    elif outcome.plan is not None:
        _plan(session, outcome.plan)
    elif outcome.status == "have":
        session.out.outcome(f"HAVE {outcome.rec_id}: already registered{outcome.told}")
        session.out.record("recording", rec_id=outcome.rec_id, status="have", told=outcome.told.strip(" ;,"))
    elif outcome.status == "skip":
        session.out.outcome(f"SKIP {outcome.rec_id}: {outcome.reason}", level=logging.WARNING)
        session.out.record("recording", rec_id=outcome.rec_id, status="skip", reason=outcome.reason)
    elif outcome.error is not None:
        failed(session, outcome.rec_id, outcome.error, alone=alone)


def failed(session: Session, rec_id: str, error: UrsaError, *, alone: bool = False) -> None:
    """A recording that was refused, or broke off: on stderr where it is all that there is to tell."""
    told = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    session.out.record("recording", rec_id=rec_id, status="fail", **told, exit_code=error.exit_code)
    line = f"FAIL {rec_id}: {told['error']}: {error.message}"
    if alone or session.out.quiet:
        session.out.log(logging.ERROR, f"{line} | {error.hint}" if error.hint else line)
        print_error(error)
        return
    session.out.outcome(line, hint=error.hint, level=logging.ERROR)
    if error.hint:
        session.out.advice(error.hint)


def result_record(result: IngestResult) -> dict[str, Any]:
    """A JSON line's fields for a recording that was registered."""
    return {
        "rec_id": result.recording.rec_id,
        "status": "ok",
        "recording_hash": result.recording.recording_hash,
        "action": str(result.action),
        "files_uploaded": result.files_uploaded,
        "files_skipped": result.files_skipped,
        "bytes_uploaded": result.bytes_uploaded,
        "bytes_resumed": result.bytes_resumed,
        "bytes_skipped": result.bytes_skipped,
        "unlisted": result.unlisted,
        "junk": result.junk,
        "absent_nodes": list(result.absent_nodes),
        "warnings": list(result.warnings),
        "evidence": dict(result.evidence),
        "in_bucket": result.in_bucket,
        "requests": dict(result.requests),
        "seconds": round(result.seconds, 3),
    }


def ok_line(result: IngestResult) -> str:
    """``OK   rec_…: 12 uploaded, 0 skipped``, and what is to be known of how that was proven."""
    told = f"OK   {result.recording.rec_id}: {result.files_uploaded} uploaded, {result.files_skipped} skipped"
    if result.in_bucket:
        told += f", {result.in_bucket} only in the bucket"
    told += f" ({result.by_size_only} by size only)" if result.by_size_only else ""
    by_mtime = result.trusted.get("size and mtime", 0)
    return told + (f" ({by_mtime} by size and mtime; not read)" if by_mtime else "")


def _result(session: Session, result: IngestResult) -> None:
    row = result.recording
    session.remember([row.rec_id])
    session.out.record("recording", **result_record(result))
    line = session.out.line
    session.out.outcome(ok_line(result))
    line(f"     {result.action} {row.recording_hash}")
    before = f", {size(result.bytes_resumed)} of these files by an earlier run" if result.bytes_resumed else ""
    sent = f"{size(result.bytes_uploaded - result.bytes_resumed)} sent{before}"
    line(f"     {sent}, {size(result.bytes_skipped)} were there, {result.seconds:.1f} s")
    if result.unlisted:
        line(
            f"     {result.unlisted} not in the manifest, uploaded all the same: {named(result.unlisted_files, _SHOWN)}"
        )
    if result.junk:
        line(f"     {result.junk} left on the disk as junk (.DS_Store and the like)")
    for warning in result.warnings:
        line(f"     warning: {warning}")
        session.out.log(logging.WARNING, f"{row.rec_id}: {warning}")


def to_send(count: int, in_parts: int) -> str:
    """What an ingest would send, in bytes, ``in_parts`` of which earlier runs have sent."""
    return f"{size(count)} to send" + (
        f" (of which {size(in_parts)} are there in parts from an earlier run)" if in_parts else ""
    )


def _plan(session: Session, plan: IngestPlan) -> None:
    files: list[dict[str, Any]] = [
        {"path": item.file.path, "action": item.action, "size_bytes": item.file.size_bytes, "evidence": item.evidence}
        for item in (*plan.files, *plan.sidecars)
    ]
    session.out.record(
        "plan",
        rec_id=plan.rec_id,
        action=str(plan.action),
        recording_hash=plan.recording_hash,
        participant=plan.participant,
        bytes_to_send=plan.bytes_to_send,
        bytes_in_parts=plan.bytes_in_parts,
        files=files,
        in_bucket=[item.path for item in plan.in_bucket],
        absent_nodes=list(plan.absent_nodes),
        unlisted=list(plan.unlisted),
        junk=list(plan.junk),
        warnings=list(plan.warnings),
    )
    line = session.out.line
    line(f"PLAN {plan.rec_id}: {len(plan.sends)} to upload, {plan.files_skipped} to skip; nothing was sent or written")
    for item in (*plan.files, *plan.sidecars):
        proof = f"  {_known_by(item.evidence)}" if item.evidence else ""
        line(f"     {item.action:8}{size(item.file.size_bytes):>11}  {item.file.path}{proof}")
    for there in plan.in_bucket:
        line(f"     {'in bucket':8}{size(there.size_bytes):>10}  {there.path}")
    known = plan.recording_hash or "known once the files are read"
    line(
        f"     {to_send(plan.bytes_to_send, plan.bytes_in_parts)}; the catalog row would be {plan.action}, recording_hash {known}"
    )
    names = dict.fromkeys(name for name in (plan.participant, *plan.kept_names) if name)
    line(f"     participant: {', '.join(names) or _nobody(plan)}")
    if plan.junk:
        line(f"     junk, stays on the disk: {named(plan.junk, _SHOWN)}")
    for warning in plan.warnings:
        line(f"     warning: {warning}")


def _nobody(plan: IngestPlan) -> str:
    """Where this disk names nobody: what is registered stays."""
    return "unknown" if plan.action == "created" else "as it is registered"
