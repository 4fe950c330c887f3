"""`ursa catalog`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ursa_cli.options import command_app, shared
from ursa_cli.session import Session

app = command_app(no_args_is_help=True, help="Make the catalog, or say where its tables are.")


@app.command()
@shared
def init(
    session: Session,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Make the catalog of a profile: three empty tables and the pointer to them. Done once, by an admin.

    Where there is a catalog already, nothing happens.

    \b
    Example:
      ursa catalog init --yes --profile r2

    \b
    Exit status:
      0  there is a catalog now    1  the server failed, or you said no
      2  usage, configuration, or no --yes and nobody to ask    4  credentials
    """
    if not yes:
        _ask(session.profile)
    data = session.data(writes=("assets_rw",))
    made = data.init_catalog()
    session.out.record("catalog", made=made, tables=data.catalog_location())
    session.out.line("the catalog is made" if made else "there is a catalog already; nothing was changed")
    session.out.line("next: ursa ingest REC_DIR")


@app.command()
@shared
def location(session: Session) -> None:
    """Print the tables' URIs, and the line that opens them in DuckDB and in Polars.

    \b
    Example:
      ursa catalog location --profile local

    \b
    Exit status:
      0  printed    1  the server failed    2  no catalog, usage or configuration    4  credentials
    """
    tables = session.data().catalog_location()
    session.out.record("catalog", tables=tables)
    for name, uri in tables.items():
        session.out.line(f"{name:<13} {uri}")
    uri = tables["recordings"]
    session.out.line(f"\nDuckDB:  SELECT * FROM delta_scan('{uri}');")
    session.out.line(f"Polars:  polars.scan_delta({uri!r}).collect()")
    if uri.startswith("s3://"):
        session.out.line(
            "Both need the endpoint and a reading key: CREATE SECRET in DuckDB, storage_options in Polars."
        )


def _ask(profile: str) -> None:
    from ursa.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask", hint=f"Run `ursa catalog init --yes --profile {profile}`.")
    typer.confirm(f"Make an empty catalog for profile {profile}?", abort=True)
