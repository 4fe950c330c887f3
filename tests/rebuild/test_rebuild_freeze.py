"""Killed when frozen, interrupted, given up, overtaken: one catalog is live, it is whole, and writers go on."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import grown
import pytest
from frozen import at, frozen, plain, snapshot
from grown import DAY_S, Lab, content, name, tables

from helpers import make_recording
from ursa import ConflictError, StorageError
from ursa.rebuild import run


@pytest.fixture
def here(tmp_path: Path) -> Lab:
    """An empty directory store, and a NAS beside it."""
    return grown.lab(tmp_path)


@pytest.fixture(autouse=True)
def settles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads that have just ended are waited for half a second."""
    monkeypatch.setattr(run, "SETTLES_S", 0.5)


def killed_when_frozen(here: Lab) -> None:
    """A rebuild that goes away between freeze and flip, as a killed one does: nothing of it runs any more."""

    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    with here.open() as data, pytest.MonkeyPatch.context() as patch:
        patch.setattr("ursa.rebuild.flip._release_quietly", lambda *_: None)
        with pytest.raises(Killed):
            data.rebuild(progress=at("plan", die, nth=2))


def test_killed_when_frozen(here: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers go on; writers wait, then say what is going on; --abort lets them."""
    monkeypatch.setattr("ursa.catalog.catalog._FROZEN_FOR_S", 1.0)
    plain(here, 0)
    killed_when_frozen(here)
    assert frozen(here) == ["catalog/v2"] * 3
    with pytest.raises(StorageError, match="catalog/v2 is to take its place") as waiting:
        plain(here, 1)
    assert "ursa catalog rebuild --abort" in (waiting.value.hint or "")
    with here.open() as data:
        assert [row.rec_id for row in data.list_recordings()] == [name(0)]
        assert data.abort_rebuild() == "catalog/v2"
        assert data.abort_rebuild() is None
    assert frozen(here) == [None] * 3
    assert snapshot(here.assets / "catalog").keys() == {
        path for path in snapshot(here.assets / "catalog") if path.startswith("v1/")
    }
    here.ingest(here.nas / name(1))


def test_killed_when_frozen_and_run_again(here: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that waits in the meantime goes on, and what only it knows is in the new catalog."""
    monkeypatch.setattr(run, "SETTLES_S", 4.0)
    plain(here, 0)
    killed_when_frozen(here)
    waiting = threading.Thread(target=plain, args=(here, 1))
    waiting.start()
    while not (here.bucket / name(1) / "manifest.json").exists():
        time.sleep(0.05)
    time.sleep(4.5)  # longer ago than what has just arrived
    result = here.rebuild()
    waiting.join(60)
    assert result.flipped and result.resumed
    with here.open() as data:
        assert [row.rec_id for row in data.list_recordings()] == [name(0), name(1)]
        assert data.find_recording(name(1)).participant_ids


def test_an_interrupt_thaws(here: Lab) -> None:
    """Ctrl-C between freeze and flip: writers need not wait for anybody."""
    plain(here, 0)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        here.rebuild(progress=at("plan", interrupt, nth=2))
    assert frozen(here) == [None] * 3
    plain(here, 1)
    assert here.rebuild().recordings == 2


def test_aborted_while_it_runs(here: Lab) -> None:
    """Somebody gives it up between freeze and flip: it must not put half a catalog in place."""
    plain(here, 0, 1)

    def abort() -> None:
        with here.open() as data:
            assert data.abort_rebuild() == "catalog/v2"

    for number, (phase, nth) in enumerate((("file_done", 1), ("write", 1), ("plan", 2), ("write", 2)), 2):
        with pytest.raises(ConflictError, match=r"the rebuild into catalog/v2 was given up meanwhile"):
            here.rebuild(progress=at(phase, abort, nth=nth))
        assert grown.pointer(here)["prefix"] == "catalog/v1" and frozen(here) == [None] * 3
        plain(here, number)

    def abort_and_begin_anew() -> None:
        abort()
        assert here.rebuild(flip=False).prefix == "catalog/v2"

    with pytest.raises(ConflictError, match="given up meanwhile"):
        here.rebuild(progress=at("write", abort_and_begin_anew, nth=2))
    assert grown.pointer(here)["prefix"] == "catalog/v1" and frozen(here) == [None] * 3
    assert here.rebuild().recordings == 6


def test_the_pointer_moved_meanwhile(here: Lab) -> None:
    """Another rebuild was begun, ended and put in place: this one says so and changes nothing."""
    plain(here, 0)
    pointer = here.assets / "ACTIVE.json"

    def move() -> None:
        shutil.copytree(here.assets / "catalog" / "v1", here.assets / "catalog" / "v9")
        pointer.write_text(pointer.read_text().replace("catalog/v1", "catalog/v9"))

    with pytest.raises(ConflictError, match=r"catalog/v9 is live") as refused:
        here.rebuild(progress=at("write", move))
    assert refused.value.exit_code == 5
    assert grown.pointer(here)["prefix"] == "catalog/v9" and frozen(here) == [None] * 3


def test_another_run_was_faster(here: Lab) -> None:
    """Two runs of one rebuild: the slower one finds the catalog in place and leaves the writers' rows alone."""
    plain(here, 0)

    def overtaken() -> None:
        assert here.rebuild().flipped
        plain(here, 1)
        make_recording(here.bucket, name(2), content(2))
        here.age(DAY_S, name(2))
        with here.open() as data:
            data.ingest_from_r2(name(2), "Aria Lin")

    result = here.rebuild(progress=at("write", overtaken))
    assert result.flipped and result.prefix == grown.pointer(here)["prefix"] == "catalog/v2"
    with here.open() as data:
        rows = data.list_recordings()
        assert [row.rec_id for row in rows] == [name(0), name(1), name(2)]
        assert all(row.participant_ids for row in rows)
    assert here.rebuild().prefix == "catalog/v3"


def test_two_at_once(here: Lab) -> None:
    """Both say that it is in place, it is one catalog, and it has every row once."""
    plain(here, 0, 1, 2)
    before = tables(here.open())
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(here.rebuild())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(results) == 3 and all(result.flipped for result in results)
    assert tables(here.open()) == before
    assert grown.pointer(here)["prefix"] in {result.prefix for result in results}


def test_what_is_measured_meanwhile_is_in_the_new_catalog(here: Lab) -> None:
    """An upgrade that meets the freeze waits for the flip; one before it is taken over."""
    numbers = (0, 1)
    for number in numbers:
        make_recording(here.bucket, name(number), content(number))
        with here.open() as data:
            data.ingest_from_r2(name(number))

    def measure(number: int) -> None:
        with here.open() as data:
            data.download(
                data.query(recording_hash=data.find_recording(name(number)).recording_hash), here.root / "dest"
            )

    waiting = threading.Thread(target=measure, args=(1,))

    def both_at_work() -> None:
        measure(0)
        frozen_then.start()

    def when_frozen() -> None:
        while frozen(here) == [None] * 3 and grown.pointer(here)["prefix"] == "catalog/v1":
            time.sleep(0.01)
        waiting.start()

    frozen_then = threading.Thread(target=when_frozen)
    assert here.rebuild(progress=at("plan", both_at_work)).flipped
    frozen_then.join(60)
    waiting.join(60)
    there = tables(here.open())
    assert grown.pointer(here)["prefix"] == "catalog/v2"
    assert {row.rec_id for row in there["modalities"]} == {name(number) for number in numbers}
    assert {str(file.evidence) for row in there["modalities"] for file in row.files} == {"sha256"}
