"""How `ursa batch` runs: the lock, the outcomes as they come, the reports and the exit status, whatever ends it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ursa.errors import InvalidRecordingError
from ursa.policies import Existing, OnFailure
from ursa_cli.batch_end import Course, exit_status, in_words
from ursa_cli.batch_lines import NOTHING, Told, counts_of, last_line, on_stdout, summary
from ursa_cli.ending import exit_code
from ursa_cli.ingest_view import interrupted
from ursa_cli.lean import stay_small
from ursa_cli.render import seconds_in
from ursa_cli.report import RunReport

if TYPE_CHECKING:
    from ursa import BatchRun, DataInterface
    from ursa_cli.notify import Notifier
    from ursa_cli.session import Session


@dataclass(frozen=True)
class Choices:
    """The options of `ursa batch`, as typed."""

    roots: list[str]
    jobs: int | None
    existing: Existing
    reports: list[Path]
    on_failure: OnFailure
    strict: bool
    max_duration: str | None
    settle: str | None
    reconstruct_missing: bool
    dry_run: bool
    wait: str | None
    trust_mtime: bool
    not_unfinished: list[str]


def run(session: Session, notifier: Notifier, choices: Choices, **settings: Any) -> None:
    """Everything from the lock to the last line; raises ``typer.Exit`` with the exit status, or what ended the run."""
    stay_small()
    notifier.summary = NOTHING | {"dry_run": choices.dry_run, "roots": choices.roots}
    session.out.totals = on_stdout(notifier.summary, 0)
    session.start_log_file()
    started_at = datetime.now(UTC)
    reports = [
        RunReport(path, command=sys.argv, profile=session.profile, roots=choices.roots, started_at=started_at)
        for path in choices.reports
    ]
    for report in reports:
        report.check()
    with _finished(reports, notifier), session.bars() as bars:
        told = Told(session, reports, bars)
        data = session.data(writes=() if choices.dry_run else ("assets_rw", "raw_rw"), **settings)
        with _locked(session, data, choices, told):
            batch = _begin(data, choices, told)
            bars.expect(len(batch.found.rec_dirs))
            for report in reports:
                report.expect(len(batch.found.rec_dirs))
            error = _follow(batch, told)
            code = _conclude(batch, told, notifier, choices, error)
        if error is not None:
            raise error
        if code:
            raise typer.Exit(code)


def _begin(data: DataInterface, choices: Choices, told: Told) -> BatchRun:
    return data.batch(
        choices.roots,
        jobs=choices.jobs,
        existing=choices.existing,
        on_failure=choices.on_failure,
        max_duration_s=seconds_in(choices.max_duration),
        settle_s=seconds_in(choices.settle) or 0.0,
        reconstruct_missing=choices.reconstruct_missing,
        dry_run=choices.dry_run,
        trust_mtime=choices.trust_mtime,
        not_unfinished=choices.not_unfinished,
        progress=told.follow,
    )


def _locked(session: Session, data: DataInterface, choices: Choices, told: Told) -> AbstractContextManager[object]:
    """One run at a time; a dry run changes nothing, and needs no lock."""
    wait_s = seconds_in(choices.wait) or 0.0
    if choices.dry_run:
        return nullcontext()
    from ursa.lock import hold

    roots = _begin(data, choices, told).found.roots
    command = " ".join(["ursa batch", *choices.roots])
    return hold(
        session.profile,
        os.path.realpath(data.config.path) if data.config.path else "",
        roots,
        wait_s=wait_s,
        command=command,
    )


@contextmanager
def _finished(reports: list[RunReport], notifier: Notifier) -> Iterator[None]:
    """Whatever ends the run, its reports are finished."""
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        if isinstance(error, InvalidRecordingError) and error.fields.get("problems"):
            notifier.summary = {**notifier.summary, "problems": list(error.fields["problems"])}
        raise
    finally:
        # An exit status is no error of its own.
        told = None if isinstance(error, typer.Exit) else error
        for report in reports:
            report.finish(exit_code(error), notifier.summary, told)


def _follow(batch: BatchRun, told: Told) -> BaseException | None:
    """Tell the outcomes as they come; what ended the run before its end, or None."""
    with told.bars.print_above():
        for problem in batch.found.problems:
            told.session.out.error(problem)
            told.session.out.log(logging.ERROR, problem)
        for remark in batch.found.remarks:
            told.session.out.note(remark)
            told.session.out.log(logging.INFO, remark)

    def warn(words: str) -> None:
        with told.bars.print_above():
            told.session.out.note(f"warning: {words}")
            told.session.out.log(logging.WARNING, words)

    batch.warn = warn
    try:
        with closing(batch.__iter__()) as outcomes:
            for outcome in outcomes:
                told.take(outcome, batch.seconds)
    except BaseException as error:  # noqa: BLE001  (raised by who called, once the summary is told)
        # What had ended by then, and waited for its turn: some of it is registered.
        for outcome in batch.untold():
            told.take(outcome, batch.seconds)
        return interrupted(told.in_flight) if isinstance(error, KeyboardInterrupt) else error
    return batch.ended_by


def _conclude(batch: BatchRun, told: Told, notifier: Notifier, choices: Choices, error: BaseException | None) -> int:
    """The summary is the last line of stdout however the run ends, once it has begun; returns the exit status."""
    course = Course(
        counts_of(batch),
        strict=choices.strict,
        dry_run=choices.dry_run,
        problems=batch.found.problems,
        stopped=batch.why_stopped,
        failed=told.failed,
        skipped=told.skipped,
        error=error,
    )
    code = exit_status(course)
    if told.registered:
        # For completion; once, since it writes a file.
        told.session.remember(list(told.registered))
    said = summary(batch, told, {**in_words(course), "exit_code": code}, dry_run=choices.dry_run)
    notifier.summary = said
    with told.bars.print_above():
        last_line(batch, told, said, dry_run=choices.dry_run)
    return code
