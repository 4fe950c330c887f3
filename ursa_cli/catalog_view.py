"""How the catalog's history, an undo and a compaction are told."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from ursa_cli.render import size, when
from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa import CompactResult, Operation, UndoPlan

_SHOWN = 20
_ID_DIGITS = 12


def operations(session: Session, found: Sequence[Operation]) -> None:
    """A line an operation, newest first."""
    for item in found:
        session.out.record("operation", **asdict(item))
    headers = ("OPERATION", "WHEN", "WHO", "URSA", "WHAT", "ROWS", "VERSIONS")
    session.out.table(headers, [_row(item) for item in found])
    for item in found:
        if item.filled:
            session.out.line(
                f"\n{item.operation_id[:_ID_DIGITS]}: a rebuild had filled this catalog, and put it in place then. It is the"
                " oldest one to undo to: before it, the catalog was half filled"
            )
    if found:
        session.out.line("\nback to just after one of them: ursa catalog undo --to OPERATION --dry-run")


def run_undo(session: Session, to: str, yes: bool, dry_run: bool) -> None:
    """Plan, tell, ask, do."""
    _somebody_to_ask(session, yes or dry_run, to)
    data = session.data(writes=() if dry_run else ("assets_rw",))
    plan = data.undo(to, dry_run=True)
    _tell_plan(session, plan, dry_run)
    plan.refuse_missing()
    if plan.nothing or dry_run:
        return
    if not yes:
        typer.confirm(f"Restore the catalog to just after {plan.operation.operation_id[:_ID_DIGITS]}?", abort=True)
    data.undo(plan)
    session.out.record("undone", to=plan.operation.operation_id)
    session.out.line("restored; an undo is an operation as well: `ursa catalog history` names the one before it")


def compacted(session: Session, result: CompactResult) -> None:
    """What a compaction did to each table, and which rows it removed."""
    for table in result.tables:
        session.out.record("table", dry_run=result.dry_run, **asdict(table))
    for row in result.removed:
        names = {"rec_id": row.rec_id, "recording_hash": row.recording_hash, "modality": row.name}
        session.out.record("removed", dry_run=result.dry_run, **names)
    headers = ("TABLE", "FILES", "AFTER", "SIZE", "AFTER", "HOW", "VACUUMED")
    session.out.table(
        headers,
        [
            (
                item.table,
                item.files_before,
                "-" if result.dry_run else item.files_after,
                size(item.bytes_before),
                "-" if result.dry_run else size(item.bytes_after),
                "sorted" if item.sorted else "merged",
                item.vacuumed,
            )
            for item in result.tables
        ],
    )
    if result.refused:
        why = f"nothing was deleted for its age: {result.refused}"
        session.out.record("clean_up_refused", why=result.refused)
        session.out.line(f"warning: {why}")
        session.out.log(logging.WARNING, why)
    words = "would be removed" if result.dry_run else "removed"
    session.out.line(f"modality rows that dead runs left without a recording: {len(result.removed)} {words}")
    _list(session, "", [f"{row.rec_id} {row.name}" for row in result.removed])


def _row(item: Operation) -> tuple[object, ...]:
    rows = " ".join(f"{name[0]}:{count}" for name, count in item.rows.items() if count)
    versions = " ".join(f"{name[0]}{version}" for name, version in item.versions.items())
    who = f"{item.who}@{item.host}" if item.who or item.host else "-"
    return (
        item.operation_id[:_ID_DIGITS],
        when(item.at),
        who,
        item.version or "-",
        item.operation + (" (filled)" if item.filled else ""),
        rows or "-",
        versions,
    )


def _somebody_to_ask(session: Session, settled: bool, to: str) -> None:
    from ursa.errors import UsageError

    if not settled and not sys.stdin.isatty():
        raise UsageError(
            "there is nobody to ask",
            hint=f"See with `ursa catalog undo --to {to} --profile {session.profile} --dry-run` what would disappear, then"
            " add --yes.",
        )


def _tell_plan(session: Session, plan: UndoPlan, dry_run: bool) -> None:
    operation = plan.operation
    session.out.record(
        "undo",
        dry_run=dry_run,
        to=asdict(operation),
        disappear=plan.disappear,
        reappear=plan.reappear,
        change=plan.change,
        missing=plan.missing,
        targets=dict(plan.targets),
        seen=dict(plan.seen),
    )
    session.out.line(
        f"to just after {operation.operation_id[:_ID_DIGITS]}: {operation.operation} of {when(operation.at)}"
        f" by {operation.who}@{operation.host}"
    )
    if plan.nothing:
        session.out.line("the catalog is as it was then; nothing to do")
        return
    _list(session, "would disappear from the catalog (their bytes stay in the bucket)", plan.disappear)
    _list(session, "would come back", plan.reappear)
    _list(session, "would change", plan.change)
    if not (plan.disappear or plan.reappear or plan.change):
        session.out.line("no recording disappears, comes back or changes")


def _list(session: Session, title: str, names: Sequence[str]) -> None:
    """The first twenty and how many there are; --json has them all."""
    if names and title:
        session.out.line(f"{len(names)} {title}:")
    for name in names[:_SHOWN]:
        session.out.line(f"  {name}")
    if len(names) > _SHOWN:
        session.out.line(f"  … and {len(names) - _SHOWN} more; --json lists all")
