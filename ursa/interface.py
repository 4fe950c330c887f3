"""``DataInterface``: the public verbs, each a few lines onto the modules below."""

from __future__ import annotations

import getpass
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from ursa import __version__
from ursa.catalog.catalog import Catalog
from ursa.catalog.home import CatalogHome
from ursa.catalog.overview import RecordingOverview, overview
from ursa.catalog.query import QueryResult, query
from ursa.catalog.rows import ModalityRow, ParticipantRow, RecordingRow
from ursa.catalog.tables import Author
from ursa.config import Config, Profile, Role, load_config
from ursa.credentials import CredentialsProvider, provider_for
from ursa.errors import ConfigError, ManifestNotFoundError, UsageError, WritesNotEnabledError
from ursa.events import DownloadCallback, UploadCallback
from ursa.fetch import DownloadResult, fetch
from ursa.policies import Existing, Level
from ursa.recording import MANIFEST_NAME, load_manifest, read_participant, scan_recording
from ursa.register import orchestrator
from ursa.register.decide import auxiliary
from ursa.register.planning import Options
from ursa.register.progress import Progress
from ursa.register.results import IngestPlan, IngestResult
from ursa.register.several import Outcome, ingest_several
from ursa.store import OpenUpload, Store
from ursa.store.counting import RequestCounter
from ursa.store.local import LocalStore
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.limits import BandwidthLimit, parse_timetable
from ursa.verify import FileCheck, RecordingCheck, Subject, looks_like_directory, parse_subset, verify

_WRITING: tuple[Role, ...] = ("assets_rw", "raw_rw")


class DataInterface:
    """A lab's recordings: the raw bucket, the catalog, and the way between a disk and both.

    Nothing connects, runs ``op`` or reads a secret until it is needed. Reading needs no ``enable_writes``.

    Args:
        profile: a profile of the config file, or the built-in ``local``.
        config_path: a config file instead of the user's own.
        transfers: requests in flight; None follows the link.
        bandwidth: limit for uploads: ``"20M"`` (MiB a second) or a timetable ``"08:00,5M 19:00,off"``.

    Raises:
        ConfigError: no such profile, or the config file is wrong.
    """

    def __init__(
        self,
        profile: str = "r2",
        config_path: Path | str | None = None,
        *,
        transfers: int | None = None,
        bandwidth: str | None = None,
    ) -> None:
        self.config: Config = load_config(Path(config_path) if config_path is not None else None)
        self.profile: Profile = self.config.profile(profile)
        if transfers is not None and transfers < 1:
            raise UsageError(f"transfers is {transfers}; at least one request must be in flight")
        self._transfers = transfers
        self._bandwidth = BandwidthLimit(parse_timetable(bandwidth) if bandwidth else ())
        self._enabled: frozenset[Role] = frozenset()
        self._stops: set[Stop] = set()
        self._counter = RequestCounter()
        self._opening = threading.Lock()  # recordings in flight share one engine and one catalog

    def __repr__(self) -> str:
        return f"DataInterface(profile={self.profile.name!r})"

    def __enter__(self) -> DataInterface:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the transfer threads. Not needed at the end of a program."""
        if "_engine" in self.__dict__:
            self._engine.close()
            del self._engine

    def enable_writes(self, roles: Iterable[str] = ("assets_rw",)) -> None:
        """Allow writes: ``assets_rw`` to the catalog, ``raw_rw`` to the raw bytes. Reads no secret yet.

        Raises:
            UsageError: no such writing role.
        """
        wanted = [roles] if isinstance(roles, str) else list(roles)
        unknown = [role for role in wanted if role not in _WRITING]
        if unknown:
            raise UsageError(
                f"{unknown[0]!r} is not a writing role", hint=f"The writing roles are {', '.join(_WRITING)}."
            )
        self._enabled |= {role for role in _WRITING if role in wanted}
        # Handles that were opened for reading are made again with the writing role's credentials.
        for name in ("_raw", "_catalog", "_home"):
            self.__dict__.pop(name, None)

    def ingest(
        self,
        manifest_path: Path | str | None,
        source_dir: Path | str,
        participant: str | None = None,
        *,
        overwrite: bool = False,
        replace_objects: bool = False,
        trust_size: bool = False,
        progress: UploadCallback | None = None,
    ) -> IngestResult:
        """Path A: upload or skip every file of a recording, prove that it arrived, write the rows.

        Args:
            manifest_path: ``manifest.json`` or a node manifest; where it does not exist, ``_node_manifests/`` is merged.
            source_dir: the recording's directory; its name is the rec_id.
            participant: display name as typed; None or "" is unknown. ``participant.txt`` is not read here.
            overwrite: replace this recording's rows, never those of workers that are not on this disk.
            replace_objects: also replace objects that hold other content.
            trust_size: an object of the same size counts as the same, unproven.
            progress: called with ``UploadProgress``, from this thread; what it raises stops the ingest.

        Raises:
            WritesNotEnabledError, InvalidRecordingError, ManifestError, ManifestNotFoundError, RecordingExistsError,
            ConflictError, MissingFilesError, ChecksumMismatchError, FileChangedError, ObjectConflictError, StorageError,
            CredentialsError, ConfigError. Whatever is raised, nothing of this run is registered.
        """
        self._require("raw_rw", "ingest")
        self._require("assets_rw", "ingest")
        options = Options(overwrite, replace_objects, trust_size)
        request = self._request(manifest_path, source_dir, participant, options)
        with self._running() as stop:
            return orchestrator.ingest(self._services(stop), request, progress)

    def plan_ingest(
        self,
        manifest_path: Path | str | None,
        source_dir: Path | str,
        participant: str | None = None,
        *,
        overwrite: bool = False,
        replace_objects: bool = False,
        trust_size: bool = False,
        progress: UploadCallback | None = None,
    ) -> IngestPlan:
        """What ``ingest`` would do, without writing anything; needs no ``enable_writes``. Raises the same errors."""
        options = Options(overwrite, replace_objects, trust_size)
        request = self._request(manifest_path, source_dir, participant, options)
        with self._running() as stop:
            return orchestrator.make_plan(self._services(stop), request, Progress(request.local.rec_id, progress))

    def ingest_dirs(
        self,
        rec_dirs: Iterable[Path | str],
        *,
        participant: str | None = None,
        existing: Existing | str = Existing.ERROR,
        overwrite: bool = False,
        replace_objects: bool = False,
        trust_size: bool = False,
        jobs: int = 1,
        progress: UploadCallback | None = None,
    ) -> Iterator[Outcome]:
        """Path A for several directories; an ``Outcome`` each, in their order. One failure never stops the rest.

        Args:
            participant: for all of them; None reads each directory's ``participant.txt``.
            existing: ``error`` or ``skip`` recordings that are registered with the same files, or ``overwrite``.
            jobs: recordings in flight. With more than one, ``progress`` is called from several threads.

        Raises:
            WritesNotEnabledError, UsageError; what happens to a recording is in its outcome.
        """
        self._require("raw_rw", "ingest")
        self._require("assets_rw", "ingest")
        if jobs < 1:
            raise UsageError(f"jobs is {jobs}; at least one recording must be in flight")
        policy = Existing(existing)

        def one(rec_dir: Path) -> IngestResult:
            return self.ingest(
                rec_dir / MANIFEST_NAME,
                rec_dir,
                # What is no directory is refused by what comes next, in better words.
                read_participant(rec_dir) if participant is None and os.path.isdir(rec_dir) else participant,  # noqa: PTH112
                overwrite=overwrite or policy is Existing.OVERWRITE,
                replace_objects=replace_objects,
                trust_size=trust_size,
                progress=progress,
            )

        return ingest_several(one, map(Path, rec_dirs), jobs=jobs, existing=policy, stop=self.stop)

    def stop(self) -> None:
        """Ask everything that runs in other threads to stop: nothing new starts, and each raises KeyboardInterrupt."""
        for stop in list(self._stops):
            stop.set()

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

        ``progress`` is called with ``DownloadProgress`` at six phases, from this thread.
        """
        with self._running() as stop:
            return fetch(self._engine, self._raw_for(stop), results, Path(dest), stop=stop, callback=progress)

    def verify(
        self,
        refs: Iterable[Path | str] = (),
        *,
        everything: bool = False,
        level: Level | str = Level.CHECKSUM,
        subset: str | None = None,
        on_file: Callable[[str, FileCheck], object] = lambda _rec_id, _check: None,
    ) -> list[RecordingCheck]:
        """Compare catalog and bucket, and for a directory the disk too. Writes nothing.

        Args:
            refs: rec_ids, recording_hashes, unique prefixes of one, or recording directories.
            everything: every recording of the catalog.
            level: see ``ursa.policies.Level``.
            subset: ``"2/7"``, ``"5%"`` or ``"10G"`` of each recording's files.

        Raises:
            RecordingNotFoundError, UsageError; what is wrong with a file is in its check.
        """
        chosen = parse_subset(subset)
        wanted = [self._subject_of(ref) for ref in refs]
        if everything:
            wanted += [self._subject(item.recording.rec_id, item) for item in self.overview()]
        with self._running() as stop:
            return verify(
                self._engine,
                self._raw_for(stop),
                self.profile.raw.prefix,
                wanted,
                level=Level(level),
                subset=chosen,
                on_file=on_file,
            )

    def list_uploads(self, *, older_than_s: float = 0.0) -> list[OpenUpload]:
        """Multipart uploads that nobody completed, begun at least so many seconds ago; the oldest first."""
        limit = datetime.now(UTC) - timedelta(seconds=older_than_s)
        with self._running() as stop:
            found = list(self._raw_for(stop).list_uploads(self.profile.raw.prefix))
        old = [item for item in found if item.initiated_at is None or item.initiated_at <= limit]
        return sorted(old, key=lambda item: (item.initiated_at or limit, item.key))

    def abort_uploads(self, uploads: Iterable[OpenUpload]) -> int:
        """Drop multipart uploads: their parts are deleted, and a re-run can't take them over. Needs ``raw_rw``."""
        self._require("raw_rw", "abort_uploads")
        count = 0
        with self._running() as stop:
            for item in uploads:
                self._raw_for(stop).abort_upload(item.key, item.upload_id)
                count += 1
        return count

    def init_catalog(self) -> bool:
        """Make the catalog where there is none; returns whether it is new. Needs ``assets_rw``."""
        self._require("assets_rw", "init_catalog")
        _pointer, made = self._home.initialize()
        return made

    def catalog_location(self) -> dict[str, str]:
        """Table name → URI, as deltalake, DuckDB and Polars take it."""
        return self._catalog.locations()

    def _request(
        self, manifest_path: Path | str | None, source_dir: Path | str, participant: str | None, options: Options
    ) -> orchestrator.Request:
        return orchestrator.read_request(
            Path(manifest_path) if manifest_path is not None else None,
            Path(source_dir),
            participant,
            options,
            key_prefix=self.profile.raw.prefix,
            rig_timezone=self.profile.rig_timezone,
        )

    def _subject_of(self, ref: Path | str) -> Subject:
        if not looks_like_directory(ref):
            row = self.resolve(str(ref))
            return self._subject(row.rec_id, self.overview(row.recording_hash)[0])
        try:
            manifest = load_manifest(Path(ref)).manifest
        except ManifestNotFoundError:
            manifest = None
        scan = scan_recording(Path(ref), manifest=manifest, key_prefix=self.profile.raw.prefix)
        found = self.list_recordings({"rec_id": scan.rec_id})
        item = self.overview(found[0].recording_hash)[0] if found else None
        # A different participant.txt in the bucket is a peer's, and right: it is not compared.
        disk = {file.path: file for file in scan.files if file.kind != "participant"}
        return replace(self._subject(scan.rec_id, item), disk=disk)

    @staticmethod
    def _subject(rec_id: str, item: RecordingOverview | None) -> Subject:
        if item is None:
            return Subject(rec_id, None, (), {}, None)
        return Subject(rec_id, item.recording, item.modalities, auxiliary(item.recording), None)

    def _services(self, stop: Stop) -> orchestrator.Services:
        with self._opening, ThreadPoolExecutor(1) as beside:
            # The catalog opens in a dozen round trips; meanwhile this thread loads what the raw bucket needs.
            catalog = beside.submit(lambda: self._catalog)
            raw = self._raw_for(stop)
            return orchestrator.Services(
                raw, self.profile.raw.prefix, catalog.result(), self._engine, self._counter, stop
            )

    def _require(self, role: Role, verb: str) -> None:
        if role not in self._enabled:
            raise WritesNotEnabledError(
                f"{verb} writes, and the role {role} is not enabled",
                hint=f'Call data.enable_writes(roles=("assets_rw", "raw_rw")) first; {verb} needs {role}.'
                if role == "raw_rw"
                else f"Call data.enable_writes() first; {verb} needs {role}.",
                role=role,
            )

    def _running(self) -> _Running:
        return _Running(self._stops)

    @cached_property
    def _engine(self) -> Engine:
        return Engine(transfers=self._transfers, bandwidth=self._bandwidth)

    @cached_property
    def _credentials(self) -> CredentialsProvider:
        return provider_for(self.profile)

    @cached_property
    def _raw(self) -> Store:
        return self._store(self.profile.raw.bucket, "raw_rw" if "raw_rw" in self._enabled else "raw_ro")

    def _raw_for(self, stop: Stop) -> Store:
        return RetryingStore(self._raw, RetryPolicy(stopped=stop))

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog.open(self._home)

    @cached_property
    def _home(self) -> CatalogHome:
        role: Role = "assets_rw" if "assets_rw" in self._enabled else "assets_ro"
        local = self.profile.kind == "local"
        bucket = self.profile.assets.bucket
        return CatalogHome(
            store=RetryingStore(self._store(bucket, role), RetryPolicy()),
            assets_prefix=self.profile.assets.prefix,
            base_uri=f"{self._root / bucket}/" if local else f"s3://{bucket}/",
            options=(dict) if local else (lambda: self._delta_options(role)),
            profile=self.profile.name,
            author=_author(),
            create=local,
        )

    @property
    def _root(self) -> Path:
        if self.profile.root is None:
            raise ConfigError(f"profile {self.profile.name} has no root", key="root")
        return self.profile.root

    def _store(self, bucket: str, role: Role) -> Store:
        if self.profile.kind == "local":
            return LocalStore(self._root, bucket)
        # Imported here: boto3 takes longer to load than everything else together, and `local` needs none of it.
        from ursa.store.s3 import S3Location, S3Store

        location = S3Location(self.profile.endpoint_url or "", bucket, self.profile.region, role)
        credentials = self._credentials
        return S3Store(
            location, lambda again: credentials.refresh(role) if again else credentials.get(role), self._counter
        )

    def _delta_options(self, role: Role) -> dict[str, str]:
        secret = self._credentials.get(role)
        endpoint = self.profile.endpoint_url or ""
        # Absent, it would be taken from the environment; empty, it is sent, and R2 refuses an empty one.
        stray = secret.session_token is None and "AWS_SESSION_TOKEN" in os.environ
        token = {"AWS_SESSION_TOKEN": secret.session_token or ""} if secret.session_token or stray else {}
        return token | {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower(),
            "AWS_REGION": self.profile.region,
            "AWS_ACCESS_KEY_ID": secret.access_key_id,
            "AWS_SECRET_ACCESS_KEY": secret.secret_access_key,
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
            "aws_conditional_put": "etag",
            "connect_timeout": "10s",
            "timeout": "60s",
            "max_retries": "4",
            "retry_timeout": "60s",
        }


class _Running:
    """A stop switch for the time of one call, known to ``DataInterface.stop``."""

    def __init__(self, stops: set[Stop]) -> None:
        self._stops = stops
        self._stop = Stop()

    def __enter__(self) -> Stop:
        self._stops.add(self._stop)
        return self._stop

    def __exit__(self, *_: object) -> None:
        self._stops.discard(self._stop)


def _author() -> Author:
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        # A container or cron job whose user has no name and no environment.
        who = "unknown"
    return Author(who, socket.gethostname() or "unknown", __version__)


__all__ = ["DataInterface"]
