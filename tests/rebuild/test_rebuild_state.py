"""What a rebuild keeps in the bucket is not believed: a damaged REBUILD.json or chunk deletes nothing, and changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import grown
import orjson
import pytest
from frozen import plain, snapshot
from grown import Lab, name, tables

from helpers import make_recording
from ursa import StorageError
from ursa.catalog._pointer import is_catalog_prefix, overlap
from ursa.rebuild import run
from ursa.rebuild.state import State
from ursa.store.local import LocalStore


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One recording, and a rebuild into catalog/v2 that has filled it and not been put in place."""
    lab = grown.lab(tmp_path_factory.mktemp("filled"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "SETTLES_S", 0.1)
        plain(lab, 0)
        with lab.open() as data:
            assert data.rebuild(flip=False).prefix == "catalog/v2"
    return lab


@pytest.fixture
def here(filled: Lab, tmp_path: Path) -> Lab:
    """A copy of it, with the same times."""
    root = Path(shutil.copytree(filled.root, tmp_path / "here"))
    (root / "ursa.yaml").write_text(f"profiles:\n  local: {{root: {root / 'store'}}}\n", encoding="utf-8")
    return Lab(root)


@pytest.fixture(autouse=True)
def settles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SETTLES_S", 0.1)


def change(path: Path, **fields: Any) -> None:
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | fields))


PREFIXES = [
    "catalog",
    "catalog/",
    "catalog/v1",
    "catalog/v1/recordings",
    "catalog/v2/",
    "catalog/v²",
    "",
    "/",
    "..",
    ".",
    "v1",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_damaged_prefix_deletes_nothing(here: Lab, prefix: str) -> None:
    """`--abort` with a prefix `catalog` deleted the live catalog."""
    change(here.assets / "REBUILD.json", prefix=prefix)
    before = snapshot(here.assets)
    with here.open() as data:
        if prefix != "catalog/v1":
            with pytest.raises(StorageError, match="Nothing was deleted or changed") as caught:
                data.abort_rebuild()
            assert "--abort" in (caught.value.hint or "")
            with pytest.raises(StorageError, match="Nothing was deleted or changed"):
                data.rebuild()
        else:
            # From the live catalog into itself: no rebuild says so.
            with pytest.raises(StorageError, match="from catalog/v1 into catalog/v1"):
                data.abort_rebuild()
    assert snapshot(here.assets) == before


@pytest.mark.parametrize("fields", [{"prefix": None}, {"previous": 7}, {"run_id": ["x"]}, {"started_at": {}}])
def test_texts_are_texts(here: Lab, fields: dict[str, Any]) -> None:
    change(here.assets / "REBUILD.json", **fields)
    before = snapshot(here.assets)
    with here.open() as data, pytest.raises(StorageError, match="not all texts"):
        data.abort_rebuild()
    assert snapshot(here.assets) == before


@pytest.mark.parametrize("text", ["", "null", "[]", '"catalog/v2"', "{}", '{"prefix": "catalog/v2"', "\x00"])
def test_no_state_at_all(here: Lab, text: str) -> None:
    (here.assets / "REBUILD.json").write_text(text)
    before = snapshot(here.assets)
    with here.open() as data, pytest.raises(StorageError, match=r"REBUILD\.json"):
        data.abort_rebuild()
    assert snapshot(here.assets) == before


def test_the_catalog_before_the_live_one_is_not_deleted(here: Lab) -> None:
    with here.open() as data:
        assert data.rebuild().flipped
        assert data.rebuild(flip=False).prefix == "catalog/v3"
    state = here.assets / "REBUILD.json"
    change(state, prefix="catalog/v1")
    before = snapshot(here.assets)
    with here.open() as data:
        with pytest.raises(StorageError, match="the catalog before the live one, catalog/v1"):
            data.abort_rebuild()
        with pytest.raises(StorageError, match="the catalog before the live one, catalog/v1"):
            data.rebuild()
    assert snapshot(here.assets) == before
    # As the hint says: writers go on.
    state.unlink()
    with here.open() as data:
        assert data.abort_rebuild() is None
    here.ingest(make_recording(here.nas, name(1), grown.content(1)))


@pytest.mark.parametrize("prefix", [*PREFIXES, "catalog/v2"])
def test_drop_refuses_by_itself(here: Lab, prefix: str) -> None:
    with here.open() as data:
        assert data.rebuild().flipped
    before = snapshot(here.assets)
    with pytest.raises(StorageError):
        State(LocalStore(here.assets.parents[1], here.assets.parent.name), "ursa/").drop(prefix)
    assert snapshot(here.assets) == before


def test_drop_without_a_pointer(here: Lab) -> None:
    (here.assets / "ACTIVE.json").unlink()
    before = snapshot(here.assets)
    with pytest.raises(StorageError, match=r"without ACTIVE\.json"):
        State(LocalStore(here.assets.parents[1], here.assets.parent.name), "ursa/").drop("catalog/v2")
    assert snapshot(here.assets) == before


def test_a_damaged_pointer_is_no_pointer(here: Lab) -> None:
    for fields in ({"prefix": "../x"}, {"previous": "../x"}, {"previous": 7}, {"prefix": "/"}):
        whole = (here.assets / "ACTIVE.json").read_bytes()
        change(here.assets / "ACTIVE.json", **fields)
        before = snapshot(here.assets)
        with pytest.raises(StorageError, match="is not a relative path"), here.open() as data:
            data.abort_rebuild()
        assert snapshot(here.assets) == before
        (here.assets / "ACTIVE.json").write_bytes(whole)


DAMAGED: list[Any] = [
    b"",
    b"{}",
    b"null",
    b"[7]",
    b'[{"rec_id": 7}]',
    b"\xff",
    {"outcome": "perhaps"},
    {"rec_id": "../x"},
    {"modalities": "2"},
    {"before": True},
    {"told": [1]},
    {"told": None},
    {"arrived": "yesterday"},
    {"arrived": "2026-01-01T00:00:00"},
    {"more": 1},
]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_chunk_counts_as_not_done(here: Lab, damage: Any) -> None:
    (chunk,) = (here.assets / "catalog" / "v2" / "_rebuild").iterdir()
    if isinstance(damage, bytes):
        chunk.write_bytes(damage)
    else:
        chunk.write_bytes(orjson.dumps([orjson.loads(chunk.read_bytes())[0] | damage]))
    with here.open() as data:
        before = tables(here.open())
        done: list[str] = []
        result = data.rebuild(progress=lambda event: done.append(event.rec_id) if event.phase == "file_done" else None)
        assert result.flipped and result.recordings == 1 and done == [name(0)]
    assert tables(here.open()) == before


def test_prefixes() -> None:
    assert all(map(is_catalog_prefix, ("catalog/v1", "catalog/v20")))
    assert not any(map(is_catalog_prefix, (None, 7, "catalog/v1\n", *PREFIXES[:2], *PREFIXES[3:])))
    assert overlap("catalog", "catalog/v1") and overlap("catalog/v1", "catalog") and overlap("a/b", "a/b")
    assert not overlap("catalog/v1", "catalog/v10") and not overlap("catalog/v2", "catalog/v1")
