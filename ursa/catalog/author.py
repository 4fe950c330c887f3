"""Who writes, and what a commit says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from deltalake import CommitProperties


@dataclass(frozen=True)
class Author:
    """Who writes: goes into every commit's metadata."""

    who: str
    host: str
    version: str

    @property
    def by(self) -> str:
        """``user@host``."""
        return f"{self.who}@{self.host}"


def commit_properties(
    author: Author, operation: str, op_id: str, *, rows: int = 0, operation_id: str = "", attempt: int = 1
) -> CommitProperties:
    """What a commit says of itself.

    Args:
        op_id: random, the same for all attempts at this commit: one whose reply was lost is recognised by it.
        operation_id: the same for all commits of one operation; "" where this is its only one.
        attempt: counts from 1: each may have decided other rows.
    """
    about = {
        "ursa_op_id": op_id,
        "ursa_attempt": str(attempt),
        "ursa_operation_id": operation_id or op_id,
        "ursa_operation": operation,
        "ursa_who": author.who,
        "ursa_host": author.host,
        "ursa_version": author.version,
        "ursa_rows": str(rows),
    }
    # Delta's own retries rebase onto a table that nobody looked at.
    return CommitProperties(max_commit_retries=0, custom_metadata=about)
