"""Who did what when: the commits of the three tables, put together to operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ursa.beside import each as beside
from ursa.catalog.catalog import Catalog
from ursa.catalog.tables import CatalogTable

TABLES = ("recordings", "modalities", "participants")
"""In the order in which their words name an operation."""
GONE_BACK = "back"
"""What a commit is called that thaws a catalog which is the live one again; and, with more, what it is given before."""
_FILLING = "rebuild:"
# Commits of a table read for each operation asked for: one registration makes one or two, and others come in between.
_COMMITS_EACH = 3
_COMMITS_MORE = 30


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of one table. ``at`` is the committing machine's clock, UTC."""

    table: str
    version: int
    at: datetime
    operation_id: str
    operation: str
    rows: int
    who: str
    host: str
    ursa: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What one call of ursa committed.

    ``at``: its last commit, UTC. ``who``, ``host``, ``version``: user, machine and ursa's version; "" where a tool that
    is not ursa committed. ``rows``: table → rows written; ``versions``: table → the version that it left. ``filled``: a
    rebuild ended with it: before it the catalog was half filled, and not yet live. No undo should go further back.
    """

    operation_id: str
    at: datetime
    who: str
    host: str
    version: str
    operation: str
    rows: Mapping[str, int]
    versions: Mapping[str, int]
    filled: bool = False


def history(catalog: Catalog, limit: int | None = None, since: datetime | None = None) -> list[Operation]:
    """Operations, newest first: at most ``limit``, and none that ended before ``since``.

    The log reaches 90 days back. Compactions, freezes and undos are operations as well.
    """
    commits = read_commits(catalog, None if limit is None else limit * _COMMITS_EACH + _COMMITS_MORE)
    found = marked(operations(commits))
    return [item for item in found if since is None or item.at >= since][:limit]


def marked(found: list[Operation]) -> list[Operation]:
    """With the operation that was the last of a rebuild's filling said to be it."""
    last = next((item for item in found if item.operation.startswith(_FILLING)), None)
    return [replace(item, filled=item is last) for item in found]


def filled(catalog: Catalog) -> dict[str, int] | None:
    """Table → its version when this catalog was made the live one; of recordings and modalities.

    None where the log does not reach so far back.
    """
    versions: dict[str, int] = {}
    for commit in read_commits(catalog):
        # The first version stands for a table that got no rows.
        if commit.operation.startswith((_FILLING, GONE_BACK)) or commit.version == 0:
            versions[commit.table] = max(commit.version, versions.get(commit.table, 0))
    wanted = ("recordings", "modalities")
    return {name: versions[name] for name in wanted} if versions.keys() >= set(wanted) else None


def read_commits(catalog: Catalog, each: int | None = None) -> list[Commit]:
    """The newest commits of each table (all with None), newest first, as of now."""
    with catalog.snapshot():
        tables: tuple[CatalogTable[Any], ...] = catalog.tables
        told = beside(lambda table: [_commit(table.kind.name, entry) for entry in table.history(each)], tables)
        return [commit for commits in told for commit in commits]


def operations(commits: Iterable[Commit]) -> list[Operation]:
    """Commits put together by their operation ids, newest first."""
    groups: dict[str, list[Commit]] = {}
    for commit in commits:
        groups.setdefault(commit.operation_id, []).append(commit)
    found = [_operation(group) for group in groups.values()]
    return sorted(found, key=lambda item: (item.at, max(item.versions.values())), reverse=True)


def _operation(group: Sequence[Commit]) -> Operation:
    ordered = sorted(group, key=lambda item: (TABLES.index(item.table), item.version))
    first = ordered[0]
    rows: dict[str, int] = {}
    versions: dict[str, int] = {}
    for commit in ordered:
        rows[commit.table] = rows.get(commit.table, 0) + commit.rows
        versions[commit.table] = commit.version
    at = max(commit.at for commit in group)
    return Operation(first.operation_id, at, first.who, first.host, first.ursa, first.operation, rows, versions)


def _commit(table: str, entry: Mapping[str, Any]) -> Commit:
    version = int(entry["version"])
    rows = str(entry.get("ursa_rows") or "0")
    return Commit(
        table=table,
        version=version,
        at=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(entry.get("timestamp") or 0)),
        # Other tools' commits have no id: the table and its version name them.
        operation_id=str(entry.get("ursa_operation_id") or f"{table}@{version}"),
        operation=str(entry.get("ursa_operation") or entry.get("operation") or "?").lower(),
        rows=int(rows) if rows.isdecimal() else 0,
        who=str(entry.get("ursa_who") or ""),
        host=str(entry.get("ursa_host") or ""),
        ursa=str(entry.get("ursa_version") or ""),
    )
