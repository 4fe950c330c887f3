"""participant.txt and the manifest: last, byte for byte, and whom they give way to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_tools import FILES, PREFIX, PROBE, REC, ingest, objects, on_disk, put, writer

from conftest import Buckets, MakeConfig
from helpers import make_recording, manifest_of, run_ursa, write_node_manifest
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface, ObjectConflictError, UploadProgress, participant_id

HOST, MOTOR = "green-mantis", "green-motor"
HALF = {"camera_left/seg_000.mp4": b"left" * 1000}
PEER = {"eeg_a/seg_000.edf": b"eeg" * 1000}


@pytest.fixture
def data(weed_buckets: Buckets, s3_config: MakeConfig) -> Any:
    """A data interface on SeaweedFS that may write."""
    with writer(s3_config(weed_buckets)) as opened:
        yield opened


def test_the_manifest_comes_last(
    weed_buckets: Buckets,
    s3_config: MakeConfig,
    fault_proxy: Callable[[S3Server], FaultProxy],
    tmp_path: Path,
) -> None:
    writer(s3_config(weed_buckets)).close()
    rec_dir = make_recording(tmp_path, REC, FILES | {"events.csv": b"t\n"}, participant="Aria Lin")
    proxy = fault_proxy(weed_buckets.server)
    slow = proxy.stall(lambda method, path, query: method == "PUT" and path.endswith("seg_001.edf"), 0.5)
    done = run_ursa("ingest", rec_dir, "--config", s3_config(weed_buckets.at(proxy.url)))
    assert done.returncode == 0, done.stderr
    assert slow.hits == 1
    log = [entry for entry in proxy.log if PROBE not in entry.path]
    written = [entry.path for entry in log if entry.kind == "put" and f"/{weed_buckets.raw}/" in entry.path]
    assert written[-1].endswith("/manifest.json") and len(written) == 6
    (last,) = (entry for entry in log if entry.path == written[-1])
    # participant.txt goes beside the files.
    assert all(entry.answered_s <= last.started_s for entry in log if entry.path in written[:-1])
    rows = [entry.path for entry in log if entry.method == "PUT" and f"/{weed_buckets.assets}/" in entry.path]
    tables = list(dict.fromkeys(path.split("/catalog/v1/")[1].split("/")[0] for path in rows))
    assert tables[-1] == "recordings"
    paths = [entry.path for entry in log]
    assert paths.index(rows[0]) > paths.index(written[-1])


@pytest.mark.parametrize(
    "there",
    [
        {"recording_id": REC, "files": []},
        {"recording_id": REC},
        manifest_of(REC, {"eeg_a/x.edf": b"x"}) | {"reconstruction": {"tool": "ursa"}},
    ],
    ids=["placeholder", "stub", "reconstructed"],
)
def test_a_lesser_manifest_gives_way(
    there: dict[str, Any], data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    put(weed_buckets, PREFIX + "manifest.json", json.dumps(there).encode())
    rec_dir = make_recording(tmp_path, REC, FILES)
    ingest(data, rec_dir)
    assert objects(weed_buckets) == on_disk(rec_dir)


@pytest.mark.parametrize(
    "there",
    [json.dumps(manifest_of(REC, {"eeg_a/x.edf": b"x"})).encode(), b"garbage", b""],
    ids=["another", "garbage", "empty"],
)
def test_any_other_manifest_stays(there: bytes, data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    put(weed_buckets, PREFIX + "manifest.json", there)
    rec_dir = make_recording(tmp_path, REC, FILES)
    with pytest.raises(ObjectConflictError) as refused:
        ingest(data, rec_dir)
    assert tuple(refused.value.keys) == (PREFIX + "manifest.json",)
    assert objects(weed_buckets) == {PREFIX + "manifest.json": there}
    assert data.list_recordings() == []
    ingest(data, rec_dir, replace_objects=True)
    assert objects(weed_buckets) == on_disk(rec_dir)


def test_a_peers_participant_stays_and_is_united(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    put(weed_buckets, PREFIX + "participant.txt", b"Bo Berg\n")
    rec_dir = make_recording(tmp_path, REC, FILES, participant="Aria Lin")
    result = ingest(data, rec_dir, "Aria Lin")
    assert any("participant.txt" in warning for warning in result.warnings)
    assert objects(weed_buckets)[PREFIX + "participant.txt"] == b"Bo Berg\n"
    both = {participant_id("Aria Lin"), participant_id("Bo Berg")}
    assert set(result.recording.participant_ids) == both
    assert {row.participant_id for row in data.list_participants()} == both


@pytest.mark.parametrize("body", [b"Bo Berg\n", b"Aria Lin\n"], ids=["other", "equal"])
def test_a_participant_file_that_arrives_meanwhile_stays(
    body: bytes, data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES, participant="Aria Lin")

    def callback(event: UploadProgress) -> None:
        if event.phase == "plan":
            put(weed_buckets, PREFIX + "participant.txt", body)

    result = ingest(data, rec_dir, "Aria Lin", progress=callback)
    assert objects(weed_buckets) == on_disk(rec_dir) | {PREFIX + "participant.txt": body}
    assert any("participant.txt" in warning for warning in result.warnings) == (body != b"Aria Lin\n")
    assert participant_id("Aria Lin") in result.recording.participant_ids


def test_another_manifest_that_arrives_meanwhile_is_a_conflict(
    data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES)
    other = json.dumps(manifest_of(REC, {"eeg_a/x.edf": b"x"})).encode()

    def callback(event: UploadProgress) -> None:
        if event.phase == "sidecars":
            put(weed_buckets, PREFIX + "manifest.json", other)

    with pytest.raises(ObjectConflictError, match=r"manifest\.json"):
        ingest(data, rec_dir, progress=callback)
    assert objects(weed_buckets)[PREFIX + "manifest.json"] == other
    assert data.list_recordings() == []


def test_an_equal_participant_is_skipped(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    put(weed_buckets, PREFIX + "participant.txt", b"Aria Lin\n")
    result = ingest(data, make_recording(tmp_path, REC, FILES, participant="Aria Lin"), "Aria Lin")
    assert (result.files_uploaded, result.files_skipped, result.warnings) == (4, 1, ())


def test_node_manifests_go_up_as_the_rig_wrote_them(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, HALF | PEER, manifest=False)
    write_node_manifest(rec_dir, HOST, ["camera_left"])
    path = write_node_manifest(rec_dir, MOTOR, ["eeg_a"])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    ingest(data, rec_dir)
    assert objects(weed_buckets) == on_disk(rec_dir)


def test_one_node_manifest_alone_uploads_alone(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, HALF, manifest=False)
    path = write_node_manifest(rec_dir, HOST, ["camera_left"])
    result = data.ingest(path, rec_dir)
    assert (result.files_uploaded, result.absent_nodes) == (2, ())
    assert objects(weed_buckets) == on_disk(rec_dir)


@pytest.mark.parametrize("aggregate", [True, False])
def test_an_absent_node_is_not_registered_and_its_manifest_waits(
    aggregate: bool, data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path, REC, HALF | PEER, manifest=False)
    write_node_manifest(rec_dir, HOST, ["camera_left"])
    write_node_manifest(rec_dir, MOTOR, ["eeg_a"])
    if aggregate:
        manifest = manifest_of(REC, HALF | PEER)
        manifest["workers"][1]["node"] = MOTOR
        (rec_dir / "manifest.json").write_text(json.dumps(manifest))
    (rec_dir / "eeg_a" / "seg_000.edf").unlink()
    result = ingest(data, rec_dir)
    assert result.absent_nodes == (MOTOR,)
    assert [row.name for row in data.list_modalities()] == ["camera_left"]
    assert sorted(objects(weed_buckets)) == [
        PREFIX + f"_node_manifests/{HOST}.json",
        PREFIX + "camera_left/seg_000.mp4",
    ]
    assert any(MOTOR in warning for warning in result.warnings)
    # The peer comes back: the rest goes up, and the mark that all is there.
    (rec_dir / "eeg_a" / "seg_000.edf").write_bytes(PEER["eeg_a/seg_000.edf"])
    second = ingest(data, rec_dir)
    assert (second.action, second.absent_nodes) == ("merged", ())
    assert second.recording.recording_hash == result.recording.recording_hash
    assert objects(weed_buckets) == on_disk(rec_dir)
    assert [row.name for row in data.list_modalities()] == ["camera_left", "eeg_a"]
