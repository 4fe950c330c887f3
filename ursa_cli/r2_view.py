"""How `ingest-r2` tells what is in the bucket and what it registered."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ursa.errors import InterruptedRunError, UrsaError, UsageError, named
from ursa_cli import ingest_view, typed
from ursa_cli.render import size
from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa import DataInterface, IngestResult, Outcome, UploadProgress
    from ursa.register.from_r2_plan import BucketPlan

_SHOWN = 10


def refuse_directories(rec_ids: Sequence[str]) -> None:
    """A rec_id names a prefix in the bucket; who writes a path has the recording on a disk. Raises ``UsageError``."""
    for rec_id in rec_ids:
        if "/" in rec_id or os.sep in rec_id or rec_id in (".", ".."):
            name = Path(rec_id).name
            other = f" Where its bytes are in the bucket already: `ursa ingest-r2 {shlex.quote(name)}`."
            raise UsageError(
                f"{rec_id} is a path, and ingest-r2 takes a rec_id: it reads the bucket, never a disk",
                hint=f"Upload and register a directory with `ursa ingest {shlex.quote(rec_id)}`."
                + (other if name.startswith("rec_") else ""),
            )


def outcomes(
    session: Session, data: DataInterface, rec_ids: Sequence[str], participant: str | None, *, overwrite: bool
) -> None:
    """Register and print a result each; raises ``typer.Exit`` with the first failure's code."""
    wanted = list(dict.fromkeys(rec_ids))
    registering: set[str] = set()
    session.out.totals = {"ok": 0, "have": 0, "fail": 0, "not_reached": len(wanted)}
    with session.bars() as bars:

        def follow(event: UploadProgress) -> None:
            if event.phase == "register":
                registering.add(event.rec_id)
            bars.upload(event)

        try:
            done = data.ingest_from_r2_several(wanted, participant, overwrite=overwrite, progress=follow)
        except KeyboardInterrupt:
            raise _interrupted(registering) from None
    for outcome in done:
        _outcome(session, outcome, alone=len(wanted) == 1)
    failed = [outcome.error for outcome in done if outcome.error is not None]
    _finish(session, "registered", len(done) - len(failed), failed)


def plans(
    session: Session, data: DataInterface, rec_ids: Sequence[str], participant: str | None, *, overwrite: bool
) -> None:
    """Print what would be registered; raises ``typer.Exit`` with the first refusal's code."""
    wanted = list(dict.fromkeys(rec_ids))
    failed: list[UrsaError] = []
    with closing(data.plan_from_r2_several(wanted, participant, overwrite=overwrite)) as planned:
        for rec_id, plan in planned:
            if isinstance(plan, UrsaError):
                failed.append(plan)
                ingest_view.failed(session, rec_id, plan, alone=len(wanted) == 1)
            else:
                _plan(session, plan)
    _finish(session, "can be registered", len(wanted) - len(failed), failed)


def _finish(session: Session, what: str, ok: int, failed: Sequence[UrsaError]) -> None:
    code = failed[0].exit_code if failed else 0
    session.out.record("summary", ok=ok, have=0, fail=len(failed), exit_code=code)
    if ok + len(failed) > 1:
        session.out.outcome(f"{ok} {what}, {len(failed)} failed")
    if code:
        raise typer.Exit(code)


def _outcome(session: Session, outcome: Outcome, *, alone: bool) -> None:
    """JSON and failures as `ingest` tells them; a success in its own words, since nothing was uploaded."""
    if outcome.result is None or session.out.json:
        ingest_view.tell(session, outcome, alone=alone)
    else:
        _result(session, outcome.result)


def _result(session: Session, result: IngestResult) -> None:
    row = result.recording
    session.remember([row.rec_id])
    line = session.out.line
    files = _files(result.files_skipped)
    told = f"OK   {row.rec_id}: {files} in the bucket, registered as {row.recording_hash}"
    if result.by_size_only:
        told += f" ({result.by_size_only} by size only: `ursa verify {row.rec_id}{typed.options()} --level full` reads them)"
    session.out.outcome(told)
    line(f"     {result.action}; {size(result.bytes_skipped)} are there, nothing was sent, {result.seconds:.1f} s")
    if result.unlisted:
        line(
            f"     {result.unlisted} not in the manifest, registered all the same:"
            f" {named(result.unlisted_files, _SHOWN)}"
        )
    if result.junk:
        line(f"     {result.junk} left out as junk (.DS_Store and the like)")
    for warning in result.warnings:
        line(f"     warning: {warning}")
        session.out.log(logging.WARNING, f"{row.rec_id}: {warning}")
    if not row.participant_ids:
        line("     participant: unknown (`ursa participants backfill` takes names from participant.txt in the bucket)")
    line(f"     next: ursa show {row.rec_id}{typed.options()}")


def _plan(session: Session, plan: BucketPlan) -> None:
    recording = plan.recording
    participant = next(iter(plan.contents.participants), None)
    session.out.record(
        "plan",
        rec_id=recording.rec_id,
        action=str(plan.action),
        recording_hash=plan.recording_hash,
        participant=participant,
        bytes=plan.bytes,
        files=[
            {
                "path": row.path,
                "key": row.key,
                "size_bytes": row.size_bytes,
                "sha256": row.sha256,
                "evidence": str(row.evidence),
            }
            for row in plan.files
        ],
        unlisted=list(recording.unlisted),
        junk=list(recording.junk),
    )
    line = session.out.line
    line(f"PLAN {recording.rec_id}: {_files(len(recording.objects))} in the bucket; nothing was written")
    for item in recording.objects:
        note = "" if item.kind == "raw" else f"  {item.kind}"
        line(f"     {size(item.info.size_bytes):>11}  {item.path}{note}")
    line(f"     {size(plan.bytes)}; the catalog row would be {plan.action}, recording_hash {plan.recording_hash}")
    nobody = "unknown" if plan.action == "created" else "as it is registered"
    line(f"     participant: {participant or nobody}")
    if recording.unlisted:
        line(f"     not in the manifest, measured and registered all the same: {named(recording.unlisted, _SHOWN)}")
    if recording.junk:
        line(f"     junk, left out: {named(recording.junk, _SHOWN)}")
    again = f" --participant {shlex.quote(participant)}" if participant else ""
    again += " --overwrite" if plan.overwrite else ""
    line(f"     next: ursa ingest-r2 {recording.rec_id}{again}{typed.options()}")


def _interrupted(registering: set[str]) -> InterruptedRunError:
    told = f"{', '.join(sorted(registering))} was being registered (see `ursa ls`)" if registering else ""
    return InterruptedRunError(
        f"interrupted: {told or 'nothing was registered'}; nothing was changed in the raw bucket",
        hint="Run the same command again: what is registered says so, the rest goes on.",
    )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"
