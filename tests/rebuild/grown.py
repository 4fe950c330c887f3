"""What the rebuild's tests share: a catalog that grew as a lab's does, and what its tables say."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from helpers import make_recording, manifest_of, write_json, write_node_manifest
from ursa import DataInterface, participant_id

ROLES = ("assets_rw", "raw_rw")
FILES = {"camera_left/seg_000.mp4": b"left", "eeg_a/seg_000.edf": b"eeg"}
DAY_S = 86_400.0


@dataclass(frozen=True)
class Lab:
    """A directory store, its config, and a NAS beside it."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "ursa.yaml"

    @property
    def nas(self) -> Path:
        return self.root / "nas"

    @property
    def bucket(self) -> Path:
        """What lies under ``recordings/``."""
        return self.root / "store" / "constellation-data" / "recordings"

    @property
    def assets(self) -> Path:
        return self.root / "store" / "constellation-assets" / "ursa"

    def open(self, *roles: str) -> DataInterface:
        """A data interface of its own, as another machine has; every role unless some are named."""
        data = DataInterface("local", self.config)
        data.enable_writes(roles=roles or ROLES)
        return data

    def ingest(self, rec_dir: Path, participant: str | None = None, **options: Any) -> Any:
        with self.open() as data:
            return data.ingest(rec_dir / "manifest.json", rec_dir, participant, **options)

    def rebuild(self, **options: Any) -> Any:
        with self.open("assets_rw") as data:
            return data.rebuild(**options)

    def age(self, seconds: float, rec_id: str = "") -> None:
        """Everything in the bucket (or of one recording) was written that long ago."""
        then = time.time() - seconds
        for path in (self.bucket / rec_id).rglob("*"):
            os.utime(path, (then, then))


def lab(tmp_path: Path) -> Lab:
    """An empty one."""
    made = Lab(tmp_path)
    made.config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n", encoding="utf-8")
    made.nas.mkdir()
    return made


def name(number: int) -> str:
    """The rec_id of a number, in order of date."""
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=7 * number)
    return f"rec_{moment:%Y%m%d_%H%M%S}_{number:04x}"


def content(number: int) -> dict[str, bytes]:
    """Files that no other recording has."""
    return {path: data + str(number).encode() for path, data in FILES.items()}


def tables(data: DataInterface) -> dict[str, list[Any]]:
    """All rows of the three tables of the live catalog, visible or not, in order."""
    with data:
        catalog = data._catalog
        catalog.refresh()
        catalog.participants.refresh()
        return {
            table.kind.name: sorted(table.select(), key=_key)
            for table in (catalog.recordings, catalog.modalities, catalog.participants)
        }


def _key(row: Any) -> str:
    # A map comes back in any order.
    return repr(replace(row, metadata={}) if hasattr(row, "metadata") else row)


@contextmanager
def fresh_catalog(lab: Lab) -> Iterator[None]:
    """The catalog is gone while this lasts: the bucket is all there is."""
    aside = lab.root / "aside"
    lab.assets.rename(aside)
    try:
        yield
    finally:
        if lab.assets.exists():
            lab.assets.rename(lab.root / f"rebuilt-{time.monotonic_ns()}")
        aside.rename(lab.assets)


def dual(lab: Lab, number: int, *, first: str) -> None:
    """Two halves of a session from two disks, the host's or the motor's first; the motor started earlier, ran longer."""
    rec_id, files = name(number), content(number)
    camera = {path: data for path, data in files.items() if path.startswith("camera")}
    eeg = {path: data for path, data in files.items() if path.startswith("eeg")}
    host = make_recording(lab.nas / "host", rec_id, camera)
    motor = make_recording(lab.nas / "motor", rec_id, eeg, manifest=False)
    started = datetime.fromisoformat(manifest_of(rec_id, camera)["started_at"]) - timedelta(seconds=5)
    write_node_manifest(
        motor,
        "green-motor",
        ["eeg_a"],
        started_at=started.isoformat(),
        ended_at=(started + timedelta(seconds=90)).isoformat(),
        duration_s=90.0,
    )
    halves = [(host, "Aria Lin"), (motor, "Bo Sun")]
    for rec_dir, participant in halves if first == "host" else reversed(halves):
        lab.ingest(rec_dir, participant)


def nodes_only(lab: Lab, number: int) -> None:
    """A session with node manifests and no aggregate, both halves on one disk."""
    rec_dir = make_recording(lab.nas, name(number), content(number), manifest=False)
    write_node_manifest(rec_dir, "green-mantis", ["camera_left"])
    write_node_manifest(rec_dir, "green-motor", ["eeg_a"], duration_s=61.5)
    lab.ingest(rec_dir, "Aria Lin")


def absent_node(lab: Lab, number: int) -> None:
    """The aggregate lists both nodes and only the host's files are on the disk: its manifest is withheld."""
    rec_id, files = name(number), content(number)
    manifest = manifest_of(rec_id, files)
    for entry in manifest["workers"]:
        entry["node"] = "green-motor" if entry["dir"] == "eeg_a" else "green-mantis"
    rec_dir = make_recording(
        lab.nas, rec_id, {path: data for path, data in files.items() if "eeg" not in path}, manifest=manifest
    )
    lab.ingest(rec_dir, "Aria Lin")


def unlisted(lab: Lab, number: int) -> None:
    """Raw and auxiliary files that the manifest does not list, one of them with a name in NFD."""
    rec_id, files = name(number), content(number)
    manifest = manifest_of(rec_id, files)
    more = {"eeg_a/extra.edf": b"more", "mic_room/a.wav": b"wav", "events.csv": b"a,b\n", "_calibration/x.bin": b"x"}
    lab.ingest(make_recording(lab.nas, rec_id, files | more, manifest=manifest), "Aria Lin")


def placeholder(lab: Lab, number: int) -> None:
    """A dashboard's stub, reconstructed, registered from the bucket."""
    rec_id = name(number)
    make_recording(
        lab.bucket, rec_id, content(number), participant="Cy Oz", manifest=manifest_of(rec_id, {}) | {"files": []}
    )
    with lab.open() as data:
        data.reconstruct(rec_id)
        data.ingest_from_r2(rec_id, "Cy Oz")


def path_b(lab: Lab, number: int) -> None:
    """Uploaded by somebody else, with a key in NFD and a manifest that states no sha256; registered from the bucket."""
    rec_id = name(number)
    files = content(number) | {"camera_left/cafe\u0301.mp4": b"nfd"}
    rec_dir = make_recording(lab.bucket, rec_id, files, manifest=False)
    listed = {path: data for path, data in files.items() if "cafe" not in path} | {"camera_left/caf\u00e9.mp4": b"nfd"}
    write_json(rec_dir / "manifest.json", manifest_of(rec_id, listed, list_sha256=False))
    with lab.open() as data:
        data.ingest_from_r2(rec_id, "Dee Fox")


def edited(lab: Lab, number: int) -> None:
    """Registered, then edited by hand with every policy there is."""
    row = lab.ingest(make_recording(lab.nas, name(number), content(number)), "Aria Lin").recording
    typed = participant_id("Typed by hand")
    with lab.open() as data:
        data.register_participant("Typed by hand")
        under = {"recording_hash": row.recording_hash}
        data.register_recording(**under, duration_s=1234.5, on_conflict="extend")
        data.register_recording(**under, participant_ids=[typed], on_conflict="merge_participants")
        data.register_recording(**under, duration_s=12.5, ended_at=datetime(2026, 6, 1), on_conflict="overwrite")
        data.register_modality(
            **under,
            modality="eeg",
            worker_id="clean",
            status="derived",
            files=[{"path": "eeg_a/seg_000.edf", "size_bytes": len(content(number)["eeg_a/seg_000.edf"])}],
            metadata={"filter": "50 Hz"},
        )


def overwritten(lab: Lab, number: int) -> None:
    """Registered twice, the second time with other participants."""
    rec_dir = make_recording(lab.nas, name(number), content(number))
    lab.ingest(rec_dir, "Aria Lin")
    lab.ingest(rec_dir, "Eve Moss", overwrite=True)


def by_hand(lab: Lab, number: int) -> None:
    """A row that nothing in the bucket speaks of, without a rec_id."""
    with lab.open() as data:
        data.register_recording(recording_hash=f"{number:064x}", duration_s=3.0, metadata={"note": "from paper"})


def many(lab: Lab, first: int, count: int) -> None:
    """Plain recordings, put into the bucket and registered in one group."""
    rec_ids = [name(number) for number in range(first, first + count)]
    for number, rec_id in enumerate(rec_ids, first):
        make_recording(lab.bucket, rec_id, content(number))
    with lab.open("assets_rw") as data:
        outcomes = data.ingest_from_r2_several(rec_ids, "Aria Lin")
    assert all(outcome.error is None for outcome in outcomes)


def zoo(lab: Lab, first: int = 0) -> int:
    """One of each; returns the next free number."""
    grow = (
        lambda number: dual(lab, number, first="host"),
        lambda number: dual(lab, number, first="motor"),
        lambda number: nodes_only(lab, number),
        lambda number: absent_node(lab, number),
        lambda number: unlisted(lab, number),
        lambda number: placeholder(lab, number),
        lambda number: path_b(lab, number),
        lambda number: edited(lab, number),
        lambda number: overwritten(lab, number),
        lambda number: by_hand(lab, number),
    )
    for offset, action in enumerate(grow):
        action(first + offset)
    return first + len(grow)


def pointer(lab: Lab) -> dict[str, Any]:
    """ACTIVE.json."""
    found: dict[str, Any] = json.loads((lab.assets / "ACTIVE.json").read_text(encoding="utf-8"))
    return found
