"""Catalogs as the first ursa made them: the modalities table has no ``rec_id``. Opened for a rebuild, which ends that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ursa.catalog.arrow import TableKind
from ursa.catalog.catalog import Catalog, Tables
from ursa.catalog.reading import EARLY, OpenTable, View
from ursa.catalog.rows import ModalityRow
from ursa.catalog.tables import CatalogTable
from ursa.catalog.where import Where

_STORED = "modalities_as_stored"
_WITH_REC_ID = (
    f"WITH modalities AS (SELECT {_STORED}.*, of_hash.rec_id FROM {_STORED}"
    f" JOIN of_hash ON {_STORED}.recording_hash = of_hash.recording_hash)"
)


class EarlyModalities(CatalogTable[ModalityRow]):
    """Modalities whose ``rec_id``, where the table has no such column, is that of their recording. Only to be read."""

    recordings: OpenTable[Any]

    def run(self, sql: str, views: Mapping[str, View], where: Mapping[str, Where] | None = None) -> Any:
        """As the table of now would answer."""
        if not self.lacking or self.kind.name not in views:
            return super().run(sql, views, where)
        others = {name: view for name, view in views.items() if name != self.kind.name}
        stored = {_STORED: views[self.kind.name], "of_hash": self.recordings.view}
        return super().run(f"{_WITH_REC_ID} {sql}", {**stored, **others})

    def _check_columns(self) -> None:
        if (self.kind.name, self.lacking) != EARLY:
            super()._check_columns()


class EarlyCatalog(Catalog):
    """The live catalog, whichever version of ursa made it."""

    @staticmethod
    def table_class(kind: TableKind[Any]) -> type[CatalogTable[Any]]:
        """What a table is opened as."""
        return EarlyModalities if kind.name == EARLY[0] else CatalogTable

    def _open(self, prefix: str) -> Tables:
        recordings, modalities, participants = super()._open(prefix)
        if isinstance(modalities, EarlyModalities):
            modalities.recordings = recordings
        return recordings, modalities, participants
