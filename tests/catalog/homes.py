"""Catalogs to test on, in a directory or on a server; every argument pickles, so that other processes can open them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bucket_tap import Tap

from ursa.catalog.catalog import Catalog
from ursa.catalog.home import CatalogHome
from ursa.catalog.metadata import WORKERS_KEY, workers_text
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow, participant_id
from ursa.catalog.tables import Author, CatalogTable, Change
from ursa.credentials import Credentials
from ursa.policies import Evidence
from ursa.register.commit import Registration
from ursa.store import Store
from ursa.store.counting import RequestCounter
from ursa.store.local import LocalStore
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.store.s3 import S3Location, S3Store

AUTHOR = Author("ada", "green-mantis", "0.0.0")
PREFIX = "ursa/"


@dataclass(frozen=True)
class Place:
    """Where a catalog is: a directory, or a bucket of a server (then all but the last are given)."""

    root: Path | None = None
    endpoint_url: str = ""
    bucket: str = "assets"
    access_key: str = ""
    secret_key: str = ""
    cache: Path | None = None

    def home(self, *, create: bool = True, tap: Tap | None = None, offline: bool = False) -> CatalogHome:
        """The catalog's home; ``create`` makes it on first use. ``tap``: what its requests go through."""
        if self.root is not None:
            store: Store = LocalStore(self.root, self.bucket)
            store = tap.on(store) if tap else store
            base = f"{self.root / self.bucket}/"
            cache = self.cache or self.root / "cache"
            return CatalogHome(store, store, PREFIX, base, base, "local", AUTHOR, create, cache=cache, offline=offline)
        secret = Credentials(self.access_key, self.secret_key)
        location = S3Location(self.endpoint_url, self.bucket, "us-east-1", "assets_rw")
        once: Store = S3Store(location, lambda _again: secret, RequestCounter())
        once = tap.on(once) if tap else once
        store = RetryingStore(once, RetryPolicy())
        place = f"{self.endpoint_url}/{self.bucket}"
        base = f"s3://{self.bucket}/"
        return CatalogHome(store, once, PREFIX, base, place, "r2", AUTHOR, create, cache=self.cache, offline=offline)

    def catalog(self, *, tap: Tap | None = None, offline: bool = False) -> Catalog:
        """The catalog, open."""
        return Catalog.open(self.home(tap=tap, offline=offline))

    def elsewhere(self, cache: Path) -> Place:
        """The same bucket as another machine sees it, which keeps its replica in ``cache``."""
        return replace(self, cache=cache)


def rec_id(number: int) -> str:
    return f"rec_20260520_{number:06}_ab"


def recording_hash(number: int) -> str:
    return f"{number % 256:02x}{number:062x}"


def recording(number: int = 1, **fields: object) -> RecordingRow:
    """A row like those that an ingest makes."""
    values: dict[str, object] = {
        "recording_hash": recording_hash(number),
        "rec_id": rec_id(number),
        "started_at": datetime(2026, 5, 20, 12, 0, number % 60, tzinfo=UTC),
        "duration_s": 60.0,
        "metadata": {"manifest_recording_id": rec_id(number)},
        "registered_at": datetime(2026, 5, 21, tzinfo=UTC),
        "registered_by": AUTHOR.by,
    }
    return RecordingRow(**(values | fields))  # type: ignore[arg-type]


def modality(number: int = 1, name: str = "eeg", worker_id: str = "a", **fields: object) -> ModalityRow:
    """A worker's row with one file."""
    path = f"{name}_{worker_id}/x.bin" if worker_id else f"{name}/x.bin"
    file = FileRow(path, f"recordings/{rec_id(number)}/{path}", 10, "cd" * 32, "etag", Evidence.SHA256)
    values: dict[str, object] = {"files": (file,), "bytes": 10, "node": "green-mantis", "rec_id": rec_id(number)}
    return ModalityRow(recording_hash(number), name, worker_id, **(values | fields))  # type: ignore[arg-type]


def registration(
    number: int, *modalities: ModalityRow, participants: Sequence[str] = (), overwrite: bool = False, **fields: object
) -> Registration:
    """What an ingest of recording ``number`` wants."""
    ids = tuple(sorted(participant_id(name) for name in participants))
    workers = modalities or (modality(number),)
    metadata = {"manifest_recording_id": rec_id(number), WORKERS_KEY: workers_text(workers)}
    row = recording(number, participant_ids=ids, metadata=metadata, **fields)
    return Registration(row, workers, tuple(participants), None, overwrite)


def add_recordings(catalog: Catalog, rows: Sequence[RecordingRow]) -> None:
    """Append rows, as one commit."""
    catalog.recordings.compare_and_swap(lambda: Change(rows, None, "test"))


def add_modalities(catalog: Catalog, rows: Sequence[ModalityRow]) -> None:
    """Append rows, as one commit."""
    catalog.modalities.compare_and_swap(lambda: Change(rows, None, "test"))


def backdate(table: CatalogTable[Any], age: timedelta, glob: str = "**/*") -> None:
    """Make the files of a table in a directory so much older than they are, for whoever lists them."""
    for path in Path(table.uri).glob(glob):
        moment = path.stat().st_mtime - age.total_seconds()
        os.utime(path, (moment, moment))
