"""A directory store on disks of other kinds, and beside programs that link: what its ETags rest on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ursa.disk.mounts import Ctime, Mount, Rules
from ursa.store import NotFoundError, local_records
from ursa.store.local import LocalStore

VFAT = Rules(Ctime.NONE)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the objects that were hashed."""
    keys: list[str] = []
    measured = local_records.Records._measured

    def told(self: local_records.Records, key: str, *others: Any) -> local_records.Record:
        keys.append(key)
        return measured(self, key, *others)

    monkeypatch.setattr(local_records.Records, "_measured", told)
    return keys


def on_a_disk(monkeypatch: pytest.MonkeyPatch, volume: str) -> None:
    """Stores that are opened from now on lie on a disk without change times."""
    monkeypatch.setattr(local_records, "mount_at", lambda _directory: Mount("exfat", volume))
    monkeypatch.setattr(local_records, "rules_of", lambda _kind: VFAT)


def test_without_change_times_a_record_counts_on_its_own_disk(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_disk(monkeypatch, "UUID-1")
    assert LocalStore(tmp_path, "raw").put("k", b"1", sha256=sha(b"1"), if_absent=True).etag == sha(b"1")
    hashed.clear()
    assert LocalStore(tmp_path, "raw").head("k").etag == sha(b"1")
    assert hashed == []
    # A copy on another disk, with all of its times (rsync -t, cp -a), may have been damaged on the way.
    on_a_disk(monkeypatch, "UUID-2")
    assert LocalStore(tmp_path, "raw").head("k").etag == sha(b"1")
    assert hashed == ["k"]


def test_a_disk_that_can_not_be_told_from_others(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_disk(monkeypatch, "")
    store = LocalStore(tmp_path, "raw")
    store.put("k", b"1", sha256=sha(b"1"), if_absent=True)
    hashed.clear()
    assert [store.head("k").etag for _ in range(2)] == [sha(b"1")] * 2
    assert hashed == ["k", "k"]


def test_times_of_whole_seconds_do_not_tell_of_a_write_in_the_same_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Coarse:
        """What fstat says of a file on a disk whose times are whole seconds."""

        def __init__(self, stat: os.stat_result) -> None:
            self._stat = stat
            self.st_mtime_ns = self.st_ctime_ns = 1_790_000_000 * 10**9

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stat, name)

    of_file, of_path = os.fstat, Path.lstat
    monkeypatch.setattr(os, "fstat", lambda descriptor: Coarse(of_file(descriptor)))
    monkeypatch.setattr(Path, "lstat", lambda path: Coarse(of_path(path)))
    monkeypatch.setattr(
        os.path, "samestat", lambda one, other: (one.st_ino, one.st_dev) == (other.st_ino, other.st_dev)
    )
    store = LocalStore(tmp_path, "raw")
    store.put("k", b"old", sha256=sha(b"old"), if_absent=True, metadata={"from": "rig"})
    assert store.head("k").metadata == {"from": "rig"}
    (tmp_path / "raw" / "k").write_bytes(b"new")
    assert store.head("k").etag == sha(b"new")


@pytest.mark.parametrize("how", [{"if_absent": True}, {}])
def test_a_link_is_no_object(tmp_path: Path, how: Mapping[str, bool]) -> None:
    """What a tool that links files of the same content (rdfind) leaves in an object's place: its bytes are elsewhere."""
    store = LocalStore(tmp_path, "raw")
    store.put("rec/k", b"1", sha256=sha(b"1"), if_absent=True)
    path = tmp_path / "raw" / "rec" / "k"
    (tmp_path / "nas").write_bytes(b"1")
    path.unlink()
    path.symlink_to(tmp_path / "nas")
    assert list(store.list("rec/")) == []
    for look in (store.head, store.read, lambda key: list(store.stream(key))):
        with pytest.raises(NotFoundError):
            look("rec/k")
    assert store.put("rec/k", b"2", sha256=sha(b"2"), **how).etag == sha(b"2")
    assert not path.is_symlink() and path.read_bytes() == b"2"
    assert (tmp_path / "nas").read_bytes() == b"1"


def test_a_disk_of_a_type_that_nobody_lists(tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_records, "mount_at", lambda _directory: Mount("overlay"))
    monkeypatch.setattr(local_records, "fingerprint", lambda *_: None)  # ctime and mtime are the same
    store = LocalStore(tmp_path, "raw")
    store.put("k", b"1", sha256=sha(b"1"), if_absent=True)
    assert LocalStore(tmp_path, "raw").head("k").etag == sha(b"1")
    assert hashed == []
