"""The run itself: a few recordings in flight, an outcome each, in order; one failure never stops the rest."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ursa.batch.estimate import Estimate
from ursa.batch.find import Found
from ursa.batch.have import changed_within, judge
from ursa.batch.listed import Listed
from ursa.batch.model import BatchOptions, Pending, Standing, Verbs
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
from ursa.parallel import in_order
from ursa.policies import Existing, OnFailure
from ursa.register.commit import Registered
from ursa.register.gathering import Gathering
from ursa.register.results import IngestPlan
from ursa.register.several import Outcome, os_error_of, registered
from ursa.telling import of_callback
from ursa.transfer.trace import LinkUse, Stage

NO_MANIFEST = "no manifest (run reconstruct first)"
INTERRUPTED = "interrupted"
TIME_IS_OVER = "the time of --max-duration is over"
LARGE_READ_BYTES = 10 * 10**9
"""Before more than this is read of registered recordings without being remembered, the run says so."""

FRESH_FOR_S = 60.0
"""So long what a walk found of a directory may be said of it; then it is walked once more."""

_CLAIM_DIGITS = 16
_WAITING = 2_500
"""Recordings that may have ended and wait to be told, since an earlier one goes on: a future each."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Task:
    """``standing``: how it stands in the catalog. ``twin``: the recording of the same rec_id that has its turn before."""

    rec_dir: Path
    standing: Standing | None = None
    twin: Future[Outcome] | None = None
    error: UrsaError | None = None
    future: Future[Outcome] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Place:
    """Of a task of a run."""

    run: BatchRun
    task: _Task

    def check(self, *_: object) -> None:
        self.run._check()

    def may_be_there(self, recording_hash: str) -> bool:
        run = self.run
        return run._claimed(recording_hash, self.task.future) or run._standings.may_have(recording_hash)


@dataclass
class _Interrupt:
    """The runner's switch: it is on once nobody asks for outcomes any more."""

    stop: Callable[[], object]
    on: bool = False

    def is_set(self) -> bool:
        return self.on

    def set(self) -> None:
        self.on = True
        self.stop()


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
    _pending: deque[Future[Outcome]] = field(default_factory=deque)
    warn: Callable[[str], object] = lambda _words: None
    """Told, from any thread, what the run should not do in silence."""
    _survey: Survey = field(init=False)
    _listed: Listed = field(init=False)
    _names: list[str] = field(init=False)
    _forgotten_bytes: int = 0
    _answered_at: float = float("-inf")
    _standings: Standings = field(init=False)
    _gathering: Gathering = field(init=False)
    _claims: dict[str, Future[Outcome] | None] = field(default_factory=dict)
    _claiming: threading.Lock = field(default_factory=threading.Lock)
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._names = names = [_rec_id(path) for path in self.found.rec_dirs]
        self._standings = self.verbs.standings([name if _is_rec_id(name) else "" for name in names])
        self._survey = self.verbs.survey(self.found.rec_dirs)
        self._listed = self.verbs.listed(self._check)
        self._gathering = self.verbs.gathering

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    @property
    def link(self) -> LinkUse:
        """How the link was used so far."""
        return self.verbs.trace.told()

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
        self.verbs.trace.begin()
        if self.options.existing is Existing.SKIP:
            self._survey.start()
        # Beside the look into the catalog, which tells about how many objects they have.
        self._list(0, min(_WAITING, len(self._names)), 0)
        try:
            with self._gathering, closing(self._outcomes()) as outcomes:
                for outcome in outcomes:
                    self._count(outcome)
                    yield outcome
        finally:
            self.verbs.trace.end()
            self._survey.stop()
            self._listed.close()
            if timer:
                timer.cancel()

    def untold(self) -> Iterator[Outcome]:
        """Of an interrupted iteration: what had ended, some of it registered, and was not told since it waited its turn."""
        ended, self._pending = self._pending, deque()
        for future in ended:
            if not future.done() or future.exception() is not None:
                continue
            outcome = future.result()
            if not (outcome.status == "skip" and outcome.reason.startswith(INTERRUPTED)):
                self._count(outcome)
                yield outcome

    def _count(self, outcome: Outcome) -> None:
        self.counts[outcome.status] += outcome.reached
        if outcome.plan is not None:
            self.estimate = self.estimate.plus(outcome.plan)

    def _outcomes(self) -> Generator[Outcome, None, None]:
        switch = _Interrupt(self._interrupt)
        tasks = in_order(switch, self._attempt, self._tasks(), self._at_once, waiting=_WAITING)
        with closing(tasks):
            for future in tasks:
                outcome = future.result()
                self._pending.popleft()
                yield outcome

    def _at_once(self) -> int:
        return self.options.jobs or self.verbs.at_once()

    def _interrupt(self) -> None:
        self._why_stopped = self._why_stopped or INTERRUPTED
        self._survey.stop()
        self._gathering.ending()
        self.verbs.stop()

    def _tasks(self) -> Iterator[_Task]:
        """The recordings, as their turn comes; looked up in the catalog some thousands at a time."""
        names, until = self._names, 0
        several = {name for name, count in Counter(names).items() if count > 1}
        last: dict[str, Future[Outcome]] = {}
        for number, rec_dir in enumerate(self.found.rec_dirs):
            name = names[number]
            if number >= until:
                until = self._looked_up(number)
            task = self._task(rec_dir, name, last.get(name))
            if name in several:
                # Halves on two roots, or the same recording twice: one after the other, so that the second sees the first.
                last[name] = task.future
            self._pending.append(task.future)
            self._gathering.enter()
            yield task
        self._gathering.all_begun()

    def _task(self, rec_dir: Path, name: str, twin: Future[Outcome] | None) -> _Task:
        if self._is_stopped():
            # What ended it before anything was tried is an error of the first, where each was asked for by its name.
            first = not self.options.skip_without_manifest and not self._pending and not sum(self.counts.values())
            return _Task(rec_dir, twin=twin, error=self.ended_by if first else None)
        try:
            return _Task(rec_dir, self._standings.of(name), twin)
        except (UrsaError, OSError) as error:
            return _Task(rec_dir, twin=twin, error=_as_ursa(error, rec_dir))

    def _looked_up(self, start: int) -> int:
        """How far the recordings from ``start`` on are looked up; where nobody can, nothing is tried."""
        if not self._is_stopped():
            try:
                with self.verbs.trace.stage(Stage.CATALOG):
                    until = self._standings.begin(start)
                self._list(start, until, self._standings.files)
                return until
            except UrsaError as error:
                self._end_by(error)
            except OSError as error:
                self._end_by(os_error_of(error, None))
        return len(self.found.rec_dirs)

    def _list(self, start: int, until: int, objects: int) -> None:
        """Begin to list these, which have about so many objects."""
        self._listed.begin(sorted(set(filter(_is_rec_id, self._names[start:until]))), objects)

    def _attempt(self, task: _Task) -> Future[Outcome]:
        """Up to its registration. The future has the outcome, which may come later."""
        try:
            made = self._outcome(task)
        except BaseException as error:  # noqa: BLE001  (it is raised where the outcome is asked for)
            task.future.set_exception(error)
        else:
            if isinstance(made, Outcome):
                task.future.set_result(made)
            else:
                self._register(task, made)
        finally:
            self._gathering.leave()
        return task.future

    def _register(self, task: _Task, sent: Pending) -> None:
        began = time.monotonic()

        def done(future: Future[Registered]) -> None:
            try:
                outcome = self._ended(task.rec_dir, began, lambda: self._registered(task.rec_dir, sent, future))
            except BaseException as error:  # noqa: BLE001
                task.future.set_exception(error)
            else:
                task.future.set_result(outcome)

        self._gathering.register(sent.wanted).add_done_callback(done)

    def _registered(self, rec_dir: Path, sent: Pending, future: Future[Registered]) -> Outcome:
        return Outcome(rec_dir, _rec_id(rec_dir), "ok", result=sent.result(future.result()))

    def _outcome(self, task: _Task) -> Outcome | Pending:
        rec_dir, began, twin = task.rec_dir, time.monotonic(), task.twin
        again = False
        if twin is not None:
            with self._gathering.awaited():
                again = twin.result().status != "have"
        if self._why_stopped is not None and task.error is None:
            return Outcome(rec_dir, _rec_id(rec_dir), "skip", reason=self._why_stopped, reached=False)
        return self._ended(rec_dir, began, lambda: self._tried(task, again=again))

    def _tried(self, task: _Task, *, again: bool) -> Outcome | Pending:
        if task.error is not None:
            raise task.error
        rec_id = _rec_id(task.rec_dir)
        standing = self._standings.now(rec_id) if again else task.standing
        return self._judge(task, rec_id, standing, again=again)

    def _ended(self, rec_dir: Path, began: float, action: Callable[[], _T]) -> _T | Outcome:
        """What came of it; of an error that is this recording's, an outcome."""
        rec_id = _rec_id(rec_dir)
        made: _T | Outcome
        try:
            made = action()
        except RecordingExistsError as error:
            made = registered(rec_dir, rec_id, error, self.options.existing)
        except ManifestNotFoundError as error:
            if self.options.skip_without_manifest:
                made = Outcome(rec_dir, rec_id, "skip", error=error, reason=NO_MANIFEST)
            else:
                made = Outcome(rec_dir, rec_id, "fail", error=error)
        except KeyboardInterrupt:
            why = f"{self._why_stopped or INTERRUPTED}; it goes on next time"
            return Outcome(rec_dir, rec_id, "skip", reason=why, reached=False)
        except Exception as error:
            if of_callback(error):
                self._why_stopped = INTERRUPTED
                raise
            made = Outcome(rec_dir, rec_id, "fail", error=_as_ursa(error, rec_dir))
        if isinstance(made, Outcome):
            self._heed(made, began)
        return made

    def _claimed(self, recording_hash: str, mine: Future[Outcome]) -> bool:
        """Two recordings may state one hash; the second is refused before a byte of it moves, if the first is registered."""
        key = recording_hash[:_CLAIM_DIGITS]
        with self._claiming:
            there = key in self._claims
            first = self._claims.setdefault(key, mine)
        if first is mine:
            # Who it was is forgotten with its outcome: a run may have a million.
            mine.add_done_callback(lambda _: self._claims.update({key: None}))
        elif first is not None:
            with self._gathering.awaited():
                first.exception()
        return there

    def _judge(self, task: _Task, rec_id: str, standing: Standing | None, *, again: bool) -> Outcome | Pending:
        rec_dir, place = task.rec_dir, _Place(self, task)
        check_rec_id(rec_id)
        options = self.options
        if options.settle_s and changed_within(str(rec_dir), options.settle_s):
            return Outcome(rec_dir, rec_id, "skip", reason=f"changed within the last {options.settle_s:g} s")
        with self.verbs.trace.stage(Stage.SCAN):
            look = self._survey.of(rec_dir) if options.existing is Existing.SKIP else Surveyed()
        if standing and options.existing is Existing.SKIP:
            with self.verbs.trace.stage(Stage.LIST):
                listed = self._listed.of(rec_id)
            verdict = judge(look, *standing, listed)
            if verdict.have and time.monotonic() - look.seen_at > FRESH_FOR_S:
                # Hours may have passed since the walk, while others were uploaded.
                look = self._survey.again(rec_dir)
                verdict = judge(look, *standing, self._listed.of(rec_id))
            if verdict.have:
                self._listed.forget_objects(rec_id)
                return Outcome(rec_dir, rec_id, "have", told=verdict.told)
            # Who names a directory asks for it to be read; a night has only so much time for what was read before.
            nightly = options.skip_without_manifest
            if verdict.reread and nightly and not options.trust_mtime and not self._survey.has_turn(rec_dir):
                return Outcome(rec_dir, rec_id, "skip", reason=_waits(look))
            if not options.trust_mtime:
                self._warn_of(look)
        # Whoever has had its turn before this one has changed what was listed.
        objects = None if again else self._listed.objects(rec_id)
        try:
            sent = self.verbs.send(rec_dir, standing, place, look, objects)
        except ManifestNotFoundError:
            if not options.reconstruct_missing or options.dry_run:
                raise
            self.verbs.reconstruct(rec_dir, place)
            sent = self.verbs.send(rec_dir, standing, place, look, objects)
        return Outcome(rec_dir, rec_id, "ok", plan=sent) if isinstance(sent, IngestPlan) else sent

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

    def _check(self, *_: object) -> None:
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
        self._gathering.ending()
        self.verbs.stop()

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
        self._gathering.ending()
        self.verbs.stop()


def _is_rec_id(name: str) -> bool:
    try:
        return bool(check_rec_id(name))
    except InvalidRecordingError:
        return False


def _rec_id(rec_dir: Path) -> str:
    return rec_dir.name or rec_dir.absolute().name


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
