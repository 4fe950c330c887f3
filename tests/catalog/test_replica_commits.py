"""Commits beside others: other tools, older versions, other machines, and runs that are killed between two requests."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bucket_tap import Tap, commit_of
from deltalake import CommitProperties, DeltaTable, QueryBuilder, write_deltalake
from homes import Place, add_recordings, modality, rec_id, recording, recording_hash, registration

from conftest import Buckets
from foreign import options_for
from servers import S3Server
from ursa.catalog._pointer import write_pointer
from ursa.catalog.arrow import RECORDINGS
from ursa.catalog.compact import compact
from ursa.catalog.home import KINDS
from ursa.catalog.replica.checkpoint import OWED_AFTER
from ursa.catalog.rows import RecordingRow
from ursa.catalog.tables import FrozenError
from ursa.errors import RecordingExistsError
from ursa.policies import Action
from ursa.register.commit import register

KILLED = Path(__file__).parent / "killed_commit.py"
WRITERS, EACH, ROUNDS = 8, 12, 10


@pytest.fixture(params=["local", "weed"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty catalog, and this machine's replica."""
    if request.param == "local":
        found = Place(tmp_path, cache=tmp_path / "here")
    else:
        found = on_server(request.getfixturevalue("weed_buckets"), tmp_path)
    found.home().initialize()
    return found


def on_server(buckets: Buckets, tmp_path: Path) -> Place:
    server = buckets.server
    key, secret = server.access_key, server.secret_key
    return Place(None, server.endpoint_url, buckets.assets, key, secret, tmp_path / "here")


@pytest.fixture
def local(tmp_path: Path) -> Place:
    place = Place(tmp_path, cache=tmp_path / "here")
    place.home().initialize()
    return place


# --- other tools


def theirs(place: Place, table: str = "recordings") -> DeltaTable:
    """A table in the bucket, as any other tool has it."""
    uri = place.home().table_uri("catalog/v1", table)
    if place.root:
        return DeltaTable(uri)
    server = S3Server(place.endpoint_url, place.access_key, place.secret_key)
    return DeltaTable(uri, storage_options=options_for(server))


def append(place: Place, *rows: RecordingRow) -> None:
    write_deltalake(theirs(place), RECORDINGS.table(rows), mode="append")


def rec_ids(place: Place, table: str = "recordings") -> list[str]:
    """What another tool reads."""
    builder = QueryBuilder().register("t", theirs(place, table))
    return sorted(builder.execute("SELECT rec_id FROM t").read_all()["rec_id"].to_pylist())


def chained(place: Place, table: str = "recordings") -> list[bool]:
    """Of each commit whether it names the one before it by its sha256; those of others do not."""
    home, prefix = place.home(), f"ursa/catalog/v1/{table}/_delta_log/"
    names = sorted(info.key for info in home.store.list(prefix) if info.key.endswith(".json"))
    bodies = [home.store.read(name)[0] for name in names]
    found = []
    for before, body in pairwise(bodies):
        info = next(line["commitInfo"] for line in map(json.loads, body.splitlines()) if "commitInfo" in line)
        stated = info.get("ursa_previous_sha256")
        assert stated in (None, hashlib.sha256(before).hexdigest())
        found.append(stated is not None)
    return found


def test_another_tool_commits_beside_us(place: Place) -> None:
    """We see it, come after it, and the chain goes on from its commit."""
    catalog = place.catalog()
    add_recordings(catalog, [recording(1)])
    append(place, recording(2))
    assert catalog.list_recordings() == [recording(1), recording(2)]
    add_recordings(catalog, [recording(3)])
    theirs(place).delete(f"rec_id = '{rec_id(1)}'")
    theirs(place).optimize.compact()
    assert catalog.list_recordings() == [recording(2), recording(3)]
    add_recordings(catalog, [recording(4)])
    assert rec_ids(place) == [rec_id(2), rec_id(3), rec_id(4)]
    assert chained(place)[0] and chained(place)[-1] and not all(chained(place))


def test_another_tool_is_faster(place: Place) -> None:
    """The race is lost to it as to one of us."""
    tap = Tap()
    catalog = place.catalog(tap=tap)
    add_recordings(catalog, [recording(1)])
    tap.before(commit_of("recordings"), lambda: append(place, recording(2)))
    assert register(catalog, registration(3))[1] is Action.CREATED
    assert rec_ids(place) == [rec_id(1), rec_id(2), rec_id(3)]
    tap.before(commit_of("recordings"), lambda: append(place, recording(4)))
    with pytest.raises(RecordingExistsError):
        register(catalog, registration(4))
    assert rec_ids(place) == [rec_id(1), rec_id(2), rec_id(3), rec_id(4)]


def test_another_tools_checkpoint_and_clean_up(local: Place, tmp_path: Path) -> None:
    catalog = local.catalog()
    for number in range(4):
        add_recordings(catalog, [recording(number)])
    theirs(local).create_checkpoint()
    for version in range(4):
        Path(catalog.recordings.uri, "_delta_log", f"{version:020}.json").unlink()
    add_recordings(catalog, [recording(4)])
    for reader in (catalog, local.elsewhere(tmp_path / "there").catalog()):
        assert reader.list_recordings() == [recording(number) for number in range(5)]


@pytest.mark.parametrize("tool", ["duckdb", "polars"])
def test_other_tools_read_what_we_write(local: Place, tool: str) -> None:
    module = pytest.importorskip(tool)
    catalog = local.catalog()
    for number in range(OWED_AFTER + 5):
        register(catalog, registration(number, participants=("Ada",)))
    compact(catalog)
    register(catalog, registration(2, modality(2, bytes=77), overwrite=True))
    uri = catalog.modalities.uri
    if tool == "polars":
        seen = module.read_delta(uri).select("rec_id", "bytes").rows()
    else:
        try:
            seen = module.sql(f"SELECT rec_id, bytes FROM delta_scan('{uri}')").fetchall()
        except module.Error:
            pytest.skip("the delta extension of DuckDB is not here")
    assert sorted(seen) == [(rec_id(number), 77 if number == 2 else 10) for number in range(OWED_AFTER + 5)]


# --- older versions


def make_older(place: Place, commits: int) -> None:
    """A catalog as deltalake itself made it for the versions before, without a sha256, a chain, or a writer's id."""
    home = place.home()
    about = {"ursa_op_id": "0" * 32, "ursa_operation": "ingest:created", "ursa_who": "ada", "ursa_rows": "1"}
    options: dict[str, Any] = {"commit_properties": CommitProperties(max_commit_retries=0, custom_metadata=about)}
    properties = {"delta.checkpointInterval": "10", "ursa.schemaVersion": "1"}
    for kind in KINDS:
        uri = home.table_uri("catalog/v1", kind.name)
        DeltaTable.create(uri, kind.schema, configuration=properties, raise_if_key_not_exists=False, **options)
    for number in range(commits):
        for kind, row in ((KINDS[1], modality(number)), (KINDS[0], registration(number).row)):
            write_deltalake(theirs(place, kind.name), kind.table([row]), mode="append", **options)
    write_pointer(home.store, home.assets_prefix, "catalog/v1", by="ada", replacing=None)


@pytest.mark.parametrize("commits", [3, 25])
def test_a_catalog_of_the_version_before(tmp_path: Path, commits: int) -> None:
    """It is read, takes commits, and the version before reads on."""
    place = Place(tmp_path, cache=tmp_path / "here")
    make_older(place, commits)
    assert bool(list((tmp_path / "assets").rglob("*.checkpoint.parquet"))) is (commits > 10)
    catalog = place.catalog()
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(number) for number in range(commits)]
    assert register(catalog, registration(commits, participants=("Ada",)))[1] is Action.CREATED
    register(catalog, registration(1, modality(1, bytes=77), overwrite=True))
    with pytest.raises(RecordingExistsError):
        register(catalog, registration(0))
    compact(catalog)
    append(place, recording(commits + 1))
    for reader in (catalog, place.elsewhere(tmp_path / "there").catalog()):
        assert len(reader.list_recordings()) == commits + 2
        assert [row.bytes for row in reader.list_modalities()][:3] == [10, 77, 10]
    assert rec_ids(place) == [rec_id(number) for number in range(commits + 2)]


# --- killed


def run_killed(place: Place, number: int, point: int, when: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KILLED), str(place.root), str(place.cache), str(number), str(point), when]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_put(local: Place, tmp_path: Path, when: str) -> None:
    """Of a data file, of the log, of a checkpoint: every row once, nothing half is visible, to no tool at any time."""
    for number in range(OWED_AFTER):
        register(local.catalog(), registration(number, participants=("Ada",)))
    # A data file and a commit of each table, and a checkpoint and its name where ten commits came before.
    for point in range(1, 12):
        root = Path(shutil.copytree(tmp_path / "assets", tmp_path / f"{point}" / "assets")).parent
        place = Place(root, cache=root / "cache")
        killed = run_killed(place, 100, point, when)
        assert killed.returncode == (0 if point == 11 else -signal.SIGKILL), killed.stderr
        _look(place)
        again = run_killed(place, 100, 99, when)
        assert again.returncode == 0, again.stderr
        _look(place)
        assert rec_ids(place).count(rec_id(100)) == rec_ids(place, "modalities").count(rec_id(100)) == 1
        shutil.rmtree(root)
    assert killed.stdout == "10\n"


def _look(place: Place) -> None:
    """By this machine, by one that has never read it, and by another tool."""
    theirs_now = Counter(rec_ids(place))
    cold = place.root / "cold"  # type: ignore[operator]
    for reader in (place.catalog(), place.elsewhere(cold).catalog()):
        rows, workers = reader.list_recordings(), reader.list_modalities()
        assert Counter(row.rec_id for row in rows) == theirs_now
        assert Counter(row.rec_id for row in workers) == theirs_now
        known = {row.participant_id for row in reader.list_participants()}
        assert all(known.issuperset(row.participant_ids) for row in rows)
    assert set(theirs_now.values()) == {1}
    shutil.rmtree(cold)


def test_the_loser_makes_no_checkpoint(local: Place) -> None:
    """Where one is owed, and the race is lost: each checkpoint in the bucket has what the commits say, and no more."""
    tap, other = Tap(), local.catalog()
    catalog = local.catalog(tap=tap)
    for number in range(2 * OWED_AFTER + 6):
        tap.before(commit_of("recordings"), lambda number=number: add_recordings(other, [recording(200 + number)]))
        add_recordings(catalog, [recording(number)])
    log = Path(catalog.recordings.uri, "_delta_log")
    checkpoints = sorted(int(path.name[:20]) for path in log.glob("*.checkpoint.parquet"))
    assert len(checkpoints) >= 2
    for version in checkpoints:
        by_commits, by_checkpoint = _alone(log, version, "commits"), _alone(log, version, "checkpoint")
        assert by_commits == by_checkpoint
        shutil.rmtree(log.parent.with_name("alone"))


def _alone(log: Path, version: int, by: str) -> list[str]:
    """The data files of a version, read from nothing but the commits, or from the checkpoint."""
    alone = log.parent.with_name("alone") / by / "_delta_log"
    alone.mkdir(parents=True)
    names = {"commits": f"{'[0-9]' * 20}.json", "checkpoint": f"{version:020}.*"}[by]
    for path in log.glob(names):
        shutil.copy(path, alone)
    found = DeltaTable(str(alone.parent), version=version).file_uris()
    return sorted(Path(uri).name for uri in found)


def test_the_losers_rows_are_in_no_version(local: Place) -> None:
    """Its data file may be in the bucket: no commit and no checkpoint names it."""
    tap, other = Tap(), local.catalog()
    catalog = local.catalog(tap=tap)
    catalog.refresh()

    def both() -> None:
        add_recordings(other, [recording(1)])

    tap.before(commit_of("recordings"), both)
    with pytest.raises(RecordingExistsError):
        register(catalog, registration(1, duration_s=5.0))
    catalog.recordings.put_checkpoint()
    (row,) = local.catalog().list_recordings()
    assert row.duration_s == 60.0
    assert len(DeltaTable(catalog.recordings.uri).file_uris()) == 1


def test_an_append_that_lost_uses_its_data_file_again(local: Place) -> None:
    """What it says is as right after the other's commit: one data file, and one more PUT of a commit."""
    tap, other = Tap(), local.catalog()
    catalog = local.catalog(tap=tap)
    catalog.refresh()
    for number in (1, 2, 3):
        tap.before(commit_of("recordings"), lambda number=number: add_recordings(other, [recording(number)]))
    add_recordings(catalog, [recording(9)])
    assert catalog.list_recordings() == [recording(number) for number in (1, 2, 3, 9)]
    puts = [key for how, key in tap.log if how == "put" and "recordings/" in key]
    assert sum(key.endswith(".parquet") for key in puts) == 1
    assert sum(commit_of("recordings")("put", key) for key in puts) == 4
    assert catalog.recordings.history(1)[0]["ursa_attempt"] == "4"
    assert len(list(Path(catalog.recordings.uri).glob("*.parquet"))) == 4
    assert all(chained(local))


def test_a_property_that_changed_meanwhile_is_not_gone_by(local: Place) -> None:
    """A freeze that comes in between is seen, though the rows would fit."""
    tap, other = Tap(), local.catalog()
    catalog = local.catalog(tap=tap)
    catalog.refresh()
    other.refresh()
    tap.before(commit_of("recordings"), lambda: other.recordings.set_frozen("catalog/v2"))
    with pytest.raises(FrozenError):
        add_recordings(catalog, [recording(1)])
    assert rec_ids(local) == []


# --- many machines


@pytest.fixture(scope="module")
def writers() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(WRITERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def register_many(place: Place, writer: int) -> list[str]:
    catalog = place.catalog()
    numbers = range(writer * EACH, (writer + 1) * EACH)
    return [register(catalog, registration(number, participants=("Everybody",)))[1] for number in numbers]


def register_same(place: Place, writer: int, number: int) -> str:
    try:
        return register(place.catalog(), registration(number, duration_s=float(writer)))[1]
    except RecordingExistsError:
        return "exists"


def machines(place: Place, tmp_path: Path, shared: bool) -> list[Place]:
    return [place if shared else place.elsewhere(tmp_path / f"machine{number}") for number in range(WRITERS)]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["one replica", "a replica each"])
def test_eight_processes_with_twelve_recordings_each(
    weed_buckets: Buckets, writers: ProcessPoolExecutor, tmp_path: Path, shared: bool
) -> None:
    place = on_server(weed_buckets, tmp_path)
    place.home().initialize()
    done = list(writers.map(register_many, machines(place, tmp_path, shared), range(WRITERS)))
    assert done == [[Action.CREATED] * EACH] * WRITERS
    everybody = range(WRITERS * EACH)
    for reader in (place.catalog(), place.elsewhere(tmp_path / "cold").catalog()):
        assert Counter(row.rec_id for row in reader.list_recordings()) == Counter(map(rec_id, everybody))
        workers = Counter((row.recording_hash, row.name) for row in reader.modalities.select())
        assert workers == Counter((recording_hash(number), "eeg_a") for number in everybody)
        assert [row.display_name for row in reader.list_participants()] == ["Everybody"]
    assert rec_ids(place) == [rec_id(number) for number in everybody]
    assert all(chained(place)) and all(chained(place, "modalities"))


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["one replica", "a replica each"])
def test_ten_rounds_of_eight_on_one_recording(
    weed_buckets: Buckets, writers: ProcessPoolExecutor, tmp_path: Path, shared: bool
) -> None:
    place = on_server(weed_buckets, tmp_path)
    place.home().initialize()
    for number in range(ROUNDS):
        places = machines(place, tmp_path, shared)
        done = Counter(writers.map(register_same, places, range(WRITERS), [number] * WRITERS))
        assert done == {Action.CREATED: 1, "exists": WRITERS - 1}
    assert rec_ids(place) == rec_ids(place, "modalities") == [rec_id(number) for number in range(ROUNDS)]
    assert len(place.catalog().list_modalities()) == ROUNDS
