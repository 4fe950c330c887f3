"""Downloads: verified, resumed, and never over anything."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tap import MIB, Tap, noise, s3_store, sha256

from conftest import Buckets
from proxy import FaultProxy
from servers import S3Server
from ursa.errors import ChecksumMismatchError, ConflictError, MissingFilesError, StorageError
from ursa.store import Store
from ursa.store.local import LocalStore
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.transfer.download import DownloadItem, Fetched, download, file_sha256
from ursa.transfer.engine import Engine, Stop

RANGE = 16 * MIB
BIG = noise(2 * RANGE + 1000, seed=2)  # three ranges

KILLED_DOWNLOAD = """
import os, signal, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from tap import MIB
from ursa.store.local import LocalStore
from ursa.transfer.download import DownloadItem, download
from ursa.transfer.engine import Engine, Stop

class Slow(LocalStore):
    def stream(self, key, *, start=0, **options):
        blocks = super().stream(key, start=start, **options)
        if start == 32 * MIB:
            journal = next(Path(sys.argv[4]).parent.glob("*.done"))
            while len(journal.read_bytes()) < 2 or journal.read_bytes()[:2] != b"\\x01\\x01":
                pass
            yield next(blocks)
            os.kill(os.getpid(), signal.SIGKILL)
        yield from blocks

item = DownloadItem("k", Path(sys.argv[4]), int(sys.argv[5]), sys.argv[6], None)
with Engine(transfers=2) as engine:
    download(engine, Slow(Path(sys.argv[3]), "raw"), [item], stop=Stop(), on_done=print, on_bytes=lambda count: None)
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", "raw")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "dest"


def wanted(store: Store, dest: Path, key: str, data: bytes, *, etag: bool = True, known: bool = True) -> DownloadItem:
    """Put an object and describe it as the catalog would."""
    written = store.put(key, data, sha256=sha256(data))
    return DownloadItem(key, dest / key, len(data), sha256(data) if known else None, written.etag if etag else None)


def fetch(
    store: Store,
    items: Sequence[DownloadItem],
    *,
    stop: Stop | None = None,
    on_done: Callable[[Fetched], object] = lambda _fetched: None,
    on_bytes: Callable[[int], object] = lambda _count: None,
) -> list[Fetched]:
    with Engine(transfers=4) as engine:
        return download(engine, store, items, stop=stop or Stop(), on_done=on_done, on_bytes=on_bytes)


def files_below(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def streamed(tap: Tap) -> list[tuple[int, int]]:
    """The ranges that were asked for."""
    return sorted((options["start"], options["end"]) for name, _, options in tap.calls if name == "stream")


# --- whole files


@pytest.mark.parametrize("size", [0, 1, RANGE, RANGE + 1, len(BIG)], ids=["empty", "one", "range", "range+1", "big"])
def test_every_size(store: Store, dest: Path, size: int) -> None:
    counts: list[int] = []
    one = wanted(store, dest, "a/b/f.bin", BIG[:size])
    (fetched,) = fetch(store, [one], on_bytes=counts.append)
    assert fetched == Fetched(one, sent=True)
    assert one.target.read_bytes() == BIG[:size]
    assert sum(counts) == size
    assert files_below(dest) == ["a/b/f.bin"]


def test_a_large_object_comes_in_ranges(store: Store, dest: Path) -> None:
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


def test_many_in_order(store: Store, dest: Path) -> None:
    items = [wanted(store, dest, f"d/{number}", noise(number, number)) for number in range(40)]
    threads, done = set(), list[Fetched]()

    def note(fetched: Fetched) -> None:
        threads.add(threading.current_thread())
        done.append(fetched)

    assert [fetched.item for fetched in fetch(store, items, on_done=note)] == items
    assert threads == {threading.current_thread()}
    assert {fetched.item.key for fetched in done} == {one.key for one in items}


def test_an_object_that_nobody_knows_the_sha256_of(store: Store, dest: Path) -> None:
    one = wanted(store, dest, "k", b"1234", known=False, etag=False)
    assert fetch(store, [one])[0].sent
    assert one.target.read_bytes() == b"1234"


def test_nothing_to_do(store: Store) -> None:
    assert fetch(store, []) == []


def test_a_name_of_255_bytes(store: Store, dest: Path) -> None:
    one = wanted(store, dest, "n" * 255, b"1234")
    fetch(store, [one])
    assert one.target.read_bytes() == b"1234"


# --- what is there already


def test_an_equal_file_is_skipped(store: Store, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    fetch(store, [one])
    stat = one.target.stat()
    tap, counts = Tap(store), list[int]()
    (fetched,) = fetch(tap, [one], on_bytes=counts.append)
    assert not fetched.sent
    assert tap.calls == []
    assert one.target.stat() == stat or one.target.stat().st_mtime_ns == stat.st_mtime_ns


@pytest.mark.parametrize("there", [b"1235", b"123", b""], ids=["other", "shorter", "empty"])
def test_another_file_is_refused_and_left_alone(store: Store, dest: Path, there: bytes) -> None:
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
def test_what_is_no_file_is_refused(store: Store, dest: Path, tmp_path: Path, kind: str) -> None:
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


def test_a_file_that_appears_meanwhile_is_left_alone(store: Store, dest: Path) -> None:
    one = wanted(store, dest, "k", b"1234")
    tap = Tap(store, before={"stream": lambda *_args, **_options: one.target.write_bytes(b"mine")})
    with pytest.raises(ConflictError, match="appeared meanwhile"):
        fetch(tap, [one])
    assert one.target.read_bytes() == b"mine"


@pytest.mark.parametrize("appears", [False, True])
def test_a_disk_without_links(store: Store, dest: Path, monkeypatch: pytest.MonkeyPatch, appears: bool) -> None:
    one = wanted(store, dest, "k", b"1234", etag=False)

    def refuse(*_args: object, **_options: object) -> None:
        if appears:
            one.target.write_bytes(b"mine")
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    if appears:
        with pytest.raises((ConflictError, StorageError)):
            fetch(store, [one])
        assert one.target.read_bytes() == b"mine"
    else:
        fetch(store, [one])
        assert files_below(dest) == ["k"]


# --- objects that are not what they should be


@pytest.mark.parametrize("size", [1000, len(BIG)], ids=["small", "large"])
def test_a_corrupted_object(store: Store, dest: Path, tmp_path: Path, size: int) -> None:
    data = BIG[:size]
    one = wanted(store, dest, "k", data, etag=False)
    damaged = data[: size // 2] + b"x" + data[size // 2 + 1 :]
    (tmp_path / "store" / "raw" / "k").write_bytes(damaged)
    with pytest.raises(ChecksumMismatchError) as caught:
        fetch(store, [one])
    assert (caught.value.path, caught.value.expected, caught.value.found) == ("k", sha256(data), sha256(damaged))
    assert files_below(dest) == []
    # Once it is mended, the next run fetches it from the beginning.
    (tmp_path / "store" / "raw" / "k").write_bytes(data)
    fetch(store, [one])
    assert one.target.read_bytes() == data


@pytest.mark.parametrize("size", [1000, len(BIG)], ids=["small", "large"])
def test_a_replaced_object(store: Store, dest: Path, size: int) -> None:
    one = wanted(store, dest, "k", BIG[:size])
    other = noise(size, seed=7)
    store.put("k", other, sha256=sha256(other))
    with pytest.raises(ChecksumMismatchError, match="is not the object that was registered: its ETag differs"):
        fetch(store, [one])
    assert not one.target.exists()


@pytest.mark.parametrize("size", [999, 0])
def test_a_shorter_object(store: Store, dest: Path, size: int) -> None:
    one = wanted(store, dest, "k", BIG[:1000], etag=False)
    store.put("k", BIG[:size], sha256=sha256(BIG[:size]))
    with pytest.raises(StorageError):
        fetch(store, [one])
    assert not one.target.exists()


def test_an_object_that_is_gone(store: Store, dest: Path) -> None:
    one = wanted(store, dest, "k", b"1234")
    store.delete("k")
    with pytest.raises(MissingFilesError) as caught:
        fetch(store, [one])
    assert caught.value.paths == ("k",)
    assert not one.target.exists()


# --- resuming


def test_a_killed_process_is_gone_on_with(store: Store, dest: Path, tmp_path: Path) -> None:
    one = wanted(store, dest, "k", BIG, etag=False)
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED_DOWNLOAD, str(here), str(here.parent)]
    command += [str(tmp_path / "store"), str(one.target), str(len(BIG)), sha256(BIG)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == -9, process.stderr
    assert not one.target.exists()
    tap, counts = Tap(store), list[int]()
    fetch(tap, [one], on_bytes=counts.append)
    assert streamed(tap) == [(2 * RANGE, len(BIG))]
    assert one.target.read_bytes() == BIG
    assert sum(counts) == len(BIG)
    assert files_below(dest) == ["k"]


def test_a_failed_range_leaves_the_others(store: Store, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    fetched: list[int] = []

    def fail(_key: str, *, start: int, **_options: object) -> None:
        if start == RANGE:
            raise StorageError("the line went dead", key="k")
        fetched.append(start)

    with pytest.raises(StorageError, match="the line went dead"):
        fetch(Tap(store, before={"stream": fail}), [one])
    assert not one.target.exists()
    tap = Tap(store)
    fetch(tap, [one])
    assert (RANGE, 2 * RANGE) in streamed(tap)
    assert not {start for start, _ in streamed(tap)} - {0, RANGE, 2 * RANGE}
    assert one.target.read_bytes() == BIG


def test_a_half_file_of_another_version_is_not_continued(store: Store, dest: Path) -> None:
    old = wanted(store, dest, "k", BIG)

    def fail(_key: str, *, start: int, **_options: object) -> None:
        if start == 2 * RANGE:
            raise StorageError("the line went dead", key="k")

    with pytest.raises(StorageError):
        fetch(Tap(store, before={"stream": fail}), [old])
    data = noise(len(BIG), seed=8)
    new = wanted(store, dest, "k", data)
    fetch(store, [new])
    assert new.target.read_bytes() == data


def test_a_cut_line(weed_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy], dest: Path) -> None:
    proxy = fault_proxy(weed_buckets.server)
    store = s3_store(weed_buckets.at(proxy.url))
    one = wanted(store, dest, "k", BIG)
    proxy.clear()
    proxy.cut("get", 5 * MIB + 1, times=2)
    fetch(RetryingStore(store, RetryPolicy(max_delay_s=0.01)), [one])
    assert one.target.read_bytes() == BIG
    sent = sum(request.bytes_out for request in proxy.log if request.kind == "get")
    # What had come before the cut is not fetched again, but for less than a block each time.
    assert len(BIG) <= sent <= len(BIG) + 2 * MIB


# --- stopping


def test_stopped_before(store: Store, dest: Path) -> None:
    stop = Stop()
    stop.set()
    one = wanted(store, dest, "k", b"1234")
    with pytest.raises(KeyboardInterrupt):
        fetch(store, [one], stop=stop)
    assert not one.target.exists()


def test_stopped_in_the_middle_of_a_large_file(store: Store, dest: Path) -> None:
    stop = Stop()
    one = wanted(store, dest, "k", BIG)
    with pytest.raises(KeyboardInterrupt):
        fetch(store, [one], stop=stop, on_bytes=lambda count: stop.set() if count else None)
    assert not one.target.exists()
    fetch(store, [one])
    assert one.target.read_bytes() == BIG


def test_a_raising_callback_stops_the_rest(store: Store, dest: Path) -> None:
    before = set(threading.enumerate())
    items = [wanted(store, dest, f"{number:03}", b"1234") for number in range(100)]

    def refuse(_fetched: Fetched) -> None:
        raise LookupError("the callback's own")

    with pytest.raises(LookupError):
        fetch(store, items, on_done=refuse)
    assert set(threading.enumerate()) <= before
    assert all((dest / name).read_bytes() == b"1234" for name in files_below(dest) if not name.startswith("."))


def test_a_full_disk(store: Store, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = wanted(store, dest, "k", b"1234")

    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="No space left") as caught:
        fetch(store, [one])
    assert "Free some space" in (caught.value.hint or "")
    assert str(one.target) in str(caught.value)
    assert not one.target.exists()
