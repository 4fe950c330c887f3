"""How `ingest` tells what it plans and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ursa.errors import named
from ursa_cli.render import print_error, size
from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa import DataInterface, IngestPlan, IngestResult, Outcome, UploadProgress
    from ursa.errors import InterruptedRunError
    from ursa.policies import Existing

_SHOWN = 10


def outcomes(
    session: Session,
    data: DataInterface,
    rec_dirs: list[Path],
    participant: str | None,
    existing: Existing,
    jobs: int,
    choices: dict[str, bool],
) -> None:
    """Ingest and print a result each; raises ``typer.Exit`` with the first failure's code."""
    counts = {"ok": 0, "have": 0, "fail": 0}
    code = 0
    in_flight: dict[str, UploadProgress] = {}
    with session.bars() as bars:
        bars.expect(len(rec_dirs))

        def follow(event: UploadProgress) -> None:
            in_flight[event.rec_id] = event
            bars.upload(event)

        try:
            for outcome in data.ingest_dirs(
                rec_dirs, participant=participant, existing=existing, jobs=jobs, progress=follow, **choices
            ):
                counts[outcome.status] += 1
                in_flight.pop(outcome.rec_id, None)
                bars.finished(outcome.rec_id)
                with bars.print_above():
                    _outcome(session, outcome, alone=len(rec_dirs) == 1)
                if outcome.status == "fail" and outcome.error is not None:
                    code = code or outcome.error.exit_code
        except KeyboardInterrupt:
            raise interrupted(in_flight) from None
    session.out.record("summary", **counts, exit_code=code)
    if len(rec_dirs) > 1:
        session.out.line(f"{counts['ok']} registered, {counts['have']} already there, {counts['fail']} failed")
    if code:
        raise typer.Exit(code)


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


def plans(session: Session, rec_dirs: list[Path], participant: str | None, choices: dict[str, bool]) -> None:
    """Print what an ingest would do."""
    from ursa.recording import read_participant

    data = session.data()
    with session.bars() as bars:
        for rec_dir in rec_dirs:
            name = read_participant(rec_dir) if participant is None else participant
            plan = data.plan_ingest(rec_dir / "manifest.json", rec_dir, name, progress=bars.upload, **choices)
            _plan(session, plan)


def _outcome(session: Session, outcome: Outcome, *, alone: bool) -> None:
    if outcome.result is not None:
        _result(session, outcome.result)
    elif outcome.status == "have":
        session.out.line(f"HAVE {outcome.rec_id}: already registered")
        session.out.record("recording", rec_id=outcome.rec_id, status="have")
    elif outcome.error is not None:
        error = outcome.error
        session.out.record(
            "recording",
            rec_id=outcome.rec_id,
            status="fail",
            error=type(error).__name__,
            message=error.message,
            hint=error.hint,
            exit_code=error.exit_code,
        )
        if alone or session.out.quiet:
            print_error(error)
            return
        session.out.line(f"FAIL {outcome.rec_id}: {type(error).__name__}: {error.message}")
        if error.hint:
            session.out.line(f"     {error.hint}")


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
        "bytes_skipped": result.bytes_skipped,
        "unlisted": result.unlisted,
        "junk": result.junk,
        "absent_nodes": list(result.absent_nodes),
        "warnings": list(result.warnings),
        "evidence": dict(result.evidence),
        "requests": dict(result.requests),
        "seconds": round(result.seconds, 3),
    }


def _result(session: Session, result: IngestResult) -> None:
    row = result.recording
    session.remember([row.rec_id])
    session.out.record("recording", **result_record(result))
    line = session.out.line
    line(f"OK   {row.rec_id}: {result.files_uploaded} uploaded, {result.files_skipped} skipped")
    line(f"     {result.action} {row.recording_hash}")
    line(f"     {size(result.bytes_uploaded)} sent, {size(result.bytes_skipped)} were there, {result.seconds:.1f} s")
    if result.unlisted:
        line(
            f"     {result.unlisted} not in the manifest, uploaded all the same: {named(result.unlisted_files, _SHOWN)}"
        )
    if result.junk:
        line(f"     {result.junk} left on the disk as junk (.DS_Store and the like)")
    for warning in result.warnings:
        line(f"     warning: {warning}")


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
        proof = f"  proven by {item.evidence}" if item.evidence else ""
        line(f"     {item.action:8}{size(item.file.size_bytes):>11}  {item.file.path}{proof}")
    for there in plan.in_bucket:
        line(f"     {'in bucket':8}{size(there.size_bytes):>10}  {there.path}")
    known = plan.recording_hash or "known once the files are read"
    line(f"     {size(plan.bytes_to_send)} to send; the catalog row would be {plan.action}, recording_hash {known}")
    line(f"     participant: {plan.participant or 'unknown'}")
    if plan.junk:
        line(f"     junk, stays on the disk: {named(plan.junk, _SHOWN)}")
    for warning in plan.warnings:
        line(f"     warning: {warning}")
