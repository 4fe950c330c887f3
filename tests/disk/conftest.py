"""Fixtures of the files cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cache_tools import Time

from ursa.disk.cache import FilesCache


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def opened(tmp_path: Path, time: Time) -> Iterator[Callable[..., FilesCache]]:
    """``opened()`` opens the one cache of the test, as another process would."""
    caches: list[FilesCache] = []

    def make(directory: Path = tmp_path / "cache", at: Time = time) -> FilesCache:
        caches.append(FilesCache.open(directory, clock=at.clock(), temp_dirs=()))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()
