"""What a batch is made of: what it does with a recording, its options, and a recording's place among those in flight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ursa.batch.listed import Listed
from ursa.batch.survey import Survey, Surveyed
from ursa.catalog.standings import Standing as Standing  # where others import it from
from ursa.catalog.standings import Standings
from ursa.policies import Existing, OnFailure
from ursa.register.results import IngestPlan, IngestResult
from ursa.store import ObjectInfo


@dataclass
class Slot:
    """A recording's place among those in flight, which it gives to the next one as soon as its bytes are sent."""

    stopped: Callable[[], bool]
    successor: Callable[[], object]
    left: bool = False

    def leave(self) -> None:
        """Let another recording begin."""
        if not self.left:
            self.left = True
            self.successor()

    def check(self, *_: object) -> None:
        """Raise KeyboardInterrupt where the run was stopped."""
        if self.stopped():
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Verbs:
    """What a batch does with a recording; made by ``ursa.interface``.

    ``ingest``: with how the recording stands in the catalog (None: it is in none), and what the bucket
    lists of it (None: nobody knows); a dry run only plans. It leaves its
    slot before it registers. It and ``reconstruct`` check their slot once ``stop`` reaches them, so that whoever stops
    a run is heard in any case. ``standings``: of these recordings, which have their turn in this order. ``survey``: walks
    these directories; ``listed``: lists recordings of the bucket. ``upkeep``: what registrations owe to later readers of the
    catalog, once they are told; ``maintain``: more of that, at the end.
    """

    ingest: Callable[[Path, Standing | None, Slot, Surveyed, Sequence[ObjectInfo] | None], IngestResult | IngestPlan]
    reconstruct: Callable[[Path, Slot], object]
    standings: Callable[[Sequence[str]], Standings]
    survey: Callable[[Sequence[Path]], Survey]
    listed: Callable[[Callable[[], object]], Listed]
    stop: Callable[[], object]
    upkeep: Callable[[], object]
    maintain: Callable[[], object]


@dataclass(frozen=True)
class BatchOptions:
    """``max_duration_s``: then nothing new starts, and what is in flight stops, to go on the next time. ``settle_s``:
    recordings that changed within so many seconds are left alone. ``temporary_cache``: what is read is not remembered
    longer than this run. ``trust_mtime``: a file of which only the change time moved is not read again.
    """

    jobs: int = 4
    existing: Existing = Existing.SKIP
    on_failure: OnFailure = OnFailure.CONTINUE
    max_duration_s: float | None = None
    settle_s: float = 0.0
    reconstruct_missing: bool = False
    dry_run: bool = False
    temporary_cache: bool = False
    trust_mtime: bool = False
