"""A row says what the bucket holds: also where somebody else is at it between a look and a commit."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import ursa.catalog.tables as tables
import ursa.register.committer as committer
import ursa.register.from_r2 as from_r2
import ursa.register.orchestrator as orchestrator
from helpers import make_recording, write_node_manifest
from ursa import DataInterface, MissingFilesError, RecordingExistsError
from ursa.catalog.catalog import Catalog
from ursa.register.commit import _Round
from ursa.register.proving import stated_of

REC = "rec_20260520_195628_b1dd"
FILES = {"camera_left/a.mp4": b"mp4" * 100, "eeg_a/a.edf": b"edf" * 50}
HASH = "ab" * 32


@pytest.fixture
def data(tmp_path: Path) -> DataInterface:
    (tmp_path / "ursa.yaml").write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n")
    return opened(tmp_path)


def opened(tmp_path: Path) -> DataInterface:
    """One more, as another process has."""
    data = DataInterface("local", tmp_path / "ursa.yaml")
    data.enable_writes(roles=("assets_rw", "raw_rw"))
    return data


def bucket(tmp_path: Path) -> Path:
    """The recording's objects."""
    return tmp_path / "store" / "constellation-data" / "recordings" / REC


@pytest.mark.parametrize("change", ["gone", "replaced"])
@pytest.mark.parametrize("several", [False, True])
def test_path_b_looks_again_before_the_rows(
    change: str, several: bool, data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(make_recording(tmp_path / "nas", REC, FILES), bucket(tmp_path))
    look_again = from_r2.look_again

    def once_changed(*args: Any) -> None:
        victim = bucket(tmp_path) / "eeg_a" / "a.edf"
        victim.unlink()
        if change == "replaced":
            victim.write_bytes(b"xyz" * 50)
        look_again(*args)

    monkeypatch.setattr(from_r2, "look_again", once_changed)
    if several:
        (outcome,) = data.ingest_from_r2_several([REC])
        assert isinstance(outcome.error, MissingFilesError) and outcome.error.paths == ("eeg_a/a.edf",)
    else:
        with pytest.raises(MissingFilesError) as refused:
            data.ingest_from_r2(REC)
        assert refused.value.paths == ("eeg_a/a.edf",)
    assert data.list_recordings() == []


def test_a_finished_ingest_does_not_take_back_what_another_has_overwritten(
    data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_recording(tmp_path / "a", REC, {"eeg_a/a.edf": b"old" * 10})
    second = make_recording(tmp_path / "b", REC, {"eeg_a/a.edf": b"new!" * 10})
    other = opened(tmp_path)
    check = _Round._look_again

    def overtaken(self: _Round) -> None:
        monkeypatch.setattr(_Round, "_look_again", check)
        other.ingest(second / "manifest.json", second, overwrite=True, replace_objects=True)
        check(self)

    monkeypatch.setattr(_Round, "_look_again", overtaken)
    data.ingest(first / "manifest.json", first)
    (row,) = data.list_modalities()
    assert row.files[0].sha256 == hashlib.sha256(b"new!" * 10).hexdigest()
    assert (bucket(tmp_path) / "eeg_a" / "a.edf").read_bytes() == b"new!" * 10


def test_registered_is_only_said_where_the_objects_are(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    data.ingest(rec_dir / "manifest.json", rec_dir)
    with pytest.raises(RecordingExistsError):
        data.ingest(rec_dir / "manifest.json", rec_dir)
    (bucket(tmp_path) / "eeg_a" / "a.edf").unlink()
    with pytest.raises(MissingFilesError) as lost:
        data.ingest(rec_dir / "manifest.json", rec_dir)
    assert lost.value.paths == ("eeg_a/a.edf",) and "--overwrite" in (lost.value.hint or "")
    data.ingest(rec_dir / "manifest.json", rec_dir, overwrite=True)
    assert data.verify([REC], level="full")[0].ok


def test_what_a_dead_run_left_is_not_shown_under_the_other_half(
    data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = make_recording(tmp_path / "a", REC, {"camera_left/a.mp4": b"mp4"}, manifest=False)
    write_node_manifest(dead, "host", ["camera_left"], recording_hash=HASH)
    half = make_recording(tmp_path / "b", REC, {"eeg_a/a.edf": b"edf"}, manifest=False)
    write_node_manifest(half, "motor", ["eeg_a"], recording_hash=HASH)

    def killed(_self: _Round, members: Sequence[int]) -> None:
        if members:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(_Round, "_write_recordings", killed)
        data.ingest(dead / "manifest.json", dead)
    other = opened(tmp_path)
    other.ingest(half / "manifest.json", half)
    assert [row.name for row in other.list_modalities()] == ["eeg_a"]
    assert list(other.query(recording_hash=HASH).modalities) == ["eeg"]
    assert [row.name for row in other.overview()[0].modalities] == ["eeg_a"]
    # It is finished by the run that has its bytes.
    other.ingest(dead / "manifest.json", dead)
    assert [row.name for row in other.list_modalities()] == ["camera_left", "eeg_a"]


def test_nobody_commits_what_was_interrupted_while_it_waited(
    data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        """A turn that never comes."""

        def __enter__(self) -> None:
            raise KeyboardInterrupt

        def __exit__(self, *_: object) -> None: ...

    first = make_recording(tmp_path / "nas", REC, FILES)
    data.catalog_location()
    turn = data._committer._turn
    data._committer._turn = Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        data.ingest(first / "manifest.json", first)
    data._committer._turn = turn
    second = make_recording(tmp_path / "nas", "rec_20260521_000000_aa", {"eeg_a/b.edf": b"other"})
    data.ingest(second / "manifest.json", second)
    assert [row.rec_id for row in data.list_recordings()] == [second.name]


def test_reconstructed_halves_join(data: DataInterface, tmp_path: Path) -> None:
    """Each half's reconstruction derives a hash over its own files, which states nothing about the other's."""
    one = make_recording(tmp_path / "nas1", REC, {"camera_left/a.mp4": b"mp4"}, manifest=False)
    two = make_recording(tmp_path / "nas2", REC, {"eeg_a/a.edf": b"edf"}, manifest=False)
    outcomes = list(data.batch([one.parent, two.parent], reconstruct_missing=True))
    assert [outcome.status for outcome in outcomes] == ["ok", "ok"], [outcome.error for outcome in outcomes]
    assert [row.name for row in data.list_modalities()] == ["camera_left", "eeg_a"]
    assert len(data.list_recordings()) == 1
    assert data.verify([REC], level="full")[0].ok


def test_a_failure_after_the_commit_is_told_as_such(
    data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ursa import StorageError

    rec_dir = make_recording(tmp_path / "nas", REC, FILES)

    def unreachable(_self: Catalog, *_tables: object) -> bool:
        raise StorageError("the server is gone")

    with monkeypatch.context() as patched, pytest.raises(StorageError, match="is written, but") as told:
        patched.setattr(Catalog, "follow_pointer", unreachable)
        data.ingest(rec_dir / "manifest.json", rec_dir)
    assert "same command again" in (told.value.hint or "")
    with pytest.raises(RecordingExistsError):
        data.ingest(rec_dir / "manifest.json", rec_dir)


@pytest.mark.parametrize("batch", [False, True])
def test_files_are_merged_once_the_outcome_is_told(
    batch: bool, data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SMALL_EVERY", 1)
    merged: list[str] = []

    def merge_files(table: tables.CatalogTable[Any], _below_bytes: int) -> None:
        merged.append(table.kind.name)

    monkeypatch.setattr(tables.CatalogTable, "merge_files", merge_files)
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, participant="Aria Lin")
    outcomes = iter(data.batch([rec_dir.parent]) if batch else data.ingest_dirs([rec_dir]))
    assert next(outcomes).status == "ok" and merged == []
    assert list(outcomes) == [] and {"recordings", "modalities", "participants"} <= {*merged}
    # A caller of its own has nobody to be told before.
    merged.clear()
    other = make_recording(tmp_path / "nas", "rec_20260521_000000_aa", FILES | {"mic_b/a.wav": b"wav"})
    data.ingest(other / "manifest.json", other)
    assert {"recordings", "modalities"} <= {*merged}


def test_what_was_seen_while_the_files_were_proven_need_not_be_seen_again(
    data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove, seen = orchestrator._prove, threading.Event()
    syncs: list[int] = []
    sync = Catalog._sync

    def synced(catalog: Catalog) -> None:
        sync(catalog)
        syncs.append(1)
        if len(syncs) > 1:
            seen.set()  # its lock is still held: who registers waits for that

    def proven(*arguments: Any) -> Any:
        assert seen.wait(60)
        return prove(*arguments)

    monkeypatch.setattr(Catalog, "_sync", synced)
    monkeypatch.setattr(orchestrator, "_prove", proven)
    rec_dir = make_recording(tmp_path / "nas", REC, FILES)
    data.ingest(rec_dir / "manifest.json", rec_dir)
    assert len(syncs) == 2  # for the plan, and beside the proof


def test_threads_that_wait_share_a_commit(data: DataInterface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    register_all = committer.register_all
    all_wait = threading.Event()

    def counted(catalog: Catalog, wanted: Sequence[Any]) -> Any:
        groups.append(len(wanted))
        if len(groups) == 1:
            all_wait.wait(30)
        return register_all(catalog, wanted)

    monkeypatch.setattr(committer, "register_all", counted)
    dirs = [make_recording(tmp_path / "nas", f"rec_2026052{i}_000000_aa", {"eeg_a/a": bytes([i])}) for i in range(5)]
    threads = [threading.Thread(target=data.ingest, args=(rec / "manifest.json", rec)) for rec in dirs]
    for thread in threads:
        thread.start()
    while len(data._committer._waiting) + sum(groups) < len(dirs):
        threading.Event().wait(0.01)
    all_wait.set()
    for thread in threads:
        thread.join(30)
    assert sum(groups) == 5 and len(groups) == 2
    assert len(data.list_recordings()) == 5


def test_a_claim_that_was_wrong_gives_way_and_the_other_half_is_merged(data: DataInterface, tmp_path: Path) -> None:
    """A manifest in the bucket states another sha256 than its object has: what was measured is what counts."""
    half = {"eeg_a/a.edf": FILES["eeg_a/a.edf"]}
    first = make_recording(tmp_path / "nas", REC, half, manifest=False)
    node = write_node_manifest(first, "motor", ["eeg_a"])
    stated = "0" * 64
    node.write_text(node.read_text().replace(hashlib.sha256(half["eeg_a/a.edf"]).hexdigest(), stated))
    shutil.copytree(first, bucket(tmp_path))
    data.ingest_from_r2(REC)
    (row,) = data.list_modalities()
    assert (row.files[0].sha256, row.files[0].evidence) == (stated, "claimed")
    whole = make_recording(tmp_path / "whole", REC, FILES, recording_hash=row.recording_hash)
    assert data.ingest(whole / "manifest.json", whole).action == "merged"
    rows = {item.name: item for item in data.list_modalities()}
    assert rows.keys() == {"camera_left", "eeg_a"}
    assert {file.sha256: file.proven for item in rows.values() for file in item.files} == {
        hashlib.sha256(body).hexdigest(): True for body in FILES.values()
    }
    assert stated_of(rows["eeg_a"].metadata) == {"eeg_a/a.edf": stated}
    with pytest.raises(RecordingExistsError, match="with the same files"):
        data.ingest(whole / "manifest.json", whole)


def test_what_is_claimed_is_compared_before_it_is_said_to_be_there(data: DataInterface, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "nas", REC, FILES | {"events.csv": b"a,b\n"})
    shutil.copytree(rec_dir, bucket(tmp_path))
    data.ingest_from_r2(REC)
    with pytest.raises(RecordingExistsError, match="with the same files"):
        data.ingest(rec_dir / "manifest.json", rec_dir)
    (recording,) = data.list_recordings()
    assert all(file.proven for item in data.list_modalities() for file in item.files)
    assert all(file.proven for file in recording.auxiliary_files)
    assert data.catalog_history(1)[0].operation == "proven"


def test_a_download_of_what_is_claimed_upgrades_in_one_commit(data: DataInterface, tmp_path: Path) -> None:
    """Of all recordings together; with no role that writes, nothing is written, and it is not read again to be proven."""
    others = [f"rec_20260521_10150{number}_c2ee" for number in range(3)]
    for number, name in enumerate(others):
        files = {path: body + b"%d" % number for path, body in FILES.items()}
        shutil.copytree(make_recording(tmp_path / "nas", name, files), bucket(tmp_path).with_name(name))
        data.ingest_from_r2(name)
    reading = DataInterface("local", tmp_path / "ursa.yaml")
    reading.download(reading.query(), tmp_path / "first")
    assert {file.evidence for item in data.list_modalities() for file in item.files} == {"claimed"}
    data.download(data.query(), tmp_path / "second")
    assert all(file.proven for item in data.list_modalities() for file in item.files)
    newest = data.catalog_history(2)
    assert (newest[0].operation, dict(newest[0].rows)) == ("proven", {"modalities": 6})
    assert newest[1].operation != "proven"
