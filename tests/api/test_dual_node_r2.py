"""Halves of a dual-node session that reach the catalog from the bucket: in any order, weeks apart, at once, half by half."""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helpers import make_recording, manifest_of, run_ursa, write_json, write_node_manifest
from ursa import (
    ConflictError,
    DataInterface,
    MissingFilesError,
    RecordingExistsError,
    derive_recording_hash,
    participant_id,
)

REC = "rec_20260520_195628_b1dd"
HOST, MOTOR = "green-mantis", "green-motor"
HALVES = {
    HOST: {"camera_left/seg_000.mp4": b"left" * 1000, "mic_room/seg_000.wav": b"wav" * 500},
    MOTOR: {"eeg_a/seg_000.edf": b"eeg" * 1000, "eeg_b/seg_000.edf": b"EEG" * 1000},
}
TIMES: dict[str, dict[str, Any]] = {
    HOST: {"started_at": "2026-05-20T19:56:28Z", "ended_at": "2026-05-20T19:57:58Z", "duration_s": 90.0},
    MOTOR: {"started_at": "2026-05-20T19:56:20Z", "ended_at": "2026-05-20T19:58:20Z", "duration_s": 120.0},
}
NAMES = {HOST: "Aria Lin", MOTOR: "Bo Berg"}
ORDERS = [(HOST, MOTOR), (MOTOR, HOST)]
HASH = "ab" * 32
NODES = [{"hostname": HOST, "role": "host"}, {"hostname": MOTOR, "role": "eeg"}]


class Lab:
    """One bucket and catalog, in a directory; each machine has its own disk and its own data interface."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "local.yaml"
        self.config.write_text(f"profiles:\n  local: {{root: {root / 'store'}}}\n", encoding="utf-8")
        self.bucket = root / "store" / "constellation-data" / "recordings" / REC

    def open(self) -> DataInterface:
        data = DataInterface("local", self.config)
        data.enable_writes(roles=("assets_rw", "raw_rw"))
        return data

    def half(self, host: str, **fields: Any) -> Path:
        """A node's half on that node's disk."""
        rec_dir = make_recording(self.root / host, REC, HALVES[host], manifest=False, participant=NAMES[host])
        workers = sorted({path.split("/")[0] for path in HALVES[host]})
        write_node_manifest(rec_dir, host, workers, **({"nodes": NODES} | TIMES[host] | fields))
        return rec_dir

    def uploaded(self, host: str, **fields: Any) -> None:
        """A node's half, uploaded by its own rig."""
        shutil.copytree(self.half(host, **fields), self.bucket, dirs_exist_ok=True)

    def register(self, host: str, **options: Any) -> Any:
        """Path B, on a machine of its own."""
        with self.open() as data:
            return data.ingest_from_r2(REC, NAMES[host], **options)

    def ingest(self, rec_dir: Path, host: str) -> Any:
        """Path A, on a machine of its own."""
        with self.open() as data:
            return data.ingest(rec_dir / "manifest.json", rec_dir, NAMES[host])


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def check_whole(lab: Lab, recording_hash: str) -> None:
    """One recording, with both halves and all that each of them says."""
    data = lab.open()
    (row,) = data.list_recordings()
    assert row.recording_hash == recording_hash
    assert row.started_at is not None and row.started_at.isoformat() == "2026-05-20T19:56:20+00:00"
    assert row.ended_at is not None and row.ended_at.isoformat() == "2026-05-20T19:58:20+00:00"
    assert row.duration_s == 120.0
    assert set(row.participant_ids) == set(map(participant_id, NAMES.values()))
    assert row.metadata["nodes"] == f"{HOST},{MOTOR}"
    assert {(item.name, item.node) for item in data.list_modalities()} == {
        ("camera_left", HOST),
        ("mic_room", HOST),
        ("eeg_a", MOTOR),
        ("eeg_b", MOTOR),
    }
    assert {item.recording_hash for item in data.list_modalities()} == {recording_hash}
    assert data.verify([REC], level="full")[0].ok


def derived(*hosts: str) -> str:
    return derive_recording_hash(hashlib.sha256(body).hexdigest() for host in hosts for body in HALVES[host].values())


def nodes(lab: Lab) -> str:
    """What `ursa show` says of the nodes."""
    shown = run_ursa("show", REC, "-p", "local", "--config", lab.config)
    assert shown.returncode == 0, shown.stderr
    return next(line.strip() for line in shown.stdout.splitlines() if line.strip().startswith("nodes"))


@pytest.mark.parametrize("stated", [HASH, None], ids=["stated", "derived"])
@pytest.mark.parametrize("order", ORDERS, ids=["host first", "motor first"])
def test_halves_weeks_apart(order: tuple[str, str], stated: str | None, lab: Lab) -> None:
    first, second = order
    lab.uploaded(first, recording_hash=stated)
    created = lab.register(first)
    assert (created.action, created.recording.recording_hash) == ("created", stated or derived(first))
    assert {item.node for item in lab.open().list_modalities()} == {first}
    assert nodes(lab) == f"nodes           {first}; not here yet: {second}"
    lab.uploaded(second, recording_hash=stated)
    merged = lab.register(second)
    assert merged.action == "merged"
    check_whole(lab, created.recording.recording_hash)
    assert nodes(lab) == f"nodes           {HOST}, {MOTOR}"
    for host in order:
        with pytest.raises(RecordingExistsError):
            lab.register(host)


def test_both_halves_at_once_are_one_recording(lab: Lab) -> None:
    for host in HALVES:
        lab.uploaded(host)
    created = lab.register(HOST)
    assert (created.action, created.recording.recording_hash) == ("created", derived(HOST, MOTOR))
    assert {item.node for item in lab.open().list_modalities()} == {HOST, MOTOR}


@pytest.mark.parametrize("stated", [HASH, None], ids=["stated", "derived"])
def test_halves_from_two_processes_at_once(stated: str | None, lab: Lab) -> None:
    """Each machine ingests its half at the same moment; whichever wins, both are there under one hash."""
    dirs = {host: lab.half(host, recording_hash=stated) for host in HALVES}
    with ThreadPoolExecutor(2) as pool:
        runs = list(
            pool.map(lambda path: run_ursa("ingest", path, "-p", "local", "--config", lab.config), dirs.values())
        )
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    (row,) = lab.open().list_recordings()
    assert row.recording_hash in ({stated} if stated else {derived(HOST), derived(MOTOR)})
    check_whole(lab, row.recording_hash)


def test_the_same_bucket_from_two_processes_at_once(lab: Lab) -> None:
    for host in HALVES:
        lab.uploaded(host)
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: run_ursa("ingest-r2", REC, "-p", "local", "--config", lab.config), range(2)))
    assert sorted(run.returncode for run in runs) == [0, 5], [run.stderr for run in runs]
    data = lab.open()
    assert len(data.list_recordings()) == 1 and len(data.list_modalities()) == 4


@pytest.mark.parametrize("order", ORDERS, ids=["host first", "motor first"])
def test_path_a_of_one_half_and_path_b_of_the_other(order: tuple[str, str], lab: Lab) -> None:
    disk, bucket = order
    first = lab.ingest(lab.half(disk), disk)
    lab.uploaded(bucket)
    second = lab.register(bucket)
    assert (first.action, second.action) == ("created", "merged")
    check_whole(lab, first.recording.recording_hash)


@pytest.mark.parametrize("order", ORDERS, ids=["host first", "motor first"])
def test_path_b_of_one_half_and_path_a_of_the_other(order: tuple[str, str], lab: Lab) -> None:
    bucket, disk = order
    lab.uploaded(bucket)
    first = lab.register(bucket)
    second = lab.ingest(lab.half(disk), disk)
    assert (first.action, second.action) == ("created", "merged")
    check_whole(lab, first.recording.recording_hash)


def aggregate(rec_dir: Path, **fields: Any) -> None:
    """A manifest.json that lists both halves."""
    everything = HALVES[HOST] | HALVES[MOTOR]
    workers = [
        {"dir": name, "modality": name.split("_")[0], "worker_id": name.split("_")[1], "node": host}
        for host in HALVES
        for name in sorted({path.split("/")[0] for path in HALVES[host]})
    ]
    write_json(rec_dir / "manifest.json", manifest_of(REC, everything, workers=workers, nodes=NODES, **fields))


@pytest.mark.parametrize("order", ORDERS, ids=["host first", "motor first"])
def test_a_manifest_that_lists_both_halves(order: tuple[str, str], lab: Lab) -> None:
    """On a disk with one half the other node is absent; in the bucket, whatever is listed must be there."""
    first, second = order
    here = make_recording(lab.root / first, REC, HALVES[first], manifest=False)
    aggregate(here, **TIMES[MOTOR])
    created = lab.ingest(here, first)
    assert (created.action, created.absent_nodes) == ("created", (second,))
    assert nodes(lab) == f"nodes           {first}; not here yet: {second}"
    for path, body in HALVES[second].items():
        (lab.bucket / path).parent.mkdir(parents=True)
        (lab.bucket / path).write_bytes(body)
    aggregate(lab.bucket, **TIMES[MOTOR])
    merged = lab.register(second)
    assert merged.action == "merged"
    check_whole(lab, created.recording.recording_hash)


def test_path_b_invents_no_half(lab: Lab) -> None:
    shutil.copytree(make_recording(lab.root / HOST, REC, HALVES[HOST], manifest=False), lab.bucket)
    aggregate(lab.bucket)
    with pytest.raises(MissingFilesError) as refused:
        lab.register(HOST)
    assert set(refused.value.paths) == set(HALVES[MOTOR])
    assert lab.open().list_recordings() == []


@pytest.mark.parametrize("order", ORDERS, ids=["host first", "motor first"])
def test_overlapping_equal_files_are_registered_already(order: tuple[str, str], lab: Lab) -> None:
    """The second machine's copy has the first one's worker as well, and the same bytes."""
    first, second = order
    lab.ingest(lab.half(first), first)
    shutil.copytree(lab.root / first / REC, lab.root / "copy" / REC)
    with pytest.raises(RecordingExistsError):
        lab.ingest(lab.root / "copy" / REC, second)
    both = lab.half(second)
    shutil.copytree(lab.root / first / REC, both, dirs_exist_ok=True)
    assert lab.ingest(both, second).action == "merged"
    check_whole(lab, derived(first))


@pytest.mark.parametrize("how", ["path A", "path B"])
@pytest.mark.parametrize("order", ORDERS, ids=["host first", "motor first"])
def test_overlapping_workers_with_other_files_are_a_conflict(order: tuple[str, str], how: str, lab: Lab) -> None:
    first, second = order
    lab.ingest(lab.half(first), first)
    path = sorted(HALVES[first])[0]
    changed = {path: b"other"} | HALVES[second]
    rec_dir = make_recording(lab.root / "second", REC, changed, manifest=False)
    write_node_manifest(rec_dir, second, sorted({name.split("/")[0] for name in changed}))
    before = (lab.open().list_recordings(), lab.open().list_modalities())
    with pytest.raises(ConflictError) as refused:
        if how == "path A":
            lab.ingest(rec_dir, second)
        else:
            shutil.rmtree(lab.bucket)
            shutil.copytree(rec_dir, lab.bucket)
            lab.register(second)
    assert tuple(refused.value.paths) == (path,)
    assert (lab.open().list_recordings(), lab.open().list_modalities()) == before


def test_halves_that_state_two_hashes_are_refused(lab: Lab) -> None:
    lab.uploaded(HOST, recording_hash=HASH)
    lab.register(HOST)
    with pytest.raises(ConflictError, match="cd" * 32):
        lab.ingest(lab.half(MOTOR, recording_hash="cd" * 32), MOTOR)
    assert len(lab.open().list_modalities()) == 2
