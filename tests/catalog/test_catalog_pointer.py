"""``ACTIVE.json``: read, refused, and changed by exactly one."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from homes import Place

from conftest import Buckets
from ursa.catalog._pointer import FIRST_PREFIX, read_pointer, write_pointer
from ursa.catalog.catalog import Catalog
from ursa.errors import ConfigError, StorageError
from ursa.store import PreconditionFailedError, Store
from ursa.store.local import LocalStore


@pytest.fixture(params=["local", "weed"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return place(request, tmp_path).home().store


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path, "assets")


def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return Place(tmp_path)
    buckets: Buckets = request.getfixturevalue("weed_buckets")
    server = buckets.server
    return Place(None, server.endpoint_url, buckets.assets, server.access_key, server.secret_key)


def put(store: Store, data: bytes) -> None:
    store.put("ursa/ACTIVE.json", data, sha256=hashlib.sha256(data).hexdigest())


def test_none(store: Store) -> None:
    assert read_pointer(store, "ursa/") is None


def test_written_and_read(store: Store) -> None:
    write_pointer(store, "ursa/", "catalog/v1", by="ada@green-mantis", replacing=None)
    first = read_pointer(store, "ursa/")
    assert first is not None
    assert (first.prefix, first.activated_by, first.previous) == ("catalog/v1", "ada@green-mantis", None)
    write_pointer(store, "ursa/", "catalog/v2", by="ada@green-mantis", replacing=first)
    second = read_pointer(store, "ursa/")
    assert second is not None
    assert (second.prefix, second.previous) == ("catalog/v2", "catalog/v1")
    content = orjson.loads(store.read("ursa/ACTIVE.json")[0])
    assert set(content) == {"schema_version", "prefix", "activated_at", "activated_by", "previous"}
    assert content["schema_version"] == 1


def test_a_pointer_that_moved_on_is_not_overwritten(store: Store) -> None:
    write_pointer(store, "ursa/", "catalog/v1", by="a", replacing=None)
    first = read_pointer(store, "ursa/")
    write_pointer(store, "ursa/", "catalog/v2", by="b", replacing=first)
    with pytest.raises(PreconditionFailedError):
        write_pointer(store, "ursa/", "catalog/v3", by="c", replacing=first)
    with pytest.raises(PreconditionFailedError):
        write_pointer(store, "ursa/", "catalog/v3", by="c", replacing=None)
    found = read_pointer(store, "ursa/")
    assert found is not None
    assert found.prefix == "catalog/v2"


@pytest.mark.parametrize("first", [True, False])
def test_one_of_six_flips(store: Store, first: bool) -> None:
    if not first:
        write_pointer(store, "ursa/", "catalog/v0", by="a", replacing=None)
    replacing = read_pointer(store, "ursa/")
    start = threading.Barrier(6)

    def flip(number: int) -> bool:
        start.wait()
        try:
            write_pointer(store, "ursa/", f"catalog/v{number}", by="a", replacing=replacing)
        except PreconditionFailedError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        wins = list(pool.map(flip, range(1, 7)))
    assert wins.count(True) == 1
    found = read_pointer(store, "ursa/")
    assert found is not None
    assert found.prefix == f"catalog/v{wins.index(True) + 1}"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"x"',
        b"{}",
        b'{"prefix": "catalog/v1"}',
        b'{"schema_version": 1}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_pointer(local: LocalStore, text: bytes) -> None:
    put(local, text)
    with pytest.raises(StorageError, match=r"/assets/ursa/ACTIVE\.json: it is not a pointer") as caught:
        read_pointer(local, "ursa/")
    assert caught.value.key == "ursa/ACTIVE.json"


@pytest.mark.parametrize("version", [2, 99, "2"])
def test_a_newer_pointer(local: LocalStore, version: object) -> None:
    put(local, orjson.dumps({"schema_version": version, "prefix": "catalog/v1"}))
    with pytest.raises(StorageError, match="upgrade ursa") as caught:
        read_pointer(local, "ursa/")
    assert repr(version) in str(caught.value)


@pytest.mark.parametrize(
    "prefix", ["", "/etc", "../other", "catalog/../../x", "catalog/", "a//b", "a b", 7, None, ["a"], ".."]
)
def test_a_prefix_that_leads_elsewhere(local: LocalStore, prefix: object) -> None:
    put(local, orjson.dumps({"schema_version": 1, "prefix": prefix}))
    with pytest.raises(StorageError, match="its prefix is not a relative path"):
        read_pointer(local, "ursa/")


def test_fields_that_a_later_ursa_adds_are_no_harm(local: LocalStore) -> None:
    put(local, orjson.dumps({"schema_version": 1, "prefix": "catalog/v1", "comment": "later"}))
    found = read_pointer(local, "ursa/")
    assert found is not None
    assert found.previous is None


# --- a catalog's first use


def test_no_catalog_and_none_may_be_made(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"there is no catalog yet: .*/assets/ursa/ACTIVE\.json does not exist"
    ) as caught:
        Catalog.open(Place(tmp_path).home(create=False)).refresh()
    assert "ursa catalog init --yes --profile local" in (caught.value.hint or "")
    assert not (tmp_path / "assets").exists()


def test_made_on_first_use(tmp_path: Path) -> None:
    catalog = Place(tmp_path).catalog()
    assert catalog.pointer.prefix == FIRST_PREFIX
    assert not any((catalog.list_recordings(), catalog.list_modalities(), catalog.list_participants()))
    assert set(catalog.locations()) == {"recordings", "modalities", "participants"}
    pointer, made = Place(tmp_path).home().initialize()
    assert not made
    assert pointer == catalog.pointer


def test_several_first_uses_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(4)

    def initialize(_number: int) -> bool:
        start.wait()
        return Place(tmp_path).home().initialize()[1]

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(initialize, range(4)))
    assert made.count(True) == 1
    assert Place(tmp_path).catalog().list_recordings() == []


def test_a_pointer_to_nothing(tmp_path: Path) -> None:
    home = Place(tmp_path).home()
    write_pointer(home.store, "ursa/", "catalog/v9", by="a", replacing=None)
    with pytest.raises(
        StorageError, match=r"catalog/v9/recordings is not there, though ACTIVE\.json names it"
    ) as caught:
        Catalog.open(home).refresh()
    assert "Nothing was written" in (caught.value.hint or "")


def test_a_flip_is_followed(tmp_path: Path) -> None:
    catalog = Place(tmp_path).catalog()
    home = catalog.home
    assert not catalog.follow_pointer()
    home.create_tables("catalog/v2")
    write_pointer(home.store, "ursa/", "catalog/v2", by="a", replacing=catalog.pointer)
    assert catalog.follow_pointer()
    assert not catalog.follow_pointer()
    assert all("/catalog/v2/" in uri for uri in catalog.locations().values())
