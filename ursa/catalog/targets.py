"""Which version of each table is the catalog just after an operation. Pure: from commits to versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ursa.catalog.history import TABLES, Commit

_RECORDINGS, *_OTHERS = TABLES


def target_versions(commits: Sequence[Commit], operation_id: str) -> dict[str, int]:
    """Table → the version to restore, for the state just after this operation.

    Where operation ids tell, they decide: a table's target holds the operation's own commits, and for every recording
    that stays those of the operation that wrote it. Only what has no commit in another table to compare with is placed
    by the clocks of the machines that committed.

    Args:
        commits: all that the log has, of the three tables, in any order.
        operation_id: one that has a commit among them.
    """
    own = [commit for commit in commits if commit.operation_id == operation_id]
    at = max(commit.at for commit in own)
    ends = {table: max(item.version for item in own if item.table == table) for table in {item.table for item in own}}
    targets = {}
    if _RECORDINGS in ends:
        targets[_RECORDINGS] = ends[_RECORDINGS]
    else:
        targets[_RECORDINGS] = _by_clock(_of(commits, _RECORDINGS), 0, at, _later_than(commits, ends))
    kept = {item.operation_id for item in _of(commits, _RECORDINGS) if item.version <= targets[_RECORDINGS]}
    gone = _later_than(commits, {_RECORDINGS: targets[_RECORDINGS]}) - kept
    for table in _OTHERS:
        there = _of(commits, table)
        needed = [item.version for item in there if item.operation_id in kept]
        # A participant's row does no harm, and another registration may count on it.
        refused = gone if table == "modalities" else frozenset[str]()
        targets[table] = _by_clock(there, max([ends.get(table, 0), *needed]), at, refused)
    return targets


def _by_clock(there: Sequence[Commit], least: int, at: datetime, refused: frozenset[str]) -> int:
    """The last version of those before the first commit that is later than ``at``, and at least ``least``.

    It is not of a ``refused`` operation, but one that had ended may have committed after such a one.
    """
    version = max(least, min((item.version for item in there), default=0))
    for commit in there:
        if commit.version > version and commit.at > at:
            break
        if commit.operation_id not in refused:
            version = max(version, commit.version)
    return version


def _later_than(commits: Sequence[Commit], versions: Mapping[str, int]) -> frozenset[str]:
    """Operations that have committed after these versions: they had not ended then."""
    return frozenset(item.operation_id for item in commits if item.version > versions.get(item.table, item.version))


def _of(commits: Sequence[Commit], table: str) -> list[Commit]:
    return sorted((item for item in commits if item.table == table), key=lambda item: item.version)
