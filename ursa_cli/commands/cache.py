"""`ursa cache`."""

from __future__ import annotations

from typing import Annotated

import typer

from ursa_cli.options import command_app, shared
from ursa_cli.render import size
from ursa_cli.session import Session

app = command_app(no_args_is_help=True, help="Show or clear this machine's copies of the catalog.")


@app.command()
@shared
def path(session: Session) -> None:
    """Print the cache directory, and how much each part of it holds.

    The copies of the catalog answer `ls`, `show` and each look-up; the files cache knows which files this machine has
    read, so that a nightly batch does not read them again. Both can be lost: what is needed comes again.

    \b
    Example:
      ursa cache path

    \b
    Exit status:
      0  printed    2  usage or configuration
    """
    from ursa.interface import Caches

    session.start_log_file()
    found = Caches.of(session.profile, session.config).use()
    session.out.record("cache", path=found.path, catalog_bytes=found.catalog_bytes, files_bytes=found.files_bytes)
    session.out.line(str(found.path) if found.path else "no cache directory: each command makes a temporary one")
    session.out.line(f"  copies of catalogs   {size(found.catalog_bytes)}")
    session.out.line(f"  files cache          {size(found.files_bytes)}")


@app.command()
@shared
def clear(
    session: Session,
    files: Annotated[
        bool, typer.Option("--files", help="Also forget which files were read: the next batch reads them all.")
    ] = False,
) -> None:
    """Remove this machine's copies of catalogs. The next command fetches what it needs; nothing in a bucket changes.

    Copies that another command has open at this moment stay.

    \b
    Examples:
      ursa cache clear
      ursa cache clear --files

    \b
    Exit status:
      0  removed, also when there was nothing    2  usage or configuration
    """
    from ursa.interface import Caches

    session.start_log_file()
    removed = Caches.of(session.profile, session.config).clear(files=files)
    session.out.record("cache", removed_bytes=removed)
    session.out.line(f"removed {size(removed)}")
