"""`ursa schedule`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ursa.schedule import Kind
from ursa_cli import schedule_view
from ursa_cli.options import command_app, shared
from ursa_cli.session import Session

app = command_app(
    no_args_is_help=True,
    help="Print a cron, systemd or launchd unit for a nightly `ursa batch`. Writes nothing; see docs/unattended.md.",
)

Roots = Annotated[
    list[str],
    typer.Argument(metavar="ROOT", help="Directories for `ursa batch`, or globs in quotes.", show_default=False),
]
At = Annotated[str, typer.Option("--at", metavar="HH:MM", help="Time of day, in the machine's own zone.")]
Wait = Annotated[str, typer.Option("--wait", metavar="TIME", help="How long the job waits for another run to end.")]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Report of the last run, .json or .html; in your state dir else."),
]
Notify = Annotated[
    str | None, typer.Option("--notify", metavar="CMD", help="Shell command for runs that fail; the summary on stdin.")
]


@app.command()
@shared
def cron(
    session: Session, roots: Roots, at: At = "02:30", wait: Wait = "30m", report: Report = None, notify: Notify = None
) -> None:
    """Print a crontab line for a nightly batch, with how to install it. Writes nothing.

    --profile, --config and --log-file are those of the job; the log is in your state directory else.

    \b
    Examples:
      ursa schedule cron /mnt/nas/recordings
      ursa schedule cron '/mnt/nas/rig*' --at 03:15 --notify 'mail -s "ursa: batch" lab@example.org'

    \b
    Exit status:
      0  printed    2  usage or configuration: the job would fail as well
    """
    schedule_view.show(session, Kind.CRON, roots, at=at, wait=wait, report=report, notify=notify)


@app.command()
@shared
def systemd(
    session: Session, roots: Roots, at: At = "02:30", wait: Wait = "30m", report: Report = None, notify: Notify = None
) -> None:
    """Print a systemd user service and its timer for a nightly batch, with how to install them. Writes nothing.

    --profile, --config and --log-file are those of the job; the log is in your state directory else.

    \b
    Examples:
      ursa schedule systemd /mnt/nas/recordings
      ursa schedule systemd /mnt/nas/recordings --profile r2-test --config /etc/ursa.yaml --at 03:15

    \b
    Exit status:
      0  printed    2  usage or configuration: the job would fail as well
    """
    schedule_view.show(session, Kind.SYSTEMD, roots, at=at, wait=wait, report=report, notify=notify)


@app.command()
@shared
def launchd(
    session: Session, roots: Roots, at: At = "02:30", wait: Wait = "30m", report: Report = None, notify: Notify = None
) -> None:
    """Print a launchd agent for a nightly batch on a Mac, with how to install it. Writes nothing.

    --profile, --config and --log-file are those of the job; the log is in your state directory else.

    \b
    Examples:
      ursa schedule launchd /Volumes/nas/recordings > ~/Library/LaunchAgents/org.ursa.batch.plist
      ursa schedule launchd /Volumes/nas/recordings --at 03:15

    \b
    Exit status:
      0  printed    2  usage or configuration: the job would fail as well
    """
    schedule_view.show(session, Kind.LAUNCHD, roots, at=at, wait=wait, report=report, notify=notify)
