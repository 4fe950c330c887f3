"""Checkpoints: made in a scratch, from commits that were read from the bucket or that it has acknowledged.

One that was made of a commit which lost its race would make the loser's rows real for every reader.
"""

from __future__ import annotations

import contextlib

from deltalake import DeltaTable

from ursa.catalog.foreign import foreign
from ursa.catalog.replica.directory import names_in
from ursa.catalog.replica.log import HINT, LOG, checkpoints_in
from ursa.catalog.replica.table import TableReplica, hint_version
from ursa.store import PreconditionFailedError

OWED_AFTER = 10
"""Commits. Who sees the newest checkpoint further behind writes one."""


def owed(replica: TableReplica) -> bool:
    """Whether the next command of another machine would have many commits to fetch."""
    return replica.version - max(replica.checkpoint, 0) > OWED_AFTER


def checkpoint(replica: TableReplica) -> None:
    """Write one at the replica's version, and let ``_last_checkpoint`` name it. Raises ``StorageError``, ``DeltaError``."""
    version = replica.version
    if version == replica.checkpoint:
        return
    with replica.scratch(version) as made:
        if any(item.version == version for item in checkpoints_in(names_in(made / LOG))):
            replica.checkpoint = version  # another process of this machine was faster
            return
        with foreign():
            DeltaTable(str(made), version=version).create_checkpoint()
        found = next(item for item in checkpoints_in(names_in(made / LOG)) if item.version == version)
        for name in found.names:
            with contextlib.suppress(PreconditionFailedError):  # another process was faster
                replica.files.put(LOG + name, (made / LOG / name).read_bytes(), if_absent=True)
        _name(replica, version, (made / LOG / HINT).read_bytes())
        replica.keep_log(made, found.names)
    replica.checkpoint = version


def _name(replica: TableReplica, version: int, hint: bytes) -> None:
    named, etag = hint_version(replica.files)
    if named is not None and named >= version:
        return
    with contextlib.suppress(PreconditionFailedError):
        condition = {"if_match": etag} if etag else {"if_absent": True}
        replica.files.put(LOG + HINT, hint, **condition)
