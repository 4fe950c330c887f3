"""A directory as a store: what only happens on disks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from ursa.errors import StorageError
from ursa.policies import Evidence
from ursa.store import (
    NoSuchUploadError,
    NotFoundError,
    Part,
    PreconditionFailedError,
    Store,
    TransientError,
    local_records,
)
from ursa.store.local import LocalStore
from ursa.store.local_records import Record, Records
from ursa.store.protocol import SHA256_KEY

NO_LINKS = [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK]

# Puts `new` under `k` and dies by SIGKILL where it first calls the function that argv[2] names.
DYING_WRITER = """
import hashlib, os, pathlib, signal, sys
import ursa.store.local as local

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

root, seam, if_absent = sys.argv[1], sys.argv[2], sys.argv[3] == "True"
store = local.LocalStore(pathlib.Path(root), "raw")
owner, name = {
    "fsync": (os, "fsync"), "link": (os, "link"), "replace": (pathlib.Path, "replace"),
    "metadata": (local, "sync_directory"),
}[seam]
setattr(owner, name, die)
sha256 = hashlib.sha256(b"new").hexdigest()
store.put("k", b"new", sha256=sha256, if_absent=if_absent, metadata={"sha256": sha256})
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, "raw")


def put(store: Store, key: str, body: bytes, *, if_absent: bool = False) -> str:
    sha256 = hashlib.sha256(body).hexdigest()
    return store.put(key, body, sha256=sha256, if_absent=if_absent, metadata={SHA256_KEY: sha256}).etag


def leftovers(root: Path) -> list[str]:
    """What lies in the store's own temporary directory."""
    return [path.name for path in (root / ".ursa" / "raw" / "tmp").glob("*")]


def no_links(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)


# --- disks without hard links


@pytest.mark.parametrize("code", NO_LINKS, ids=errno.errorcode.get)
def test_put_if_absent_without_links(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    no_links(monkeypatch, code)
    etag = put(store, "a/k", b"1", if_absent=True)
    with pytest.raises(PreconditionFailedError):
        put(store, "a/k", b"2", if_absent=True)
    assert store.read("a/k")[0] == b"1"
    assert store.head("a/k").etag == etag
    assert leftovers(tmp_path) == []


def test_complete_without_links(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    no_links(monkeypatch, errno.EPERM)
    for wins in (True, False):
        upload_id = store.create_upload("k")
        part = store.upload_part("k", upload_id, 1, b"1", md5=hashlib.md5(b"1").hexdigest())
        if wins:
            store.complete_upload("k", upload_id, [part], if_absent=True)
        else:
            with pytest.raises(PreconditionFailedError):
                store.complete_upload("k", upload_id, [part], if_absent=True)
    assert store.read("k")[0] == b"1"


def test_one_winner_without_links(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    no_links(monkeypatch, errno.EPERM)
    start = threading.Barrier(8)

    def race(number: int) -> bool:
        start.wait()
        try:
            put(store, "k", b"%d" % number, if_absent=True)
        except PreconditionFailedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(race, range(8)))
    assert wins.count(True) == 1
    assert store.read("k")[0] == b"%d" % wins.index(True)


def test_another_link_error_is_an_error(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    no_links(monkeypatch, errno.EIO)
    with pytest.raises(StorageError, match="can't write k: Input/output error"):
        put(store, "k", b"1", if_absent=True)
    assert list(store.list("")) == []


# --- metadata beside the object


def test_metadata_of_replaced_bytes_is_ignored(store: LocalStore, tmp_path: Path) -> None:
    put(store, "k", b"old")
    assert store.head("k").sha256 is not None
    # Somebody copies another file over it, as people do.
    (tmp_path / "other").write_bytes(b"new")
    (tmp_path / "other").replace(tmp_path / "raw" / "k")
    assert store.head("k").sha256 is None
    assert store.read("k")[1].sha256 is None


def test_metadata_of_bytes_changed_in_place_is_ignored(store: LocalStore, tmp_path: Path) -> None:
    etag = put(store, "k", b"old")
    path = tmp_path / "raw" / "k"
    path.write_bytes(b"new")
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert store.head("k").sha256 is None
    assert store.head("k").etag != etag


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\x00"])
def test_broken_metadata_is_none(store: LocalStore, tmp_path: Path, text: bytes) -> None:
    put(store, "a/k", b"1")
    (tmp_path / ".ursa" / "raw" / "metadata" / "a" / "k").write_bytes(text)
    assert store.head("a/k").metadata == {}


def test_metadata_goes_with_the_object(store: LocalStore, tmp_path: Path) -> None:
    put(store, "a/k", b"1")
    store.delete("a/k")
    (tmp_path / "raw" / "a" / "k").write_bytes(b"1")
    assert store.head("a/k").metadata == {}


def test_a_put_without_metadata_has_none_of_the_one_before(store: LocalStore) -> None:
    put(store, "k", b"1")
    store.put("k", b"2", sha256=hashlib.sha256(b"2").hexdigest())
    assert store.head("k").metadata == {}


# --- ETags


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def etags(store: LocalStore, key: str) -> set[str]:
    """All that tells an ETag; reading under it works, and under another one does not."""
    (listed,) = store.list(key)
    (paged,) = store.list_page(key).objects
    told = {listed.etag, paged.etag, store.head(key).etag, store.read(key)[1].etag}
    for etag in told:
        assert b"".join(store.stream(key, if_match=etag)) == store.read(key)[0]
    with pytest.raises(PreconditionFailedError):
        b"".join(store.stream(key, if_match="0" * 64))
    return told


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are hashed because no record counts for them, by name."""
    found: list[str] = []
    measured = Records._measured

    def noted(self: Records, key: str, *args: Any) -> Record:
        found.append(key)
        return measured(self, key, *args)

    monkeypatch.setattr(Records, "_measured", noted)
    return found


@pytest.mark.parametrize("if_absent", [True, False])
@pytest.mark.parametrize("metadata", [None, {"rig": "green"}])
def test_the_etag_is_the_sha256(
    store: LocalStore, hashed: list[str], if_absent: bool, metadata: dict[str, str] | None
) -> None:
    written = store.put("a/k", b"1", sha256=sha(b"1"), if_absent=if_absent, metadata=metadata)
    assert (written.etag, written.evidence) == (sha(b"1"), Evidence.SHA256)
    assert etags(store, "a/k") == {sha(b"1")}
    store.put("a/k", b"2", sha256=sha(b"2"), if_match=sha(b"1"))
    assert etags(store, "a/k") == {sha(b"2")}
    assert store.head("a/k").checked_sha256 == sha(b"2")
    assert hashed == []


def test_the_etag_of_parts_is_the_sha256_of_the_whole(store: LocalStore, hashed: list[str]) -> None:
    for if_absent in (True, False):
        upload_id = store.create_upload("k", metadata={SHA256_KEY: "ab" * 32})
        bodies = [bytes([7]) * (3 << 20), b"tail"]
        parts = [
            store.upload_part("k", upload_id, number, body, md5=hashlib.md5(body).hexdigest())
            for number, body in enumerate(bodies, 1)
        ]
        assert store.complete_upload("k", upload_id, parts, if_absent=if_absent) == sha(b"".join(bodies))
        assert etags(store, "k") == {sha(b"".join(bodies))}
        # What the uploader stated stays a claim.
        assert store.head("k").sha256 == "ab" * 32
    assert hashed == []


def test_the_etag_is_the_same_in_a_copy(store: LocalStore, tmp_path: Path, hashed: list[str]) -> None:
    put(store, "a/k", b"1")
    for name, records in (("with", True), ("without", False)):
        copy = tmp_path / name
        subprocess.run(["cp", "-a", str(tmp_path / "raw"), str(copy)], check=True)
        root = tmp_path / f"root {name}"
        root.mkdir()
        copy.rename(root / "raw")
        if records:
            subprocess.run(["cp", "-a", str(tmp_path / ".ursa"), str(root / ".ursa")], check=True)
        copied = LocalStore(root, "raw")
        assert etags(copied, "a/k") == {sha(b"1")}
        assert hashed != []
        # The metadata belongs to bytes with this sha256.
        assert copied.head("a/k").metadata == ({SHA256_KEY: sha(b"1")} if records else {})
        hashed.clear()


def test_what_another_program_did_is_hashed(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "raw" / "k"
    put(store, "k", b"old")
    times = path.stat()
    for number, body in enumerate((b"new", b"won", b"longer")):
        if number == 0:
            path.write_bytes(body)  # in place
        else:
            (tmp_path / "other").write_bytes(body)
            (tmp_path / "other").replace(path)
        # As rsync -t and cp -p do: only the ctime tells.
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert etags(store, "k") == {sha(body)}
        assert store.head("k").metadata == {}
        with pytest.raises(PreconditionFailedError):
            store.put("k", b"mine", sha256=sha(b"mine"), if_match=sha(b"old"))


def test_a_conditional_put_over_what_another_program_wrote(store: LocalStore, tmp_path: Path) -> None:
    put(store, "k", b"old")
    (tmp_path / "raw" / "k").write_bytes(b"new")
    assert store.put("k", b"mine", sha256=sha(b"mine"), if_match=sha(b"new")).etag == sha(b"mine")
    assert etags(store, "k") == {sha(b"mine")}


def test_a_record_is_kept_once_the_times_are_old(
    store: LocalStore, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "k").write_bytes(b"1")
    # Within the granularity of its times: another write could leave them as they are.
    for _ in range(2):
        assert store.head("k").etag == sha(b"1")
    assert hashed == ["k", "k"]
    monkeypatch.setattr(local_records, "_SETTLED_NS", -1)
    for _ in range(3):
        assert store.head("k").etag == sha(b"1")
    assert hashed == ["k"] * 3
    assert etags(LocalStore(tmp_path, "raw"), "k") == {sha(b"1")}
    # A backup of hard links, chown, an indexer: only the ctime moves.
    os.link(tmp_path / "raw" / "k", tmp_path / "backup")
    assert etags(store, "k") == {sha(b"1")}
    assert hashed == ["k"] * 4


def test_a_file_that_changes_while_it_is_hashed(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_records, "_SETTLED_NS", -1)
    path = tmp_path / "raw" / "k"
    put(store, "k", b"0")
    path.write_bytes(b"old")
    digest, writes = hashlib.file_digest, iter([b"newer"])

    def disturbed(file: Any, name: str) -> Any:
        found = digest(file, name)
        for body in writes:
            path.write_bytes(body)
        return found

    monkeypatch.setattr(hashlib, "file_digest", disturbed)
    assert store.head("k").etag == sha(b"newer")
    writes = iter([b"%d" % number * number for number in range(1, 9)])
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, name: (digest(file, name), path.write_bytes(next(writes)))[0]
    )
    path.write_bytes(b"new")
    with pytest.raises(TransientError, match="k is being written by another program"):
        store.head("k")
    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert store.head("k").etag == sha(path.read_bytes())


def test_where_nothing_can_be_kept_it_is_hashed_each_time(
    store: LocalStore, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_records, "_SETTLED_NS", -1)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "k").write_bytes(b"1")
    (tmp_path / ".ursa").write_text("in the way")
    for _ in range(2):
        assert store.head("k").etag == sha(b"1")
    assert hashed == ["k", "k"]


RECORDS = [b"", b"{", b"[]", b"\xff\x00", b'{"etag": "e", "metadata": {}}']
RECORDS += [
    orjson.dumps({"sha256": "00" * 32, "size": 1, "mtime_ns": 0, "ctime_ns": 0, "metadata": {}} | change)
    for change in ({}, {"sha256": "x"}, {"size": "1"}, {"metadata": None}, {"metadata": {"a": 1}}, {"more": 1})
]


@pytest.mark.parametrize("text", RECORDS)
def test_a_record_that_does_not_count(store: LocalStore, tmp_path: Path, text: bytes) -> None:
    put(store, "k", b"1")
    (tmp_path / ".ursa" / "raw" / "metadata" / "k").write_bytes(text)
    assert etags(store, "k") == {sha(b"1")}


@pytest.mark.parametrize("change", [{"sha256": "x"}, {"size": True}, {"metadata": []}, {"metadata": {"a": 1}}])
def test_a_damaged_record_with_the_right_times(store: LocalStore, tmp_path: Path, change: dict[str, Any]) -> None:
    put(store, "k", b"1")
    path = tmp_path / ".ursa" / "raw" / "metadata" / "k"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | change))
    assert etags(store, "k") == {sha(b"1")}


def test_a_directory_that_was_an_object(store: LocalStore, tmp_path: Path, hashed: list[str]) -> None:
    put(store, "a", b"1")
    (tmp_path / "raw" / "a").unlink()
    put(store, "a/b/c", b"2")
    assert etags(store, "a/b/c") == {sha(b"2")}
    assert hashed == []


def test_writers_side_by_side_never_leave_another_s_record(store: LocalStore, hashed: list[str]) -> None:
    start = threading.Barrier(4)

    def write(number: int) -> None:
        start.wait()
        for turn in range(25):
            body = b"%d %02d" % (number, turn)
            try:
                put(store, "k", body, if_absent=turn % 5 == 0)
            except PreconditionFailedError:
                store.delete("k") if turn % 10 == 0 else None
            with contextlib.suppress(NotFoundError):
                data, info = store.read("k")
                assert info.etag == sha(data)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    put(store, "k", b"last")
    assert etags(store, "k") == {sha(b"last")}


def test_a_hundred_objects_are_listed_by_their_records(store: LocalStore, hashed: list[str]) -> None:
    for number in range(100):
        put(store, f"r/{number:03d}", b"%d" % number)
    assert [info.etag for info in store.list("r/")] == [sha(b"%d" % number) for number in range(100)]
    assert hashed == []


# --- writers that die


def dying_put(root: Path, seam: str, *, if_absent: bool) -> None:
    process = subprocess.run(
        [sys.executable, "-c", DYING_WRITER, str(root), seam, str(if_absent)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr


@pytest.mark.parametrize("seam", ["fsync", "link"])
def test_a_killed_writer_leaves_nothing_under_the_name(store: LocalStore, tmp_path: Path, seam: str) -> None:
    dying_put(tmp_path, seam, if_absent=True)
    assert list(store.list("")) == []
    with pytest.raises(NotFoundError):
        store.head("k")
    put(store, "k", b"next", if_absent=True)
    assert store.read("k")[0] == b"next"


@pytest.mark.parametrize("seam", ["fsync", "replace"])
def test_a_killed_writer_leaves_what_was_there(store: LocalStore, tmp_path: Path, seam: str) -> None:
    put(store, "k", b"old")
    dying_put(tmp_path, seam, if_absent=False)
    data, info = store.read("k")
    assert data == b"old"
    assert info.sha256 == hashlib.sha256(b"old").hexdigest()
    # A lock that the dead writer held is free again.
    put(store, "k", b"next")


@pytest.mark.parametrize("if_absent", [True, False])
def test_killed_before_the_metadata_there_is_none(store: LocalStore, tmp_path: Path, if_absent: bool) -> None:
    if not if_absent:
        put(store, "k", b"old")
    dying_put(tmp_path, "metadata", if_absent=if_absent)
    data, info = store.read("k")
    assert data == b"new"
    assert info.metadata == {}
    assert etags(store, "k") == {sha(b"new")}


# --- disks that fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_full_disk(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    upload_id = store.create_upload("k")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as single:
        put(store, "a/k", b"1", if_absent=True)
    with pytest.raises(StorageError) as part:
        store.upload_part("k", upload_id, 1, b"1", md5=hashlib.md5(b"1").hexdigest())
    assert str(single.value) == f"can't write a/k: {os.strerror(code)}"
    for caught in (single, part):
        assert f"k: {os.strerror(code)}" in str(caught.value)
        assert "Free some space" in (caught.value.hint or "")
        assert not isinstance(caught.value, NotFoundError)
    assert list(store.list("")) == []
    assert list(store.list_parts("k", upload_id)) == []
    assert leftovers(tmp_path) == []


def test_a_disk_that_gives_back_other_bytes(store: LocalStore, tmp_path: Path) -> None:
    # The stated sha256 stands for what was sent; the file differs from it just as a bad disk's would.
    with pytest.raises(StorageError, match="k: the disk gave back other bytes"):
        store.put("k", b"read back", sha256=hashlib.sha256(b"sent").hexdigest())
    assert list(store.list("")) == []
    assert leftovers(tmp_path) == []


def test_a_directory_that_may_not_be_written(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match="can't write a/k: Permission denied"):
        put(store, "a/k", b"1")


# --- keys and directories


@pytest.mark.parametrize("key", ["", "/etc/x", "../x", "a/../../x", "a//b", "./a", "a/.", "a/"])
def test_keys_that_would_lead_elsewhere(store: LocalStore, tmp_path: Path, key: str) -> None:
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for action in (
        lambda: put(store, key, b"1"),
        lambda: store.head(key),
        lambda: store.read(key),
        lambda: store.delete(key),
        lambda: list(store.stream(key)),
    ):
        with pytest.raises(StorageError):
            action()
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_buckets_are_apart(tmp_path: Path) -> None:
    raw, assets = LocalStore(tmp_path, "raw"), LocalStore(tmp_path, "assets")
    put(raw, "k", b"1")
    raw.create_upload("k")
    assert list(assets.list("")) == []
    assert list(assets.list_uploads("")) == []
    with pytest.raises(NotFoundError):
        assets.head("k")


def test_what_others_put_there_is_an_object(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "raw" / "rec").mkdir(parents=True)
    (tmp_path / "raw" / "rec" / "x.bin").write_bytes(b"copied")
    (info,) = store.list("rec/")
    assert (info.key, info.size_bytes) == ("rec/x.bin", 6)
    assert store.head("rec/x.bin").etag == info.etag
    with pytest.raises(PreconditionFailedError):
        put(store, "rec/x.bin", b"mine", if_absent=True)


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "absent", "raw")
    assert list(store.list("")) == []
    assert list(store.list_prefixes("recordings/")) == []
    assert list(store.list_uploads("")) == []
    assert not (tmp_path / "absent").exists()


def test_a_page_opens_only_what_it_lists(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        put(store, f"rec_{number:02d}/x", b"1")
    opened: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(Path(path).name) or scandir(path))
    assert [info.key for info in store.list_page("rec_", start_after="rec_27/x").objects] == ["rec_28/x", "rec_29/x"]
    assert opened == ["raw", "rec_27", "rec_28", "rec_29"]


def test_a_clock_that_can_not_be_asked(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LocalStore(tmp_path / "absent", "raw").list_page("").now is None
    put(store, "k", b"1")

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        page = store.list_page("")
    assert page.now is None and [info.key for info in page.objects] == ["k"]
    assert leftovers(tmp_path) == []


def test_what_is_no_file_is_no_object(store: LocalStore, tmp_path: Path) -> None:
    put(store, "k", b"1")
    os.mkfifo(tmp_path / "raw" / "fifo")
    (tmp_path / "raw" / "link").symlink_to(tmp_path)
    assert [info.key for info in store.list("")] == ["k"]


# --- what other processes do meanwhile, and leave behind


def test_an_upload_that_is_completed_between_look_and_use(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = LocalStore(store._data.parent, "raw")
    look = LocalStore._upload

    def overtaken(self: LocalStore, key: str, upload_id: str) -> Path:
        directory = look(self, key, upload_id)
        if self is store:
            peer.complete_upload(key, upload_id, [part], if_absent=True)
        return directory

    def begin(key: str) -> tuple[str, Part]:
        with monkeypatch.context() as plain:
            plain.setattr(LocalStore, "_upload", look)
            upload_id = store.create_upload(key)
            return upload_id, store.upload_part(key, upload_id, 1, b"1", md5=hashlib.md5(b"1").hexdigest())

    monkeypatch.setattr(LocalStore, "_upload", overtaken)
    upload_id, part = begin("a")
    with pytest.raises(NoSuchUploadError, match="a: the multipart upload"):
        store.upload_part("a", upload_id, 1, b"2", md5=hashlib.md5(b"2").hexdigest())
    upload_id, part = begin("b")
    with pytest.raises(NoSuchUploadError, match="b: the multipart upload"):
        store.complete_upload("b", upload_id, [part])
    assert [store.read(key)[0] for key in ("a", "b")] == [b"1", b"1"]
    assert leftovers(store._data.parent) == []


def test_parts_that_vanish_while_they_are_listed(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_id = store.create_upload("k")
    store.upload_part("k", upload_id, 1, b"1", md5=hashlib.md5(b"1").hexdigest())
    glob = Path.glob

    def vanishing(self: Path, pattern: str) -> Iterator[Path]:
        found = list(glob(self, pattern))
        store.abort_upload("k", upload_id)
        return iter(found)

    monkeypatch.setattr(Path, "glob", vanishing)
    with pytest.raises(NoSuchUploadError, match="k: the multipart upload"):
        store.list_parts("k", upload_id)


def test_temporary_files_of_the_dead_are_removed(store: LocalStore, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    directory = tmp_path / ".ursa" / "raw" / "tmp"
    directory.mkdir(parents=True)
    names = {
        "dead": f"{dead.pid}-old",
        "dead a moment ago": f"{dead.pid}-new",
        "living": f"{os.getpid()}-old",
        "the group": "0-old",
        "no process": "notes.txt",
    }
    for what, name in names.items():
        (directory / name).write_bytes(b"half")
        if what != "dead a moment ago":
            os.utime(directory / name, (time.time() - 25 * 3600,) * 2)
    put(store, "k", b"1")
    assert sorted(leftovers(tmp_path)) == sorted(name for what, name in names.items() if what != "dead")
    assert store.read("k")[0] == b"1"
