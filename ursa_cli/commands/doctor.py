"""`ursa doctor`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ursa_cli.options import command_app, shared
from ursa_cli.session import Session

if TYPE_CHECKING:
    from ursa import ProbeResult

app = command_app()

_INDENT = " " * 6


@app.command()
@shared
def doctor(
    session: Session,
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH", help="NAS roots or recording directories to look at as well.")
    ] = None,
) -> None:
    """Probe config, credentials, server, catalog and disks for real; each line ok, warn, FAIL or skip, with the mend.

    Each writing role writes a small object of its own (PREFIX.ursa-doctor/...), and deletes it. Works from cron, and
    ends within two minutes when the server can't be reached.

    \b
    Examples:
      ursa doctor
      ursa doctor /Volumes/nas/recordings --profile r2
      ursa doctor --json | jq -r 'select(.status == "fail").mend'

    \b
    Exit status:
      0  nothing failed; there may be warnings
      1  something failed    2  first of all the config    4  first of all the credentials
    """
    from ursa.doctor import diagnose, exit_code_of

    results = diagnose(
        session.profile, session.config, paths=paths or (), on_probe=lambda result: _tell(session, result)
    )
    code = exit_code_of(results)
    counts = {status: sum(result.status == status for result in results) for status in ("ok", "warn", "fail", "skip")}
    session.out.record("summary", **counts, exit_code=code)
    session.out.line(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    if code:
        raise typer.Exit(code)


def _tell(session: Session, result: ProbeResult) -> None:
    fields = asdict(result)
    del fields["exit_code"]  # the summary's says it
    session.out.record("probe", **fields)
    if session.out.quiet and result.status == "fail":
        _complain(result)
    label = "FAIL" if result.status == "fail" else result.status
    session.out.line(f"{label:<4}  {result.name:<14} {result.detail}")
    if result.mend and result.status != "ok":
        session.out.line(f"{_INDENT}mend: {result.mend}")
    sys.stdout.flush()  # each line as it comes, in a pipe as well


def _complain(result: ProbeResult) -> None:
    """--quiet prints errors only, and this is one."""
    from ursa import UrsaError
    from ursa_cli.render import print_error

    print_error(UrsaError(f"{result.name}: {result.detail}", hint=result.mend))
