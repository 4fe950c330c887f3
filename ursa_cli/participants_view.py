"""How `participants` lists people, and tells what a backfill is to do and has done."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from ursa_cli.render import print_error
from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa.register.participants import BackfillItem, BackfillPlan, ParticipantOverview

_EXIT_BROKEN = 1
# Word and sentence of each state; {who} is the name with its id.
_TOLD = {
    "attach": ("PLAN", "would get {who}"),
    "name": ("PLAN", "names an id without a name: would be {who}"),
    "attached": ("OK  ", "{who}"),
    "named": ("OK  ", "its id has a name now: {who}"),
    "overtaken": ("HAVE", "somebody else wrote its participant meanwhile; left as it is"),
    "gone": ("SKIP", "left the catalog meanwhile"),
    "no_file": ("SKIP", "no participant.txt in the bucket"),
    "empty": ("SKIP", "participant.txt names nobody"),
    "other": ("SKIP", "its id has no name, and participant.txt names somebody else: {who}"),
    "broken": ("FAIL", "{error}"),
}
_SUMMED = {
    "attach": "to attach",
    "name": "ids to name",
    "attached": "attached",
    "named": "ids named",
    "overtaken": "written by somebody else meanwhile",
    "gone": "gone from the catalog",
    "no_file": "without participant.txt",
    "empty": "with an empty one",
    "other": "with another name",
    "broken": "broken",
}


def listing(session: Session, *, offline: bool = False) -> None:
    """Print everybody, marked where there is no name."""
    found = session.data(offline=offline).participants_overview()
    for person in found.participants:
        session.out.record(
            "participant",
            participant_id=person.participant_id,
            display_name=person.display_name,
            known=person.display_name is not None,
            recordings=person.recordings,
            first=person.first,
            last=person.last,
        )
    unknown = sum(person.display_name is None for person in found.participants)
    session.out.record(
        "summary",
        participants=len(found.participants),
        unknown=unknown,
        recordings_without=found.recordings_without,
        exit_code=0,
    )
    if found.participants:
        session.out.table(
            ["ID", "NAME", "RECORDINGS", "FIRST", "LAST"], [_row(person) for person in found.participants]
        )
    elif not session.out.json:
        session.out.note("no participants in this catalog yet")
    if (unknown or found.recordings_without) and not session.out.json:
        session.out.note(
            f"{unknown} ids have no name, {found.recordings_without} recordings no participant;"
            " `ursa participants backfill --dry-run` looks for them in the bucket"
        )


def backfill(session: Session, refs: list[str], *, dry_run: bool, yes: bool) -> None:
    """Plan, ask, do; raises ``typer.Exit(1)`` where a participant.txt is broken."""
    if not dry_run and not yes:
        _check_somebody_there()
    data = session.data(writes=() if dry_run else ("assets_rw",))
    plan = data.plan_backfill(refs)
    if dry_run or not yes:
        for item in plan.items:
            _record(session, "plan", item)
            _line(session, item)
    if dry_run:
        _summary(session, plan, dry_run=True)
        return
    if plan.to_write and not yes:
        which = "this recording" if plan.to_write == 1 else f"these {plan.to_write} recordings"
        typer.confirm(f"Write the participants of {which}?", abort=True, err=True)

    def told(item: BackfillItem) -> None:
        _record(session, "recording", item)
        # Where the plan was printed, what it left as it is has been told.
        if yes or item.ended:
            _line(session, item)

    _summary(session, data.backfill_participants(plan=plan, on_recording=told), dry_run=False)


def _row(person: ParticipantOverview) -> list[object]:
    name = "(no name in the catalog)" if person.display_name is None else person.display_name
    return [person.participant_id, name, person.recordings, _date(person.first), _date(person.last)]


def _date(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d") if moment else "-"


def _check_somebody_there() -> None:
    from ursa.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError(
            "there is nobody to ask; nothing was done",
            hint="Add --yes to write, or --dry-run to see what would be written.",
        )


def _record(session: Session, kind: str, item: BackfillItem) -> None:
    error = item.error
    failed = {"error": type(error).__name__, "message": error.message, "hint": error.hint} if error else {}
    session.out.record(
        kind, rec_id=item.rec_id, status=item.state, name=item.name, participant_id=item.participant_id, **failed
    )


def _line(session: Session, item: BackfillItem) -> None:
    word, sentence = _TOLD[item.state]
    if item.error is not None and session.out.quiet:
        print_error(item.error)
    if item.error is not None:
        told = f"{type(item.error).__name__}: {item.error.message}"
    else:
        told = sentence.replace("{who}", f"{item.name} ({item.participant_id})")
    session.out.line(_one_line(f"{word} {item.rec_id}: {told}"))
    if item.error is not None and item.error.hint:
        session.out.line(_one_line(f"     {item.error.hint}"))


def _one_line(text: str) -> str:
    """A rec_id that a caller made up may have line ends, which the printer would take for ours."""
    return text.replace("\n", "\\n")


def _summary(session: Session, found: BackfillPlan, *, dry_run: bool) -> None:
    """What became of how many; exit 1 where one was broken. Told after everything else is done."""
    counts = {state: sum(item.state == state for item in found.items) for state in _TOLD}
    code = _EXIT_BROKEN if counts["broken"] else 0
    session.out.record("summary", **counts, left_alone=found.left_alone, dry_run=dry_run, exit_code=code)
    told = [f"{counts[state]} {words}" for state, words in _SUMMED.items() if counts[state]] or ["nothing to do"]
    told.append(f"{found.left_alone} with participants left alone")
    session.out.line(f"{', '.join(told)}{'; nothing was written' if dry_run else ''}")
    if code:
        raise typer.Exit(code)
