"""Writers and a rebuild: a frozen catalog is waited for, and what came too late for the flip is written again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from r2_tools import FILES, REC, Local, local_store
from racer import registration

from helpers import make_recording
from ursa import DataInterface, RecordingExistsError, StorageError, participant_id
from ursa.catalog import catalog as catalog_module
from ursa.catalog._pointer import Pointer, read_pointer, write_pointer
from ursa.catalog.catalog import Catalog
from ursa.catalog.tables import CatalogTable, Change
from ursa.catalog.where import EVERYTHING, any_of
from ursa.register.commit import Registered, register_all

HASH = "ab" * 32
NEW = "catalog/v2"
TABLES = ("recordings", "modalities", "participants")
Verb = Callable[[DataInterface], Any]


class Rebuild:
    """What a rebuild does to writers: fills a new prefix, freezes the old one, flips the pointer."""

    def __init__(self, local: Local) -> None:
        self.old = local.open()._catalog
        self.home = self.old.home
        self.home.create_tables(NEW)
        self.new = Catalog(self.home, Pointer(NEW, "", "", None))

    def freeze(self, prefix: str | None = NEW) -> None:
        """Every table of the old catalog; None thaws."""
        for name in TABLES:
            table = getattr(self.old, name)
            table.refresh()
            table.set_frozen(prefix)

    def flip(self, *, copy: bool) -> None:
        """Make the new catalog live; ``copy`` takes over what is in the old one now."""
        if copy:
            for name in TABLES:
                table = getattr(self.old, name)
                table.refresh()
                rows = table.select()
                if rows:
                    getattr(self.new, name).compare_and_swap(lambda rows=rows: Change(rows, None, "rebuild"))
        pointer = read_pointer(self.home.store, self.home.assets_prefix)
        write_pointer(self.home.store, self.home.assets_prefix, NEW, by="test", replacing=pointer)


def ingest_r2(data: DataInterface) -> Any:
    return data.ingest_from_r2(REC, "Aria Lin").recording


def several(data: DataInterface) -> Any:
    (outcome,) = data.ingest_from_r2_several([REC], "Aria Lin")
    assert outcome.result is not None, outcome.error
    return outcome.result.recording


def recording(data: DataInterface) -> Any:
    return data.register_recording(recording_hash=HASH, metadata={"manifest_recording_id": REC}, duration_s=60)


def modality(data: DataInterface) -> Any:
    path = "mic_room/a.wav"
    return data.register_modality(
        recording_hash=HASH, modality="mic", worker_id="room", files=[{"path": path, "size_bytes": 3}]
    )


def participant(data: DataInterface) -> Any:
    return data.register_participant("Aria Lin")


VERBS: list[Verb] = [ingest_r2, several, recording, modality, participant]


@pytest.fixture
def local(tmp_path: Path) -> Local:
    store = local_store(tmp_path)
    store.put(make_recording(tmp_path / "nas", REC, FILES, recording_hash=HASH))
    return store


@pytest.fixture(params=VERBS, ids=lambda verb: verb.__name__)
def verb(request: pytest.FixtureRequest, local: Local) -> Iterator[Verb]:
    """Each verb that writes, where what it needs is there."""
    if request.param is modality:
        ingest_r2(local.open())
        wav = local.bucket / REC / "mic_room" / "a.wav"
        wav.parent.mkdir()
        wav.write_bytes(b"wav")
    yield request.param


def rows_of(verb: Verb, data: DataInterface) -> list[Any]:
    """Every row of the table that the verb's result is in."""
    if verb is modality:
        return data.list_modalities({"modality": "mic"})
    return data.list_participants() if verb is participant else data.list_recordings()


def check(verb: Verb, data: DataInterface, result: Any) -> None:
    """Once, in the new catalog, with all that belongs to it."""
    assert data._catalog.pointer.prefix == NEW
    assert rows_of(verb, data) == [result]
    if verb in (ingest_r2, several):
        assert {row.name for row in data.list_modalities()} == {"camera_left", "eeg_a"}
        assert result.participant_ids == (participant_id("Aria Lin"),)
        assert [row.display_name for row in data.list_participants()] == ["Aria Lin"]


def test_a_frozen_catalog_is_waited_for(verb: Verb, local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    rebuild = Rebuild(local)
    data = local.open()
    data.list_recordings()
    rebuild.freeze()
    waits = threading.Event()
    follow = Catalog.follow_pointer

    def following(self: Catalog, *tables: Any) -> bool:
        flipped = follow(self, *tables)
        if not flipped:
            waits.set()
        return flipped

    monkeypatch.setattr(Catalog, "follow_pointer", following)
    done: list[Any] = []
    writer = threading.Thread(target=lambda: done.append(verb(data)))
    writer.start()
    assert waits.wait(30)
    assert done == []
    rebuild.flip(copy=True)
    writer.join(30)
    (result,) = done
    check(verb, local.open(), result)
    old = rebuild.old
    table = old.modalities if verb is modality else old.participants if verb is participant else old.recordings
    table.refresh()
    assert table.select(any_of("modality", ["mic"]) if verb is modality else EVERYTHING) == []


def test_a_freeze_that_is_taken_back_is_written_through(
    verb: Verb, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "_FROZEN_FOR_S", 10.0)
    rebuild = Rebuild(local)
    data = local.open()
    rebuild.freeze()
    data._catalog.refresh()
    data._catalog.participants.refresh()
    rebuild.freeze(None)
    result = verb(data)
    assert rows_of(verb, data) == [result]
    assert data._catalog.pointer.prefix != NEW


def test_a_freeze_without_an_end_is_told_in_words(verb: Verb, local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "_FROZEN_FOR_S", 0.1)
    Rebuild(local).freeze()
    data = local.open()
    try:
        with pytest.raises(StorageError, match=f"frozen by a rebuild.*{NEW}") as refused:
            verb(data)
        error: Any = refused.value
    except AssertionError:
        (outcome,) = data.ingest_from_r2_several([REC])
        error = outcome.error
    assert "ursa catalog rebuild" in str(error.hint)
    assert rows_of(verb, data) == []


@pytest.mark.parametrize("copy", [True, False], ids=["taken over", "too late for the rebuild"])
def test_a_flip_after_the_commit_ends_once_in_the_new_catalog(
    copy: bool, verb: Verb, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pointer flips between the last commit and the look at it."""
    rebuild = Rebuild(local)
    if not copy and verb is modality:
        # The recording itself was taken over long before.
        rebuild.flip = _flip_with_recordings(rebuild)  # type: ignore[method-assign]
    data = local.open()
    follow = Catalog.follow_pointer
    flipped: list[bool] = []

    def flipping(self: Catalog, *tables: Any) -> bool:
        if not flipped:
            flipped.append(True)
            rebuild.flip(copy=copy)
        return follow(self, *tables)

    monkeypatch.setattr(Catalog, "follow_pointer", flipping)
    result = verb(data)
    assert flipped == [True]
    check(verb, local.open(), result)


def test_a_member_that_was_committed_before_a_freeze_is_no_refusal(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge commits its recording before the group's other members do; then the freeze comes."""
    rebuild = Rebuild(local)
    catalog = local.open()._catalog
    register_all(catalog, [registration(1, ("eeg_a",))])
    pushed = CatalogTable._pushed
    seen: list[str] = []

    def freezing(self: CatalogTable[Any], wanted: Any) -> bool:
        done = pushed(self, wanted)
        seen.append(self.kind.name)
        if seen.count("recordings") == 1 and self.kind.name == "modalities":
            monkeypatch.setattr(CatalogTable, "_pushed", pushed)
            rebuild.freeze()
            rebuild.flip(copy=True)
        return done

    monkeypatch.setattr(CatalogTable, "_pushed", freezing)
    first, second = register_all(catalog, [registration(1, ("camera_left",)), registration(2)])
    assert isinstance(first, Registered) and isinstance(second, Registered), (first, second)
    assert (first.action, second.action) == ("merged", "created")
    data = local.open()
    assert data._catalog.pointer.prefix == NEW
    assert data.list_recordings() == [first.row, second.row]
    assert sorted(row.name for row in data.list_modalities()) == ["camera_left", "camera_left", "eeg_a", "eeg_a"]


def test_a_real_refusal_stays_one_after_a_flip(local: Local) -> None:
    data = local.open()
    ingest_r2(data)
    rebuild = Rebuild(local)
    rebuild.freeze()
    rebuild.flip(copy=True)
    with pytest.raises(RecordingExistsError):
        data.ingest_from_r2(REC)
    with pytest.raises(RecordingExistsError):
        recording(data)


def _flip_with_recordings(rebuild: Rebuild) -> Callable[..., None]:
    """The rebuild took everything over but the microphone."""
    flip = rebuild.flip
    table = rebuild.old.recordings
    before = table.select()

    def flipping(*, copy: bool) -> None:
        rebuild.new.recordings.compare_and_swap(lambda: Change(before, None, "rebuild"))
        flip(copy=False)

    return flipping
