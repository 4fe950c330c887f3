"""Where replicas are kept: parts of the cache that can't be used, full disks, and who removes what another has open."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bucket_tap import Tap
from homes import Place, rec_id, registration

from ursa.catalog.catalog import Catalog
from ursa.catalog.replica import directory as module
from ursa.catalog.replica.directory import ReplicaDirectory, cache_use, clear, link, names_in, place_file, remove_unused
from ursa.errors import StorageError
from ursa.register.commit import register

LONG_S = 40 * 86400.0


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """A catalog with a recording, and this machine's replica of it."""
    place = Place(tmp_path, cache=tmp_path / "here")
    register(place.catalog(), registration(1))
    return place


def kept(place: Place) -> Path:
    """The catalog's directory in the cache."""
    assert place.cache
    (found,) = (path for path in (place.cache / "catalog").iterdir() if path.is_dir())
    return found


def rows(catalog: Catalog) -> list[str]:
    return [row.rec_id for row in catalog.list_recordings()]


def is_temporary(catalog: Catalog) -> bool:
    return catalog.home.directory(catalog.pointer.prefix).temporary


# --- parts that can't be used


def _log(table: Path) -> Path:
    (found,) = table.glob("*/_delta_log")
    return found


def _lock(table: Path) -> Path:
    (found,) = table.glob("*.lock")
    return found


PARTS: dict[str, Callable[[Path], tuple[Path, int]]] = {
    "the table is read-only": lambda table: (table, 0o500),
    "the table can't be looked into": lambda table: (table, 0),
    "its log is read-only": lambda table: (_log(table), 0o500),
    "its directory is read-only": lambda table: (_log(table).parent, 0o500),
    "a lock of another user": lambda table: (_lock(table), 0),
    "a commit of another user": lambda table: (_log(table) / f"{0:020}.json", 0),
    "place is of another user": lambda table: (table.parent / "place", 0),
}


@contextlib.contextmanager
def like_anybody() -> Iterator[None]:
    """Permissions count, also where the tests run as root: this thread has no capability to pass them over."""
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root is kept out of nothing here")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    had, less = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, had) == 0
    less[:] = had[:]
    less[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: of those in effect
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        assert libc.capset(header, had) == 0


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("table", ["recordings", "participants"])
def test_a_part_that_is_not_ours(tmp_path: Path, part: str, table: str) -> None:
    """As after a ``sudo ursa``. The whole catalog is temporary then, and works; nothing of the cache is changed."""
    place = Place(tmp_path, cache=tmp_path / "here")
    register(place.catalog(), registration(1, participants=("Ada",)))
    gc.collect()
    path, mode = PARTS[part](kept(place) / table)
    before = path.stat().st_mode
    path.chmod(mode)
    with like_anybody():
        catalog = place.catalog()
        assert rows(catalog) == [rec_id(1)]
        assert is_temporary(catalog)
        register(catalog, registration(2, participants=("Bob",)))
        assert rows(catalog) == [rec_id(1), rec_id(2)]
    path.chmod(before)
    again = place.catalog()
    assert rows(again) == [rec_id(1), rec_id(2)] and not is_temporary(again)


def test_a_file_in_place_of_a_table(here: Place) -> None:
    table = kept(here) / "modalities"
    shutil.rmtree(table)
    table.write_text("x")
    catalog = here.catalog()
    assert rows(catalog) == [rec_id(1)] and is_temporary(catalog)
    assert table.read_text() == "x"


# --- full disks


def fill(monkeypatch: pytest.MonkeyPatch, full: Callable[[Path], bool]) -> None:
    """No more bytes go into new files of these directories."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    real = tempfile.mkstemp

    def mkstemp(**where: str) -> tuple[int, str]:
        descriptor, name = real(**where)
        if full(Path(name)):
            os.close(descriptor)
            descriptor = os.open("/dev/full", os.O_WRONLY)
        return descriptor, name

    monkeypatch.setattr(module.tempfile, "mkstemp", mkstemp)


def test_a_full_disk(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known to a new command before it writes anything: its replica is a temporary one."""
    assert here.cache
    cache = here.cache
    fill(monkeypatch, lambda path: path.is_relative_to(cache))
    catalog = here.catalog()
    assert rows(catalog) == [rec_id(1)] and is_temporary(catalog)
    register(catalog, registration(2))
    assert rows(catalog) == [rec_id(1), rec_id(2)]
    # Offline nothing is written, and what is there is all there is.
    assert rows(here.catalog(offline=True)) == [rec_id(1)]


def test_no_disk_at_all(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here.cache
    root = here.root
    assert root
    fill(monkeypatch, lambda path: not path.is_relative_to(root / "assets"))
    with pytest.raises(StorageError, match="No space left on device") as caught:
        here.catalog().list_recordings()
    assert str(here.cache) in caught.value.message and "`ursa cache path`" in str(caught.value.hint)


def test_an_error_of_writing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(monkeypatch, lambda _path: True)
    with pytest.raises(OSError, match="No space") as caught:
        place_file(tmp_path / "x", b"x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
    assert names_in(tmp_path) == []


# --- disks without hard links


@pytest.fixture(params=[errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.EACCES])
def no_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def refused(source: Path, target: Path) -> None:
        if "assets" in Path(target).parts:  # the bucket's disk is another one
            return real(source, target)
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", refused)


@pytest.mark.usefixtures("no_links")
def test_a_copy_in_place_of_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its name once it is whole and on the disk, and one that is there stays."""
    source, target = tmp_path / "source", tmp_path / "below" / "target"
    source.write_bytes(b"whole")
    synced: list[bool] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(target.exists())

    monkeypatch.setattr(os, "fsync", fsync)
    link(source, target)
    assert target.read_bytes() == b"whole" and synced == [False]
    there = target.stat()
    link(source, target)
    place_file(target, b"another")
    assert target.read_bytes() == b"whole" and os.path.samestat(target.stat(), there)
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    with pytest.raises(FileNotFoundError):
        link(tmp_path / "none", tmp_path / "x")


@pytest.mark.usefixtures("no_links")
def test_a_catalog_without_links(tmp_path: Path) -> None:
    place = Place(tmp_path, cache=tmp_path / "here")
    for number in range(3):
        register(place.catalog(), registration(number))
    catalog = place.catalog()
    assert rows(catalog) == [rec_id(0), rec_id(1), rec_id(2)] and not is_temporary(catalog)


def test_what_another_process_is_writing(here: Place) -> None:
    """Files that have no name yet are no part of the log, empty as they are; dead ones go."""
    (log,) = kept(here).glob("recordings/*/_delta_log")
    being_written = log / f"{module._NEW}abc"
    being_written.write_bytes(b"")
    tap = Tap()
    catalog = here.catalog(tap=tap)
    assert rows(catalog) == [rec_id(1)]
    assert [key.rpartition("/")[2] for how, key in tap.log if how == "get"] == ["ACTIVE.json"]
    assert being_written.exists()
    backdate(being_written)
    (kept(here) / "recordings" / "tidied").unlink(missing_ok=True)
    catalog.recordings.replica.directory.tidy(())
    assert not being_written.exists()


# --- who removes what


def backdate(path: Path) -> None:
    """As if it had not been used for 40 days."""
    moment = path.stat().st_mtime - LONG_S
    os.utime(path, (moment, moment))


def test_what_is_open_is_not_unused(here: Place) -> None:
    """Long as nobody may have asked for it: by a process that opened it, and synced once."""
    catalog = here.catalog()
    catalog.refresh()
    later = time.time() + LONG_S
    remove_unused(here.cache, later)
    assert rows(catalog) == [rec_id(1)] and kept(here)
    del catalog
    gc.collect()
    remove_unused(here.cache, later)
    with pytest.raises(ValueError, match="values to unpack"):
        kept(here)


def test_what_is_synced_is_in_use(here: Place) -> None:
    """By whoever looks at when it was used last, an older ursa for example."""
    catalog = here.catalog()
    catalog.refresh()
    place = kept(here) / "place"
    backdate(place)
    before = place.stat().st_mtime
    catalog.refresh()
    assert place.stat().st_mtime - before > LONG_S / 2


def test_a_table_that_an_older_ursa_has_open(here: Place) -> None:
    """It holds no lock but the table's."""
    gc.collect()
    held = module._Held()
    held.take(_lock(kept(here) / "modalities"))
    remove_unused(here.cache, time.time() + LONG_S)
    assert clear(here.cache) == 0 and kept(here)
    held.release()
    assert clear(here.cache) > 0


def test_what_is_used_while_it_is_looked_at(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the time and the lock another command has come and gone."""
    gc.collect()
    place = kept(here) / "place"
    backdate(place)
    real = module._remove

    def remove(catalog: Path, since: float | None = None) -> int:
        os.utime(place)
        return real(catalog, since)

    monkeypatch.setattr(module, "_remove", remove)
    remove_unused(here.cache)
    assert kept(here)


def test_offline_removes_nothing(here: Place) -> None:
    gc.collect()
    backdate(kept(here) / "place")
    assert rows(here.catalog(offline=True)) == [rec_id(1)]


def test_clear_beside_a_first_sync(tmp_path: Path) -> None:
    """No table is there yet."""
    directory = ReplicaDirectory(tmp_path, "server", "prefix", ["recordings"])
    with directory.table("recordings").scratch() as made:
        (made / "x").write_bytes(b"x")
        assert clear(tmp_path) == 0 and (made / "x").exists()
    del directory
    gc.collect()
    clear(tmp_path)
    assert list((tmp_path / "catalog").iterdir()) == []


def test_who_comes_while_it_is_removed(tmp_path: Path) -> None:
    """Waits, and gets a new directory, with a lock that counts; never a half of the old one."""
    before = ReplicaDirectory(tmp_path, "server", "prefix", ["recordings"])
    path = before.path
    (path / "recordings" / "old").write_text("x")
    before._held.release()
    came: list[ReplicaDirectory] = []
    comes = threading.Thread(target=lambda: came.append(ReplicaDirectory(tmp_path, "server", "prefix", ["recordings"])))
    with module._alone(path / "place") as alone:
        assert alone
        comes.start()
        comes.join(0.3)
        assert not came
        path.rename(path.with_name(f"{module._REMOVED}x"))
    comes.join(60)
    (directory,) = came
    assert not directory.temporary and directory.path == path and not list((path / "recordings").iterdir())
    # What a killed process had renamed away goes; what is open stays.
    clear(tmp_path)
    assert list((tmp_path / "catalog").iterdir()) == [path]
    assert (path / "recordings").is_dir()


def test_files_that_vanish_while_they_are_counted(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratches of other commands, whole directories and files."""
    gc.collect()
    real_scan, real_stat = os.scandir, Path.lstat

    def scandir(path: str | Path | int = ".") -> object:
        if not isinstance(path, int) and "vanishes" in os.fspath(path):
            shutil.rmtree(path)
        return real_scan(path)

    def lstat(path: Path) -> os.stat_result:
        if path.name == "tidied":
            path.unlink(missing_ok=True)
        return real_stat(path)

    def some() -> None:
        (kept(here) / "recordings" / ".scratch-vanishes" / "_delta_log").mkdir(parents=True)
        (kept(here) / "recordings" / "tidied").write_bytes(b"")

    some()
    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(Path, "lstat", lstat)
    assert cache_use(here.cache).catalog_bytes > 0
    some()
    assert clear(here.cache) > 0
