"""Halves of a session, grown directories, overwrites: what becomes of the rows that are there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from api_tools import PREFIX, REC, ingest, objects, on_disk, sha256, writer

from conftest import Buckets, MakeConfig
from helpers import make_recording, manifest_of, run_ursa, write_json, write_node_manifest
from ursa import ConflictError, DataInterface, RecordingExistsError, derive_recording_hash, participant_id

HOST, MOTOR = "green-mantis", "green-motor"
HALVES = {
    HOST: {"camera_left/seg_000.mp4": b"left" * 1000, "mic_room/seg_000.wav": b"wav" * 500},
    MOTOR: {"eeg_a/seg_000.edf": b"eeg" * 1000, "eeg_b/seg_000.edf": b"EEG" * 1000},
}
DURATIONS = {HOST: 90.0, MOTOR: 120.0}
STARTS = {HOST: "2026-05-20T19:56:28Z", MOTOR: "2026-05-20T19:56:20Z"}
ENDS = {HOST: "2026-05-20T19:57:58Z", MOTOR: "2026-05-20T19:58:20Z"}
NAMES = {HOST: "Aria Lin", MOTOR: "Bo Berg"}
HASH = "ab" * 32


@pytest.fixture
def data() -> Any:
    """A data interface on the local profile that may write."""
    with DataInterface("local") as opened:
        opened.enable_writes(roles=("assets_rw", "raw_rw"))
        yield opened


def half(root: Path, host: str, **fields: Any) -> Path:
    """One node's half of the session, as its own disk has it."""
    rec_dir = make_recording(root / host, REC, HALVES[host], manifest=False, participant=NAMES[host])
    workers = sorted({path.split("/")[0] for path in HALVES[host]})
    times = {"started_at": STARTS[host], "ended_at": ENDS[host], "duration_s": DURATIONS[host]}
    write_node_manifest(rec_dir, host, workers, **(times | fields))
    return rec_dir


@pytest.mark.parametrize("stated", [HASH, None], ids=["stated", "derived"])
@pytest.mark.parametrize("order", [(HOST, MOTOR), (MOTOR, HOST)], ids=["host first", "motor first"])
def test_halves_merge_in_either_order(
    order: tuple[str, str], stated: str | None, data: DataInterface, tmp_path: Path
) -> None:
    first, second = (
        ingest(data, half(tmp_path, host, recording_hash=stated, nodes=[HOST, MOTOR]), NAMES[host]) for host in order
    )
    derived = derive_recording_hash(map(sha256, HALVES[order[0]].values()))
    assert (first.action, second.action) == ("created", "merged")
    assert first.recording.recording_hash == second.recording.recording_hash == (stated or derived)
    (row,) = data.list_recordings()
    assert row == second.recording
    assert (row.duration_s, row.participant_ids) == (120.0, tuple(sorted(map(participant_id, NAMES.values()))))
    assert row.started_at is not None and row.started_at.isoformat() == "2026-05-20T19:56:20+00:00"
    assert row.ended_at is not None and row.ended_at.isoformat() == "2026-05-20T19:58:20+00:00"
    modalities = data.list_modalities(where={"recording_hash": row.recording_hash})
    assert {(item.name, item.node) for item in modalities} == {
        ("camera_left", HOST),
        ("mic_room", HOST),
        ("eeg_a", MOTOR),
        ("eeg_b", MOTOR),
    }
    assert sorted(data.query(modalities=["eeg"]).modalities) == ["eeg_a", "eeg_b"]
    for host in order:
        with pytest.raises(RecordingExistsError):
            ingest(data, tmp_path / host / REC, NAMES[host])
    assert data.list_recordings() == [row]


def test_the_second_half_keeps_the_firsts_participant_file(data: DataInterface, tmp_path: Path) -> None:
    ingest(data, half(tmp_path, HOST), NAMES[HOST])
    second = ingest(data, half(tmp_path, MOTOR), NAMES[MOTOR])
    assert any("participant.txt" in warning for warning in second.warnings)
    assert set(second.recording.participant_ids) == set(map(participant_id, NAMES.values()))


def test_a_half_that_states_another_hash_is_a_conflict(data: DataInterface, tmp_path: Path) -> None:
    first = ingest(data, half(tmp_path, HOST, recording_hash=HASH))
    with pytest.raises(ConflictError, match=HASH) as refused:
        ingest(data, half(tmp_path, MOTOR, recording_hash="cd" * 32))
    assert refused.value.rec_id == REC
    assert data.list_recordings() == [first.recording]
    assert len(data.list_modalities()) == 2


def test_a_shorter_second_half_shortens_nothing(data: DataInterface, tmp_path: Path) -> None:
    ingest(data, half(tmp_path, MOTOR))
    assert ingest(data, half(tmp_path, HOST)).recording.duration_s == 120.0


def test_an_assumed_time_never_beats_a_stated_one(data: DataInterface, tmp_path: Path) -> None:
    ingest(data, half(tmp_path, HOST))
    early = {"started_at": "2026-05-20T10:00:00", "ended_at": None, "duration_s": None}
    merged = ingest(data, half(tmp_path, MOTOR, **early)).recording
    assert merged.started_at is not None and merged.started_at.isoformat() == "2026-05-20T19:56:28+00:00"
    assert "time_assumed" not in merged.metadata


@pytest.mark.parametrize("stated", [HASH, None], ids=["stated", "derived"])
def test_halves_at_once_from_two_processes(
    stated: str | None, weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    config = s3_config(weed_buckets)
    data = writer(config)
    dirs = [half(tmp_path, host, recording_hash=stated) for host in HALVES]
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda rec_dir: run_ursa("ingest", rec_dir, "--config", config), dirs))
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    (row,) = data.list_recordings()
    hashes = {derive_recording_hash(map(sha256, files.values())) for files in HALVES.values()}
    assert row.recording_hash in ({stated} if stated else hashes)
    assert (row.duration_s, set(row.participant_ids)) == (120.0, set(map(participant_id, NAMES.values())))
    modalities = data.list_modalities()
    assert {item.recording_hash for item in modalities} == {row.recording_hash}
    assert sorted(item.name for item in modalities) == ["camera_left", "eeg_a", "eeg_b", "mic_room"]
    wanted = {key: body for rec_dir in dirs for key, body in on_disk(rec_dir).items()}
    found = objects(weed_buckets)
    assert found.pop(PREFIX + "participant.txt") in (b"Aria Lin\n", b"Bo Berg\n")
    del wanted[PREFIX + "participant.txt"]
    assert found == wanted


def test_the_same_directory_at_once_from_two_processes(
    weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    config = s3_config(weed_buckets)
    data = writer(config)
    rec_dir = half(tmp_path, HOST)
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: run_ursa("ingest", rec_dir, "--config", config), range(2)))
    assert sorted(run.returncode for run in runs) == [0, 5], [run.stderr for run in runs]
    assert len(data.list_recordings()) == 1
    assert len(data.list_modalities()) == 2
    assert objects(weed_buckets) == on_disk(rec_dir)


def _grow_worker(rec_dir: Path) -> None:
    (rec_dir / "notes_operator").mkdir()
    (rec_dir / "notes_operator" / "notes.txt").write_bytes(b"late notes")


def _grow_auxiliary(rec_dir: Path) -> None:
    (rec_dir / "events.csv").write_bytes(b"t,what\n")


@pytest.mark.parametrize("grow", [_grow_worker, _grow_auxiliary])
def test_a_directory_that_has_grown_is_merged(
    grow: Callable[[Path], None], data: DataInterface, tmp_path: Path
) -> None:
    rec_dir = half(tmp_path, HOST)
    first = ingest(data, rec_dir, NAMES[HOST])
    grow(rec_dir)
    second = ingest(data, rec_dir, NAMES[HOST])
    assert (second.action, second.files_uploaded, second.unlisted) == ("merged", 1, 1)
    assert second.recording.recording_hash == first.recording.recording_hash
    assert len(data.list_recordings()) == 1
    with pytest.raises(RecordingExistsError):
        ingest(data, rec_dir, NAMES[HOST])


@pytest.mark.parametrize("newer", [True, False])
@pytest.mark.parametrize(
    "change",
    [{"camera_left/seg_000.mp4": b"LEFT" * 1000}, {"camera_left/seg_001.mp4": b"more"}, {"events.csv": b"other"}],
    ids=["same size", "more files", "auxiliary"],
)
def test_a_worker_with_other_files_is_a_conflict(
    change: dict[str, bytes], newer: bool, data: DataInterface, tmp_path: Path
) -> None:
    files = HALVES[HOST] | {"events.csv": b"t,what\n"}
    first = ingest(data, make_recording(tmp_path / "first", REC, files))
    modalities = data.list_modalities()
    other = make_recording(tmp_path / "second", REC, files | change, list_sha256=newer)
    with pytest.raises(ConflictError) as refused:
        ingest(data, other)
    assert tuple(refused.value.paths) == tuple(change)
    assert refused.value.exit_code == 5
    assert data.list_recordings() == [first.recording]
    assert data.list_modalities() == modalities


def test_overwrite_keeps_workers_that_are_not_on_this_disk(data: DataInterface, tmp_path: Path) -> None:
    first = ingest(data, half(tmp_path, HOST), NAMES[HOST])
    ingest(data, half(tmp_path, MOTOR), NAMES[MOTOR])
    again = ingest(data, tmp_path / HOST / REC, "Cleo", overwrite=True)
    assert again.action == "overwritten"
    (row,) = data.list_recordings()
    assert row.recording_hash == first.recording.recording_hash
    assert row.duration_s == 120.0
    assert participant_id(NAMES[MOTOR]) in row.participant_ids and participant_id("Cleo") in row.participant_ids
    assert sorted(item.name for item in data.list_modalities()) == ["camera_left", "eeg_a", "eeg_b", "mic_room"]


def test_one_recording_under_two_names_is_a_conflict(data: DataInterface, tmp_path: Path) -> None:
    ingest(data, half(tmp_path, HOST, recording_hash=HASH))
    twin = tmp_path / "rec_20260520_195628_ffff"
    shutil.copytree(tmp_path / HOST / REC, twin)
    shutil.rmtree(twin / "_node_manifests")
    write_json(twin / "manifest.json", manifest_of(twin.name, HALVES[HOST], recording_hash=HASH))
    with pytest.raises(ConflictError, match=REC):
        ingest(data, twin)
    assert [row.rec_id for row in data.list_recordings()] == [REC]
