"""A file is read as it was found: what took its place is refused, and what changed in secret."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tap import MIB, Tap, describe, item, make_file, noise, send, sha256

from ursa.disk.fingerprint import Disks
from ursa.disk.mounts import Mount
from ursa.disk.sighting import Sighting
from ursa.errors import FileChangedError
from ursa.store.local import LocalStore
from ursa.transfer import digest as digests
from ursa.transfer.digest import SourceFile, digest, read_file
from ursa.transfer.parts import SINGLE_PUT_BYTES

Kind = Callable[[str], None]


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> Kind:
    """``kind("cifs")``: from now on the disk is one of this type, whatever it is."""

    def use(name: str) -> None:
        monkeypatch.setattr(digests, "DISKS", Disks(lambda _descriptor: Mount(name, "a volume")))

    use("ext4")
    return use


@pytest.fixture
def rec_dir(tmp_path: Path) -> Path:
    return tmp_path / "rec"


def seen(rec_dir: Path, beneath: str = "eeg_a/a.edf", data: bytes | None = None) -> SourceFile:
    """A file of a recording, as the scan finds it."""
    path = rec_dir / beneath
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is not None:
        path.write_bytes(data)
    found, stat = describe(path), path.stat()
    sighting = Sighting(rec_dir, beneath, stat.st_dev, stat.st_ino, stat.st_ctime_ns)
    return SourceFile(beneath, path, found.size_bytes, found.mtime_ns, sighting)


def keep_times(path: Path, change: Callable[[], object]) -> None:
    """Change a file, and put its modification time back; its ctime tells."""
    before = path.stat()
    while True:
        change()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if path.stat().st_ctime_ns != before.st_ctime_ns:  # the kernel's clock ticks every few milliseconds
            return


def overwrite(path: Path, data: bytes, at: int = 0) -> None:
    """Other bytes in the file that is there."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_a_file_at_rest_is_remembered(rec_dir: Path, kind: Kind) -> None:
    file = seen(rec_dir, data=b"1234")
    stat = file.source.stat()
    for found in (digest(file), read_file(file)[1]):
        assert found.sha256 == sha256(b"1234") and found.fingerprint is not None
        assert found.fingerprint.ctime_ns == stat.st_ctime_ns and found.fingerprint.inode == stat.st_ino


# --- what took its place


def linked(path: Path) -> None:
    """The same file, moved away, behind a link."""
    moved = path.parent.parent.parent / "elsewhere"
    path.rename(moved)
    path.symlink_to(moved)


def linked_above(path: Path) -> None:
    """The same directory, moved away, behind a link."""
    moved = path.parent.parent.parent / "elsewhere"
    path.parent.rename(moved)
    path.parent.symlink_to(moved)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("swap", [linked, linked_above, fifo], ids=["link", "link-above", "fifo"])
def test_what_is_no_file_of_the_recording_any_more(rec_dir: Path, kind: Kind, swap: Callable[[Path], None]) -> None:
    file = seen(rec_dir, data=b"1234")
    swap(file.source)
    for read in (digest, read_file):
        with pytest.raises(FileChangedError, match=r"eeg_a/a\.edf is not the file any more that was found there"):
            read(file)
    store = LocalStore(rec_dir.parent / "store", "raw")
    with pytest.raises(FileChangedError):
        send(store, [item(file)])
    assert list(store.list("")) == []


def replaced(path: Path) -> None:
    """By another file with the size and the modification time of the first, and other bytes."""
    before, other = path.stat(), path.with_name("other")
    other.write_bytes(b"x" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("name", ["ext4", "xfs", "ntfs3", "nfs4"])
def test_another_inode_is_another_file_where_inodes_stay(rec_dir: Path, kind: Kind, name: str) -> None:
    kind(name)
    file = seen(rec_dir, data=b"1234")
    replaced(file.source)
    for read in (digest, read_file):
        with pytest.raises(FileChangedError, match="is still being written: another file took its place"):
            read(file)


@pytest.mark.parametrize("name", ["cifs", "exfat", "fuse.glusterfs", "a-type-of-tomorrow", ""])
def test_another_inode_says_nothing_where_they_do_not_stay(rec_dir: Path, kind: Kind, name: str) -> None:
    """Such a disk gives the same file another one at any time. What is told is what was read."""
    kind(name)
    file = seen(rec_dir, data=b"1234")
    replaced(file.source)
    assert digest(file).sha256 == read_file(file)[1].sha256 == sha256(b"xxxx")


# --- a change time that moved


@pytest.mark.parametrize(
    "touch",
    [lambda path: path.chmod(0o600), lambda path: os.link(path, path.with_name("b.edf"))],
    ids=["chmod", "hard-link"],
)
@pytest.mark.parametrize("size", [0, 4, MIB + 1])
def test_a_ctime_that_moved_alone(rec_dir: Path, kind: Kind, touch: Callable[[Path], object], size: int) -> None:
    """It refuses nothing (``cp -al``, chown, an indexer); but the file is not remembered."""
    file = seen(rec_dir, data=noise(size))
    was = file.source.stat().st_ctime_ns
    touch(file.source)
    while file.source.stat().st_ctime_ns == was:
        file.source.chmod(0o644)
    for found in (digest(file), read_file(file)[1]):
        assert found.sha256 == sha256(noise(size)) and found.fingerprint is None


@pytest.mark.parametrize("name", ["ext4", "cifs", "exfat"])
def test_bytes_that_changed_in_secret_are_refused(rec_dir: Path, kind: Kind, name: str) -> None:
    """Behind the reader's back, with the modification time put back: only the second reading tells."""
    kind(name)
    file = seen(rec_dir, data=noise(3 * MIB))
    blocks: list[int] = []

    def change(count: int) -> None:
        blocks.append(count)
        if len(blocks) == 2:
            keep_times(file.source, lambda: overwrite(file.source, b"other"))

    with pytest.raises(
        FileChangedError, match="is still being written: it gave other bytes when it was read once more"
    ):
        digest(file, progress=change)
    # Whoever finds it like that again gets what is there.
    again = digest(seen(rec_dir))
    assert again.sha256 == sha256(b"other" + noise(3 * MIB)[5:]) and len(blocks) == 3


@pytest.mark.parametrize("size", [1000, SINGLE_PUT_BYTES + 1], ids=["small", "large"])
def test_an_upload_of_bytes_that_changed_in_secret_makes_no_object(rec_dir: Path, kind: Kind, size: int) -> None:
    """A large file is hashed once more before its Complete; a small one that was read earlier before its PUT."""
    file = seen(rec_dir, data=noise(size))
    content, found = read_file(file) if size == 1000 else (None, None)
    changed: list[int] = []

    def change(*_args: object, **_options: object) -> None:
        if not changed:
            changed.append(1)
            keep_times(file.source, lambda: overwrite(file.source, b"other"))

    store = LocalStore(rec_dir.parent / "store", "raw")
    if content is not None:
        change()
    with pytest.raises(FileChangedError, match="it gave other bytes when it was read once more"):
        send(Tap(store, before={"upload_part": change}), [item(file, data=content, digest=found)])
    assert changed and list(store.list("")) == []


@pytest.mark.parametrize("size", [1000, SINGLE_PUT_BYTES + 1], ids=["small", "large"])
def test_an_upload_of_a_file_whose_ctime_moved_alone(rec_dir: Path, kind: Kind, size: int) -> None:
    file = seen(rec_dir, data=noise(size))
    keep_times(file.source, lambda: None)
    (sent,) = send(LocalStore(rec_dir.parent / "store", "raw"), [item(file)])
    assert sent.sha256 == sha256(noise(size)) and sent.digest.fingerprint is None


def test_a_file_outside_a_recording_has_no_sighting(tmp_path: Path, kind: Kind) -> None:
    found = digest(make_file(tmp_path / "f", b"1234"))
    assert found.sha256 == sha256(b"1234") and found.fingerprint is None
