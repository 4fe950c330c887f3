"""Which version of each table is the catalog just after an operation. Pure: from commits to versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ursa.catalog.history import TABLES, Commit

RECORDINGS = "recordings"


def target_versions(commits: Sequence[Commit], operation_id: str) -> dict[str, int]:
    """Table → the version to restore, for the state just after this operation.

    Where operation ids tell, they decide: a table's target holds the operation's own commits and, for every recording
    that stays, the commits of the operation that wrote it. Only what has no commit in another table to compare with is
    placed by the clocks of the machines that committed.

    Args:
        commits: all that the log has, of three tables, in any order.
    """
    own = _last_versions(commits, operation_id)
    at = max(commit.at for commit in commits if commit.operation_id == operation_id)
    recordings = own[RECORDINGS] if RECORDINGS in own else _by_clock(commits, RECORDINGS, _oldest(commits), at, own)
    targets = {RECORDINGS: recordings}
    kept = {item.operation_id for item in commits if item.table == RECORDINGS and item.version <= recordings}
    for table in TABLES[1:]:
        needed = [item.version for item in commits if item.table == table and item.operation_id in kept]
        least = max([own.get(table, 0), *needed], default=0) or _first(commits, table)
        targets[table] = _by_clock(commits, table, least, at, targets)
    return targets


def _by_clock(
    commits: Sequence[Commit], table: str, least: int, at: datetime, chosen: Mapping[str, int]
) -> int:
    """From version ``least`` on, as long as the next commit is not later than ``at``, nor of an operation that is known
    to have ended after the versions that are ``chosen`` of other tables.
    """
    later = {
        item.operation_id
        for item in commits
        if item.table in chosen and item.table != table and item.version > chosen[item.table]
    }
    version = least
    for commit in sorted((item for item in commits if item.table == table), key=lambda item: item.version):
        if commit.version <= version:
            continue
        if commit.at > at or commit.operation_id in later:
            break
        version = commit.version
    return version


def _last_versions(commits: Sequence[Commit], operation_id: str) -> dict[str, int]:
    own: dict[str, int] = {}
    for commit in commits:
        if commit.operation_id == operation_id:
            own[commit.table] = max(own.get(commit.table, 0), commit.version)
    return own


def _first(commits: Sequence[Commit], table: str) -> int:
    return min((item.version for item in commits if item.table == table), default=0)


def _oldest(commits: Sequence[Commit]) -> int:
    return _first(commits, RECORDINGS)
