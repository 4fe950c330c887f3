"""`ursa participants`."""

from __future__ import annotations

from typing import Annotated

import typer

from ursa_cli import participants_view
from ursa_cli.options import Offline, command_app, shared
from ursa_cli.session import Session

app = command_app(no_args_is_help=True, help="List participants, or attach names that the bucket knows.")


@app.command("list")
@shared
def list_(session: Session, offline: Offline = False) -> None:
    """List participants: id, name, how many recordings, the dates of the first and the last one.

    Ids that recordings name and that have no name in the catalog come last, and are marked.

    \b
    Examples:
      ursa participants list
      ursa participants list --json | jq -r 'select(.known == false).participant_id'

    \b
    Exit status:
      0  listed, also when there is nobody to list
      1  the server or the catalog failed    2  usage or configuration    4  credentials
    """
    participants_view.listing(session, offline=offline)


@app.command()
@shared
def backfill(
    session: Session,
    refs: Annotated[
        list[str] | None,
        typer.Argument(metavar="REC", help="rec_id, recording_hash or a unique prefix of one; all recordings if none."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
) -> None:
    """Attach the names in the bucket's participant.txt to recordings that have no participant.

    Recordings with participants are left alone; where the catalog has no name for one's id, and participant.txt has
    the name that this id is derived from, the name is added. Safe to interrupt and to run again.

    \b
    Examples:
      ursa participants backfill --dry-run
      ursa participants backfill --yes
      ursa participants backfill rec_20260520_195628_b1dd

    \b
    Exit status:
      0    done, also when there was nothing to do
      1    a participant.txt is broken (the other recordings are done), the server failed, or you said no
      2    usage, configuration, or no --yes and nobody to ask    4  credentials
      130  interrupted: what was finished stands, a re-run goes on
    """
    participants_view.backfill(session, refs or [], dry_run=dry_run, yes=yes)
