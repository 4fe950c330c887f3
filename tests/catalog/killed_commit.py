"""A registration that kills itself: ``killed_commit.py ROOT CACHE NUMBER POINT WHEN``, before or after its PUT POINT.

A run that makes fewer PUTs prints how many it made.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bucket_tap import Tap
from homes import Place, registration

from ursa.errors import RecordingExistsError
from ursa.register.commit import register


def is_put(method: str, key: str) -> bool:
    return method == "put" and "/catalog/" in key


def main() -> None:
    root, cache, number, point, when = sys.argv[1:]
    tap = Tap()
    catalog = Place(Path(root), cache=Path(cache)).catalog(tap=tap)
    tap.add(is_put, lambda go: go(), int(point) - 1)
    (tap.before if when == "before" else tap.after)(is_put, lambda: os.kill(os.getpid(), signal.SIGKILL))
    try:
        register(catalog, registration(int(number), participants=(f"P{number}",)))
    except RecordingExistsError:
        print("exists")
    print(sum(is_put(*entry) for entry in tap.log))


if __name__ == "__main__":
    main()
