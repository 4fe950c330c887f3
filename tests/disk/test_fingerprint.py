"""What identifies a file, on disks that can be relied on more and less."""

from __future__ import annotations

import os
import stat as modes
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ursa.disk.fingerprint import Disks, Fingerprint, fingerprint
from ursa.disk.mounts import Ctime, Mount, Rules, rules_of

SECOND = 10**9
WHOLE = 1_700_000_000 * SECOND
FINE = WHOLE + 123_456_789


def stat_with(ctime_ns: int, mtime_ns: int, *, device: int = 1) -> os.stat_result:
    """A stat of a file of 12 bytes with inode 99 and these times."""
    sequence = (modes.S_IFREG | 0o644, 99, device, 1, 0, 0, 12, 0, mtime_ns // SECOND, ctime_ns // SECOND)
    return os.stat_result(sequence, {"st_mtime_ns": mtime_ns, "st_ctime_ns": ctime_ns})


@pytest.mark.parametrize(
    ("kind", "ctime", "mtime", "volume", "expected"),
    [
        # its own ctime: wherever it is mounted, but with whole seconds on this volume alone
        ("ext4", FINE, FINE, None, Fingerprint(12, FINE, FINE, 99)),
        ("ext4", FINE, WHOLE, "uuid", Fingerprint(12, WHOLE, FINE, 99)),
        ("ext4", WHOLE, WHOLE, "uuid", Fingerprint(12, WHOLE, WHOLE, 99, "uuid")),
        ("ext4", WHOLE, FINE, None, None),
        ("tmpfs", FINE, FINE, None, Fingerprint(12, FINE, FINE, None)),
        # only where it is not the mtime
        ("nfs4", FINE, WHOLE, None, Fingerprint(12, WHOLE, FINE, 99)),
        ("nfs4", FINE, FINE, "nas:/x", Fingerprint(12, FINE, None, 99, "nas:/x")),
        ("nfs4", FINE, FINE, None, None),
        ("cifs", FINE, WHOLE, None, Fingerprint(12, WHOLE, FINE, None)),
        ("cifs", FINE, FINE, "//nas/x", Fingerprint(12, FINE, None, None, "//nas/x")),
        ("cifs", WHOLE, FINE, "//nas/x", Fingerprint(12, FINE, WHOLE, None, "//nas/x")),
        ("cifs", WHOLE, FINE, None, None),
        ("fuse.sshfs", FINE, FINE, "me@nas:/x", Fingerprint(12, FINE, None, None, "me@nas:/x")),
        ("unheard-of", FINE, FINE, None, None),
        ("", FINE, WHOLE, None, Fingerprint(12, WHOLE, FINE, None)),
        # never
        ("exfat", FINE, WHOLE, "1234-ABCD", Fingerprint(12, WHOLE, None, None, "1234-ABCD")),
        ("exfat", FINE, WHOLE, None, None),
        ("exfat", FINE, WHOLE, "", None),
        ("vfat", FINE, WHOLE, None, None),
        ("fuseblk", FINE, WHOLE, None, None),
    ],
)
def test_what_counts(kind: str, ctime: int, mtime: int, volume: str | None, expected: Fingerprint | None) -> None:
    assert fingerprint(stat_with(ctime, mtime), Mount(kind, volume), rules_of(kind)) == expected


BEFORE = Fingerprint(12, WHOLE, FINE, 99)


@pytest.mark.parametrize(
    ("before", "after", "alone"),
    [
        (BEFORE, replace(BEFORE, ctime_ns=FINE + 1), True),
        (BEFORE, replace(BEFORE, ctime_ns=FINE - 1), True),
        (BEFORE, replace(BEFORE, ctime_ns=FINE + 1, inode=None), True),
        (BEFORE, replace(BEFORE, ctime_ns=WHOLE, volume="uuid"), True),
        (replace(BEFORE, volume="uuid"), replace(BEFORE, ctime_ns=WHOLE, volume="uuid"), True),
        (replace(BEFORE, volume="uuid"), replace(BEFORE, ctime_ns=WHOLE, volume="other"), False),
        (BEFORE, BEFORE, False),
        (BEFORE, replace(BEFORE, ctime_ns=None), False),
        (replace(BEFORE, ctime_ns=None), replace(BEFORE, ctime_ns=None, volume="uuid"), False),
        (BEFORE, replace(BEFORE, ctime_ns=FINE + 1, inode=98), False),
        (BEFORE, replace(BEFORE, ctime_ns=FINE + 1, size_bytes=13), False),
        (BEFORE, replace(BEFORE, ctime_ns=FINE + 1, mtime_ns=WHOLE + 1), False),
    ],
)
def test_the_ctime_alone_moved(before: Fingerprint, after: Fingerprint, alone: bool) -> None:
    assert before.but_for_ctime(after) is alone
    assert after.but_for_ctime(before) is alone


# --- real files --------------------------------------------------------------------------------------------------------


class Looks:
    """A ``mount_of`` that gives a type to whatever file, and counts."""

    def __init__(self, kind: str, volume: str | None = None) -> None:
        self.mount = Mount(kind, volume)
        self.count = 0

    def __call__(self, descriptor: int) -> Mount:
        os.fstat(descriptor)
        self.count += 1
        return self.mount


def disks(mount_of: Callable[[int], Mount]) -> Disks:
    return Disks(mount_of, mounts_changed=lambda: False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"twelve bytes")
    return path


def test_a_files_own_disk(file: Path) -> None:
    seen = file.stat()
    with file.open("rb") as opened:
        by_descriptor = Disks().of_open(opened.fileno())
    assert by_descriptor == Disks().of_path(str(file), seen)
    assert by_descriptor is None or (by_descriptor.size_bytes, by_descriptor.mtime_ns) == (12, seen.st_mtime_ns)


def test_a_local_file_system_is_opened_once(tmp_path: Path, file: Path) -> None:
    looks = Looks("ext4")
    at = disks(looks)
    assert at.of_path(str(file), file.stat()) == at.of_path("never opened", file.stat())
    assert looks.count == 1


def test_on_the_network_the_open_files_times_count(file: Path) -> None:
    """Attributes of a NAS may be a minute old until the file is opened."""
    stale = stat_with(FINE, FINE, device=file.stat().st_dev)
    os.utime(file, ns=(FINE, WHOLE))
    at = disks(Looks("nfs4"))
    for _ in range(2):
        found = at.of_path(str(file), stale)
        assert found and (found.mtime_ns, found.inode) == (WHOLE, file.stat().st_ino)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        at.of_path(str(file), stale)


def test_what_takes_a_files_place_is_neither_followed_nor_waited_for(tmp_path: Path, file: Path) -> None:
    at = disks(Looks("cifs", "//nas/x"))
    seen = file.stat()
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="symbolic link"):
        at.of_path(str(tmp_path / "link"), seen)
    assert at.of_path(str(tmp_path / "fifo"), seen) is None
    assert at.of_path(str(tmp_path), seen) is None


def test_beneath_a_directory(tmp_path: Path, file: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        assert disks(Looks("xfs")).of_path(file.name, file.stat(), dir_fd=directory)
    finally:
        os.close(directory)


def test_threads_look_once(file: Path) -> None:
    looks = Looks("exfat", "1234-ABCD")
    at, start = disks(looks), threading.Barrier(8)

    def look() -> Fingerprint | None:
        start.wait()
        with file.open("rb") as opened:
            return at.of_open(opened.fileno())

    with ThreadPoolExecutor(8) as pool:
        found = {future.result() for future in [pool.submit(look) for _ in range(8)]}
    assert looks.count == 1
    assert found == {Fingerprint(12, file.stat().st_mtime_ns, None, None, "1234-ABCD")}


def test_what_is_not_known_is_asked_again(file: Path) -> None:
    looks = Looks("")
    at = disks(looks)
    with file.open("rb") as opened:
        assert at.rules_at(opened.fileno(), file.stat().st_dev) == Rules()
        looks.mount = Mount("ext4")
        assert at.rules_at(opened.fileno(), file.stat().st_dev) == Rules(Ctime.OWN, stable_inodes=True)


def test_the_next_disk_under_the_same_device_number(file: Path) -> None:
    """USB disks in one port have the same st_dev, one after the other."""
    looks, changes = Looks("exfat", "first"), [False, False, True]
    at = Disks(looks, mounts_changed=lambda: changes.pop(0) if changes else False)
    seen = file.stat()
    first = at.of_path(str(file), seen)
    looks.mount = Mount("exfat", "second")
    second = at.of_path(str(file), seen)
    assert first and second and (first.volume, second.volume) == ("first", "second")


def test_rules_are_a_parameter(file: Path) -> None:
    at = Disks(Looks("ours", "v"), {"ours": Rules(Ctime.NONE, stable_inodes=True)})
    assert at.of_path(str(file), file.stat()) == Fingerprint(12, file.stat().st_mtime_ns, None, file.stat().st_ino, "v")


def test_on_a_nas_a_ctime_that_is_the_mtime_is_not_believed(file: Path) -> None:
    at = disks(Looks("cifs"))
    wait_for_the_clock_of(file)
    os.utime(file, ns=(FINE, FINE))
    found = at.of_path(str(file), file.stat())
    assert found and found.ctime_ns == file.stat().st_ctime_ns


# --- no content under another's fingerprint -----------------------------------------------------------------------------


def wait_for_the_clock_of(file: Path) -> None:
    """Until the disk's clock, whose ticks are some milliseconds long, has moved on since the file's last change."""
    probe = file.with_name("probe")
    while True:
        probe.write_bytes(b"x")
        os.utime(probe)
        if probe.stat().st_ctime_ns > file.stat().st_ctime_ns:
            return


def _in_place(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def _another_file(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    other.rename(path)


def _through_a_mapping(path: Path, data: bytes) -> None:
    import mmap

    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        size = min(len(view), len(data))
        view[:size] = data[:size]
        view.flush()


WAYS = st.sampled_from([_in_place, _another_file, _through_a_mapping])


@pytest.fixture(scope="module", params=["", "/dev/shm"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on this machine's disk, and one in its memory."""
    if not request.param:
        yield tmp_path_factory.mktemp("place")
    elif not os.access(request.param, os.W_OK):
        pytest.skip("no /dev/shm")
    else:
        with TemporaryDirectory(dir=request.param) as directory:
            yield Path(directory)


@settings(deadline=None, max_examples=60)
@given(before=st.binary(min_size=1, max_size=64), after=st.binary(min_size=1, max_size=64), write=WAYS)
def test_changed_content_never_has_the_fingerprint_of_before(
    place: Path, before: bytes, after: bytes, write: Callable[[Path, bytes], None]
) -> None:
    """Whoever writes, and restores the times as rsync and cp do."""
    path = place / "video.mp4"
    path.write_bytes(before)
    at = Disks(Looks("ext4"))
    seen = path.stat()
    first = at.of_path(str(path), seen)
    wait_for_the_clock_of(path)
    write(path, after)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    second = at.of_path(str(path), path.stat())
    assert first is not None and second is not None and first != second
    same_size = first.size_bytes == second.size_bytes and first.inode == second.inode
    assert first.but_for_ctime(second) is same_size
