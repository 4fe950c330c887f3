"""A Delta table: refresh, query, and commits of which exactly one of two writers wins.

A write is a version compare-and-swap: look the key up, decide, make a commit of the version that follows, and put it if
that version is absent. Any commit in between makes ours fail, and we look and decide again
(``docs/decisions/001-compare-and-swap.md``).
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from deltalake import DeltaTable, WriterProperties, write_deltalake

from ursa.catalog.arrow import TableKind
from ursa.catalog.author import ATTEMPT_KEY, commit_properties
from ursa.catalog.author import Author as Author  # where others import it from
from ursa.catalog.files import TableFiles
from ursa.catalog.layout import BIG_EVERY, SMALL_EVERY, DataFile, overlapping
from ursa.catalog.reading import FROZEN_KEY, SCHEMA_KEY, OpenTable
from ursa.catalog.replica.checkpoint import checkpoint, owed
from ursa.catalog.replica.commit import HOOKS, Prepared, created, prepared, push
from ursa.catalog.replica.directory import TableDirectory
from ursa.catalog.retention import RETENTION_DAYS as RETENTION_DAYS
from ursa.catalog.retention import CleanUpRefusedError, Clock, Listed, clean_up, list_table, local_time
from ursa.catalog.rewrite import rewrite
from ursa.catalog.rows import SCHEMA_VERSION
from ursa.catalog.where import Where
from ursa.catalog.words import words
from ursa.errors import StorageError, UrsaError

Row = TypeVar("Row")

_CONFIGURATION = {
    "delta.logRetentionDuration": f"interval {RETENTION_DAYS} days",
    "delta.deletedFileRetentionDuration": f"interval {RETENTION_DAYS} days",
    "delta.checkpointInterval": "10",
    # By this machine's clock, which may be wrong: ``ursa.catalog.retention`` goes by the server's.
    "delta.enableExpiredLogCleanup": "false",
    SCHEMA_KEY: str(SCHEMA_VERSION),
}
_GIVE_UP_AFTER_S = 120.0
_log = logging.getLogger("ursa.catalog")
_REBASES = 5
_JITTER_S = 0.1
_TURN_S = 0.3
"""A winner lets each of the other writers have a turn of up to so many seconds."""


class LostRaceError(Exception):
    """Another commit came in between: it is seen now. Decide again."""


class FrozenError(Exception):
    """A rebuild has frozen this table: what is live now, or will be soon, is another catalog (``Catalog.write``)."""


@dataclass(frozen=True)
class Change(Generic[Row]):
    """Rows to write; ``replacing`` is the condition of the rows that they replace, None to append.

    ``operation``: what is done, in a word for the history. ``operation_id``: the same for all commits of one
    registration, so that the history shows them as one; "" where it has but this commit.
    """

    rows: Sequence[Row]
    replacing: Where | None
    operation: str
    operation_id: str = ""


@dataclass(frozen=True, slots=True)
class _Try:
    """An attempt at a commit that lost: its data file is in the bucket, and may serve the next one."""

    change: Change[Any]
    prepared: Prepared


@contextlib.contextmanager
def _best_effort(uri: str) -> Iterator[None]:
    """What is done for later readers: that it fails takes nothing back of what was committed, and the log tells."""
    try:
        yield
    except (LostRaceError, CleanUpRefusedError, UrsaError) as error:
        _log.debug("%s: %s", uri, error)
    except Exception:  # noqa: BLE001  (a bug of its own must not be told as one of the registration)
        _log.warning("%s: upkeep failed", uri, exc_info=True)


class CatalogTable(OpenTable[Row]):
    """One table of a catalog, at a version and moved forward by ``refresh``. Not thread-safe."""

    put_off: Callable[[], bool] | None = None
    """Whether what a commit owes to later readers waits for ``upkeep``; None: it never does."""
    _won_at = float("-inf")
    _took_s = _TURN_S
    _merge_owed = _big_merge_owed = False

    @staticmethod
    def create(
        kind: TableKind[Any],
        uri: str,
        files: TableFiles,
        directory: TableDirectory,
        author: Author,
        operation_id: str = "",
    ) -> bool:
        """Make the table where there is none; returns whether this call made it. Raises ``StorageError``."""
        about = commit_properties(author, "create", uuid.uuid4().hex, operation_id=operation_id)

        def make(path: str) -> None:
            DeltaTable.create(
                path,
                kind.schema,
                configuration=_CONFIGURATION,
                commit_properties=about,
                post_commithook_properties=HOOKS,
                raise_if_key_not_exists=False,
            )

        with directory.scratch() as made, words(uri, "create"):
            try:
                return created(files, make, made)
            except StorageError as error:
                if type(error) is not StorageError:
                    raise
                # The key says nothing of the disk that may be full, or read-only.
                raise StorageError(
                    f"can't create the catalog table {uri}: {error.message}", hint=error.hint, **error.fields
                ) from error

    def set_frozen(self, prefix: str | None, operation: str = "") -> None:
        """Freeze for the catalog under ``prefix``, or thaw with None. Raises ``LostRaceError``, ``StorageError``."""
        operation = operation or ("freeze" if prefix else "thaw")
        self.put(
            lambda table, about: table.alter.set_table_properties(
                {FROZEN_KEY: prefix or ""},
                raise_if_not_exists=False,
                commit_properties=about,
                post_commithook_properties=HOOKS,
            ),
            operation,
        )

    def compare_and_swap(self, decide: Callable[[], Change[Row] | None]) -> Change[Row] | None:
        """Decide, commit; after a lost race see what won and do both again. ``decide`` queries this table and returns what
        to write, or None for nothing. What it raises ends the attempt. Returns the change that is in the table now, or
        None.

        The snapshot at hand serves the first attempt: a commit on a stale one fails. A decision that ends without a
        commit is made again on a fresh one, since nothing else would notice.

        Raises:
            FrozenError: a rebuild has frozen the table. Writers go through ``Catalog.write``, which follows it.
            UnknownOutcomeError: a commit's reply was lost, and the server does not tell whether it is there.
            StorageError: the server fails, or other writers are always faster.
        """
        started, op_id, tries = time.monotonic(), uuid.uuid4().hex, 0
        last: _Try | None = None
        with contextlib.ExitStack() as scratches:
            while True:
                self._refuse_frozen()
                change = self._decided(decide, fresh=tries > 0)
                if change is None:
                    return None
                tries += 1
                self._give_way()
                attempt = self._attempt(change, op_id, tries, last, scratches)
                if attempt is None:  # nothing to take away
                    return change
                if self._pushed(attempt):
                    self._maintain()
                    return change
                last = _Try(change, attempt)
                if time.monotonic() - started > _GIVE_UP_AFTER_S:
                    raise StorageError(
                        f"can't write {self.uri}: other writers were faster {tries} times in a row",
                        hint="Nothing of this was written. Run the same command again.",
                    )
                self._catch_up(tries)

    def _attempt(
        self, change: Change[Row], op_id: str, number: int, last: _Try | None, scratches: contextlib.ExitStack
    ) -> Prepared | None:
        """The commit of a change onto the version that queries see, made or taken from the last attempt."""
        if last is not None and change.replacing is None and change == last.change:
            again = last.prepared.rebased(self.replica, number, ATTEMPT_KEY)
            if again is not None:
                return again
        return self._prepared(change, op_id, number, scratches)

    def _catch_up(self, tries: int) -> None:
        """After a lost race: at once where it was the first, with the commit that won; else after a moment, with all that
        came meanwhile. Who decides by an older version loses again, to a writer that commits all the time.
        """
        if tries > 1:
            time.sleep(random.uniform(0, min(self._took_s, _JITTER_S)))
            self.refresh()

    def _give_way(self) -> None:
        """Who has just won waits for the others, who would lose to it again and again."""
        others = self.replica.others_lately()
        turns_s = others * min(_TURN_S, 2 * self._took_s)
        if time.monotonic() - self._won_at < turns_s:
            time.sleep(random.uniform(0, turns_s))

    def _pushed(self, wanted: Prepared) -> bool:
        """Put a commit; returns False where another was faster, which is seen then. Raises as ``push``."""
        began = time.monotonic()
        other = push(self.replica, wanted)
        if other is None:
            self._won_at = time.monotonic()
            self._took_s = self._won_at - began
        else:
            # See the one that won, without asking what else there is: it is the newest as a rule.
            self.replica.advance(other)
        self.reopen()
        return other is None

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
            LostRaceError: another process has committed since.
            StorageError: it failed for another reason.
        """
        with contextlib.ExitStack() as scratches:
            wanted = self._prepared(change, uuid.uuid4().hex, 1, scratches)
            if wanted is not None and not self._pushed(wanted):
                raise LostRaceError

    def _prepared(
        self, change: Change[Row], op_id: str, attempt: int, scratches: contextlib.ExitStack
    ) -> Prepared | None:
        self.refuse_unwritable()
        count, rows = len(change.rows), self.kind.table(change.rows)
        about = self._about(change.operation, op_id, rows=count, operation_id=change.operation_id, attempt=attempt)
        replacing = change.replacing
        options: dict[str, Any] = {"commit_properties": about, "post_commithook_properties": HOOKS}

        def action(table: DeltaTable, _made: Path) -> None:
            if replacing is None:
                write_deltalake(table, rows, mode="append", writer_properties=self.layout.writer(count), **options)
            elif count:
                writer = self._rewriter(rows)
                sql = str(replacing)
                write_deltalake(table, rows, mode="overwrite", predicate=sql, writer_properties=writer, **options)
            else:
                table.delete(str(replacing), self._rewriter(rows), **options)

        files = [file for file in self.files() if replacing is not None and replacing.may_meet(file)]
        with words(self.uri, "write"):
            return scratches.enter_context(prepared(self.replica, self.version, files, action))

    def _about(self, operation: str, op_id: str, **more: Any) -> Any:
        previous = self.replica.head_sha256 if self.replica.version == self.version else None
        return commit_properties(self.author, operation, op_id, previous=previous, **more)

    def put(
        self,
        action: Callable[[DeltaTable, Any], object],
        operation: str,
        operation_id: str = "",
        bringing: Callable[[Path], object] = lambda _made: None,
    ) -> None:
        """A commit that is no change of rows. Raises ``LostRaceError``, and as ``push``."""
        about = self._about(operation, uuid.uuid4().hex, operation_id=operation_id)

        def act(table: DeltaTable, made: Path) -> None:
            bringing(made)
            action(table, about)

        with contextlib.ExitStack() as scratches:
            with words(self.uri, operation):
                wanted = scratches.enter_context(prepared(self.replica, self.version, [], act))
            if wanted is not None and not self._pushed(wanted):
                raise LostRaceError

    def _rewriter(self, rows: Any) -> WriterProperties:
        """For a commit that writes anew the files that ``rows`` go to, or any where there are none."""
        near = overlapping(self.files(), rows.column(self.layout.key).to_pylist())
        return self.layout.writer(sum(file.rows for file in near))

    def _maintain(self) -> None:
        """After a commit: small files are merged now and then."""
        self._merge_owed |= self.version % SMALL_EVERY == 0
        self._big_merge_owed |= self.version % BIG_EVERY == 0
        if self.put_off is None or not self.put_off():
            self.upkeep()

    @property
    def owes(self) -> bool:
        """Whether there is something to do for later readers."""
        return self._merge_owed or owed(self.replica)

    def upkeep(self) -> None:
        """Write a checkpoint that is owed, and merge files where that is owed; that it fails is no error (another writer
        does, or the next one).
        """
        self.write_checkpoint(only_owed=True)
        merging, seldom = self._merge_owed, self._big_merge_owed
        self._merge_owed = self._big_merge_owed = False
        if merging:
            with _best_effort(self.uri):
                self.merge_files(self.layout.big_bytes if seldom else self.layout.often_bytes)
                if seldom:
                    self.clean_up()

    def write_checkpoint(self, *, only_owed: bool = False) -> None:
        """Write a checkpoint, or only where the newest one is far behind. That it fails is no error."""
        if only_owed and not owed(self.replica):
            return
        with _best_effort(self.uri):
            self.put_checkpoint()

    def put_checkpoint(self) -> None:
        """Write a checkpoint. Raises ``StorageError``."""
        with words(self.uri, "checkpoint"):
            checkpoint(self.replica)

    def listed(self, clock: Clock = local_time, below: str = "") -> Listed:
        """The table's objects by the server's clock, as ``retention.list_table`` says and raises."""
        return list_table(self.replica.files.store, self.replica.files.prefix, clock, below)

    def clean_up(self, clock: Clock = local_time, *, dry_run: bool = False) -> int:
        """Delete what only versions past the retention need, of data and of the log; returns how many data files.

        Raises ``CleanUpRefusedError`` where there is no clock to go by, and ``StorageError``.
        """
        return clean_up(self, self.replica.files, clock, dry_run=dry_run)

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
        self.refuse_unwritable()
        schema = self.delta.schema()
        self.replica.need(files, again=True)
        with words(self.uri, "compact"), rewrite(self.replica, schema, files, optimize) as new:
            if not new.removed:
                return
            for _ in range(_REBASES):
                with contextlib.suppress(LostRaceError):
                    self.put(
                        lambda table, about: table.create_write_transaction(
                            list(new.actions),
                            "append",
                            schema,
                            commit_properties=about,
                            post_commithook_properties=HOOKS,
                        ),
                        "compact",
                        operation_id,
                        new.bring,
                    )
                    return
                # What came in between leaves it as it is, where all that it takes away is still there.
                if not {action.path for action in new.removed} <= {file.path for file in self.files()}:
                    break
        raise LostRaceError
