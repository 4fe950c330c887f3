"""``DataInterface``: the public verbs, each a few lines onto the modules below."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ursa.access import Access
from ursa.batch.find import Found, find_recordings, nothing_found
from ursa.batch.listed import Listed
from ursa.batch.model import BatchOptions, Place, Standing, Verbs
from ursa.batch.run import BatchRun
from ursa.batch.survey import Survey, Surveyed, state_of_scan
from ursa.beside import begin
from ursa.bucket.record import Entry, read_record, record_key
from ursa.catalog.history import Operation, history
from ursa.catalog.metadata import covers
from ursa.catalog.overview import RecordingOverview, overview
from ursa.catalog.query import QueryResult, query
from ursa.catalog.replica.directory import CacheUse, cache_use, clear
from ursa.catalog.rows import FileRow, ModalityRow, ParticipantRow, RecordingRow
from ursa.catalog.standings import Standings
from ursa.catalog.where import by_rec_id
from ursa.config import Role, load_config
from ursa.config.build import build
from ursa.config.merge import drafts
from ursa.config.yaml_file import parse, read_text
from ursa.disk.cache import FilesCache
from ursa.errors import (
    ConfigError,
    InvalidRecordingError,
    ManifestError,
    ManifestNotFoundError,
    RecordingNotFoundError,
    StorageError,
    UrsaError,
    UsageError,
)
from ursa.events import DownloadCallback, HashCallback, UploadCallback
from ursa.parallel import RemoteCall, as_they_come, awaited, by_executor, in_order, submit
from ursa.policies import Evidence, Existing, Level, ModalityOnConflict, OnConflict, OnFailure, choice
from ursa.recording import MANIFEST_NAME, load_manifest, scan_recording
from ursa.register import from_r2, orchestrator, verbs
from ursa.register.committer import Committer
from ursa.register.files import file_rows
from ursa.register.from_r2_plan import BucketPlan, make_plan, plan_several
from ursa.register.gathering import Gathering
from ursa.register.in_parts import with_parts
from ursa.register.planning import Options
from ursa.register.progress import Progress
from ursa.register.proving import Upgrade, better
from ursa.register.results import IngestPlan, IngestResult
from ursa.register.services import Services
from ursa.register.several import Outcome
from ursa.store import ObjectInfo, OpenUpload, Store
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.subset import parse_subset
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.trace import Stage

if TYPE_CHECKING:
    # An ingest needs none of these, and they take as long to load as a third of the rest: who needs one imports it.
    from ursa.catalog.compact import CompactResult
    from ursa.catalog.compare import Seen
    from ursa.catalog.undo import Look, UndoPlan
    from ursa.doctor import ProbeResult
    from ursa.fetch import DownloadResult, Measured
    from ursa.rebuild.back import BackResult
    from ursa.rebuild.derive import Derived, Source
    from ursa.rebuild.run import Deriver, RebuildResult
    from ursa.reconstruct import ReconstructOutcome, ReconstructResult
    from ursa.register.participants import BackfillItem, BackfillPlan, BackfillResult, ParticipantsOverview
    from ursa.verify import Allowance, FileCheck, Means, RecordingCheck, Subject

# Their rows are in memory together.
_VERIFIED_AT_ONCE = 1_000
# So many recordings are listed before it is known whether they are registered.
_LISTED_EARLY = 8
# One is read while another is looked through or gets its manifest; more only make a disk seek.
_DIRECTORIES_AT_ONCE = 2
# Recordings of the bucket that are planned together: the catalog is asked once for all of them.
_PLANNED_TOGETHER = 100

_log = logging.getLogger("ursa")


@dataclass(frozen=True, slots=True)
class Caches:
    """This machine's caches. ``directory``: the profile's ``cache_dir``; None is the user's cache directory."""

    directory: Path | None

    @classmethod
    def of(cls, profile: str, config_path: Path | None = None) -> Self:
        """Those of a profile, of which nothing else is asked: it may lack its buckets.

        Raises:
            ConfigError: no such profile, or its ``cache_dir`` or the config file is wrong.
        """
        config = load_config(config_path)
        try:
            return cls(config.profile(profile).cache_dir)
        except ConfigError:
            if profile not in config.profile_names():
                raise
        text = read_text(config.path, required=True) if config.path else None
        declared = parse(text, config.path) if config.path and text else {}
        draft = drafts(declared, config.path)[profile]
        given = draft.get("cache_dir")
        settings = {"root": os.sep} | ({"cache_dir": given} if given is not None else {})
        return cls(build(replace(draft, kind="local", settings=settings)).cache_dir)

    def use(self) -> CacheUse:
        """Where they are, and what they hold."""
        return cache_use(self.directory)

    def clear(self, *, files: bool = False) -> int:
        """As ``DataInterface.clear_cache``."""
        return clear(self.directory) + (_forget(FilesCache.open(self.directory)) if files else 0)


def _forget(cache: FilesCache) -> int:
    """Empty it; returns how many bytes it had. Another process may take its files away meanwhile."""
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            return cache.clear()
    return 0


class DataInterface(Access):
    """A lab's recordings: the raw bucket, the catalog, and the way between a disk and both.

    Nothing connects, runs ``op`` or reads a secret until it is needed. Reading needs no ``enable_writes``.

    Args:
        profile: a profile of the config file, or the built-in ``local``.
        config_path: a config file instead of the user's own.
        transfers: requests in flight; None follows the link.
        bandwidth: limit for uploads: ``"20M"`` (MiB a second) or a timetable ``"08:00,5M 19:00,off"``.
        config: a config that is loaded already; then ``config_path`` is not read. It holds no secret, and pickles.

    Raises:
        ConfigError: no such profile, or the config file is wrong.
    """

    def ingest(
        self,
        manifest_path: Path | str | None,
        source_dir: Path | str,
        participant: str | None = None,
        *,
        overwrite: bool = False,
        replace_objects: bool = False,
        trust_size: bool = False,
        trust_mtime: bool = False,
        not_unfinished: Iterable[str] = (),
        progress: UploadCallback | None = None,
    ) -> IngestResult:
        """Path A: upload or skip every file of a recording, prove that it arrived, write the rows.

        Args:
            manifest_path: ``manifest.json`` or a node manifest; where it does not exist, ``_node_manifests/`` is merged.
            source_dir: the recording's directory; its name is the rec_id.
            participant: display name as typed; None or "" is unknown. ``participant.txt`` is not read here.
            overwrite: replace this recording's rows, never those of workers that are not on this disk.
            replace_objects: also replace objects that hold other content.
            trust_size: an object of the same size counts as the same, as a claim.
            trust_mtime: of a registered file, the same size and mtime count as the same content; it is not read.
            not_unfinished: globs of files that are whole, though they are called like unfinished copies.
            progress: called with ``UploadProgress``, from this thread; what it raises stops the ingest.

        Raises:
            WritesNotEnabledError, InvalidRecordingError, ManifestError, ManifestNotFoundError, RecordingExistsError,
            ConflictError, MissingFilesError, ChecksumMismatchError, FileChangedError, ObjectConflictError, StorageError,
            CredentialsError, ConfigError. Whatever is raised, nothing of this run is registered.
        """
        self._require("raw_rw", "ingest")
        self._require("assets_rw", "ingest")
        options = Options(overwrite, replace_objects, trust_size, trust_mtime, tuple(not_unfinished))
        request = self._request(manifest_path, source_dir, participant, options)
        with self._running() as stop:
            services = self._services(stop)
            with services.catalog.upkeep_later():
                result = orchestrator.ingest(services, request, progress)
            services.catalog.upkeep()
        return result

    def plan_ingest(
        self,
        manifest_path: Path | str | None,
        source_dir: Path | str,
        participant: str | None = None,
        *,
        overwrite: bool = False,
        replace_objects: bool = False,
        trust_size: bool = False,
        trust_mtime: bool = False,
        not_unfinished: Iterable[str] = (),
        progress: UploadCallback | None = None,
    ) -> IngestPlan:
        """What ``ingest`` would do, without writing anything; needs no ``enable_writes``. Raises the same errors."""
        options = Options(overwrite, replace_objects, trust_size, trust_mtime, tuple(not_unfinished))
        request = self._request(manifest_path, source_dir, participant, options)
        with self._running() as stop:
            plan = orchestrator.make_plan(self._planning(stop), request, Progress(request.local.rec_id, progress))
            return with_parts(self._raw_for(stop), self.profile.raw.prefix, plan)

    def reconstruct(
        self, rec_id: str, *, dry_run: bool = False, progress: HashCallback | None = None
    ) -> ReconstructResult:
        """Path C: make the ``manifest.json`` of a recording in the bucket that has none, by reading and hashing its objects.

        A valid manifest, or a valid node manifest, makes it a no-op (``kept``); a placeholder with empty ``files`` is
        replaced; a manifest that is broken is refused and never replaced. Interrupted, the next run takes up what is
        finished: from the sha256 that objects were stored with, and, where ``assets_rw`` is enabled too, from the finished
        hashes kept under the assets prefix. The catalog is not touched: ``ingest_from_r2`` comes next.

        Args:
            rec_id: ``rec_<date>_<time>_<hex>``, as the prefix is called.
            dry_run: read the listing and metadata, tell what would be hashed; needs no ``enable_writes``.
            progress: called with ``HashProgress``, from this thread; what it raises stops the run.

        Raises:
            InvalidRecordingError: no raw data, or objects that no manifest could list; all of them named.
            ManifestError: a manifest is there and is broken, or another recording's.
            MissingFilesError, StorageError: objects vanished or changed meanwhile. WritesNotEnabledError, CredentialsError,
            ConfigError. Whatever is raised, no manifest is written.
        """
        if not dry_run:
            self._require("raw_rw", "reconstruct")
        with self._running() as stop:
            return self._reconstruct(rec_id, dry_run, progress, stop)

    def _reconstruct(self, rec_id: str, dry_run: bool, progress: HashCallback | None, stop: Stop) -> ReconstructResult:
        from ursa.reconstruct import Bucket, reconstruct

        return reconstruct(Bucket.of(self, stop, dry_run=dry_run), rec_id, dry_run=dry_run, callback=progress)

    def reconstruct_several(
        self,
        refs: Iterable[Path | str],
        *,
        jobs: int | None = None,
        dry_run: bool = False,
        executor: Executor | None = None,
        progress: HashCallback | None = None,
    ) -> Generator[ReconstructOutcome]:
        """Path C for several recordings; an outcome each, in their order. One failure never stops the rest.

        Args:
            refs: a ``Path`` is a directory, text a rec_id in the bucket.
            jobs: the most recordings in flight in this process; None follows the link.
            executor: any ``concurrent.futures.Executor``: recordings of the bucket are read in its workers, which make
                connections of their own and tell no progress. Directories are read here.
            progress: called from several threads.

        Raises:
            WritesNotEnabledError, UsageError; what happens to a recording is in its outcome.
        """
        wanted = list(dict.fromkeys(refs))
        if not dry_run:
            self._require("raw_rw", "reconstruct")
        return self._reconstructed(wanted, _jobs(jobs), dry_run, executor, progress)

    def _reconstructed(
        self,
        refs: Sequence[Path | str],
        jobs: int | None,
        dry_run: bool,
        executor: Executor | None,
        progress: HashCallback | None,
    ) -> Generator[ReconstructOutcome]:
        from ursa.reconstruct import reconstruct_several

        most = jobs or (_DIRECTORIES_AT_ONCE if any(isinstance(ref, Path) for ref in refs) else max(1, len(refs)))
        remote: dict[Path | str, Future[ReconstructResult]] = {}
        if executor is not None:
            call = self._remote("_reconstruct_one")
            remote |= {ref: submit(executor, call, ref, dry_run) for ref in refs if not isinstance(ref, Path)}
        with self._running() as stop:

            def one(ref: Path | str) -> ReconstructResult:
                if ref in remote:
                    return awaited(remote[ref], stop)
                with stop.part() as own:
                    if isinstance(ref, Path):
                        return self._reconstruct_dir(ref, dry_run, progress, own)
                    return self._reconstruct(ref, dry_run, progress, own)

            try:
                yield from reconstruct_several(
                    one, refs, stop=stop, at_once=lambda: min(most, self._engine.recordings_at_once())
                )
            finally:
                for future in remote.values():
                    future.cancel()

    def _reconstruct_one(self, rec_id: str, dry_run: bool) -> ReconstructResult:
        """In an executor's worker."""
        return self.reconstruct(rec_id, dry_run=dry_run)

    def reconstruct_dir(
        self, rec_dir: Path | str, *, dry_run: bool = False, progress: HashCallback | None = None
    ) -> ReconstructResult:
        """Path C on a disk: write ``rec_dir/manifest.json`` where there is none. Needs no role and touches no network.

        ``dry_run`` and ``progress`` as for ``reconstruct``; ``ingest`` comes next.

        Raises:
            InvalidRecordingError: no such directory, no raw file, or something that no manifest could list.
            ManifestError: a manifest is there and is broken. FileChangedError: files are still being written.
            StorageError: the directory can't be read or written. Whatever is raised, no manifest is written.
        """
        with self._running() as stop:
            return self._reconstruct_dir(Path(rec_dir), dry_run, progress, stop)

    def _reconstruct_dir(
        self, rec_dir: Path, dry_run: bool, progress: HashCallback | None, stop: Stop
    ) -> ReconstructResult:
        from ursa.reconstruct import reconstruct_dir

        return reconstruct_dir(
            rec_dir,
            engine=self._engine,
            stop=stop,
            key_prefix=self.profile.raw.prefix,
            dry_run=dry_run,
            callback=progress,
        )

    def missing_manifests(
        self, *, on_left_out: Callable[[str, UrsaError], object] = lambda _name, _error: None
    ) -> list[str]:
        """rec_ids in the bucket without a valid manifest, sorted: what ``reconstruct`` is for. Reads only.

        Args:
            on_left_out: called, from this thread, with what is not in the result and looks as if it should be, and why:
                ``ManifestError`` where a manifest is there and broken, ``InvalidRecordingError`` for a ``rec_*`` that is
                not the name of a recording.
        """
        from ursa.reconstruct import missing_manifests

        with self._running() as stop:
            raw = self._raw_for(stop)
            return missing_manifests(self._engine, raw, self.profile.raw.prefix, stop=stop, on_left_out=on_left_out)

    def ingest_dirs(
        self,
        rec_dirs: Iterable[Path | str],
        *,
        participant: str | None = None,
        existing: Existing | str = Existing.ERROR,
        overwrite: bool = False,
        replace_objects: bool = False,
        trust_size: bool = False,
        trust_mtime: bool = False,
        not_unfinished: Iterable[str] = (),
        jobs: int | None = None,
        dry_run: bool = False,
        progress: UploadCallback | None = None,
    ) -> BatchRun:
        """Path A for several directories; iterate over the result for an ``Outcome`` each, in their order. One failure never
        stops the rest, but what makes the rest pointless does: credentials that are refused, a server that does not answer.

        Args:
            participant: for all of them; None reads each directory's ``participant.txt``.
            existing: ``error`` or ``skip`` recordings that are registered with the same files, or ``overwrite``.
            jobs: recordings under way at most; None: as many as keep the link busy. ``progress`` is called from several
                threads.
            dry_run: plan each recording (``Outcome.plan``) and write nothing; needs no ``enable_writes``.

        Raises:
            WritesNotEnabledError, UsageError; what happens to a recording is in its outcome.
        """
        if not dry_run:
            self._require("raw_rw", "ingest")
            self._require("assets_rw", "ingest")
        policy = choice(Existing, existing, "existing")
        choices = Options(
            overwrite or policy is Existing.OVERWRITE, replace_objects, trust_size, trust_mtime, tuple(not_unfinished)
        )
        found = Found(tuple(map(Path, rec_dirs)), (), (), ())
        options = BatchOptions(
            _jobs(jobs),
            policy,
            dry_run=dry_run,
            temporary_cache=self._files.temporary,
            trust_mtime=trust_mtime,
            skip_without_manifest=False,
        )
        return BatchRun(found, self._batch_verbs(options, choices, participant, progress), options)

    def batch(
        self,
        roots: Iterable[Path | str],
        *,
        jobs: int | None = None,
        existing: Existing | str = Existing.SKIP,
        on_failure: OnFailure | str = OnFailure.CONTINUE,
        max_duration_s: float | None = None,
        settle_s: float = 0.0,
        reconstruct_missing: bool = False,
        dry_run: bool = False,
        trust_mtime: bool = False,
        not_unfinished: Iterable[str] = (),
        progress: UploadCallback | None = None,
    ) -> BatchRun:
        """Path A for every ``rec_*`` directly below some roots; iterate over the result for an ``Outcome`` each, in order.

        A recording of which this machine has read all that is on the disk, and all of it is registered, proven and listed
        in the bucket now, is found by one catalog read, a walk and listings (``have``); else its files are hashed;
        one without a manifest is left (``skip``); one failure never stops the rest. Takes no lock: ``ursa batch`` does.

        Args:
            roots: directories, globs of directories, or recording directories.
            jobs: recordings under way at most; None: as many as keep the link busy. ``progress`` is called from several
                threads.
            existing: what to do with recordings that are registered with the same files.
            on_failure: ``stop`` starts nothing after the first failure.
            max_duration_s: seconds; then nothing new starts, and what is in flight stops, to go on in the next run.
            settle_s: leave recordings alone that changed within so many seconds.
            reconstruct_missing: where there is no manifest, write one into the directory first.
            dry_run: plan each recording (``Outcome.plan``) and write nothing; needs no ``enable_writes``.
            trust_mtime: of a registered file, the same size and mtime count as the same content; it is not read.
            not_unfinished: globs of files that are whole, though they are called like unfinished copies.

        Raises:
            InvalidRecordingError: no recording below any of the roots (an unmounted NAS looks just like that).
            WritesNotEnabledError, UsageError; what happens to a recording is in its outcome.
        """
        if not dry_run:
            self._require("raw_rw", "batch")
            self._require("assets_rw", "batch")
        limit = _jobs(jobs)
        found = find_recordings(roots)
        if not found.rec_dirs:
            raise nothing_found(found)
        options = BatchOptions(
            limit,
            choice(Existing, existing, "existing"),
            choice(OnFailure, on_failure, "on_failure"),
            max_duration_s,
            settle_s,
            reconstruct_missing,
            dry_run,
            self._files.temporary,
            trust_mtime,
        )
        rows = Options(
            overwrite=options.existing is Existing.OVERWRITE,
            trust_mtime=trust_mtime,
            not_unfinished=tuple(not_unfinished),
        )
        return BatchRun(found, self._batch_verbs(options, rows, None, progress), options)

    def _batch_verbs(
        self, options: BatchOptions, rows: Options, participant: str | None, progress: UploadCallback | None
    ) -> Verbs:
        trace = self._shared_engine().trace
        gathering = Gathering(lambda: self._catalog, self._shared_committer, trace=trace)

        def send(
            rec_dir: Path,
            standing: Standing | None,
            place: Place,
            look: Surveyed,
            objects: Sequence[ObjectInfo] | None,
        ) -> orchestrator.Sent | IngestPlan:
            with trace.stage(Stage.SCAN):
                request = self._request(rec_dir / MANIFEST_NAME, rec_dir, participant, rows, named_on_disk=True)
            with self._running() as stop:
                place.check()
                known = replace(
                    request, standing=standing or (None, ()), may_be_there=place.may_be_there, objects=objects
                )
                if look.state == state_of_scan(request.local.scan.files):
                    known = replace(known, seen_at=look.seen_at)
                if options.dry_run:
                    services = self._planning(stop)
                    plan = orchestrator.make_plan(services, known, Progress(request.local.rec_id, progress))
                    return with_parts(services.raw, services.raw_prefix, plan)
                services = replace(self._services(stop), upgrade=self._upgrading(gathering))
                return orchestrator.send(services, known, progress)

        return Verbs(
            send,
            lambda rec_dir, place: self.reconstruct_dir(rec_dir, progress=place.check),
            lambda rec_ids: Standings(lambda: self._catalog, rec_ids),
            lambda rec_dirs: Survey(
                rec_dirs,
                self._files,
                reread_bytes=self.profile.reread_bytes,
                reread_after_s=self.profile.reread_after_s,
            ),
            self._listed,
            gathering,
            self._shared_engine().recordings_at_once,
            self.stop,
            trace,
        )

    def _shared_committer(self) -> Committer:
        with self._opening:
            return self._committer

    def _listed(self, stopped: Callable[[], object]) -> Listed:
        raw = RetryingStore(self._raw, RetryPolicy())
        return Listed(raw, self.profile.raw.prefix, stopped, ranges=self.profile.kind == "s3")

    def ingest_from_r2(
        self,
        rec_id: str,
        participant: str | None = None,
        *,
        overwrite: bool = False,
        progress: UploadCallback | None = None,
    ) -> IngestResult:
        """Path B: the bytes are in the bucket; write the rows, after proving that every listed file is there.

        The manifest is ``manifest.json``, else ``_node_manifests/`` merged in memory. Nothing is uploaded or changed in
        the raw bucket; ``manifest["participant"]`` and ``participant.txt`` are not read.

        Args:
            rec_id: ``rec_<date>_<time>_<hex>``, as the prefix is called.
            participant: display name; None or "" is unknown.
            overwrite: replace this recording's rows.
            progress: called with ``UploadProgress``; what it raises stops the run.

        Raises:
            ManifestNotFoundError, ManifestError, MissingFilesError (``paths`` has every missing or short file),
            InvalidRecordingError, RecordingExistsError, ConflictError, WritesNotEnabledError, StorageError,
            CredentialsError, ConfigError. Whatever is raised, nothing is registered.
        """
        self._require("assets_rw", "ingest_from_r2")
        with self._running() as stop:
            return from_r2.ingest_from_r2(
                self._services(stop), rec_id, participant, overwrite=overwrite, progress=Progress(rec_id, progress)
            )

    def plan_from_r2(self, rec_id: str, participant: str | None = None, *, overwrite: bool = False) -> BucketPlan:
        """What ``ingest_from_r2`` would do; writes nothing, needs no ``enable_writes``. Raises the same errors."""
        with self._running() as stop:
            return make_plan(
                self._planning(stop), rec_id, participant, overwrite=overwrite, progress=Progress(rec_id, None)
            )

    def plan_from_r2_several(
        self, rec_ids: Iterable[str], participant: str | None = None, *, overwrite: bool = False
    ) -> Generator[tuple[str, BucketPlan | UrsaError]]:
        """What ``ingest_from_r2_several`` would do: rec_id and plan, or why there is none, of each once, in their order."""
        told = {rec_id: Progress(rec_id, None) for rec_id in rec_ids}
        with self._running() as stop:
            services = self._planning(stop)
            planned = plan_several(
                services, list(told), participant, overwrite=overwrite, told=told, together=_PLANNED_TOGETHER
            )
            with contextlib.closing(planned) as groups:
                for plans in groups:
                    yield from plans.items()

    def ingest_from_r2_several(
        self,
        rec_ids: Iterable[str],
        participant: str | None = None,
        *,
        overwrite: bool = False,
        progress: UploadCallback | None = None,
    ) -> list[Outcome]:
        """Path B for several recordings, read side by side, their rows in group commits; an ``Outcome`` each.

        One failure never stops the rest. ``progress`` is called from several threads.
        """
        self._require("assets_rw", "ingest_from_r2")
        with self._running() as stop:
            return from_r2.ingest_several(
                self._services(stop), list(rec_ids), participant, overwrite=overwrite, callback=progress
            )

    def register_recording(
        self,
        *,
        recording_hash: str,
        started_at: datetime | None = None,
        ended_at: datetime | None = None,
        duration_s: float | None = None,
        participant_ids: Iterable[str] = (),
        status: str = "raw",
        metadata: Mapping[str, Any] | None = None,
        on_conflict: OnConflict | str = OnConflict.ERROR,
    ) -> RecordingRow:
        """Make a recording's row in the recordings table, and in no other; returns the row as it is now.

        Args:
            recording_hash: 64 lower-case hex digits.
            started_at: as ``ended_at``; UTC where it has no zone.
            duration_s: seconds.
            participant_ids: ids as ``participant_id`` derives them; they may have no row yet.
            metadata: text to text; ``manifest_recording_id`` is the rec_id. Without it the recording goes by its hash.
                What ursa itself keeps there (``workers``, ``nodes``, ``sidecars``) may be passed on as it is.
            on_conflict: what to do where there is a row. ``error``: refuse. ``extend``: duration_s becomes the longer
                one; what else is given is left aside. ``merge_participants``: the union of participant_ids; every other
                field that is given must match (status counts as given unless it is ``"raw"``). ``overwrite``: duration_s
                and ended_at as given, nothing else.

        Raises:
            RecordingExistsError, ConflictError (another rec_id or hash, or a field that must match does not),
            UsageError (a ValueError), WritesNotEnabledError, StorageError.
        """
        self._require("assets_rw", "register_recording")
        policy = choice(OnConflict, on_conflict, "on_conflict")
        wanted = verbs.given(recording_hash, started_at, ended_at, duration_s, participant_ids, status, metadata)
        return verbs.register_recording(self._catalog, wanted, policy)

    def register_modality(
        self,
        *,
        recording_hash: str,
        modality: str,
        worker_id: str = "",
        node: str | None = None,
        files: Iterable[FileRow | Mapping[str, Any]] = (),
        status: str = "raw",
        metadata: Mapping[str, Any] | None = None,
        on_conflict: ModalityOnConflict | str = ModalityOnConflict.ERROR,
    ) -> ModalityRow:
        """Make a modality's row for a recording that is registered; returns it.

        Args:
            files: rows, or mappings with ``path`` and ``size_bytes``, and ``key`` (default: below the recording's
                prefix) and ``sha256`` where known. Each must be in the bucket with this size; a stated sha256 is proven,
                by reading the object where it does not state its own.
            on_conflict: ``error`` or ``overwrite``, which replaces the whole row.

        Raises:
            RecordingNotFoundError, MissingFilesError, ConflictError (there is a row), UsageError (a ValueError),
            WritesNotEnabledError, StorageError.
        """
        self._require("assets_rw", "register_modality")
        policy = choice(ModalityOnConflict, on_conflict, "on_conflict")
        row = ModalityRow(
            verbs.word(recording_hash, "recording_hash"),
            verbs.word(modality, "modality"),
            # 0 is no text, and not the same as none.
            "" if worker_id in (None, "") else verbs.word(worker_id, "worker_id"),
            verbs.word(status, "status"),
            None if node in (None, "") else verbs.word(node, "node"),
            file_rows(files),
            metadata=verbs.texts(metadata),
        )
        with self._running() as stop:
            raw, prefix = self._raw_for(stop), self.profile.raw.prefix
            return verbs.register_modality(self._catalog, raw, prefix, row, policy, self._proofs)

    def register_participant(self, display_name: str, *, participant_id: str | None = None) -> ParticipantRow:
        """The participant's row: the one that is there, or a new one.

        The id is derived from the name (``ursa.participant_id``) unless one is given. Raises ``UsageError`` for an
        empty name, ``InvalidRecordingError`` for one that is no line of text.
        """
        self._require("assets_rw", "register_participant")
        key = None if participant_id is None else verbs.word(participant_id, "participant_id")
        return verbs.register_participant(self._catalog, display_name, key)

    def plan_backfill(self, refs: Iterable[str] = ()) -> BackfillPlan:
        """What ``backfill_participants`` would do; writes nothing, needs no ``enable_writes``. Raises the same errors."""
        from ursa.register.participants import plan_backfill

        with self._running() as stop:
            return plan_backfill(self._services(stop), refs)

    def backfill_participants(
        self,
        refs: Iterable[str] = (),
        *,
        plan: BackfillPlan | None = None,
        on_recording: Callable[[BackfillItem], object] = lambda _item: None,
    ) -> BackfillResult:
        """Attach names from ``participant.txt`` in the bucket to recordings that have no participant.

        Recordings with participants stay as they are; an id of theirs that has no row gets the name that it is derived
        from, where their participant.txt has it. Killed anywhere, the same call goes on from there.

        Args:
            refs: rec_ids, recording_hashes or unique prefixes of one; none is every recording.
            plan: do this, a ``plan_backfill``, instead of looking into the bucket again.
            on_recording: told of each recording once it is committed.

        Raises:
            RecordingNotFoundError, UsageError, WritesNotEnabledError, StorageError, CredentialsError. A participant.txt
            that can't be read is in the result, as ``State.BROKEN``.
        """
        from ursa.register.backfill import backfill
        from ursa.register.participants import plan_backfill

        self._require("assets_rw", "backfill_participants")
        with self._running() as stop:
            services = self._services(stop)
            return backfill(services, plan or plan_backfill(services, refs), on_recording)

    def participants_overview(self) -> ParticipantsOverview:
        """Participants by name, each with its number of recordings and their first and last date."""
        from ursa.register.participants import participants_overview

        return participants_overview(self._catalog)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Self]:
        """The catalog as it is now, for all reads within; it is asked once.

        Without this each read asks what is new: one round trip. Raises as the reads do.
        """
        with self._catalog.snapshot():
            yield self

    def cache(self) -> CacheUse:
        """Where this machine's caches are, and what they hold."""
        return Caches(self.profile.cache_dir).use()

    def clear_cache(self, *, files: bool = False) -> int:
        """Remove this machine's copies of catalogs that no process has open; returns how many bytes that were.

        Args:
            files: also forget which files were read and which objects were measured.
        """
        return Caches(self.profile.cache_dir).clear() + (_forget(self._files) if files else 0)

    @property
    def catalog_as_of(self) -> datetime | None:
        """When this machine last asked for the catalog's news, UTC: what ``offline=True`` answers from; None: never."""
        return self._home.as_of

    def get_recording(self, recording_hash: str) -> RecordingRow:
        """The recording with this hash. Raises ``RecordingNotFoundError``."""
        return self._catalog.get_recording(recording_hash)

    def find_recording(self, rec_id: str) -> RecordingRow:
        """The recording with this rec_id. Raises ``RecordingNotFoundError``."""
        return self._catalog.find_recording(rec_id)

    def resolve(self, ref: str) -> RecordingRow:
        """The recording that a rec_id, a recording_hash or a unique prefix of one names.

        Raises ``RecordingNotFoundError``, or ``UsageError`` where several have that prefix.
        """
        return self._catalog.resolve(ref)

    def list_recordings(self, where: Mapping[str, Any] | None = None) -> list[RecordingRow]:
        """Recordings by date; ``where`` is column → value or list of values. Raises ``UsageError``."""
        return self._catalog.list_recordings(where)

    def list_modalities(self, where: Mapping[str, Any] | None = None) -> list[ModalityRow]:
        """Modalities of registered recordings; ``where`` as in ``list_recordings``."""
        return self._catalog.list_modalities(where)

    def list_participants(self, where: Mapping[str, Any] | None = None) -> list[ParticipantRow]:
        """Participants by name; ``where`` as in ``list_recordings``."""
        return self._catalog.list_participants(where)

    def query(
        self,
        recording_hash: str | Iterable[str] | None = None,
        modalities: str | Iterable[str] | None = None,
        participants: str | Iterable[str] | None = None,
        status: str | Iterable[str] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
    ) -> QueryResult:
        """Find recordings and their modalities; see ``ursa.catalog.query``."""
        return query(
            self._catalog,
            recording_hash=recording_hash,
            modalities=modalities,
            participants=participants,
            status=status,
            since=since,
            until=until,
        )

    def overview(
        self,
        recording_hash: str | None = None,
        *,
        participants: Iterable[str] | None = None,
        modalities: Iterable[str] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
    ) -> list[RecordingOverview]:
        """Recordings by date, each with its participants' names and all its modalities; what ``ls`` and ``show`` print."""
        return overview(
            self._catalog,
            recording_hash=recording_hash,
            participants=participants,
            modalities=modalities,
            since=since,
            until=until,
        )

    def download(
        self, results: QueryResult, dest: Path | str, *, progress: DownloadCallback | None = None
    ) -> DownloadResult:
        """Fetch a query's files to ``dest/<rec_id>/<path>``, verified; see ``ursa.fetch``.

        ``progress`` is called with ``DownloadProgress`` at six phases, from this thread. What was measured of files whose
        rows don't prove them goes into the rows where ``assets_rw`` is enabled; else it is kept on this machine.
        """
        from ursa.fetch import fetch

        measured: list[Measured] = []

        def keep(item: Measured) -> None:
            self._proofs.record(ObjectInfo(item.key, item.size_bytes, item.etag), item.sha256)
            measured.append(item)

        with self._running() as stop:
            raw = self._raw_for(stop)
            try:
                return fetch(self._engine, raw, results, Path(dest), stop=stop, callback=progress, on_measured=keep)
            finally:
                self._upgrade_fetched(results, measured)

    def _upgrade_fetched(self, results: QueryResult, measured: Sequence[Measured]) -> None:
        wanted = {item.recording_hash for item in measured}
        seen: dict[str, dict[str, FileRow]] = {}
        for of in (row for rows in results.modalities.values() for row in rows if row.recording_hash in wanted):
            seen.setdefault(of.recording_hash, {}).update({file.path: file for file in of.files})
        files: dict[tuple[str, str], dict[str, FileRow]] = {}
        for item in measured:
            row = FileRow(item.path, item.key, item.size_bytes, item.sha256, item.etag, Evidence.SHA256)
            files.setdefault((item.rec_id, item.recording_hash), {})[item.path] = row
        self._upgrade(*(Upgrade(*name, rows, seen.get(name[1], {})) for name, rows in files.items()))

    def verify(
        self,
        refs: Iterable[Path | str] = (),
        *,
        everything: bool = False,
        level: Level | str | None = None,
        subset: str | None = None,
        executor: Executor | None = None,
        on_file: Callable[[str, FileCheck], object] = lambda _rec_id, _check: None,
    ) -> list[RecordingCheck]:
        """Compare catalog and bucket, and for a directory the disk too. Where ``assets_rw`` is enabled, rows get what was
        measured; else it is kept on this machine. Nothing else is written.

        Args:
            refs: rec_ids, recording_hashes, unique prefixes of one, or recording directories.
            everything: every recording of the catalog.
            level: see ``ursa.policies.Level``; None is ``full`` for a directory and ``head`` for everything else.
            subset: ``"2/7"``, ``"5%"`` or ``"10G"`` of all the files that this is about.
            executor: any ``concurrent.futures.Executor`` that checks recordings side by side; its workers make
                connections of their own. Directories are read here.

        Raises:
            RecordingNotFoundError, InvalidRecordingError, ManifestError, UsageError: of a single one; among several, what
            can't be looked at is a check with an error. What is wrong with a file is in its check.
        """
        options: dict[str, Any] = {"everything": everything, "level": level, "subset": subset}
        return list(self.verify_each(refs, **options, executor=executor, on_file=on_file))

    def verify_each(
        self,
        refs: Iterable[Path | str] = (),
        *,
        everything: bool = False,
        level: Level | str | None = None,
        subset: str | None = None,
        executor: Executor | None = None,
        on_file: Callable[[str, FileCheck], object] = lambda _rec_id, _check: None,
    ) -> Iterator[RecordingCheck]:
        """As ``verify``, a recording at a time: what has been looked at is not kept. Raises once it is iterated over."""
        from ursa.verify import candidates
        from ursa.verify import in_order as by_workers

        picked, depth = parse_subset(subset), None if level is None else choice(Level, level, "level")
        refs = list(refs)
        objects = self._begin_listing(refs[:_LISTED_EARLY])
        named, wrong = self._named(refs)
        for check in wrong:
            on_file(check.rec_id, check.files[0])
            yield check
        chosen: dict[str, set[tuple[str, str]]] | None = None
        if subset is not None:
            every = [file for group in self._subjects(named, everything) for s in group for file in candidates(s)]
            chosen = {}
            for rec_id, path, _size in picked.choose(every):
                chosen.setdefault(rec_id, set()).add((rec_id, path))
        with Gathering(lambda: self._catalog, self._shared_committer) as gathering:
            gathering.enter()
            upgrade = self._upgrading(gathering)
            for group in self._subjects(named, everything):
                items = [(s, depth, None if chosen is None else chosen.get(s.rec_id, set())) for s in group]
                if executor is not None:
                    checks = by_workers(executor, self._remote("_verify_one"), self._verify_one, items, on_file)
                else:
                    checks = self._checked_here(items, objects, on_file)
                rows = {subject.rec_id: subject.rows for subject in group}
                for check in checks:
                    upgrade(*self._upgrades_of(check, rows.get(check.rec_id, [])))
                    yield check

    def _begin_listing(self, refs: Sequence[Path | str]) -> dict[str, Future[list[ObjectInfo]]]:
        """Begin to list the recordings that are named in full, beside the look into the catalog."""
        from ursa.verify import stated_rec_id

        raw, prefix = RetryingStore(self._raw, RetryPolicy()), self.profile.raw.prefix
        rec_ids = filter(None, map(stated_rec_id, refs))
        return {name: begin(lambda name=name: list(raw.list(f"{prefix}{name}/"))) for name in rec_ids}  # type: ignore[misc]

    def _named(self, refs: Sequence[Path | str]) -> tuple[list[Subject], list[RecordingCheck]]:
        """What these are, as the catalog is now; and the verdicts for what can't be looked at, which is raised of a single
        one.
        """
        from ursa.verify import could_not

        named, wrong = [], []
        with self.snapshot() if refs else contextlib.nullcontext():
            for ref in refs:
                try:
                    named.append(self._subject_of(ref))
                except (InvalidRecordingError, ManifestError, RecordingNotFoundError) as error:
                    if len(refs) == 1:
                        raise
                    wrong.append(could_not(ref, error))
        return named, wrong

    def _checked_here(
        self,
        items: Sequence[tuple[Subject, Level | None, Collection[tuple[str, str]] | None]],
        objects: dict[str, Future[list[ObjectInfo]]],
        on_file: Callable[[str, FileCheck], object],
    ) -> Iterator[RecordingCheck]:
        """In their order, many under way at once. ``objects``: listings that have begun."""
        from ursa.verify import Begun
        from ursa.verify import begin as begin_one

        with self._running() as stop:
            means = self._means(stop)

            def one(item: tuple[Subject, Level | None, Collection[tuple[str, str]] | None]) -> Begun:
                known = objects.pop(item[0].rec_id, None)
                return begin_one(means, *item, known.result() if known else None)

            for begun in in_order(stop, one, items, self._engine.recordings_at_once):
                yield begun.finish(on_file)

    def _subjects(self, named: list[Subject], everything: bool) -> Iterator[list[Subject]]:
        """What is to be verified, some thousand recordings at a time: the rows of all of them need not fit in memory."""
        from ursa.verify import Subject

        if named:
            yield named
        rows = sorted(self.list_recordings(), key=lambda row: row.rec_id) if everything else []
        hashes = [row.recording_hash for row in rows]
        del rows
        for start in range(0, len(hashes), _VERIFIED_AT_ONCE):
            found = overview(self._catalog, recording_hash=hashes[start : start + _VERIFIED_AT_ONCE])
            yield [Subject(item.recording.rec_id, item.recording, item.modalities, None) for item in found]

    def _upgrades_of(self, check: RecordingCheck, rows: Sequence[FileRow]) -> list[Upgrade]:
        """What a check has proven better than its recording's rows say: one, or none."""
        there = {row.path: row for row in rows}
        measured = {item.path: item.measured for item in check.files if item.measured and item.path in there}
        proven = {path: row for path, row in measured.items() if row and better(there[path], row)}
        return [Upgrade(check.rec_id, check.recording_hash, proven, there)] if proven and check.recording_hash else []

    @cached_property
    def _allowance(self) -> Allowance:
        from ursa.verify import Allowance

        return Allowance()

    def _verify_one(
        self,
        subject: Subject,
        level: Level | None,
        chosen: Collection[tuple[str, str]] | None,
        on_file: Callable[[str, FileCheck], object] = lambda _rec_id, _check: None,
    ) -> RecordingCheck:
        """Here, or in an executor's worker."""
        from ursa.verify import begin

        with self._running() as stop:
            return begin(self._means(stop), subject, level, chosen).finish(on_file)

    def _means(self, stop: Stop) -> Means:
        from ursa.verify import Means

        raw = self._raw_for(stop)
        return Means(self._engine, raw, self.profile.raw.prefix, self._proofs, self._allowance, stop.check)

    def list_uploads(self, *, older_than_s: float = 0.0) -> list[OpenUpload]:
        """Multipart uploads that nobody completed, begun at least so many seconds ago; the oldest first.

        Their age is by the server's clock; one of which it does not tell the beginning has none. Raises ``StorageError``,
        also where an age is asked for and the server tells no time, or this machine's is over 15 minutes off.
        """
        with self._running() as stop:
            raw, prefix = self._raw_for(stop), self.profile.raw.prefix
            found = sorted(raw.list_uploads(prefix), key=lambda item: (str(item.initiated_at or ""), item.key))
            if not found or older_than_s <= 0:
                return found
            limit = _now(raw, prefix) - timedelta(seconds=older_than_s)
        return [item for item in found if item.initiated_at is not None and item.initiated_at <= limit]

    def abort_uploads(self, uploads: Iterable[OpenUpload]) -> int:
        """Drop multipart uploads: their parts are deleted, and a re-run can't take them over. Needs ``raw_rw``."""
        self._require("raw_rw", "abort_uploads")
        with self._running() as stop:
            raw = self._raw_for(stop)

            def abort(item: OpenUpload) -> None:
                raw.abort_upload(item.key, item.upload_id)

            return sum(1 for _ in as_they_come(stop, abort, uploads, self._engine.recordings_at_once))

    def doctor(
        self, paths: Iterable[Path | str] = (), *, on_probe: Callable[[ProbeResult], object] | None = None
    ) -> list[ProbeResult]:
        """Probe everything that an ingest leans on, and ``paths`` (NAS roots, recording directories).

        What is wrong is in the results, never raised. The writing roles write an object of their own beside the
        recordings and delete it, whether or not ``enable_writes`` was called. Where the config itself may be broken,
        call ``ursa.diagnose``.
        """
        from ursa.doctor import diagnose

        return diagnose(self.profile.name, config=self.config, paths=paths, on_probe=on_probe)

    def init_catalog(self) -> bool:
        """Make the catalog where there is none; returns whether it is new. Needs ``assets_rw``."""
        self._require("assets_rw", "init_catalog")
        _pointer, made = self._home.initialize()
        return made

    def rebuild(
        self,
        *,
        flip: bool = True,
        drop_lost: bool = False,
        dry_run: bool = False,
        executor: Executor | None = None,
        progress: HashCallback | None = None,
    ) -> RebuildResult:
        """Derive every row anew from the bucket into a new prefix, and put that in the live catalog's place.

        Killed at any step, the same call goes on. See ``ursa.rebuild``.

        Args:
            flip: make the new catalog live; without it only fill and compare.
            drop_lost: go on though recordings that are registered get no row, since their bytes are not there.
            dry_run: derive and compare, write nothing; needs no ``enable_writes``.
            executor: any ``concurrent.futures.Executor``; its workers make connections of their own.
            progress: called with ``HashProgress``; recordings count as files.

        Raises:
            MissingFilesError: registered recordings would be lost. ConflictError: the pointer was changed meanwhile.
            WritesNotEnabledError, StorageError, CredentialsError, ConfigError.
        """
        from ursa.rebuild.run import Site, rebuild

        if not dry_run:
            self._require("assets_rw", "rebuild")
        with self._running() as stop:
            site = Site(
                self._home,
                self._raw_for(stop),
                self.profile.raw.prefix,
                self._derive_here(stop) if executor is None else self._derive_by(executor),
                stop.check,
            )
            try:
                return rebuild(site, put_in_place=flip, drop_lost=drop_lost, dry_run=dry_run, callback=progress)
            finally:
                self.__dict__.pop("_catalog", None)
                self.__dict__.pop("_committer", None)

    def abort_rebuild(self) -> str | None:
        """Give up a rebuild that is under way: writers go on as before, what was filled is deleted.

        Returns the prefix that was being filled, None where no rebuild was under way. Needs ``assets_rw``.

        Raises:
            ConflictError: the rebuild was put in place meanwhile.
        """
        from ursa.rebuild.flip import abort

        self._require("assets_rw", "abort_rebuild")
        try:
            return abort(self._home)
        finally:
            self.__dict__.pop("_catalog", None)
            self.__dict__.pop("_committer", None)

    def rebuild_back(self, *, dry_run: bool = False, drop_lost: bool = False) -> BackResult:
        """Make the catalog live again that was live before the last rebuild, with all that was registered since.

        Needs ``assets_rw`` unless it is a ``dry_run``. See ``ursa.rebuild.back``.

        Args:
            dry_run: only compare.
            drop_lost: recordings that have other rows there, of files that are not in the bucket, stay as they are now.

        Raises:
            MissingFilesError: rows of there speak of files that are not in the bucket. ConflictError: a rebuild is under
            way, or the pointer was changed meanwhile. UsageError: there is nothing to go back to.
            WritesNotEnabledError, StorageError, CredentialsError, ConfigError.
        """
        from ursa.rebuild.back import back

        if not dry_run:
            self._require("assets_rw", "rebuild_back")
        try:
            with self._running() as stop:
                return back(self._home, self._look(stop), dry_run=dry_run, drop_lost=drop_lost)
        finally:
            self.__dict__.pop("_catalog", None)
            self.__dict__.pop("_committer", None)

    def catalog_location(self) -> dict[str, str]:
        """Table name → URI, as deltalake, DuckDB and Polars take it."""
        return self._catalog.locations()

    def catalog_history(self, limit: int | None = None, since: datetime | None = None) -> list[Operation]:
        """Who did what when, newest first: at most ``limit`` operations, none that ended before ``since``."""
        return history(self._catalog, limit, since)

    def undo(self, to: str | UndoPlan, dry_run: bool = False) -> UndoPlan:
        """Restore all three tables to just after an operation; returns what that does. Needs ``assets_rw``.

        Args:
            to: an operation's id or a unique prefix of it, or the plan that a ``dry_run`` returned.
            dry_run: only plan; needs no ``enable_writes``.

        Raises:
            UsageError: no operation has that id, or several have.
            MissingFilesError: files of what would come back or change are not in the bucket as they were registered.
                Nothing was changed. A ``dry_run`` has them in the plan's ``missing``.
            StorageError: somebody has written since the plan was made, a rebuild is under way, or the operation is
                older than what the catalog keeps (90 days).
            WritesNotEnabledError, CredentialsError, ConfigError.
        """
        from ursa.catalog.undo import UndoPlan, plan_undo, undo

        if not dry_run:
            self._require("assets_rw", "undo")
        with self._running() as stop:
            look = self._look(stop)
            plan = to if isinstance(to, UndoPlan) else plan_undo(self._catalog, to, look)
            if not dry_run:
                undo(self._catalog, plan, look)
        return plan

    def _look(self, stop: Stop) -> Look:
        """Whether the bucket has what rows would claim anew: a LIST a recording."""
        from ursa.bucket.presence import unproven

        def one(claim: Seen) -> list[str]:
            return unproven(self._raw_for(stop), self.profile.raw.prefix, claim, self._proofs)

        return lambda claims: [
            path for paths in as_they_come(stop, one, claims, self._engine.recordings_at_once) for path in paths
        ]

    def compact_catalog(self, dry_run: bool = False) -> CompactResult:
        """Merge and sort the tables' files, remove what dead runs left, delete what is past 90 days by the server's clock.

        Needs ``assets_rw`` unless it is a ``dry_run``. Others may read and write meanwhile. Where this machine's clock is over
        15 minutes off, nothing is deleted, and ``refused`` says so. Raises ``StorageError``.
        """
        from ursa.catalog.compact import compact

        if not dry_run:
            self._require("assets_rw", "compact_catalog")
        return compact(self._catalog, dry_run=dry_run)

    def _request(
        self,
        manifest_path: Path | str | None,
        source_dir: Path | str,
        participant: str | None,
        options: Options,
        *,
        named_on_disk: bool = False,
    ) -> orchestrator.Request:
        if not isinstance(source_dir, str | os.PathLike):
            raise UsageError(f"source_dir is {source_dir!r}; it is the recording's directory")
        if manifest_path is not None and not isinstance(manifest_path, str | os.PathLike):
            raise UsageError(f"manifest_path is {manifest_path!r:.80}; it is a manifest's path, or None")
        return orchestrator.read_request(
            Path(manifest_path) if manifest_path is not None else None,
            Path(source_dir),
            participant,
            options,
            key_prefix=self.profile.raw.prefix,
            rig_timezone=self.profile.rig_timezone,
            named_on_disk=named_on_disk,
        )

    def _subject_of(self, ref: Path | str) -> Subject:
        from ursa.verify import Subject, looks_like_directory, stated_rec_id

        catalog, rec_id = self._catalog, stated_rec_id(ref)
        if rec_id is not None:
            catalog.bring_standing(by_rec_id([rec_id]))
        if not looks_like_directory(ref):
            return self._subject(catalog.resolve(str(ref)))
        try:
            manifest = load_manifest(Path(ref)).manifest
        except ManifestNotFoundError:
            manifest = None
        name = Path(ref).absolute().name
        found = catalog.list_recordings({"rec_id": name})
        subject = self._subject(found[0]) if found else Subject(name, None, (), None)
        registered = [row.path for row in subject.rows]
        scan = scan_recording(Path(ref), manifest=manifest, key_prefix=self.profile.raw.prefix, registered=registered)
        return replace(subject, disk=scan.by_path)

    def _subject(self, row: RecordingRow) -> Subject:
        from ursa.verify import Subject

        modalities = (item for item in self._catalog.modalities_for([row]) if covers(row, item))
        return Subject(row.rec_id, row, tuple(modalities), None)

    def _derive_here(self, stop: Stop) -> Deriver:
        from ursa.rebuild.derive import derive

        source = self._source(stop, self._home.author.by)
        return lambda wanted: in_order(
            stop, lambda item: derive(source, *item), wanted, self._engine.recordings_at_once
        )

    def _derive_by(self, executor: Executor) -> Deriver:
        call, by = self._remote("_derive_one"), self._home.author.by
        return lambda wanted: by_executor(executor, call, ((by, *item) for item in wanted))

    def _derive_one(
        self,
        by: str,
        rec_id: str,
        row: RecordingRow | None,
        modalities: Sequence[ModalityRow],
        since: datetime | None,
    ) -> Derived:
        """In an executor's worker."""
        from ursa.rebuild.derive import derive

        with self._running() as stop:
            return derive(self._source(stop, by), rec_id, row, modalities, since)

    def _source(self, stop: Stop, by: str) -> Source:
        from ursa.rebuild.derive import Source

        return Source(
            self._raw_for(stop),
            self.profile.raw.prefix,
            self.profile.rig_timezone,
            self._shared_engine(),
            stop,
            by,
            self._proofs,
        )

    def _shared_engine(self) -> Engine:
        with self._opening:
            return self._engine

    def _remote(self, method: str) -> RemoteCall:
        """A call of a method in an executor's worker, which opens its own connections with its own credentials."""
        return RemoteCall(type(self), self.profile.name, self.config, tuple(sorted(self._enabled)), method)

    @cached_property
    def _committer(self) -> Committer:
        return Committer(self._catalog)

    def _may_upgrade(self) -> bool:
        return "assets_rw" in self._enabled and not self._catalog.dated

    def _upgrading(self, gathering: Gathering) -> Callable[..., None]:
        """As ``_upgrade``, with what else the run registers; nobody waits for it."""

        def upgrade(*wanted: Upgrade) -> None:
            if self._may_upgrade():
                gathering.upgrade(*wanted)

        return upgrade

    def _upgrade(self, *wanted: Upgrade) -> None:
        """Where the catalog may not or can't be written, the files cache has what was measured, and nothing is lost."""
        if not self._may_upgrade():
            return
        try:
            self._committer.upgrade(*wanted)
        except UrsaError as error:
            _log.warning("what was measured is not in the catalog yet: %s", error.message)

    def _hashes(self, rec_id: str) -> dict[str, Entry]:
        role: Role = "assets_rw" if "assets_rw" in self._enabled else "assets_ro"
        store = RetryingStore(self._store(self.profile.assets.bucket, role), RetryPolicy())
        return read_record(store, record_key(self.profile.assets.prefix, rec_id), self.profile.raw.bucket)

    def _planning(self, stop: Stop) -> Services:
        """For a plan, which writes nothing, whatever is enabled."""
        return replace(self._services(stop), upgrade=lambda *_wanted: None)

    def _services(self, stop: Stop) -> Services:
        with self._opening:
            return Services(
                self._raw_for(stop),
                self.profile.raw.prefix,
                self.profile.rig_timezone,
                self._catalog,
                self._committer.register,
                self._upgrade,
                self._files,
                self._proofs,
                self._hashes,
                self._admitted,
                self.profile.reread_after_s,
                self._engine,
                self._counter,
                stop,
            )


def _jobs(jobs: int | None) -> int | None:
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs is {jobs}; at least one recording must be in flight")
    return jobs


def _now(store: Store, prefix: str) -> datetime:
    from ursa.catalog.retention import CleanUpRefusedError, server_now

    try:
        return server_now(store, prefix)
    except CleanUpRefusedError as refused:
        raise StorageError(
            f"can't tell what is old: {refused}", hint="Set this machine's clock (`ursa doctor`), then run it again."
        ) from None


__all__ = ["DataInterface"]
