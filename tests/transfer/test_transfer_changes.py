"""Uploads of files that change meanwhile, go away, or are not what their manifest states: no object is made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from tap import (
    BIG,
    MOST,
    PART,
    Tap,
    abandon_after,
    assert_whole,
    item,
    make_file,
    noise,
    open_uploads,
    send,
    sha256,
    touch_later,
)

from ursa.errors import ChecksumMismatchError, FileChangedError, StorageError
from ursa.store import Store
from ursa.store.local import LocalStore
from ursa.transfer import digest as digests
from ursa.transfer.digest import SourceFile

Before = Callable[[Callable[[Path], object]], None]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", "raw")


@pytest.fixture
def big(tmp_path: Path) -> SourceFile:
    """A file that goes in five parts."""
    return make_file(tmp_path / "big.bin", BIG)


@pytest.fixture
def before_reading(monkeypatch: pytest.MonkeyPatch) -> Before:
    """``before_reading(act)``: a file that is open, and found unchanged, is acted upon before its bytes are read."""
    really = digests.read_exactly

    def use(act: Callable[[Path], object]) -> None:
        def read(file: SourceFile, stream: IO[bytes], count: int) -> bytes:
            act(file.source)
            return really(file, stream, count)

        monkeypatch.setattr(digests, "read_exactly", read)

    return use


# --- files that change


CHANGES: dict[str, Callable[[Path], object]] = {
    "grows": lambda path: path.open("ab").write(b"more"),
    "shrinks": lambda path: path.open("r+b").truncate(10),
    "is-emptied": lambda path: path.write_bytes(b""),
    "is-touched": touch_later,
}
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))


def assert_refused(store: Store, file: SourceFile, name: str) -> None:
    with pytest.raises(FileChangedError) as caught:
        send(store, [item(file)])
    assert caught.value.path == name
    assert name in str(caught.value)
    assert "Nothing was registered" in (caught.value.hint or "")
    assert list(store.list("")) == []


@every_change
def test_a_small_file_that_changes_before(store: Store, tmp_path: Path, change: Callable[[Path], object]) -> None:
    file = make_file(tmp_path / "small.bin", noise(1000))
    change(file.source)
    assert_refused(store, file, "small.bin")


@every_change
def test_a_small_file_that_changes_while_it_is_read(
    store: Store, tmp_path: Path, before_reading: Before, change: Callable[[Path], object]
) -> None:
    file = make_file(tmp_path / "small.bin", noise(1000))
    before_reading(change)
    assert_refused(store, file, "small.bin")


@every_change
@pytest.mark.parametrize("part", [1, 3])
def test_a_large_file_that_changes_while_it_is_sent(
    store: Store, big: SourceFile, change: Callable[[Path], object], part: int
) -> None:
    def interfere(_key: str, _id: str, number: int, *_args: object, **_options: object) -> None:
        if number == part:
            change(big.source)

    with pytest.raises(FileChangedError) as caught:
        send(Tap(store, before={"upload_part": interfere}), [item(big)])
    assert caught.value.path == "big.bin"
    assert list(store.list("")) == []


@pytest.mark.parametrize("size", [1000, MOST + 1], ids=["small", "large"])
def test_a_file_that_disappears(store: Store, tmp_path: Path, size: int) -> None:
    file = make_file(tmp_path / "f.bin", noise(size))
    file.source.unlink()
    with pytest.raises(FileChangedError, match=r"f\.bin disappeared"):
        send(store, [item(file)])
    assert list(store.list("")) == []


def test_a_change_after_data_was_read_before(store: Store, tmp_path: Path) -> None:
    file = make_file(tmp_path / "f", b"1234")
    touch_later(file.source)
    with pytest.raises(FileChangedError):
        send(store, [item(file, data=b"1234")])
    assert list(store.list("")) == []


def test_a_changed_file_is_taken_anew_afterwards(store: Store, big: SourceFile) -> None:
    """What the first run sent of the old content is no harm to the second."""

    def append(*_args: object, **_options: object) -> None:
        big.source.write_bytes(BIG[: PART - 1] + b"x" + BIG[PART:])

    with pytest.raises(FileChangedError):
        send(Tap(store, before={"upload_part": append}), [item(big)])
    data = big.source.read_bytes()
    send(store, [item(make_file(big.source, data))])
    assert_whole(store, "big.bin", data)


# --- files that are not what they should be


@pytest.mark.parametrize("size", [1000, MOST + 1], ids=["small", "large"])
def test_a_wrong_stated_sha256(store: Store, tmp_path: Path, size: int) -> None:
    data = noise(size)
    file = make_file(tmp_path / "f.bin", data)
    others = store.create_upload("f.bin")
    with pytest.raises(ChecksumMismatchError) as caught:
        send(store, [item(file, sha256="ab" * 32)])
    assert (caught.value.path, caught.value.expected, caught.value.found) == ("f.bin", "ab" * 32, sha256(data))
    assert list(store.list("")) == []
    assert [upload.upload_id for upload in open_uploads(store)["f.bin"]] == [others]


def test_a_wrong_stated_sha256_of_an_upload_taken_over(store: Store, big: SourceFile) -> None:
    abandon_after(store, big, 1)
    (upload,) = open_uploads(store)["big.bin"]
    with pytest.raises(ChecksumMismatchError):
        send(store, [item(big, sha256="ab" * 32)])
    assert list(store.list("")) == []
    assert [left.upload_id for left in open_uploads(store)["big.bin"]] == [upload.upload_id]


def test_a_disk_that_goes_away(store: Store, tmp_path: Path, before_reading: Before) -> None:
    def vanish(_path: Path) -> None:
        raise OSError(116, "Stale file handle")

    before_reading(vanish)
    with pytest.raises(StorageError, match=r"can't read f: the disk or network share went away \(ESTALE\)") as caught:
        send(store, [item(make_file(tmp_path / "f", b"1234"))])
    assert "remount" in (caught.value.hint or "")
    assert list(store.list("")) == []
