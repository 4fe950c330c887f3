"""A Delta table: refresh, query, and commits of which exactly one of two writers wins.

A write is a version compare-and-swap: refresh, look the key up, decide, commit with no retries. Any commit in between
makes ours fail, and we refresh, look and decide again (``docs/decisions/001-compare-and-swap.md``).
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from deltalake import DeltaTable, PostCommitHookProperties, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from ursa.catalog.arrow import TableKind
from ursa.catalog.author import Author as Author  # where others import it from
from ursa.catalog.author import commit_properties
from ursa.catalog.layout import BIG_EVERY, SMALL_EVERY, DataFile, overlapping
from ursa.catalog.reading import FROZEN_KEY, SCHEMA_KEY, OpenTable
from ursa.catalog.retention import RETENTION_DAYS as RETENTION_DAYS
from ursa.catalog.retention import CleanUpRefusedError, Clock, Listed, clean_up, list_table, local_time
from ursa.catalog.rewrite import TableFiles, rewrite
from ursa.catalog.rows import SCHEMA_VERSION
from ursa.catalog.words import one_line, words
from ursa.errors import StorageError, UnknownOutcomeError, UrsaError

Row = TypeVar("Row")

_CONFIGURATION = {
    "delta.logRetentionDuration": f"interval {RETENTION_DAYS} days",
    "delta.deletedFileRetentionDuration": f"interval {RETENTION_DAYS} days",
    "delta.checkpointInterval": "10",
    # By this machine's clock, which may be wrong: ``ursa.catalog.retention`` goes by the server's.
    "delta.enableExpiredLogCleanup": "false",
    SCHEMA_KEY: str(SCHEMA_VERSION),
}
# By default every commit lists the whole log to see what is too old, and it has 90 days of them: see ``_maintain``.
_HOOKS = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
_GIVE_UP_AFTER_S = 120.0
_PAUSE_S = 0.2
_LISTED_WITHIN_S = 3600.0
_OTHER_FAILURES = 3


class LostRaceError(Exception):
    """Another commit came in between: look again, decide again. ``through``: the version up to which our own commit was
    looked for, and is not there; None where nobody looked.
    """

    def __init__(self, through: int | None = None) -> None:
        super().__init__()
        self.through = through


class FrozenError(Exception):
    """A rebuild has frozen this table: what is live now, or will be soon, is another catalog (``Catalog.write``)."""


@dataclass(frozen=True)
class Change(Generic[Row]):
    """Rows to write; ``replacing`` is the SQL predicate of the rows that they replace, None to append.

    ``operation``: what is done, in a word for the history. ``operation_id``: the same for all commits of one
    registration, so that the history shows them as one; "" where it has but this commit. ``op_id`` and ``attempt`` are
    what the commit is known again by where its reply is lost; ``compare_and_swap`` sets them.
    """

    rows: Sequence[Row]
    replacing: str | None
    operation: str
    operation_id: str = ""
    op_id: str = ""
    attempt: int = 1


class CatalogTable(OpenTable[Row]):
    """One table of a catalog, opened at a version and moved forward by ``refresh``. Not thread-safe.

    ``objects``: its data files as the store sees them; without it files are never merged.
    """

    def __init__(
        self,
        kind: TableKind[Row],
        uri: str,
        options: Mapping[str, str],
        author: Author,
        objects: TableFiles | None = None,
    ) -> None:
        super().__init__(kind, uri, options, author)
        self._objects = objects
        self._listed_at = time.time()

    def refresh(self) -> None:
        """See what others have committed. Raises ``StorageError``.

        deltalake lists the log and, where it finds nothing new, reads the last checkpoint's name. Most often there is
        nothing new, and a HEAD of the commit that would be the next one says so.
        """
        if not self._is_newest():
            self._listed_at = time.time()
            super().refresh()

    def _is_newest(self) -> bool:
        # The log of 90 days ago is deleted: a handle that slept so long would find no next commit, and believe it.
        lately = 0 <= time.time() - self._listed_at < _LISTED_WITHIN_S
        return lately and self._objects is not None and not self._objects.has_version(self.version + 1)

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

    def admit(self) -> None:
        """Before a write: whether the server may be written to. Raises ``StorageError``."""
        if self._objects is not None:
            self._objects.admit()

    def set_frozen(self, prefix: str | None, operation: str = "") -> None:
        """Freeze for the catalog under ``prefix``, or thaw with None. Raises ``StorageError``."""
        operation = operation or ("freeze" if prefix else "thaw")
        self.admit()
        with words(self.uri, operation):
            self._table.alter.set_table_properties(
                {FROZEN_KEY: prefix or ""},
                raise_if_not_exists=False,
                commit_properties=commit_properties(self.author, operation, uuid.uuid4().hex),
                post_commithook_properties=_HOOKS,
            )
        self.refresh()

    def compare_and_swap(self, decide: Callable[[], Change[Row] | None]) -> Change[Row] | None:
        """Decide, commit; after a lost race refresh and do both again. ``decide`` queries this table and returns what to
        write, or None for nothing. What it raises ends the attempt. Returns the very change that is in the table now,
        which may be an earlier one than the last that was decided, or None.

        The snapshot at hand serves the first attempt: a commit on a stale one fails. A decision that ends without a
        commit is made again on a fresh one, since nothing else would notice.

        Raises:
            FrozenError: a rebuild has frozen the table. Writers go through ``Catalog.write``, which follows it.
            UnknownOutcomeError: a commit's reply was lost, and the server does not tell whether it is there.
            StorageError: the server fails, or other writers are always faster.
        """
        started = time.monotonic()
        op_id, tries, looked, failures = uuid.uuid4().hex, list[Change[Row]](), self.version, 0
        while True:
            if tries:
                # Nothing is decided anew before it is known that none of ours is there: a PUT may be late, not lost.
                landed = self._find(op_id, looked)
                if landed is not None:
                    return self._written(tries[landed - 1])
                looked = self.version
            self._refuse_frozen()
            change = self._decided(decide, fresh=bool(tries))
            if change is None:
                return None
            tries.append(change)
            looked = self.version
            try:
                self.commit(replace(change, op_id=op_id, attempt=len(tries)))
                return self._written(change)
            except LostRaceError as lost:
                looked = lost.through or looked
            except UnknownOutcomeError:
                raise
            except StorageError:
                failures += 1
                if failures >= _OTHER_FAILURES:
                    raise
            if time.monotonic() - started > _GIVE_UP_AFTER_S:
                raise StorageError(
                    f"can't write {self.uri}: other writers were faster {len(tries)} times in a row",
                    hint="Nothing of this was written. Run the same command again.",
                )
            time.sleep(random.uniform(0, min(0.05 * 2 ** min(len(tries), 5), 1.0) + 0.5 * failures))

    def _written(self, change: Change[Row]) -> Change[Row]:
        self._maintain()
        return change

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

    def commit(self, change: Change[Row]) -> None:
        """Commit onto the version that queries see, once: no rows and ``replacing`` takes rows away.

        Raises:
            LostRaceError: somebody has committed since.
            StorageError: it failed for another reason.
        """
        self.refuse_dated()
        op_id, count = change.op_id or uuid.uuid4().hex, len(change.rows)
        about = commit_properties(
            self.author,
            change.operation,
            op_id,
            rows=count,
            operation_id=change.operation_id,
            attempt=change.attempt,
        )
        rows = self.kind.table(change.rows)
        with self.committing(op_id, change.attempt):
            if change.replacing is None:
                write_deltalake(
                    self._table,
                    rows,
                    mode="append",
                    commit_properties=about,
                    post_commithook_properties=_HOOKS,
                    writer_properties=self.layout.writer(count),
                )
            elif count:
                write_deltalake(
                    self._table,
                    rows,
                    mode="overwrite",
                    predicate=change.replacing,
                    commit_properties=about,
                    post_commithook_properties=_HOOKS,
                    writer_properties=self._rewriter(rows),
                )
            else:
                self._table.delete(
                    change.replacing,
                    self._rewriter(rows),
                    commit_properties=about,
                    post_commithook_properties=_HOOKS,
                )

    @contextlib.contextmanager
    def committing(self, op_id: str, attempt: int = 1) -> Iterator[None]:
        """Around a commit that carries ``op_id`` and ``attempt`` and no retries.

        Raises:
            LostRaceError: somebody has committed since the version that we saw.
            UnknownOutcomeError: it failed, and the server does not tell whether it is there.
            StorageError: it failed for another reason, and is not there.
        """
        self.admit()
        before = self.version
        try:
            yield
        except Exception as error:
            # A lost reply is not a lost race: our commit may be there all the same.
            landed = self._find(op_id, before)
            if landed == attempt:
                return
            if landed is not None:
                raise LostRaceError from None
            if isinstance(error, CommitFailedError) and self.version > before:
                raise LostRaceError(self.version) from None
            # DataFusion's errors have no class of their own on the Python side.
            if not isinstance(error, DeltaError | OSError) and type(error) is not Exception:
                raise
            raise StorageError(f"can't write {self.uri}: {one_line(error)}", operation="commit") from error

    def _find(self, op_id: str, since: int) -> int | None:
        """Refresh, and look for a commit of this operation after the version ``since``: which attempt it was, or None.

        Raises ``UnknownOutcomeError`` where the server does not answer that for as long as a retry may take.
        """
        deadline = time.monotonic() + _GIVE_UP_AFTER_S
        for turn in itertools.count():
            try:
                self.refresh()
                commits = (self._about(version) for version in range(self.version, since, -1))
                return next((int(it.get("ursa_attempt", 1)) for it in commits if it.get("ursa_op_id") == op_id), None)
            except UrsaError as error:
                if time.monotonic() > deadline:
                    raise UnknownOutcomeError(
                        f"not known whether this was registered; the same command finds out ({error.message})",
                        hint="Run the same command again when the server answers (`ursa doctor`): what is registered is"
                        " found, and nothing is registered twice.",
                        operation="commit",
                    ) from error
            time.sleep(random.uniform(0.5, 1.0) * min(_PAUSE_S * 2 ** min(turn, 6), 10.0))
        raise AssertionError

    def _about(self, version: int) -> Mapping[str, Any]:
        """What a commit says of itself. Raises ``StorageError``."""
        if self._objects is None:
            return self.history(self.version - version + 1)[-1]
        # deltalake would keep every thread of this process waiting while it asks a server that does not answer.
        return self._objects.commit_info(version)

    def _rewriter(self, rows: Any) -> WriterProperties:
        """For a commit that writes anew the files that ``rows`` go to, or any where there are none."""
        near = overlapping(self.files(), rows.column(self.layout.key).to_pylist())
        return self.layout.writer(sum(file.rows for file in near))

    def _maintain(self) -> None:
        """Merge small files now and then; that it fails is no error (somebody else does, or the next writer)."""
        if self.version and self.version % SMALL_EVERY == 0:
            seldom = self.version % BIG_EVERY == 0
            with contextlib.suppress(LostRaceError, CleanUpRefusedError, UrsaError):
                self.merge_files(self.layout.big_bytes if seldom else self.layout.often_bytes)
                if seldom:
                    self.clean_up()

    def listed(self, clock: Clock = local_time, below: str = "") -> Listed:
        """The table's objects by the server's clock, as ``retention.list_table`` says and raises."""
        if self._objects is None:
            raise CleanUpRefusedError(f"{self.uri} is open without its store")
        return list_table(self._objects.store, self._objects.prefix, clock, below)

    def clean_up(self, clock: Clock = local_time, *, dry_run: bool = False) -> int:
        """Delete what only versions past the retention need, of data and of the log; returns how many data files.

        Raises ``CleanUpRefusedError`` where there is no clock to go by, and ``StorageError``.
        """
        return clean_up(self, self._objects, clock, dry_run=dry_run) if self._objects else 0

    def tidy(self) -> None:
        """Merge small files where there are some, and write a checkpoint: who opens the table reads each commit since
        the last one twice. That it fails is no error.
        """
        with contextlib.suppress(LostRaceError, UrsaError):
            if sum(file.size_bytes < self.layout.small_bytes for file in self.files()) > 1:
                self.merge_files(self.layout.small_bytes)
        with contextlib.suppress(UrsaError), words(self.uri, "checkpoint"):
            self._table.create_checkpoint()

    def merge_files(self, below_bytes: int, operation_id: str = "") -> None:
        """Merge the files below this size into such of about this size. Raises as ``commit`` does."""
        small = [file for file in self.files() if file.size_bytes < below_bytes]
        writer = self.layout.writer(sum(file.rows for file in small))
        if len(small) > 1:
            self._rewrite(
                small,
                lambda copy: copy.optimize.compact(target_size=below_bytes, writer_properties=writer),
                operation_id,
            )

    def sort_files(self, memory_bytes: int, operation_id: str = "") -> None:
        """Write all files anew, sorted by the key, with so much memory. Raises as ``commit`` does."""
        files = self.files()
        writer = self.layout.writer(sum(file.rows for file in files))
        self._rewrite(
            files,
            lambda copy: copy.optimize.z_order(
                [self.layout.key],
                target_size=self.layout.big_bytes,
                max_concurrent_tasks=1,
                max_spill_size=memory_bytes,
                writer_properties=writer,
            ),
            operation_id,
        )

    def _rewrite(self, files: Sequence[DataFile], optimize: Callable[[DeltaTable], object], operation_id: str) -> None:
        if self._objects is None:
            return
        schema = self._table.schema()
        with words(self.uri, "compact"):
            new = rewrite(self._objects, schema, files, optimize)
        if not new.removed:
            return
        op_id = uuid.uuid4().hex
        about = commit_properties(self.author, "compact", op_id, operation_id=operation_id)
        try:
            with self.committing(op_id):
                self._table.create_write_transaction(
                    new.actions, "append", schema, commit_properties=about, post_commithook_properties=_HOOKS
                )
        except LostRaceError:
            self._objects.delete(new.names)
            raise
        self.refresh()
