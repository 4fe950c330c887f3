"""A commit whose reply was lost: it is looked for until the server tells, and nothing else is said before."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket_tap import Go, Tap, commit_of
from homes import AUTHOR, Place, add_recordings, modality, rec_id, recording, registration

import ursa.catalog.replica.commit as commits
from conftest import Buckets
from proxy import FaultProxy
from servers import S3Server
from ursa.catalog.catalog import Catalog
from ursa.catalog.tables import Change
from ursa.errors import RecordingExistsError, StorageError, UnknownOutcomeError
from ursa.policies import Action
from ursa.register.commit import Registered, register, register_all
from ursa.store import PreconditionFailedError, TransientError


@pytest.fixture
def tap() -> Tap:
    return Tap()


@pytest.fixture
def catalog(tmp_path: Path, tap: Tap) -> Catalog:
    """Open, before anything is lost."""
    catalog = Place(tmp_path).catalog(tap=tap)
    catalog.refresh()
    return catalog


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "PAUSE_S", 0.01)


def lose(tap: Tap, looks: int | None) -> None:
    """Lose the reply to the recordings' next commit; after it so many PUTs of it, and looks at what is there, fail."""
    tap.lose(commit_of("recordings"))
    tap.fail(commit_of("recordings"), TransientError("connection refused"), looks)
    tap.fail(lambda method, key: method == "get" and commit_of("recordings")("put", key), StorageError("down"), looks)


def test_the_same_bytes_are_put_until_the_server_tells(catalog: Catalog, tap: Tap) -> None:
    """One failed look, and our own row was told to be another's: RecordingExistsError."""
    lose(tap, 3)
    assert register(catalog, registration(1))[1] is Action.CREATED
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1)]
    assert [rule.hits for rule in tap.rules] == [1, 3, 3]


def test_when_nothing_tells_that_is_what_is_said(catalog: Catalog, tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "GIVE_UP_AFTER_S", 0.2)
    lose(tap, None)
    decided: list[int] = []

    def decide() -> Change[Any]:
        decided.append(1)
        return Change([recording(1)], None, "test")

    with pytest.raises(
        UnknownOutcomeError, match="not known whether this was registered; the same command finds out"
    ) as e:
        catalog.recordings.compare_and_swap(decide)
    assert decided == [1] and e.value.exit_code == 1


def test_a_registration_passes_it_on(
    tmp_path: Path, catalog: Catalog, tap: Tap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each member of the group, once; and the same command finds out."""
    monkeypatch.setattr(commits, "GIVE_UP_AFTER_S", 0.2)
    lose(tap, None)
    outcomes = register_all(catalog, [registration(1), registration(2)])
    assert [type(outcome) for outcome in outcomes] == [UnknownOutcomeError] * 2
    tap.clear()
    for again in (Place(tmp_path).catalog(), Place(tmp_path).elsewhere(tmp_path / "elsewhere").catalog(), catalog):
        found = register_all(again, [registration(1), registration(2)])
        assert [type(outcome) for outcome in found] == [RecordingExistsError] * 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_refused_again_and_again_is_not_in_doubt_for_ever(catalog: Catalog, tap: Tap, status: int) -> None:
    """R2 answers 429 to the second write of a key within a second; nothing is decided anew meanwhile."""
    rule = tap.fail(commit_of("recordings"), TransientError(f"{status}"), 7)
    decided: list[int] = []

    def decide() -> Change[Any]:
        decided.append(1)
        return Change([recording(1)], None, "test")

    assert catalog.recordings.compare_and_swap(decide)
    assert (decided, rule.hits) == ([1], 7)
    assert catalog.list_recordings() == [recording(1)]


def test_refused_and_another_was_faster(tmp_path: Path, catalog: Catalog, tap: Tap) -> None:
    """A 429 on ``N.json``: somebody is writing it."""
    other = Place(tmp_path).catalog()

    def busy(_go: Go) -> Any:
        add_recordings(other, [recording(2)])
        raise TransientError("429")

    tap.add(commit_of("recordings"), busy)
    add_recordings(catalog, [recording(1)])
    assert catalog.list_recordings() == [recording(1), recording(2)]


def test_what_was_late_is_what_is_told(catalog: Catalog, tap: Tap) -> None:
    """Nothing is decided anew while it is on its way: the bytes that land are those of the only decision."""
    tap.delay(commit_of("recordings"))
    changes: list[Change[Any]] = []

    def decide() -> Change[Any]:
        changes.append(Change([recording(len(changes) + 1)], None, "test"))
        return changes[-1]

    assert catalog.recordings.compare_and_swap(decide) is changes[0]
    assert len(changes) == 1
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1)]
    (commit,) = catalog.recordings.history(1)
    assert (commit["ursa_attempt"], commit["ursa_who"]) == ("1", AUTHOR.who)


def test_late_by_more_than_we_wait(tmp_path: Path, catalog: Catalog, tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lands when we have given up and told so: the same command finds it."""
    monkeypatch.setattr(commits, "GIVE_UP_AFTER_S", 0.2)
    late: list[Go] = []

    def act(go: Go) -> Any:
        late.append(go)
        raise TransientError("timed out")

    tap.add(commit_of("recordings"), act, None)
    with pytest.raises(UnknownOutcomeError):
        register(catalog, registration(1))
    assert Place(tmp_path).catalog().list_recordings() == []
    tap.clear()
    late[0]()
    with pytest.raises(RecordingExistsError):
        register(catalog, registration(1))
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1)]
    assert catalog.list_modalities() == [modality(1)]


def test_a_group_whose_commit_was_late(catalog: Catalog, tap: Tap) -> None:
    tap.delay(commit_of("recordings"))
    outcomes = register_all(catalog, [registration(1), registration(2)])
    assert [isinstance(outcome, Registered) and outcome.action for outcome in outcomes] == [Action.CREATED] * 2
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1), rec_id(2)]
    assert sorted(row.rec_id for row in catalog.list_modalities()) == [rec_id(1), rec_id(2)]


def test_late_and_another_was_faster(tmp_path: Path, catalog: Catalog, tap: Tap) -> None:
    """It arrives when another's commit is there, and changes nothing; we decide again, and each row is there once."""
    other = Place(tmp_path).catalog()
    late: list[Go] = []

    def act(go: Go) -> Any:
        late.append(go)
        register(other, registration(2))
        raise TransientError("timed out")

    def arrive(go: Go) -> Any:
        with pytest.raises(PreconditionFailedError):
            late[0]()
        return go()

    tap.add(commit_of("recordings"), act)
    tap.add(commit_of("recordings"), arrive)
    assert register(catalog, registration(1))[1] is Action.CREATED
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1), rec_id(2)]


def test_a_table_that_takes_no_commits_of_ours_says_so(catalog: Catalog) -> None:
    """Nobody has committed: a table that can't be written says why at once, and not after two minutes of lost races.

    Another tool has switched on a feature that deltalake does not write.
    """
    log = Path(catalog.recordings.uri, "_delta_log")
    entries = [json.loads(line) for line in (log / f"{0:020}.json").read_text().splitlines()]
    metadata = next(entry for entry in entries if "metaData" in entry)
    metadata["metaData"]["configuration"]["delta.enableRowTracking"] = "true"
    features = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [], "writerFeatures": ["rowTracking"]}
    lines = [{"commitInfo": {"operation": "UPGRADE PROTOCOL"}}, {"protocol": features}, metadata]
    (log / f"{1:020}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    catalog.refresh()
    with pytest.raises(StorageError, match="features"):
        add_recordings(catalog, [recording(1)])
    assert not (log / f"{2:020}.json").exists()


# --- on a server


@pytest.fixture
def behind(weed_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy]) -> tuple[FaultProxy, Place]:
    """A catalog on a server behind a proxy."""
    server = weed_buckets.server
    proxy = fault_proxy(server)
    place = Place(None, proxy.url, weed_buckets.assets, server.access_key, server.secret_key)
    place.home().initialize()
    return proxy, place


def lose_the_commit(proxy: FaultProxy, looks: int | None) -> None:
    """Lose the reply to the recordings' next commit, with the client's own tries again, and fail the looks after it."""
    gone = threading.Event()

    def commit(method: str, path: str, _query: dict[str, str]) -> bool:
        hit = method == "PUT" and path.endswith(".json") and "/recordings/_delta_log/" in path
        if hit:
            gone.set()
        return hit

    def look(method: str, path: str, query: dict[str, str]) -> bool:
        of_the_log = "recordings/_delta_log" in path + query.get("prefix", "")
        return gone.is_set() and method in ("GET", "HEAD") and of_the_log

    proxy.lose_reply(commit)
    proxy.fail(commit, times=None, status=403)
    proxy.fail(look, times=looks, status=403)


def test_on_a_server(behind: tuple[FaultProxy, Place]) -> None:
    """A reply to the recordings' commit is lost, and then the looks fail: our own row is ours, exit 0 and not 5."""
    proxy, place = behind
    catalog = place.catalog()
    lose_the_commit(proxy, 5)
    row, action = register(catalog, registration(1))
    assert (row.rec_id, action) == (rec_id(1), Action.CREATED)
    assert catalog.list_modalities() == [modality(1)]


def test_on_a_server_that_does_not_tell(behind: tuple[FaultProxy, Place], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "GIVE_UP_AFTER_S", 1.0)
    proxy, place = behind
    catalog = place.catalog()
    lose_the_commit(proxy, None)
    with pytest.raises(UnknownOutcomeError):
        register(catalog, registration(1))
    proxy.clear()
    with pytest.raises(RecordingExistsError):
        register(place.catalog(), registration(1))
