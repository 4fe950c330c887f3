"""What the tests of Path B share: recordings that are in a bucket already, and what the catalog says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets
from ursa import DataInterface
from ursa.catalog.tables import CatalogTable

REC = "rec_20260520_195628_b1dd"
OTHER = "rec_20260521_101500_c2ee"
PREFIX = f"recordings/{REC}/"
FILES = {
    "camera_left/seg_000.mp4": b"left " * 200,
    "eeg_a/seg_000.edf": b"eeg" * 300,
    "eeg_a/seg_001.edf": b"EEG" * 300,
}


@dataclass(frozen=True)
class Local:
    """A directory store, and where its config is."""

    config: Path
    root: Path

    @property
    def bucket(self) -> Path:
        """What lies under ``recordings/``."""
        return self.root / "constellation-data" / "recordings"

    def open(self, *roles: str) -> DataInterface:
        """A data interface of its own, as another machine has; these roles may write (default: the catalog's)."""
        data = DataInterface("local", self.config)
        data.enable_writes(roles=roles or ("assets_rw",))
        return data

    def put(self, rec_dir: Path) -> Path:
        """Every file of a directory, as somebody else uploaded it; returns where it is."""
        return Path(shutil.copytree(rec_dir, self.bucket / rec_dir.name, dirs_exist_ok=True))


def local_store(tmp_path: Path) -> Local:
    """An empty directory store."""
    config = tmp_path / "local.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n", encoding="utf-8")
    return Local(config, tmp_path / "store")


def put_dir(buckets: Buckets, rec_dir: Path) -> None:
    """Every file of a directory into the raw bucket of a server, by boto3 and with no metadata."""
    client = buckets.server.client()
    for path in sorted(rec_dir.rglob("*")):
        if path.is_file():
            key = f"recordings/{rec_dir.name}/{path.relative_to(rec_dir).as_posix()}"
            client.put_object(Bucket=buckets.raw, Key=key, Body=path.read_bytes())


def rows(data: DataInterface) -> dict[str, list[Any]]:
    """All rows of the three tables, visible or not, by table."""
    with data:
        catalog = data._catalog
        catalog.refresh()
        catalog.participants.refresh()
        return {
            "recordings": catalog.recordings.select(),
            "modalities": catalog.modalities.select(),
            "participants": catalog.participants.select(),
        }


NOTHING: dict[str, list[Any]] = {"recordings": [], "modalities": [], "participants": []}


def paths(data: DataInterface) -> dict[str, str | None]:
    """Path → sha256 of every registered raw file."""
    return {file.path: file.sha256 for row in data.list_modalities() for file in row.files}


Overtake = Callable[[str, Callable[[], object]], list[object]]


def overtaking(monkeypatch: pytest.MonkeyPatch) -> Overtake:
    """``overtake(table, action)``: the next commit to the table loses against ``action``, which is done just before.

    The list that it returns gets what the action returned.
    """

    def arrange(table: str, action: Callable[[], object]) -> list[object]:
        swap = CatalogTable.compare_and_swap
        done: list[object] = []

        def overtaken(self: CatalogTable[Any], decide: Callable[[], Any]) -> bool:
            def deciding() -> Any:
                change = decide()
                if change is not None and self.kind.name == table and not done:
                    done.append(None)
                    done[0] = action()
                return change

            return swap(self, deciding)

        monkeypatch.setattr(CatalogTable, "compare_and_swap", overtaken)
        return done

    return arrange
