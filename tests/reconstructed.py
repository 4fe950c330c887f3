"""What the tests of Path C on the local profile share: a raw bucket as the rigs fill it, and what a run left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ursa import DataInterface, ReconstructResult
from ursa.store.local import LocalStore

REC, OTHER = "rec_20260520_195628_b1dd", "rec_20260521_101500_c2ee"
RAW = {"camera_left/seg_000.mp4": b"left " * 20_000, "eeg_a/seg_000.edf": b"eeg" * 3_000, "mic/empty.wav": b""}
AUXILIARY = {"events.csv": b"a,b\n", "_calibration/grid.json": b"{}", ".hidden/x": b"x"}
JUNK = {".DS_Store": b"\0", "eeg_a/._seg_000.edf": b"\0", "@eaDir/thumb.jpg": b"\0"}
FILES = RAW | AUXILIARY


def sha256(data: bytes) -> str:
    """Lowercase hex."""
    return hashlib.sha256(data).hexdigest()


def by_hand(files: dict[str, bytes]) -> str:
    """The recording_hash as the page that defines it says."""
    return sha256("\n".join(sorted(sha256(data) for data in files.values())).encode())


class Lab:
    """A profile ``local``, and the raw bucket as the rigs fill it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "store"
        self.config = root / "ursa.yaml"
        self.config.write_text(f"profiles:\n  local: {{root: {self.root}}}\n")
        self.recordings = self.root / "constellation-data" / "recordings"
        self.record = self.root / "constellation-assets" / "ursa" / "hashes" / f"{REC}.json"

    def data(self, *roles: str) -> DataInterface:
        """An interface that may write."""
        data = DataInterface("local", self.config)
        data.enable_writes(roles=roles or ("assets_rw", "raw_rw"))
        return data

    def put(self, path: str, data: bytes, rec_id: str = REC) -> Path:
        """An object as a rig wrote it: no metadata."""
        target = self.recordings / rec_id / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return target

    def fill(self, files: dict[str, bytes], rec_id: str = REC) -> None:
        """Objects."""
        for path, data in files.items():
            self.put(path, data, rec_id)

    def manifest(self, rec_id: str = REC) -> dict[str, Any]:
        """The manifest that is there."""
        found: dict[str, Any] = json.loads((self.recordings / rec_id / "manifest.json").read_bytes())
        return found

    def measured(self) -> dict[str, str]:
        """Path → sha256 of what the record says was measured of objects as they are now."""
        there = {info.key: info for info in LocalStore(self.root, "constellation-data").list(f"recordings/{REC}/")}
        record = json.loads(self.record.read_bytes())
        assert record["bucket"] == "constellation-data"
        return {
            key.removeprefix(f"recordings/{REC}/"): sha256
            for key, (size_bytes, etag, sha256) in record["objects"].items()
            if key in there and (there[key].size_bytes, there[key].etag) == (size_bytes, etag)
        }

    def has_manifest(self) -> bool:
        """Whether anybody wrote one."""
        return (self.recordings / REC / "manifest.json").exists()

    def reconstruct(self, **options: Any) -> ReconstructResult:
        """The call under test."""
        with self.data() as data:
            return data.reconstruct(REC, **options)
