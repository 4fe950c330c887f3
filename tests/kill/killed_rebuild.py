"""A rebuild that kills itself: ``killed_rebuild.py CONFIG POINT``; the steps are those of ``killed.py``, and each freeze."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from killed import Countdown, Killing

import ursa.catalog.tables as tables
from ursa import DataInterface
from ursa.rebuild import run


def main() -> None:
    config, point = Path(sys.argv[1]), int(sys.argv[2])
    countdown = Countdown(point)
    run.SETTLES_S = 0.0
    run.WAITS_S = 0.0
    run.CHUNK = 2
    data = DataInterface("local", config)
    data.enable_writes()
    make_store = data._store
    data._store = lambda *args: Killing(make_store(*args), countdown)  # type: ignore[method-assign, return-value]
    tables.write_deltalake = countdown.around(tables.write_deltalake)
    tables.CatalogTable.set_frozen = countdown.around(tables.CatalogTable.set_frozen)  # type: ignore[method-assign]
    tables.CatalogTable.create = staticmethod(countdown.around(tables.CatalogTable.create))  # type: ignore[method-assign]
    data.rebuild(progress=countdown.step)
    print(countdown.steps)


if __name__ == "__main__":
    main()
