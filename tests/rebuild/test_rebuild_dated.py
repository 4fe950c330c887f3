"""A catalog of before the rule of evidence: it opens and is read, what it says was proven is a claim, and a rebuild ends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grown
import pytest
from dated import make_dated, make_store_dated, old_etag
from frozen import plain, snapshot
from grown import Lab, content, name, tables, zoo

from conftest import Buckets, MakeConfig
from helpers import make_recording, run_ursa
from ursa import DataInterface, RecordingExistsError, StorageError
from ursa.catalog.rows import FileRow
from ursa.rebuild import run

MORE = {"events.csv": b"a,b\n", "_calibration/x.bin": b"x"}
Opened = Callable[[], DataInterface]


@pytest.fixture(autouse=True)
def settles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SETTLES_S", 0.5)


@pytest.fixture
def here(tmp_path: Path) -> Lab:
    """An empty directory store, and a NAS beside it."""
    return grown.lab(tmp_path)


@pytest.fixture(params=["local", "r2"])
def profile(request: pytest.FixtureRequest) -> str:
    """A directory, and a bucket on a server."""
    found: str = request.param
    return found


@pytest.fixture
def config(profile: str, here: Lab, request: pytest.FixtureRequest, s3_config: MakeConfig) -> Path:
    if profile == "local":
        return here.config
    buckets: Buckets = request.getfixturevalue("weed_buckets")
    return s3_config(buckets)


@pytest.fixture
def opened(profile: str, config: Path) -> Opened:
    """A data interface of its own, as another machine has."""

    def open_() -> DataInterface:
        data = DataInterface(profile, config)
        data.enable_writes(roles=grown.ROLES)
        return data

    return open_


@pytest.fixture
def nas(here: Lab, opened: Opened, profile: str) -> Path:
    """Two recordings, registered, in a catalog (and a directory store) of before."""
    with opened() as data:
        data.init_catalog()
        for number in (0, 1):
            rec_dir = make_recording(here.nas, name(number), content(number) | MORE, participant="Aria Lin")
            data.ingest(rec_dir / "manifest.json", rec_dir, "Aria Lin")
        if profile == "r2":
            make_dated(data)
        else:
            make_dated(data, lambda row: old_etag(here.bucket.parent / row.key))
            make_store_dated(here.root / "store", "constellation-data")
    return here.nas


def files(data: DataInterface) -> dict[str, list[FileRow]]:
    """Every file of every row, raw and auxiliary, by rec_id."""
    there = tables(data)
    found: dict[str, list[FileRow]] = {row.rec_id: list(row.auxiliary_files) for row in there["recordings"]}
    for row in there["modalities"]:
        found[row.rec_id] += row.files
    return {rec_id: sorted(of, key=lambda file: file.path) for rec_id, of in found.items()}


def evidence(data: DataInterface) -> set[str]:
    return {str(file.evidence) for of in files(data).values() for file in of}


def test_it_is_read_and_proves_nothing(nas: Path, opened: Opened) -> None:
    data = opened()
    found = files(data)
    assert found.keys() == {name(0), name(1)}
    for number in (0, 1):
        wanted = content(number) | MORE
        assert [(file.path, file.size_bytes) for file in found[name(number)]] == [
            (path, len(wanted[path])) for path in sorted(wanted)
        ]
    assert evidence(data) == {"claimed"}
    assert {file.mtime_ns for of in found.values() for file in of} == {None}
    row = data.find_recording(name(0))
    assert "auxiliary_files" not in row.metadata and len(row.auxiliary_files) == 2
    assert [item.rec_id for item in data.query(modalities="eeg").recordings] == [name(0), name(1)]
    assert len(data.overview()) == 2 and all(check.ok for check in data.verify(everything=True, level="full"))


def test_a_write_refuses_in_words(nas: Path, opened: Opened, profile: str, config: Path) -> None:
    """Before a byte is uploaded; what is compared with the disk is said to be there, and nothing is written."""
    data = opened()
    before = tables(data)
    rec_dir = make_recording(nas, name(2), content(2))
    recording_hash = data.find_recording(name(0)).recording_hash
    calls: list[Callable[[], Any]] = [
        lambda: data.ingest(rec_dir / "manifest.json", rec_dir),
        lambda: data.register_recording(recording_hash="ab" * 32),
        lambda: data.register_modality(recording_hash=recording_hash, modality="spikes"),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="it can be read, and not be written") as refused:
            call()
        assert "ursa catalog rebuild --yes" in (refused.value.hint or "")
    assert not list(data._raw.list(f"recordings/{name(2)}/"))
    done = run_ursa("ingest", rec_dir, "-p", profile, "--config", config)
    assert done.returncode == 1 and "ursa catalog rebuild --yes" in done.stdout + done.stderr
    with pytest.raises(RecordingExistsError, match="with the same files"):
        data.ingest(nas / name(0) / "manifest.json", nas / name(0))
    after = tables(opened())
    assert {key: after[key] for key in ("recordings", "modalities")} == {
        key: before[key] for key in ("recordings", "modalities")
    }


def test_a_rebuild_and_a_batch_prove_it_all(nas: Path, opened: Opened, profile: str, config: Path) -> None:
    before = tables(opened())
    done = run_ursa("catalog", "rebuild", "--yes", "-p", profile, "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    after = tables(opened())
    assert after["participants"] == before["participants"]
    assert [bare(row) for row in after["recordings"]] == [bare(row) for row in before["recordings"]]
    assert [bare(row) for row in after["modalities"]] == [bare(row) for row in before["modalities"]]
    auxiliary = [file for row in after["recordings"] for file in row.auxiliary_files]
    assert len(auxiliary) == 4 and all(file.proven and file.key and file.etag for file in auxiliary)
    if profile == "local":
        # Its ETags are the sha256s that it measures: nothing of the old ones is left.
        assert all(file.proven and file.etag == file.sha256 for of in files(opened()).values() for file in of)
    done = run_ursa("batch", nas, "-p", profile, "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("HAVE ") == 2
    found = files(opened())
    assert all(file.proven for of in found.values() for file in of)
    assert {rec_id: [file.path for file in of] for rec_id, of in found.items()} == {
        name(number): sorted(content(number) | MORE) for number in (0, 1)
    }
    rec_dir = make_recording(nas, name(2), content(2))
    with opened() as data:
        assert data.ingest(rec_dir / "manifest.json", rec_dir).action == "created"


def bare(row: Any) -> Any:
    """What a row says beside how its files are proven, and under which names the bucket has them."""
    field = "files" if hasattr(row, "files") else "auxiliary_files"
    plain = tuple((file.path, file.size_bytes, file.sha256) for file in getattr(row, field))
    return replace(row, **{field: plain})


def test_everything_there_is(here: Lab) -> None:
    """Halves, edits by hand, objects elsewhere: a rebuild gives what one of a catalog of now would, but for the proofs."""
    zoo(here)
    before = tables(here.open())
    with here.open() as data:
        make_dated(data)
    untouched = snapshot(here.assets)
    with here.open() as data:
        planned = data.rebuild(dry_run=True)
    assert snapshot(here.assets) == untouched
    result = here.rebuild()
    assert (result.recordings, result.modalities, result.told) == (planned.recordings, planned.modalities, planned.told)
    assert not result.new and not result.lost
    after = tables(here.open())
    assert [bare(row) for row in after["recordings"]] == [bare(row) for row in before["recordings"]]
    assert sorted(map(repr, map(nameless, after["modalities"]))) == sorted(
        map(repr, map(nameless, before["modalities"]))
    )
    assert after["participants"] == before["participants"]


def nameless(row: Any) -> Any:
    return bare(replace(row, metadata={}))


@pytest.mark.parametrize("first", [False, True])
def test_a_catalog_of_the_first_ursa(first: bool, here: Lab) -> None:
    """It lacks rec_id as well: no table of it is taken for one that can be read."""
    plain(here, 0)
    with here.open() as data:
        make_dated(data, first=first)
    if first:
        with pytest.raises(StorageError, match="an early version of ursa made it") as refused:
            here.open().list_modalities()
        assert "ursa catalog rebuild --yes" in (refused.value.hint or "")
    assert here.rebuild().recordings == 1
    with here.open() as data:
        assert [row.rec_id for row in data.list_modalities()] == [name(0)] * 2
        assert all(check.ok for check in data.verify(everything=True))
