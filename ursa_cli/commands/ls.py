"""`ursa ls`."""

from __future__ import annotations

from typing import Annotated

import typer

from ursa_cli.options import Offline, command_app, shared
from ursa_cli.render import duration, size, when
from ursa_cli.session import Session
from ursa_cli.show_view import modality_names, summary

app = command_app()


@app.command()
@shared
def ls(
    session: Session,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Started at or after: 2026-05-20, or with a time.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="DATE", help="Started before.")] = None,
    participant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name or id; repeat for any of several.")
    ] = None,
    modality: Annotated[
        list[str] | None, typer.Option(metavar="M", help="eeg, or one worker: eeg_a; repeatable.")
    ] = None,
    offline: Offline = False,
) -> None:
    """List recordings in the catalog, by date.

    \b
    Examples:
      ursa ls --since 2026-05-01
      ursa ls --participant "Aria Lin" --modality eeg
      ursa ls --json | jq -r .rec_id

    \b
    Exit status:
      0  listed, also when there is nothing to list
      1  the server or the catalog failed    2  usage or configuration    4  credentials
    """
    found = session.data(offline=offline).overview(
        since=since, until=until, participants=participant, modalities=modality
    )
    session.remember([item.recording.rec_id for item in found])
    for item in found:
        session.out.record("recording", **summary(item))
    if found:
        session.out.table(
            ["REC_ID", "STARTED", "DURATION", "SIZE", "MODALITIES", "PARTICIPANTS"],
            [
                [
                    item.recording.rec_id,
                    when(item.recording.started_at),
                    duration(item.recording.duration_s),
                    size(item.bytes),
                    ",".join(modality_names(item)),
                    ", ".join(item.participants) or "-",
                ]
                for item in found
            ],
        )
    elif not session.out.json:
        session.out.note(
            "no recordings" + (" match" if since or until or participant or modality else " in this catalog yet")
        )
