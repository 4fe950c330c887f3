"""A Path B that kills itself: ``killed_from_r2.py CONFIG POINT REC_ID...``; several rec_ids are one group commit.

As ``killed.py``, whose countdown it uses: POINT counts each event, and before and after each commit of a table and each
look at the pointer. A run that gets by prints how many there were.
"""

from __future__ import annotations

import sys
from pathlib import Path

from killed import Countdown

from ursa import DataInterface
from ursa.catalog.catalog import Catalog
from ursa.catalog.tables import CatalogTable


def main() -> None:
    config, point, *rec_ids = sys.argv[1:]
    countdown = Countdown(int(point))
    data = DataInterface("local", Path(config))
    data.enable_writes()
    data.init_catalog()
    CatalogTable.commit = countdown.around(CatalogTable.commit)  # type: ignore[method-assign]
    Catalog.follow_pointer = countdown.around(Catalog.follow_pointer)  # type: ignore[method-assign]
    if len(rec_ids) == 1:
        data.ingest_from_r2(rec_ids[0], "Aria Lin", progress=countdown.step)
    else:
        outcomes = data.ingest_from_r2_several(rec_ids, "Aria Lin", progress=countdown.step)
        for outcome in outcomes:
            if outcome.error is not None:
                print(f"{type(outcome.error).__name__}: {outcome.error}", file=sys.stderr)
    print(countdown.steps)


if __name__ == "__main__":
    main()
