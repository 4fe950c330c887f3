"""Where a profile's catalog lives, and with which options deltalake gets there."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ursa.catalog._pointer import FIRST_PREFIX, Pointer, no_pointer, read_pointer, write_pointer
from ursa.catalog.arrow import MODALITIES, PARTICIPANTS, RECORDINGS, TableKind
from ursa.catalog.author import Author
from ursa.catalog.retention import CleanUpRefusedError
from ursa.catalog.rewrite import TableFiles
from ursa.catalog.tables import CatalogTable
from ursa.store import PreconditionFailedError, Store

KINDS: tuple[TableKind[Any], ...] = (RECORDINGS, MODALITIES, PARTICIPANTS)


@dataclass(frozen=True)
class CatalogHome:
    """The assets bucket as the catalog sees it.

    ``base_uri``: what deltalake puts before a key, ``s3://bucket/`` or a directory. ``options``: deltalake's storage
    options, secrets included, made when needed and held in memory only. ``create``: make a catalog on first use.
    ``clean_up`` and ``admit``: as of ``TableFiles``.
    """

    store: Store
    assets_prefix: str
    base_uri: str
    options: Callable[[], Mapping[str, str]]
    profile: str
    author: Author
    create: bool
    clean_up: Callable[[CleanUpRefusedError | None], object] = str
    admit: Callable[[], object] = str

    def table_uri(self, prefix: str, name: str) -> str:
        """The URI of a table of the catalog under ``prefix``."""
        return f"{self.base_uri}{self.assets_prefix}{prefix}/{name}"

    def table_files(self, prefix: str, name: str) -> TableFiles:
        """The files of a table of the catalog under ``prefix``."""
        return TableFiles(self.store, f"{self.assets_prefix}{prefix}/{name}/", self.clean_up, self.admit)

    def pointer(self) -> Pointer:
        """The live catalog. Raises ``ConfigError`` where there is none and none may be made."""
        pointer = read_pointer(self.store, self.assets_prefix)
        if pointer is None and self.create:
            pointer, _made = self.initialize()
        if pointer is None:
            raise no_pointer(self.store, self.assets_prefix, self.profile)
        return pointer

    def initialize(self) -> tuple[Pointer, bool]:
        """Make the tables and the pointer where there is none; returns it and whether it is new."""
        pointer = read_pointer(self.store, self.assets_prefix)
        made = pointer is None
        if pointer is None:
            operation_id = uuid.uuid4().hex
            self.admit()
            for kind in KINDS:
                uri = self.table_uri(FIRST_PREFIX, kind.name)
                CatalogTable.create(kind, uri, self.options(), self.author, operation_id)
            try:
                write_pointer(self.store, self.assets_prefix, FIRST_PREFIX, by=self.author.by, replacing=None)
            except PreconditionFailedError:
                made = False
            pointer = read_pointer(self.store, self.assets_prefix)
        if pointer is None:
            raise no_pointer(self.store, self.assets_prefix, self.profile)
        return pointer, made
