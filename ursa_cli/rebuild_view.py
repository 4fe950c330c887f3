"""How `catalog rebuild` asks, and tells what would change, what changed and what can't go on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from ursa_cli import back_view
from ursa_cli.session import Session

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ursa import DataInterface, HashProgress
    from ursa.errors import InterruptedRunError
    from ursa.rebuild.run import RebuildResult

_SHOWN = 20
_EXIT_LOST = 6


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for on the command line."""

    yes: bool
    dry_run: bool
    abort: bool
    back: bool
    drop_lost: bool
    dask: str | None


def run(session: Session, choice: Choice) -> None:
    """Derive, compare, tell, ask, flip; raises ``typer.Exit(6)`` where recordings would be lost."""
    _check(choice)
    if choice.abort:
        _abort(session, choice)
        return
    if choice.back:
        back_view.run(session, yes=choice.yes, dry_run=choice.dry_run, drop_lost=choice.drop_lost)
        return
    data = session.data(writes=() if choice.dry_run else ("assets_rw",))
    from ursa.cluster import executor

    with executor(choice.dask) as workers:
        compared = _rebuild(session, data, choice, workers, flip=False)
        _tell(session, compared)
        if compared.lost and not choice.drop_lost:
            _refuse(session, compared)
        if choice.dry_run:
            session.out.line("dry run: nothing was written")
            _summary(session, compared, 0)
            return
        if not choice.yes:
            _ask(session, compared)
        done = _rebuild(session, data, choice, workers, flip=True)
    if (done.told, done.left, done.lost) != (compared.told, compared.left, compared.lost):
        session.out.line("since then, others have written. What is in place now:")
        _tell(session, done)
    session.out.line(f"{done.prefix} is live, in place of {done.previous}, which stays as it was")
    if done.new:
        session.out.line("next: ursa participants backfill" + _profile(session))
    _summary(session, done, 0)


def _check(choice: Choice) -> None:
    from ursa.errors import UsageError

    if choice.abort and (choice.dry_run or choice.drop_lost or choice.dask or choice.back):
        raise UsageError("--abort goes with --yes alone", hint="See `ursa catalog rebuild --help`.")
    if choice.back and choice.dask:
        raise UsageError("--back reads no recording: --dask is of no use", hint="See `ursa catalog rebuild --help`.")
    if not (choice.yes or choice.dry_run or sys.stdin.isatty()):
        raise UsageError(
            "there is nobody to ask",
            hint="Add --yes to go through with it, or --dry-run to see what would change. Nothing was read or written.",
        )


def _rebuild(
    session: Session, data: DataInterface, choice: Choice, workers: Executor | None, *, flip: bool
) -> RebuildResult:
    with _following(session, flip=flip) as follow:
        return data.rebuild(
            flip=flip, drop_lost=choice.drop_lost, dry_run=choice.dry_run, executor=workers, progress=follow
        )


class _Follow:
    """Recordings as they are derived, on the session's bars."""

    def __init__(self, session: Session) -> None:
        self.bars = session.bars()
        self.done = self.total = 0

    def __call__(self, event: HashProgress) -> None:
        self.done, self.total = event.files_done, event.files_total
        if event.phase == "plan":
            self.bars.expect(event.files_total)
        if event.phase == "file_done":
            self.bars.finished(event.rec_id)
        else:
            self.bars.hash(replace(event, rec_id="rebuild"))


@contextmanager
def _following(session: Session, *, flip: bool) -> Iterator[_Follow]:
    follow = _Follow(session)
    try:
        with follow.bars:
            yield follow
    except KeyboardInterrupt:
        raise _interrupted(follow, flip=flip) from None


def _tell(session: Session, result: RebuildResult) -> None:
    """Counts, and each recording whose rows differ, by kind."""
    if result.resumed:
        session.out.line(f"goes on with the rebuild into {result.prefix} that was begun {result.resumed}")
    new = set(result.new)
    words = {name: "; ".join(told) for name, told in result.told.items()}
    session.out.line(
        f"recordings: {result.recordings:,} after, {result.recordings_before:,} before;"
        f" modality rows: {result.modalities:,} after, {result.modalities_before:,} before"
    )
    _group(session, "new", "in the bucket and in no row", {name: words.get(name, "") for name in result.new})
    _group(session, "changed", "rows differ", {name: told for name, told in words.items() if name not in new})
    _group(session, "carried", "taken over as they are, no manifest tells more", result.carried)
    _group(session, "left", "no row, as before", result.left)
    _group(session, "lost", "registered, and not whole in the bucket", result.lost)
    if not (words or result.left or result.lost):
        session.out.line("no difference")


def _group(session: Session, kind: str, what: str, found: Mapping[str, str]) -> None:
    if not found:
        return
    session.out.line(f"{kind}: {len(found):,} ({what})")
    for number, (name, why) in enumerate(sorted(found.items())):
        session.out.record("recording", rec_id=name, status=kind, why=why)
        if number < _SHOWN:
            session.out.line(f"  {name}: {why}" if why else f"  {name}")
    if len(found) > _SHOWN:
        session.out.line(f"  and {len(found) - _SHOWN:,} more; --json has them all")


def _refuse(session: Session, result: RebuildResult) -> None:
    """Registered recordings would get no row. Raises ``typer.Exit(6)``."""
    many = f"{len(result.lost):,} registered recording" + ("" if len(result.lost) == 1 else "s")
    session.out.error(
        f"MissingFilesError: {many} would have no row in the new catalog: {', '.join(sorted(result.lost)[:_SHOWN])}"
        + (" …" if len(result.lost) > _SHOWN else "")
    )
    session.out.error(
        "the live catalog is as it was. Bring the files back (`ursa verify REC`, `ursa ingest REC_DIR --overwrite`) and run"
        " this again; --drop-lost goes on without these recordings, --abort gives up"
    )
    _summary(session, result, _EXIT_LOST)
    raise typer.Exit(_EXIT_LOST)


def _ask(session: Session, result: RebuildResult) -> None:
    session.out.note(
        f"{result.prefix} is filled and not live. Saying no leaves it so: `ursa catalog rebuild` goes on from there,"
        " --abort deletes it."
    )
    lost = f", without {len(result.lost):,} recordings that are registered now" if result.lost else ""
    typer.confirm(f"Make {result.prefix} the live catalog in place of {result.previous}{lost}?", abort=True, err=True)


def _abort(session: Session, choice: Choice) -> None:
    data = session.data(writes=("assets_rw",))
    if not choice.yes:
        typer.confirm("Give up the rebuild that is under way and delete what it has filled?", abort=True, err=True)
    prefix = data.abort_rebuild()
    session.out.record("aborted", prefix=prefix)
    if prefix is None:
        session.out.line("no rebuild is under way; nothing was changed")
    else:
        session.out.line(
            f"the rebuild into {prefix} is given up; writers go on in the live catalog, which is as it was"
        )


def _summary(session: Session, result: RebuildResult, code: int) -> None:
    session.out.record(
        "summary",
        prefix=result.prefix,
        previous=result.previous,
        recordings=result.recordings,
        recordings_before=result.recordings_before,
        modalities=result.modalities,
        modalities_before=result.modalities_before,
        new=len(result.new),
        changed=len(result.told.keys() - set(result.new)),
        carried=len(result.carried),
        left=len(result.left),
        lost=len(result.lost),
        resumed=result.resumed,
        flipped=result.flipped,
        dry_run=result.dry_run,
        seconds=round(result.seconds, 3),
        exit_code=code,
    )


def _profile(session: Session) -> str:
    return "" if session.profile == "r2" else f" --profile {session.profile}"


def _interrupted(follow: _Follow, *, flip: bool) -> InterruptedRunError:
    from ursa.errors import InterruptedRunError

    state = (
        "was about to be put in place; `ursa catalog location` says which catalog is live" if flip else "is not live"
    )
    return InterruptedRunError(
        f"interrupted: {follow.done:,} of {follow.total:,} recordings are derived; the new catalog {state}",
        hint="No byte of a recording was touched. Run the same command again: it goes on from there;"
        " `ursa catalog rebuild --abort` gives it up.",
    )
