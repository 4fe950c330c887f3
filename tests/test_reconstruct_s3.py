"""Path C on a server: ranges, conditions, requests, races, faults."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording, manifest_of
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface, HashProgress, MissingFilesError, StorageError, derive_recording_hash
from ursa.reconstruct import hashing

REC, OTHER = "rec_20260520_195628_b1dd", "rec_20260521_101500_c2ee"
MIB = 1 << 20
LARGE = random.Random(1).randbytes(5 * MIB + 7)
RAW = {"camera_left/seg_000.mp4": LARGE, "eeg_a/seg_000.edf": b"eeg" * 3_000, "mic/empty.wav": b""}
PLACEHOLDER = b'{"recording_id": "%s", "files": []}' % REC.encode()

Proxied = tuple[FaultProxy, DataInterface]


def sha256(data: bytes) -> str:
    """Lowercase hex."""
    return hashlib.sha256(data).hexdigest()


def hash_of(files: dict[str, bytes]) -> str:
    """The recording_hash of these files."""
    return derive_recording_hash(sha256(data) for data in files.values())


def put(buckets: Buckets, path: str, data: bytes, rec_id: str = REC, **options: Any) -> None:
    """An object as a rig wrote it."""
    buckets.server.client().put_object(Bucket=buckets.raw, Key=f"recordings/{rec_id}/{path}", Body=data, **options)


def get(buckets: Buckets, path: str, rec_id: str = REC) -> bytes | None:
    """An object's bytes."""
    client = buckets.server.client()
    try:
        body: bytes = client.get_object(Bucket=buckets.raw, Key=f"recordings/{rec_id}/{path}")["Body"].read()
    except client.exceptions.NoSuchKey:
        return None
    return body


def manifest(buckets: Buckets, rec_id: str = REC) -> Any:
    """The manifest that is there."""
    return json.loads(get(buckets, "manifest.json", rec_id) or b"null")


def record(buckets: Buckets) -> dict[str, Any]:
    """What is kept of what was measured: path → size, ETag and sha256; nothing where there is no record."""
    client = buckets.server.client()
    try:
        body = client.get_object(Bucket=buckets.assets, Key=f"ursa/hashes/{REC}.json")["Body"].read()
    except client.exceptions.NoSuchKey:
        return {}
    content = json.loads(body)
    assert content["bucket"] == buckets.raw
    return {key.removeprefix(f"recordings/{REC}/"): entry for key, entry in content["objects"].items()}


def measured(files: dict[str, bytes]) -> dict[str, Any]:
    """The record of these files."""
    return {path: [len(data), hashlib.md5(data).hexdigest(), sha256(data)] for path, data in files.items()}


def manifest_puts(proxy: FaultProxy) -> list[Any]:
    """The requests that wrote a manifest; not those that try a bucket before a machine's first write to it."""
    return [entry for entry in proxy.log if entry.method == "PUT" and entry.path.endswith("/manifest.json")]


def interface(config: Path, *roles: str) -> DataInterface:
    """One that may write."""
    data = DataInterface("r2", config)
    data.enable_writes(roles=roles or ("assets_rw", "raw_rw"))
    return data


@pytest.fixture
def buckets(weed_buckets: Buckets) -> Buckets:
    """With a recording that has no manifest."""
    for path, data in RAW.items():
        put(weed_buckets, path, data)
    return weed_buckets


@pytest.fixture
def data(buckets: Buckets, s3_config: MakeConfig) -> DataInterface:
    return interface(s3_config(buckets))


@pytest.fixture
def proxied(buckets: Buckets, s3_config: MakeConfig, fault_proxy: Callable[[S3Server], FaultProxy]) -> Proxied:
    proxy = fault_proxy(buckets.server)
    return proxy, interface(s3_config(buckets.at(proxy.url)))


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many ranges to a file."""
    monkeypatch.setattr(hashing, "RANGE_BYTES", MIB // 2)


def at(phase: str, action: Callable[[], object]) -> Callable[[HashProgress], None]:
    """A callback that does something at a phase, once."""
    left = [action]

    def callback(event: HashProgress) -> None:
        if event.phase == phase and left:
            left.pop()()

    return callback


def test_ranges_in_any_order_are_hashed_in_theirs(proxied: Proxied, buckets: Buckets, small_ranges: None) -> None:
    proxy, data = proxied
    # So far away that ranges overlap however busy this machine is. Of eleven ranges the first comes last, and the fourth
    # breaks off in the middle.
    proxy.stall(lambda method, path, query: path.endswith("seg_000.mp4") and method == "GET", 0.7, times=1)
    proxy.cut(lambda method, path, query: path.endswith("seg_000.mp4") and method == "GET", 200_000, times=2)
    proxy.delay_s = 0.3
    result = data.reconstruct(REC)
    assert result.recording_hash == hash_of(RAW) == manifest(buckets)["recording_hash"]
    assert {entry["path"]: entry["sha256"] for entry in manifest(buckets)["files"]} == {
        path: sha256(content) for path, content in RAW.items()
    }
    ranges = [e.headers.get("range") for e in proxy.log if e.path.endswith("seg_000.mp4") and e.method == "GET"]
    assert len(ranges) >= 11 + 2 and len(set(ranges)) >= 11
    assert proxy.peak_in_flight > 3
    assert record(buckets) == measured(RAW)


def test_a_valid_manifest_is_one_request(proxied: Proxied, buckets: Buckets) -> None:
    proxy, data = proxied
    put(buckets, "manifest.json", json.dumps(manifest_of(REC, RAW)).encode())
    assert data.reconstruct(REC).action == "kept"
    assert [(entry.method, entry.path.rpartition("/")[2]) for entry in proxy.log] == [("GET", "manifest.json")]


@pytest.mark.parametrize("placeholder", [False, True])
def test_a_node_manifest_is_three_requests(proxied: Proxied, buckets: Buckets, placeholder: bool) -> None:
    proxy, data = proxied
    put(buckets, "_node_manifests/green-mantis.json", json.dumps(manifest_of(REC, RAW)).encode())
    if placeholder:
        put(buckets, "manifest.json", PLACEHOLDER)
    assert data.reconstruct(REC).action == "kept"
    assert [entry.method for entry in proxy.log] == ["GET", "GET", "GET"]
    assert get(buckets, "manifest.json") == (PLACEHOLDER if placeholder else None)


def test_the_conditions(proxied: Proxied, buckets: Buckets) -> None:
    proxy, data = proxied
    data.reconstruct(REC)
    (written,) = manifest_puts(proxy)
    assert written.headers["if-none-match"] == "*"
    put(buckets, "manifest.json", PLACEHOLDER)
    put(buckets, "eeg_a/seg_000.edf", b"other")
    proxy.clear()
    assert data.reconstruct(REC).action == "replaced"
    (written,) = manifest_puts(proxy)
    assert written.headers["if-match"].strip('"') == hashlib.md5(PLACEHOLDER).hexdigest()
    read = [e for e in proxy.log if e.method == "GET" and e.path.endswith(".edf")]
    assert read and all("if-match" in entry.headers for entry in read)


@pytest.mark.parametrize("lost", ["reply", "race with a manifest", "race with a placeholder"])
def test_a_lost_race_is_looked_into(proxied: Proxied, buckets: Buckets, lost: str) -> None:
    proxy, data = proxied

    def is_put(method: str, path: str, query: dict[str, str]) -> bool:
        return method == "PUT" and path.endswith("manifest.json")

    if lost == "reply":
        proxy.lose_reply(is_put)
        assert data.reconstruct(REC).action == "made"
        assert manifest(buckets)["reconstruction"]["tool"] == "ursa"
        return
    theirs = PLACEHOLDER if "placeholder" in lost else json.dumps(manifest_of(REC, RAW)).encode()
    stalled = proxy.stall(is_put, 0.8)

    def when_stalled() -> None:
        while not stalled.hits:
            done.wait(0.01)
        put(buckets, "manifest.json", theirs)

    done = threading.Event()
    other = threading.Thread(target=when_stalled)
    other.start()
    if "placeholder" in lost:
        with pytest.raises(StorageError, match="somebody else"):
            data.reconstruct(REC)
    else:
        assert data.reconstruct(REC).action == "kept"
    other.join()
    assert get(buckets, "manifest.json") == theirs


def test_an_object_replaced_while_it_is_read(data: DataInterface, buckets: Buckets, small_ranges: None) -> None:
    path = "camera_left/seg_000.mp4"
    with pytest.raises(StorageError, match=rf"{path} was replaced in the bucket.*no manifest was written"):
        data.reconstruct(REC, progress=at("plan", lambda: put(buckets, path, LARGE[::-1])))
    assert get(buckets, "manifest.json") is None
    assert data.reconstruct(REC).recording_hash == hash_of(RAW | {path: LARGE[::-1]})


def test_an_object_that_vanishes_while_it_is_read(data: DataInterface, buckets: Buckets) -> None:
    path = "eeg_a/seg_000.edf"
    delete = lambda: buckets.server.client().delete_object(Bucket=buckets.raw, Key=f"recordings/{REC}/{path}")  # noqa: E731
    with pytest.raises(MissingFilesError, match=rf"{path} vanished") as caught:
        data.reconstruct(REC, progress=at("plan", delete))
    assert caught.value.exit_code == 6 and get(buckets, "manifest.json") is None


def test_two_at_once_make_one_manifest(buckets: Buckets, s3_config: MakeConfig) -> None:
    config = s3_config(buckets)
    ready = threading.Barrier(2)
    actions: list[str] = []

    def run() -> None:
        with interface(config) as data:
            actions.append(str(data.reconstruct(REC, progress=at("write", lambda: ready.wait(20))).action))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(actions) == ["kept", "made"]
    assert manifest(buckets)["recording_hash"] == hash_of(RAW)
    assert record(buckets) == measured(RAW)


def test_finished_hashes_are_taken_up(proxied: Proxied, buckets: Buckets) -> None:
    proxy, data = proxied

    def after_the_large_one(event: HashProgress) -> None:
        if event.phase == "file_done" and event.current_file.endswith(".mp4"):
            data.stop()

    with pytest.raises(KeyboardInterrupt):
        data.reconstruct(REC, progress=after_the_large_one)
    path = "camera_left/seg_000.mp4"
    assert record(buckets)[path] == measured(RAW)[path]
    proxy.clear()
    result = data.reconstruct(REC)
    assert result.recording_hash == hash_of(RAW) and result.files_known >= 1
    assert not [e for e in proxy.log if e.method == "GET" and e.path.endswith(".mp4")]
    assert record(buckets) == measured(RAW)


def test_two_interrupted_runs_unite_their_hashes(buckets: Buckets, s3_config: MakeConfig) -> None:
    config = s3_config(buckets)

    def stopping(data: DataInterface, name: str) -> Callable[[HashProgress], None]:
        def callback(event: HashProgress) -> None:
            if event.phase == "file_done" and event.current_file.endswith(name):
                raise InterruptedError

        return callback

    with interface(config) as one, interface(config) as other:
        theirs = {f"recordings/{REC}/eeg_a/other.edf": [1, "x", "0" * 64]}
        other_record = {"schema_version": 1, "bucket": buckets.raw, "objects": theirs}
        key = f"ursa/hashes/{REC}.json"

        def meanwhile(event: HashProgress) -> None:
            buckets.server.client().put_object(Bucket=buckets.assets, Key=key, Body=json.dumps(other_record).encode())
            stopping(one, ".mp4")(event)

        with pytest.raises(InterruptedError):
            one.reconstruct(REC, progress=meanwhile)
        assert record(buckets).keys() >= {"camera_left/seg_000.mp4", "eeg_a/other.edf"}
        assert other.reconstruct(REC).files_known >= 1


def test_what_an_object_states_of_itself_is_not_taken(data: DataInterface, buckets: Buckets) -> None:
    put(buckets, "camera_left/seg_000.mp4", LARGE, Metadata={"sha256": "0" * 64})
    client = buckets.server.client()
    where = {"Bucket": buckets.raw, "Key": f"recordings/{REC}/eeg_a/parts.edf"}
    # Begun for an earlier version of the file: what it states is not what it holds.
    upload = client.create_multipart_upload(**where, Metadata={"sha256": "0" * 64})["UploadId"]
    etag = client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"parts")["ETag"]
    client.complete_multipart_upload(
        **where, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    left = client.create_multipart_upload(Bucket=buckets.raw, Key=f"recordings/{REC}/eeg_a/open.edf")["UploadId"]
    result = data.reconstruct(REC)
    assert result.files_known == 0
    assert result.recording_hash == hash_of(RAW | {"eeg_a/parts.edf": b"parts"})
    assert any("eeg_a/open.edf" in warning for warning in result.warnings)
    client.abort_multipart_upload(Bucket=buckets.raw, Key=f"recordings/{REC}/eeg_a/open.edf", UploadId=left)


@pytest.mark.parametrize("stated", [False, True])
def test_small_objects_are_read_and_not_asked(proxied: Proxied, buckets: Buckets, stated: bool) -> None:
    proxy, data = proxied
    files = {f"eeg_b/{number:02}.edf": b"%d" % number for number in range(40)}
    for path, content in files.items():
        put(buckets, path, content, Metadata={"sha256": sha256(content)} if stated else {})
    result = data.reconstruct(REC)
    assert result.recording_hash == hash_of(RAW | files)
    assert result.files_known == 0
    asked = {entry.path for entry in proxy.log if entry.method == "HEAD" and not entry.path.endswith(".json")}
    # A server's own checksum of a large object spares reading it.
    assert asked <= {f"/{buckets.raw}/recordings/{REC}/camera_left/seg_000.mp4"}


def test_without_assets_it_goes_without_the_sidecar(buckets: Buckets, s3_config: MakeConfig) -> None:
    with interface(s3_config(buckets), "raw_rw") as data:
        with pytest.raises(InterruptedError):
            data.reconstruct(REC, progress=at("write", _interrupt))
        assert record(buckets) == {}
        assert data.reconstruct(REC).action == "made"
    missing = s3_config(buckets, assets={"bucket": "there-is-none", "prefix": "ursa/"})
    put(buckets, "manifest.json", PLACEHOLDER)
    with interface(missing) as data:
        assert data.reconstruct(REC).action == "replaced"


def _interrupt() -> None:
    raise InterruptedError


def test_the_next_step_registers_it(data: DataInterface, buckets: Buckets, tmp_path: Path) -> None:
    made = data.reconstruct(REC)
    data.init_catalog()
    rec_dir = make_recording(tmp_path, REC, RAW, manifest=False)
    (rec_dir / "manifest.json").write_bytes(get(buckets, "manifest.json") or b"")
    row = data.ingest(rec_dir / "manifest.json", rec_dir).recording
    assert (row.rec_id, row.recording_hash) == (REC, made.recording_hash)


def test_missing_manifests(data: DataInterface, buckets: Buckets) -> None:
    put(buckets, "eeg_a/x.edf", b"x", OTHER)
    put(buckets, "manifest.json", json.dumps(manifest_of(OTHER, {"eeg_a/x.edf": b"x"})).encode(), OTHER)
    assert data.missing_manifests() == [REC]
    data.reconstruct(REC)
    assert data.missing_manifests() == []


def test_a_server_that_goes_away_is_told_in_words(proxied: Proxied, buckets: Buckets) -> None:
    proxy, data = proxied
    proxy.fail(lambda method, path, query: path.endswith(".edf") and method == "GET", times=None, status=403)
    with pytest.raises(Exception, match="refuses the credentials of role raw_rw"):
        data.reconstruct(REC)
    assert get(buckets, "manifest.json") is None
