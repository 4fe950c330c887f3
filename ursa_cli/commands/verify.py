"""`ursa verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from ursa.policies import Level
from ursa_cli import verify_view
from ursa_cli.options import command_app, shared
from ursa_cli.session import Session

app = command_app()


@app.command()
@shared
def verify(
    session: Session,
    refs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REC", help="rec_id, recording_hash, a unique prefix of one, or a recording's directory."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every recording of the catalog.")] = False,
    level: Annotated[
        Level | None,
        typer.Option(
            help="head: size and ETag; checksum: also read the disk; full: also read every object. Of a directory full,"
            " else head."
        ),
    ] = None,
    subset: Annotated[str | None, typer.Option(metavar="PART", help="Of all these files: 2/7, 5% or 10G.")] = None,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="ADDRESS", help="Let a dask cluster's workers check recordings.")
    ] = None,
) -> None:
    """Compare what the catalog says with what the bucket holds, and with the disk where a directory is given.

    May this disk be wiped? Where `ursa verify REC_DIR` ends with OK: it has read every file here and every object there,
    and they are the same. SEEN says that something was compared by its size or ETag alone.

    \b
    A line a file: a symbol, how good the evidence is, the path.
      =  same    -  missing in the bucket    +  not in the catalog    *  differs    !  could not be checked

    \b
    Examples:
      ursa verify rec_20260520_195628_b1dd
      ursa verify /mnt/usb/rec_20260520_195628_b1dd        before the drive is wiped
      ursa verify --all --level full --subset 1/30         a thirtieth every night

    \b
    Exit status:
      0  all is there and right (of a directory: and registered); with SEEN, as far as was looked
      1  no such recording, none at all, or the server failed    2  usage or configuration    4  credentials
      6  something is missing, different or could not be checked; a recording that has no file
    """
    verify_view.run(session, refs or [], everything, level, subset, dask)
