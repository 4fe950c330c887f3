"""The run itself: a few recordings in flight, an outcome each, in order; one failure never stops the rest."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ursa.batch.estimate import Estimate
from ursa.batch.find import Found
from ursa.batch.have import changed_within, judge
from ursa.batch.listed import Listed
from ursa.batch.model import BatchOptions, Slot, Standing, Verbs
from ursa.batch.survey import Survey, Surveyed
from ursa.catalog.standings import Standings
from ursa.errors import (
    CredentialsError,
    InvalidRecordingError,
    ManifestNotFoundError,
    RecordingExistsError,
    StorageError,
    UrsaError,
    unexpected,
)
from ursa.manifest import check_rec_id, shown
from ursa.policies import Existing, OnFailure
from ursa.register.results import IngestPlan
from ursa.register.several import Outcome, os_error_of, registered
from ursa.telling import of_callback

NO_MANIFEST = "no manifest (run reconstruct first)"
INTERRUPTED = "interrupted"
TIME_IS_OVER = "the time of --max-duration is over"
LARGE_READ_BYTES = 10 * 10**9
"""Before more than this is read of registered recordings without being remembered, the run says so."""

FRESH_FOR_S = 60.0
"""So long what a walk found of a directory may be said of it; then it is walked once more."""

_WAITING = 2_500
"""Recordings that wait for their turn: a future each."""
# Recordings that are in the bucket and wait for the catalog, besides those in flight: they share a commit, which takes
# about as long for forty as for one.
_REGISTERING = 48
_log = logging.getLogger("ursa.batch")


@dataclass(frozen=True, slots=True)
class _Task:
    """``twin``: the recording of the same rec_id that has its turn before this one."""

    rec_dir: Path
    twin: Future[Outcome] | None
    future: Future[Outcome] = field(default_factory=Future)


@dataclass
class BatchRun:
    """A batch under way: iterate over it once, for an ``Outcome`` a recording in the order of ``found.rec_dirs``.

    ``seconds``, the counts and (of a dry run) the estimate are of what has been told so far; what the run was stopped
    before is ``not_reached``. ``ended_by``: what made it pointless to go on (credentials that are refused, a server that
    does not answer), or None. After an iteration that was interrupted, ``untold`` has what had ended by then.
    """

    found: Found
    verbs: Verbs
    options: BatchOptions
    counts: dict[str, int] = field(default_factory=lambda: {"ok": 0, "have": 0, "skip": 0, "fail": 0})
    ended_by: UrsaError | None = None
    estimate: Estimate = field(default_factory=Estimate)
    _why_stopped: str | None = None
    _pending: list[Future[Outcome] | None] = field(default_factory=list)
    _todo: deque[_Task] = field(default_factory=deque)
    warn: Callable[[str], object] = lambda _words: None
    """Told, from any thread, what the run should not do in silence."""
    _survey: Survey = field(init=False)
    _listed: Listed = field(init=False)
    _names: list[str] = field(init=False)
    _forgotten_bytes: int = 0
    _answered_at: float = float("-inf")
    _standings: Standings = field(init=False)
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._names = names = [path.name for path in self.found.rec_dirs]
        self._standings = self.verbs.standings([name if _is_rec_id(name) else "" for name in names])
        self._survey = self.verbs.survey(self.found.rec_dirs)
        self._listed = self.verbs.listed(self._check)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @property
    def not_reached(self) -> int:
        """How many recordings the run has not got to, or was stopped in: what ``counts`` lack of all that were found."""
        return len(self.found.rec_dirs) - sum(self.counts.values())

    @property
    def why_stopped(self) -> str | None:
        """Why nothing new starts, in words; None while all is tried."""
        return self._why_stopped

    def __iter__(self) -> Generator[Outcome, None, None]:
        timer = self._timer()
        if self.options.existing is Existing.SKIP:
            self._survey.start()
            # Beside the look into the catalog, which tells how many of these are to be listed.
            self._listed.begin(sorted(set(filter(_is_rec_id, self._names[:_WAITING]))), 0)
        try:
            for outcome in self._outcomes():
                self._count(outcome)
                yield outcome
                self.verbs.upkeep()
            if self.counts["ok"] and not self.options.dry_run and self.ended_by is None:
                self._maintain()
        finally:
            self._survey.stop()
            self._listed.close()
            if timer:
                timer.cancel()

    def untold(self) -> Iterator[Outcome]:
        """Of an interrupted iteration: what had ended, some of it registered, and was not told since it waited its turn."""
        ended, self._pending = self._pending, []
        for future in ended:
            if future is None or future.cancelled() or not future.done() or future.exception() is not None:
                continue
            outcome = future.result()
            if not (outcome.status == "skip" and outcome.reason.startswith(INTERRUPTED)):
                self._count(outcome)
                yield outcome

    def _count(self, outcome: Outcome) -> None:
        self.counts[outcome.status] += outcome.reached
        if outcome.plan is not None:
            self.estimate = self.estimate.plus(outcome.plan)

    def _outcomes(self) -> Iterator[Outcome]:
        rec_dirs = self.found.rec_dirs
        threads = self.options.jobs + _REGISTERING
        with ThreadPoolExecutor(threads, thread_name_prefix="ursa-recording") as pool:
            try:
                start = 0
                while start < len(rec_dirs):
                    # Not looked up, and not needed, where nothing new starts.
                    until = self._looked_up(start)
                    group = rec_dirs[start : min(until, start + _WAITING)]
                    yield from self._group(pool, group)
                    start += len(group)
            except BaseException:
                self._why_stopped = INTERRUPTED
                self._survey.stop()
                self.verbs.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _looked_up(self, start: int) -> int:
        """How far the recordings from ``start`` on are looked up; where nobody can, nothing is tried."""
        if not self._is_stopped():
            try:
                until = self._standings.begin(start)
                if self.options.existing is Existing.SKIP:
                    self._listed.begin(self._standings.registered, self._standings.files)
                return until
            except UrsaError as error:
                self._end_by(error)
            except OSError as error:
                self._end_by(os_error_of(error, None))
        return len(self.found.rec_dirs)

    def _group(self, pool: ThreadPoolExecutor, group: Sequence[Path]) -> Iterator[Outcome]:
        tasks: list[_Task] = []
        for path in group:
            # Halves on two roots, or the same recording twice: one after the other, so that the second sees the first.
            twin = tasks[-1].future if tasks and tasks[-1].rec_dir.name == path.name else None
            tasks.append(_Task(path, twin))
        self._pending = [task.future for task in tasks]
        self._todo.extend(tasks)
        del tasks
        for _ in range(self.options.jobs):
            pool.submit(self._work, pool)
        for i in range(len(self._pending)):
            future = self._pending[i]
            assert future is not None
            outcome = future.result()
            self._pending[i] = None
            yield outcome

    def _work(self, pool: ThreadPoolExecutor) -> None:
        """One recording after the other; who leaves its slot to register starts another thread in its place."""

        def successor() -> None:
            with suppress(RuntimeError):  # the pool is shut down: the run was interrupted
                pool.submit(self._work, pool)

        while self._todo:
            try:
                task = self._todo.popleft()
            except IndexError:
                return
            slot = Slot(self._is_stopped, successor)
            try:
                task.future.set_result(self._attempt(task, slot))
            except BaseException as error:  # noqa: BLE001  (it is raised where the outcome is asked for)
                task.future.set_exception(error)
            if slot.left:
                return

    def _attempt(self, task: _Task, slot: Slot) -> Outcome:
        rec_dir, began = task.rec_dir, time.monotonic()
        rec_id = rec_dir.name or rec_dir.absolute().name
        again = task.twin is not None and task.twin.result().status != "have"
        if self._why_stopped is not None:
            return Outcome(rec_dir, rec_id, "skip", reason=self._why_stopped, reached=False)
        try:
            standing = self._standings.now(rec_id) if again else self._standings.of(rec_id)
            outcome = self._judge(rec_dir, rec_id, standing, slot, again=again)
        except RecordingExistsError as error:
            outcome = registered(rec_dir, rec_id, error, self.options.existing)
        except ManifestNotFoundError as error:
            outcome = Outcome(rec_dir, rec_id, "skip", error=error, reason=NO_MANIFEST)
        except KeyboardInterrupt:
            why = f"{self._why_stopped or INTERRUPTED}; it goes on next time"
            return Outcome(rec_dir, rec_id, "skip", reason=why, reached=False)
        except Exception as error:
            if of_callback(error):
                self._why_stopped = INTERRUPTED
                raise
            outcome = Outcome(rec_dir, rec_id, "fail", error=_as_ursa(error, rec_dir))
        self._heed(outcome, began)
        return outcome

    def _judge(self, rec_dir: Path, rec_id: str, standing: Standing | None, slot: Slot, *, again: bool) -> Outcome:
        check_rec_id(rec_id)
        options = self.options
        if options.settle_s and changed_within(str(rec_dir), options.settle_s):
            return Outcome(rec_dir, rec_id, "skip", reason=f"changed within the last {options.settle_s:g} s")
        look = self._survey.of(rec_dir) if options.existing is Existing.SKIP else Surveyed()
        if standing and options.existing is Existing.SKIP:
            verdict = judge(look, *standing, self._listed.of(rec_id))
            if verdict.have and time.monotonic() - look.seen_at > FRESH_FOR_S:
                # Hours may have passed since the walk, while others were uploaded.
                look = self._survey.again(rec_dir)
                verdict = judge(look, *standing, self._listed.of(rec_id))
            if verdict.have:
                self._listed.forget_objects(rec_id)
                return Outcome(rec_dir, rec_id, "have", told=verdict.told)
            if verdict.reread and not options.trust_mtime and not self._survey.has_turn(rec_dir):
                return Outcome(rec_dir, rec_id, "skip", reason=_waits(look))
            if not options.trust_mtime:
                self._warn_of(look)
        # Whoever has had its turn before this one has changed what was listed.
        objects = None if again else self._listed.objects(rec_id)
        try:
            result = self.verbs.ingest(rec_dir, standing, slot, look, objects)
        except ManifestNotFoundError:
            if not options.reconstruct_missing or options.dry_run:
                raise
            self.verbs.reconstruct(rec_dir, slot)
            result = self.verbs.ingest(rec_dir, standing, slot, look, objects)
        if isinstance(result, IngestPlan):
            return Outcome(rec_dir, rec_id, "ok", plan=result)
        return Outcome(rec_dir, rec_id, "ok", result=result)

    def _warn_of(self, look: Surveyed) -> None:
        """Before a lot is read that the next run will have to read again."""
        temporary = self.options.temporary_cache
        before = self._forgotten_bytes
        self._forgotten_bytes += look.unknown_bytes + look.moved.bytes if temporary else look.unkept_bytes
        if before <= LARGE_READ_BYTES < self._forgotten_bytes:
            self.warn(
                "registered recordings are being read to compare them, and there is no lasting place to remember that:"
                " every run will read them again. Set cache_dir in the profile (`ursa config show`)."
                if temporary
                else "registered recordings are being read to compare them, and their disk keeps neither change times nor a"
                " name to remember that by: every run will read them again. --trust-mtime reads none of them."
            )

    def _check(self) -> None:
        """Raises ``KeyboardInterrupt`` where the run was stopped."""
        if self._is_stopped():
            raise KeyboardInterrupt

    def _is_stopped(self) -> bool:
        return self._why_stopped is not None

    def _heed(self, outcome: Outcome, began: float) -> None:
        """Whether the rest is to be tried after this, which ``began`` then."""
        if outcome.result is not None or outcome.plan is not None:
            self._answered_at = time.monotonic()
        if outcome.status != "fail":
            return
        error = outcome.error
        # A server that answered nobody while this recording tried, and tried again, answers the next one no better.
        silent = isinstance(error, StorageError) and error.unreachable and self._answered_at < began
        if error is not None and (silent or isinstance(error, CredentialsError)):
            self._end_by(error)
        elif self.options.on_failure is OnFailure.STOP and self._why_stopped is None:
            self._why_stopped = f"not tried, since {shown(outcome.rec_id)} failed"

    def _end_by(self, error: UrsaError) -> None:
        if self._why_stopped is not None:
            return
        if isinstance(error, CredentialsError):
            why = "the credentials are refused"
        elif isinstance(error, StorageError) and error.unreachable:
            why = "the server does not answer"
        else:
            why = "the catalog can't be read"
        self.ended_by, self._why_stopped = error, f"not tried: {why}"
        self.verbs.stop()

    def _maintain(self) -> None:
        """What is registered stands, whatever becomes of this."""
        try:
            self.verbs.maintain()
        except Exception:  # noqa: BLE001
            _logged("the catalog could not be tidied after the run; what was registered stands")

    def _timer(self) -> threading.Timer | None:
        if self.options.max_duration_s is None:
            return None
        timer = threading.Timer(self.options.max_duration_s, self._expire)
        timer.daemon = True
        timer.start()
        return timer

    def _expire(self) -> None:
        # In this order: who starts between the two lines sees the first, who was there before hears the second.
        self._why_stopped = self._why_stopped or TIME_IS_OVER
        self.verbs.stop()


def _is_rec_id(name: str) -> bool:
    try:
        return bool(check_rec_id(name))
    except InvalidRecordingError:
        return False


def _logged(words: str) -> None:
    """With the traceback, where there is a log: without one Python would print it on the terminal."""
    if _log.hasHandlers():
        _log.exception("%s", words)


def _as_ursa(error: Exception, rec_dir: Path) -> UrsaError:
    """Any error as one that says what is wrong with this recording, and keeps the others going."""
    if isinstance(error, UrsaError):
        return error
    if isinstance(error, OSError):
        return os_error_of(error, rec_dir)
    where = shown(str(rec_dir), 400)
    if isinstance(error, RecursionError):
        return InvalidRecordingError(f"{where}: directories nested too deep", path=str(rec_dir))
    return unexpected(error, where)


def _waits(look: Surveyed) -> str:
    """Of a recording whose turn to be read again has not come."""
    moved = look.moved
    files = "1 file" if moved.files == 1 else f"{moved.files:,} files"
    last = f"; last read {moved.last_read:%Y-%m-%d}" if moved.last_read else ""
    return f"{files} to be read again (only their ctime moved){last}"
