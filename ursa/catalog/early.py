"""Catalogs as the first ursa made them: the modalities table has no ``rec_id``. Opened for a rebuild, which ends that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deltalake import DeltaTable

from ursa.catalog._pointer import Pointer
from ursa.catalog.arrow import TableKind
from ursa.catalog.catalog import Catalog
from ursa.catalog.reading import EARLY, OpenTable
from ursa.catalog.rows import ModalityRow
from ursa.catalog.tables import CatalogTable

_STORED = "modalities_as_stored"
_WITH_REC_ID = (
    f"WITH modalities AS (SELECT {_STORED}.*, of_hash.rec_id FROM {_STORED}"
    f" JOIN of_hash ON {_STORED}.recording_hash = of_hash.recording_hash)"
)


class EarlyModalities(CatalogTable[ModalityRow]):
    """Modalities whose ``rec_id``, where the table has no such column, is that of their recording. Only to be read."""

    recordings: OpenTable[Any]

    def query_with(self, sql: str, also: Mapping[str, DeltaTable]) -> Any:
        """As the table of now would answer."""
        if not self.lacking:
            return super().query_with(sql, also)
        tables = {_STORED: self.delta, "of_hash": self.recordings.delta, **also}
        return self.run(f"{_WITH_REC_ID} {sql}", tables)

    def _check_columns(self) -> None:
        if (self.kind.name, self.lacking) != EARLY:
            super()._check_columns()


class EarlyCatalog(Catalog):
    """The live catalog, whichever version of ursa made it."""

    @staticmethod
    def table_class(kind: TableKind[Any]) -> type[CatalogTable[Any]]:
        """What a table is opened as."""
        return EarlyModalities if kind.name == EARLY[0] else CatalogTable

    def _open(self, pointer: Pointer) -> None:
        super()._open(pointer)
        if isinstance(self.modalities, EarlyModalities):
            self.modalities.recordings = self.recordings
