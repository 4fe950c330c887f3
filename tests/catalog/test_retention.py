"""What is deleted by its age, and that only the server's clock tells it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from homes import Place, add_recordings, backdate, rec_id, recording

from conftest import Buckets
from ursa.catalog import tables
from ursa.catalog.catalog import Catalog
from ursa.catalog.compact import compact
from ursa.catalog.retention import CleanUpRefusedError, duration, note_clean_up, refused_since
from ursa.catalog.tables import CatalogTable
from ursa.disk.cache import FilesCache
from ursa.doctor.catalog import judge_clean_up
from ursa.doctor.results import Status, ok
from ursa.store import Page
from ursa.store.local import LocalStore

DAY = timedelta(days=1)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Place(tmp_path).catalog()


@pytest.fixture
def table(tmp_path: Path) -> CatalogTable[Any]:
    """Of four recordings, in one file, made of four files by a version of just now."""
    catalog = Place(tmp_path).catalog()
    for number in range(4):
        add_recordings(catalog, [recording(number)])
    catalog.recordings.merge_files(1 << 20)
    return catalog.recordings


def data(table: CatalogTable[Any]) -> set[str]:
    return {path.name for path in Path(table.uri).glob("*.parquet")}


def log(table: CatalogTable[Any]) -> list[str]:
    return sorted(path.name for path in Path(table.uri, "_delta_log").iterdir())


def stray(table: CatalogTable[Any], name: str, age: timedelta) -> None:
    """A file that no commit names."""
    path = Path(table.uri, name)
    path.write_bytes(b"x")
    moment = (datetime.now(UTC) - age).timestamp()
    os.utime(path, (moment, moment))


def rows(table: CatalogTable[Any]) -> list[str]:
    table.refresh()
    return [row.rec_id for row in table.select(tail="ORDER BY rec_id")]


# --- data files


def test_a_file_that_a_version_within_the_retention_needs_stays(table: CatalogTable[Any]) -> None:
    """The files are old, the commit that took them out of the table is not."""
    backdate(table, 91 * DAY, "*.parquet")
    before = data(table)
    assert table.clean_up() == 0 and data(table) == before
    backdate(table, 89 * DAY, "_delta_log/*.json")
    assert table.clean_up() == 0 and data(table) == before
    backdate(table, 2 * DAY, "_delta_log/*.json")
    assert table.clean_up(dry_run=True) == 4 and data(table) == before
    assert table.clean_up() == 4
    assert len(data(table)) == 1 and rows(table) == [rec_id(number) for number in range(4)]


def test_what_a_killed_upload_left_goes_when_it_is_old(table: CatalogTable[Any]) -> None:
    stray(table, "part-old.parquet", 91 * DAY)
    stray(table, "part-young.parquet", 89 * DAY)
    stray(table, "notes.txt", 91 * DAY)
    stray(table, "_kept.parquet", 91 * DAY)
    backdate(table, 100 * DAY, "_delta_log/*.json")
    assert table.clean_up() == 1
    there = {path.name for path in Path(table.uri).iterdir()}
    assert "part-old.parquet" not in there and there >= {"part-young.parquet", "notes.txt", "_kept.parquet"}


@pytest.mark.parametrize("off", [1826 * DAY, -1826 * DAY, timedelta(minutes=16), timedelta(minutes=-16)])
def test_another_clock_than_the_servers(tmp_path: Path, table: CatalogTable[Any], off: timedelta) -> None:
    """With a clock in 2031 six versions went, and a file that another writer had just uploaded."""
    stray(table, "part-of-a-writer.parquet", timedelta())
    stray(table, "part-old.parquet", 91 * DAY)
    before = data(table), log(table)
    with pytest.raises(CleanUpRefusedError, match=r"this machine's clock is .* the server's"):
        table.clean_up(lambda: datetime.now(UTC) + off)
    assert (data(table), log(table)) == before
    assert table.clean_up(lambda: datetime.now(UTC) + off / abs(off) * timedelta(minutes=14)) == 1


def test_times_in_commits_decide_nothing(tmp_path: Path, table: CatalogTable[Any]) -> None:
    """As by machines whose clocks stand at 1970."""
    before_it = ""
    for path in sorted(Path(table.uri, "_delta_log").glob("*.json")):
        text = re.sub(r'"(timestamp|deletionTimestamp|modificationTime)":\d+', r'"\1":1000', path.read_text())
        text = re.sub(r'"ursa_previous_sha256":"\w+"', f'"ursa_previous_sha256":"{before_it}"', text)
        path.write_text(text)
        before_it = hashlib.sha256(text.encode()).hexdigest()
    table = Place(tmp_path).elsewhere(tmp_path / "elsewhere").catalog().recordings
    before = data(table), log(table)
    assert table.clean_up() == 0 and (data(table), log(table)) == before
    assert len(rows(table)) == 4 and table.history(1)[0]["timestamp"] == 1000


def test_a_server_that_tells_no_time(table: CatalogTable[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pages = LocalStore.list_page

    def timeless(self: LocalStore, prefix: str, **options: Any) -> Page:
        return replace(pages(self, prefix, **options), now=None)

    stray(table, "part-old.parquet", 91 * DAY)
    monkeypatch.setattr(LocalStore, "list_page", timeless)
    with pytest.raises(CleanUpRefusedError, match="does not tell its time"):
        table.clean_up()
    assert "part-old.parquet" in data(table)


@pytest.mark.parametrize("damage", ["lost", "empty", "cut"])
def test_a_log_that_can_not_be_read_whole_deletes_nothing(table: CatalogTable[Any], damage: str) -> None:
    backdate(table, 91 * DAY, "*.parquet")
    commit = Path(table.uri, "_delta_log", f"{2:020}.json")
    text = commit.read_text()
    if damage == "lost":
        commit.unlink()
    else:
        commit.write_text("" if damage == "empty" else text[: len(text) // 2])
    before = data(table)
    with pytest.raises(CleanUpRefusedError, match="gap" if damage == "lost" else "can't be read"):
        table.clean_up()
    assert data(table) == before


def test_a_table_elsewhere_is_left_alone(tmp_path: Path, table: CatalogTable[Any]) -> None:
    """A pointer is not believed: what is not below catalog/v<digits> is not deleted."""
    stray(table, "part-old.parquet", 91 * DAY)
    table.replica.files = replace(table.replica.files, prefix="ursa/catalog/old/recordings/")
    with pytest.raises(CleanUpRefusedError, match="not below"):
        table.clean_up()


# --- the log


def grown(tmp_path: Path, commits: int = 35) -> CatalogTable[Any]:
    """With checkpoints at 9, 19 and 29, and a row in each of its commits."""
    table = Place(tmp_path).catalog().recordings
    for number in range(commits):
        change = tables.Change([recording(number)], None, "test")
        table.commit(change)
        if table.version in (9, 19, 29):
            table.write_checkpoint()
    return table


def versions(names: Sequence[str], kind: str) -> list[int]:
    return [int(name[:20]) for name in names if name.endswith(kind)]


def test_commits_below_an_old_checkpoint_go(tmp_path: Path) -> None:
    table = grown(tmp_path)
    backdate(table, 91 * DAY, "_delta_log/0000000000000000000*")
    backdate(table, 91 * DAY, "_delta_log/0000000000000000001*")
    backdate(table, 91 * DAY, f"_delta_log/{20:020}*")
    backdate(table, 91 * DAY, f"_delta_log/{21:020}*")
    pointer = Path(table.uri, "_delta_log", "_last_checkpoint").read_bytes()
    table.clean_up()
    assert versions(log(table), ".json") == list(range(19, 36))
    assert versions(log(table), ".checkpoint.parquet") == [19, 29]
    assert Path(table.uri, "_delta_log", "_last_checkpoint").read_bytes() == pointer
    assert rows(table) == [rec_id(number) for number in range(35)]
    assert len(table.at(19).files) == 19
    table.clean_up()
    assert versions(log(table), ".json") == list(range(19, 36))


def test_two_checkpoints_stay(tmp_path: Path) -> None:
    table = grown(tmp_path)
    backdate(table, 91 * DAY, "_delta_log/*")
    table.clean_up()
    assert versions(log(table), ".checkpoint.parquet") == [19, 29]
    assert versions(log(table), ".json") == list(range(19, 36))
    assert len(rows(table)) == 35


@pytest.mark.parametrize("damage", ["cut", "middle"])
def test_nothing_goes_before_the_checkpoint_was_read_back(tmp_path: Path, damage: str) -> None:
    table = grown(tmp_path)
    backdate(table, 91 * DAY, "_delta_log/*")
    checkpoint = Path(table.uri, "_delta_log", f"{29:020}.checkpoint.parquet")
    old = checkpoint.stat().st_mtime
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(
        whole[:-50] if damage == "cut" else whole[:4] + bytes(len(whole) // 2) + whole[len(whole) // 2 + 4 :]
    )
    os.utime(checkpoint, (old, old))
    before = log(table)
    table.clean_up()
    assert log(table) == before


# --- who cleans up, and who is told


def test_every_thousandth_commit_does_and_is_silent_when_refused(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[CleanUpRefusedError | None] = []
    table = catalog.recordings
    table.replica.files = replace(table.replica.files, clean_up=told.append)
    monkeypatch.setattr(tables, "SMALL_EVERY", 1)
    monkeypatch.setattr(tables, "BIG_EVERY", 1)
    stray(table, "part-old.parquet", 91 * DAY)
    off = [1826 * DAY]
    monkeypatch.setattr(CatalogTable.clean_up, "__defaults__", (lambda: datetime.now(UTC) + off[0],))
    for number in (5, 6):
        add_recordings(catalog, [recording(number)])
        off[0] = timedelta()
    assert [refused is not None for refused in told] == [True, False]
    assert "part-old.parquet" not in data(table)


def test_deltalake_never_cleans_up(tmp_path: Path) -> None:
    """Its hooks go by the local clock; the table's properties keep other tools of its kind from it as well."""
    catalog = Place(tmp_path).catalog()
    for turn in range(21):
        catalog.participants.set_frozen("catalog/v2" if turn % 2 else None, f"turn {turn}")
    backdate(catalog.participants, 91 * DAY, "_delta_log/*")
    before = log(catalog.participants)
    catalog.participants.set_frozen(None)
    for turn in range(22):
        catalog.participants.set_frozen("catalog/v2" if turn % 2 else None, f"turn {turn}")
    assert set(before) <= set(log(catalog.participants))
    first = Path(catalog.participants.uri, "_delta_log", f"{0:020}.json").read_text().splitlines()
    properties = next(json.loads(line)["metaData"]["configuration"] for line in first if "metaData" in line)
    assert properties["delta.enableExpiredLogCleanup"] == "false"


def test_no_other_clean_up_is_called() -> None:
    source = Path(tables.__file__).parent.parent
    for path in source.rglob("*.py"):
        assert not re.search(r"\.(vacuum|cleanup_metadata)\(", path.read_text()), path


def test_compact_says_why_it_refuses(catalog: Catalog) -> None:
    result = compact(catalog, clock=lambda: datetime.now(UTC) + 1826 * DAY)
    assert result.refused == "this machine's clock is 1,826 days ahead of the server's"
    assert compact(catalog).refused == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(960, "16 minutes"), (7200, "2 hours"), (172800, "2 days"), (157766400, "1,826 days")]
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_since_when_it_has_been_refused(tmp_path: Path) -> None:
    """By the server's clock; until it is not refused any more."""
    cache = FilesCache.open(tmp_path)
    asked = datetime(2026, 11, 1, tzinfo=UTC)
    for day in range(3):
        note_clean_up(cache, "here", CleanUpRefusedError(f"reason {day}", asked + day * DAY))
    assert refused_since(cache, "here") == (asked, "reason 2") and refused_since(cache, "there") is None
    finding = judge_clean_up(ok("catalog/v1: 2 recordings"), refused_since(cache, "here"))
    assert finding.status is Status.WARN
    assert finding.detail == "catalog/v1: 2 recordings; clean-up has been refused since 2026-11-01: reason 2"
    note_clean_up(cache, "here", None)
    assert refused_since(cache, "here") is None
    assert judge_clean_up(ok("fine"), None) == ok("fine")


@pytest.mark.parametrize(
    "noted", [{}, {"since": 7, "why": "x"}, {"since": "yesterday", "why": "x"}, {"since": "2026-11-01"}]
)
def test_a_note_that_is_none(tmp_path: Path, noted: dict[str, Any]) -> None:
    cache = FilesCache.open(tmp_path)
    cache.put_note("clean-up refused", "here", noted)
    assert refused_since(cache, "here") is None


def test_on_a_server(weed_buckets: Buckets) -> None:
    """The Date of its listings is its clock, and its LastModified the files' age."""
    server = weed_buckets.server
    place = Place(None, server.endpoint_url, weed_buckets.assets, server.access_key, server.secret_key)
    place.home().initialize()
    catalog = place.catalog()
    add_recordings(catalog, [recording(1)])
    listed = catalog.recordings.listed()
    assert abs(listed.now - datetime.now(UTC)) < timedelta(minutes=5)
    assert sorted(listed.commits) == [0, 1] and not listed.older(listed.commits[1], timedelta(hours=1))
    assert compact(catalog).refused == ""
    assert "1,826 days ahead of" in compact(catalog, clock=lambda: datetime.now(UTC) + 1826 * DAY).refused
    assert rows(catalog.recordings) == [rec_id(1)]
