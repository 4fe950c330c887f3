"""What the tests of the files cache share: clocks that they set, and one of each thing."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ursa.disk.cache import FilesCache
from ursa.disk.clock import Clock
from ursa.disk.fingerprint import Fingerprint

ROOT = Path(__file__).parents[2]
REC, PATH = "rec_a", "cam0/video.mp4"
SHA = hashlib.sha256(b"a").hexdigest()
OTHER_SHA = hashlib.sha256(b"b").hexdigest()
PRINT = Fingerprint(12, 1_700_000_000_000_000_001, 1_700_000_000_000_000_002, 7)
STORE, KEY, ETAG = "https://example.org/raw", "recordings/rec_a/cam0/video.mp4", "0123456789abcdef0123456789abcdef-2"


Opened = Callable[..., FilesCache]


@dataclass
class Time:
    """Clocks that a test sets."""

    boot: str | None = str(uuid.UUID(int=1))
    monotonic_s: float = 1000.0
    now: datetime = datetime(2026, 11, 20, 3, tzinfo=UTC)

    def clock(self) -> Clock:
        return Clock(self.boot, lambda: self.monotonic_s, lambda: self.now)


def file_of(cache: FilesCache) -> Path:
    assert cache.path is not None
    return cache.path


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
