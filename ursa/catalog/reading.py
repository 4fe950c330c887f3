"""A table that is open: its replica at a version, queries, its files and its history."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError

from ursa.catalog.arrow import MTIME, TableKind
from ursa.catalog.author import Author
from ursa.catalog.foreign import foreign
from ursa.catalog.layout import LAYOUTS, SESSION, DataFile
from ursa.catalog.metadata import AUXILIARY_KEY
from ursa.catalog.replica.directory import link
from ursa.catalog.replica.log import local_name
from ursa.catalog.replica.table import Look, TableReplica
from ursa.catalog.replica.words import damaged, other_tool
from ursa.catalog.rows import SCHEMA_VERSION
from ursa.catalog.where import EVERYTHING, Where
from ursa.catalog.words import of_deltalake, raise_in_words, words
from ursa.errors import StorageError
from ursa.store import NotFoundError

Row = TypeVar("Row")

FROZEN_KEY = "ursa.frozen"
"""Table property: a rebuild is about to make the catalog under this prefix the live one; nothing is written here."""
SCHEMA_KEY = "ursa.schemaVersion"
EARLY = ("modalities", ["rec_id"])
"""The table, and the column that it lacks, of catalogs as the first ursa made them; see ``ursa.catalog.early``."""
_VECTORS = "deletionVectors"
# Features of the protocol that change nothing of how ursa's rows are written.
_WRITTEN = {"appendOnly", "invariants", "timestampNtz"}
_BOUNDED = ("rec_id", "participant_id", "recording_hash", "started_at")


@dataclass(frozen=True)
class View:
    """A table at a version, opened from a directory of this disk. ``files`` are its data files; they are here once they
    were needed.
    """

    replica: TableReplica
    delta: DeltaTable
    key: str
    path: Path

    @cached_property
    def files(self) -> list[DataFile]:
        """The data files of this version."""
        return data_files(self.delta, self.key)

    def need(self, where: Where = EVERYTHING) -> None:
        """See to it that the files are here that may hold rows which meet a condition. Raises as ``TableReplica.need``."""
        wanted = [file for file in self.files if where.may_meet(file)]
        self.replica.need(wanted)
        if self.path != self.replica.path:
            for file in wanted:
                link(self.replica.path / local_name(file.path), self.path / local_name(file.path))

    def drop_wrong(self, where: Where) -> bool:
        """Remove copies of files that are damaged on this disk; returns whether there were any."""
        wanted = [file for file in self.files if where.may_meet(file)]
        dropped = self.replica.drop_wrong(wanted)
        if dropped and self.path != self.replica.path:
            for file in wanted:
                (self.path / local_name(file.path)).unlink(missing_ok=True)
        return dropped


class OpenTable(Generic[Row]):
    """One table of a catalog, at a version and moved forward by ``refresh``. Not thread-safe.

    ``uri``: of the table in the bucket, for messages and for other tools.
    """

    def __init__(self, kind: TableKind[Row], uri: str, replica: TableReplica, author: Author) -> None:
        self.kind = kind
        self.uri = uri
        self.replica = replica
        self.author = author
        self.layout = LAYOUTS[kind.name]
        self._view: View | None = None

    @property
    def version(self) -> int:
        """The version that queries see."""
        return self.view.delta.version()

    @property
    def frozen(self) -> str | None:
        """The prefix of the catalog that a rebuild is about to put in this one's place; None where there is none."""
        return self.view.delta.metadata().configuration.get(FROZEN_KEY) or None

    @property
    def view(self) -> View:
        """The table as it was last seen; seen now where it never was. Raises ``StorageError``."""
        if self._view is None:
            self.refresh()
        assert self._view is not None
        return self._view

    @property
    def delta(self) -> DeltaTable:
        """The handle, at the version that queries see."""
        return self.view.delta

    def look(self) -> Look:
        """Ask what others have committed; changes nothing. Raises ``StorageError``."""
        return self.replica.look()

    def follow(self, look: Look) -> bool:
        """See what a look has found; returns whether it was anything. Raises ``StorageError``, ``CatalogDamagedError``."""
        with words(self.uri, "keep a copy of"):
            changed = self.replica.follow(look)
        self.reopen()
        return changed

    def refresh(self) -> None:
        """See what others have committed: one LIST, where there is nothing new."""
        self.follow(self.look())

    def reopen(self) -> None:
        """Open the replica as it is now."""
        version = self.replica.version
        if self._view is not None and (self._view.delta.version(), self._view.path) == (version, self.replica.path):
            return
        first = self._view is None
        self._view = self._opened(version)
        self._check_protocol()
        self._check_version()
        self._check_columns()
        if first:
            self.replica.directory.tidy({local_name(file.path) for file in self._view.files})

    def _opened(self, version: int) -> View:
        with words(self.uri, "open"):
            try:
                return self._at(self.replica.path, version)
            except DeltaError:
                if self.replica.offline or self.replica.log_is_right():
                    # It is what the bucket has: written by a tool that knows more than this one, as a rule.
                    raise
            self.replica.set_aside()
            self.replica.follow(self.replica.look())
            return self._at(self.replica.path, self.replica.version)

    def _at(self, path: Path, version: int) -> View:
        with foreign():
            table = DeltaTable(str(path), version=version)
        return View(self.replica, table, self.layout.key, path)

    def at(self, version: int) -> View:
        """The table at another version. Raises ``StorageError``: where the log no longer reaches so far."""
        if version == self.version:
            return self.view
        kept = contextlib.ExitStack()
        path = kept.enter_context(self.replica.scratch(version))
        with words(self.uri, f"open version {version} of"):
            view = self._at(path, version)
        weakref.finalize(view, kept.close)
        return view

    def select(
        self, *conditions: Where, also: Mapping[str, OpenTable[Any] | View] | None = None, tail: str = ""
    ) -> list[Row]:
        """Rows that meet a condition, all where there is none; tables in ``also`` may be named in it.

        Of several conditions any one will do, and a row that meets two comes twice: each finds its files by its own
        column, where an OR between columns would read them all.
        """
        name = self.kind.name
        wanted = conditions or (EVERYTHING,)
        parts = " UNION ALL ".join(f"SELECT * FROM {name} WHERE {condition}" for condition in wanted)
        where = Where("", tuple(box for condition in wanted for box in condition.boxes))
        return self.kind.rows(self.query(f"{parts} {tail}", where=where, also=also))

    def query(
        self, sql: str, *, where: Where = EVERYTHING, also: Mapping[str, OpenTable[Any] | View] | None = None
    ) -> Any:
        """Run SQL over this table (by its name) and ``also``; returns an Arrow table.

        Args:
            where: what the rows of this table that count have to meet: other files are not fetched. ``sql`` says it again.
        """
        views = {name: other.view if isinstance(other, OpenTable) else other for name, other in (also or {}).items()}
        return self.run(sql, {self.kind.name: self.view, **views}, {self.kind.name: where})

    def run(self, sql: str, views: Mapping[str, View], where: Mapping[str, Where] | None = None) -> Any:
        """Run SQL over views by these names; ``where`` as of ``query``, by name."""
        self._fetch(views, where or {})
        try:
            return _execute(sql, views)
        except BaseException as error:  # noqa: BLE001  (raised again, where another try would not help)
            if not of_deltalake(error) or not self._dropped(views, where or {}):
                raise_in_words(error, self.uri, "query")
        # A copy on this disk was damaged, or taken away by another process.
        self._fetch(views, where or {})
        with words(self.uri, "query"):
            return _execute(sql, views)

    @staticmethod
    def _dropped(views: Mapping[str, View], where: Mapping[str, Where]) -> bool:
        dropped = [view.drop_wrong(where.get(name, EVERYTHING)) for name, view in views.items()]
        return any(dropped)

    def _fetch(self, views: Mapping[str, View], where: Mapping[str, Where]) -> None:
        for name, view in views.items():
            try:
                with words(self.uri, "keep a copy of"):
                    view.need(where.get(name, EVERYTHING))
            except NotFoundError as error:
                self._refuse_lacking(view, error)

    def _refuse_lacking(self, view: View, error: NotFoundError) -> None:
        """A data file is not in the bucket. Raises ``CatalogDamagedError`` where the newest version still names it."""
        name = str(error.key or "").removeprefix(view.replica.files.prefix)
        view.replica.follow(view.replica.look())
        newest = self._at(view.replica.path, view.replica.version)
        if any(local_name(file.path) == name for file in newest.files):
            raise damaged(
                view.replica.files, "it is not there, and the log names it", name, newest.delta.version()
            ) from None
        raise StorageError(
            f"version {view.delta.version()} of the catalog table {view.replica.files.uri} was cleaned up while it was read",
            hint="Run the same command again.",
            operation="read",
        ) from None

    def need(self, where: Where) -> None:
        """Fetch the data files that rows which meet a condition may be in, for the question that comes next. Raises as
        ``query``.
        """
        name = self.kind.name
        self._fetch({name: self.view}, {name: where})

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """What the newest commits say of themselves, newest first; None gives all that the log still has."""
        return [{**commit.info, "version": commit.version} for commit in self.replica.commits(limit)]

    def files(self) -> Sequence[DataFile]:
        """The snapshot's data files."""
        return self.view.files

    def _refuse_foreign(self) -> None:
        protocol = self.delta.protocol()
        unknown = sorted({*(protocol.writer_features or ()), *(protocol.reader_features or ())} - _WRITTEN)
        if unknown:
            raise other_tool(self.replica.files, f"with the features {', '.join(unknown)}")
        if self.delta.metadata().partition_columns:
            raise other_tool(self.replica.files, "in partitions")

    def _check_protocol(self) -> None:
        """Rows that another tool has deleted by a vector would be shown as if they were there."""
        if _VECTORS in (self.delta.protocol().reader_features or ()):
            raise other_tool(self.replica.files, f"with the features {_VECTORS}")

    def _check_version(self) -> None:
        configured = self.delta.metadata().configuration.get(SCHEMA_KEY, "1")
        if configured.isdigit() and int(configured) > SCHEMA_VERSION:
            raise StorageError(
                f"{self.uri} was written by a newer ursa (schema version {configured}, this one knows {SCHEMA_VERSION})",
                hint="Upgrade ursa: pip install --upgrade ursa",
            )

    @property
    def lacking(self) -> list[str]:
        """Columns that this ursa counts on and the table has not."""
        there = {field.name for field in self.delta.schema().fields}
        return [name for name in self.kind.columns if name not in there]

    @property
    def dated(self) -> bool:
        """Whether the table is of before the rule of evidence: it can be read, and its proofs count as claims."""
        if self.lacking == [AUXILIARY_KEY]:
            return True
        kinds: list[Any] = [field.type for field in self.delta.schema().fields if field.name == "files"]
        return any(MTIME not in [inner.name for inner in kind.element_type.fields] for kind in kinds)

    def refuse_unwritable(self) -> None:
        """Raises ``StorageError`` where rows can't be written: the table has no column for their evidence, or another tool has
        given it what ursa does not write.
        """
        self._refuse_foreign()
        if self.dated:
            raise StorageError(
                f"the catalog's table {self.uri} was made by an ursa that kept no evidence of each file: it can be read, and"
                " not be written",
                hint="Nothing was written, and no recording is lost. An admin runs `ursa catalog rebuild --yes` once: it"
                " derives every row anew, and takes over what only the catalog knows.",
                operation="commit",
            )

    def _check_columns(self) -> None:
        lacking = self.lacking
        if lacking and lacking != [AUXILIARY_KEY]:
            by_us = (self.kind.name, lacking) == EARLY
            raise StorageError(
                f"the catalog's table {self.uri} has no column {', '.join(lacking)}"
                + (": an early version of ursa made it" if by_us else ", and no version of ursa made it so"),
                hint="No recording is lost. An admin runs `ursa catalog rebuild --yes` once: it derives every row anew, and"
                " takes over what only the catalog knows."
                if by_us
                else "Nothing was written. See who changed the assets bucket before anything else.",
            )


def _execute(sql: str, views: Mapping[str, View]) -> Any:
    with foreign():
        builder = QueryBuilder(SESSION)
        for name, view in views.items():
            builder.register(name, view.delta)
        return builder.execute(sql).read_all()


def data_files(table: DeltaTable, key: str) -> list[DataFile]:
    """The data files of a snapshot; ``key`` is the column whose bounds they tell first of all."""
    with foreign():
        actions = table.get_add_actions(flatten=True)

    def column(name: str) -> list[Any]:
        return actions.column(name).to_pylist() if name in actions.column_names else [None] * actions.num_rows

    bounds = {name: list(zip(column(f"min.{name}"), column(f"max.{name}"), strict=True)) for name in _BOUNDED}
    rows = zip(column("path"), column("size_bytes"), column("num_records"), strict=True)
    return [
        DataFile(
            path,
            size_bytes or 0,
            count or 0,
            bounds[key][number][0] or "",
            bounds[key][number][1] or "",
            {name: found[number] for name, found in bounds.items() if _told(found[number])},
        )
        for number, (path, size_bytes, count) in enumerate(rows)
    ]


def _told(bounds: Iterable[str | datetime | None]) -> bool:
    return all(value is not None for value in bounds)
