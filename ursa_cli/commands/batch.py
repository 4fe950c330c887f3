"""`ursa batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ursa.policies import Existing, OnFailure
from ursa_cli import batch_view
from ursa_cli.notify import Notifier
from ursa_cli.options import NotUnfinished, TrustMtime, command_app, shared
from ursa_cli.session import Session

app = command_app()


@app.command()
@shared
def batch(
    session: Session,
    roots: Annotated[
        list[str], typer.Argument(metavar="ROOT", help="Directories with rec_*/ directly below, or globs of them.")
    ],
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, max=64, metavar="N", help="Recordings in flight; follows the link otherwise."
        ),
    ] = None,
    existing: Annotated[
        Existing, typer.Option(help="What to do with recordings that are registered with the same files.")
    ] = Existing.SKIP,
    report: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Report of the run: .json or .html; may be repeated.")
    ] = None,
    on_failure: Annotated[OnFailure, typer.Option(help="After a recording failed.")] = OnFailure.CONTINUE,
    strict: Annotated[bool, typer.Option("--strict", help="Skipped recordings make the exit status 3 too.")] = False,
    max_duration: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop after so long: 6h, 90m; the next run goes on.")
    ] = None,
    settle: Annotated[
        str | None, typer.Option(metavar="TIME", help="Leave recordings alone that changed so recently: 10m.")
    ] = None,
    reconstruct_missing: Annotated[
        bool, typer.Option("--reconstruct-missing", help="Write a manifest into directories that have none.")
    ] = False,
    trust_mtime: TrustMtime = False,
    not_unfinished: NotUnfinished = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan, time and cost, and stop.")] = False,
    wait: Annotated[
        str | None, typer.Option(metavar="TIME", help="Wait so long for another run of these roots: 30m.")
    ] = None,
    notify: Annotated[
        str | None, typer.Option(metavar="CMD", help="Run this after every run that is not clean; JSON on its stdin.")
    ] = None,
    transfers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Requests in flight; follows the link otherwise.")
    ] = None,
    bwlimit: Annotated[
        str | None, typer.Option(metavar="RATE", help='Upload limit: 20M (MiB/s), or "08:00,5M 19:00,off".')
    ] = None,
) -> None:
    """Ingest every recording directly below some roots: a NAS, a USB drive. Made to run from cron.

    A line a recording, in sorted order: OK (registered now), HAVE (was registered; this machine has read these very
    bytes, and the bucket lists them now), SKIP (no manifest) or FAIL with the reason. One failure never stops the rest.
    One run at a time for the same profile and roots; a killed run resumes.

    \b
    Examples:
      ursa batch /Volumes/Shared_Drive/constellation-data/recordings
      ursa batch '/Volumes/USB*/recordings' --jobs 4 --report run.html
      ursa batch /mnt/nas/recordings --max-duration 6h --settle 10m --log-file ~/ursa.log --notify 'mail -s ursa lab'
      ursa batch /mnt/nas/recordings --dry-run

    \b
    Exit status:
      0    every recording is registered, or was, or was skipped
      1    failed; also where a root is missing or empty
      2    usage or configuration
      3    some recordings failed or were not reached (with --strict also: were skipped)
      4    credentials                   11 another run of these roots holds the lock
      130  interrupted: nothing in flight is registered, a re-run goes on
    """
    with Notifier(notify, command="batch") as notifier:
        choices = batch_view.Choices(
            roots,
            jobs,
            existing,
            report or [],
            on_failure,
            strict,
            max_duration,
            settle,
            reconstruct_missing,
            dry_run,
            wait,
            trust_mtime,
            not_unfinished or [],
        )
        batch_view.run(session, notifier, choices, transfers=transfers, bandwidth=bwlimit)
