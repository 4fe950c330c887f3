"""`ursa ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ursa.policies import Existing
from ursa_cli import ingest_view
from ursa_cli.options import NotUnfinished, TrustMtime, command_app, shared
from ursa_cli.session import Session

app = command_app()


@app.command()
@shared
def ingest(
    session: Session,
    rec_dirs: Annotated[list[Path], typer.Argument(metavar="REC_DIR", help="Recording directories (rec_…/).")],
    participant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Display name; wins over participant.txt, which stays as it is.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace this recording's catalog rows.")] = False,
    replace_objects: Annotated[
        bool, typer.Option("--replace-objects", help="Also replace objects in the bucket that hold other content.")
    ] = False,
    trust_size: Annotated[
        bool, typer.Option("--trust-size", help="Take an object of the same size for the same, without proof.")
    ] = False,
    trust_mtime: TrustMtime = False,
    not_unfinished: NotUnfinished = None,
    existing: Annotated[
        Existing, typer.Option(help="What to do with recordings that are registered with the same files.")
    ] = Existing.ERROR,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, max=64, metavar="N", help="Recordings in flight; follows the link otherwise."
        ),
    ] = None,
    transfers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Requests in flight; follows the link otherwise.")
    ] = None,
    bwlimit: Annotated[
        str | None, typer.Option(metavar="RATE", help='Upload limit: 20M (MiB/s), or "08:00,5M 19:00,off".')
    ] = None,
) -> None:
    """Upload recordings' files, prove that they arrived, and register them.

    Files that are in the bucket already, with the same content, are skipped. Killed or interrupted, the same command
    goes on where it stopped. Nothing is registered that is not wholly in the bucket.

    \b
    Examples:
      ursa ingest /mnt/usb/rec_20260520_195628_b1dd
      ursa ingest rec_20260520_195628_b1dd --participant "Aria Lin" --dry-run
      ursa ingest /mnt/usb/rec_* --existing skip --jobs 2 --bwlimit 20M

    \b
    Exit status:
      0    every recording is registered
      1    failed: a bad recording or manifest, a server or disk that fails
      2    usage or configuration        4  credentials
      5    registered already, or a conflict in bucket or catalog
      6    files missing or different from what the manifest states
      130  interrupted: nothing in flight is registered, a re-run goes on
    With several recordings, the status is that of the first one that failed.
    """
    ingest_view.refuse_roots(rec_dirs)
    choices = {
        "overwrite": overwrite,
        "replace_objects": replace_objects,
        "trust_size": trust_size,
        "trust_mtime": trust_mtime,
        "not_unfinished": not_unfinished or [],
    }
    if dry_run:
        ingest_view.plans(session, rec_dirs, participant, choices)
    else:
        data = session.data(writes=("assets_rw", "raw_rw"), transfers=transfers, bandwidth=bwlimit)
        ingest_view.outcomes(session, data, rec_dirs, participant, existing, jobs, choices)
