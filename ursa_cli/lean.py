"""A quick start; and memory for runs of many hours: what the allocators keep for later, they give back."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import suppress

# deltalake brings jemalloc along. By default it has four arenas a core, and each keeps what it once needed for ten
# seconds; over 1,500 recordings that was 57 MiB of 227 (benchmarks/batch.py).
_JEMALLOC = "narenas:2,dirty_decay_ms:500,muzzy_decay_ms:0"
_M_ARENA_MAX = -8
# New objects between two collections of the youngest; 700 is Python's own, and while modules load none is garbage.
_COLLECT_AFTER = 10_000


def start_fast() -> None:
    """Look for garbage less often: a twentieth of the time that it takes to load the library."""
    gc.set_threshold(_COLLECT_AFTER, 10, 10)


def stay_small() -> None:
    """Keep memory flat in this process; call it before the library is imported. What is set from outside counts."""
    os.environ.setdefault("_RJEM_MALLOC_CONF", _JEMALLOC)
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(OSError, AttributeError):  # a libc that is not GNU's has no such switch, and needs none
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
