"""What every verb works with: the profile, the roles that are enabled, the stores, the catalog, the engine."""

from __future__ import annotations

import getpass
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ursa import __version__
from ursa.beside import begin
from ursa.bucket.proof import CachedProofs, Proofs
from ursa.catalog.catalog import Catalog
from ursa.catalog.home import CatalogHome
from ursa.catalog.retention import note_clean_up
from ursa.catalog.tables import Author
from ursa.config import Config, Profile, Role, load_config
from ursa.credentials import Credentials, CredentialsProvider, provider_for
from ursa.disk.cache import FilesCache
from ursa.errors import ConfigError, UsageError, WritesNotEnabledError
from ursa.names import disk_name
from ursa.store import Store
from ursa.store.conduct import Conduct, KnownConduct
from ursa.store.counting import RequestCounter
from ursa.store.local import LocalStore
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.limits import BandwidthLimit, parse_timetable

if TYPE_CHECKING:
    from ursa.store.s3 import S3Location, S3Store
    from ursa.store.s3.pool import Pool

_WRITING: tuple[Role, ...] = ("assets_rw", "raw_rw")


class Access:
    """A profile's buckets and catalog, opened when they are needed; ``DataInterface`` puts the verbs on it."""

    def __init__(
        self,
        profile: str = "r2",
        config_path: Path | str | None = None,
        *,
        transfers: int | None = None,
        bandwidth: str | None = None,
        config: Config | None = None,
        offline: bool = False,
    ) -> None:
        self.config: Config = config or load_config(Path(config_path) if config_path is not None else None)
        self.profile: Profile = self.config.profile(profile)
        if transfers is not None and transfers < 1:
            raise UsageError(f"transfers is {transfers}; at least one request must be in flight")
        self.offline = offline
        self._transfers = transfers
        self._bandwidth = BandwidthLimit(parse_timetable(bandwidth) if bandwidth else ())
        self._enabled: frozenset[Role] = frozenset()
        self._stops: set[Stop] = set()
        self._counter = RequestCounter()
        self._opening = threading.Lock()  # recordings in flight share one engine and one catalog

    def __repr__(self) -> str:
        return f"{type(self).__name__}(profile={self.profile.name!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the transfer threads. Not needed at the end of a program."""
        if "_engine" in self.__dict__:
            self._engine.close()
            del self._engine
        if "_files" in self.__dict__:
            self._files.close()
            del self._files
        if "_connections" in self.__dict__:
            self._connections.close()
            del self._connections

    def enable_writes(self, roles: Iterable[str] = ("assets_rw",)) -> None:
        """Allow writes: ``assets_rw`` to the catalog, ``raw_rw`` to the raw bytes. Reads no secret yet.

        Raises:
            UsageError: no such writing role.
        """
        if self.offline:
            raise UsageError("offline=True answers from this machine's copy of the catalog, and writes nothing")
        wanted = [roles] if isinstance(roles, str) else list(roles)
        unknown = [role for role in wanted if role not in _WRITING]
        if unknown:
            raise UsageError(
                f"{unknown[0]!r} is not a writing role", hint=f"The writing roles are {', '.join(_WRITING)}."
            )
        self._enabled |= {role for role in _WRITING if role in wanted}
        # Handles that were opened for reading are made again with the writing role's credentials.
        for name in ("_raw", "_catalog", "_home", "_committer"):
            self.__dict__.pop(name, None)

    def stop(self) -> None:
        """Ask everything that runs in other threads to stop: nothing new starts, and each raises KeyboardInterrupt."""
        for stop in list(self._stops):
            stop.set()

    def _require(self, role: Role, verb: str) -> None:
        if role not in self._enabled:
            raise WritesNotEnabledError(
                f"{verb} writes, and the role {role} is not enabled",
                hint=f'Call data.enable_writes(roles=("assets_rw", "raw_rw")) first; {verb} needs {role}.'
                if role == "raw_rw"
                else f"Call data.enable_writes() first; {verb} needs {role}.",
                role=role,
            )

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """Both buckets are asked side by side whether they take writes, which the first time on a machine takes some
        requests (``ursa.store.conduct``). A write waits for its bucket's answer.
        """
        asked = [] if self.profile.kind == "local" else self._begin_asking()
        try:
            yield
        except KeyboardInterrupt:
            asked.clear()
            raise
        finally:
            for answer in asked:
                answer.exception()  # waits; what could not be asked is asked by the write, and told there

    def _begin_asking(self) -> list[Future[Conduct | None]]:
        from ursa.store.s3 import S3Store

        return [begin(store.conduct) for store in (self._raw, self._home.once) if isinstance(store, S3Store)]

    def _running(self) -> _Running:
        return _Running(self._stops)

    @cached_property
    def _engine(self) -> Engine:
        local = self.profile.kind == "local"
        return Engine(
            transfers=self._transfers,
            bandwidth=self._bandwidth,
            round_trip_s=lambda: 0.0 if local else self._connections.shortest_s,
        )

    @cached_property
    def _credentials(self) -> CredentialsProvider:
        return provider_for(self.profile)

    @cached_property
    def _files(self) -> FilesCache:
        """What this machine remembers of files, objects and servers."""
        return FilesCache.open(self.profile.cache_dir)

    @cached_property
    def _raw(self) -> Store:
        return self._store(self.profile.raw.bucket, "raw_rw" if "raw_rw" in self._enabled else "raw_ro")

    def _raw_for(self, stop: Stop) -> Store:
        return RetryingStore(self._raw, RetryPolicy(stopped=stop))

    @cached_property
    def _proofs(self) -> Proofs:
        """What this machine has measured of the raw bucket's objects."""
        return CachedProofs(self._files, self._place(self.profile.raw.bucket))

    def _place(self, bucket: str) -> str:
        """Which bucket of which server, or which directory: the same on every day."""
        if self.profile.kind == "local":
            return str(self._root / bucket)
        return f"{self.profile.endpoint_url}/{bucket}"

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog.open(self._home)

    @cached_property
    def _home(self) -> CatalogHome:
        role: Role = "assets_rw" if "assets_rw" in self._enabled else "assets_ro"
        local = self.profile.kind == "local"
        bucket = self.profile.assets.bucket
        store = self._store(bucket, role)
        return CatalogHome(
            store=RetryingStore(store, RetryPolicy()),
            once=store,
            assets_prefix=self.profile.assets.prefix,
            base_uri=f"{disk_name(str(self._root / bucket))}/" if local else f"s3://{bucket}/",
            place=self._place(bucket),
            profile=self.profile.name,
            author=_author(),
            create=local,
            clean_up=lambda refused: note_clean_up(self._files, self._place(bucket), refused),
            cache=self.profile.cache_dir,
            offline=self.offline,
        )

    @property
    def _root(self) -> Path:
        if self.profile.root is None:
            raise ConfigError(f"profile {self.profile.name} has no root", key="root")
        return self.profile.root

    def _store(self, bucket: str, role: Role) -> Store:
        if self.profile.kind == "local":
            return LocalStore(self._root, bucket)
        return self._s3_store(bucket, role)

    def _s3_store(self, bucket: str, role: Role) -> S3Store:
        # Imported here: `local` needs no client of a server.
        from ursa.store.s3 import S3Store

        return S3Store(*self._s3_parts(bucket, role))

    def _s3_parts(
        self, bucket: str, role: Role
    ) -> tuple[S3Location, Callable[[bool], Credentials], RequestCounter, KnownConduct, Pool]:
        from ursa.store.s3 import S3Location

        endpoint, credentials = self.profile.endpoint_url or "", self._credentials
        location = S3Location(endpoint, bucket, self.profile.region, role, self.profile.ca_bundle)
        at = self.profile.raw if role.startswith("raw") else self.profile.assets
        conduct = KnownConduct(self._files, endpoint, bucket, at.prefix)
        return (
            location,
            lambda again: credentials.refresh(role) if again else credentials.get(role),
            self._counter,
            conduct,
            self._connections,
        )

    @cached_property
    def _connections(self) -> Pool:
        """The connections that all stores of the profile share."""
        from ursa.store.s3.pool import Pool

        return Pool(self.profile.endpoint_url or "", self.profile.ca_bundle)


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
