"""`ursa gc-uploads`."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from ursa_cli.options import command_app, shared
from ursa_cli.render import when
from ursa_cli.session import Session

app = command_app()

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


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
    found = data.list_uploads(older_than_s=_seconds(older_than))
    for item in found:
        session.out.record("upload", key=item.key, upload_id=item.upload_id, initiated_at=item.initiated_at)
        session.out.line(f"{when(item.initiated_at)}  {item.key}")
    if found and not dry_run:
        if not yes:
            _ask(len(found))
        data.abort_uploads(found)
    session.out.line(f"{len(found)} {'found' if dry_run else 'aborted'}, begun at least {older_than} ago")


def _seconds(age: str) -> float:
    from ursa.errors import UsageError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", age)
    if match is None:
        raise UsageError(f"{age!r} is not an age", hint="Write for instance 12h, 3d or 2w.")
    return float(match[1]) * _UNITS_S[match[2]]


def _ask(count: int) -> None:
    from ursa.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask", hint="Add --yes to abort them, or --dry-run to list them only.")
    typer.confirm(f"Abort {'this upload' if count == 1 else f'these {count} uploads'}?", abort=True)
