"""What processes that were killed left behind."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ABANDONED_S = 24 * 3600
"""A temporary file lives for one write. Processes of other machines, on a shared disk, can't be asked whether they live."""


def remove_abandoned(directory: Path, now_s: float) -> None:
    """Remove the files that nobody will finish: a day old, and their process (``<pid>-...``) is gone.

    ``now_s``: by the clock that this directory's files are stamped with. Raises nothing: what can't be removed stays.
    """
    before = now_s - ABANDONED_S
    with contextlib.suppress(OSError):
        for path in list(directory.iterdir()):
            # What does not begin with a number is nobody's that we know, and stays.
            with contextlib.suppress(OSError, ValueError):
                pid = int(path.name.partition("-")[0])
                if path.lstat().st_mtime < before and not is_alive(pid):
                    path.unlink()


def is_alive(pid: int) -> bool:
    """False only for a process of this machine that is surely gone."""
    if pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
