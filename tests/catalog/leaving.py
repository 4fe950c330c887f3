"""A process that ends while daemon threads open tables: ``leaving.py ROOT``."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from homes import Place


def main() -> None:
    catalog = Place(Path(sys.argv[1])).catalog()
    table = catalog.recordings
    version = table.version

    def opening() -> None:
        while True:
            table._at(table.replica.path, version)

    for _ in range(4):
        threading.Thread(target=opening, daemon=True).start()
    time.sleep(0.2)


if __name__ == "__main__":
    main()
