"""`ursa ingest-r2`."""

from __future__ import annotations

from typing import Annotated

import typer

from ursa_cli import r2_view
from ursa_cli.options import command_app, shared
from ursa_cli.session import Session

app = command_app()


@app.command()
@shared
def ingest_r2(
    session: Session,
    rec_ids: Annotated[list[str], typer.Argument(metavar="REC_ID", help="Recordings as their prefixes are called.")],
    participant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Display name, for all of them; unknown without.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace these recordings' catalog rows.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check all the same, print what would be registered, and stop.")
    ] = False,
) -> None:
    """Register recordings whose bytes are in the bucket already. Nothing is uploaded.

    Each is read from manifest.json, or from _node_manifests/ merged. Every file that they list must be there with the
    listed size; otherwise nothing of that recording is registered, and every file that is missing or short is named. A
    sha256 that only the manifest states is registered as a claim, and the line says "by size only".
    The participant is the one given here: neither a manifest nor participant.txt is asked for it.

    \b
    Examples:
      ursa ingest-r2 rec_20260520_195628_b1dd --participant "Aria Lin"
      ursa ingest-r2 rec_20260520_195628_b1dd --dry-run
      ursa ingest-r2 rec_20260520_195628_b1dd rec_20260521_101500_c2ee --json

    \b
    Exit status:
      0    every recording is registered
      1    failed: no manifest, one that can't be read, no raw data, a server that fails
      2    usage or configuration        4  credentials
      5    registered already, or a conflict in the catalog
      6    listed files are missing from the bucket, or have another size or sha256
      130  interrupted: a re-run registers what is not
    With several recordings, the status is that of the first one that failed.
    """
    r2_view.refuse_directories(rec_ids)
    data = session.data() if dry_run else session.data(writes=("assets_rw",))
    ask = r2_view.plans if dry_run else r2_view.outcomes
    ask(session, data, rec_ids, participant, overwrite=overwrite)
