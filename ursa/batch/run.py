"""The run itself: a few recordings in flight, an outcome each, in order; one failure never stops the rest."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ursa.batch.estimate import Estimate
from ursa.batch.find import Found
from ursa.batch.have import has_all
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.errors import (
    CredentialsError,
    InvalidRecordingError,
    ManifestNotFoundError,
    RecordingExistsError,
    UrsaError,
)
from ursa.manifest import check_rec_id
from ursa.policies import Existing, OnFailure
from ursa.recording import os_error_in_words
from ursa.register.results import IngestPlan, IngestResult
from ursa.register.several import Outcome

Standing = tuple[RecordingRow, tuple[ModalityRow, ...]]
NO_MANIFEST = "no manifest (run reconstruct first)"

_LOOKED_UP_AT_ONCE = 2_500


@dataclass(frozen=True)
class Verbs:
    """What a batch does with a recording; made by ``ursa.interface``.

    ``ingest``: with how the recording stands in the catalog (None: it is in none); a dry run only plans.
    ``registered``: one catalog read.
    """

    ingest: Callable[[Path, Standing | None], IngestResult | IngestPlan]
    reconstruct: Callable[[Path], object]
    registered: Callable[[Sequence[str]], Mapping[str, Standing]]
    stop: Callable[[], object]
    maintain: Callable[[], object]


@dataclass(frozen=True)
class BatchOptions:
    """``max_duration_s``: then nothing new starts, and what is in flight stops, to go on the next time. ``settle_s``:
    recordings that changed within so many seconds are left alone.
    """

    jobs: int = 4
    existing: Existing = Existing.SKIP
    on_failure: OnFailure = OnFailure.CONTINUE
    max_duration_s: float | None = None
    settle_s: float = 0.0
    reconstruct_missing: bool = False
    dry_run: bool = False


@dataclass
class BatchRun:
    """A batch under way: iterate over it once, for an ``Outcome`` a recording in the order of ``found.rec_dirs``.

    ``seconds``, the counts and (of a dry run) the estimate are of what has been told so far. ``credentials``: that they
    were refused ended the run.
    """

    found: Found
    verbs: Verbs
    options: BatchOptions
    counts: dict[str, int] = field(default_factory=lambda: {"ok": 0, "have": 0, "skip": 0, "fail": 0})
    credentials: CredentialsError | None = None
    estimate: Estimate = field(default_factory=Estimate)
    _why_stopped: str | None = None
    _started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def __iter__(self) -> Iterator[Outcome]:
        timer = self._timer()
        try:
            for outcome in self._outcomes():
                self.counts[outcome.status] += 1
                if outcome.plan is not None:
                    self.estimate = self.estimate.plus(outcome.plan)
                yield outcome
            if self.counts["ok"] and not self.options.dry_run:
                self.verbs.maintain()
        finally:
            if timer:
                timer.cancel()

    def _outcomes(self) -> Iterator[Outcome]:
        rec_dirs = self.found.rec_dirs
        with ThreadPoolExecutor(self.options.jobs, thread_name_prefix="ursa-recording") as pool:
            try:
                for start in range(0, len(rec_dirs), _LOOKED_UP_AT_ONCE):
                    group = rec_dirs[start : start + _LOOKED_UP_AT_ONCE]
                    standing = self.verbs.registered([path.name for path in group if _is_rec_id(path.name)])
                    yield from self._group(pool, group, standing)
            except BaseException:
                self._why_stopped = "interrupted"
                self.verbs.stop()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _group(
        self, pool: ThreadPoolExecutor, group: Sequence[Path], standing: Mapping[str, Standing]
    ) -> Iterator[Outcome]:
        futures: list[Future[Outcome] | None] = [
            pool.submit(self._attempt, path, standing.get(path.name)) for path in group
        ]
        for i, future in enumerate(futures):
            assert future is not None
            yield future.result()
            futures[i] = None

    def _attempt(self, rec_dir: Path, standing: Standing | None) -> Outcome:
        rec_id = rec_dir.absolute().name
        if self._why_stopped is not None:
            return Outcome(rec_dir, rec_id, "skip", reason=self._why_stopped)
        try:
            outcome = self._judge(rec_dir, rec_id, standing)
        except RecordingExistsError as error:
            outcome = Outcome(
                rec_dir, rec_id, "have" if self.options.existing is Existing.SKIP else "fail", error=error
            )
        except ManifestNotFoundError as error:
            outcome = Outcome(rec_dir, rec_id, "skip", error=error, reason=NO_MANIFEST)
        except UrsaError as error:
            outcome = Outcome(rec_dir, rec_id, "fail", error=error)
        except OSError as error:
            words = InvalidRecordingError(f"{rec_dir}: {os_error_in_words(error)}", path=str(rec_dir))
            outcome = Outcome(rec_dir, rec_id, "fail", error=words)
        except RecursionError:
            deep = InvalidRecordingError(f"{rec_dir}: directories nested too deep", path=str(rec_dir))
            outcome = Outcome(rec_dir, rec_id, "fail", error=deep)
        except KeyboardInterrupt:
            return Outcome(
                rec_dir, rec_id, "skip", reason=f"{self._why_stopped or 'interrupted'}; it goes on next time"
            )
        self._heed(outcome)
        return outcome

    def _judge(self, rec_dir: Path, rec_id: str, standing: Standing | None) -> Outcome:
        check_rec_id(rec_id)
        if self.options.settle_s and _changed_within(str(rec_dir), self.options.settle_s):
            return Outcome(rec_dir, rec_id, "skip", reason=f"changed within the last {self.options.settle_s:g} s")
        if standing and self.options.existing is Existing.SKIP and has_all(str(rec_dir), *standing):
            return Outcome(rec_dir, rec_id, "have")
        try:
            result = self.verbs.ingest(rec_dir, standing)
        except ManifestNotFoundError:
            if not self.options.reconstruct_missing or self.options.dry_run:
                raise
            self.verbs.reconstruct(rec_dir)
            result = self.verbs.ingest(rec_dir, standing)
        if isinstance(result, IngestPlan):
            return Outcome(rec_dir, rec_id, "ok", plan=result)
        return Outcome(rec_dir, rec_id, "ok", result=result)

    def _heed(self, outcome: Outcome) -> None:
        """Whether the rest is to be tried after this."""
        if outcome.status != "fail":
            return
        if isinstance(outcome.error, CredentialsError):
            self.credentials = outcome.error
            self._why_stopped = "not tried: the credentials are refused"
        elif self.options.on_failure is OnFailure.STOP:
            self._why_stopped = f"not tried, since {outcome.rec_id} failed"

    def _timer(self) -> threading.Timer | None:
        if self.options.max_duration_s is None:
            return None
        timer = threading.Timer(self.options.max_duration_s, self._expire)
        timer.daemon = True
        timer.start()
        return timer

    def _expire(self) -> None:
        self._why_stopped = "the time of --max-duration is over"
        self.verbs.stop()


def _is_rec_id(name: str) -> bool:
    try:
        return bool(check_rec_id(name))
    except InvalidRecordingError:
        return False


def _changed_within(directory: str, seconds: float) -> bool:
    """Whether a file or directory below was touched so recently; what can't be looked at is judged by the ingest."""
    limit = time.time() - seconds
    todo = [directory]
    while todo:
        try:
            below = todo.pop()
            if os.stat(below).st_mtime > limit:  # noqa: PTH116
                return True
            with os.scandir(below) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif entry.stat(follow_symlinks=False).st_mtime > limit:
                        return True
        except OSError:
            continue
    return False
