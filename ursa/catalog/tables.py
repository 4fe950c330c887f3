"""A Delta table: refresh, query, and commits of which exactly one of two writers wins.

A write is a version compare-and-swap: refresh, look the key up, decide, commit with no retries. Any commit in between
makes ours fail, and we refresh, look and decide again (``docs/decisions/001-compare-and-swap.md``).
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from deltalake import DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from ursa.catalog.arrow import TableKind
from ursa.catalog.author import Author as Author  # where others import it from
from ursa.catalog.author import commit_properties
from ursa.catalog.layout import BIG_EVERY, LAYOUTS, SMALL_EVERY, DataFile
from ursa.catalog.rows import SCHEMA_VERSION
from ursa.catalog.session import QuerySession
from ursa.catalog.stream import hearing
from ursa.catalog.words import one_line, words
from ursa.errors import StorageError, UrsaError

Row = TypeVar("Row")

_CONFIGURATION = {
    # How far back `undo` and `history` reach.
    "delta.logRetentionDuration": "interval 90 days",
    "delta.deletedFileRetentionDuration": "interval 90 days",
    "delta.checkpointInterval": "10",
    "ursa.schemaVersion": str(SCHEMA_VERSION),
}
_GIVE_UP_AFTER_S = 120.0
_OTHER_FAILURES = 3


FROZEN_KEY = "ursa.frozen"
"""Table property: a rebuild is about to make the catalog under this prefix the live one; nothing is written here."""


class LostRaceError(Exception):
    """Another commit came in between: look again, decide again."""


class FrozenError(Exception):
    """A rebuild has frozen this table: what is live now, or will be soon, is another catalog (``Catalog.write``)."""


@dataclass(frozen=True)
class Change(Generic[Row]):
    """Rows to write; ``replacing`` is the SQL predicate of the rows that they replace, None to append.

    ``operation``: what is done, in a word for the history. ``operation_id``: the same for all commits of one
    registration, so that the history shows them as one; "" where it has but this commit.
    """

    rows: Sequence[Row]
    replacing: str | None
    operation: str
    operation_id: str = ""


class CatalogTable(Generic[Row]):
    """One table of a catalog, opened at a version and moved forward by ``refresh``. Not thread-safe."""

    def __init__(self, kind: TableKind[Row], uri: str, options: Mapping[str, str], author: Author) -> None:
        self.kind = kind
        self.uri = uri
        self._options = dict(options)
        self._author = author
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

    @staticmethod
    def create(
        kind: TableKind[Any], uri: str, options: Mapping[str, str], author: Author, operation_id: str = ""
    ) -> None:
        """Make the table where there is none; somebody else's being first is fine."""
        with words(uri, "create"):
            try:
                DeltaTable.create(
                    uri,
                    kind.schema,
                    mode="ignore",
                    configuration=_CONFIGURATION,
                    storage_options=dict(options),
                    commit_properties=commit_properties(author, "create", uuid.uuid4().hex, operation_id=operation_id),
                    raise_if_key_not_exists=False,
                )
            except DeltaError:
                # Two first runs at once: what counts is that the table opens.
                DeltaTable(uri, storage_options=dict(options))

    @property
    def version(self) -> int:
        """The version that queries see."""
        return self._table.version()

    @property
    def frozen(self) -> str | None:
        """The prefix of the catalog that a rebuild is about to put in this one's place; None where there is none."""
        return self._table.metadata().configuration.get(FROZEN_KEY) or None

    def set_frozen(self, prefix: str | None) -> None:
        """Freeze for the catalog under ``prefix``, or thaw with None. Raises ``StorageError``."""
        operation = "freeze" if prefix else "thaw"
        with words(self.uri, operation):
            self._table.alter.set_table_properties(
                {FROZEN_KEY: prefix or ""},
                raise_if_not_exists=False,
                commit_properties=commit_properties(self._author, operation, uuid.uuid4().hex),
            )
        self.refresh()

    def refresh(self) -> None:
        """See what others have committed."""
        with words(self.uri, "refresh"):
            hearing(self._table.update_incremental)
        self._check_version()

    def select(
        self, *conditions: str, also: Mapping[str, CatalogTable[Any]] | None = None, tail: str = ""
    ) -> list[Row]:
        """Rows that meet a SQL condition; tables in ``also`` may be named in it.

        Of several conditions any one will do, and a row that meets two comes twice: each finds its files by its own
        column, where an OR between columns would read them all.
        """
        name = self.kind.name
        parts = " UNION ALL ".join(f"SELECT * FROM {name} WHERE {condition}" for condition in conditions)
        return self.kind.rows(self.query(f"{parts} {tail}", also=also))

    def query(self, sql: str, *, also: Mapping[str, CatalogTable[Any]] | None = None) -> Any:
        """Run SQL over this table (by its name) and ``also``; returns an Arrow table."""
        return self.query_with(sql, {name: other.delta for name, other in (also or {}).items()})

    def query_with(self, sql: str, also: Mapping[str, DeltaTable]) -> Any:
        """The same beside tables of deltalake's own: this one at another version, for instance."""
        with words(self.uri, "query"):
            return hearing(lambda: self._session.query(sql, {self.kind.name: self._table, **also}))

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

    def compare_and_swap(self, decide: Callable[[], Change[Row] | None]) -> bool:
        """Decide, commit; after a lost race refresh and do both again. ``decide`` queries this table and returns what to
        write, or None for nothing. What it raises ends the attempt. Returns whether something was written.

        The snapshot at hand serves the first attempt: a commit on a stale one fails. A decision that ends without a
        commit is made again on a fresh one, since nothing else would notice.

        Raises:
            FrozenError: a rebuild has frozen the table. Writers go through ``Catalog.write``, which follows it.
            StorageError: the server fails, or other writers are always faster.
        """
        started = time.monotonic()
        attempt = failures = 0
        fresh = False
        while True:
            if attempt or failures:
                self.refresh()
                fresh = True
            self._refuse_frozen()
            change = self._decided(decide, fresh)
            if change is None:
                return False
            try:
                self._commit(change)
            except LostRaceError:
                attempt += 1
            except StorageError:
                failures += 1
                if failures >= _OTHER_FAILURES:
                    raise
            else:
                self._maintain()
                return True
            if time.monotonic() - started > _GIVE_UP_AFTER_S:
                raise StorageError(
                    f"can't write {self.uri}: other writers were faster {attempt} times in a row",
                    hint="Nothing of this was written. Run the same command again.",
                )
            time.sleep(random.uniform(0, min(0.05 * 2 ** min(attempt, 5), 1.0) + 0.5 * failures))

    def _decided(self, decide: Callable[[], Change[Row] | None], fresh: bool) -> Change[Row] | None:
        try:
            change = decide()
        except UrsaError:
            if fresh:
                raise
            change = None
        if change is None and not fresh:
            self.refresh()
            self._refuse_frozen()
            change = decide()
        return change

    def _refuse_frozen(self) -> None:
        if self.frozen:
            raise FrozenError(self.frozen)

    def _commit(self, change: Change[Row]) -> None:
        op_id = uuid.uuid4().hex
        count = len(change.rows)
        properties = commit_properties(
            self._author, change.operation, op_id, rows=count, operation_id=change.operation_id
        )
        writer = self.layout.writer(count)
        with self.committing(op_id):
            if change.replacing is None:
                write_deltalake(
                    self._table,
                    self.kind.table(change.rows),
                    mode="append",
                    commit_properties=properties,
                    writer_properties=writer,
                )
            elif count:
                write_deltalake(
                    self._table,
                    self.kind.table(change.rows),
                    mode="overwrite",
                    predicate=change.replacing,
                    commit_properties=properties,
                    writer_properties=self._rewriter(),
                )
            else:
                self._table.delete(change.replacing, self._rewriter(), commit_properties=properties)

    @contextlib.contextmanager
    def committing(self, op_id: str) -> Iterator[None]:
        """Around a commit that carries ``op_id`` and no retries.

        Raises:
            LostRaceError: somebody has committed since the version that we saw.
            StorageError: it failed for another reason, and is not there.
        """
        before = self.version
        try:
            yield
        except (DeltaError, OSError) as error:
            # A lost reply is not a lost race: our commit may be there all the same.
            self.refresh()
            if self._has_operation(op_id, before):
                return
            if isinstance(error, CommitFailedError):
                raise LostRaceError from None
            raise StorageError(f"can't write {self.uri}: {one_line(error)}", operation="commit") from error

    def _rewriter(self) -> WriterProperties:
        """For a commit that writes other rows' files anew."""
        return self.layout.writer(self._table.count())

    def _has_operation(self, op_id: str, since_version: int) -> bool:
        newer = self.version - since_version
        return newer > 0 and any(entry.get("ursa_op_id") == op_id for entry in self._table.history(newer + 1))

    def _maintain(self) -> None:
        """Merge small files now and then; that it fails is no error (somebody else does, or the next writer)."""
        if self.version and self.version % SMALL_EVERY == 0:
            seldom = self.version % BIG_EVERY == 0
            with contextlib.suppress(DeltaError, OSError, UrsaError):
                self.merge_files(self.layout.big_bytes if seldom else self.layout.small_bytes)

    def tidy(self) -> None:
        """Merge small files where there are some; that it fails is no error."""
        with contextlib.suppress(DeltaError, OSError, UrsaError):
            if sum(file.size_bytes < self.layout.small_bytes for file in self.files()) > 1:
                self.merge_files(self.layout.small_bytes)

    def merge_files(self, below_bytes: int) -> None:
        """Merge the files below this size into such of about this size. Raises deltalake's errors."""
        rows = sum(file.rows for file in self.files() if file.size_bytes < below_bytes)
        self._table.optimize.compact(
            target_size=below_bytes,
            writer_properties=self.layout.writer(rows),
            commit_properties=commit_properties(self._author, "compact", uuid.uuid4().hex, retries=None),
        )
        self.refresh()

    def _check_version(self) -> None:
        configured = self._table.metadata().configuration.get("ursa.schemaVersion", "1")
        if configured.isdigit() and int(configured) > SCHEMA_VERSION:
            raise StorageError(
                f"{self.uri} was written by a newer ursa (schema version {configured}, this one knows {SCHEMA_VERSION})",
                hint="Upgrade ursa: pip install --upgrade ursa",
            )


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
