"""Downloads and the disk below them: short writes, no room, and what is on the disk when."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fetching import BIG, RANGE, fetch, files_below, streamed, wanted
from tap import MIB, Tap

from ursa.errors import StorageError
from ursa.store.local import LocalStore

SmallDisk = Callable[[int], Path]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", "raw")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "dest"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """``small_disk(size_bytes)``: a file system of that size; called again, the same one with another size."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def make(size_bytes: int) -> Path:
        again = "remount," if disk.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{again}size={size_bytes}", "tmpfs", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return disk

    yield make
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("size", [1000, RANGE, len(BIG)], ids=["small", "range", "large"])
def test_short_writes_are_finished(store: LocalStore, dest: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    one = wanted(store, dest, "k", BIG[:size])
    whole = os.pwrite

    def short(file: int, data: bytes, position: int) -> int:
        return whole(file, data[: max(1, len(data) // 2)], position)

    monkeypatch.setattr(os, "pwrite", short)
    assert fetch(store, [one])[0].sent
    assert one.target.read_bytes() == BIG[:size]


def test_a_disk_that_takes_nothing(store: LocalStore, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_args: 0)
    with pytest.raises(StorageError, match=r"can't write .*: the disk takes no more bytes"):
        fetch(store, [wanted(store, dest, "k", b"1234")])
    assert files_below(dest) == []


def test_no_room_for_a_small_file(store: LocalStore, small_disk: SmallDisk) -> None:
    disk = small_disk(136 << 10)
    one = wanted(store, disk, "k", BIG[:200_001])
    with pytest.raises(StorageError, match=r"can't write .*/k: No space left on device") as caught:
        fetch(store, [one])
    assert "Free some space and run the same command again" in (caught.value.hint or "")
    assert files_below(disk) == []


def test_no_room_for_a_large_file(store: LocalStore, small_disk: SmallDisk) -> None:
    disk = small_disk(40 * MIB)
    (disk / "other").write_bytes(BIG[: 12 * MIB])  # room for one range and a half
    one = wanted(store, disk, "k", BIG)
    first = Tap(store, before={"stream": lambda _key, **options: _wait_for_first(disk, options["start"])})
    with pytest.raises(StorageError, match="No space left on device"):
        fetch(first, [one])
    assert not one.target.exists()
    small_disk(80 * MIB)
    tap = Tap(store)
    fetch(tap, [one])
    # What had its place is not fetched again.
    assert (RANGE, 2 * RANGE) in streamed(tap) and (0, RANGE) not in streamed(tap)
    assert one.target.read_bytes() == BIG
    assert files_below(disk) == ["k", "other"]


def _wait_for_first(disk: Path, start: int) -> None:
    """The first range is on the disk before another one begins."""
    while start and not any(journal.stat().st_size for journal in disk.glob("*.done")):
        pass


def test_no_room_for_a_name(store: LocalStore, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = wanted(store, dest, "k", BIG)

    def full(*_args: object) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "write", full)  # the journal's lines
    with pytest.raises(StorageError, match="can't write") as caught:
        fetch(store, [one])
    assert "Free some space" in (caught.value.hint or "")
    assert files_below(dest) == []


class Watched:
    """What reaches the disk, in order: ``write``, ``data``, ``mark``, ``sync``, ``link``, ``directory``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        for name, what in (("pwrite", "write"), ("fdatasync", "data"), ("write", "mark"), ("link", "link")):
            monkeypatch.setattr(os, name, self._noting(getattr(os, name), what))
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._synced)

    def _noting(self, call: Callable[..., object], what: str) -> Callable[..., object]:
        def noted(*args: object, **options: object) -> object:
            result = call(*args, **options)
            self.seen.append(what)
            return result

        return noted

    def _synced(self, file: int) -> None:
        self._fsync(file)
        self.seen.append("directory" if Path(f"/proc/self/fd/{file}").is_dir() else "sync")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="tells files from directories by /proc")
@pytest.mark.parametrize("size", [1000, RANGE + 1000], ids=["small", "large"])
def test_what_is_on_the_disk_when(store: LocalStore, dest: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    one = wanted(store, dest, "k", BIG[:size])
    dest.mkdir()
    watched = Watched(monkeypatch)
    fetch(store, [one])
    monkeypatch.undo()
    # The file, then its name, then the directory that holds the name: only then it is done.
    assert watched.seen[-3:] == ["sync", "link", "directory"]
    marks = [index for index, what in enumerate(watched.seen) if what == "mark"]
    assert len(marks) == (2 if size > RANGE else 0)
    for count, index in enumerate(marks, 1):
        assert watched.seen[:index].count("data") >= count


def test_a_range_is_marked_only_when_it_is_on_the_disk(
    store: LocalStore, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = wanted(store, dest, "k", BIG)

    def refuse(_file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync" if hasattr(os, "fdatasync") else "fsync", refuse)
    with pytest.raises(StorageError, match=r"can't write .*Input/output error"):
        fetch(store, [one])
    monkeypatch.undo()
    assert files_below(dest) == []


def test_new_directories_are_on_the_disk(store: LocalStore, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = wanted(store, dest, "a/b/k", b"1234")
    synced: list[str] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        fsync(file)
        synced.append(os.path.relpath(os.path.realpath(f"/proc/self/fd/{file}"), dest.parent))

    monkeypatch.setattr(os, "fsync", noted)
    fetch(store, [one])
    assert [name for name in synced if not name.endswith(".part")] == [".", "dest", "dest/a", "dest/a/b"]
