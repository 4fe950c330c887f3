"""The replica: what is asked when a catalog is opened, followed and queried, and where it is kept."""

from __future__ import annotations

import gc
import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bucket_tap import Tap
from deltalake import DeltaTable
from homes import Place, add_recordings, modality, rec_id, recording, registration

from conftest import Buckets
from servers import S3Server
from ursa.catalog.catalog import Catalog
from ursa.catalog.metadata import workers_of
from ursa.catalog.tables import Change
from ursa.errors import StorageError
from ursa.register.commit import register, register_all

COMMITS = 25
TABLES = ("recordings", "modalities", "participants")


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """A catalog in a directory, and this machine's replica."""
    place = Place(tmp_path, cache=tmp_path / "here")
    place.home().initialize()
    return place


@pytest.fixture
def there(here: Place, tmp_path: Path) -> Place:
    """The same catalog for another machine, which has no replica."""
    return here.elsewhere(tmp_path / "there")


@pytest.fixture
def on_server(weed_buckets: Buckets, tmp_path: Path) -> Place:
    """A catalog on a server."""
    server = weed_buckets.server
    key, secret = server.access_key, server.secret_key
    place = Place(None, server.endpoint_url, weed_buckets.assets, key, secret, tmp_path / "here")
    place.home().initialize()
    return place


def log_of(place: Place, table: str = "recordings") -> Path:
    assert place.root
    return place.root / "assets/ursa/catalog/v1" / table / "_delta_log"


def grow(place: Place, checkpoints: Sequence[int] = ()) -> None:
    """A recording in each of 25 commits, with checkpoints at these versions."""
    table = place.catalog().recordings
    for number in range(COMMITS):
        table.commit(Change([recording(number)], None, "test"))
        if table.version in checkpoints:
            table.write_checkpoint()


def names(tap: Tap, method: str, part: str = "") -> list[str]:
    """The last parts of the keys that were asked for so, in order."""
    return sorted(key.rpartition("/")[2] for how, key in tap.log if how == method and part in key)


# --- the first time


@pytest.mark.parametrize("page_size", [1000, 4])
@pytest.mark.parametrize("hint", ["right", "missing", "garbage", "a list", "stale", "beyond", "negative", "gone"])
def test_a_cold_start(here: Place, there: Place, hint: str, page_size: int) -> None:
    """By whatever ``_last_checkpoint`` says, also where the log has more objects than one page."""
    grow(here, (9, 19))
    named = log_of(here) / "_last_checkpoint"
    version = {"stale": 9, "beyond": 99, "negative": -3, "gone": 14}.get(hint, 19)
    named.write_text({"garbage": "{", "a list": "[]"}.get(hint, json.dumps({"version": version, "size": 1})))
    if hint == "missing":
        named.unlink()
    tap = Tap(page_size=page_size)
    catalog = there.catalog(tap=tap)
    assert catalog.recordings.version == COMMITS
    # From the newest checkpoint on, with the commit that it is of: by that the next look finds its place.
    commits = [f"{number:020}.json" for number in range(19, COMMITS + 1)]
    assert [name for name in names(tap, "get", "recordings") if name.endswith(".json")] == commits
    assert catalog.list_recordings() == [recording(number) for number in range(COMMITS)]


@pytest.mark.parametrize("page_size", [1000, 4])
def test_a_cold_start_without_a_checkpoint(here: Place, there: Place, page_size: int) -> None:
    grow(here)
    assert not list(log_of(here).glob("*checkpoint*"))
    tap = Tap(page_size=page_size)
    catalog = there.catalog(tap=tap)
    assert catalog.list_recordings() == [recording(number) for number in range(COMMITS)]
    assert len(names(tap, "get", "recordings/_delta_log/0")) == COMMITS + 1


def test_a_cold_start_where_the_log_begins_late(here: Place, there: Place) -> None:
    """What is older than 90 days is gone."""
    grow(here, (9, 19))
    for version in range(19):
        (log_of(here) / f"{version:020}.json").unlink()
    catalog = there.catalog()
    assert catalog.list_recordings() == [recording(number) for number in range(COMMITS)]
    with pytest.raises(StorageError, match="version 7"):
        catalog.recordings.at(7)
    assert catalog.recordings.at(19).delta.version() == 19


@pytest.mark.parametrize("lost", ["one of two parts", "cut"])
def test_a_checkpoint_that_is_not_whole(here: Place, there: Place, lost: str) -> None:
    """The one before it, or the commits from the first one on, tell the same."""
    grow(here, (9, 19))
    newest = log_of(here) / f"{19:020}.checkpoint.parquet"
    if lost == "cut":
        newest.write_bytes(newest.read_bytes()[:-40])
    else:
        newest.rename(log_of(here) / f"{19:020}.checkpoint.{1:010}.{2:010}.parquet")
    assert there.catalog().list_recordings() == [recording(number) for number in range(COMMITS)]


def test_more_objects_than_a_page_of_a_server(on_server: Place, tmp_path: Path) -> None:
    """Of 1,100 objects two pages, or one from the checkpoint on."""
    home = on_server.home()
    prefix = "ursa/catalog/v1/participants/_delta_log/"
    catalog = on_server.catalog()
    catalog.ensure_participants(["Ada"])
    first, _ = home.store.read(f"{prefix}{1:020}.json")
    moved = [json.loads(line) for line in first.splitlines()]
    plain = next(line for line in moved if "commitInfo" in line)
    client = _client(on_server)
    for version in range(2, 1100):
        lines = [plain, {"txn": {"appId": "a", "version": version}}]
        body = "".join(json.dumps(line) + "\n" for line in lines).replace("ursa_previous_sha256", "ursa_before")
        client.put_object(Bucket=on_server.bucket, Key=f"{prefix}{version:020}.json", Body=body.encode())
    tap = Tap()
    cold = on_server.elsewhere(tmp_path / "a").catalog(tap=tap)
    assert cold.participants.version == 1099
    # Two pages, and once more after the recordings' listing.
    assert sum(how == "list" and "participants" in key for how, key in tap.log) == 4
    cold.participants.write_checkpoint()
    tap.clear()
    again = on_server.elsewhere(tmp_path / "b").catalog(tap=tap)
    assert again.participants.version == 1099
    assert [row.display_name for row in again.list_participants()] == ["Ada"]
    assert len(names(tap, "get", "participants/_delta_log/0")) <= 3


def _client(place: Place) -> Any:
    return S3Server(place.endpoint_url, place.access_key, place.secret_key).client()


# --- later


def test_another_command_with_nothing_new(here: Place) -> None:
    """The pointer and three LISTs; no file of the log, and no data file."""
    register(here.catalog(), registration(1, participants=("Ada",)))
    assert len(here.catalog().list_recordings()) == 1
    tap = Tap()
    assert [row.rec_id for row in here.catalog(tap=tap).list_recordings()] == [rec_id(1)]
    assert sorted(how for how, _ in tap.log) == ["get", "list", "list", "list"]
    assert names(tap, "get") == ["ACTIVE.json"]


def test_what_is_new_is_fetched_by_name(here: Place, there: Place) -> None:
    """Three commits to a table: three GETs; no checkpoint, no hint, nothing that was read before."""
    register(here.catalog(), registration(0))
    tap = Tap()
    catalog = there.catalog(tap=tap)
    catalog.list_recordings()
    for number in (1, 2, 3):
        register(here.catalog(), registration(number))
    tap.clear()
    catalog.refresh()
    new = [f"{version:020}.json" for version in (2, 3, 4)]
    assert names(tap, "get") == sorted([*new, *new, "ACTIVE.json"])
    # The modalities and the participants once more, after the recordings' listing that showed something.
    assert len(names(tap, "list")) == 5
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(number) for number in range(4)]


def test_far_behind(here: Place, there: Place) -> None:
    """More than fifty commits behind, a checkpoint is cheaper."""
    tap = Tap()
    catalog = there.catalog(tap=tap)
    catalog.refresh()
    for number in range(62):
        add_recordings(here.catalog(), [recording(number)])
    tap.clear()
    catalog.refresh()
    assert catalog.recordings.version >= 62
    assert len(names(tap, "get", "recordings/_delta_log/")) < 25
    assert catalog.list_recordings() == [recording(number) for number in range(62)]


def test_two_handles_on_one_replica(here: Place) -> None:
    """Each sees what it has asked for, whatever the other one fetches."""
    one, two = here.catalog(), here.catalog()
    assert one.list_recordings() == two.list_recordings() == []
    register(one, registration(1))
    assert two.recordings.version == 0 and two.recordings.select() == []
    register(two, registration(2))
    assert [row.rec_id for row in two.list_recordings()] == [rec_id(1), rec_id(2)]
    assert one.recordings.version == 1 and len(one.recordings.select()) == 1
    assert len(one.list_recordings()) == len(one.list_modalities()) == 2


def test_a_log_in_the_replica_with_a_gap(here: Place) -> None:
    """What is lost on this disk is fetched again: only a gap in the bucket is damage."""
    for number in range(5):
        register(here.catalog(), registration(number))
    for lost in (2, 5):
        (here.catalog().recordings.replica.log / f"{lost:020}.json").unlink()
        assert len(here.catalog().list_recordings()) == 5


# --- data files


def test_only_the_files_that_a_question_needs(here: Place, there: Place) -> None:
    """By the log's statistics: of forty recordings in eight files, those of one file."""
    for first in range(0, 40, 5):
        add_recordings(here.catalog(), [recording(number) for number in range(first, first + 5)])
    tap = Tap()
    catalog = there.catalog(tap=tap)
    catalog.refresh()
    assert len(catalog.recordings.files()) == 8 and not names(tap, "get", ".parquet")
    assert catalog.find_recording(rec_id(12)) == recording(12)
    assert len(names(tap, "get", ".parquet")) == 1
    assert catalog.resolve(rec_id(13)[:-1]) == recording(13)
    assert len(names(tap, "get", ".parquet")) == 1
    assert catalog.list_recordings({"rec_id": [rec_id(0), rec_id(39)]}) == [recording(0), recording(39)]
    # An IN is from the first to the last: all between may hold it.
    assert len(set(names(tap, "get", ".parquet"))) == len(names(tap, "get", ".parquet")) == 8


def test_a_commit_fetches_what_it_writes_anew(here: Place, there: Place) -> None:
    for number in range(6):
        register(here.catalog(), registration(number))
    tap = Tap()
    catalog = there.catalog(tap=tap)
    register(catalog, registration(2, modality(2, bytes=77), overwrite=True))
    assert len(names(tap, "get", "recordings/part-")) == 1
    assert [row.bytes for row in catalog.list_modalities()] == [10, 10, 77, 10, 10, 10]
    assert len(DeltaTable(catalog.recordings.uri).file_uris()) == 6


@pytest.mark.parametrize("how", ["cut", "lost", "zeros", "text"])
@pytest.mark.parametrize("write", [False, True])
def test_a_copy_that_is_damaged_is_fetched_again(here: Place, how: str, write: bool) -> None:
    register_all(here.catalog(), [registration(number) for number in range(3)])
    here.catalog().list_recordings()
    (copy,) = here.catalog().recordings.replica.path.glob("*.parquet")
    size = copy.stat().st_size
    whole = {"cut": b"PAR1", "zeros": bytes(size), "text": b"x" * size}.get(how)
    copy.unlink()
    if whole is not None:
        copy.write_bytes(whole)
    tap = Tap()
    catalog = here.catalog(tap=tap)
    if write:
        register(catalog, registration(1, modality(1, bytes=77), overwrite=True))
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(0), rec_id(1), rec_id(2)]
    assert len(names(tap, "get", "recordings/part-")) == 1


def test_a_copy_that_goes_while_it_is_read(here: Place) -> None:
    """As by another process's ``ursa cache clear``: fetched again, in the same call."""
    register_all(here.catalog(), [registration(number) for number in range(3)])
    catalog = here.catalog()
    assert len(catalog.list_recordings()) == 3
    for copy in catalog.recordings.replica.path.glob("*.parquet"):
        copy.unlink()
    assert len(catalog.recordings.select()) == 3


# --- where it is kept


def _file(base: Path) -> Path:
    (base / "file").write_text("x")
    return base / "file"


PLACES: dict[str, Callable[[Path], Path]] = {
    "a file": _file,
    "nothing can be written": lambda _base: Path("/proc/ursa-cache"),
    "escapes": lambda base: base / "a%20b",
    "brackets": lambda base: base / "lab [2]",
    "braces": lambda base: base / "{a,b}",
    "a star": lambda base: base / "a*b?",
}


@pytest.mark.parametrize("where", PLACES)
def test_where_nothing_can_be_kept(tmp_path: Path, where: str) -> None:
    """A temporary replica, gone with the catalog; all works."""
    cache = PLACES[where](tmp_path)
    place = Place(tmp_path, cache=cache)
    catalog = place.catalog()
    register(catalog, registration(1, participants=("Ada",)))
    directory = catalog.home.directory(catalog.pointer.prefix)
    assert directory.temporary and not str(directory.path).startswith(str(cache))
    register(place.catalog(), registration(1, modality(1, bytes=77), overwrite=True))
    assert [row.bytes for row in catalog.list_modalities()] == [77]
    kept = directory.path
    del catalog, directory
    gc.collect()
    assert not kept.exists()


def test_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: str) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platformdirs.user_cache_path", none)
    catalog = Catalog.open(replace(Place(tmp_path).home(), cache=None))
    register(catalog, registration(1))
    assert catalog.home.directory(catalog.pointer.prefix).temporary
    assert len(catalog.list_recordings()) == 1


@pytest.mark.parametrize("name", ["Frühstück", "a b", "a'b", "日本", "-x", "a#b", "a:b", "a+b&c"])
def test_a_cache_of_any_other_name_is_kept(tmp_path: Path, name: str) -> None:
    place = Place(tmp_path, cache=tmp_path / name)
    register(place.catalog(), registration(1))
    tap = Tap()
    catalog = place.catalog(tap=tap)
    assert len(catalog.list_modalities()) == 1
    assert not catalog.home.directory(catalog.pointer.prefix).temporary
    assert names(tap, "get") == ["ACTIVE.json"]


def test_it_is_nobody_elses_business(here: Place) -> None:
    here.catalog().refresh()
    assert here.cache
    made = [path for path in (here.cache / "catalog").iterdir() if path.is_dir()]
    assert made and all(path.stat().st_mode & 0o077 == 0 for path in made)


# --- who reads while others write


def register_some(place: Place, numbers: Sequence[int]) -> None:
    """What the other processes do."""
    catalog = place.catalog()
    for number in numbers:
        register(
            catalog, registration(number, modality(number), modality(number, "mic", ""), participants=(f"P{number}",))
        )


@pytest.fixture(scope="module")
def writers() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("shared", [True, False], ids=["one replica", "a replica each"])
def test_a_reader_sees_whole_recordings(
    on_server: Place, writers: ProcessPoolExecutor, tmp_path: Path, shared: bool
) -> None:
    """Never one without its modalities, or without the names of its participants; each process on its own machine, or
    all on one.
    """
    places = [on_server if shared else on_server.elsewhere(tmp_path / f"writer{number}") for number in range(2)]
    jobs = [
        writers.submit(register_some, place, range(start, start + 6))
        for place, start in zip(places, (0, 6), strict=True)
    ]
    catalog, seen = on_server.catalog(), 0
    fresh = threading.Event()
    while not all(job.done() for job in jobs) or seen < 12:
        catalog = on_server.catalog() if fresh.is_set() else catalog
        (fresh.clear if fresh.is_set() else fresh.set)()
        seen = max(seen, _whole(catalog))
        for job in jobs:
            if job.done():
                job.result()
    assert seen == 12


def _whole(catalog: Catalog) -> int:
    catalog.refresh()
    rows = catalog.recordings.select()
    workers: dict[str, set[tuple[str, str]]] = {}
    for row in catalog.modalities_for(rows):
        workers.setdefault(row.rec_id, set()).add((row.modality, row.worker_id))
    assert workers == {row.rec_id: workers_of(row) for row in rows}
    there = {row.participant_id for row in catalog.participants.select()}
    assert all(there.issuperset(row.participant_ids) for row in rows)
    return len(rows)
