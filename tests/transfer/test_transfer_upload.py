"""Uploads: whole, proven, resumed by anybody, and never half."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tap import (
    BIG,
    MIB,
    MOST,
    PART,
    Tap,
    abandon_after,
    assert_whole,
    comparing,
    cut,
    item,
    make_file,
    md5,
    noise,
    open_uploads,
    s3_store,
    send,
    sha256,
    told,
)

from conftest import Buckets
from helpers import working
from proxy import FaultProxy
from servers import S3Server
from ursa.errors import FileChangedError, ObjectConflictError, StorageError
from ursa.policies import Evidence
from ursa.store import NotFoundError, Store
from ursa.store.local import LocalStore
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.transfer.digest import SourceFile
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.items import Finished, Moved, UploadEvent
from ursa.transfer.limits import BandwidthLimit
from ursa.transfer.parts import multipart_etag, part_bytes
from ursa.transfer.upload import upload

Proxied = Callable[[S3Server], FaultProxy]
MEMORY_SCRIPT = Path(__file__).parent / "peak_memory.py"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", "raw")


@pytest.fixture
def big(tmp_path: Path) -> SourceFile:
    """A file that goes in five parts."""
    return make_file(tmp_path / "big.bin", BIG)


def patient(store: Store) -> RetryingStore:
    return RetryingStore(store, RetryPolicy(max_delay_s=0.01))


# --- what arrives


SIZES = {"empty": 0, "small": 100, "most-in-one": MOST, "least-in-parts": MOST + 1, "parts": 4 * PART}


@pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))
@pytest.mark.parametrize("kind", ["local", "weed"])
def test_every_size(kind: str, store: Store, request: pytest.FixtureRequest, tmp_path: Path, size: int) -> None:
    if kind == "weed":
        store = s3_store(request.getfixturevalue("weed_buckets"))
    data = noise(size)
    tap = Tap(store)
    (result,) = send(tap, [item(make_file(tmp_path / "f", data))])
    assert_whole(store, "f", data)
    assert result.sent
    assert result.sha256 == sha256(data)
    assert result.etag == store.head("f").etag
    # Nothing has shown yet that this server refuses a wrong checksum: what it tells of one is a claim.
    assert result.evidence == ("sha256" if kind == "local" and size <= MOST else "etag")
    assert tap.part_bytes() == (size if size > MOST else 0)
    assert tap.names().count("put") == (size <= MOST)
    assert open_uploads(store) == {}
    if size <= MOST:
        assert store.head("f").sha256 == sha256(data)
    elif kind == "weed":
        assert result.etag == multipart_etag(md5(piece) for piece in cut(data, part_bytes(size)))


def test_stated_sha256_goes_into_the_metadata(store: Store, big: SourceFile) -> None:
    send(store, [item(big, sha256=sha256(BIG))])
    assert store.head("big.bin").sha256 == sha256(BIG)


def test_many_in_order(store: Store, tmp_path: Path, big: SourceFile) -> None:
    smalls = [item(make_file(tmp_path / f"{number}", noise(number, number))) for number in range(40)]
    items = [*smalls[:20], item(big), *smalls[20:], item(make_file(tmp_path / "big2", BIG[:-1]))]
    events: list[UploadEvent] = []
    results = send(store, items, events=events)
    assert [result.item for result in results] == items
    assert {info.key: info.size_bytes for info in store.list("")} == {one.key: one.file.size_bytes for one in items}
    assert told(events) == {one.key: one.file.size_bytes for one in items}
    assert sorted(event.result.item.key for event in events if isinstance(event, Finished)) == sorted(
        one.key for one in items
    )


def test_nothing_to_do(store: Store) -> None:
    assert send(store, []) == []


def test_data_that_was_read_before(store: Store, tmp_path: Path) -> None:
    file = make_file(tmp_path / "f", b"1234")
    (result,) = send(store, [item(file, data=b"1234")])
    assert result.sha256 == sha256(b"1234")
    assert_whole(store, "f", b"1234")


def test_events_come_in_the_calling_thread(store: Store, big: SourceFile, tmp_path: Path) -> None:
    threads: set[str] = set()
    items = [item(big), item(make_file(tmp_path / "f", b"1"))]
    send(store, items, on_event=lambda _event: threads.add(threading.current_thread().name))
    assert threads == {threading.current_thread().name}


def test_moved_is_told_while_a_part_goes_out(weed_buckets: Buckets, big: SourceFile) -> None:
    events: list[UploadEvent] = []
    send(s3_store(weed_buckets), [item(big)], events=events)
    moved = [event.bytes_done for event in events if isinstance(event, Moved)]
    assert sum(moved) == len(BIG)
    assert len(moved) > 3
    assert all(count > 0 for count in moved)


# --- resuming


@pytest.mark.parametrize("kind", ["local", "weed"])
def test_an_abandoned_upload_is_taken_over(
    kind: str, store: Store, request: pytest.FixtureRequest, big: SourceFile
) -> None:
    if kind == "weed":
        store = s3_store(request.getfixturevalue("weed_buckets"))
    abandon_after(store, big, 2)
    assert list(store.list("")) == []
    tap, events = Tap(store), list[UploadEvent]()
    send(tap, [item(big)], events=events)
    assert tap.part_numbers() == [3, 4, 5]
    assert "create_upload" not in tap.names()
    assert_whole(store, "big.bin", BIG)
    assert open_uploads(store) == {}
    assert sum(event.resumed for event in events if isinstance(event, Moved)) == 2 * PART
    assert told(events) == {"big.bin": len(BIG)}


def test_a_killed_process_is_taken_over(weed_buckets: Buckets, fault_proxy: Proxied, big: SourceFile) -> None:
    """What the wire carries in the second run is at most what had not arrived."""
    script = (
        "import os, signal, sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path; import tap; from conftest import Buckets; from servers import S3Server\n"
        "store = tap.s3_store(Buckets(S3Server(*sys.argv[3:6]), sys.argv[6], ''))\n"
        "def die(_key, _id, number, *_args, **_options):\n"
        "    if number == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "tap.send(tap.Tap(store, after={'upload_part': die}), [tap.item(tap.describe(Path(sys.argv[7])))], transfers=1)"
    )
    server = weed_buckets.server
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(here), str(here.parent)]
    command += [server.endpoint_url, server.access_key, server.secret_key, weed_buckets.raw, str(big.source)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == -9, process.stderr
    proxy = fault_proxy(server)
    store = s3_store(weed_buckets.at(proxy.url))
    send(store, [item(big)])
    assert sum(request.bytes_in for request in proxy.log if request.kind == "upload_part") == len(BIG) - 2 * PART
    assert_whole(store, "big.bin", BIG)


def test_parts_with_other_bytes_are_sent_again(store: Store, big: SourceFile) -> None:
    upload_id = store.create_upload("big.bin")
    for number, body in ((1, noise(PART, seed=9)), (2, BIG[PART : 2 * PART])):
        store.upload_part("big.bin", upload_id, number, body, md5=md5(body))
    tap = Tap(store)
    send(tap, [item(big)])
    assert tap.part_numbers() == [1, 3, 4, 5]
    assert_whole(store, "big.bin", BIG)


def test_another_tool_cut_it_otherwise(store: Store, big: SourceFile) -> None:
    upload_id = store.create_upload("big.bin")
    pieces = list(cut(BIG, 5 * MIB))
    for number in (1, 2, 4):
        store.upload_part("big.bin", upload_id, number, pieces[number - 1], md5=md5(pieces[number - 1]))
    tap = Tap(store)
    send(tap, [item(big)])
    assert tap.part_numbers() == [3, *range(5, len(pieces) + 1)]
    assert_whole(store, "big.bin", BIG)
    assert open_uploads(store) == {}


@pytest.mark.parametrize("sizes", [[MIB], [5 * MIB, 6 * MIB], [PART] * 6], ids=["tiny", "unequal", "too-long"])
def test_a_cut_that_does_not_fit_is_left_alone(store: Store, big: SourceFile, sizes: list[int]) -> None:
    upload_id = store.create_upload("big.bin")
    for number, size in enumerate(sizes, 1):
        store.upload_part("big.bin", upload_id, number, bytes(size), md5=md5(bytes(size)))
    send(store, [item(big)])
    assert_whole(store, "big.bin", BIG)
    assert [upload.upload_id for upload in open_uploads(store)["big.bin"]] == [upload_id]
    assert len(store.list_parts("big.bin", upload_id)) == len(sizes)


def test_the_fullest_is_taken_and_nobody_elses_is_aborted(store: Store, big: SourceFile) -> None:
    ids = []
    for count in (1, 2, 0):
        upload_id = store.create_upload("big.bin")
        ids.append(upload_id)
        for number, body in list(enumerate(cut(BIG, PART), 1))[:count]:
            store.upload_part("big.bin", upload_id, number, body, md5=md5(body))
    other = store.create_upload("other.bin")
    tap = Tap(store)
    send(tap, [item(big)])
    assert tap.part_numbers() == [3, 4, 5]
    assert "abort_upload" not in tap.names()
    left = open_uploads(store)
    assert {upload.upload_id for upload in left["big.bin"]} == {ids[0], ids[2]}
    assert [upload.upload_id for upload in left["other.bin"]] == [other]


def test_an_upload_that_went_away_between_list_and_look(store: Store, big: SourceFile) -> None:
    abandon_after(store, big, 1)
    (upload,) = open_uploads(store)["big.bin"]
    tap = Tap(store, before={"list_parts": lambda *_args: store.abort_upload("big.bin", upload.upload_id)})
    send(tap, [item(big)])
    assert tap.part_numbers() == [1, 2, 3, 4, 5]
    assert_whole(store, "big.bin", BIG)


@pytest.mark.parametrize("same", [True, False])
def test_somebody_else_completes_it_meanwhile(store: Store, big: SourceFile, same: bool) -> None:
    """A second admin takes the same upload over and is faster."""
    abandon_after(store, big, 2)
    (upload,) = open_uploads(store)["big.bin"]

    def complete(*_args: object, **_options: object) -> None:
        store.abort_upload("big.bin", upload.upload_id)
        data = BIG if same else BIG[:-1] + b"x"
        store.put("big.bin", data, sha256=sha256(data))

    tap = Tap(store, before={"upload_part": complete})
    if same:
        (result,) = send(tap, [item(big)])
        assert not result.sent
        assert result.evidence == "etag"
    else:
        with pytest.raises(ObjectConflictError):
            send(tap, [item(big)])
    assert store.head("big.bin").size_bytes == len(BIG)


# --- replies that are lost, keys that are taken


@pytest.mark.parametrize("size", [1000, MIB + 1], ids=["small", "medium"])
def test_a_lost_reply_to_a_put_is_no_conflict(
    moto_buckets: Buckets, fault_proxy: Proxied, tmp_path: Path, size: int
) -> None:
    proxy = fault_proxy(moto_buckets.server)
    rule = proxy.lose_reply("put")
    data = noise(size)
    store = s3_store(moto_buckets.at(proxy.url))
    (result,) = send(patient(store), [item(make_file(tmp_path / "f", data))])
    assert rule.hits == 1
    assert result.evidence == "etag"
    assert_whole(store, "f", data)


def test_a_lost_reply_to_a_complete_is_no_conflict(
    weed_buckets: Buckets, fault_proxy: Proxied, big: SourceFile
) -> None:
    proxy = fault_proxy(weed_buckets.server)
    rule = proxy.lose_reply("complete")
    store = s3_store(weed_buckets.at(proxy.url))
    (result,) = send(patient(store), [item(big)])
    assert rule.hits == 1
    assert result.evidence == "etag"
    assert_whole(store, "big.bin", BIG)


def test_an_ailing_server_in_the_middle(weed_buckets: Buckets, fault_proxy: Proxied, big: SourceFile) -> None:
    proxy = fault_proxy(weed_buckets.server)
    proxy.reset("upload_part", after_bytes=MIB)
    proxy.fail("upload_part", 2)
    proxy.lose_reply("create_multipart")
    events: list[UploadEvent] = []
    store = s3_store(weed_buckets.at(proxy.url))
    send(patient(store), [item(big)], events=events)
    assert_whole(store, "big.bin", BIG)
    assert told(events) == {"big.bin": len(BIG)}


@pytest.mark.parametrize("size", [1000, MOST + 1], ids=["small", "large"])
@pytest.mark.parametrize("there", ["same", "other", "shorter"])
def test_a_key_that_is_taken(store: Store, tmp_path: Path, size: int, there: str) -> None:
    data = noise(size)
    theirs = {"same": data, "other": data[:-1] + b"x", "shorter": data[:-1]}[there]
    store.put("f", theirs, sha256=sha256(theirs))
    file = make_file(tmp_path / "f", data)
    if there == "same":
        (result,) = send(store, [item(file)])
        assert not result.sent
        assert result.evidence == "etag"
    else:
        with pytest.raises(ObjectConflictError) as caught:
            send(store, [item(file)])
        assert caught.value.keys == ("f",)
    assert_whole(store, "f", theirs)


@pytest.mark.parametrize("size", [1000, MOST + 1], ids=["small", "large"])
def test_a_replacement_under_if_match(store: Store, tmp_path: Path, size: int) -> None:
    old = store.put("f", b"old", sha256=sha256(b"old")).etag
    data = noise(size)
    file = make_file(tmp_path / "f", data)
    send(store, [item(file, replace_etag=old)])
    assert_whole(store, "f", data)
    other = make_file(tmp_path / "f", noise(size, seed=5))
    with pytest.raises(ObjectConflictError):
        send(store, [item(other, replace_etag=old)])
    assert_whole(store, "f", data)


def test_a_key_that_vanishes_after_the_race(store: Store, tmp_path: Path) -> None:
    store.put("f", b"1", sha256=sha256(b"1"))
    file = make_file(tmp_path / "f", b"2")
    with pytest.raises(StorageError, match="there is no object f"):
        send(Tap(store, before={"head": lambda key: store.delete(key)}), [item(file)])


class Versions(Tap):
    """A store whose ETags are versions: they tell nothing of the bytes, and it tells no checksum."""

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)

        def call(*args: Any, **options: Any) -> Any:
            options.pop("if_match", None)
            result = method(*args, **options)
            if name == "complete_upload":
                return "version-1"
            return replace(result, etag="version-1", checked_sha256=None) if name == "head" else result

        return call


def test_what_arrives_damaged_is_noticed(store: Store, big: SourceFile) -> None:
    """A store that tells no md5 in its ETags is read back."""

    def damage(*_args: object, **_options: object) -> None:
        path = big.source.parent / "store" / "raw" / "big.bin"
        with path.open("r+b") as file:
            file.write(b"damage")

    with pytest.raises(StorageError, match=r"big\.bin arrived damaged"):
        send(Versions(store, after={"complete_upload": damage}), [item(big)])
    big.source.with_name("store").joinpath("raw", "big.bin").unlink()
    (result,) = send(Versions(store), [item(big)])
    assert result.evidence is Evidence.SHA256


# --- stopping


def test_a_raising_callback_stops_cleanly(store: Store, tmp_path: Path, big: SourceFile) -> None:
    before = working()
    items = [item(make_file(tmp_path / f"{number:03}", b"1")) for number in range(200)]
    items.append(item(big))

    def refuse(_event: UploadEvent) -> None:
        raise LookupError("the callback's own")

    with pytest.raises(LookupError, match="the callback's own"):
        send(store, items, on_event=refuse)
    assert working() <= before
    there = {info.key for info in store.list("")}
    assert len(there) < len(items)
    assert {info.key for info in store.list("")} == there


def test_stop_keeps_the_upload_for_the_next_run(store: Store, big: SourceFile) -> None:
    stop = Stop()
    tap = Tap(store, before={"upload_part": lambda *_args, **_options: stop.set()})
    with pytest.raises(KeyboardInterrupt):
        send(tap, [item(big)], stop=stop, transfers=1)
    assert list(store.list("")) == []
    (upload,) = open_uploads(store)["big.bin"]
    arrived = store.list_parts("big.bin", upload.upload_id)
    assert 1 <= len(arrived) < 3
    again = Tap(store)
    send(again, [item(big)])
    assert again.part_bytes() == len(BIG) - sum(part.size_bytes for part in arrived)
    assert_whole(store, "big.bin", BIG)


def test_stopped_before(store: Store, tmp_path: Path, big: SourceFile) -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        send(store, [item(make_file(tmp_path / "f", b"1")), item(big)], stop=stop)
    assert list(store.list("")) == []


def test_the_first_error_is_the_one_that_is_raised(store: Store, tmp_path: Path) -> None:
    items = [item(make_file(tmp_path / f"{number:03}", b"1")) for number in range(100)]
    items[3].file.source.unlink()
    with pytest.raises(FileChangedError, match="003 disappeared"):
        send(store, items, transfers=1)
    with pytest.raises(NotFoundError):
        store.head("099")


# --- limits


def test_transfers_bounds_requests_in_flight(store: Store, tmp_path: Path, big: SourceFile) -> None:
    lock, in_flight, peak = threading.Lock(), 0, 0

    def entered(*_args: object, **_options: object) -> None:
        nonlocal in_flight, peak
        with lock:
            in_flight += 1
            peak = max(peak, in_flight)

    def left(*_args: object, **_options: object) -> None:
        nonlocal in_flight
        with lock:
            in_flight -= 1

    requests = ("put", "upload_part")
    items = [item(make_file(tmp_path / f"{number}", b"1")) for number in range(60)]
    tap = Tap(store, before=dict.fromkeys(requests, entered), after=dict.fromkeys(requests, left))
    send(tap, [*items, item(big)], transfers=3)
    assert 1 <= peak <= 3


def test_small_files_follow_the_round_trip(weed_buckets: Buckets, tmp_path: Path) -> None:
    """100 ms away, 300 files go in a few round trips: the first one to be answered opens the window."""
    with FaultProxy(weed_buckets.server.endpoint_url, delay_s=0.1) as far, Engine() as engine:
        store = s3_store(weed_buckets.at(far.url))
        items = [item(make_file(tmp_path / f"{number}", b"1")) for number in range(300)]
        upload(
            engine, store, items, stop=Stop(), open_uploads={}, compare=comparing(store), on_event=lambda _event: None
        )
        assert far.peak_in_flight > 100


def test_bandwidth_counts_every_byte_once(store: Store, tmp_path: Path, big: SourceFile) -> None:
    class Counting(BandwidthLimit):
        def __init__(self) -> None:
            super().__init__()
            self.counts: list[int] = []

        def wait(self, count: int, stopped: threading.Event) -> None:
            self.counts.append(count)

    limit = Counting()
    items = [item(big), item(make_file(tmp_path / "f", noise(1000)))]
    with Engine(transfers=2, bandwidth=limit) as engine:
        upload(
            engine, store, items, stop=Stop(), open_uploads={}, compare=comparing(store), on_event=lambda _event: None
        )
    assert sum(limit.counts) == len(BIG) + 1000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """1 GiB in one file and 256 MiB in small ones, into a store that takes its time."""
    process = subprocess.run(
        [sys.executable, str(MEMORY_SCRIPT), str(tmp_path)], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(process.stdout) < 400 * MIB
