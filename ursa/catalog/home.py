"""Where a profile's catalog lives: in the bucket, and on this machine."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ursa.beside import each
from ursa.catalog._pointer import FIRST_PREFIX, POINTER_NAME, Pointer, no_pointer, read_pointer, write_pointer
from ursa.catalog.arrow import MODALITIES, PARTICIPANTS, RECORDINGS, TableKind
from ursa.catalog.author import Author
from ursa.catalog.files import TableFiles
from ursa.catalog.replica.directory import Remembered, ReplicaDirectory, remove_unused
from ursa.catalog.replica.table import TableReplica
from ursa.catalog.replica.words import offline_lacks
from ursa.catalog.retention import CleanUpRefusedError
from ursa.catalog.tables import CatalogTable
from ursa.store import PreconditionFailedError, Store

KINDS: tuple[TableKind[Any], ...] = (RECORDINGS, MODALITIES, PARTICIPANTS)


@dataclass(frozen=True)
class CatalogHome:
    """The assets bucket as the catalog sees it, and where this machine keeps its replica.

    ``store`` retries, ``once`` is the same without retries. ``base_uri``: what other tools put before a key,
    ``s3://bucket/`` or a directory. ``place``: server and bucket, or the directory. ``create``: make a catalog on first
    use. ``clean_up``: as of ``TableFiles``. ``cache``: the cache directory, None is the user's. ``offline``: ask the
    replica alone.
    """

    store: Store
    once: Store
    assets_prefix: str
    base_uri: str
    place: str
    profile: str
    author: Author
    create: bool
    clean_up: Callable[[CleanUpRefusedError | None], object] = str
    cache: Path | None = None
    offline: bool = False

    @cached_property
    def _directories(self) -> dict[str, ReplicaDirectory]:
        if not self.offline:  # what is old is all that there is
            remove_unused(self.cache)
        return {}

    def directory(self, prefix: str) -> ReplicaDirectory:
        """Where this machine keeps the catalog under ``prefix``. Raises ``StorageError`` where it can't anywhere."""
        if prefix not in self._directories:
            tables = [kind.name for kind in KINDS]
            self._directories[prefix] = ReplicaDirectory(
                self.cache, self.place, self.assets_prefix + prefix, tables, reading=self.offline
            )
        return self._directories[prefix]

    @property
    def last_prefix(self) -> str | None:
        """The prefix that was live when this machine last looked; None where it never did."""
        return self._remembered.prefix

    @cached_property
    def _remembered(self) -> Remembered:
        return Remembered(self.cache, self.place, self.assets_prefix + POINTER_NAME)

    def remember(self, pointer: Pointer) -> None:
        """Note what is live, for the next command and for one that is offline, and that it is in use. Best effort."""
        self._remembered.note(pointer.prefix)
        for directory in list(self._directories.values()):
            directory.touch()

    @property
    def as_of(self) -> datetime | None:
        """When the replica was last brought up to date, UTC; None where it never was."""
        return self._remembered.at

    def table_uri(self, prefix: str, name: str) -> str:
        """The URI of a table of the catalog under ``prefix``."""
        return f"{self.base_uri}{self.assets_prefix}{prefix}/{name}"

    def table_files(self, prefix: str, name: str) -> TableFiles:
        """The objects of a table of the catalog under ``prefix``."""
        return TableFiles(self.store, f"{self.assets_prefix}{prefix}/{name}/", self.once, self.clean_up)

    def replica(self, prefix: str, name: str) -> TableReplica:
        """The replica of a table of the catalog under ``prefix``."""
        directory = self.directory(prefix).table(name)
        return TableReplica(self.table_files(prefix, name), directory, offline=self.offline)

    def create_tables(self, prefix: str, operation_id: str = "") -> None:
        """Make the tables under a prefix, each where there is none. Raises ``StorageError``."""

        def make(kind: TableKind[Any]) -> None:
            uri, files = self.table_uri(prefix, kind.name), self.table_files(prefix, kind.name)
            CatalogTable.create(kind, uri, files, self.directory(prefix).table(kind.name), self.author, operation_id)

        self.directory(prefix)
        each(make, KINDS)

    def pointer(self) -> Pointer:
        """The live catalog. Raises ``ConfigError`` where there is none and none may be made."""
        if self.offline:
            return self._pointer_offline()
        pointer = read_pointer(self.store, self.assets_prefix)
        if pointer is None and self.create:
            pointer, _made = self.initialize()
        if pointer is None:
            raise no_pointer(self.store, self.assets_prefix, self.profile)
        return pointer

    def _pointer_offline(self) -> Pointer:
        if self.last_prefix is None:
            raise offline_lacks(f"{self.base_uri}{self.assets_prefix}")
        return Pointer(self.last_prefix, "", "", None)

    def initialize(self) -> tuple[Pointer, bool]:
        """Make the tables and the pointer where there is none; returns it and whether it is new."""
        pointer = read_pointer(self.store, self.assets_prefix)
        made = pointer is None
        if pointer is None:
            self.create_tables(FIRST_PREFIX, uuid.uuid4().hex)
            try:
                write_pointer(self.store, self.assets_prefix, FIRST_PREFIX, by=self.author.by, replacing=None)
            except PreconditionFailedError:
                made = False
            pointer = read_pointer(self.store, self.assets_prefix)
        if pointer is None:
            raise no_pointer(self.store, self.assets_prefix, self.profile)
        return pointer, made
