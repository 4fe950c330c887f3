"""A commit whose reply was lost: it is looked for until the server tells, and nothing else is said before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from homes import AUTHOR, Place, add_recordings, modality, rec_id, recording, registration

from conftest import Buckets
from proxy import FaultProxy
from servers import S3Server
from ursa.catalog import tables
from ursa.catalog.catalog import Catalog
from ursa.catalog.tables import CatalogTable, Change
from ursa.errors import RecordingExistsError, StorageError, UnknownOutcomeError
from ursa.policies import Action
from ursa.register import commit as module
from ursa.register.commit import Registered, register, register_all


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Place(tmp_path).catalog()


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the reply to a commit of the recordings be lost, and so many looks after it fail: ``lost[:] = [looks]``."""
    wanted: list[int] = []
    failing = [0]
    refresh = CatalogTable.refresh

    def commit(table: Any, *args: Any, **options: Any) -> None:
        write_deltalake(table, *args, **options)
        if wanted and str(table.table_uri).rstrip("/").endswith("recordings"):
            failing[0] = wanted.pop()
            raise DeltaError("the reply was lost")

    def look(self: CatalogTable[Any]) -> None:
        if failing[0] and self.kind.name == "recordings":
            failing[0] -= 1
            raise StorageError("can't refresh: connection refused")
        refresh(self)

    monkeypatch.setattr(tables, "write_deltalake", commit)
    monkeypatch.setattr(CatalogTable, "refresh", look)
    return wanted


def test_the_look_is_tried_again(catalog: Catalog, lost: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One failed look, and our own row was told to be another's: RecordingExistsError."""
    lost[:] = [3]
    monkeypatch.setattr(tables, "_PAUSE_S", 0.01)
    assert register(catalog, registration(1))[1] is Action.CREATED
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1)]


def test_when_nothing_tells_that_is_what_is_said(
    catalog: Catalog, lost: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_GIVE_UP_AFTER_S", 0.2)
    monkeypatch.setattr(tables, "_PAUSE_S", 0.01)
    lost[:] = [1_000_000]
    decided: list[int] = []

    def decide() -> Change[Any]:
        decided.append(1)
        return Change([recording(1)], None, "test")

    with pytest.raises(
        UnknownOutcomeError, match="not known whether this was registered; the same command finds out"
    ) as e:
        catalog.recordings.compare_and_swap(decide)
    assert decided == [1] and e.value.exit_code == 1


def test_a_registration_passes_it_on(catalog: Catalog, lost: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member of the group, once; and the same command finds out."""
    monkeypatch.setattr(tables, "_GIVE_UP_AFTER_S", 0.2)
    monkeypatch.setattr(tables, "_PAUSE_S", 0.01)
    lost[:] = [1_000_000]
    outcomes = register_all(catalog, [registration(1), registration(2)])
    assert [type(outcome) for outcome in outcomes] == [UnknownOutcomeError] * 2
    monkeypatch.undo()
    root = Path(catalog.home.base_uri).parent
    again = register_all(Place(root).catalog(), [registration(1), registration(2)])
    assert [type(outcome) for outcome in again] == [RecordingExistsError] * 2


class Late:
    """A PUT that times out, and arrives when the next attempt is on its way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
        self.place = place
        self.kept: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.calls = 0
        monkeypatch.setattr(tables, "write_deltalake", self)

    def __call__(self, table: Any, *args: Any, **options: Any) -> None:
        if not str(table.table_uri).rstrip("/").endswith("recordings"):
            return write_deltalake(table, *args, **options)
        self.calls += 1
        if self.calls == 1:
            self.kept.append((args, options))
            raise DeltaError("timed out")
        if self.kept:
            args_before, options_before = self.kept.pop()
            write_deltalake(self.place.catalog().recordings.delta, *args_before, **options_before)
        return write_deltalake(table, *args, **options)


def test_what_landed_is_what_is_told(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second attempt has decided other rows, and the first one lands."""
    Late(monkeypatch, Place(tmp_path))
    changes: list[Change[Any]] = []

    def decide() -> Change[Any]:
        changes.append(Change([recording(len(changes) + 1)], None, "test"))
        return changes[-1]

    assert catalog.recordings.compare_and_swap(decide) is changes[0]
    assert len(changes) == 2
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1)]
    (commit,) = catalog.recordings.history(1)
    assert (commit["ursa_attempt"], commit["ursa_who"]) == ("1", AUTHOR.who)


def test_a_group_tells_of_each_member_what_landed(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the attempts one of two is decided otherwise: the rows of both are there, and both are told so."""
    Late(monkeypatch, Place(tmp_path))
    still = module._Round._still
    looks: list[int] = []

    def once(self: Any, members: Any) -> list[int]:
        looks.append(1)
        kept = still(self, members)
        if len(looks) == 2:
            self.decided.pop(1)
            self.outcomes.pop(1, None)
            kept.remove(1)
        return kept

    monkeypatch.setattr(module._Round, "_still", once)
    outcomes = register_all(catalog, [registration(1), registration(2)])
    assert [isinstance(outcome, Registered) and outcome.action for outcome in outcomes] == [Action.CREATED] * 2
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(1), rec_id(2)]
    assert sorted(row.rec_id for row in catalog.list_modalities()) == [rec_id(1), rec_id(2)]


def test_a_refused_commit_is_no_lost_race(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has committed: a table that can't be written says why at once, and not after two minutes of lost races."""

    def refuse(*_args: Any, **_options: Any) -> None:
        raise CommitFailedError("Unsupported table features")

    monkeypatch.setattr(tables, "write_deltalake", refuse)
    with pytest.raises(StorageError, match="Unsupported table features"):
        add_recordings(catalog, [recording(1)])


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


def test_on_a_server(behind: tuple[FaultProxy, Place], monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply to the recordings' commit is lost, and then the looks fail: our own row is ours, exit 0 and not 5."""
    monkeypatch.setattr(tables, "_PAUSE_S", 0.01)
    proxy, place = behind
    catalog = place.catalog()
    lose_the_commit(proxy, 5)
    row, action = register(catalog, registration(1))
    assert (row.rec_id, action) == (rec_id(1), Action.CREATED)
    assert catalog.list_modalities() == [modality(1)]


def test_on_a_server_that_does_not_tell(behind: tuple[FaultProxy, Place], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_PAUSE_S", 0.01)
    monkeypatch.setattr(tables, "_GIVE_UP_AFTER_S", 1.0)
    proxy, place = behind
    catalog = place.catalog()
    lose_the_commit(proxy, None)
    with pytest.raises(UnknownOutcomeError):
        register(catalog, registration(1))
    proxy.clear()
    with pytest.raises(RecordingExistsError):
        register(place.catalog(), registration(1))
