"""What the API's tests share: a catalog ready on a server, and what is in its buckets."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from conftest import Buckets
from ursa import DataInterface

REC = "rec_20260520_195628_b1dd"
PREFIX = f"recordings/{REC}/"
FILES = {
    "camera_left/seg_000.mp4": b"left " * 20_000,
    "eeg_a/seg_000.edf": b"eeg" * 3_000,
    "eeg_a/seg_001.edf": b"EEG" * 3_000,
}
MIB = 1 << 20
ODD_PART_BYTES = 7 * MIB + 12_345
"""A size of parts that nobody guesses: no ETag of it proves anything."""
PROBE = "/.ursa-probe/"
"""In the paths of the requests that find out, before the first write, how a server behaves."""


def writer(config: Path, **settings: Any) -> DataInterface:
    """A data interface of profile ``r2`` that may write everything, with a catalog."""
    data = DataInterface("r2", config, **settings)
    data.enable_writes(roles=("assets_rw", "raw_rw"))
    data.init_catalog()
    return data


def ingest(data: DataInterface, rec_dir: Path, participant: str | None = None, **options: Any) -> Any:
    """Path A as the runbook calls it."""
    return data.ingest(rec_dir / "manifest.json", rec_dir, participant, **options)


def objects(buckets: Buckets, prefix: str = "recordings/") -> dict[str, bytes]:
    """Every object of the raw bucket by its key."""
    client = buckets.server.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=buckets.raw, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return {key: client.get_object(Bucket=buckets.raw, Key=key)["Body"].read() for key in keys}


def on_disk(rec_dir: Path) -> dict[str, bytes]:
    """Every file of a recording by the key that it must have."""
    return {
        f"recordings/{rec_dir.name}/{path.relative_to(rec_dir).as_posix()}": path.read_bytes()
        for path in rec_dir.rglob("*")
        if path.is_file()
    }


def put(buckets: Buckets, key: str, body: bytes, **options: Any) -> None:
    """Write an object as somebody else would."""
    buckets.server.client().put_object(Bucket=buckets.raw, Key=key, Body=body, **options)


def open_uploads(buckets: Buckets) -> list[Any]:
    """Multipart uploads of the raw bucket that nobody completed."""
    found: list[Any] = buckets.server.client().list_multipart_uploads(Bucket=buckets.raw).get("Uploads", [])
    return found


def sha256(data: bytes) -> str:
    """Lowercase hex."""
    return hashlib.sha256(data).hexdigest()
