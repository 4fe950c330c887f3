"""Files of a table written anew: merged or sorted in a private copy, then swapped in one commit.

deltalake's own optimizer commits with retries whatever it is told, and rebases: two that merge the same small files
at the same time both succeed, and each row is there twice. Here it works on a copy that nobody else knows, and the
result is committed by compare-and-swap (``docs/decisions/005-layout-for-scale.md``).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from ursa.catalog.layout import DataFile
from ursa.catalog.retention import CleanUpRefusedError
from ursa.errors import StorageError
from ursa.names import disk_name
from ursa.store import NotFoundError, Store

_SIDE_BY_SIDE = 8


@dataclass(frozen=True, slots=True)
class TableFiles:
    """A table's files as objects: ``prefix`` is the table's, and ends in a slash. ``clean_up``: told of each deletion by
    age, None or why it was refused. ``admit``: called before each write, raises where the server may not be written to.
    """

    store: Store
    prefix: str
    clean_up: Callable[[CleanUpRefusedError | None], object] = str
    admit: Callable[[], object] = str

    def has_version(self, version: int) -> bool:
        """Whether the log has this commit. Raises ``StorageError``."""
        try:
            self.store.head(f"{self.prefix}_delta_log/{version:020}.json")
        except NotFoundError:
            return False
        return True

    def commit_info(self, version: int) -> Mapping[str, Any]:
        """What a commit says of itself; nothing where another tool made it so. Raises ``StorageError``."""
        name = f"_delta_log/{version:020}.json"
        try:
            actions = [json.loads(line) for line in self.read(name).splitlines() if line.strip()]
            return next((dict(action["commitInfo"]) for action in actions if "commitInfo" in action), {})
        except (ValueError, TypeError) as error:
            key = self.prefix + name
            raise StorageError(f"can't read {self.store.uri}/{key}: {error}", key=key, operation="read") from None

    def read(self, name: str) -> bytes:
        """A file's content. Raises ``StorageError``."""
        return self.store.read(self.prefix + name)[0]

    def fetch(self, names: Iterable[str], to: Path) -> None:
        """Copy files to a directory. Raises ``StorageError``."""

        def one(name: str) -> None:
            (to / name).write_bytes(self.read(name))

        self._all(one, names)

    def put(self, names: Iterable[str], source: Path) -> None:
        """Copy new files from a directory. Raises ``StorageError``."""

        def one(name: str) -> None:
            data = (source / name).read_bytes()
            self.store.put(self.prefix + name, data, sha256=hashlib.sha256(data).hexdigest(), if_absent=True)

        self._all(one, names)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files that no commit within the retention names. Raises ``StorageError``."""
        self._all(lambda name: self.store.delete(self.prefix + name), names)

    @staticmethod
    def _all(action: Callable[[str], None], names: Iterable[str]) -> None:
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            list(pool.map(action, names))


@dataclass(frozen=True, slots=True)
class Rewritten:
    """New files, which are in the bucket and in no commit yet, and the old ones in whose place they come."""

    added: tuple[AddAction, ...]
    removed: tuple[RemoveAction, ...]

    @property
    def names(self) -> list[str]:
        """The new files."""
        return [action.path for action in self.added]

    @property
    def actions(self) -> list[Any]:
        """What the commit says."""
        return [*self.added, *self.removed]


def rewrite(
    where: TableFiles, schema: Schema, files: Sequence[DataFile], optimize: Callable[[DeltaTable], object]
) -> Rewritten:
    """Copy these files, ``optimize`` the copy, and put what came of it beside them. Needs as much disk for as long.

    Raises:
        StorageError: the server failed. DeltaError, OSError: the copy did. Nothing is committed.
    """
    with tempfile.TemporaryDirectory(prefix="ursa-compact-") as directory:
        copy, uri = Path(directory), disk_name(directory)
        where.fetch([file.path for file in files], copy)
        create_table_with_add_actions(uri, schema, [_known(file) for file in files])
        optimize(DeltaTable(uri))
        rewritten = _read_log(copy, {file.path: file for file in files})
        where.put(rewritten.names, copy)
    return rewritten


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
    return Rewritten(added, removed)
