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
    author: Author, operation: str, op_id: str, *, rows: int = 0, operation_id: str = "", retries: int | None = 0
) -> CommitProperties:
    """What a commit says of itself.

    Args:
        op_id: random, this commit's own: a lost reply is recognised by it.
        operation_id: the same for all commits of one operation; "" where this is its only one.
        retries: None lets Delta rebase, which is right for what changes no row.
    """
    about = {
        "ursa_op_id": op_id,
        "ursa_operation_id": operation_id or op_id,
        "ursa_operation": operation,
        "ursa_who": author.who,
        "ursa_host": author.host,
        "ursa_version": author.version,
        "ursa_rows": str(rows),
    }
    if retries is None:
        return CommitProperties(custom_metadata=about)
    return CommitProperties(max_commit_retries=retries, custom_metadata=about)
