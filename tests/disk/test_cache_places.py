"""Where the files cache is, and when it is in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cache_tools import PATH, PRINT, REC, SHA, Opened, file_of, opened, time

from ursa.disk import place
from ursa.disk.cache import FilesCache
from ursa.disk.mounts import Mount


def works_in_memory(cache: FilesCache) -> bool:
    cache.remember(REC, PATH, PRINT, SHA)
    return cache.temporary and cache.path is None and cache.entries(REC)[PATH][0].sha256 == SHA


def test_where_nothing_can_be_written_it_is_in_memory(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "file").touch()
    assert works_in_memory(opened(tmp_path / "file" / "cache"))
    assert works_in_memory(opened(tmp_path / "file"))
    assert works_in_memory(opened(Path("/proc/ursa")))
    assert works_in_memory(opened(tmp_path / "\0"))


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user who may write what anyone may, where the tests run as root, who may write everything."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_a_directory_and_a_file_that_may_only_be_read(opened: Opened) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o555)
        with without_rights():
            assert works_in_memory(opened(path))
        assert list(path.iterdir()) == []
        path.chmod(0o755)
        cache = opened(path)
        cache.remember(REC, PATH, PRINT, SHA)
        cache.close()
        for file in path.iterdir():
            file.chmod(0o444)
        path.chmod(0o555)
        with without_rights():
            assert works_in_memory(opened(path))
        path.chmod(0o755)
        assert opened(path).entries(REC)


def test_a_directory_where_the_file_should_be(tmp_path: Path, opened: Opened) -> None:
    path = file_of(opened())
    other = tmp_path / "other" / path.name
    other.mkdir(parents=True)
    assert works_in_memory(opened(other.parent))


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for a uid that passwd doesn't know
    with closing(FilesCache.open()) as cache:
        assert works_in_memory(cache)
    # What platformdirs gave before it raised.
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: Path("~/.cache", name))
    with closing(FilesCache.open()) as cache:
        assert works_in_memory(cache)


def test_the_users_cache_directory(home: Path) -> None:
    with closing(FilesCache.open(temp_dirs=())) as cache:
        assert file_of(cache).is_relative_to(home)
        assert file_of(cache).parent.stat().st_mode & 0o077 == 0


def test_what_is_temporary(tmp_path: Path) -> None:
    on = {kind: lambda descriptor, kind=kind: Mount(kind) for kind in ("ext4", "tmpfs", "nfs4", "")}
    assert not place.is_temporary(tmp_path, (), on["ext4"])
    assert not place.is_temporary(tmp_path, (), on["nfs4"])
    assert not place.is_temporary(tmp_path, (), on[""])
    assert place.is_temporary(tmp_path, (), on["tmpfs"])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "cache").mkdir(parents=True)
    for directory in ("real", "real/cache", "link/cache"):
        assert place.is_temporary(tmp_path / directory, (str(tmp_path / "link"),), on["ext4"])
    assert not place.is_temporary(tmp_path / "really", (str(tmp_path / "real"),), on["ext4"])


def test_what_is_below_the_temp_directory_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with closing(FilesCache.open(tmp_path / "cache")) as cache:
        assert cache.temporary and file_of(cache).exists()


def test_machines_that_share_a_home_have_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.file_name("a") != place.file_name("b")
    one = tmp_path / "machine-id"
    one.write_text(f"{'0a' * 16}\n")
    assert place.machine_id([str(tmp_path / "none"), str(one)]) == "0a" * 16
    one.write_text("uninitialized\n")
    monkeypatch.setattr("socket.gethostname", lambda: "green-mantis")
    assert place.machine_id([str(tmp_path / "none"), str(one)]) == "green-mantis"
    assert "0a" * 16 not in place.file_name("0a" * 16)
