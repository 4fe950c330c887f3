"""A Delta table: refresh, query, and commits of which exactly one of two writers wins.

A write is a version compare-and-swap: refresh, look the key up, decide, commit with no retries. Any commit in between
makes ours fail, and we refresh, look and decide again (``docs/decisions/001-compare-and-swap.md``).
"""

from __future__ import annotations

import contextlib
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from deltalake import CommitProperties, DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from ursa.catalog.arrow import TableKind
from ursa.catalog.rows import SCHEMA_VERSION
from ursa.catalog.stream import StreamError, hearing, read_all
from ursa.errors import StorageError, UrsaError

Row = TypeVar("Row")

_CONFIGURATION = {
    # How far back `undo` and `history` reach.
    "delta.logRetentionDuration": "interval 90 days",
    "delta.deletedFileRetentionDuration": "interval 90 days",
    "delta.checkpointInterval": "10",
    "ursa.schemaVersion": str(SCHEMA_VERSION),
}
_COMPACT_EVERY = 20
_GIVE_UP_AFTER_S = 120.0
_OTHER_FAILURES = 3


FROZEN_KEY = "ursa.frozen"
"""Table property: a rebuild is about to make the catalog under this prefix the live one; nothing is written here."""


class LostRaceError(Exception):
    """Another commit came in between: look again, decide again."""


class FrozenError(Exception):
    """A rebuild has frozen this table: what is live now, or will be soon, is another catalog (``Catalog.write``)."""


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
        with _words(uri, "open"):
            try:
                self._table = hearing(lambda: DeltaTable(uri, storage_options=self._options))
            except TableNotFoundError:
                raise StorageError(
                    f"the catalog's table {uri} is not there, though ACTIVE.json names it",
                    hint="Nothing was written. See who changed the assets bucket before anything else.",
                ) from None
        self._check_version()

    @staticmethod
    def create(kind: TableKind[Any], uri: str, options: Mapping[str, str], author: Author) -> None:
        """Make the table where there is none; somebody else's being first is fine."""
        with _words(uri, "create"):
            try:
                DeltaTable.create(
                    uri,
                    kind.schema,
                    mode="ignore",
                    configuration=_CONFIGURATION,
                    storage_options=dict(options),
                    commit_properties=_properties(author, "create", uuid.uuid4().hex),
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
        with _words(self.uri, "freeze" if prefix else "thaw"):
            self._table.alter.set_table_properties(
                {FROZEN_KEY: prefix or ""},
                raise_if_not_exists=False,
                commit_properties=_properties(self._author, "freeze" if prefix else "thaw", uuid.uuid4().hex),
            )
        self.refresh()

    def refresh(self) -> None:
        """See what others have committed."""
        with _words(self.uri, "refresh"):
            hearing(self._table.update_incremental)
        self._check_version()

    def select(
        self, condition: str, *, also: Mapping[str, CatalogTable[Any]] | None = None, tail: str = ""
    ) -> list[Row]:
        """Rows that meet a SQL condition; tables in ``also`` may be named in it."""
        return self.kind.rows(self.query(f"SELECT * FROM {self.kind.name} WHERE {condition} {tail}", also=also))

    def query(self, sql: str, *, also: Mapping[str, CatalogTable[Any]] | None = None) -> Any:
        """Run SQL over this table (by its name) and ``also``; returns an Arrow table."""
        with _words(self.uri, "query"):
            builder = QueryBuilder().register(self.kind.name, self._table)
            for name, other in (also or {}).items():
                builder = builder.register(name, other._table)
            return hearing(lambda: read_all(builder.execute(sql)))

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
        before = self.version
        try:
            rows = self.kind.table(change.rows)
            properties = _properties(self._author, change.operation, op_id, len(change.rows), change.operation_id)
            if change.replacing is None:
                write_deltalake(self._table, rows, mode="append", commit_properties=properties)
            else:
                write_deltalake(
                    self._table, rows, mode="overwrite", predicate=change.replacing, commit_properties=properties
                )
        except (DeltaError, OSError) as error:
            # A lost reply is not a lost race: our commit may be there all the same.
            self.refresh()
            if self._has_operation(op_id, before):
                return
            if isinstance(error, CommitFailedError):
                raise LostRaceError from None
            raise StorageError(f"can't write {self.uri}: {_one_line(error)}", operation="commit") from error

    def _has_operation(self, op_id: str, since_version: int) -> bool:
        newer = self.version - since_version
        return newer > 0 and any(entry.get("ursa_op_id") == op_id for entry in self._table.history(newer + 1))

    def _maintain(self) -> None:
        """Compact now and then; that it fails is not an error (somebody else compacts, or the next writer does)."""
        if self.version and self.version % _COMPACT_EVERY == 0:
            with contextlib.suppress(DeltaError, OSError, UrsaError):
                self._table.optimize.compact(
                    commit_properties=CommitProperties(
                        custom_metadata=_about(self._author, "compact", uuid.uuid4().hex)
                    )
                )
                self.refresh()

    def _check_version(self) -> None:
        configured = self._table.metadata().configuration.get("ursa.schemaVersion", "1")
        if configured.isdigit() and int(configured) > SCHEMA_VERSION:
            raise StorageError(
                f"{self.uri} was written by a newer ursa (schema version {configured}, this one knows {SCHEMA_VERSION})",
                hint="Upgrade ursa: pip install --upgrade ursa",
            )


def _about(author: Author, operation: str, op_id: str) -> dict[str, str]:
    return {
        "ursa_op_id": op_id,
        "ursa_operation": operation,
        "ursa_who": author.who,
        "ursa_host": author.host,
        "ursa_version": author.version,
    }


def _properties(author: Author, operation: str, op_id: str, rows: int = 0, operation_id: str = "") -> CommitProperties:
    about = _about(author, operation, op_id)
    about |= {"ursa_rows": str(rows), "ursa_operation_id": operation_id or op_id}
    return CommitProperties(max_commit_retries=0, custom_metadata=about)


@contextlib.contextmanager
def _words(uri: str, operation: str) -> Any:
    try:
        yield
    except (DeltaError, OSError, StreamError) as error:
        raise StorageError(
            f"can't {operation} the catalog table {uri}: {_one_line(error)}",
            hint="Check the network and `ursa config show`, then run the same command again.",
            operation=operation,
        ) from error
    except Exception as error:
        # DataFusion's errors have no class of their own on the Python side.
        if type(error) is not Exception:
            raise
        raise StorageError(
            f"can't {operation} the catalog table {uri}: {_one_line(error)}", operation=operation
        ) from error


def _one_line(error: BaseException) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return " ".join(plain.split())[:300]
