"""`ursa catalog`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ursa_cli import catalog_view, rebuild_view, typed
from ursa_cli.options import Offline, command_app, shared
from ursa_cli.session import Session

app = command_app(no_args_is_help=True, help="Make, look into and mend the catalog.")


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
    session.out.line(f"next: ursa ingest REC_DIR{typed.options()}")


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


@app.command()
@shared
def history(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="The newest N operations.")] = 50,
    offline: Offline = False,
) -> None:
    """Say who did what to the catalog when, newest first; it reaches 90 days back.

    ROWS counts the rows written to (r)ecordings, (m)odalities and (p)articipants; VERSIONS are the tables' versions
    afterwards, for tools that open a Delta table at a version. After a rebuild, "filled" marks its last operation: undo
    to it or to a newer one; before it, the catalog was half filled.

    \b
    Examples:
      ursa catalog history
      ursa catalog history --limit 1000 --json

    \b
    Exit status:
      0  printed    1  the server failed    2  no catalog, usage or configuration    4  credentials
    """
    catalog_view.operations(session, session.data(offline=offline).catalog_history(limit))


@app.command()
@shared
def undo(
    session: Session,
    to: Annotated[
        str, typer.Option("--to", metavar="OPERATION", help="An operation of the history; the start of its id will do.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would disappear, and stop.")] = False,
) -> None:
    """Restore all three tables to just after an operation: what was done later is undone. No byte of a recording is lost.

    Recordings that disappear from the catalog stay in the bucket, and can be registered again. An undo can itself be
    undone, to the operation before it. What would come back is looked for in the bucket first, and nothing is registered
    without its bytes. What others commit after the plan is never taken away. Killed, the same command ends it.

    \b
    Examples:
      ursa catalog history
      ursa catalog undo --to 3f9a41c2 --dry-run
      ursa catalog undo --to 3f9a41c2 --yes

    \b
    Exit status:
      0  restored, or nothing to do    1  the server failed, somebody wrote meanwhile, or you said no
      2  no such operation, usage, configuration, or no --yes and nobody to ask    4  credentials
      6  what would come back is not whole in the bucket: nothing was changed (a dry run says so too)
    """
    catalog_view.run_undo(session, to, yes, dry_run)


@app.command()
@shared
def compact(
    session: Session,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do, and stop.")] = False,
) -> None:
    """Merge the tables' small files, sort where look-ups open too many, remove what dead runs left, forget old files.

    Writers do the everyday part as they go; once a month is plenty. Files are forgotten when no version of the last 90
    days needs them. Others may read and write meanwhile.

    \b
    Examples:
      ursa catalog compact --dry-run
      ursa catalog compact

    \b
    Exit status:
      0  done    1  the server failed, or a rebuild is under way    2  no catalog, usage or configuration
      4  credentials
    """
    data = session.data(writes=() if dry_run else ("assets_rw",))
    catalog_view.compacted(session, data.compact_catalog(dry_run))


@app.command()
@shared
def rebuild(
    session: Session,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Derive and compare, write nothing.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Give up a rebuild that is under way.")] = False,
    back: Annotated[
        bool, typer.Option("--back", help="Make the catalog live again that was live before the last rebuild.")
    ] = False,
    drop_lost: Annotated[
        bool, typer.Option("--drop-lost", help="Go on without recordings whose registered bytes are not in the bucket.")
    ] = False,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="ADDRESS", help="Let a dask cluster's workers read the bucket.")
    ] = None,
) -> None:
    """Derive every row anew from the bucket into a new prefix, tell the differences, ask, put it in place in one step.

    What no manifest knows (participants, edits, hashes) is taken over from the live catalog; no byte of a recording is
    touched. Others may ingest meanwhile: for the last seconds they wait, then go on in the new catalog. Interrupted or
    killed, it leaves the live catalog as it was and the new one half filled: the same command goes on from there, on any
    machine, and --abort deletes it. Killed in the last seconds, it also leaves the live catalog frozen: reading goes on,
    and who writes is told so until one of the two commands has run. The catalog that was live stays under its prefix:
    --back makes it live again, in one step, with all that was registered since; typed once more, it undoes that.

    \b
    Examples:
      ursa catalog rebuild --dry-run
      ursa catalog rebuild
      ursa catalog rebuild --yes --json > rebuild.jsonl
      ursa catalog rebuild --yes --dask tcp://10.0.0.5:8786
      ursa catalog rebuild --abort
      ursa catalog rebuild --back --dry-run

    \b
    Exit status:
      0    in place; or dry run, abort or back done    1  the server failed, or you said no
      2    usage, configuration, or no --yes and nobody to ask    4  credentials
      5    the pointer was changed by somebody else meanwhile
      6    registered recordings would be lost, or with --back come without their bytes: nothing was put in place (a
           dry run says so too)
      130  interrupted: the same command goes on
    """
    rebuild_view.run(session, rebuild_view.Choice(yes, dry_run, abort, back, drop_lost, dask))


def _ask(profile: str) -> None:
    from ursa.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask", hint=f"Run `ursa catalog init --yes --profile {profile}`.")
    typer.confirm(f"Make an empty catalog for profile {profile}?", abort=True)
