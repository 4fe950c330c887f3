"""Downloads: verified, resumed, and never over anything."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fetching import BIG, RANGE, failing_at, fetch, files_below, streamed, wanted
from tap import Tap, noise, s3_store, sha256

from conftest import Buckets
from helpers import working
from ursa.errors import ChecksumMismatchError, ConflictError, MissingFilesError, StorageError
from ursa.store.local import LocalStore
from ursa.transfer.download import Fetched
from ursa.transfer.engine import Stop
from ursa.transfer.partial import file_sha256


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", "raw")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "dest"


# --- whole files


@pytest.mark.parametrize("size", [0, 1, RANGE, RANGE + 1, len(BIG)], ids=["empty", "one", "range", "range+1", "big"])
def test_every_size(store: LocalStore, dest: Path, size: int) -> None:
    counts: list[int] = []
    one = wanted(store, dest, "a/b/f.bin", BIG[:size])
    (fetched,) = fetch(store, [one], on_bytes=counts.append)
    assert (fetched.item, fetched.sent, fetched.sha256) == (one, True, one.sha256)
    assert one.target.read_bytes() == BIG[:size]
    assert sum(counts) == size
    assert files_below(dest) == ["a/b/f.bin"]


def test_a_large_object_comes_in_ranges(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    tap = Tap(store)
    fetch(tap, [one])
    assert streamed(tap) == [(0, RANGE), (RANGE, 2 * RANGE), (2 * RANGE, len(BIG))]
    assert {options["if_match"] for name, _, options in tap.calls if name == "stream"} == {one.etag}


def test_from_a_server(weed_buckets: Buckets, dest: Path) -> None:
    store = s3_store(weed_buckets)
    items = [wanted(store, dest, "big", BIG), wanted(store, dest, "Größe 1+1.bin", b"1"), wanted(store, dest, "e", b"")]
    fetch(store, items)
    assert [file_sha256(one.target) for one in items] == [one.sha256 for one in items]


def test_many_in_order(store: LocalStore, dest: Path) -> None:
    items = [wanted(store, dest, f"d/{number}", noise(number, number)) for number in range(40)]
    threads, done = set(), list[Fetched]()

    def note(fetched: Fetched) -> None:
        threads.add(threading.current_thread())
        done.append(fetched)

    assert [fetched.item for fetched in fetch(store, items, on_done=note)] == items
    assert threads == {threading.current_thread()}
    assert {fetched.item.key for fetched in done} == {one.key for one in items}


def test_an_object_whose_sha256_is_not_known(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", b"1234", known=False, etag=False)
    assert fetch(store, [one])[0].sent
    assert one.target.read_bytes() == b"1234"


def test_nothing_to_do(store: LocalStore) -> None:
    assert fetch(store, []) == []


def test_a_name_of_255_bytes(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "n" * 255, b"1234")
    fetch(store, [one])
    assert one.target.read_bytes() == b"1234"


# --- what is there already


def test_an_equal_file_is_skipped(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    fetch(store, [one])
    stat = one.target.stat()
    tap, counts = Tap(store), list[int]()
    (fetched,) = fetch(tap, [one], on_bytes=counts.append)
    assert not fetched.sent
    assert tap.calls == []
    assert one.target.stat() == stat or one.target.stat().st_mtime_ns == stat.st_mtime_ns


@pytest.mark.parametrize("there", [b"1235", b"123", b""], ids=["other", "shorter", "empty"])
def test_another_file_is_refused_and_left_alone(store: LocalStore, dest: Path, there: bytes) -> None:
    one = wanted(store, dest, "k", b"1234")
    dest.mkdir()
    one.target.write_bytes(there)
    with pytest.raises(ConflictError) as caught:
        fetch(store, [one])
    assert caught.value.paths == (str(one.target),)
    assert str(one.target) in str(caught.value)
    assert one.target.read_bytes() == there
    assert files_below(dest) == ["k"]


@pytest.mark.parametrize("kind", ["directory", "link", "dangling"])
def test_what_is_no_file_is_refused(store: LocalStore, dest: Path, tmp_path: Path, kind: str) -> None:
    one = wanted(store, dest, "k", b"1234")
    elsewhere = tmp_path / "elsewhere"
    dest.mkdir()
    if kind == "directory":
        one.target.mkdir()
    else:
        one.target.symlink_to(elsewhere)
    if kind == "link":
        elsewhere.write_bytes(b"1234")
    with pytest.raises(ConflictError):
        fetch(store, [one])
    assert elsewhere.exists() is (kind == "link")


def test_a_file_that_appears_meanwhile_is_left_alone(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", b"1234")
    tap = Tap(store, before={"stream": lambda *_args, **_options: one.target.write_bytes(b"mine")})
    with pytest.raises(ConflictError, match="is there with other content than") as caught:
        fetch(tap, [one])
    assert one.target.read_bytes() == b"mine"
    assert (dest / "k.ursa-mismatch").read_bytes() == b"1234"
    assert "k.ursa-mismatch" in (caught.value.hint or "")


def test_the_same_file_that_appears_meanwhile_is_taken(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", b"1234")
    counts: list[int] = []
    tap = Tap(store, before={"stream": lambda *_args, **_options: one.target.write_bytes(b"1234")})
    (fetched,) = fetch(tap, [one], on_bytes=counts.append)
    assert not fetched.sent
    assert sum(counts) == 0
    assert files_below(dest) == ["k"]


@pytest.mark.parametrize("appears", [False, True])
def test_a_disk_without_links(store: LocalStore, dest: Path, monkeypatch: pytest.MonkeyPatch, appears: bool) -> None:
    one = wanted(store, dest, "k", b"1234", etag=False)

    def refuse(*_args: object, **_options: object) -> None:
        if appears:
            one.target.write_bytes(b"mine")
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    if appears:
        with pytest.raises(ConflictError):
            fetch(store, [one])
        assert one.target.read_bytes() == b"mine"
    else:
        fetch(store, [one])
        assert files_below(dest) == ["k"]


# --- objects that are not what they should be


@pytest.mark.parametrize("size", [1000, len(BIG)], ids=["small", "large"])
def test_a_corrupted_object(store: LocalStore, dest: Path, tmp_path: Path, size: int) -> None:
    data = BIG[:size]
    one = wanted(store, dest, "k", data, etag=False)
    damaged = data[: size // 2] + b"x" + data[size // 2 + 1 :]
    (tmp_path / "store" / "raw" / "k").write_bytes(damaged)
    with pytest.raises(ChecksumMismatchError) as caught:
        fetch(store, [one])
    assert (caught.value.path, caught.value.expected, caught.value.found) == ("k", sha256(data), sha256(damaged))
    # What was fetched is kept whole, and nothing has the name of what was registered.
    assert files_below(dest) == ["k.ursa-mismatch"]
    assert (dest / "k.ursa-mismatch").read_bytes() == damaged
    assert str(dest / "k.ursa-mismatch") in (caught.value.hint or "")
    # Once it is repaired, the next run fetches it from the beginning.
    (tmp_path / "store" / "raw" / "k").write_bytes(data)
    fetch(store, [one])
    assert one.target.read_bytes() == data


@pytest.mark.parametrize("size", [1000, len(BIG)], ids=["small", "large"])
def test_an_object_with_other_bytes_is_refused(store: LocalStore, dest: Path, size: int) -> None:
    one = wanted(store, dest, "k", BIG[:size])
    other = noise(size, seed=7)
    store.put("k", other, sha256=sha256(other))
    with pytest.raises(ChecksumMismatchError, match="the catalog states"):
        fetch(store, [one])
    assert files_below(dest) == ["k.ursa-mismatch"]
    assert (dest / "k.ursa-mismatch").read_bytes() == other


def test_what_is_kept_takes_no_place(store: LocalStore, dest: Path) -> None:
    """Each time other bytes come, they are kept under a name of their own; the same bytes once."""
    one = wanted(store, dest, "k", b"right")
    kept = {"k.ursa-mismatch": b"wrong", "k.ursa-mismatch-2": b"wring", "k.ursa-mismatch-3": b"wrung"}
    for data in (*kept.values(), b"wring"):
        store.put("k", data, sha256=sha256(data))
        with pytest.raises(ChecksumMismatchError):
            fetch(store, [one])
    assert {name: (dest / name).read_bytes() for name in files_below(dest)} == kept


def test_a_long_name_is_kept_as_well(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "ä" * 127, b"right")
    store.put(one.key, b"wrong", sha256=sha256(b"wrong"))
    with pytest.raises(ChecksumMismatchError):
        fetch(store, [one])
    (name,) = files_below(dest)
    assert name.endswith("ä.ursa-mismatch")


@pytest.mark.parametrize("size", [0, 1000, len(BIG)], ids=["empty", "small", "large"])
def test_the_same_bytes_uploaded_again(store: LocalStore, dest: Path, size: int) -> None:
    again = wanted(store, dest, "k", BIG[:size])
    one = replace(again, etag="the one before")
    counts: list[int] = []
    (fetched,) = fetch(store, [one], on_bytes=counts.append)
    assert fetched.sent and fetched.info is not None
    assert (fetched.info.etag, fetched.sha256) == (again.etag, one.sha256)
    assert sum(counts) == size
    assert files_below(dest) == ["k"]
    assert one.target.read_bytes() == BIG[:size]


def test_the_same_bytes_under_another_etag_of_a_server(weed_buckets: Buckets, dest: Path) -> None:
    store = s3_store(weed_buckets)
    one = replace(wanted(store, dest, "k", BIG), etag="0" * 32)
    (fetched,) = fetch(store, [one])
    assert fetched.sent and one.target.read_bytes() == BIG
    assert fetched.info is not None and fetched.info.etag == store.head("k").etag


def test_an_object_that_is_replaced_while_it_is_fetched(store: LocalStore, dest: Path) -> None:
    """All ranges are of one object: those of the one before are fetched again."""
    one = wanted(store, dest, "k", BIG, known=False)
    other = noise(len(BIG), seed=7)
    replaced: list[str] = []

    def replace_it(_key: str, *, start: int, **_options: object) -> None:
        if start == 2 * RANGE and not replaced:
            replaced.append(store.put("k", other, sha256=sha256(other)).etag)

    (fetched,) = fetch(Tap(store, before={"stream": replace_it}), [one])
    assert one.target.read_bytes() == other
    assert fetched.info is not None
    assert (fetched.info.etag, fetched.sha256) == (replaced[0], sha256(other))


def test_an_object_that_is_replaced_for_ever(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", b"1234")
    others = iter([b"1235", b"1236", b"1237"])

    def replace_it(*_args: object, **_options: object) -> None:
        other = next(others)
        store.put("k", other, sha256=sha256(other))

    tap = Tap(store, before={"stream": replace_it})
    with pytest.raises(StorageError, match="was replaced 3 times while it was fetched"):
        fetch(tap, [one])
    assert tap.names().count("stream") == 3
    assert files_below(dest) == []


@pytest.mark.parametrize("size", [999, 1001, 0])
@pytest.mark.parametrize("known", [True, False])
def test_an_object_of_another_length(store: LocalStore, dest: Path, size: int, known: bool) -> None:
    one = wanted(store, dest, "k", BIG[:1000], known=known)
    store.put("k", BIG[:size], sha256=sha256(BIG[:size]))
    with pytest.raises(ChecksumMismatchError, match=f"k has {size} bytes, the catalog states 1000"):
        fetch(store, [one])
    assert files_below(dest) == []


def test_a_large_object_that_is_replaced_for_ever_leaves_nothing(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    others = iter(noise(len(BIG), seed) for seed in (7, 8, 9))

    def replace_it(_key: str, *, start: int, **_options: object) -> None:
        if start == 2 * RANGE:
            # The other ranges are whole, and marked.
            while not (found := list(dest.glob("*.done"))) or found[0].read_bytes().count(b" ") < 2:
                pass
            other = next(others)
            store.put("k", other, sha256=sha256(other))

    with pytest.raises(StorageError, match="was replaced 3 times while it was fetched"):
        fetch(Tap(store, before={"stream": replace_it}), [one])
    assert files_below(dest) == []


# --- rows that prove nothing


def test_the_length_is_the_objects_own(store: LocalStore, dest: Path) -> None:
    """A row that proves nothing may state less than the object has, under the ETag that it has."""
    one = replace(wanted(store, dest, "k", b"1234", known=False), size_bytes=3)
    with pytest.raises(ChecksumMismatchError, match="k has 4 bytes, the catalog states 3"):
        fetch(store, [one])
    assert files_below(dest) == []


@pytest.mark.parametrize("size", [0, 1000, len(BIG)], ids=["empty", "small", "large"])
def test_a_wrong_claim_keeps_no_object_out_of_reach(store: LocalStore, dest: Path, size: int) -> None:
    one = replace(wanted(store, dest, "k", BIG[:size]), sha256=sha256(b"something else"), proven=False)
    (fetched,) = fetch(store, [one])
    assert fetched.sent and fetched.sha256 == sha256(BIG[:size])
    assert fetched.info is not None and fetched.info.etag == one.etag
    assert files_below(dest) == ["k"]
    assert one.target.read_bytes() == BIG[:size]


@pytest.mark.parametrize("stated", [None, "right", "wrong"])
def test_a_file_that_is_there_and_a_row_that_proves_nothing(store: LocalStore, dest: Path, stated: str | None) -> None:
    """Equal to what is stated: not asked. Else the object itself is compared."""
    data = b"1234"
    claim = {None: None, "right": sha256(data), "wrong": sha256(b"else")}[stated]
    one = replace(wanted(store, dest, "k", data), sha256=claim, proven=False)
    dest.mkdir()
    one.target.write_bytes(data)
    tap, counts = Tap(store), list[int]()
    (fetched,) = fetch(tap, [one], on_bytes=counts.append)
    assert not fetched.sent and sum(counts) == 0
    assert (fetched.sha256 is None) is (stated == "right") is (tap.calls == [])
    assert files_below(dest) == ["k"]


def test_another_file_that_is_there_and_a_row_that_proves_nothing(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", b"1234", known=False)
    dest.mkdir()
    one.target.write_bytes(b"mine")
    with pytest.raises(ConflictError, match="is there with other content than k"):
        fetch(store, [one])
    assert {name: (dest / name).read_bytes() for name in files_below(dest)} == {
        "k": b"mine",
        "k.ursa-mismatch": b"1234",
    }


def test_an_object_that_is_gone(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", b"1234")
    store.delete("k")
    with pytest.raises(MissingFilesError) as caught:
        fetch(store, [one])
    assert caught.value.paths == ("k",)
    assert not one.target.exists()


# --- stopping


def test_stopped_before(store: LocalStore, dest: Path) -> None:
    stop = Stop()
    stop.set()
    one = wanted(store, dest, "k", b"1234")
    with pytest.raises(KeyboardInterrupt):
        fetch(store, [one], stop=stop)
    assert not one.target.exists()


def test_stopped_in_the_middle_of_a_large_file(store: LocalStore, dest: Path) -> None:
    stop = Stop()
    one = wanted(store, dest, "k", BIG)
    with pytest.raises(KeyboardInterrupt):
        fetch(store, [one], stop=stop, on_bytes=lambda count: stop.set() if count else None)
    assert not one.target.exists()
    fetch(store, [one])
    assert one.target.read_bytes() == BIG


def test_a_raising_callback_stops_the_rest(store: LocalStore, dest: Path) -> None:
    before = working()
    items = [wanted(store, dest, f"{number:03}", b"1234") for number in range(100)]

    def refuse(_fetched: Fetched) -> None:
        raise LookupError("the callback's own")

    with pytest.raises(LookupError):
        fetch(store, items, on_done=refuse)
    assert working() <= before
    assert all((dest / name).read_bytes() == b"1234" for name in files_below(dest) if not name.startswith("."))


@pytest.mark.parametrize("known", [True, False])
def test_what_can_not_be_resumed_leaves_nothing(store: LocalStore, dest: Path, known: bool) -> None:
    one = wanted(store, dest, "k", BIG[: RANGE if known else None], known=known)
    with pytest.raises(StorageError, match="the line went dead"):
        fetch(failing_at(store, 0), [one])
    assert files_below(dest) == []
