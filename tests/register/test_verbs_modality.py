"""``register_modality`` and ``register_participant``: their policies, alone and after a lost race."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from r2_tools import REC, Local, Overtake, local_store, overtaking, rows

from helpers import make_recording
from ursa import (
    ConflictError,
    DataInterface,
    InvalidRecordingError,
    MissingFilesError,
    RecordingExistsError,
    RecordingNotFoundError,
    UsageError,
    participant_id,
)
from ursa.catalog.rows import FileRow

HASH = "ab" * 32


@pytest.fixture
def local(tmp_path: Path) -> Local:
    return local_store(tmp_path)


@pytest.fixture
def data(local: Local) -> DataInterface:
    return local.open()


@pytest.fixture
def overtake(monkeypatch: pytest.MonkeyPatch) -> Overtake:
    return overtaking(monkeypatch)


def put(local: Local, path: str, body: bytes) -> dict[str, Any]:
    target = local.bucket / REC / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(body)
    return {"path": path, "size_bytes": len(body)}


@pytest.fixture
def files(local: Local, data: DataInterface) -> list[dict[str, Any]]:
    """Two files in the bucket, of a recording that is registered."""
    data.register_recording(recording_hash=HASH, metadata={"manifest_recording_id": REC})
    return [put(local, "eeg_a/seg_000.edf", b"eeg"), put(local, "eeg_a/seg_001.edf", b"more")]


def test_a_modality_of_a_registered_recording(files: list[dict[str, Any]], data: DataInterface) -> None:
    row = data.register_modality(
        recording_hash=HASH, modality="eeg", worker_id="a", node="motor", files=files, metadata={"note": 1}
    )
    assert (row.rec_id, row.name, row.node, row.bytes, row.metadata["note"]) == (REC, "eeg_a", "motor", 7, "1")
    assert [(file.path, file.key, file.size_bytes) for file in row.files] == [
        (item["path"], f"recordings/{REC}/{item['path']}", item["size_bytes"]) for item in files
    ]
    assert data.list_modalities() == [row]
    assert data.query(modalities=["eeg_a"]).modalities["eeg"] == [row]


@pytest.mark.parametrize("policy", ["error", "overwrite"])
@pytest.mark.parametrize("there", ["no row", "equal row", "other files", "another worker"])
def test_each_modality_policy_with_each_row(
    policy: str, there: str, files: list[dict[str, Any]], data: DataInterface
) -> None:
    before = []
    if there != "no row":
        worker = "b" if there == "another worker" else "a"
        listed = files[:1] if there == "other files" else files
        before = [data.register_modality(recording_hash=HASH, modality="eeg", worker_id=worker, files=listed)]

    def register() -> Any:
        return data.register_modality(
            recording_hash=HASH, modality="eeg", worker_id="a", files=files, on_conflict=policy
        )

    if policy == "error" and there in ("equal row", "other files"):
        with pytest.raises(ConflictError, match="eeg_a") as refused:
            register()
        assert refused.value.exit_code == 5 and "overwrite" in str(refused.value.hint)
        assert data.list_modalities() == before
    else:
        row = register()
        assert [item for item in data.list_modalities() if item.worker_id == "a"] == [row]
        assert len(row.files) == 2
        assert len(data.list_modalities()) == (2 if there == "another worker" else 1)


def test_a_modality_needs_its_recording(local: Local, data: DataInterface) -> None:
    stated = put(local, "eeg_a/seg_000.edf", b"eeg")
    for policy in ("error", "overwrite"):
        with pytest.raises(RecordingNotFoundError, match=HASH):
            data.register_modality(recording_hash=HASH, modality="eeg", files=[stated], on_conflict=policy)
    assert rows(data)["modalities"] == []


@pytest.mark.parametrize("policy", ["error", "overwrite"])
def test_files_that_are_not_there_are_all_named(policy: str, files: list[dict[str, Any]], data: DataInterface) -> None:
    wrong = [
        files[0],
        files[1] | {"size_bytes": 5},
        {"path": "eeg_a/seg_002.edf", "size_bytes": 1},
        {"path": "x.bin", "size_bytes": 1, "key": "derived/x.bin"},
    ]
    with pytest.raises(MissingFilesError, match="3 of 4") as refused:
        data.register_modality(recording_hash=HASH, modality="eeg", files=wrong, on_conflict=policy)
    assert tuple(refused.value.paths) == ("eeg_a/seg_001.edf", "eeg_a/seg_002.edf", "x.bin")
    assert refused.value.exit_code == 6
    assert rows(data)["modalities"] == []


def test_derived_data_may_lie_elsewhere(local: Local, files: list[dict[str, Any]], data: DataInterface) -> None:
    derived = local.root / "constellation-data" / "derived" / "x.bin"
    derived.parent.mkdir()
    derived.write_bytes(b"spikes")
    row = data.register_modality(
        recording_hash=HASH,
        modality="spikes",
        files=[FileRow("spikes/x.bin", "derived/x.bin", 6)],
        status="sorted",
    )
    assert (row.files[0].key, row.status) == ("derived/x.bin", "sorted")
    assert list(data.query(status="raw").modalities) == []


@pytest.mark.parametrize(
    "wrong",
    [
        [{"path": "../x", "size_bytes": 1}],
        [{"path": "/x", "size_bytes": 1}],
        [{"path": "x"}],
        [{"size_bytes": 1}],
        [{"path": "x", "size_bytes": -1}],
        [{"path": "x", "size_bytes": 1.5}],
        [{"path": "x", "size_bytes": 1, "colour": "red"}],
        [{"path": "x", "size_bytes": 1}, {"path": "./x", "size_bytes": 1}],
    ],
    ids=str,
)
def test_files_that_can_be_none_are_usage_errors(wrong: list[Any], files: object, data: DataInterface) -> None:
    with pytest.raises(UsageError):
        data.register_modality(recording_hash=HASH, modality="eeg", files=wrong)
    assert rows(data)["modalities"] == []


@pytest.mark.parametrize("policy", ["error", "overwrite"])
def test_a_modality_that_loses_the_race_is_decided_again(
    policy: str, files: list[dict[str, Any]], local: Local, overtake: Overtake
) -> None:
    def theirs() -> object:
        other = local.open()
        return other.register_modality(recording_hash=HASH, modality="eeg", worker_id="a", files=files[:1])

    done = overtake("modalities", theirs)
    data = local.open()
    if policy == "error":
        with pytest.raises(ConflictError):
            data.register_modality(recording_hash=HASH, modality="eeg", worker_id="a", files=files)
        assert data.list_modalities() == done
    else:
        row = data.register_modality(
            recording_hash=HASH, modality="eeg", worker_id="a", files=files, on_conflict="overwrite"
        )
        assert data.list_modalities() == [row]


def test_a_modality_that_is_registered_is_part_of_its_recording(
    local: Local, data: DataInterface, tmp_path: Path
) -> None:
    """Path B of the same bytes then has nothing to do, and does not take it for a dead run's row."""
    body = {"camera_left/v.mp4": b"v"}
    local.put(make_recording(tmp_path / "nas", REC, body))
    row = data.ingest_from_r2(REC).recording
    stated = put(local, "eeg_a/seg_000.edf", b"eeg")
    data.register_modality(recording_hash=row.recording_hash, modality="eeg", worker_id="a", files=[stated])
    with pytest.raises(RecordingExistsError):
        data.ingest_from_r2(REC)
    assert len(data.list_modalities()) == 2


def test_a_participant_is_made_once(data: DataInterface) -> None:
    first = data.register_participant(" Aria  Lin ")
    assert first.participant_id == participant_id("Aria Lin") and first.created_at is not None
    assert data.register_participant("aria lin") == first
    assert data.register_participant("Whoever", participant_id=first.participant_id) == first
    given = data.register_participant("Bo Berg", participant_id="p_legacy")
    assert given.participant_id == "p_legacy"
    assert data.list_participants() == sorted([first, given], key=lambda row: row.display_name)


def test_a_participant_that_loses_the_race_is_the_one_that_won(local: Local, overtake: Overtake) -> None:
    done = overtake("participants", lambda: local.open().register_participant("ARIA LIN"))
    assert [local.open().register_participant("Aria Lin")] == done
    assert local.open().list_participants() == done


@pytest.mark.parametrize(("name", "error"), [("", UsageError), (" \t ", UsageError), ("a\nb", InvalidRecordingError)])
def test_names_that_are_none(name: str, error: type[Exception], data: DataInterface) -> None:
    with pytest.raises(error):
        data.register_participant(name)
    assert data.list_participants() == []
