"""Whatever becomes of the cache's file costs a reading and never the truth."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from cache_tools import ETAG, KEY, OTHER_SHA, PATH, PRINT, REC, SHA, STORE, Opened, Time, file_of, opened, time

from ursa.disk import database
from ursa.disk.cache import Entry


def filled(opened: Opened, rows: int = 400) -> Path:
    """A cache's file, closed, of many pages."""
    cache = opened()
    for number in range(rows):
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
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 9000")


def without_a_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 0")


def without_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("DROP TABLE files")


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


@pytest.mark.parametrize("version", [0, 9000])
def test_nothing_of_another_version_is_used(opened: Opened, version: int) -> None:
    path = filled(opened)
    with closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA user_version = {version}")
    cache = opened()
    assert not any(cache.entries(f"rec_{number}") for number in range(400))
    assert not cache.temporary


def test_damage_that_is_met_by_a_write_loses_nothing_of_it(opened: Opened) -> None:
    path = filled(opened)
    cache = opened()
    assert not cache.temporary
    with closing(sqlite3.connect(path)) as file:
        file.execute("DROP TABLE files")
    cache.remember(REC, PATH, PRINT, SHA)
    assert opened().entries(REC)[PATH][0].sha256 == SHA


def test_a_file_that_another_process_began_anew_is_taken_up(opened: Opened) -> None:
    first, second = opened(), opened()
    second.remember(REC, PATH, PRINT, SHA)
    shutil.rmtree(file_of(first).parent)
    third = opened()
    for name, cache in (("a", first), ("b", second)):
        cache.remember(REC, name, PRINT, SHA)
    assert set(third.entries(REC)) == {"a", "b"}


def test_a_disk_whose_inodes_move_has_a_cache_too(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """SMB and FUSE give the same file another inode; the cache is not opened anew for each file."""
    inodes, openings = count(), []
    monkeypatch.setattr(database, "_inode", lambda name: next(inodes))
    monkeypatch.setattr(
        database, "_connect", lambda path, connect=database._connect: openings.append(1) or connect(path)
    )
    cache = opened()
    for number in range(20):
        cache.remember(REC, f"{number}", PRINT, SHA)
    assert len(cache.entries(REC)) == 20 and not cache.temporary
    assert len(openings) < 10


def test_commits_go_to_a_log(opened: Opened) -> None:
    """A rollback journal is several fsyncs a file."""
    cache = opened()
    cache.remember(REC, PATH, PRINT, SHA)
    assert file_of(cache).read_bytes()[18:20] == b"\2\2"  # the format's versions for writing and reading: WAL


def test_a_directory_that_is_taken_away_is_made_again(opened: Opened) -> None:
    cache = opened()
    shutil.rmtree(file_of(cache).parent)
    cache.remember(REC, PATH, PRINT, SHA)
    assert not cache.temporary and opened().entries(REC)


def test_two_that_meet_the_same_damage_end_in_one_file(opened: Opened) -> None:
    path = filled(opened)
    first, second = opened(), opened()
    with closing(sqlite3.connect(path)) as file:
        file.execute("DROP TABLE files")
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
    with closing(sqlite3.connect(path)) as file:
        assert file.execute(change).rowcount == 1
        file.commit()
    cache = opened()
    if "files" in change:
        assert cache.entries(REC) == {} and cache.entries("rec_b") == {}
        assert not cache.was_sighted(REC, PATH, PRINT)
        cache.remember(REC, PATH, PRINT, SHA)
        assert [entry.sha256 for entry in cache.entries(REC)[PATH]] == [SHA]
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
