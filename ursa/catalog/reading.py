"""A Delta table that is open: refresh, queries, its files and its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from ursa.catalog.arrow import MTIME, TableKind
from ursa.catalog.author import Author
from ursa.catalog.layout import LAYOUTS, DataFile
from ursa.catalog.metadata import AUXILIARY_KEY
from ursa.catalog.rows import SCHEMA_VERSION
from ursa.catalog.session import QuerySession
from ursa.catalog.stream import hearing
from ursa.catalog.words import words
from ursa.errors import StorageError

Row = TypeVar("Row")

FROZEN_KEY = "ursa.frozen"
"""Table property: a rebuild is about to make the catalog under this prefix the live one; nothing is written here."""
SCHEMA_KEY = "ursa.schemaVersion"
EARLY = ("modalities", ["rec_id"])
"""The table, and the column that it lacks, of catalogs as the first ursa made them; see ``ursa.catalog.early``."""


class OpenTable(Generic[Row]):
    """One table of a catalog, opened at a version and moved forward by ``refresh``. Not thread-safe."""

    def __init__(self, kind: TableKind[Row], uri: str, options: Mapping[str, str], author: Author) -> None:
        self.kind = kind
        self.uri = uri
        self._options = dict(options)
        self.author = author
        self._session = QuerySession()
        self.layout = LAYOUTS[kind.name]
        with words(uri, "open"):
            try:
                self._table = hearing(lambda: DeltaTable(uri, storage_options=self._options))
            except TableNotFoundError:
                raise StorageError(
                    f"the catalog's table {uri} is not there, though ACTIVE.json names it",
                    hint="Nothing was written. See who changed the assets bucket before anything else.",
                ) from None
        self._check_version()
        self._check_columns()

    @property
    def version(self) -> int:
        """The version that queries see."""
        return self._table.version()

    @property
    def frozen(self) -> str | None:
        """The prefix of the catalog that a rebuild is about to put in this one's place; None where there is none."""
        return frozen_for(self._table)

    def refresh(self) -> None:
        """See what others have committed."""
        with words(self.uri, "refresh"):
            hearing(self._table.update_incremental)
        self._check_version()

    def select(self, *conditions: str, also: Mapping[str, OpenTable[Any]] | None = None, tail: str = "") -> list[Row]:
        """Rows that meet a SQL condition; tables in ``also`` may be named in it.

        Of several conditions any one will do, and a row that meets two comes twice: each finds its files by its own
        column, where an OR between columns would read them all.
        """
        name = self.kind.name
        parts = " UNION ALL ".join(f"SELECT * FROM {name} WHERE {condition}" for condition in conditions)
        return self.kind.rows(self.query(f"{parts} {tail}", also=also))

    def query(self, sql: str, *, also: Mapping[str, OpenTable[Any]] | None = None) -> Any:
        """Run SQL over this table (by its name) and ``also``; returns an Arrow table."""
        return self.query_with(sql, {name: other.delta for name, other in (also or {}).items()})

    def query_with(self, sql: str, also: Mapping[str, DeltaTable]) -> Any:
        """The same beside tables of deltalake's own: this one at another version, for instance."""
        return self.run(sql, {self.kind.name: self._table, **also})

    def run(self, sql: str, tables: Mapping[str, DeltaTable]) -> Any:
        """Run SQL over tables by these names."""
        with words(self.uri, "query"):
            return hearing(lambda: self._session.query(sql, tables))

    @property
    def delta(self) -> DeltaTable:
        """The open handle, at the version that queries see."""
        return self._table

    def at(self, version: int) -> DeltaTable:
        """A handle of its own at another version. Raises ``StorageError``: where the log no longer reaches so far."""
        with words(self.uri, f"open version {version} of"):
            return hearing(lambda: DeltaTable(self.uri, version=version, storage_options=self._options))

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """What the newest commits say of themselves, newest first; None gives all that the log still has."""
        with words(self.uri, "read the history of"):
            return hearing(lambda: self._table.history(limit))

    def files(self) -> list[DataFile]:
        """The snapshot's data files."""
        return data_files(self._table, self.layout.key)

    def _check_version(self) -> None:
        configured = self._table.metadata().configuration.get(SCHEMA_KEY, "1")
        if configured.isdigit() and int(configured) > SCHEMA_VERSION:
            raise StorageError(
                f"{self.uri} was written by a newer ursa (schema version {configured}, this one knows {SCHEMA_VERSION})",
                hint="Upgrade ursa: pip install --upgrade ursa",
            )

    @property
    def lacking(self) -> list[str]:
        """Columns that this ursa counts on and the table has not."""
        there = {field.name for field in self._table.schema().fields}
        return [name for name in self.kind.columns if name not in there]

    @property
    def dated(self) -> bool:
        """Whether the table is of before the rule of evidence: it can be read, and its proofs count as claims."""
        if self.lacking == [AUXILIARY_KEY]:
            return True
        kinds: list[Any] = [field.type for field in self._table.schema().fields if field.name == "files"]
        return any(MTIME not in [inner.name for inner in kind.element_type.fields] for kind in kinds)

    def refuse_dated(self) -> None:
        """Raises ``StorageError`` where rows can't be written, since the table has no column for their evidence."""
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


def frozen_for(table: DeltaTable) -> str | None:
    """The prefix that a snapshot is frozen for; None where it is not."""
    return table.metadata().configuration.get(FROZEN_KEY) or None


def data_files(table: DeltaTable, key: str) -> list[DataFile]:
    """The data files of a snapshot; ``key`` is the column whose bounds they tell."""
    actions = table.get_add_actions(flatten=True)

    def column(name: str, default: object) -> list[Any]:
        if name not in actions.column_names:
            return [default] * actions.num_rows
        return [default if value is None else value for value in actions.column(name).to_pylist()]

    columns = [
        column("path", ""),
        column("size_bytes", 0),
        column("num_records", 0),
        column(f"min.{key}", ""),
        column(f"max.{key}", ""),
    ]
    return [DataFile(*values) for values in zip(*columns, strict=True)]
