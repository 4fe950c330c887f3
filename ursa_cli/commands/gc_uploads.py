"""`ursa gc-uploads`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ursa_cli.options import command_app, shared
from ursa_cli.render import seconds_in, when
from ursa_cli.session import Session

app = command_app()


@app.command()
@shared
def gc_uploads(
    session: Session,
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Begun at least so long ago: 12h, 3d, 2w.")] = "3d",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Abort them, without asking.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them and stop.")] = False,
) -> None:
    """List multipart uploads that nobody completed, and abort them.

    An ingest that was killed leaves one for each large file it was sending, and its re-run goes on from there; so
    abort only what nobody will re-run. R2 itself aborts them after 7 days.

    \b
    Examples:
      ursa gc-uploads --dry-run
      ursa gc-uploads --older-than 2w --yes

    \b
    Exit status:
      0  done, also when there was nothing    1  the server failed, or you said no
      2  usage, configuration, or no --yes and nobody to ask    4  credentials
    """
    data = session.data(writes=("raw_rw",))
    found = data.list_uploads(older_than_s=seconds_in(older_than) or 0.0)
    for item in found:
        session.out.record("upload", key=item.key, upload_id=item.upload_id, initiated_at=item.initiated_at)
        session.out.line(f"{when(item.initiated_at)}  {item.key}")
    if found and not dry_run:
        if not yes:
            _ask(len(found))
        data.abort_uploads(found)
    done = f"{len(found)} {'found' if dry_run else 'aborted'}" if found else "no open upload"
    session.out.line(f"{done}, begun at least {older_than} ago")


def _ask(count: int) -> None:
    from ursa.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask", hint="Add --yes to abort them, or --dry-run to list them only.")
    typer.confirm(f"Abort {'this upload' if count == 1 else f'these {count} uploads'}?", abort=True)
