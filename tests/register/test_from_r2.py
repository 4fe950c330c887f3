"""Path B: rows from what is in the bucket, and what refuses them."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from r2_tools import FILES, NOTHING, OTHER, REC, Local, local_store, paths, rows

from helpers import make_recording, manifest_of, write_json, write_node_manifest
from ursa import (
    ConflictError,
    DataInterface,
    InvalidRecordingError,
    ManifestError,
    ManifestNotFoundError,
    MissingFilesError,
    RecordingExistsError,
    UploadProgress,
    WritesNotEnabledError,
    derive_recording_hash,
    participant_id,
)
from ursa.manifest import MAX_MANIFEST_BYTES

HASH, OTHER_HASH = "ab" * 32, "cd" * 32


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def local(tmp_path: Path) -> Local:
    return local_store(tmp_path)


@pytest.fixture
def data(local: Local) -> DataInterface:
    return local.open()


def test_manifest_json(local: Local, data: DataInterface, tmp_path: Path) -> None:
    there = local.put(make_recording(tmp_path / "nas", REC, FILES, participant="Somebody Else"))
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in there.rglob("*") if path.is_file()}
    result = data.ingest_from_r2(REC, "Aria Lin")
    assert (result.action, result.files_uploaded, result.bytes_uploaded) == ("created", 0, 0)
    assert (result.files_skipped, result.bytes_skipped) == (5, sum(len(data) for _, data in before.values()))
    row = data.find_recording(REC)
    assert row == result.recording
    assert row.recording_hash == derive_recording_hash(map(sha256, FILES.values()))
    assert (row.duration_s, row.participant_ids) == (60.0, (participant_id("Aria Lin"),))
    assert row.metadata["manifest_recording_id"] == REC
    assert paths(data) == {path: sha256(body) for path, body in FILES.items()}
    assert [(item.name, item.node, item.bytes) for item in data.list_modalities()] == [
        ("camera_left", "green-mantis", 1000),
        ("eeg_a", "green-mantis", 1800),
    ]
    assert [person.display_name for person in data.list_participants()] == ["Aria Lin"]
    assert data.verify([REC], level="full")[0].ok
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in there.rglob("*") if path.is_file()} == before


def test_path_a_of_the_same_recording_has_nothing_to_do(local: Local, data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    local.put(rec_dir)
    data.ingest_from_r2(REC)
    with pytest.raises(RecordingExistsError):
        local.open("assets_rw", "raw_rw").ingest(rec_dir / "manifest.json", rec_dir)


@pytest.mark.parametrize("stub", [{"recording_id": REC, "files": []}, None], ids=["placeholder", "none"])
def test_node_manifests_are_merged_where_manifest_json_lists_nothing(
    stub: dict[str, Any] | None, local: Local, data: DataInterface, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, manifest=stub if stub else False)
    write_node_manifest(rec_dir, "green-mantis", ["camera_left"], duration_s=50.0)
    write_node_manifest(rec_dir, "green-motor", ["eeg_a"], duration_s=70.0)
    local.put(rec_dir)
    row = data.ingest_from_r2(REC).recording
    assert (row.duration_s, row.metadata["nodes"]) == (70.0, "green-mantis,green-motor")
    assert [(item.name, item.node) for item in data.list_modalities()] == [
        ("camera_left", "green-mantis"),
        ("eeg_a", "green-motor"),
    ]


@pytest.mark.parametrize(
    ("manifest", "told"),
    [(False, "no manifest"), ({"recording_id": REC, "files": []}, "only a placeholder without files")],
    ids=["none", "placeholder"],
)
def test_without_a_manifest_reconstruct_is_the_next_command(
    manifest: Any, told: str, local: Local, data: DataInterface, tmp_path: Path
) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES, manifest=manifest))
    with pytest.raises(ManifestNotFoundError, match=told) as refused:
        data.ingest_from_r2(REC, "Aria Lin")
    assert refused.value.hint is not None and f"ursa reconstruct {REC}" in refused.value.hint
    assert refused.value.rec_id == REC and refused.value.exit_code == 1
    assert rows(data) == NOTHING


def test_a_prefix_with_nothing_below_it_says_so(data: DataInterface) -> None:
    with pytest.raises(ManifestNotFoundError, match="there is nothing below recordings/") as refused:
        data.ingest_from_r2(REC)
    assert refused.value.hint is not None and "ursa ingest REC_DIR" in refused.value.hint


def test_missing_and_short_files_are_all_named_and_nothing_is_written(
    local: Local, data: DataInterface, tmp_path: Path
) -> None:
    there = local.put(make_recording(tmp_path / "nas", REC, FILES))
    (there / "camera_left" / "seg_000.mp4").unlink()
    (there / "eeg_a" / "seg_001.edf").write_bytes(b"short")
    with pytest.raises(MissingFilesError) as refused:
        data.ingest_from_r2(REC, "Aria Lin")
    error = refused.value
    assert tuple(error.paths) == ("camera_left/seg_000.mp4", "eeg_a/seg_001.edf")
    assert error.exit_code == 6
    assert "2 of 3 listed files are not whole" in error.message
    assert "camera_left/seg_000.mp4 (missing)" in error.message
    assert "eeg_a/seg_001.edf (5 bytes instead of 900)" in error.message
    assert error.hint is not None and "Nothing was registered" in error.hint and "ursa ingest" in error.hint
    assert rows(data) == NOTHING


def test_every_missing_file_is_in_paths_however_many(local: Local, data: DataInterface, tmp_path: Path) -> None:
    files = {f"eeg_a/seg_{i:03}.edf": b"x" for i in range(120)}
    rec_dir = make_recording(tmp_path / "nas", REC, files)
    for path in list(files)[1:]:
        (rec_dir / path).unlink()
    local.put(rec_dir)
    with pytest.raises(MissingFilesError, match="and 69 more") as refused:
        data.ingest_from_r2(REC)
    assert len(refused.value.paths) == 119


def test_the_participant_is_the_callers_alone(local: Local, data: DataInterface, tmp_path: Path) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES, participant="From The File"))
    write_json(local.bucket / REC / "manifest.json", manifest_of(REC, FILES, participant="From The Manifest"))
    assert data.ingest_from_r2(REC).recording.participant_ids == ()
    assert rows(data)["participants"] == []
    renamed = data.ingest_from_r2(REC, "  Aria Lin ", overwrite=True).recording
    assert renamed.participant_ids == (participant_id("Aria Lin"),)
    assert data.ingest_from_r2(REC, "", overwrite=True).recording.participant_ids == renamed.participant_ids


@pytest.mark.parametrize("broken", [b"\xff\xfe", b"a\nb\n", b"x" * 100_000])
def test_a_broken_participant_file_is_nothing_to_path_b(
    broken: bytes, local: Local, data: DataInterface, tmp_path: Path
) -> None:
    there = local.put(make_recording(tmp_path / "nas", REC, FILES))
    (there / "participant.txt").write_bytes(broken)
    assert data.ingest_from_r2(REC).recording.participant_ids == ()


@pytest.mark.parametrize("name", ["two\nlines", "x" * 201])
def test_a_participant_that_is_no_name_is_refused(name: str, local: Local, data: DataInterface, tmp_path: Path) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES))
    with pytest.raises(InvalidRecordingError):
        data.ingest_from_r2(REC, name)
    assert rows(data) == NOTHING


def test_unlisted_objects_are_measured_and_registered(local: Local, data: DataInterface, tmp_path: Path) -> None:
    more = FILES | {"eeg_a/late.edf": b"late", "mic_room/seg_000.wav": b"wav", "events.csv": b"t,what\n"}
    local.put(make_recording(tmp_path / "nas", REC, more, manifest=manifest_of(REC, FILES)))
    (local.bucket / REC / ".DS_Store").write_bytes(b"junk")
    result = data.ingest_from_r2(REC)
    assert result.unlisted_files == ("eeg_a/late.edf", "events.csv", "mic_room/seg_000.wav")
    assert (result.unlisted, result.junk) == (3, 1)
    raw = {path: body for path, body in more.items() if path != "events.csv"}
    assert paths(data) == {path: sha256(body) for path, body in raw.items()}
    assert result.recording.recording_hash == derive_recording_hash(map(sha256, raw.values()))
    (auxiliary,) = result.recording.auxiliary_files
    assert (auxiliary.path, auxiliary.size_bytes, auxiliary.sha256) == ("events.csv", 7, sha256(b"t,what\n"))
    # What a manifest states is a claim; of what none states, the object was read.
    evidence = {file.path: file.evidence for row in data.list_modalities() for file in row.files}
    assert evidence == {path: "claimed" if path in FILES else "sha256" for path in raw}
    assert auxiliary.evidence == "sha256"
    assert auxiliary.key == f"recordings/{REC}/events.csv" and auxiliary.etag


def test_a_manifest_without_sha256s_has_the_same_hash(local: Local, data: DataInterface, tmp_path: Path) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES, list_sha256=False))
    assert data.ingest_from_r2(REC).recording.recording_hash == derive_recording_hash(map(sha256, FILES.values()))


@pytest.mark.parametrize(
    "name", ["eeg_a/seg_002.edf.part", "camera_left/x.tmp", "events.csv.tmp", "eeg_a/.seg_000.edf.random"]
)
def test_unfinished_copies_refuse_the_recording_by_name(
    name: str, local: Local, data: DataInterface, tmp_path: Path
) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES | {name: b"half"}, manifest=manifest_of(REC, FILES)))
    with pytest.raises(InvalidRecordingError, match=name):
        data.ingest_from_r2(REC)
    assert rows(data) == NOTHING


def test_a_listed_part_file_is_data(local: Local, data: DataInterface, tmp_path: Path) -> None:
    files = FILES | {"eeg_a/Thumbs.db": b"data", "eeg_a/x.part": b"data too"}
    local.put(make_recording(tmp_path / "nas", REC, files))
    data.ingest_from_r2(REC)
    assert set(paths(data)) == set(files)


def test_keys_in_nfd_are_the_same_files_under_their_own_keys(local: Local, data: DataInterface, tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "notes_op/übung ä.txt") for form in ("NFC", "NFD"))
    rec_dir = make_recording(tmp_path / "nas", REC, FILES | {nfd: b"n"}, manifest=manifest_of(REC, FILES | {nfc: b"n"}))
    local.put(rec_dir)
    data.ingest_from_r2(REC)
    (row,) = data.list_modalities({"modality": "notes"})
    assert [(file.path, file.key) for file in row.files] == [(nfc, f"recordings/{REC}/{nfd}")]
    assert data.verify([REC], level="full")[0].ok


def test_two_objects_that_are_one_name_with_other_content_are_refused(
    local: Local, data: DataInterface, tmp_path: Path
) -> None:
    nfc, nfd = (unicodedata.normalize(form, "eeg_a/ä.edf") for form in ("NFC", "NFD"))
    files = FILES | {nfc: b"one", nfd: b"two"}
    local.put(make_recording(tmp_path / "nas", REC, files, manifest=manifest_of(REC, FILES | {nfc: b"one"})))
    with pytest.raises(InvalidRecordingError, match="two forms of Unicode"):
        data.ingest_from_r2(REC)
    assert rows(data) == NOTHING


def test_two_workers_that_would_be_one_row_are_refused(local: Local, data: DataInterface, tmp_path: Path) -> None:
    listed = {"cap/seg.edf": b"cap"}
    manifest = manifest_of(REC, listed, workers=[{"dir": "cap", "modality": "eeg", "worker_id": "a"}])
    local.put(make_recording(tmp_path / "nas", REC, listed | {"eeg_a/x.edf": b"x"}, manifest=manifest))
    with pytest.raises(InvalidRecordingError, match="same modality and worker_id"):
        data.ingest_from_r2(REC)
    assert rows(data) == NOTHING


BROKEN: dict[str, bytes] = {
    "not UTF-8": b"\xff\xfe{}",
    "empty": b"",
    "truncated": b'{"recording_id": "' + REC.encode(),
    "a list": b"[]",
    "duplicate keys": b'{"files": [], "files": []}',
    "negative size": json.dumps({"files": [{"path": "eeg_a/x", "size_bytes": -1}]}).encode(),
    "escapes": json.dumps({"files": [{"path": "../x", "size_bytes": 1}]}).encode(),
    "duplicate paths": json.dumps({"files": [{"path": "eeg_a/x", "size_bytes": 1}] * 2}).encode(),
    "newer": json.dumps({"schema_version": 99, "files": [{"path": "eeg_a/x", "size_bytes": 1}]}).encode(),
    "huge": b'{"x": "' + b" " * MAX_MANIFEST_BYTES + b'"}',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["manifest.json", "_node_manifests/green-motor.json"])
def test_a_broken_manifest_is_refused_by_name(
    name: str, content: bytes, local: Local, data: DataInterface, tmp_path: Path
) -> None:
    there = local.put(make_recording(tmp_path / "nas", REC, FILES, manifest=False))
    (there / name).parent.mkdir(exist_ok=True)
    (there / name).write_bytes(content)
    with pytest.raises(ManifestError, match=f"{REC}/{name}") as refused:
        data.ingest_from_r2(REC)
    assert refused.value.path == f"recordings/{REC}/{name}"
    assert rows(data) == NOTHING


def test_another_recordings_manifest_is_refused(local: Local, data: DataInterface, tmp_path: Path) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES, manifest=manifest_of(OTHER, FILES)))
    with pytest.raises(ManifestError, match=OTHER):
        data.ingest_from_r2(REC)
    assert rows(data) == NOTHING


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [("recording_hash", HASH, OTHER_HASH), ("recording_id", REC, OTHER)],
)
def test_node_manifests_that_contradict_each_other_are_refused(
    field: str, one: str, other: str, local: Local, data: DataInterface, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, manifest=False)
    write_node_manifest(rec_dir, "green-mantis", ["camera_left"], **{field: one})
    write_node_manifest(rec_dir, "green-motor", ["eeg_a"], **{field: other})
    local.put(rec_dir)
    with pytest.raises(ManifestError, match="green-m"):
        data.ingest_from_r2(REC)
    assert rows(data) == NOTHING


def test_a_registered_rec_id_fixes_the_hash(local: Local, data: DataInterface, tmp_path: Path) -> None:
    first = make_recording(tmp_path / "nas", REC, FILES, recording_hash=HASH)
    local.put(first)
    data.ingest_from_r2(REC)
    # The manifest states none any more, and another worker has come.
    more = FILES | {"mic_room/seg_000.wav": b"wav"}
    local.put(make_recording(tmp_path / "later", REC, more))
    again = data.ingest_from_r2(REC)
    assert (again.action, again.recording.recording_hash) == ("merged", HASH)
    assert set(paths(data)) == set(more)
    with pytest.raises(RecordingExistsError) as refused:
        data.ingest_from_r2(REC)
    assert (refused.value.recording_hash, refused.value.exit_code) == (HASH, 5)


def test_another_stated_hash_is_a_conflict(local: Local, data: DataInterface, tmp_path: Path) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES, recording_hash=HASH))
    data.ingest_from_r2(REC)
    before = rows(data)
    local.put(make_recording(tmp_path / "other", REC, FILES, recording_hash=OTHER_HASH))
    for overwrite in (False, True):
        with pytest.raises(ConflictError, match=OTHER_HASH):
            data.ingest_from_r2(REC, overwrite=overwrite)
    assert rows(data) == before


@pytest.mark.parametrize("stated", [HASH, None], ids=["stated", "derived"])
def test_a_hash_under_another_rec_id_is_a_conflict(
    stated: str | None, local: Local, data: DataInterface, tmp_path: Path
) -> None:
    for name in (REC, OTHER):
        local.put(make_recording(tmp_path / "nas", name, FILES, recording_hash=stated))
    data.ingest_from_r2(REC)
    with pytest.raises(ConflictError, match=REC) as refused:
        data.ingest_from_r2(OTHER)
    assert refused.value.rec_id == OTHER
    assert [row.rec_id for row in data.list_recordings()] == [REC]


def test_other_files_for_a_registered_worker_are_a_conflict_until_overwrite(
    local: Local, data: DataInterface, tmp_path: Path
) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES))
    first = data.ingest_from_r2(REC, "Aria Lin").recording
    changed = FILES | {"eeg_a/seg_001.edf": b"other", "eeg_a/seg_002.edf": b"more"}
    local.put(make_recording(tmp_path / "later", REC, changed))
    before = rows(data)
    with pytest.raises(ConflictError) as refused:
        data.ingest_from_r2(REC)
    assert tuple(refused.value.paths) == ("eeg_a/seg_001.edf", "eeg_a/seg_002.edf")
    assert rows(data) == before
    again = data.ingest_from_r2(REC, overwrite=True)
    assert (again.action, again.recording.recording_hash) == ("overwritten", first.recording_hash)
    assert paths(data) == {path: sha256(body) for path, body in changed.items()}
    assert again.recording.participant_ids == (participant_id("Aria Lin"),)


HOSTILE = [
    "",
    ".",
    "..",
    "rec_",
    "rec_20260520_195628_b1dd/../" + OTHER,
    f"{REC}/",
    f"../{REC}",
    f" {REC}",
    f"{REC}\n",
    f"{REC}\x00",
    "rec_20260520_195628_B1DD",
    "rec_20260520_195628_",
    "rec_2026052０_195628_b1dd",
    "'; DROP TABLE recordings; --",
    "\x1b[31mrec",
    "\udcff",
    "rec_20260520_195628_" + "a" * 2000,
]


@pytest.mark.parametrize("rec_id", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_rec_ids_are_refused_in_words(rec_id: str, local: Local, data: DataInterface, tmp_path: Path) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES))
    with pytest.raises((InvalidRecordingError, ManifestNotFoundError)) as refused:
        data.ingest_from_r2(rec_id)
    assert not {char for char in refused.value.message if char < " "}
    assert rows(data) == NOTHING


def test_the_catalogs_role_is_needed_and_no_other(local: Local, tmp_path: Path) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES))
    data = DataInterface("local", local.config)
    for call in (data.ingest_from_r2, lambda rec_id: data.ingest_from_r2_several([rec_id])):
        with pytest.raises(WritesNotEnabledError, match="assets_rw") as refused:
            call(REC)
        assert refused.value.role == "assets_rw"
    plan = data.plan_from_r2(REC)
    assert (plan.action, len(plan.files), plan.recording_hash) == (
        "created",
        3,
        derive_recording_hash(map(sha256, FILES.values())),
    )
    assert rows(data) == NOTHING
    assert local.open().ingest_from_r2(REC).recording.recording_hash == plan.recording_hash


def test_a_plan_refuses_what_an_ingest_refuses(local: Local, data: DataInterface, tmp_path: Path) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES))
    data.ingest_from_r2(REC)
    with pytest.raises(RecordingExistsError):
        data.plan_from_r2(REC)
    assert data.plan_from_r2(REC, overwrite=True).action == "overwritten"


def test_progress_and_a_callback_that_raises(local: Local, data: DataInterface, tmp_path: Path) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES))
    events: list[UploadProgress] = []

    def stopping(event: UploadProgress) -> None:
        if event.phase == "register":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        data.ingest_from_r2(REC, progress=stopping)
    assert rows(data) == NOTHING
    data.ingest_from_r2(REC, progress=events.append)
    assert [event.phase for event in events][-2:] == ["register", "done"]
    assert {event.rec_id for event in events} == {REC}
    assert {event.bytes_uploaded for event in events} == {0}


@pytest.mark.parametrize("several", [True, False])
def test_what_another_writer_registers_meanwhile_is_seen(
    several: bool, local: Local, data: DataInterface, tmp_path: Path
) -> None:
    """Between the plan and the commit somebody else registers the recording: no second row, no false OK."""
    local.put(make_recording(tmp_path / "nas", REC, FILES))
    began = []

    def overtake(event: UploadProgress) -> None:
        if event.phase == "register" and not began:
            began.append(local.open().ingest_from_r2(REC, "Bo Berg"))

    if several:
        (outcome,) = data.ingest_from_r2_several([REC], progress=overtake)
        assert isinstance(outcome.error, RecordingExistsError)
    else:
        with pytest.raises(RecordingExistsError):
            data.ingest_from_r2(REC, progress=overtake)
    assert data.list_recordings() == [began[0].recording]
    assert len(rows(data)["modalities"]) == 2
