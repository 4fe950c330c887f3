"""How `verify` tells what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa import FileCheck, RecordingCheck
    from ursa.policies import Level

_EXIT_DIFFERENT = 6


def run(
    session: Session, refs: list[str], everything: bool, level: Level, subset: str | None, dask: str | None
) -> None:
    """Verify and print; raises ``typer.Exit(6)`` where something is wrong."""
    from ursa import UsageError
    from ursa.cluster import executor

    if bool(refs) == everything:
        raise UsageError("name recordings, or say --all", hint="See `ursa verify --help`.")

    several = everything or len(refs) > 1

    def on_file(rec_id: str, check: FileCheck) -> None:
        detail = f"  ({check.detail})" if check.detail else ""
        path = f"{rec_id}/{check.path}" if several else check.path
        session.out.line(f"{check.mark} {check.evidence or '-':<7} {path}{detail}")

    with executor(dask) as workers:
        checks = session.data().verify(
            refs, everything=everything, level=level, subset=subset, executor=workers, on_file=on_file
        )
    for check in checks:
        _summary(session, check)
    wrong = sum(not check.ok for check in checks)
    session.out.record("summary", recordings=len(checks), wrong=wrong, exit_code=_EXIT_DIFFERENT if wrong else 0)
    if wrong:
        raise typer.Exit(_EXIT_DIFFERENT)


def _summary(session: Session, check: RecordingCheck) -> None:
    from ursa.policies import Mark

    names = {
        Mark.SAME: "same",
        Mark.MISSING: "missing",
        Mark.UNREGISTERED: "not in the catalog",
        Mark.DIFFERENT: "different",
        Mark.ERROR: "not checked",
    }
    counts = {name: check.count(mark) for mark, name in names.items()}
    session.out.record(
        "recording",
        rec_id=check.rec_id,
        recording_hash=check.recording_hash,
        status="ok" if check.ok else "fail",
        files=list(check.files),
        left_out=check.left_out,
    )
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no files"
    told += f"; {check.left_out} left out by --subset" if check.left_out else ""
    session.out.line(f"{'OK  ' if check.ok else 'FAIL'} {check.rec_id}: {told}")
