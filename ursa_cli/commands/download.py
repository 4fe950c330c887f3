"""`ursa download`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ursa_cli import download_view
from ursa_cli.options import command_app, shared
from ursa_cli.session import Session

app = command_app()


@app.command()
@shared
def download(
    session: Session,
    recs: Annotated[
        list[str],
        typer.Argument(
            metavar="REC",
            help="rec_id, recording_hash, or a unique prefix of one.",
        ),
    ],
    modality: Annotated[
        list[str] | None, typer.Option("--modality", "-m", metavar="M", help="eeg, or eeg_a; repeatable.")
    ] = None,
    dest: Annotated[
        Path, typer.Option("--dest", "-d", metavar="DIR", help="Files go to DIR/<rec_id>/<path>.")
    ] = Path(),
    transfers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Requests in flight; follows the link otherwise.")
    ] = None,
) -> None:
    """Fetch recordings' files, verified by their sha256.

    A file gets its name only when it is whole. Interrupted, the same command resumes where it stopped; a file that is
    there already and equal is kept, one that differs is left alone and fails the download. What was fetched and is not what
    was registered is kept as NAME.ursa-mismatch.

    \b
    Examples:
      ursa download rec_20260520_195628_b1dd --dest /data
      ursa download rec_20260520_195628_b1dd --modality eeg --modality mic --dest /data

    \b
    Exit status:
      0  every file is there and right    1  no such recording, nothing to fetch, or the server failed
      2  usage or configuration           4  credentials
      5  another file is in the way       6  a file is missing in the bucket, or not what is stated of it
    """
    from ursa import RecordingNotFoundError

    data = session.data(transfers=transfers)
    with data.snapshot():
        found = data.query(recording_hash=[data.resolve(rec).recording_hash for rec in recs], modalities=modality)
    if not found.modalities:
        wanted = f" {', '.join(modality)}" if modality else ""
        raise RecordingNotFoundError(
            f"{', '.join(recs)}: no modality{wanted} to fetch",
            hint=f"`ursa show {recs[0]}` lists its modalities.",
            ref=recs[0],
        )
    with session.bars() as bars:
        result = data.download(found, dest, progress=bars.download)
    download_view.finish(session, result)
