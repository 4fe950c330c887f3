"""What the files cache keeps, and that whatever becomes of it costs a reading and never the truth."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ursa.disk import place
from ursa.disk.cache import KEPT, KEPT_DAYS, Entry, FilesCache
from ursa.disk.clock import Clock, system_clock
from ursa.disk.fingerprint import SETTLED_S, Fingerprint
from ursa.disk.mounts import Mount
from ursa.disk.rows import fingerprint_text, parse_fingerprint

ROOT = Path(__file__).parents[2]
REC, PATH = "rec_a", "cam0/video.mp4"
SHA = hashlib.sha256(b"a").hexdigest()
OTHER_SHA = hashlib.sha256(b"b").hexdigest()
PRINT = Fingerprint(12, 1_700_000_000_000_000_001, 1_700_000_000_000_000_002, 7)
STORE, KEY, ETAG = "https://example.org/raw", "recordings/rec_a/cam0/video.mp4", "0123456789abcdef0123456789abcdef-2"


@dataclass
class Time:
    """Clocks that a test sets."""

    boot: str | None = str(uuid.UUID(int=1))
    monotonic_s: float = 1000.0
    now: datetime = datetime(2026, 11, 20, 3, tzinfo=UTC)

    def clock(self) -> Clock:
        return Clock(self.boot, lambda: self.monotonic_s, lambda: self.now)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def opened(tmp_path: Path, time: Time) -> Iterator[Callable[..., FilesCache]]:
    """``opened()`` opens the one cache of the test, as another process would."""
    caches: list[FilesCache] = []

    def make(directory: Path = tmp_path / "cache", at: Time = time) -> FilesCache:
        caches.append(FilesCache.open(directory, clock=at.clock(), temp_dirs=()))
        return caches[-1]

    yield make
    for cache in caches:
        cache.close()


Opened = Callable[..., FilesCache]


# --- files -------------------------------------------------------------------------------------------------------------


def test_what_was_read_is_remembered(opened: Opened, time: Time) -> None:
    first = opened()
    first.remember(REC, PATH, PRINT, SHA, ["etag-2"])
    entry = Entry(PRINT, SHA, ("etag-2",), time.now)
    assert first.entries(REC) == {PATH: [entry]}
    assert opened().entries(REC) == {PATH: [entry]}
    assert opened().entries("rec_b") == {}


def test_etags_of_the_same_bytes_are_united_and_those_of_others_are_not(opened: Opened, time: Time) -> None:
    cache = opened()
    cache.remember(REC, PATH, PRINT, SHA, ["a", "b"])
    time.now += timedelta(days=1)
    cache.remember(REC, PATH, PRINT, SHA, ["c", "b"])
    assert cache.entries(REC) == {PATH: [Entry(PRINT, SHA, ("c", "b", "a"), time.now)]}
    cache.remember(REC, PATH, PRINT, OTHER_SHA, ["d"])
    assert cache.entries(REC) == {PATH: [Entry(PRINT, OTHER_SHA, ("d",), time.now)]}


def test_the_oldest_reading_goes(opened: Opened, time: Time) -> None:
    cache = opened()
    prints = [replace(PRINT, inode=number) for number in range(KEPT + 2)]
    for fingerprint in (*prints, prints[2]):
        time.now += timedelta(seconds=1)
        cache.remember(REC, PATH, fingerprint, SHA)
    cache.remember(REC, "cam1/video.mp4", PRINT, SHA)
    kept = [entry.fingerprint for entry in cache.entries(REC)[PATH]]
    assert kept == [prints[2], *reversed(prints[3:])]
    assert len(cache.entries(REC)["cam1/video.mp4"]) == 1


def test_what_was_only_seen_goes_before_what_was_read(opened: Opened, time: Time) -> None:
    cache = opened()
    prints = [replace(PRINT, inode=number) for number in range(KEPT + 1)]
    for fingerprint in prints[: KEPT - 1]:
        cache.remember(REC, PATH, fingerprint, SHA)
    time.now += timedelta(days=1)
    for fingerprint in prints[KEPT - 1 :]:
        cache.sight(REC, {PATH: fingerprint})
    entries = cache.entries(REC)[PATH]
    assert len(entries) == KEPT
    assert {entry.fingerprint for entry in entries if entry.sha256} == set(prints[: KEPT - 1])
    assert entries[-1] == Entry(prints[-1], None)


@pytest.mark.parametrize("sha256", ["", "x" * 64, SHA.upper(), SHA[:-1], f"sha256:{SHA}"])
def test_what_is_no_sha256_is_not_remembered(opened: Opened, sha256: str) -> None:
    cache = opened()
    cache.remember(REC, PATH, PRINT, sha256)
    cache.prove(STORE, KEY, 12, ETAG, sha256)
    assert cache.entries(REC) == {} and cache.proof(STORE, KEY, 12, ETAG) is None


INTEGERS = st.integers(min_value=-(2**80), max_value=2**80)
PRINTS = st.builds(
    Fingerprint,
    st.integers(min_value=0, max_value=2**63),
    INTEGERS,
    st.none() | INTEGERS,
    st.none() | st.integers(min_value=0, max_value=2**64 - 1),
    st.sampled_from(["", "-", " ", "1234-ABCD", "//nas/a b\n", "nas:/ä"]),
)


@settings(deadline=None)
@given(PRINTS, PRINTS)
def test_fingerprints_as_text(one: Fingerprint, other: Fingerprint) -> None:
    assert parse_fingerprint(fingerprint_text(one)) == one
    assert (fingerprint_text(one) == fingerprint_text(other)) == (one == other)


# --- sightings ---------------------------------------------------------------------------------------------------------


def test_seen_long_enough_ago(opened: Opened, time: Time) -> None:
    cache = opened()
    assert not cache.was_sighted(REC, PATH, PRINT)
    cache.sight(REC, {PATH: PRINT})
    for since_s, expected in ((0.0, False), (SETTLED_S - 0.01, False), (SETTLED_S, True), (86_400.0, True)):
        time.monotonic_s = 1000.0 + since_s
        assert cache.was_sighted(REC, PATH, PRINT) is expected
        assert opened().was_sighted(REC, PATH, PRINT) is expected
    assert not cache.was_sighted(REC, PATH, replace(PRINT, ctime_ns=3))
    assert not cache.was_sighted(REC, "cam1/video.mp4", PRINT)


def test_seeing_again_does_not_begin_anew(opened: Opened, time: Time) -> None:
    cache = opened()
    for _ in range(3):
        cache.sight(REC, {PATH: PRINT})
        time.monotonic_s += SETTLED_S / 2
    assert cache.was_sighted(REC, PATH, PRINT)


def test_no_wall_clock_takes_part(opened: Opened, time: Time) -> None:
    cache = opened()
    cache.sight(REC, {PATH: PRINT})
    time.now += timedelta(days=3650)
    assert not cache.was_sighted(REC, PATH, PRINT)


def test_before_the_machines_last_start(opened: Opened) -> None:
    opened().sight(REC, {PATH: PRINT})
    assert opened(at=Time(boot=str(uuid.UUID(int=2)), monotonic_s=1.0)).was_sighted(REC, PATH, PRINT)


@pytest.mark.parametrize("boots", [(None, None), (None, str(uuid.UUID(int=1))), (str(uuid.UUID(int=1)), None)])
def test_where_starts_are_not_told_only_ones_own_sightings_count(
    opened: Opened, boots: tuple[str | None, str | None]
) -> None:
    other, mine = Time(boots[0]), Time(boots[1], monotonic_s=1100.0)
    opened(at=other).sight(REC, {PATH: PRINT})
    cache = opened(at=mine)
    assert not cache.was_sighted(REC, PATH, PRINT)
    cache.sight(REC, {PATH: PRINT})
    assert not cache.was_sighted(REC, PATH, PRINT)
    mine.monotonic_s += SETTLED_S
    assert cache.was_sighted(REC, PATH, PRINT)


def test_a_clock_that_went_back_settles_nothing(opened: Opened, time: Time) -> None:
    cache = opened()
    cache.sight(REC, {PATH: PRINT})
    time.monotonic_s = 10.0
    assert not cache.was_sighted(REC, PATH, PRINT)
    cache.sight(REC, {PATH: PRINT})
    time.monotonic_s = 10.0 + SETTLED_S
    assert cache.was_sighted(REC, PATH, PRINT)


def test_what_was_read_had_been_seen(opened: Opened, time: Time) -> None:
    cache = opened()
    cache.sight(REC, {PATH: PRINT})
    cache.remember(REC, PATH, PRINT, SHA)
    cache.sight(REC, {PATH: PRINT})
    assert cache.entries(REC)[PATH][0].sha256 == SHA
    assert cache.was_sighted(REC, PATH, PRINT)


def test_the_machines_own_clock() -> None:
    clock = system_clock()
    again = subprocess.run(
        [sys.executable, "-c", "from ursa.disk.clock import system_clock as c; print(c().boot, c().monotonic())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert again[0] == str(clock.boot)
    assert float(again[1]) <= clock.monotonic()


# --- objects and notes -------------------------------------------------------------------------------------------------


def test_an_object_is_proven_while_it_has_this_etag(opened: Opened) -> None:
    opened().prove(STORE, KEY, 12, ETAG, SHA)
    cache = opened()
    assert cache.proof(STORE, KEY, 12, ETAG) == SHA
    assert cache.proof(STORE, KEY, 13, ETAG) is None
    assert cache.proof(STORE, KEY, 12, "other") is None
    assert cache.proof(STORE, f"{KEY}x", 12, ETAG) is None
    assert cache.proof("elsewhere", KEY, 12, ETAG) is None
    cache.prove(STORE, KEY, 12, ETAG, OTHER_SHA)
    assert opened().proof(STORE, KEY, 12, ETAG) == OTHER_SHA


def test_notes(opened: Opened) -> None:
    opened().put_note("conduct", STORE, {"refuses_wrong_sha256": True, "at": "2026-11-28"})
    cache = opened()
    assert cache.note("conduct", STORE) == {"refuses_wrong_sha256": True, "at": "2026-11-28"}
    assert cache.note("conduct", "elsewhere") is None and cache.note("other", STORE) is None
    cache.put_note("conduct", STORE, {"not JSON": object()})
    assert cache.note("conduct", STORE) is not None
    cache.put_note("conduct", STORE, None)
    assert opened().note("conduct", STORE) is None


# --- growth ------------------------------------------------------------------------------------------------------------


def days_of_use(opened: Opened, time: Time, count: int) -> None:
    for _ in range(count):
        time.now += timedelta(days=1)
        opened().close()


def test_what_is_not_asked_for_any_more_is_dropped(opened: Opened, time: Time) -> None:
    cache = opened()
    for rec_id in ("rec_gone", "rec_seen", "rec_asked", "rec_read"):
        cache.remember(rec_id, PATH, PRINT, SHA)
    for key in ("gone", "asked"):
        cache.prove(STORE, key, 12, ETAG, SHA)
    cache.close()
    time.now += timedelta(days=KEPT_DAYS - 10)
    cache = opened()
    cache.sight("rec_seen", {PATH: replace(PRINT, inode=8)})
    assert cache.entries("rec_asked") and cache.proof(STORE, "asked", 12, ETAG)
    cache.remember("rec_read", "other", PRINT, SHA)
    cache.close()
    days_of_use(opened, time, 20)
    cache = opened()
    assert cache.entries("rec_gone") == {} and cache.proof(STORE, "gone", 12, ETAG) is None
    assert all(PATH in cache.entries(rec_id) for rec_id in ("rec_seen", "rec_asked", "rec_read"))
    assert cache.proof(STORE, "asked", 12, ETAG) == SHA


def test_a_clock_that_was_wrong_for_some_days_drops_nothing(opened: Opened, time: Time) -> None:
    opened().remember(REC, PATH, PRINT, SHA)
    days_of_use(opened, time, 10)
    right = time.now
    time.now += timedelta(days=3650)
    days_of_use(opened, time, 5)
    time.now = right
    days_of_use(opened, time, 10)
    assert opened().entries(REC)


# --- processes ---------------------------------------------------------------------------------------------------------

WRITER = """
import hashlib, sys
from pathlib import Path
from ursa.disk.cache import FilesCache
from ursa.disk.fingerprint import Fingerprint
cache = FilesCache.open(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    sha256 = hashlib.sha256(f"{sys.argv[2]} {number}".encode()).hexdigest()
    cache.remember(f"rec_{number % 7}", f"{sys.argv[2]}/{number}", Fingerprint(number, 1, 2, 3), sha256, ["e"])
    print(number, flush=True)
if sys.argv[4] == "wait":
    sys.stdin.read()
cache.close()
"""


def writer(directory: Path, name: str, count: int, end: str = "close") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(directory), name, str(count), end]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def remembered(cache: FilesCache) -> set[str]:
    return {
        path for number in range(7) for path, entries in cache.entries(f"rec_{number}").items() if entries[0].sha256
    }


def test_two_processes(tmp_path: Path, opened: Opened) -> None:
    directory = tmp_path / "cache"
    both = [writer(directory, name, 300) for name in ("a", "b")]
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert remembered(opened(directory)) == {f"{name}/{number}" for name in ("a", "b") for number in range(300)}


def test_a_kill_right_after_a_file_ended(tmp_path: Path, opened: Opened) -> None:
    """Each line is printed after a file was remembered: whatever was printed must be there."""
    directory = tmp_path / "cache"
    process = writer(directory, "a", 100_000)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.readlines()
    process.communicate(timeout=60)
    whole = [line for line in told if line.endswith("\n")]
    assert len(whole) < 100_000 and process.returncode == -signal.SIGKILL
    assert {f"a/{line.strip()}" for line in whole} <= remembered(opened(directory))


def test_threads(opened: Opened) -> None:
    cache = opened()
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for turn in range(50):
            cache.sight(REC, {f"{number}/{turn}": PRINT})
            cache.remember(REC, f"{number}/{turn}", PRINT, SHA)
            cache.entries(REC)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result()
    assert len(opened().entries(REC)) == 400


# --- damage ------------------------------------------------------------------------------------------------------------


def file_of(cache: FilesCache) -> Path:
    assert cache.path is not None
    return cache.path


def filled(opened: Opened, count: int = 400) -> Path:
    """A cache's file, closed, of many pages."""
    cache = opened()
    for number in range(count):
        cache.remember(f"rec_{number}", PATH, PRINT, SHA, ["e" * 32])
    cache.prove(STORE, KEY, 12, ETAG, SHA)
    path = file_of(cache)
    cache.close()
    assert path.stat().st_size > 20 * 4096
    return path


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def empty_of_sense(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def another_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 9000")


def without_a_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 0")


def without_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE files")


def holes(path: Path) -> None:
    """All pages but the first are nonsense: it opens, and fails later."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


@pytest.mark.parametrize(
    "damage",
    [garbage, empty_of_sense, truncated, another_version, without_a_version, without_a_table, holes],
)
def test_a_damaged_file_is_begun_anew(opened: Opened, time: Time, damage: Callable[[Path], None]) -> None:
    path = filled(opened)
    damage(path)
    cache = opened()
    for number in range(400):
        assert cache.entries(f"rec_{number}") in ({}, {PATH: [Entry(PRINT, SHA, ("e" * 32,), time.now)]})
    assert cache.proof(STORE, KEY, 12, ETAG) in (None, SHA)
    for number in range(400):
        cache.remember(f"rec_{number}", "new", PRINT, OTHER_SHA)
    cache.close()
    again = opened()
    assert file_of(again) == path and not again.temporary
    assert all("new" in again.entries(f"rec_{number}") for number in range(400))


def test_damage_that_is_met_by_a_write_loses_nothing_of_it(opened: Opened) -> None:
    path = filled(opened)
    cache = opened()
    assert not cache.temporary
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE files")
    cache.remember(REC, PATH, PRINT, SHA)
    assert opened().entries(REC)[PATH][0].sha256 == SHA


def test_two_that_meet_the_same_damage_end_in_one_file(opened: Opened) -> None:
    path = filled(opened)
    first, second = opened(), opened()
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE files")
    first.remember("rec_x", PATH, PRINT, SHA)
    second.remember("rec_y", PATH, PRINT, SHA)
    third = opened()
    assert third.entries("rec_x") and third.entries("rec_y")


@pytest.mark.parametrize(
    "change",
    [
        f"UPDATE files SET sha256 = '{OTHER_SHA}'",
        "UPDATE files SET sha256 = 7",
        "UPDATE files SET sha256 = NULL",
        "UPDATE files SET fingerprint = '1 2 3 4 '",
        "UPDATE files SET fingerprint = x'00ff'",
        "UPDATE files SET path = 'elsewhere'",
        "UPDATE files SET rec_id = 'rec_b'",
        "UPDATE files SET etags = '[1, 2]'",
        "UPDATE files SET read_at = 'yesterday'",
        "UPDATE files SET seen_s = -1e300",
        "UPDATE files SET boot = '00000000-0000-0000-0000-000000000002'",
        "UPDATE files SET seal = ''",
        "UPDATE files SET etags = CAST(x'ff' AS TEXT)",
        f"UPDATE proofs SET sha256 = '{OTHER_SHA}'",
        "UPDATE proofs SET key = 'elsewhere'",
        "UPDATE notes SET value = '['",
        "UPDATE notes SET value = '[]'",
        "UPDATE notes SET value = 7",
    ],
)
def test_a_row_that_is_not_as_it_was_written_is_ignored(opened: Opened, change: str) -> None:
    cache = opened()
    cache.remember(REC, PATH, PRINT, SHA)
    cache.prove(STORE, KEY, 12, ETAG, SHA)
    cache.put_note("topic", STORE, {"a": 1})
    path = file_of(cache)
    cache.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute(change).rowcount == 1
        database.commit()
    cache = opened()
    if "files" in change:
        assert cache.entries(REC) == {} and cache.entries("rec_b") == {}
        assert not cache.was_sighted(REC, PATH, PRINT)
    elif "proofs" in change:
        assert cache.proof(STORE, KEY, 12, ETAG) is None and cache.proof(STORE, "elsewhere", 12, ETAG) is None
    else:
        assert cache.note("topic", STORE) is None


NOT_TEXT = "a\udcff"


def test_what_can_not_be_kept_is_not_and_nothing_raises(opened: Opened) -> None:
    cache = opened()
    cache.remember(REC, NOT_TEXT, PRINT, SHA, [NOT_TEXT, "", "e" * 1000, "good"])
    cache.remember(REC, PATH, PRINT, SHA, [NOT_TEXT, "", "e" * 1000, "good"])
    cache.sight(NOT_TEXT, {PATH: PRINT})
    cache.prove(STORE, NOT_TEXT, 2**70, ETAG, SHA)
    cache.put_note("topic", NOT_TEXT, {"a": 1})
    cache.put_note("topic", STORE, {"a": NOT_TEXT})
    assert cache.entries(NOT_TEXT) == {} and cache.note("topic", NOT_TEXT) is None
    assert not cache.was_sighted(REC, NOT_TEXT, PRINT)
    assert cache.proof(STORE, KEY, 2**70, ETAG) is None
    assert cache.entries(REC)[PATH][0].etags == ("good",) and list(cache.entries(REC)) == [PATH]


def test_closed_is_empty_and_raises_nothing(opened: Opened) -> None:
    cache = opened()
    cache.remember(REC, PATH, PRINT, SHA)
    cache.close()
    cache.close()
    cache.remember(REC, PATH, PRINT, SHA)
    cache.sight(REC, {PATH: PRINT})
    cache.put_note("topic", STORE, {})
    assert cache.entries(REC) == {} and not cache.was_sighted(REC, PATH, PRINT)
    assert cache.proof(STORE, KEY, 12, ETAG) is None and cache.note("topic", STORE) is None


def test_a_file_that_another_process_keeps_locked_is_waited_for_and_then_given_up(opened: Opened) -> None:
    cache = opened()
    cache._database.run(lambda connection: connection.execute("PRAGMA busy_timeout = 50"), None)
    with closing(sqlite3.connect(file_of(cache), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        cache.remember(REC, PATH, PRINT, SHA)
        assert cache.entries(REC) == {}
        other.execute("ROLLBACK")
    cache.remember(REC, PATH, PRINT, SHA)
    assert opened().entries(REC)


# --- places ------------------------------------------------------------------------------------------------------------


def works_in_memory(cache: FilesCache) -> bool:
    cache.remember(REC, PATH, PRINT, SHA)
    return cache.temporary and cache.path is None and cache.entries(REC)[PATH][0].sha256 == SHA


def test_where_nothing_can_be_written_it_is_in_memory(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "file").touch()
    assert works_in_memory(opened(tmp_path / "file" / "cache"))
    assert works_in_memory(opened(tmp_path / "file"))
    assert works_in_memory(opened(Path("/proc/ursa")))
    assert works_in_memory(opened(tmp_path / "\0"))


def test_a_read_only_directory(tmp_path: Path, opened: Opened) -> None:
    directory = tmp_path / "readonly"
    directory.mkdir()
    directory.chmod(0o555)
    if os.access(directory, os.W_OK):
        pytest.skip("root may write anywhere")
    assert works_in_memory(opened(directory))


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
