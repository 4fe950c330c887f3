"""Files of a table written anew: merged or sorted in a private copy, then swapped in one commit.

deltalake's own optimizer commits with retries whatever it is told, and rebases: two that merge the same small files
at the same time both succeed, and each row is there twice. Here it works on a copy that nobody else knows, and the
result is committed by compare-and-swap (``docs/decisions/005-layout-for-scale.md``).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from ursa.catalog.foreign import foreign
from ursa.catalog.layout import DataFile
from ursa.catalog.replica.directory import link
from ursa.catalog.replica.log import local_name
from ursa.catalog.replica.table import TableReplica


@dataclass(frozen=True, slots=True)
class Rewritten:
    """New files, which lie in ``copy`` and are in no commit yet, and the old ones in whose place they come."""

    copy: Path
    added: tuple[AddAction, ...]
    removed: tuple[RemoveAction, ...]

    def bring(self, table: Path) -> None:
        """Give the new files a place in another private table."""
        for action in self.added:
            link(self.copy / local_name(action.path), table / local_name(action.path))

    @property
    def actions(self) -> list[Any]:
        """What the commit says."""
        return [*self.added, *self.removed]


@contextlib.contextmanager
def rewrite(
    replica: TableReplica, schema: Schema, files: Sequence[DataFile], optimize: Callable[[DeltaTable], object]
) -> Iterator[Rewritten]:
    """``optimize`` a private table of these files, which are here; what came of it is there until this ends.

    Raises:
        DeltaError, OSError: it failed. Nothing is committed.
    """
    with replica.directory.scratch() as copy:
        for file in files:
            link(replica.path / local_name(file.path), copy / local_name(file.path))
        (copy / "_delta_log").rmdir()
        with foreign():
            create_table_with_add_actions(str(copy), schema, [_known(file) for file in files])
            optimize(DeltaTable(str(copy)))
        yield _read_log(copy, {file.path: file for file in files})


def _known(file: DataFile) -> AddAction:
    return AddAction(file.path, file.size_bytes, {}, 0, False, json.dumps({"numRecords": file.rows}))


def _read_log(copy: Path, old: dict[str, DataFile]) -> Rewritten:
    """What the copy's commits after its creation added and removed."""
    lines = [line for path in sorted((copy / "_delta_log").glob("*.json")) for line in path.read_bytes().splitlines()]
    entries = [json.loads(line) for line in lines]
    gone = {entry["remove"]["path"] for entry in entries if "remove" in entry}
    now = int(time.time() * 1000)
    added = tuple(
        AddAction(add["path"], add["size"], {}, now, False, add.get("stats") or "{}")
        for add in (entry["add"] for entry in entries if "add" in entry)
        if add["path"] not in old and add["path"] not in gone
    )
    removed = tuple(RemoveAction(path, False, now, old[path].size_bytes, {}) for path in sorted(gone & old.keys()))
    return Rewritten(copy, added, removed)
