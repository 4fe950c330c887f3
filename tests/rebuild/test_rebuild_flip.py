"""Refusals, the freeze and the flip: whatever happens, the live catalog is whole and writers go on."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import grown
import pytest
from frozen import at, frozen, plain, snapshot
from grown import DAY_S, Lab, content, name, tables

from helpers import make_recording, write_node_manifest
from ursa import DataInterface, MissingFilesError
from ursa.catalog.catalog import Catalog
from ursa.catalog.metadata import WORKERS_KEY, workers_text
from ursa.catalog.tables import Change
from ursa.catalog.where import any_of
from ursa.rebuild import run


@pytest.fixture
def here(tmp_path: Path) -> Lab:
    """An empty directory store, and a NAS beside it."""
    return grown.lab(tmp_path)


@pytest.fixture(autouse=True)
def settles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads that have just ended are waited for half a second."""
    monkeypatch.setattr(run, "SETTLES_S", 0.5)


def test_lost_files(here: Lab) -> None:
    """Listed, unlisted and auxiliary files that are gone: all recordings named, the live catalog as it was."""
    plain(here, 0, 1)
    grown.unlisted(here, 2)
    grown.unlisted(here, 3)
    grown.absent_node(here, 4)
    before, untouched = tables(here.open()), snapshot(here.assets / "catalog" / "v1")
    gone = {1: "camera_left/seg_000.mp4", 2: "mic_room/a.wav", 3: "events.csv", 4: "camera_left/seg_000.mp4"}
    for number, path in gone.items():
        (here.bucket / name(number) / path).unlink()
    for _ in range(2):
        with pytest.raises(MissingFilesError) as refused:
            here.rebuild()
        assert refused.value.paths == tuple(name(number) for number in gone)
        assert all(
            f"{name(number)} (" in str(refused.value) and path in str(refused.value) for number, path in gone.items()
        )
        assert refused.value.exit_code == 6 and "--drop-lost" in (refused.value.hint or "")
        assert snapshot(here.assets / "catalog" / "v1") == untouched
        assert tables(here.open()) == before and frozen(here) == [None] * 3
    plain(here, 5)
    # One is brought back, and the same rebuild goes on.
    shutil.copytree(here.nas / name(1), here.bucket / name(1), dirs_exist_ok=True)
    result = here.rebuild(drop_lost=True)
    assert set(result.lost) == {name(2), name(3), name(4)} and result.resumed
    assert (result.recordings, result.recordings_before) == (3, 6)
    with here.open() as data:
        assert [row.rec_id for row in data.list_recordings()] == [name(0), name(1), name(5)]
        assert {row.rec_id for row in data.list_modalities()} == {name(0), name(1), name(5)}
        assert all(check.ok for check in data.verify(everything=True) if check.rec_id != name(1))


def test_lost_while_frozen(here: Lab) -> None:
    """Found in the last catch-up: refused, thawed, and a writer that waited goes on in the old catalog."""
    plain(here, 0, 1)

    def lose() -> None:
        (here.bucket / name(1) / "eeg_a" / "seg_000.edf").unlink()
        with here.open() as data:
            data.register_recording(
                recording_hash=data.find_recording(name(1)).recording_hash, duration_s=99.0, on_conflict="extend"
            )

    with pytest.raises(MissingFilesError, match=name(1)):
        here.rebuild(progress=at("write", lose))
    assert frozen(here) == [None] * 3 and grown.pointer(here)["prefix"] == "catalog/v1"
    plain(here, 2)


def test_what_is_registered_meanwhile(here: Lab) -> None:
    """Before the last catch-up: a new recording, an edit, an overwrite, a participant; all of it is in the new catalog."""
    plain(here, 0, 1)

    def write() -> None:
        plain(here, 2)
        with here.open() as data:
            data.register_participant("Late Comer")
            data.register_recording(
                recording_hash=data.find_recording(name(0)).recording_hash, duration_s=99.0, on_conflict="extend"
            )
        here.ingest(here.nas / name(1), "Eve Moss", overwrite=True)

    result = here.rebuild(progress=at("write", write))
    with here.open() as data:
        assert [row.duration_s for row in data.list_recordings()] == [99.0, 60.0, 60.0]
        assert "Late Comer" in [row.display_name for row in data.list_participants()]
        assert data.find_recording(name(2)).participant_ids
    new = tables(here.open())
    with DataInterface("local", here.config) as data:
        data.__dict__["_catalog"] = Catalog(data._home, _pointer_to(data, result.previous))
        assert tables(data) == new


def _pointer_to(data: DataInterface, prefix: str) -> Any:
    return replace(data._home.pointer(), prefix=prefix)


def test_undone_meanwhile(here: Lab) -> None:
    """A recording that is taken out of the live catalog during the rebuild, and out of the bucket, has no row."""
    plain(here, 0)
    with here.open() as data:
        first = data.catalog_history(limit=1)[0].operation_id
    plain(here, 1)

    def undo() -> None:
        shutil.rmtree(here.bucket / name(1))
        with here.open() as data:
            data.undo(first)

    here.rebuild(progress=at("write", undo))
    with here.open() as data:
        assert [row.rec_id for row in data.list_recordings()] == [name(0)]
        assert {row.rec_id for row in data._catalog.modalities.select()} == {name(0)}


def test_just_uploaded(here: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between an upload's manifest and its row the rebuild waits, then leaves it to whoever uploaded it."""
    plain(here, 0)
    monkeypatch.setattr(run, "SETTLES_S", 20.0)
    make_recording(here.bucket, name(1), content(1))
    registering: list[threading.Timer] = []

    def path_b() -> None:
        with here.open() as data:
            data.ingest_from_r2(name(1), "Aria Lin")

    def arrive() -> None:
        registering.append(threading.Timer(1.0, path_b))
        registering[0].start()
        # This one comes after the first pass, and nobody registers it before the flip.
        make_recording(here.bucket, name(2), content(2))

    result = here.rebuild(progress=at("write", arrive))
    registering[0].join()
    assert result.seconds < 15 and result.new == ()
    assert result.left.keys() == {name(2)} and "ended just now" in result.left[name(2)]
    with here.open() as data:
        assert data.find_recording(name(1)).participant_ids
        assert data.ingest_from_r2(name(2), "Bo Sun").action == "created"


def test_a_half_that_has_just_arrived(here: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge that is about to be committed when the catalog freezes stays a merge."""
    camera = {path: data for path, data in content(0).items() if "camera" in path}
    here.ingest(make_recording(here.nas / "host", name(0), camera), "Aria Lin")
    monkeypatch.setattr(run, "SETTLES_S", 2.0)
    motor = make_recording(here.nas / "motor", name(0), {"eeg_a/seg_000.edf": b"eeg0"}, manifest=False)
    write_node_manifest(motor, "green-motor", ["eeg_a"])

    def arrive() -> None:
        shutil.copytree(motor, here.bucket / name(0), dirs_exist_ok=True)
        with here.open() as data:
            data.register_recording(
                recording_hash=data.find_recording(name(0)).recording_hash, duration_s=99.0, on_conflict="extend"
            )

    result = here.rebuild(progress=at("write", arrive))
    assert "eeg_a: left alone, its upload ended just now and is about to be registered" in result.told[name(0)]
    assert here.ingest(motor, "Bo Sun").action == "merged"


def test_dry_run_writes_nothing(here: Lab) -> None:
    """Not even a mark; and needs no role."""
    plain(here, 0, 1)
    (here.bucket / name(1) / "eeg_a" / "seg_000.edf").unlink()
    before = snapshot(here.assets)
    with DataInterface("local", here.config) as data:
        result = data.rebuild(dry_run=True)
    assert result.dry_run and not result.flipped and set(result.lost) == {name(1)}
    assert snapshot(here.assets) == before


def test_filled_first_and_flipped_later(here: Lab) -> None:
    """The second call goes on from the first one's, and takes in what came in between."""
    plain(here, 0)
    first = here.rebuild(flip=False)
    assert not first.flipped and grown.pointer(here)["prefix"] == "catalog/v1" and frozen(here) == [None] * 3
    plain(here, 1)
    second = here.rebuild()
    assert second.flipped and second.prefix == first.prefix and "@" in second.resumed
    with here.open() as data:
        assert len(data.list_recordings()) == 2
    assert not (here.assets / "REBUILD.json").exists()


def test_a_kept_handle_follows(here: Lab) -> None:
    """Who opened the catalog before the flip registers in the new one, and history and undo work there."""
    plain(here, 0)
    with here.open() as kept:
        assert len(kept.list_recordings()) == 1
        here.rebuild()
        rec_dir = make_recording(here.nas, name(1), content(1))
        kept.ingest(rec_dir / "manifest.json", rec_dir, "Aria Lin")
        row = kept.register_recording(
            recording_hash=kept.find_recording(name(0)).recording_hash, duration_s=99.0, on_conflict="extend"
        )
        assert row.duration_s == 99.0
    with here.open() as data:
        assert [row.duration_s for row in data.list_recordings()] == [99.0, 60.0]
        operations = data.catalog_history()
        assert {"rebuild:recordings", "rebuild:modalities"} <= {word for item in operations for word in _words(item)}
        ingest = next(item for item in operations if any("ingest" in word for word in _words(item)))
        plan = data.undo(ingest.operation_id)
        assert plan.change == (name(0),)
        assert [row.duration_s for row in data.list_recordings()] == [60.0, 60.0]


def _words(operation: Any) -> list[str]:
    return str(operation).replace("'", " ").replace(",", " ").split()


def deleted(here: Lab) -> None:
    """An object of the second recording, by somebody who has a key to the bucket."""
    (here.bucket / name(1) / "eeg_a" / "seg_000.edf").unlink()


@pytest.mark.parametrize("nth", [1, 2])
def test_bytes_that_go_after_their_rows_were_made(here: Lab, nth: int) -> None:
    """After the fill, or between freeze and flip: no row changed, and the recording must not go live."""
    plain(here, 0, 1)
    with pytest.raises(MissingFilesError, match=r"eeg_a/seg_000\.edf") as refused:
        here.rebuild(progress=at("write", lambda: deleted(here), nth=nth))
    assert refused.value.paths == (name(1),)
    assert frozen(here) == [None] * 3 and grown.pointer(here)["prefix"] == "catalog/v1"
    result = here.rebuild(drop_lost=True)
    assert set(result.lost) == {name(1)}
    with here.open() as data:
        assert [row.rec_id for row in data.list_recordings()] == [name(0)]


def test_bytes_that_go_and_were_in_no_row(here: Lab) -> None:
    """A recording that the bucket alone speaks of, and not any more: it gets no row."""
    plain(here, 0)
    make_recording(here.bucket, name(1), content(1))
    here.age(DAY_S, name(1))
    result = here.rebuild(progress=at("write", lambda: deleted(here)))
    assert result.flipped and result.new == () and "eeg_a/seg_000.edf" in result.left[name(1)]
    with here.open() as data:
        assert [row.rec_id for row in data.list_recordings()] == [name(0)]


def test_files_beside_the_recording_that_go(here: Lab) -> None:
    """An edited recording's rows may speak of keys that are not below its prefix: it is asked about again, always."""
    plain(here, 0)
    elsewhere = here.bucket / "shared" / "model.bin"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"model")
    with here.open() as data:
        row = data.find_recording(name(0))
        (made,) = data.list_modalities({"recording_hash": row.recording_hash, "modality": "eeg"})
        file = replace(made.files[0], path="model.bin", key="recordings/shared/model.bin", size_bytes=5, etag=None)
        other = replace(made, worker_id="model", files=(file,), bytes=5)
        covering = {**row.metadata, WORKERS_KEY: workers_text([*data.list_modalities(), other])}
        catalog = data._catalog
        change = Change([replace(row, metadata=covering)], any_of("rec_id", [row.rec_id]), "test")
        catalog.recordings.compare_and_swap(lambda: change)
        catalog.modalities.compare_and_swap(lambda: Change([other], None, "test"))
    with pytest.raises(MissingFilesError, match=r"model\.bin"):
        here.rebuild(progress=at("write", elsewhere.unlink))
