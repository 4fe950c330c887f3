"""`DataInterface.verify`: what it says of objects that were uploaded again, and of rows that are claims."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface, FileCheck, RecordingCheck
from ursa.verify import UNREAD, Allowance
from ursa_cli.verify_view import _mend

REC = "rec_20260520_195628_b1dd"
PATH = "camera_left/seg_000.mp4"
FILES = {PATH: b"left " * 400, "eeg_a/seg_000.edf": b"eeg"}
SIZE = len(FILES[PATH])
Again = Callable[[bytes], str]


class Rig:
    """A registered recording on a server, whose requests are counted."""

    def __init__(self, proxy: FaultProxy, config: Path, buckets: Buckets, rec_dir: Path) -> None:
        self.proxy, self.config, self.buckets, self.rec_dir = proxy, config, buckets, rec_dir
        with self.open("assets_rw", "raw_rw") as data:
            data.init_catalog()
            data.ingest(rec_dir / "manifest.json", rec_dir)
        proxy.clear()

    def open(self, *roles: str) -> DataInterface:
        """As another process does; without roles it may write nothing."""
        data = DataInterface("r2", self.config)
        if roles:
            data.enable_writes(roles=roles)
        return data

    def upload_again(self, body: bytes) -> str:
        """As another tool does, in a part: the same bytes have another ETag then."""
        client, where = self.buckets.server.client(), {"Bucket": self.buckets.raw, "Key": f"recordings/{REC}/{PATH}"}
        started = where | {"UploadId": client.create_multipart_upload(**where)["UploadId"]}
        part = client.upload_part(**started, PartNumber=1, Body=body)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        etag: str = client.complete_multipart_upload(**started, MultipartUpload=parts)["ETag"].strip('"')
        assert etag.endswith("-1")
        return etag

    def readings(self) -> int:
        """How often an object of the recording was read since the last look."""
        log = [asked for asked in self.proxy.log if asked.kind == "get" and f"/recordings/{REC}/" in asked.path]
        self.proxy.clear()
        return len(log)

    def last_operation(self) -> str:
        """The catalog's. Not through the proxy, which is in this process: deltalake keeps the GIL while it asks."""
        direct = self.config.with_name("direct.yaml")
        direct.write_text(self.config.read_text().replace(self.proxy.url, self.buckets.server.endpoint_url))
        with DataInterface("r2", direct) as data:
            return data.catalog_history()[0].operation

    def etag(self) -> str | None:
        """As registered."""
        with self.open() as data:
            (row,) = [row for item in data.list_modalities({"rec_id": REC}) for row in item.files if row.path == PATH]
        assert row.evidence.proven
        return row.etag


@pytest.fixture
def rig(
    weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Callable[[S3Server], FaultProxy], tmp_path: Path
) -> Rig:
    proxy = fault_proxy(weed_buckets.server)
    config = s3_config(weed_buckets.at(proxy.url), rig_timezone="UTC")
    return Rig(proxy, config, weed_buckets, make_recording(tmp_path / "nas", REC, FILES))


def of(check: RecordingCheck, path: str = PATH) -> FileCheck:
    """A file's verdict."""
    (found,) = [file for file in check.files if file.path == path]
    return found


def verify(data: DataInterface, *, level: str | None = None) -> RecordingCheck:
    with data:
        (check,) = data.verify([REC], level=level)
    return check


def test_a_head_verify_reads_nothing_of_what_is_as_registered(rig: Rig) -> None:
    check = verify(rig.open())
    assert check.ok and not check.seen_only and {file.mark for file in check.files} == {"="}
    assert rig.readings() == 0 and str(check.level) == "head"


def test_the_same_bytes_uploaded_again_are_read_once(rig: Rig) -> None:
    """Without the right to write the row, this machine remembers what it measured."""
    old = rig.etag()
    new = rig.upload_again(FILES[PATH])
    check = verify(rig.open())
    assert check.ok and (of(check).mark, of(check).evidence) == ("=", "sha256")
    assert rig.readings() == 1
    again = verify(rig.open())
    assert again.ok and (of(again).mark, of(again).evidence) == ("=", "sha256")
    assert rig.readings() == 0
    assert rig.etag() == old != new


def test_where_the_catalog_may_be_written_the_row_is_refreshed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    new = rig.upload_again(FILES[PATH])
    assert verify(rig.open("assets_rw")).ok and rig.readings() == 1
    assert rig.etag() == new
    assert rig.last_operation() == "proven"
    # The row itself tells the next machine.
    monkeypatch.setenv("HOME", str(rig.rec_dir.parent / "another-home"))
    check = verify(rig.open())
    assert check.ok and of(check).mark == "=" and rig.readings() == 0


def test_what_this_machine_remembers_refreshes_the_row_later(rig: Rig) -> None:
    new = rig.upload_again(FILES[PATH])
    assert verify(rig.open()).ok and rig.readings() == 1
    assert verify(rig.open("assets_rw")).ok and rig.readings() == 0
    assert rig.etag() == new


@pytest.mark.parametrize("roles", [(), ("assets_rw",)], ids=["reading", "writing"])
def test_other_bytes_are_found_and_leave_the_row_as_it_is(rig: Rig, roles: tuple[str, ...]) -> None:
    old = rig.etag()
    rig.upload_again(FILES[PATH][:-1] + b"x")
    for _ in range(2):
        check = verify(rig.open(*roles))
        assert not check.ok and of(check).mark == "*" and "another sha256 than is registered" in of(check).detail
    assert rig.etag() == old


def test_beyond_the_allowance_it_is_not_read_and_not_ok(rig: Rig) -> None:
    rig.upload_again(FILES[PATH])
    data = rig.open()
    data._allowance = Allowance(SIZE - 1)
    check = verify(data)
    assert not check.ok and (of(check).mark, of(check).detail) == ("*", UNREAD)
    assert rig.readings() == 0
    told = _mend(check, None)
    assert f"`ursa verify {REC} --level full`" in told and "--replace-objects" not in told
    assert verify(rig.open(), level="full").ok
    data = rig.open()
    data._allowance = Allowance(SIZE)
    assert verify(data).ok


def test_the_allowance_is_of_all_files_together() -> None:
    allowance = Allowance(10)
    assert [allowance.take(size) for size in (6, 5, 4, 0, 1)] == [True, False, True, True, False]


def test_a_file_under_another_key_is_found_by_it(rig: Rig) -> None:
    """``register_modality`` takes any key of the bucket; the row says which, and the path is only a name."""
    body = b"stitched"
    client = rig.buckets.server.client()
    client.put_object(Bucket=rig.buckets.raw, Key="derived/2026/stitched.mp4", Body=body)
    file = {
        "path": "stitched_a/whole.mp4",
        "key": "derived/2026/stitched.mp4",
        "size_bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    with rig.open("assets_rw") as data:
        recording_hash = data.find_recording(REC).recording_hash
        data.register_modality(recording_hash=recording_hash, modality="stitched", worker_id="a", files=[file])
    for level in (None, "checksum", "full"):
        check = verify(rig.open(), level=level)
        assert check.ok and of(check, "stitched_a/whole.mp4").mark == "="
    client.put_object(Bucket=rig.buckets.raw, Key="derived/2026/stitched.mp4", Body=b"STITCHED")
    assert of(verify(rig.open()), "stitched_a/whole.mp4").mark == "*"
    # An object that has the path is not the file's.
    client.put_object(Bucket=rig.buckets.raw, Key=f"recordings/{REC}/stitched_a/whole.mp4", Body=body)
    client.delete_object(Bucket=rig.buckets.raw, Key="derived/2026/stitched.mp4")
    check = verify(rig.open())
    assert "-" in {str(file.mark) for file in check.files if file.path == "stitched_a/whole.mp4"} and not check.ok


# --- claims


def in_the_bucket(rig: Rig, rec_id: str, *, stated: bytes | None = None) -> None:
    """A recording that another tool uploaded, registered by its manifest; ``stated``: what that says of the content."""
    there = make_recording(rig.rec_dir.parent / "there", rec_id, {PATH: stated or FILES[PATH]})
    (there / PATH).write_bytes(FILES[PATH])
    client = rig.buckets.server.client()
    for path in (PATH, "manifest.json"):
        key = f"recordings/{rec_id}/{path}"
        client.put_object(Bucket=rig.buckets.raw, Key=key, Body=(there / path).read_bytes())
    with rig.open("assets_rw") as data:
        data.ingest_from_r2(rec_id)
    rig.proxy.clear()


def test_a_claim_is_seen_and_not_proven(rig: Rig) -> None:
    other = "rec_20260521_101500_c2ee"
    in_the_bucket(rig, other)
    with rig.open() as data:
        (check,) = data.verify([other])
        assert check.ok and check.seen_only and check.not_proven == 1
        assert (of(check).mark, of(check).evidence) == ("=", "claimed")
        (check,) = data.verify([other], level="full")
        assert check.ok and not check.seen_only and of(check).evidence == "sha256"
    with rig.open("assets_rw") as data:
        (check,) = data.verify([other])
        assert not check.seen_only
    with rig.open() as data:
        rows = [row for item in data.list_modalities({"rec_id": other}) for row in item.files]
    assert [str(row.evidence) for row in rows] == ["sha256"]


def test_a_claim_that_is_wrong_is_found_by_reading(rig: Rig) -> None:
    other = "rec_20260521_101500_c2ee"
    in_the_bucket(rig, other, stated=FILES[PATH][:-1] + b"x")
    with rig.open() as data:
        (check,) = data.verify([other])
        assert check.not_proven == 1 and check.seen_only
        (check,) = data.verify([other], level="full")
        assert not check.ok and of(check).mark == "*"
        assert of(check).detail.startswith("not as its manifest states: sha256 ")
