"""An upload that is aborted or completed from outside while its parts are sent: look again, then skip or begin anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tap import (
    BIG,
    PART,
    Tap,
    abandon_after,
    assert_whole,
    cut,
    item,
    make_file,
    md5,
    open_uploads,
    s3_store,
    send,
    told,
)

from conftest import Buckets, MakeConfig
from helpers import make_recording
from ursa import DataInterface, UploadProgress
from ursa.errors import ObjectConflictError, StorageError
from ursa.policies import Evidence
from ursa.store import Store
from ursa.store.local import LocalStore
from ursa.transfer.digest import SourceFile
from ursa.transfer.items import UploadEvent

KEY = "big.bin"
PARTS = 5
OTHER = BIG[:-1] + b"x"


@pytest.fixture(params=["local", "weed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "weed":
        return s3_store(request.getfixturevalue("weed_buckets"))
    return LocalStore(tmp_path / "store", "raw")


@pytest.fixture
def big(tmp_path: Path) -> SourceFile:
    """A file that goes in five parts."""
    return make_file(tmp_path / KEY, BIG)


def abort(store: Store) -> None:
    """As `aws s3api abort-multipart-upload` would, of all uploads."""
    for upload in open_uploads(store).get(KEY, ()):
        store.abort_upload(KEY, upload.upload_id)


def complete(store: Store, data: bytes) -> None:
    """Another process that has the same upload sends ``data`` through it, and is faster."""
    (upload,) = open_uploads(store)[KEY]
    parts = [
        store.upload_part(KEY, upload.upload_id, number, piece, md5=md5(piece))
        for number, piece in enumerate(cut(data, PART), 1)
    ]
    store.complete_upload(KEY, upload.upload_id, parts)


def once(action: Callable[[], object]) -> Callable[..., None]:
    """A hook that acts at its first call."""
    left = [action]

    def hook(*_args: object, **_options: object) -> None:
        if left:
            left.pop()()

    return hook


def at_part(wanted: int, action: Callable[[], object]) -> Callable[..., None]:
    """A hook that acts at the first call for this part."""
    act = once(action)

    def hook(_key: str, _upload_id: str, number: int, *_args: object, **_options: object) -> None:
        if number == wanted:
            act()

    return hook


@pytest.mark.parametrize("number", [1, 3, PARTS])
def test_aborted_at_a_part_it_is_begun_anew(store: Store, big: SourceFile, number: int) -> None:
    tap = Tap(store, before={"upload_part": at_part(number, lambda: abort(store))})
    events: list[UploadEvent] = []
    (result,) = send(tap, [item(big)], events=events, transfers=1)
    assert result.sent
    assert result.evidence is Evidence.ETAG
    assert_whole(store, KEY, BIG)
    assert open_uploads(store) == {}
    assert tap.names().count("create_upload") == 2
    # With one request at a time nothing more was sent to the upload that was gone.
    assert tap.part_numbers() == sorted([*range(1, number + 1), *range(1, PARTS + 1)])
    assert told(events) == {KEY: len(BIG)}


def test_aborted_before_it_is_completed_it_is_begun_anew(store: Store, big: SourceFile) -> None:
    tap = Tap(store, before={"complete_upload": once(lambda: abort(store))})
    events: list[UploadEvent] = []
    (result,) = send(tap, [item(big)], events=events)
    assert result.sent
    assert_whole(store, KEY, BIG)
    assert open_uploads(store) == {}
    assert tap.part_bytes() == 2 * len(BIG)
    assert told(events) == {KEY: len(BIG)}


def test_one_that_was_taken_over_is_aborted_by_its_owner(store: Store, big: SourceFile) -> None:
    abandon_after(store, big, 3)
    tap = Tap(store, before={"upload_part": once(lambda: abort(store))})
    events: list[UploadEvent] = []
    (result,) = send(tap, [item(big)], events=events, transfers=1)
    assert result.sent
    assert_whole(store, KEY, BIG)
    assert tap.part_numbers() == [1, 2, 3, 4, 4, 5]
    assert told(events) == {KEY: len(BIG)}


def test_what_aborts_every_upload_is_reported(store: Store, big: SourceFile) -> None:
    tap = Tap(store, before={"upload_part": lambda *_args, **_options: abort(store)})
    with pytest.raises(StorageError, match=r"big\.bin was aborted from outside \d times") as caught:
        send(tap, [item(big)], transfers=1)
    assert "gc-uploads" in (caught.value.hint or "")
    assert list(store.list("")) == []
    assert open_uploads(store) == {}


@pytest.mark.parametrize("moment", ["upload_part", "complete_upload"])
def test_completed_from_outside_with_the_same_bytes_is_a_success(store: Store, big: SourceFile, moment: str) -> None:
    tap = Tap(store, before={moment: once(lambda: complete(store, BIG))})
    events: list[UploadEvent] = []
    (result,) = send(tap, [item(big)], events=events, transfers=1)
    assert not result.sent
    assert result.evidence is Evidence.ETAG
    assert tap.names().count("create_upload") == 1
    assert tap.part_bytes() == (PART if moment == "upload_part" else len(BIG))
    assert_whole(store, KEY, BIG)
    assert told(events) == {KEY: len(BIG)}


@pytest.mark.parametrize("moment", ["upload_part", "complete_upload"])
def test_completed_from_outside_with_other_bytes_is_a_conflict(store: Store, big: SourceFile, moment: str) -> None:
    tap = Tap(store, before={moment: once(lambda: complete(store, OTHER))})
    with pytest.raises(ObjectConflictError):
        send(tap, [item(big)])
    assert_whole(store, KEY, OTHER)


def test_an_ingest_goes_on_when_its_upload_is_aborted(
    weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    rec_dir = make_recording(
        tmp_path, "rec_20260520_195628_b1dd", {"camera_left/seg_000.mp4": BIG, "eeg_a/1.edf": b"1"}
    )
    client: Any = weed_buckets.server.client()
    aborted: list[str] = []
    uploaded: list[int] = []

    def at_the_first_part(event: UploadProgress) -> None:
        uploaded.append(event.bytes_uploaded)
        if event.phase != "upload" or aborted:
            return
        for upload in client.list_multipart_uploads(Bucket=weed_buckets.raw).get("Uploads", ()):
            client.abort_multipart_upload(Bucket=weed_buckets.raw, Key=upload["Key"], UploadId=upload["UploadId"])
            aborted.append(upload["Key"])

    with DataInterface("r2", s3_config(weed_buckets), bandwidth="40M") as data:
        data.enable_writes(roles=("assets_rw", "raw_rw"))
        data.init_catalog()
        result = data.ingest(rec_dir / "manifest.json", rec_dir, progress=at_the_first_part)
        (check,) = data.verify([result.recording.rec_id], level="full")
    assert len(aborted) == 1
    assert check.ok
    assert uploaded == sorted(uploaded)
    assert uploaded[-1] == result.bytes_uploaded
