"""An undo that kills itself: ``killed_undo.py ROOT OPERATION POINT``: before its commit POINT, counted from 1.

A run that makes fewer commits prints how many it made.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bucket_tap import Tap, commit_of
from homes import Place

from ursa.catalog.undo import plan_undo, undo


def main() -> None:
    root, operation, point = sys.argv[1:]
    tap, place = Tap(), Place(Path(root))
    plan = plan_undo(place.catalog(), operation)
    tap.add(commit_of(), lambda go: go(), int(point) - 1)
    tap.before(commit_of(), lambda: os.kill(os.getpid(), signal.SIGKILL))
    catalog = place.catalog(tap=tap)
    undo(catalog, plan)
    print(sum(commit_of()(*entry) for entry in tap.log))


if __name__ == "__main__":
    main()
