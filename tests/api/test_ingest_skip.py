"""What is in the bucket already is skipped with proof only, and never overwritten unasked."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_tools import (
    FILES,
    MIB,
    ODD_PART_BYTES,
    PREFIX,
    PROBE,
    REC,
    ingest,
    objects,
    on_disk,
    put,
    sha256,
    writer,
)
from boto3.s3.transfer import TransferConfig

from conftest import Buckets, MakeConfig
from helpers import make_recording, run_ursa
from proxy import FaultProxy
from servers import S3Server
from ursa import ConflictError, DataInterface, ObjectConflictError, RecordingExistsError

CONTENT = os.urandom(MIB)


@pytest.fixture
def data(weed_buckets: Buckets, s3_config: MakeConfig) -> Any:
    """A data interface on SeaweedFS that may write."""
    with writer(s3_config(weed_buckets)) as opened:
        yield opened


def foreign(buckets: Buckets, path: str, body: bytes, part_bytes: int, **extra: Any) -> None:
    """Upload in parts as boto3, rclone or s5cmd would."""
    config = TransferConfig(multipart_threshold=part_bytes, multipart_chunksize=part_bytes, max_concurrency=4)
    buckets.server.client().upload_fileobj(
        io.BytesIO(body), buckets.raw, PREFIX + path, Config=config, ExtraArgs=extra or None
    )


def evidence(data: DataInterface) -> dict[str, str]:
    """How good the proof of each registered file is."""
    return {file.path: file.evidence for row in data.list_modalities() for file in row.files}


def test_md5_and_part_md5s_prove(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    sizes = {5: 12, 8: 17, 16: 33, 32: 40, 64: 65}
    files = {f"camera_left/{part}.mp4": CONTENT * total for part, total in sizes.items()}
    files |= {"eeg_a/one.edf": b"one", "eeg_a/none.edf": b""}
    for part in sizes:
        foreign(weed_buckets, f"camera_left/{part}.mp4", files[f"camera_left/{part}.mp4"], part * MIB)
    for path in ("eeg_a/one.edf", "eeg_a/none.edf"):
        put(weed_buckets, PREFIX + path, files[path])
    rec_dir = make_recording(tmp_path, REC, files)
    result = ingest(data, rec_dir)
    assert (result.files_uploaded, result.files_skipped) == (1, 7)
    assert result.bytes_skipped == sum(map(len, files.values()))
    assert evidence(data) == dict.fromkeys(files, "etag")


@pytest.mark.parametrize("part_bytes", [6 * MIB, 7 * MIB, 6_000_000, 11_000_000])
def test_part_sizes_that_others_use_prove_too(
    part_bytes: int, data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    files = {"camera_left/a.mp4": CONTENT * 15}
    foreign(weed_buckets, "camera_left/a.mp4", files["camera_left/a.mp4"], part_bytes)
    result = ingest(data, make_recording(tmp_path, REC, files))
    assert (result.files_uploaded, result.files_skipped) == (1, 1)
    assert evidence(data) == dict.fromkeys(files, "etag")


def test_a_get_proves_the_rest_whatever_the_object_states(
    data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    files = {
        "camera_left/stated.mp4": CONTENT * 15,
        "camera_left/silent.mp4": CONTENT[::-1] * 15,
        "camera_left/liar.mp4": (CONTENT[1:] + b"x") * 15,
    }
    stated = {"stated": files["camera_left/stated.mp4"], "liar": b"something else"}
    for path, body in files.items():
        name = path.partition("/")[2].partition(".")[0]
        extra = {"Metadata": {"sha256": sha256(stated[name])}} if name in stated else {}
        foreign(weed_buckets, path, body, ODD_PART_BYTES, **extra)
    result = ingest(data, make_recording(tmp_path, REC, files))
    assert (result.files_uploaded, result.files_skipped) == (1, 3)
    assert evidence(data) == dict.fromkeys(files, "sha256")


@pytest.mark.parametrize("part_bytes", [ODD_PART_BYTES, 8 * MIB, 0], ids=["odd parts", "parts", "single"])
def test_an_object_that_states_our_sha256_and_holds_other_bytes_is_a_conflict(
    part_bytes: int, data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    """An upload that was taken over keeps the metadata that it was begun with."""
    body, metadata = CONTENT * 15, {"sha256": sha256(CONTENT * 15)}
    if part_bytes:
        foreign(weed_buckets, "camera_left/a.mp4", CONTENT[::-1] * 15, part_bytes, Metadata=metadata)
    else:
        put(weed_buckets, PREFIX + "camera_left/a.mp4", CONTENT[::-1] * 15, Metadata=metadata)
    with pytest.raises(ObjectConflictError, match=r"camera_left/a\.mp4"):
        ingest(data, make_recording(tmp_path, REC, {"camera_left/a.mp4": body}))
    assert data.list_recordings() == []


def test_nothing_is_fetched_where_an_etag_proves(
    weed_buckets: Buckets,
    s3_config: MakeConfig,
    fault_proxy: Callable[[S3Server], FaultProxy],
    tmp_path: Path,
) -> None:
    writer(s3_config(weed_buckets)).close()
    foreign(weed_buckets, "camera_left/a.mp4", CONTENT * 17, 8 * MIB)
    put(weed_buckets, PREFIX + "eeg_a/b.edf", b"b" * 1000)
    rec_dir = make_recording(tmp_path, REC, {"camera_left/a.mp4": CONTENT * 17, "eeg_a/b.edf": b"b" * 1000})
    proxy = fault_proxy(weed_buckets.server)
    done = run_ursa("ingest", rec_dir, "--config", s3_config(weed_buckets.at(proxy.url)))
    assert done.returncode == 0, done.stderr
    raw = [entry for entry in proxy.log if entry.path.startswith(f"/{weed_buckets.raw}") and PROBE not in entry.path]
    assert [entry.path.rpartition("/")[2] for entry in raw if entry.method != "GET" and entry.method != "HEAD"] == [
        "manifest.json"
    ]
    assert not [entry for entry in raw if entry.kind == "get"]


def _same_size(rec_dir: Path) -> dict[str, bytes]:
    paths = ("camera_left/seg_000.mp4", "eeg_a/seg_001.edf")
    return {path: bytes(len((rec_dir / path).read_bytes())) for path in paths}


def test_other_content_names_every_key_before_a_byte_moves(
    data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES)
    others = _same_size(rec_dir) | {"eeg_a/seg_000.edf": b"another size"}
    for path, body in others.items():
        put(weed_buckets, PREFIX + path, body)
    before = objects(weed_buckets)
    with pytest.raises(ObjectConflictError) as refused:
        ingest(data, rec_dir)
    assert sorted(refused.value.keys) == sorted(before)
    assert all(key in refused.value.message for key in before)
    assert "--replace-objects" in (refused.value.hint or "")
    assert refused.value.exit_code == 5
    assert objects(weed_buckets) == before
    assert data.list_recordings() == []
    result = ingest(data, rec_dir, replace_objects=True)
    assert (result.action, result.files_uploaded, result.files_skipped) == ("created", 4, 0)
    assert objects(weed_buckets) == on_disk(rec_dir)


def test_a_registered_object_with_other_content_is_never_the_same_files(
    data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES)
    ingest(data, rec_dir)
    path, body = next(iter(_same_size(rec_dir).items()))
    put(weed_buckets, PREFIX + path, body)
    for options in ({}, {"replace_objects": True}):
        with pytest.raises(ObjectConflictError, match=path) as refused:
            ingest(data, rec_dir, **options)
        assert "--overwrite --replace-objects" in (refused.value.hint or "")
    assert ingest(data, rec_dir, overwrite=True, replace_objects=True).files_uploaded == 1
    assert objects(weed_buckets) == on_disk(rec_dir)


def test_large_objects_are_replaced_too(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, {"camera_left/a.mp4": CONTENT * 18})
    put(weed_buckets, PREFIX + "camera_left/a.mp4", bytes(18 * MIB))
    with pytest.raises(ObjectConflictError):
        ingest(data, rec_dir, overwrite=True)
    ingest(data, rec_dir, replace_objects=True)
    assert objects(weed_buckets) == on_disk(rec_dir)


def test_trust_size_is_for_those_who_ask(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES)
    others = _same_size(rec_dir)
    for path, body in others.items():
        put(weed_buckets, PREFIX + path, body)
    result = ingest(data, rec_dir, trust_size=True)
    assert (result.files_uploaded, result.files_skipped) == (2, 2)
    assert {path for path, proof in evidence(data).items() if proof == "claimed"} == set(others)
    for path, body in others.items():
        assert objects(weed_buckets)[PREFIX + path] == body
    with pytest.raises(ObjectConflictError):  # what was only claimed is compared by who does not trust it
        ingest(data, rec_dir)


def test_trust_size_does_not_trust_another_size(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    put(weed_buckets, PREFIX + "eeg_a/seg_000.edf", b"another size")
    with pytest.raises(ObjectConflictError):
        ingest(data, make_recording(tmp_path, REC, FILES), trust_size=True)


def test_a_row_proves_while_the_object_is_the_same(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, {"camera_left/a.mp4": CONTENT * 15})
    foreign(weed_buckets, "camera_left/a.mp4", CONTENT * 15, ODD_PART_BYTES)
    ingest(data, rec_dir)
    again = ingest(data, rec_dir, overwrite=True)
    assert (again.files_uploaded, again.files_skipped, evidence(data)) == (0, 2, {"camera_left/a.mp4": "sha256"})
    foreign(weed_buckets, "camera_left/a.mp4", bytes(15 * MIB), ODD_PART_BYTES)
    with pytest.raises(ObjectConflictError):
        ingest(data, rec_dir, overwrite=True)


def test_a_registered_recording_changes_with_both_flags_only(
    data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    ingest(data, make_recording(tmp_path / "first", REC, FILES))
    before, row = objects(weed_buckets), data.find_recording(REC)
    changed = make_recording(tmp_path / "second", REC, FILES | {"eeg_a/seg_000.edf": b"other"})
    refusals: list[tuple[dict[str, bool], type[Exception]]] = [
        ({}, ConflictError),
        ({"replace_objects": True}, ConflictError),
        ({"overwrite": True}, ObjectConflictError),
    ]
    for options, error in refusals:
        with pytest.raises(error, match=r"eeg_a/seg_000\.edf"):
            ingest(data, changed, **options)
        assert (objects(weed_buckets), data.find_recording(REC)) == (before, row)
    result = ingest(data, changed, overwrite=True, replace_objects=True)
    assert result.action == "overwritten"
    assert objects(weed_buckets) == on_disk(changed)
    assert result.recording.recording_hash == row.recording_hash
    with pytest.raises(RecordingExistsError):
        ingest(data, changed)
