"""What a file system is, and whose times count there."""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
from pathlib import Path

import pytest

from ursa.disk import macos
from ursa.disk.mounts import Ctime, Mount, MountTable, Rules, linux_mount, mount_of, rules_of, source_volume

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc")
OWN = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "apfs", "ntfs3")
NFS = ("nfs", "nfs3", "nfs4")
NETWORK = ("cifs", "smb3", "smbfs", "afpfs", "webdav", "9p", "virtiofs", "fuse", "fuse.sshfs", "fuse.rclone")
NO_CTIME = ("vfat", "msdos", "exfat", "fuseblk")


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (OWN, Rules(Ctime.OWN, stable_inodes=True)),
        (("tmpfs",), Rules(Ctime.OWN)),
        (NFS, Rules(Ctime.IF_DIFFERS, stable_inodes=True, network=True)),
        (NETWORK, Rules(Ctime.IF_DIFFERS, network=True)),
        (NO_CTIME, Rules(Ctime.NONE)),
        (("hfs", "overlay", "f2fs", "fuse2fs", ""), Rules(Ctime.IF_DIFFERS)),
    ],
)
def test_rules(kinds: tuple[str, ...], expected: Rules) -> None:
    assert {kind: rules_of(kind) for kind in kinds} == dict.fromkeys(kinds, expected)


def test_a_fuse_type_of_its_own_has_the_rules_that_are_given_for_it() -> None:
    own = Rules(Ctime.NONE)
    assert rules_of("fuse.sshfs", {"fuse": Rules(network=True), "fuse.sshfs": own}) == own


@pytest.mark.parametrize(
    ("kind", "source", "names_a_volume"),
    [
        ("nfs4", "nas:/volume1/rigs", True),
        ("nfs", "[fe80::1]:/rigs", True),
        ("cifs", "//nas/rigs", True),
        ("smbfs", "//alice@nas/rigs", True),
        ("webdav", "https://nas.example.org/dav/", True),
        ("fuse.sshfs", "alice@nas:rigs", True),
        ("fuse.rclone", "remote:rigs", True),
        ("fuse.mergerfs", "disk1:disk2", False),
        ("fuse.mergerfs", "/mnt/a:/mnt/b", False),
        ("fuse", "sshfs", False),
        ("virtiofs", "share0", False),
        ("9p", "tag", False),
        ("cifs", "//nas", False),
        ("nfs4", "", False),
        ("ext4", "nas:/x", False),
        ("fuseblk", "/dev/sdb1", False),
    ],
)
def test_server_and_share(kind: str, source: str, names_a_volume: bool) -> None:
    assert source_volume(kind, source) == (source if names_a_volume else None)


def fake_proc(root: Path, line: bytes, *, mount_id: int = 36) -> str:
    """A /proc/self with file descriptor 7 on the mount of this line, among others."""
    (root / "fdinfo").mkdir(parents=True)
    (root / "fdinfo" / "7").write_text(f"pos:\t0\nflags:\t0100000\nmnt_id:\t{mount_id}\nino:\t12\n")
    other = b"3 27 0:22 / /sys rw - sysfs sysfs rw\n136 35 8:1 / /x rw - xfs /dev/other rw\n"
    (root / "mountinfo").write_bytes(other + line + b"\n" + b"361 1 0:1 / /y rw - zfs y rw\n")
    return str(root)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"36 35 0:40 / /mnt/nas rw,noatime shared:7 - nfs4 nas:/v\\0401 rw", Mount("nfs4", "nas:/v 1")),
        (b"36 35 0:40 / /m\\040-\\040x rw a:1 b:2 c - cifs //nas/a\\134b rw", Mount("cifs", "//nas/a\\b")),
        (b"36 35 0:40 /- /m rw - fuse.sshfs me@nas:/x rw", Mount("fuse.sshfs", "me@nas:/x")),
        (b"36 35 0:40 / /m rw - cifs //nas/\xe4 rw", Mount("cifs", "//nas/\\xe4")),
        (b"36 35 0:40 / /m rw - tmpfs  rw", Mount("tmpfs")),
        (b"36 35 0:40 / /m rw - tmpfs", Mount()),
        (b"36 35 0:40 / /m rw nothing behind", Mount()),
        (b"37 35 0:40 / /m rw - xfs /dev/sda1 rw", Mount()),
    ],
)
def test_a_line_of_mountinfo(tmp_path: Path, line: bytes, expected: Mount) -> None:
    assert linux_mount(7, fake_proc(tmp_path / "self", line), str(tmp_path / "none")) == expected


def test_the_uuid_is_that_of_the_link_which_leads_to_the_source(tmp_path: Path) -> None:
    devices, by_uuid = tmp_path / "dev", tmp_path / "by-uuid"
    devices.mkdir()
    by_uuid.mkdir()
    for name, uuid in (("sda1", "1111-AAAA"), ("dm-3", "2222-BBBB")):
        (devices / name).touch()
        (by_uuid / uuid).symlink_to(f"../dev/{name}")
    (by_uuid / "0000-dangling").symlink_to("../dev/gone")
    (devices / "mapper").symlink_to("dm-3")
    for kind, source, uuid in (
        ("exfat", devices / "sda1", "1111-AAAA"),
        ("ext4", devices / "mapper", "2222-BBBB"),
        ("vfat", devices / "sdc", None),
        ("zfs", "pool/data", None),
        ("virtiofs", devices / "sda1", None),  # a tag that is named like a device
    ):
        proc = fake_proc(tmp_path / f"{kind}", f"36 35 8:1 / /m rw - {kind} {source} rw".encode())
        assert linux_mount(7, proc, str(by_uuid)) == Mount(kind, uuid)


@linux
def test_this_machines_own_mounts(tmp_path: Path) -> None:
    for directory in (tmp_path, Path("/dev/shm"), Path("/proc")):
        asked = subprocess.run(
            ["stat", "--file-system", "--format=%T", str(directory)], capture_output=True, text=True, check=True
        ).stdout.strip()
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            kind = mount_of(descriptor).type
        finally:
            os.close(descriptor)
        assert kind and (kind in asked or asked.startswith(kind.rstrip("0123456789")))  # "ext2/ext3" is ext4's magic


def test_what_is_not_open_is_nowhere(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    os.close(descriptor)
    assert mount_of(descriptor) == Mount()


MOUNTS = """
import subprocess, sys
from ursa.disk.mounts import MountTable
table = MountTable(every_s=0.0)
told = [table.changed()]
subprocess.run(["mount", "-t", "tmpfs", "none", sys.argv[1]], check=True)
told += [table.changed(), table.changed()]
subprocess.run(["umount", sys.argv[1]], check=True)
told += [table.changed(), table.changed()]
print(told)
"""


@linux
def test_mounting_is_noticed(tmp_path: Path) -> None:
    command = ["unshare", "--mount", "--map-root-user", sys.executable, "-c", MOUNTS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if done.returncode and "Traceback" not in done.stderr.partition("CalledProcessError")[0]:
        pytest.skip(f"nothing can be mounted here: {done.stderr[-200:]}")
    assert done.stdout.strip() == "[False, True, False, True, False]", done.stderr


def test_without_a_table_of_mounts_nothing_is_told(tmp_path: Path) -> None:
    assert not MountTable(str(tmp_path / "none")).changed()


def test_statfs_of_macos() -> None:
    raw = bytearray(2168)  # sizeof(struct statfs) with 64-bit inodes
    raw[72:77] = b"exfat"
    raw[88 + 1024 : 88 + 1024 + 12] = b"/dev/disk4s1"
    told = macos.Statfs.from_buffer_copy(raw)
    assert (told.f_fstypename, told.f_mntfromname) == (b"exfat", b"/dev/disk4s1")


@pytest.mark.parametrize(
    ("told", "uuid"),
    [
        (plistlib.dumps({"VolumeUUID": "6A1F-22", "VolumeName": "RIG"}), "6A1F-22"),
        (plistlib.dumps({"VolumeName": "RIG"}), None),
        (plistlib.dumps({"VolumeUUID": 7}), None),
        (plistlib.dumps(["VolumeUUID"]), None),
        (b"<?xml version='1.0'?><plist><dict>", None),
        (b"Could not find disk", None),
        (b"", None),
    ],
)
def test_uuid_of_diskutil(told: bytes, uuid: str | None) -> None:
    assert macos.uuid_in(told) == uuid


@pytest.mark.parametrize("source", ["", "map auto_home", "//nas/x", "/dev/disk99s9"])
def test_no_uuid_where_diskutil_is_not_there_or_can_not_tell(source: str) -> None:
    assert macos.volume_uuid(source) is None
