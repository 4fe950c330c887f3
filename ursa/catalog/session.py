"""A query session that is kept: it remembers the footers of the files that it has read, which never change."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from deltalake import DeltaTable, QueryBuilder

from ursa.catalog.layout import SESSION
from ursa.catalog.stream import read_all


class QuerySession:
    """Queries over tables by name, each as of the version that it has now."""

    def __init__(self) -> None:
        self._builder = QueryBuilder(SESSION)
        self._known: dict[str, tuple[DeltaTable, int]] = {}
        # An interrupted caller leaves its query's thread behind, see ``ursa.catalog.stream.hearing``.
        self._lock = threading.Lock()

    def query(self, sql: str, tables: Mapping[str, DeltaTable]) -> Any:
        """Run SQL; returns an Arrow table."""
        with self._lock:
            for name, table in tables.items():
                self._see(name, table)
            return read_all(self._builder.execute(sql))

    def _see(self, name: str, table: DeltaTable) -> None:
        version = table.version()
        known = self._known.get(name)
        if known is not None and known[0] is table and known[1] == version:
            return
        if known is not None:
            read_all(self._builder.execute(f"DROP TABLE {name}"))
            del self._known[name]
        self._builder.register(name, table)
        self._known[name] = (table, version)
