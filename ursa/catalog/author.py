"""Who writes, and what a commit says of itself."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from deltalake import CommitProperties

from ursa.catalog.replica.log import PREVIOUS_KEY

WRITER_KEY = "ursa_writer"
"""Key of a commit's metadata: random, the same for all commits of one process."""
ATTEMPT_KEY = "ursa_attempt"
WRITER_ID = uuid.uuid4().hex[:12]
"""Of this process."""


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
    author: Author,
    operation: str,
    op_id: str,
    *,
    rows: int = 0,
    operation_id: str = "",
    attempt: int = 1,
    previous: str | None = None,
) -> CommitProperties:
    """What a commit says of itself.

    Args:
        op_id: random, the same for all attempts at this commit: one whose reply was lost is recognised by it.
        operation_id: the same for all commits of one operation; "" where this is its only one.
        attempt: counts from 1: each may have decided other rows.
        previous: the sha256 of the commit that this one comes after; None where it is the first, or nobody knows.
    """
    about = {
        "ursa_op_id": op_id,
        ATTEMPT_KEY: str(attempt),
        WRITER_KEY: WRITER_ID,
        "ursa_operation_id": operation_id or op_id,
        "ursa_operation": operation,
        "ursa_who": author.who,
        "ursa_host": author.host,
        "ursa_version": author.version,
        "ursa_rows": str(rows),
    }
    if previous is not None:
        about[PREVIOUS_KEY] = previous
    # In a scratch there is nothing to retry.
    return CommitProperties(max_commit_retries=0, custom_metadata=about)
