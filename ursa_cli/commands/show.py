"""`ursa show`."""

from __future__ import annotations

from typing import Annotated

import typer

from ursa_cli import show_view
from ursa_cli.options import Offline, command_app, shared
from ursa_cli.session import Session

app = command_app()


@app.command()
@shared
def show(
    session: Session,
    rec: Annotated[
        str,
        typer.Argument(metavar="REC", help="rec_id, recording_hash, or a unique prefix of one."),
    ],
    files: Annotated[bool, typer.Option("--files", help="Also list every file with its sha256 and evidence.")] = False,
    offline: Offline = False,
) -> None:
    """Show one recording: times, participants, nodes, modalities, files.

    EVIDENCE says how the bytes were proven when the recording was registered: sha256 (checked by the store or read
    back), etag (the store's own md5 compared), or size.

    \b
    Examples:
      ursa show rec_20260520_195628_b1dd
      ursa show rec_20260520_195628 --files
      ursa show b0753c92 --json

    \b
    Exit status:
      0  shown    1  no such recording, or the server failed
      2  usage, configuration, or several recordings have that prefix    4  credentials
    """
    with session.data(offline=offline).snapshot() as data:
        (item,) = data.overview(data.resolve(rec).recording_hash)
    session.remember([item.recording.rec_id])
    show_view.show(session, item, files=files)
