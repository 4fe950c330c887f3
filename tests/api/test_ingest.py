"""``DataInterface.ingest``: the result, the progress, what is left out, what stops it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from api_tools import FILES, MIB, PREFIX, REC, ingest, objects, on_disk, open_uploads, put, sha256, writer

from conftest import Buckets, MakeConfig
from helpers import make_recording, working
from ursa import (
    ChecksumMismatchError,
    DataInterface,
    FileChangedError,
    IngestResult,
    MissingFilesError,
    RecordingExistsError,
    UploadProgress,
    WritesNotEnabledError,
    derive_recording_hash,
    participant_id,
)

LARGE = {"camera_left/seg_000.mp4": os.urandom(MIB) * 40, "eeg_a/seg_000.edf": b"eeg" * 3_000}


@pytest.fixture
def data(weed_buckets: Buckets, s3_config: MakeConfig) -> Any:
    """A data interface on SeaweedFS that may write."""
    with writer(s3_config(weed_buckets)) as opened:
        yield opened


@pytest.fixture
def local() -> Any:
    """A data interface on the local profile that may write."""
    with DataInterface("local") as opened:
        opened.enable_writes(roles=("assets_rw", "raw_rw"))
        yield opened


def test_the_result_says_what_was_done(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES, participant="Aria Lin", timezone="Europe/Berlin")
    (rec_dir / "eeg_a" / ".DS_Store").write_bytes(b"junk")
    (rec_dir / "eeg_a" / "late.edf").write_bytes(b"late")
    (rec_dir / "events.csv").write_bytes(b"t,what\n")
    (rec_dir / "_calibration").mkdir()
    (rec_dir / "_calibration" / "grid.json").write_bytes(b"{}")
    result: IngestResult = ingest(data, rec_dir, "Aria Lin")
    kept = {key: body for key, body in on_disk(rec_dir).items() if not key.endswith(".DS_Store")}
    assert objects(weed_buckets) == kept
    assert (result.files_uploaded, result.files_skipped) == (len(kept), 0)
    assert (result.bytes_uploaded, result.bytes_skipped) == (sum(map(len, kept.values())), 0)
    assert (result.action, result.paused, result.junk, result.unlisted) == ("created", False, 1, 3)
    assert result.unlisted_files == ("_calibration/grid.json", "eeg_a/late.edf", "events.csv")
    assert result.seconds > 0
    assert result.requests["class_a"] >= len(kept)
    raw = [body for key, body in kept.items() if key.removeprefix(PREFIX).startswith(("camera", "eeg"))]
    assert result.recording.recording_hash == derive_recording_hash(map(sha256, raw))
    assert result.recording.rec_id == result.recording.metadata["manifest_recording_id"] == REC
    assert result.recording.participant_ids == (participant_id("Aria Lin"),)
    assert result.recording.registered_at is not None and "@" in result.recording.registered_by
    assert data.find_recording(REC) == data.get_recording(result.recording.recording_hash)
    assert data.find_recording(REC).rec_id == REC


def test_the_rows_know_every_raw_file(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES | {"eeg_a/deep/er.edf": b"1"}, list_sha256=False)
    ingest(data, rec_dir)
    rows = {row.name: row for row in data.list_modalities(where={"modality": ["camera", "eeg"]})}
    assert sorted(rows) == ["camera_left", "eeg_a"]
    for file in (*rows["camera_left"].files, *rows["eeg_a"].files):
        body = (rec_dir / file.path).read_bytes()
        assert (file.key, file.size_bytes, file.sha256) == (PREFIX + file.path, len(body), sha256(body))
        assert file.evidence in ("sha256", "etag")
    assert [file.path for file in rows["eeg_a"].files] == [
        "eeg_a/deep/er.edf",
        "eeg_a/seg_000.edf",
        "eeg_a/seg_001.edf",
    ]
    assert rows["eeg_a"].bytes == 18_001
    assert rows["eeg_a"].node == "green-mantis"


def test_objects_carry_their_sha256(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    ingest(data, make_recording(tmp_path, REC, LARGE))
    client = weed_buckets.server.client()
    for path, body in LARGE.items():
        assert client.head_object(Bucket=weed_buckets.raw, Key=PREFIX + path)["Metadata"]["sha256"] == sha256(body)


@pytest.mark.parametrize("name", [None, "", "  "])
def test_no_name_is_unknown_and_the_file_is_not_read(local: DataInterface, tmp_path: Path, name: str | None) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES, participant="Aria Lin")
    assert ingest(local, rec_dir, name).recording.participant_ids == ()
    assert local.list_participants() == []


def test_a_missing_manifest_path_means_the_node_manifests(local: DataInterface, example_recordings: Path) -> None:
    result = ingest(local, example_recordings / "rec_20260521_101500_c2ee")
    assert result.action == "created"
    assert {row.node for row in local.list_modalities()} == {"green-mantis", "green-motor"}


@pytest.mark.parametrize(("roles", "missing"), [((), "raw_rw"), (("assets_rw",), "raw_rw"), (("raw_rw",), "assets_rw")])
def test_writes_need_their_role(tmp_path: Path, roles: tuple[str, ...], missing: str) -> None:
    data = DataInterface("local")
    data.enable_writes(roles=roles)
    with pytest.raises(WritesNotEnabledError, match=missing) as refused:
        ingest(data, make_recording(tmp_path, REC, FILES))
    assert refused.value.role == missing
    assert "enable_writes(" in (refused.value.hint or "")
    assert missing == "assets_rw" or "raw_rw" in (refused.value.hint or "")


@pytest.mark.parametrize("list_sha256", [True, False])
def test_progress_is_one_thread_in_order(data: DataInterface, tmp_path: Path, list_sha256: bool) -> None:
    rec_dir = make_recording(tmp_path, REC, LARGE, participant="Aria Lin", list_sha256=list_sha256)
    events: list[UploadProgress] = []
    threads = set()
    times: dict[str, list[float]] = defaultdict(list)

    def callback(event: UploadProgress) -> None:
        events.append(event)
        threads.add(threading.get_ident())
        if event.phase == "upload":
            times[event.current_file].append(time.monotonic())

    result = ingest(data, rec_dir, progress=callback)
    total = sum(len(body) for body in on_disk(rec_dir).values())
    assert threads == {threading.get_ident()}
    assert {event.bytes_total for event in events} == {total}
    assert events[-1].bytes_uploaded == total == result.bytes_uploaded
    assert (events[-1].phase, events[-1].files_done, events[-1].files_total) == ("done", 4, 4)
    for earlier, later in itertools.pairwise(events):
        assert earlier.bytes_uploaded <= later.bytes_uploaded
        assert earlier.files_done <= later.files_done
        assert earlier.elapsed_s <= later.elapsed_s
    assert all(b - a > 0.099 for seen in times.values() for a, b in itertools.pairwise(seen))
    assert {event.rec_id for event in events} == {REC}
    assert {event.current_file for event in events if event.phase == "file_done"} == {
        *LARGE,
        "participant.txt",
        "manifest.json",
    }
    assert all(event.file_bytes_done <= event.file_bytes_total for event in events)


def test_progress_of_a_second_run_counts_what_is_left(
    data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES)
    put(weed_buckets, PREFIX + "eeg_a/seg_000.edf", FILES["eeg_a/seg_000.edf"])
    events: list[UploadProgress] = []
    result = ingest(data, rec_dir, progress=events.append)
    left = sum(len(body) for body in on_disk(rec_dir).values()) - 9_000
    assert {event.bytes_total for event in events} == {left}
    assert events[-1].bytes_uploaded == left == result.bytes_uploaded
    assert (events[-1].bytes_skipped, result.bytes_skipped, result.files_skipped) == (9_000, 9_000, 1)


class CallbackError(Exception):
    """What a test's callback raises."""


@pytest.mark.parametrize("phase", ["plan", "upload", "file_done", "sidecars", "prove", "register"])
def test_a_raising_callback_stops_cleanly(
    phase: str, weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path, REC, LARGE, participant="Aria Lin")
    config = s3_config(weed_buckets)
    threads = working()
    with writer(config) as data:

        def callback(event: UploadProgress) -> None:
            if event.phase == phase:
                raise CallbackError(phase)

        with pytest.raises(CallbackError, match=phase):
            ingest(data, rec_dir, progress=callback)
        assert data.list_recordings() == [] and data.list_modalities() == []
        busy = [thread for thread in working() - threads if thread.is_alive()]
        assert all(thread.name.startswith("ursa-transfer") for thread in busy), busy
        if phase in ("plan", "upload", "file_done"):
            assert PREFIX + "manifest.json" not in objects(weed_buckets)
        assert ingest(data, rec_dir).action == "created"
        assert objects(weed_buckets) == on_disk(rec_dir)
        # What the first run had begun and not yet sent anything of may stay: nobody's uploads are aborted.
        assert len(open_uploads(weed_buckets)) <= 1
    assert working() <= threads


@pytest.mark.parametrize("stated", [None, FILES["eeg_a/seg_001.edf"], b"another"], ids=["nothing", "right", "wrong"])
def test_a_listed_file_may_be_in_the_bucket_only(
    stated: bytes | None, data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    """Its object is read, whatever the object's own metadata states."""
    rec_dir = make_recording(tmp_path, REC, FILES)
    body = FILES["eeg_a/seg_001.edf"]
    put(weed_buckets, PREFIX + "eeg_a/seg_001.edf", body, Metadata={"sha256": sha256(stated)} if stated else {})
    (rec_dir / "eeg_a" / "seg_001.edf").unlink()
    result = ingest(data, rec_dir)
    assert (result.files_uploaded, result.files_skipped, result.in_bucket) == (3, 1, 1)
    (eeg,) = data.list_modalities(where={"modality": "eeg"})
    assert {file.path: file.evidence for file in eeg.files}["eeg_a/seg_001.edf"] == "sha256"
    assert result.recording.recording_hash == derive_recording_hash(map(sha256, FILES.values()))


@pytest.mark.parametrize("there", ["nothing", "other size", "other content"])
def test_a_listed_file_that_is_nowhere_refuses(
    there: str, data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES)
    body = FILES["eeg_a/seg_001.edf"]
    if there == "other size":
        put(weed_buckets, PREFIX + "eeg_a/seg_001.edf", body + b"x")
    if there == "other content":
        put(weed_buckets, PREFIX + "eeg_a/seg_001.edf", body[::-1], Metadata={"sha256": sha256(body)})
    before = objects(weed_buckets)
    (rec_dir / "eeg_a" / "seg_001.edf").unlink()
    with pytest.raises(MissingFilesError, match=r"eeg_a/seg_001\.edf") as refused:
        ingest(data, rec_dir)
    assert tuple(refused.value.paths) == ("eeg_a/seg_001.edf",)
    assert objects(weed_buckets) == before
    assert data.list_recordings() == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_object_under_its_nfd_key_is_the_same_file(
    form: Any, data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    name, body = "eeg_a/Präsentation.edf", b"nfd " * 100
    stored = PREFIX + unicodedata.normalize("NFD", name)
    put(weed_buckets, stored, body)
    rec_dir = make_recording(tmp_path, REC, {unicodedata.normalize(form, name): body})
    result = ingest(data, rec_dir)
    assert (result.files_uploaded, result.files_skipped) == (1, 1)
    (eeg,) = data.list_modalities()
    assert [(file.path, file.key) for file in eeg.files] == [(unicodedata.normalize("NFC", name), stored)]
    assert len(objects(weed_buckets)) == 2
    fetched = data.download(data.query(), tmp_path / "out")
    assert [path.read_bytes() for path in fetched.paths] == [body]


@pytest.mark.parametrize("when", ["plan", "file_done", "sidecars", "prove"])
@pytest.mark.parametrize("list_sha256", [True, False])
def test_a_file_that_grows_meanwhile_fails_its_recording(
    when: str, list_sha256: bool, data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES, list_sha256=list_sha256)
    path = "eeg_a/seg_001.edf"
    grown: list[str] = []

    def callback(event: UploadProgress) -> None:
        if event.phase == when and not grown:
            grown.append(event.phase)
            with (rec_dir / path).open("ab") as file:
                file.write(b"more")

    with pytest.raises(FileChangedError, match=f"{path}.*still being written|still being written.*{path}") as refused:
        ingest(data, rec_dir, progress=callback)
    assert refused.value.path == path
    assert data.list_recordings() == []
    if when == "plan":
        assert PREFIX + path not in objects(weed_buckets)


def test_a_large_file_that_grows_makes_no_object(data: DataInterface, weed_buckets: Buckets, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, {"camera_left/a.mp4": os.urandom(MIB) * 70}, list_sha256=False)

    def callback(event: UploadProgress) -> None:
        if event.phase == "plan":
            os.utime(rec_dir / "camera_left" / "a.mp4")

    with pytest.raises(FileChangedError, match=r"camera_left/a\.mp4"):
        ingest(data, rec_dir, progress=callback)
    assert objects(weed_buckets) == {}
    assert data.list_recordings() == []
    assert ingest(data, rec_dir).action == "created"
    assert objects(weed_buckets) == on_disk(rec_dir)


def test_a_large_file_that_is_not_what_its_manifest_states_makes_no_object(
    data: DataInterface, weed_buckets: Buckets, tmp_path: Path
) -> None:
    rec_dir = make_recording(tmp_path, REC, {"camera_left/a.mp4": os.urandom(MIB) * 70})
    with (rec_dir / "camera_left" / "a.mp4").open("r+b") as file:
        file.seek(50 * MIB)
        file.write(b"flipped")
    with pytest.raises(ChecksumMismatchError, match=r"camera_left/a\.mp4"):
        ingest(data, rec_dir)
    assert objects(weed_buckets) == {}
    assert not open_uploads(weed_buckets)
    assert data.list_recordings() == []


def test_a_second_ingest_sends_nothing(local: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES, participant="Aria Lin")
    first = ingest(local, rec_dir, "Aria Lin")
    with pytest.raises(RecordingExistsError) as refused:
        ingest(local, rec_dir, "Aria Lin")
    assert (refused.value.rec_id, refused.value.recording_hash) == (REC, first.recording.recording_hash)
    again = ingest(local, rec_dir, "Bo Berg", overwrite=True)
    assert (again.action, again.files_uploaded, again.files_skipped) == ("overwritten", 0, 5)
    assert local.find_recording(REC).participant_ids == (participant_id("Bo Berg"),)
    assert len(local.list_recordings()) == 1


READS = """
import os, sys
seen = set()
for name in ("__getitem__", "__contains__"):
    def note(self, key, original=getattr(os._Environ, name)):
        seen.add(key)
        return original(self, key)
    setattr(os._Environ, name, note)
from ursa_cli.app import run
rec_dir = sys.argv[1]
codes = [run([*words, "-p", "local"]) for words in (
    ["ingest", rec_dir], ["ls"], ["show", "rec_"], ["config", "show"], ["catalog", "location"],
)]
print(codes, sorted(key for key in seen if str(key).upper().startswith("URSA")), file=sys.stderr)
"""


def test_no_variable_of_ours_is_even_read(tmp_path: Path, home: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(f"profiles: {{local: {{root: {tmp_path / 'wrong'}}}}}\n")
    values = {"CONFIG": wrong, "CONFIG_PATH": wrong, "CONFIG_FILE": wrong, "PROFILE": "nowhere", "ROOT": tmp_path / "x"}
    prefixes = ("URSA_", "URSA_LS_", "URSA_INGEST_", "URSA_LOCAL_")
    env = {prefix + name: str(value) for prefix in prefixes for name, value in values.items()}
    rec_dir = make_recording(tmp_path, REC, FILES)
    done = subprocess.run(
        [sys.executable, "-c", READS, rec_dir], env=os.environ | env, capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "[0, 0, 0, 0, 0] []"
    assert (home / ".local" / "share" / "ursa").is_dir()
    assert not (tmp_path / "wrong").exists() and not (tmp_path / "x").exists()
