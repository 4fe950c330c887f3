"""Commits: of two writers exactly one wins, a lost reply is no lost race, and old tables stay readable."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bucket_tap import Go, Tap, commit_of
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from homes import (
    AUTHOR,
    Place,
    add_modalities,
    add_recordings,
    modality,
    rec_id,
    recording,
    recording_hash,
    registration,
)

import ursa.catalog.tables as tables
from conftest import Buckets, MakeConfig
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface
from ursa.catalog.arrow import RECORDINGS
from ursa.catalog.catalog import Catalog
from ursa.catalog.layout import SMALL_EVERY
from ursa.catalog.tables import Change
from ursa.errors import ConflictError, CredentialsError, RecordingExistsError, StorageError
from ursa.policies import Action
from ursa.register.commit import register
from ursa.store import TransientError

WRITERS = 4
EACH = 10
ROUNDS = 3


@pytest.fixture
def catalog(tmp_path: Path, tap: Tap) -> Catalog:
    Place(tmp_path).home().initialize()
    return Place(tmp_path).catalog(tap=tap)


@pytest.fixture
def tap() -> Tap:
    """What the requests of ``catalog`` go through."""
    return Tap()


@pytest.fixture(params=["local", "weed"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty catalog."""
    if request.param == "local":
        found = Place(tmp_path)
    else:
        buckets: Buckets = request.getfixturevalue("weed_buckets")
        server = buckets.server
        found = Place(None, server.endpoint_url, buckets.assets, server.access_key, server.secret_key)
    found.home().initialize()
    return found


@pytest.fixture(scope="module")
def writers() -> Iterator[ProcessPoolExecutor]:
    """Processes of their own, as on several machines."""
    with ProcessPoolExecutor(WRITERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


# What the other processes do: these are looked up by name there.


def register_many(place: Place, writer: int) -> list[str]:
    """Register ten recordings of its own, all with one participant of its own and one of everybody's."""
    catalog = place.catalog()
    numbers = range(writer * EACH, (writer + 1) * EACH)
    return [
        register(catalog, registration(number, participants=("Everybody", f"Writer {writer}")))[1] for number in numbers
    ]


def register_same(place: Place, writer: int, number: int) -> str:
    """Register the recording that everybody registers; what came of it."""
    try:
        return register(place.catalog(), registration(number, duration_s=float(writer)))[1]
    except RecordingExistsError as error:
        return f"{type(error).__name__} {error.rec_id}"


# --- races


def test_registrations_side_by_side(place: Place, writers: ProcessPoolExecutor) -> None:
    done = list(writers.map(register_many, [place] * WRITERS, range(WRITERS)))
    assert done == [[Action.CREATED] * EACH] * WRITERS
    catalog = place.catalog()
    found = Counter(row.rec_id for row in catalog.list_recordings())
    assert found == Counter(rec_id(number) for number in range(WRITERS * EACH))
    workers = Counter((row.recording_hash, row.modality, row.worker_id) for row in catalog.list_modalities())
    assert workers == Counter((recording_hash(number), "eeg", "a") for number in range(WRITERS * EACH))
    names = Counter(row.display_name for row in catalog.list_participants())
    assert names == Counter(["Everybody", *(f"Writer {writer}" for writer in range(WRITERS))])
    assert all(len(row.participant_ids) == 2 for row in catalog.list_recordings())


def test_the_same_recording_by_all(place: Place, writers: ProcessPoolExecutor) -> None:
    for number in range(ROUNDS):
        done = Counter(writers.map(register_same, [place] * WRITERS, range(WRITERS), [number] * WRITERS))
        assert done == {Action.CREATED: 1, f"RecordingExistsError {rec_id(number)}": WRITERS - 1}
    catalog = place.catalog()
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(number) for number in range(ROUNDS)]
    assert len(catalog.list_modalities()) == ROUNDS


def test_a_commit_in_between_makes_us_decide_again(tmp_path: Path) -> None:
    ours, theirs = Place(tmp_path).catalog(), Place(tmp_path).catalog()
    seen: list[int] = []

    def decide() -> Change[Any]:
        seen.append(len(ours.recordings.select()))
        if len(seen) < 3:
            add_recordings(theirs, [recording(len(seen))])
        return Change([recording(9)], None, "test")

    assert ours.recordings.compare_and_swap(decide)
    assert seen == [0, 1, 2]
    assert [row.rec_id for row in ours.list_recordings()] == [rec_id(1), rec_id(2), rec_id(9)]


def test_a_loser_decides_by_what_came_while_it_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a writer that commits all the time, who waits and then goes by what it saw before loses again and again."""
    ours, theirs = Place(tmp_path).catalog(), Place(tmp_path).catalog()
    decisions: list[int] = []
    others = iter(range(100, 200))

    def meanwhile(_seconds: float) -> None:
        monkeypatch.setattr("ursa.catalog.tables.time.sleep", lambda _: None)
        add_recordings(theirs, [recording(next(others))])
        monkeypatch.setattr("ursa.catalog.tables.time.sleep", meanwhile)

    def decide() -> Change[Any]:
        decisions.append(ours.recordings.version)
        if len(decisions) < 3:
            meanwhile(0)
        return Change([recording(9, duration_s=float(len(decisions)))], None, "test")

    monkeypatch.setattr("ursa.catalog.tables.time.sleep", meanwhile)
    ours.recordings.compare_and_swap(decide)
    assert len(decisions) == 3
    assert rec_id(9) in {row.rec_id for row in theirs.list_recordings()}


def test_what_decide_raises_ends_it(catalog: Catalog) -> None:
    def refuse() -> Change[Any]:
        raise LookupError

    version = catalog.recordings.version
    with pytest.raises(LookupError):
        catalog.recordings.compare_and_swap(refuse)
    assert not catalog.recordings.compare_and_swap(lambda: None)
    assert catalog.recordings.version == version


# --- registrations


def test_created_then_there(catalog: Catalog) -> None:
    row, action = register(catalog, registration(1, participants=("Ada",)))
    assert action is Action.CREATED
    assert catalog.find_recording(rec_id(1)).participant_ids == catalog.ensure_participants(["ada"])
    with pytest.raises(RecordingExistsError):
        register(catalog, registration(1))
    assert catalog.list_recordings() == [row]
    assert catalog.list_modalities() == [modality(1)]


def test_a_second_half_is_merged(catalog: Catalog) -> None:
    register(catalog, registration(1, participants=("Ada",)))
    half = registration(1, modality(1, "mic", ""), participants=("Zoë",), duration_s=90.0)
    row, action = register(catalog, half)
    assert action is Action.MERGED
    assert row.duration_s == 90.0
    assert row.participant_ids == tuple(sorted(catalog.ensure_participants(["Ada", "Zoë"])))
    assert [worker.name for worker in catalog.list_modalities()] == ["eeg_a", "mic"]
    assert len(catalog.list_recordings()) == 1


def test_a_derived_hash_gives_way_to_the_registered_one(catalog: Catalog) -> None:
    register(catalog, registration(1))
    other = registration(1, modality(2, "mic", "", rec_id=rec_id(1)), recording_hash=recording_hash(2))
    row, _ = register(catalog, other)
    assert row.recording_hash == recording_hash(1)
    assert {worker.recording_hash for worker in catalog.list_modalities()} == {recording_hash(1)}
    assert len(catalog.list_modalities()) == 2


def test_overwrite_replaces_its_own_workers_only(catalog: Catalog) -> None:
    register(catalog, registration(1, modality(1, "eeg", "a"), modality(1, "mic", "")))
    _, action = register(catalog, registration(1, modality(1, "eeg", "a", bytes=77), overwrite=True, status="new"))
    assert action is Action.OVERWRITTEN
    assert {worker.name: worker.bytes for worker in catalog.list_modalities()} == {"eeg_a": 77, "mic": 10}
    assert len(catalog.list_recordings()) == 1


def test_a_contradiction_writes_nothing(catalog: Catalog) -> None:
    register(catalog, registration(1))
    versions = [table.version for table in (catalog.recordings, catalog.modalities, catalog.participants)]
    (file,) = modality(1).files
    changed = modality(1, files=(replace(file, size_bytes=11),))
    with pytest.raises(ConflictError):
        register(catalog, registration(1, changed, participants=("Ada",)))
    assert [table.version for table in (catalog.recordings, catalog.modalities, catalog.participants)] == versions


def test_modalities_of_a_dead_run_are_taken_over(catalog: Catalog) -> None:
    add_modalities(catalog, [modality(1)])
    assert catalog.list_modalities() == []
    _, action = register(catalog, registration(1))
    assert action is Action.CREATED
    assert len(catalog.list_modalities()) == 1


def test_every_commit_says_who_and_what(catalog: Catalog) -> None:
    register(catalog, registration(1))
    (commit,) = DeltaTable(catalog.recordings.uri).history(1)
    assert commit["ursa_who"] == AUTHOR.who
    assert commit["ursa_host"] == AUTHOR.host
    assert commit["ursa_version"] == AUTHOR.version
    assert commit["ursa_operation"] == "ingest:created"
    assert len(commit["ursa_op_id"]) == 32


# --- replies that are lost


@pytest.mark.parametrize("then", ["told", "lost again", "denied"])
def test_a_lost_reply_is_no_lost_race(catalog: Catalog, tap: Tap, then: str) -> None:
    """Whatever the server says when the same bytes are put again: what is there is ours."""
    tap.lose(commit_of("recordings"))
    if then == "lost again":
        tap.lose(commit_of("recordings"))
    elif then == "denied":
        tap.fail(commit_of("recordings"), CredentialsError("403"))
    decisions: list[int] = []

    def decide() -> Change[Any]:
        decisions.append(1)
        return Change([recording(1)], None, "test")

    assert catalog.recordings.compare_and_swap(decide)
    assert decisions == [1]
    assert len(catalog.list_recordings()) == 1


@pytest.mark.parametrize("number", range(5))
def test_a_registration_survives_a_lost_reply(catalog: Catalog, tap: Tap, number: int) -> None:
    """To any of its commits: participants, modalities, recording; and to the merge of a second half."""
    catalog.refresh()
    passed = tap.add(commit_of(), lambda go: go(), number)
    lost = tap.lose(commit_of())
    rest = tap.add(commit_of(), lambda go: go(), None)
    assert register(catalog, registration(1, participants=("Ada",)))[1] is Action.CREATED
    assert register(catalog, registration(1, modality(1, "mic", "")))[1] is Action.MERGED
    # Once more for the one that was lost.
    assert (passed.hits, lost.hits, passed.hits + lost.hits + rest.hits) == (number, 1, 6)
    assert len(catalog.list_recordings()) == 1
    assert [worker.name for worker in catalog.list_modalities()] == ["eeg_a", "mic"]
    assert len(catalog.list_participants()) == 1


@pytest.mark.parametrize("doubtful", [False, True])
def test_somebody_elses_commit_is_not_ours(tmp_path: Path, catalog: Catalog, tap: Tap, doubtful: bool) -> None:
    """Whether our own attempt is known to have come too late, or its reply was lost."""
    theirs = Place(tmp_path).catalog()

    def too_late(go: Go) -> Any:
        add_recordings(theirs, [recording(2)])
        if doubtful:
            raise TransientError("timed out")
        return go()

    tap.add(commit_of("recordings"), too_late)
    add_recordings(catalog, [recording(1)])
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1), rec_id(2)]
    assert [commit["ursa_attempt"] for commit in catalog.recordings.history(2)] == ["2", "1"]


def test_a_store_that_fails_for_good(catalog: Catalog, tap: Tap) -> None:
    """It is told at once: nothing is in doubt."""
    tap.fail(commit_of("recordings"), StorageError("no space left", key="x"), None)
    with pytest.raises(StorageError, match=r"no space left$"):
        add_recordings(catalog, [recording(1)])
    assert tap.rules[0].hits == 1
    assert catalog.list_recordings() == []


def test_a_commit_that_can_not_be_made(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this disk, by deltalake: it is told in our words, and nothing was put."""

    def fail(*_args: Any, **_options: Any) -> None:
        raise DeltaError("\x1b[31mno space\x1b[0m\nleft")

    monkeypatch.setattr(tables, "write_deltalake", fail)
    with pytest.raises(StorageError, match=r"can't write .*recordings: no space left$"):
        add_recordings(catalog, [recording(1)])
    assert catalog.list_recordings() == []


# --- growth and age


def test_compaction_keeps_the_rows(catalog: Catalog) -> None:
    for number in range(25):
        catalog.ensure_participants([f"P {number:02}"])
        if catalog.participants.version < SMALL_EVERY:
            assert len(DeltaTable(catalog.participants.uri).file_uris()) == number + 1
    assert len(DeltaTable(catalog.participants.uri).file_uris()) < 10
    names = [row.display_name for row in catalog.list_participants()]
    assert names == [f"P {number:02}" for number in range(25)]
    operations = [commit.get("ursa_operation") for commit in DeltaTable(catalog.participants.uri).history()]
    assert operations.count("compact") == 1


def test_a_failing_compaction_is_no_error(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise DeltaError("somebody else compacts")

    monkeypatch.setattr("deltalake.table.TableOptimizer.compact", fail)
    for number in range(21):
        catalog.ensure_participants([f"P {number}"])
    assert len(catalog.list_participants()) == 21


def test_compaction_keeps_maps_and_lists(catalog: Catalog) -> None:
    rows = [recording(number, metadata={"a": "ü", "": ""}, participant_ids=("p", "q")) for number in range(21)]
    workers = [modality(number) for number in range(21)]
    for row, worker in zip(rows, workers, strict=True):
        add_recordings(catalog, [row])
        add_modalities(catalog, [worker])
    assert catalog.list_recordings() == rows
    assert catalog.list_modalities() == workers


def make_newer(root: Path, name: str) -> None:
    """Give an existing table the schema version of an ursa to come."""
    DeltaTable(str(root / "assets" / "ursa" / "catalog" / "v1" / name)).alter.set_table_properties(
        {"ursa.schemaVersion": "2"}, raise_if_not_exists=False
    )


@pytest.mark.parametrize("name", ["recordings", "modalities", "participants"])
def test_a_newer_table_is_refused(catalog: Catalog, tmp_path: Path, name: str) -> None:
    make_newer(tmp_path, name)
    with pytest.raises(
        StorageError, match=rf"{name} was written by a newer ursa \(schema version 2, this one knows 1\)"
    ) as caught:
        Place(tmp_path).catalog().list_participants()
    assert "pip install --upgrade ursa" in (caught.value.hint or "")


def test_a_table_that_becomes_newer_is_not_written(catalog: Catalog, tmp_path: Path) -> None:
    """A process that has had it open since before must not write what the newer ursa would not understand."""
    make_newer(tmp_path, "recordings")
    with pytest.raises(StorageError, match="newer ursa"):
        register(catalog, registration(1))


def test_columns_that_a_newer_ursa_added_are_left_aside(catalog: Catalog, tmp_path: Path) -> None:
    catalog.ensure_participants(["Ada"])
    before = catalog.list_participants()
    DeltaTable(catalog.participants.uri).alter.add_columns([RECORDINGS.schema.fields[7]])
    assert Place(tmp_path).catalog().list_participants() == before
    assert catalog.list_participants() == before


# --- how requests get there


def test_the_environment_does_not_matter(
    moto_buckets: Buckets,
    s3_config: MakeConfig,
    fault_proxy: Callable[[S3Server], FaultProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """deltalake would take all of these; it asks no server."""
    proxy = fault_proxy(moto_buckets.server)
    data = DataInterface(config_path=s3_config(moto_buckets.at(proxy.url)))
    data.enable_writes()
    for name, value in {
        "AWS_SESSION_TOKEN": "t0ken-that-nobody-may-read",
        "AWS_ACCESS_KEY_ID": "other-key",
        "AWS_SECRET_ACCESS_KEY": "other-secret",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_REGION": "mars-north-1",
        "AWS_ALLOW_HTTP": "false",
        "AWS_PROXY_URL": "http://127.0.0.1:9",
        "AWS_CONDITIONAL_PUT": "disabled",
    }.items():
        monkeypatch.setenv(name, value)
    assert data.init_catalog()
    assert data.register_participant("Ada")
    assert data.list_recordings() == []
    assert proxy.count() > 10
    # deltalake sends nothing.
    assert not [entry.method for entry in proxy.log if "object_store" in str(entry.headers)]
    sent = "".join(str(request.headers) for request in proxy.log)
    assert not [word for word in ("t0ken", "other-", "mars") if word in sent]


def test_without_a_session_token_none_is_sent(
    moto_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Callable[[S3Server], FaultProxy]
) -> None:
    """R2 refuses an empty X-Amz-Security-Token (InvalidArgument), as AWS does."""
    proxy = fault_proxy(moto_buckets.server)
    data = DataInterface(config_path=s3_config(moto_buckets.at(proxy.url)))
    data.enable_writes()
    assert data.init_catalog()
    assert not [request for request in proxy.log if "x-amz-security-token" in map(str.lower, request.headers)]
