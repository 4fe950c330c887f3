"""How `reconstruct` chooses recordings, and tells what it made."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ursa_cli.ingest_view import failed
from ursa_cli.render import size
from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa import DataInterface, HashProgress, ReconstructResult, UrsaError
    from ursa.errors import InterruptedRunError
    from ursa.reconstruct import ReconstructOutcome

_UNKNOWN = "__unknown__"
_NEXT_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for on the command line."""

    refs: tuple[str, ...]
    rec_ids: tuple[str, ...]
    all_missing: bool
    yes: bool
    dry_run: bool
    jobs: int | None
    transfers: int | None
    dask: str | None = None


def run(session: Session, choice: Choice) -> None:
    """Reconstruct and print a line each; raises ``typer.Exit`` with the first failure's code."""
    _check(choice)
    writes = () if choice.dry_run else ("assets_rw", "raw_rw")
    data = session.data(writes=writes, transfers=choice.transfers)
    refs = _chosen(session, data, choice)
    if refs and not (choice.yes or choice.dry_run):
        what = "this recording" if len(refs) == 1 else f"{len(refs)} recordings"
        typer.confirm(f"Read and hash {what} and write manifest.json where there is none?", abort=True)
    _outcomes(session, data, refs, choice)


def _check(choice: Choice) -> None:
    from ursa.errors import UsageError

    if not (choice.refs or choice.rec_ids or choice.all_missing):
        raise UsageError("name recordings, or say --all-missing", hint="See `ursa reconstruct --help`.")
    if not (choice.yes or choice.dry_run or sys.stdin.isatty()):
        raise UsageError(
            "there is nobody to ask", hint="Add --yes to write the manifests, or --dry-run to see what would be read."
        )


def _chosen(session: Session, data: DataInterface, choice: Choice) -> list[str | Path]:
    """Directories as paths, rec_ids as text, each once."""
    from ursa.verify import looks_like_directory

    refs: list[str | Path] = [Path(ref) if looks_like_directory(ref) else ref for ref in choice.refs]
    refs += choice.rec_ids
    if choice.all_missing:
        left_out: list[str] = []

        def leave(name: str, error: UrsaError) -> None:
            left_out.append(name)
            _left_out(session, name, error)

        found = data.missing_manifests(on_left_out=leave)
        if not found:
            session.out.outcome(f"every {'other ' if left_out else ''}recording in the bucket has a manifest")
        if left_out:
            session.out.outcome(
                f"{len(left_out)} left out (SKIP above): a manifest that is broken, or a name that is no rec_id."
                " Neither is ever replaced or guessed: mend it by hand.",
                level=logging.WARNING,
            )
        refs += found
    return list(dict.fromkeys(refs))


def _outcomes(session: Session, data: DataInterface, refs: list[str | Path], choice: Choice) -> None:
    from ursa.cluster import executor

    counts = {"made": 0, "replaced": 0, "kept": 0, "planned": 0, "fail": 0}
    session.out.totals = counts
    code = 0
    in_flight: dict[str, HashProgress] = {}
    following: list[str] = []
    with executor(choice.dask) as workers, session.bars() as bars:
        bars.expect(len(refs))

        def follow(event: HashProgress) -> None:
            in_flight[event.rec_id] = event
            bars.hash(event)

        try:
            several = data.reconstruct_several(
                refs, jobs=choice.jobs, dry_run=choice.dry_run, executor=workers, progress=follow
            )
            with closing(several) as outcomes:
                for outcome in outcomes:
                    in_flight.pop(outcome.rec_id, None)
                    bars.finished(outcome.rec_id)
                    with bars.print_above():
                        counts[_tell(session, outcome)] += 1
                    code = code or (outcome.error.exit_code if outcome.error else 0)
                    following += _next(session, outcome)
        except KeyboardInterrupt:
            raise _interrupted(in_flight) from None
    session.out.record("summary", **counts, exit_code=code, next=following)
    if len(refs) > 1:
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        session.out.outcome(told.replace("fail", "failed"))
    for command in following[:_NEXT_SHOWN]:
        session.out.line(f"next: {command}")
    if len(following) > _NEXT_SHOWN:
        session.out.line(f"      and so on for {len(following) - _NEXT_SHOWN} more")
    if code:
        raise typer.Exit(code)


def _tell(session: Session, outcome: ReconstructOutcome) -> str:
    """The lines of one recording; returns what to count it as."""
    if outcome.error is not None:
        failed(session, outcome.rec_id, outcome.error)
        return "fail"
    assert outcome.result is not None
    result = outcome.result
    status = "planned" if result.dry_run and result.action != "kept" else str(result.action)
    session.out.record("recording", status=status, **asdict(result) | {"action": str(result.action)})
    session.out.outcome(_line(result))
    for warning in result.warnings:
        session.out.line(f"     warning: {warning}")
    return status


def _line(result: ReconstructResult) -> str:
    if result.action == "kept":
        return f"KEPT {result.rec_id}: has a valid manifest, {result.location.rpartition('/')[2]} lists {_files(result.files)}"
    known = f", {_files(result.files_known)} known without reading" if result.files_known else ""
    if result.dry_run:
        return (
            f"PLAN {result.rec_id}: {_files(result.files)}, {size(result.bytes_hashed)} to hash{known};"
            " nothing was read or written"
        )
    stub = ", in place of a placeholder" if result.action == "replaced" else ""
    return (
        f"MADE {result.rec_id}: {_files(result.files)}, {size(result.bytes_hashed)} hashed{known},"
        f" recording_hash {result.recording_hash}{stub}"
    )


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def _left_out(session: Session, name: str, error: UrsaError) -> None:
    session.out.record("left_out", rec_id=name, error=type(error).__name__, message=error.message, hint=error.hint)
    # Its hint is for a directory on a disk.
    session.out.outcome(f"SKIP {name}: {type(error).__name__}: {error.message}", level=logging.WARNING)


def _next(session: Session, outcome: ReconstructOutcome) -> list[str]:
    """The command that registers what was made, where it was."""
    result = outcome.result
    if result is None or result.dry_run:
        return []
    if isinstance(outcome.ref, Path):
        words = ["ursa", "ingest", str(outcome.ref)]
    else:
        words = ["ursa", "ingest-r2", result.rec_id]
        # Registering from the bucket reads no name: it has to be said.
        if result.participant not in (None, _UNKNOWN):
            words += ["--participant", str(result.participant)]
    if session.profile != "r2":
        words += ["--profile", session.profile]
    if session.config is not None:
        words += ["--config", str(session.config)]
    return [shlex.join(words)]


def _interrupted(in_flight: Mapping[str, HashProgress]) -> InterruptedRunError:
    from ursa.errors import InterruptedRunError

    told = "; ".join(
        f"{event.rec_id} has {event.files_done} of {event.files_total} files and {size(event.bytes_done)} of"
        f" {size(event.bytes_total)} hashed and "
        + ("its manifest was being written" if event.phase in ("write", "done") else "no manifest yet")
        for event in in_flight.values()
    )
    return InterruptedRunError(
        f"interrupted: {told or 'nothing was in flight'}; manifests that were written before stand",
        hint="Run the same command again: in the bucket, files whose hashing was finished are not read again.",
    )
