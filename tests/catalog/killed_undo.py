"""An undo that kills itself: ``killed_undo.py ROOT OPERATION POINT``: before its commit POINT, counted from 1.

A run that makes fewer commits prints how many it made.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from homes import Place

import ursa.catalog.tables as tables
from ursa.catalog.undo import plan_undo, undo


def main() -> None:
    root, operation, point = sys.argv[1:]
    made = 0

    def counted(action: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made == int(point):
                os.kill(os.getpid(), signal.SIGKILL)
            return action(*args, **options)

        return call

    tables.CatalogTable.commit = counted(tables.CatalogTable.commit)  # type: ignore[method-assign]
    catalog = Place(Path(root)).catalog()
    undo(catalog, plan_undo(catalog, operation))
    print(made)


if __name__ == "__main__":
    main()
