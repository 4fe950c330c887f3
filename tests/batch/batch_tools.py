"""What the batch's tests share: a lab with a NAS and a store on this disk."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers import make_recording
from ursa import DataInterface, Outcome
from ursa.disk.fingerprint import Disks
from ursa.disk.mounts import Mount

WRITES = ("assets_rw", "raw_rw")


def rec(number: int) -> str:
    """The rec_id number so and so, in sorted order."""
    return f"rec_20260520_{number:06d}_b1dd"


@dataclass(frozen=True)
class Lab:
    """A directory with recordings, and the profile ``local`` beside it. ``settings``: more of the profile, YAML."""

    root: Path
    settings: str = ""

    @property
    def nas(self) -> Path:
        """Where recordings are."""
        return self.root / "nas"

    @property
    def config(self) -> Path:
        """A config file, the store below ``root``."""
        path = self.root / "ursa.yaml"
        path.write_text(f"profiles:\n  local: {{root: {self.root / 'store'}{self.settings}}}\n")
        return path

    @property
    def stored(self) -> Path:
        """Where the store has the raw objects."""
        return self.root / "store" / "constellation-data" / "recordings"

    def data(self) -> DataInterface:
        """A writer."""
        data = DataInterface("local", self.config)
        data.enable_writes(roles=WRITES)
        return data

    def make(
        self, number: int, files: dict[str, bytes] | None = None, root: Path | None = None, **options: Any
    ) -> Path:
        """A recording on the NAS."""
        content = files or {
            "eeg_a/seg_000.edf": b"eeg %d " % number * 50,
            "camera_left/a.mp4": b"left %d" % number * 90,
        }
        return make_recording(root or self.nas, rec(number), content, **options)

    def run(self, *roots: Path | str, **options: Any) -> list[Outcome]:
        """A batch to its end."""
        with self.data() as data:
            return list(data.batch(roots or (self.nas,), **options))

    def one(self, **options: Any) -> Outcome:
        """A batch over one recording."""
        (outcome,) = self.run(**options)
        return outcome

    def rows(self) -> list[str]:
        """The rec_ids in the catalog."""
        with self.data() as data:
            return [row.rec_id for row in data.list_recordings()]


def make_lab(root: Path) -> Lab:
    """An empty one."""
    (root / "nas").mkdir()
    return Lab(root)


def on_disks(monkeypatch: pytest.MonkeyPatch, kind: str = "ext4", volume: str | None = "4f68-1a2b") -> None:
    """As if all lay on a disk of this type, and whatever is seen had been seen for long: it is remembered once it is read."""
    disks = Disks(lambda _descriptor: Mount(kind, volume))
    for module in ("ursa.transfer.digest", "ursa.batch.survey"):
        monkeypatch.setattr(f"{module}.DISKS", disks)
    for module in ("ursa.register.memory", "ursa.disk.cache"):
        monkeypatch.setattr(f"{module}.SETTLED_S", 0.0)


def without_a_look(outcome: Outcome) -> bool:
    """Whether the walk and the listing alone said so."""
    return outcome.status == "have" and outcome.error is None


def age(directory: Path, seconds: float = 3600.0) -> None:
    """Everything below was last touched so long ago: copies of a rig's files keep their times."""
    then = time.time() - seconds
    for path in (directory, *directory.rglob("*")):
        os.utime(path, (then, then), follow_symlinks=False)
