"""What a batch is made of: what it does with a recording, its options, and a recording's place among those in flight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ursa.batch.listed import Listed
from ursa.batch.survey import Survey, Surveyed
from ursa.catalog.standings import Standing as Standing  # where others import it from
from ursa.catalog.standings import Standings
from ursa.policies import Existing, OnFailure
from ursa.register.build import Registration
from ursa.register.commit import Registered
from ursa.register.gathering import Gathering
from ursa.register.results import IngestPlan, IngestResult
from ursa.store import ObjectInfo
from ursa.transfer.trace import Trace


class Place(Protocol):
    """A recording's place among those under way."""

    def check(self, *_: object) -> None:
        """Raises ``KeyboardInterrupt`` where the run was stopped."""

    def may_be_there(self, recording_hash: str) -> bool:
        """Whether a recording may be registered under this hash. One of this run that has it and is under way is waited for."""


class Pending(Protocol):
    """A recording that is in the bucket and waits to be registered."""

    @property
    def wanted(self) -> Registration:
        """Its rows."""

    def result(self, registered: Registered) -> IngestResult:
        """What the ingest did, once they are written."""


@dataclass(frozen=True)
class Verbs:
    """What a batch does with a recording; made by ``ursa.interface``.

    ``send``: up to its registration, with how the recording stands in the catalog (None: it is in none), what the walk saw
    of it, and what the bucket lists of it (None: nobody knows); a dry run only plans. It and ``reconstruct`` check their
    place once ``stop`` reaches them, so that whoever stops a run is heard in any case. ``standings``: of these
    recordings, which have their turn in this order. ``survey``: walks these directories; ``listed``: lists recordings of
    the bucket; ``gathering``: registers; ``at_once``: how many recordings may be under way now;
    ``trace``: told what is being done.
    """

    send: Callable[[Path, Standing | None, Place, Surveyed, Sequence[ObjectInfo] | None], Pending | IngestPlan]
    reconstruct: Callable[[Path, Place], object]
    standings: Callable[[Sequence[str]], Standings]
    survey: Callable[[Sequence[Path]], Survey]
    listed: Callable[[Callable[[], object]], Listed]
    gathering: Gathering
    at_once: Callable[[], int]
    stop: Callable[[], object]
    trace: Trace = field(default_factory=Trace)


@dataclass(frozen=True)
class BatchOptions:
    """``jobs``: recordings under way at most, None: as many as keep the link busy. ``max_duration_s``: then nothing new
    starts, and what is in flight stops, to go on the next time. ``settle_s``: recordings that changed within so many
    seconds are left alone. ``temporary_cache``: what is read is not remembered longer than this run. ``trust_mtime``: a file
    of which only the change time moved is not read again. ``skip_without_manifest``: such a recording is left for another
    time; else it is a failure.
    """

    jobs: int | None = None
    existing: Existing = Existing.SKIP
    on_failure: OnFailure = OnFailure.CONTINUE
    max_duration_s: float | None = None
    settle_s: float = 0.0
    reconstruct_missing: bool = False
    dry_run: bool = False
    temporary_cache: bool = False
    trust_mtime: bool = False
    skip_without_manifest: bool = True
