"""Path B for several recordings: one group commit, and one that is refused stops nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from r2_tools import FILES, REC, Local, local_store, rows

import ursa.register.from_r2 as from_r2
from helpers import make_recording
from ursa import (
    ConflictError,
    DataInterface,
    InvalidRecordingError,
    ManifestNotFoundError,
    MissingFilesError,
    RecordingExistsError,
    UploadProgress,
    UrsaError,
    participant_id,
)

MANY = [f"rec_20260601_{i:06}_ab" for i in range(30)]


@pytest.fixture
def local(tmp_path: Path) -> Local:
    return local_store(tmp_path)


@pytest.fixture
def data(local: Local) -> DataInterface:
    return local.open()


def versions(data: DataInterface) -> tuple[int, int, int]:
    catalog = data._catalog
    catalog.refresh()
    catalog.participants.refresh()
    return catalog.recordings.version, catalog.modalities.version, catalog.participants.version


def put_many(local: Local, tmp_path: Path) -> None:
    for number, name in enumerate(MANY):
        files = {path: body + b"%d" % number for path, body in FILES.items()}
        local.put(make_recording(tmp_path / "nas", name, files))


def test_several_are_one_commit_a_table(local: Local, data: DataInterface, tmp_path: Path) -> None:
    put_many(local, tmp_path)
    before = versions(data)
    events: list[UploadProgress] = []
    outcomes = data.ingest_from_r2_several(MANY, "Aria Lin", progress=events.append)
    assert [(outcome.rec_id, outcome.status, outcome.rec_dir) for outcome in outcomes] == [
        (name, "ok", None) for name in MANY
    ]
    assert [after - was for after, was in zip(versions(data), before, strict=True)] == [1, 1, 1]
    assert [row.rec_id for row in data.list_recordings()] == MANY
    assert {row.participant_ids for row in data.list_recordings()} == {(participant_id("Aria Lin"),)}
    assert len(data.list_modalities()) == 2 * len(MANY)
    assert {event.rec_id for event in events if event.phase == "done"} == set(MANY)
    again = data.ingest_from_r2_several(MANY, "Aria Lin")
    assert {type(outcome.error) for outcome in again} == {RecordingExistsError}


def test_one_bad_among_them_stops_nobody(local: Local, data: DataInterface, tmp_path: Path) -> None:
    put_many(local, tmp_path)
    (local.bucket / MANY[1] / "eeg_a" / "seg_000.edf").unlink()
    (local.bucket / MANY[2] / "manifest.json").unlink()
    local.put(make_recording(tmp_path / "nas", REC, FILES, recording_hash="ab" * 32))
    data.ingest_from_r2(REC)
    local.put(make_recording(tmp_path / "twin", MANY[4], FILES, recording_hash="ab" * 32))
    asked = [MANY[0], MANY[1], MANY[2], REC, MANY[4], "rec_../etc", MANY[5]]
    outcomes = data.ingest_from_r2_several(asked)
    assert [outcome.rec_id for outcome in outcomes] == asked
    assert [type(outcome.error) for outcome in outcomes] == [
        type(None),
        MissingFilesError,
        ManifestNotFoundError,
        RecordingExistsError,
        ConflictError,
        InvalidRecordingError,
        type(None),
    ]
    assert sorted(row.rec_id for row in rows(data)["recordings"]) == sorted([MANY[0], MANY[5], REC])
    assert {row.rec_id for row in rows(data)["modalities"]} == {MANY[0], MANY[5], REC}


def test_two_that_state_one_hash(local: Local, data: DataInterface, tmp_path: Path) -> None:
    """In one group neither is registered yet, so the second is decided after the first."""
    for name in MANY[:2]:
        local.put(make_recording(tmp_path / "nas", name, FILES, recording_hash="ab" * 32))
    first, second = data.ingest_from_r2_several(MANY[:2])
    assert (first.status, second.status) == ("ok", "fail")
    assert isinstance(second.error, ConflictError) and MANY[0] in second.error.message
    assert [row.rec_id for row in data.list_recordings()] == [MANY[0]]


def test_named_twice_is_registered_once(local: Local, data: DataInterface, tmp_path: Path) -> None:
    local.put(make_recording(tmp_path / "nas", REC, FILES))
    before = versions(data)[0]
    outcomes = data.ingest_from_r2_several([REC, REC])
    assert [outcome.status for outcome in outcomes] == ["ok", "ok"]
    assert versions(data)[0] == before + 1
    assert data.ingest_from_r2_several([]) == []


def test_a_callback_that_raises_registers_nothing(local: Local, data: DataInterface, tmp_path: Path) -> None:
    put_many(local, tmp_path)

    def stop(_event: UploadProgress) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        data.ingest_from_r2_several(MANY, progress=stop)
    assert data.list_recordings() == []


def test_more_than_a_group(local: Local, data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit a table for each; who is in a later group is decided after those before."""
    monkeypatch.setattr(from_r2, "MOST_AT_ONCE", 12)
    put_many(local, tmp_path)
    for name in (MANY[0], MANY[29]):
        local.put(make_recording(tmp_path / "twins", name, FILES, recording_hash="ab" * 32))
    before = versions(data)
    outcomes = data.ingest_from_r2_several(MANY)
    assert [outcome.rec_id for outcome in outcomes] == MANY
    assert [type(outcome.error) for outcome in outcomes] == [type(None)] * 29 + [ConflictError]
    assert [after - was for after, was in zip(versions(data), before, strict=True)][:2] == [3, 3]
    assert [row.rec_id for row in data.list_recordings()] == MANY[:29]


def test_plans_are_those_of_each_alone(local: Local, data: DataInterface, tmp_path: Path) -> None:
    """In order, each once; the same plan or the same error. Nothing is written."""
    put_many(local, tmp_path)
    (local.bucket / MANY[1] / "eeg_a" / "seg_000.edf").unlink()
    local.put(make_recording(tmp_path / "nas", REC, FILES, recording_hash="ab" * 32))
    data.ingest_from_r2(REC)
    local.put(make_recording(tmp_path / "twin", MANY[4], FILES, recording_hash="ab" * 32))
    before = versions(data)
    asked = [MANY[4], MANY[3], REC, MANY[1], "rec_../etc", MANY[0], MANY[3]]
    planned = list(data.plan_from_r2_several(asked, "Aria Lin"))
    assert [name for name, _ in planned] == list(dict.fromkeys(asked))
    for name, found in planned:
        if isinstance(found, UrsaError):
            with pytest.raises(type(found)) as alone:
                data.plan_from_r2(name, "Aria Lin")
            assert alone.value.message == found.message and alone.value.hint == found.hint
        else:
            assert found == data.plan_from_r2(name, "Aria Lin")
    assert [type(found).__name__ for _, found in planned] == [
        "ConflictError",
        "BucketPlan",
        "RecordingExistsError",
        "MissingFilesError",
        "InvalidRecordingError",
        "BucketPlan",
    ]
    assert versions(data) == before
