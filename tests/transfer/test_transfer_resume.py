"""What a download that ended early leaves, and what the next one makes of it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from fetching import BIG, RANGE, fetch, files_below, streamed, wanted
from tap import MIB, Tap, noise, s3_store, sha256

from conftest import Buckets
from proxy import FaultProxy
from servers import S3Server
from ursa.errors import ChecksumMismatchError, StorageError
from ursa.store.local import LocalStore
from ursa.store.retry import RetryingStore, RetryPolicy
from ursa.transfer.download import DownloadItem

ALL = [(0, RANGE), (RANGE, 2 * RANGE), (2 * RANGE, len(BIG))]

DOWNLOAD = """
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
            yield next(blocks)
            {then}
        yield from blocks

def lines():
    return next(Path(sys.argv[4]).parent.glob("*.done")).read_bytes().count(b" ")

item = DownloadItem("k", Path(sys.argv[4]), int(sys.argv[5]), sys.argv[6], None, sys.argv[7] == "proven")
with Engine(transfers=2) as engine:
    (done,) = download(
        engine, Slow(Path(sys.argv[3]), "raw"), [item], stop=Stop(), on_done=lambda done: None, on_bytes=lambda count: None
    )
print("sent" if done.sent else "there")
"""
KILLED = """
            while {ready}:
                pass
            os.kill(os.getpid(), signal.SIGKILL)
"""
# Says that it is in the middle, and goes on when it is told to.
WAITING = """
            print("waiting", flush=True)
            sys.stdin.readline()
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", "raw")


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "dest"


def started(tmp_path: Path, one: DownloadItem, then: str) -> subprocess.Popen[str]:
    """A process that downloads ``one``, and in the middle does ``then``."""
    here = Path(__file__).parent
    command = [sys.executable, "-c", DOWNLOAD.replace("{then}", then.strip()), str(here), str(here.parent)]
    command += [str(tmp_path / "store"), str(one.target), str(one.size_bytes), str(one.sha256)]
    command += ["proven" if one.proven else "claimed"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def interrupted(store: LocalStore, one: DownloadItem) -> tuple[Path, Path]:
    """A download that failed at its last range; its partial and its journal, which names two ranges."""
    dest = one.target.parent

    def fail(_key: str, *, start: int, **_options: object) -> None:
        if start == 2 * RANGE:
            while not (found := list(dest.glob("*.done"))) or found[0].read_bytes().count(b" ") < 2:
                pass
            raise StorageError("the line went dead", key="k")

    with pytest.raises(StorageError, match="the line went dead"):
        fetch(Tap(store, before={"stream": fail}), [one])
    (journal,) = dest.glob("*.done")
    return journal.with_suffix(".part"), journal


def fetched_again(store: LocalStore, one: DownloadItem) -> list[tuple[int, int]]:
    """Download; the ranges that it asked for. The target must be right, and alone."""
    tap = Tap(store)
    counts: list[int] = []
    fetch(tap, [one], on_bytes=counts.append)
    assert sum(counts) == one.size_bytes
    assert one.target.read_bytes() == BIG
    assert files_below(one.target.parent) == ["k"]
    return streamed(tap)


# --- killed, failed, cut


def test_a_killed_process_is_resumed(store: LocalStore, dest: Path, tmp_path: Path) -> None:
    one = wanted(store, dest, "k", BIG, etag=False)
    process = started(tmp_path, one, KILLED.replace("{ready}", "lines() < 2"))
    _, told = process.communicate(timeout=120)
    assert process.returncode == -9, told
    assert not one.target.exists()
    assert fetched_again(store, one) == ALL[2:]


def test_what_was_not_measured_is_not_resumed(store: LocalStore, dest: Path, tmp_path: Path) -> None:
    one = replace(wanted(store, dest, "k", BIG), proven=False)
    process = started(tmp_path, one, KILLED.replace("{ready}", "False"))
    _, told = process.communicate(timeout=120)
    assert process.returncode == -9, told
    assert [Path(name).suffix for name in files_below(dest)] == [".part"]
    assert fetched_again(store, one) == ALL


def test_a_failed_range_leaves_the_others(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    partial, journal = interrupted(store, one)
    assert sorted(files_below(dest)) == sorted([partial.name, journal.name])
    assert fetched_again(store, one) == ALL[2:]


def test_a_half_file_of_another_version_is_removed(store: LocalStore, dest: Path) -> None:
    interrupted(store, wanted(store, dest, "k", noise(len(BIG), seed=8)))
    assert fetched_again(store, wanted(store, dest, "k", BIG)) == ALL


def test_ranges_of_another_object_are_fetched_again(store: LocalStore, dest: Path) -> None:
    """What a run before fetched is of an object that was replaced since: together they are neither."""
    one = wanted(store, dest, "k", BIG)
    other = noise(len(BIG), seed=8)
    store.put("k", other, sha256=sha256(other))
    interrupted(store, replace(one, etag=store.head("k").etag))
    store.put("k", BIG, sha256=sha256(BIG))
    assert fetched_again(store, replace(one, etag=store.head("k").etag)) == sorted([*ALL, ALL[2]])


def test_what_is_kept_is_of_one_object(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    interrupted(store, one)
    other = noise(len(BIG), seed=8)
    store.put("k", other, sha256=sha256(other))
    with pytest.raises(ChecksumMismatchError) as caught:
        fetch(store, [one])
    assert caught.value.found == sha256(other)
    assert files_below(dest) == ["k.ursa-mismatch"]
    assert (dest / "k.ursa-mismatch").read_bytes() == other


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


def test_a_412_in_the_middle(weed_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy], dest: Path) -> None:
    proxy = fault_proxy(weed_buckets.server)
    store = s3_store(weed_buckets.at(proxy.url))
    one = wanted(store, dest, "k", BIG)
    proxy.clear()
    proxy.fail("get", status=412)
    fetch(store, [one])
    assert one.target.read_bytes() == BIG
    assert proxy.count("head") == 1


# --- journals and partials that do not belong together


def test_a_journal_without_a_partial(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    partial, _ = interrupted(store, one)
    partial.unlink()
    assert fetched_again(store, one) == ALL


def test_a_partial_without_a_journal(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    _, journal = interrupted(store, one)
    journal.unlink()
    assert fetched_again(store, one) == ALL


def test_a_journal_of_another_partial(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    _, journal = interrupted(store, one)
    journal.rename(f"{str(journal)[:-17]}{0:012x}.done")
    assert fetched_again(store, one) == ALL


def test_a_partial_of_zeros(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    partial, _ = interrupted(store, one)
    partial.write_bytes(bytes(len(BIG)))
    assert fetched_again(store, one) == ALL


@pytest.mark.parametrize("size", [0, 5, RANGE - 1], ids=["empty", "few", "short"])
def test_a_partial_that_was_cut_off(store: LocalStore, dest: Path, size: int) -> None:
    one = wanted(store, dest, "k", BIG)
    partial, _ = interrupted(store, one)
    os.truncate(partial, size)
    assert fetched_again(store, one) == ALL


def test_a_range_that_the_disk_did_not_keep(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    partial, _ = interrupted(store, one)
    with partial.open("r+b") as file:
        file.seek(RANGE + 7)
        file.write(b"?")
    assert fetched_again(store, one) == ALL[1:]


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda text: text + b"\n2 0123", ALL[2:]),
        (lambda text: b"".join(line for line in text.splitlines(True) if not line.startswith(b"1 ")), ALL[1:]),
        (lambda _text: b"\x01\x01\x01", ALL),
        (lambda _text: b"\xff" * 999, ALL),
        (lambda text: text + b"\n77 " + b"0" * 64 + b"\n", ALL[2:]),
        (lambda text: text + b"\n2 " + b"0" * 64 + b"\n", ALL[2:]),
    ],
    ids=["cut off", "a line less", "an old one", "noise", "a range too many", "a wrong sha256"],
)
def test_a_damaged_journal(
    store: LocalStore, dest: Path, damage: Callable[[bytes], bytes], again: list[tuple[int, int]]
) -> None:
    one = wanted(store, dest, "k", BIG)
    _, journal = interrupted(store, one)
    journal.write_bytes(damage(journal.read_bytes()))
    assert fetched_again(store, one) == again


def test_a_line_that_was_cut_off_spoils_no_other(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    _, journal = interrupted(store, one)
    first = next(line for line in journal.read_bytes().splitlines() if line.startswith(b"0 "))
    journal.write_bytes(first + b"\n1 0123")

    def fail(_key: str, *, start: int, **_options: object) -> None:
        if start == 2 * RANGE:
            while journal.stat().st_size < 2 * len(first):
                pass
            raise StorageError("the line went dead", key="k")

    with pytest.raises(StorageError, match="the line went dead"):
        fetch(Tap(store, before={"stream": fail}), [one])
    assert fetched_again(store, one) == ALL[2:]


def test_what_an_early_version_left_is_removed(store: LocalStore, dest: Path) -> None:
    """It had no ids, and a journal of bytes that outlived its partial made zeros of a file."""
    one = wanted(store, dest, "k", BIG)
    dest.mkdir()
    for name in (f".ursa-{sha256(b'k')[:12]}-{str(one.sha256)[:12]}.{suffix}" for suffix in ("part", "done")):
        (dest / name).write_bytes(b"\x01\x01\x01")
    assert fetched_again(store, one) == ALL


def test_the_fullest_of_several_is_resumed(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    partial, _ = interrupted(store, one)
    for number in range(4):
        name = f"{partial.name[:-17]}{number:012x}"
        (dest / f"{name}.part").write_bytes(b"")
        (dest / f"{name}.done").write_bytes(b"")
    assert fetched_again(store, one) == ALL[2:]


def test_other_files_are_left_alone(store: LocalStore, dest: Path) -> None:
    """Only what is named for this very target is looked at."""
    one = wanted(store, dest, "k", BIG)
    interrupted(store, wanted(store, dest, "other", BIG))
    others = files_below(dest)
    fetch(store, [one])
    assert files_below(dest) == sorted([*others, "k"])


# --- two at once


@pytest.fixture
def first(store: LocalStore, dest: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is in the middle of downloading ``k``."""
    process = started(tmp_path, wanted(store, dest, "k", BIG, etag=False), WAITING)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    yield process
    with suppress(OSError):
        process.kill()
    process.wait()


def test_two_downloads_share_no_partial(store: LocalStore, dest: Path, first: subprocess.Popen[str]) -> None:
    """Each fetches the whole; who comes second finds the file and keeps it."""
    (held,) = dest.glob("*.part")
    one = DownloadItem("k", dest / "k", len(BIG), sha256(BIG), None, proven=True)
    tap = Tap(store)
    assert fetch(tap, [one])[0].sent
    assert streamed(tap) == ALL
    assert held.exists()
    stat = one.target.stat()
    out, told = first.communicate("\n", timeout=120)
    assert (out, first.returncode) == ("there\n", 0), told
    assert one.target.stat().st_ino == stat.st_ino
    assert files_below(dest) == ["k"]


def test_two_downloads_in_one_process(store: LocalStore, dest: Path) -> None:
    one = wanted(store, dest, "k", BIG)
    done = fetch(store, [one, one, one])
    assert sum(fetched.sent for fetched in done) == 1
    assert one.target.read_bytes() == BIG
    assert files_below(dest) == ["k"]


def test_a_disk_without_locks(store: LocalStore, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There nothing tells whether a partial is another process's: each run begins anew, and leaves the others alone."""
    one = wanted(store, dest, "k", BIG)

    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    partial, journal = interrupted(store, one)
    tap = Tap(store)
    fetch(tap, [one])
    assert streamed(tap) == ALL
    assert files_below(dest) == sorted([partial.name, journal.name, "k"])
