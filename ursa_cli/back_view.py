"""How `catalog rebuild --back` asks, and tells what differs between the two catalogs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa.rebuild.back import BackResult

_SHOWN = 20


def run(session: Session, *, yes: bool, dry_run: bool, drop_lost: bool) -> None:
    """Compare, tell, ask, do."""
    data = session.data(writes=() if dry_run else ("assets_rw",))
    compared = data.rebuild_back(dry_run=True, drop_lost=drop_lost)
    _tell(session, compared)
    compared.refuse_missing()
    if dry_run:
        session.out.line("dry run: nothing was written")
        _summary(session, compared, flipped=False)
        return
    if not yes and not compared.finished:
        typer.confirm(f"Make {compared.prefix} the live catalog in place of {compared.previous}?", abort=True, err=True)
    done = data.rebuild_back(drop_lost=drop_lost)
    for name in sorted(set(done.carried) - set(compared.carried)):
        session.out.line(f"changed since then, and taken over as well: {name}")
    session.out.line(f"{done.prefix} is live, in place of {done.previous}; the same command makes that one live again")
    _summary(session, done, flipped=True)


def _tell(session: Session, result: BackResult) -> None:
    if result.finished:
        session.out.line(f"{result.prefix} has been gone back to already, and takes no writes yet: that was not ended")
        return
    session.out.line(f"from {result.previous} to {result.prefix}, which was live before")
    _group(session, "carried", "registered or changed since, taken over as they are", result.carried)
    _group(session, "disappear", "in no row there; their bytes stay in the bucket", result.disappear)
    _group(session, "reappear", "in no row now", result.reappear)
    _group(session, "change", "other rows there", result.change)
    if not (result.carried or result.disappear or result.reappear or result.change):
        session.out.line("no recording differs")


def _group(session: Session, kind: str, what: str, names: Sequence[str]) -> None:
    """The first twenty and how many there are; --json has them all."""
    if names:
        session.out.line(f"{kind}: {len(names):,} ({what})")
    for number, name in enumerate(names):
        session.out.record("recording", rec_id=name, status=kind)
        if number < _SHOWN:
            session.out.line(f"  {name}")
    if len(names) > _SHOWN:
        session.out.line(f"  and {len(names) - _SHOWN:,} more; --json has them all")


def _summary(session: Session, result: BackResult, *, flipped: bool) -> None:
    counts = {key: len(value) if isinstance(value, tuple) else value for key, value in asdict(result).items()}
    session.out.record("summary", **counts, flipped=flipped, exit_code=0)
