"""`ursa reconstruct`."""

from __future__ import annotations

from typing import Annotated

import typer

from ursa_cli import reconstruct_view
from ursa_cli.options import command_app, shared
from ursa_cli.session import Session

app = command_app()


@app.command()
@shared
def reconstruct(
    session: Session,
    refs: Annotated[
        list[str] | None,
        typer.Argument(metavar="REC_ID_OR_DIR", help="A rec_id in the bucket, or a directory (rec_…/)."),
    ] = None,
    rec_ids: Annotated[
        list[str] | None, typer.Option("--rec-id", metavar="ID", help="A rec_id in the bucket; repeatable.")
    ] = None,
    all_missing: Annotated[
        bool, typer.Option("--all-missing", help="Every recording of the bucket that has no manifest.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be hashed and stop.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, metavar="N", help="Recordings in flight, at most; follows the link otherwise."
        ),
    ] = None,
    transfers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Requests in flight; follows the link otherwise.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="ADDRESS", help="Let a dask cluster's workers read the bucket.")
    ] = None,
) -> None:
    """Make the manifest.json of recordings that have none, from their bytes: in the bucket, or in a directory.

    Every object is read and hashed; registering comes afterwards. A valid manifest is kept and a broken one refused,
    never replaced; a placeholder without files gives way. Interrupted, the same command goes on where it stopped.

    \b
    Examples:
      ursa reconstruct rec_20260520_195628_b1dd --dry-run
      ursa reconstruct --rec-id rec_20260520_195628_b1dd --yes
      ursa reconstruct --all-missing --yes --json          from cron
      ursa reconstruct /mnt/usb/rec_20260520_195628_b1dd   writes manifest.json there

    \b
    Exit status:
      0    every recording has a manifest
      1    failed: a broken manifest, names that can't be listed, files that change, a server or disk that fails
      2    usage, configuration, or no --yes and nobody to ask    4  credentials
      6    objects vanished while they were hashed
      130  interrupted: what is hashed is kept, a re-run goes on
    With several recordings, the status is that of the first one that failed.
    """
    choice = reconstruct_view.Choice(
        tuple(refs or ()), tuple(rec_ids or ()), all_missing, yes, dry_run, jobs, transfers, dask
    )
    reconstruct_view.run(session, choice)
