"""Downloads of query results: what was measured, and what is not as its manifest states."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from ursa.catalog.query import QueryResult
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.errors import ChecksumMismatchError, MissingFilesError
from ursa.events import DownloadProgress
from ursa.fetch import DownloadResult, Measured, NotAsStated, fetch
from ursa.policies import Evidence
from ursa.store.local import LocalStore
from ursa.transfer.engine import Engine, Stop
from ursa_cli import download_view
from ursa_cli.render import Printer

REC, HASH = "rec_20260520_195628_b1dd", "ab" * 32
OTHER = hashlib.sha256(b"something else").hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store", "raw")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(transfers=2) as one:
        yield one


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: LocalStore, path: str, data: bytes, evidence: Evidence = Evidence.SHA256) -> FileRow:
    """An object, and its row."""
    key = f"recordings/{REC}/{path}"
    written = store.put(key, data, sha256=sha256(data))
    return FileRow(path, key, len(data), sha256(data), written.etag, evidence)


def found(*files: FileRow) -> QueryResult:
    row = ModalityRow(HASH, "eeg", "a", files=files, bytes=sum(file.size_bytes for file in files), rec_id=REC)
    return QueryResult((RecordingRow(HASH, REC),), {"eeg": [row]})


def measured(file: FileRow, etag: str | None, sha: str) -> Measured:
    return Measured(HASH, REC, "eeg", "a", file.path, file.key, file.size_bytes, etag or "", sha)


def test_of_a_proven_file_nothing_new_is_measured(store: LocalStore, engine: Engine, tmp_path: Path) -> None:
    file = put(store, "eeg_a/x.edf", b"1234")
    told: list[Measured] = []
    for _ in range(2):
        result = fetch(engine, store, found(file), tmp_path / "dest", stop=Stop(), on_measured=told.append)
        assert (result.measured, result.not_as_stated, result.files_not_compared) == ((), (), 0)
    assert told == []
    assert (result.files_downloaded, result.files_skipped) == (0, 1)


def test_what_was_measured_is_told(store: LocalStore, engine: Engine, tmp_path: Path) -> None:
    right = put(store, "eeg_a/right.edf", b"right", Evidence.CLAIMED)
    wrong = replace(put(store, "eeg_a/wrong.edf", b"wrong", Evidence.CLAIMED), sha256=OTHER)
    nothing = replace(put(store, "eeg_a/nothing.edf", b"nothing", Evidence.SIZE), sha256=None, etag=None)
    again = replace(put(store, "eeg_a/again.edf", b"again"), etag="the one before")
    proven = put(store, "eeg_a/proven.edf", b"proven")
    files = (right, wrong, nothing, again, proven)
    told: list[Measured] = []
    result = fetch(engine, store, found(*files), tmp_path / "dest", stop=Stop(), on_measured=told.append)
    assert result.files_downloaded == len(result.paths) == 5
    assert result.measured == tuple(
        measured(file, store.head(file.key).etag, sha256(Path(file.path).stem.encode())) for file in files[:4]
    )
    assert sorted(told, key=str) == sorted(result.measured, key=str)
    assert result.not_as_stated == (NotAsStated(REC, wrong.path, sha256(b"wrong"), OTHER),)
    assert result.files_not_compared == 1
    assert (tmp_path / "dest" / REC / wrong.path).read_bytes() == b"wrong"


def test_what_was_measured_before_an_error_is_told(store: LocalStore, tmp_path: Path) -> None:
    files = [put(store, f"eeg_a/{number}.edf", b"1234", Evidence.CLAIMED) for number in range(3)]
    gone = replace(files[2], path="eeg_a/gone.edf", key="gone")
    told: list[Measured] = []
    with Engine(transfers=1) as engine, pytest.raises(MissingFilesError):
        fetch(engine, store, found(*files[:2], gone), tmp_path / "dest", stop=Stop(), on_measured=told.append)
    assert [one.path for one in told] == ["eeg_a/0.edf", "eeg_a/1.edf"]


def test_a_wrong_file_that_is_there_is_told_as_well(store: LocalStore, engine: Engine, tmp_path: Path) -> None:
    """It is what the bucket holds, and not what is stated: each run says so."""
    wrong = replace(put(store, "eeg_a/wrong.edf", b"wrong", Evidence.CLAIMED), sha256=OTHER)
    results = [fetch(engine, store, found(wrong), tmp_path / "dest", stop=Stop()) for _ in range(2)]
    assert [(one.files_downloaded, one.files_skipped) for one in results] == [(1, 0), (0, 1)]
    assert results[0].not_as_stated == results[1].not_as_stated != ()


def test_a_proven_row_refuses_other_bytes(store: LocalStore, engine: Engine, tmp_path: Path) -> None:
    file = replace(put(store, "eeg_a/x.edf", b"1234"), sha256=OTHER)
    told: list[Measured] = []
    with pytest.raises(ChecksumMismatchError):
        fetch(engine, store, found(file), tmp_path / "dest", stop=Stop(), on_measured=told.append)
    assert told == []


def test_the_phases_with_an_object_that_is_taken_up_anew(store: LocalStore, engine: Engine, tmp_path: Path) -> None:
    again = replace(put(store, "eeg_a/again.edf", b"again"), etag="the one before")
    wrong = replace(put(store, "eeg_a/wrong.edf", b"wrong", Evidence.CLAIMED), sha256=OTHER)
    events: list[DownloadProgress] = []
    fetch(engine, store, found(again, wrong), tmp_path / "dest", stop=Stop(), callback=events.append)
    phases = ["start", "plan_done", "modality_start", "file_done", "file_done", "modality_done", "finish"]
    assert [event.phase for event in events] == phases
    assert (events[-1].bytes_downloaded, events[-1].bytes_total, events[-1].files_done) == (10, 10, 2)


# --- what the command says


class Shown:
    """What the view needs of a session."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.out = Printer(json=as_json, quiet=False, color=False)


def result(*wrong: NotAsStated, not_compared: int = 0) -> DownloadResult:
    return DownloadResult(
        Path("/data"), (Path("/data/x"),), 3, 1, 2048, 10, 1.0, (), wrong, files_not_compared=not_compared
    )


def shown(one: DownloadResult, capsys: pytest.CaptureFixture[str], *, as_json: bool = False) -> tuple[int, list[str]]:
    code = 0
    try:
        download_view.finish(Shown(as_json=as_json), one)  # type: ignore[arg-type]
    except typer.Exit as end:
        code = end.exit_code
    return code, capsys.readouterr().out.splitlines()


def test_all_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(result(), capsys) == (0, ["OK   3 fetched (2.0 KiB), 1 were there, all verified, below /data"])


def test_not_all_verified(capsys: pytest.CaptureFixture[str]) -> None:
    code, (line,) = shown(result(not_compared=2), capsys)
    assert code == 0
    assert "2 by size only" in line and "verified" not in line


def test_not_as_stated(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = NotAsStated(REC, "eeg_a/x.edf", sha256(b"x"), OTHER)
    code, lines = shown(result(wrong), capsys)
    assert code == 6
    words = f"not as its manifest states: sha256 {sha256(b'x')}, stated {OTHER}"
    assert lines[0] == f"FAIL {REC}/eeg_a/x.edf: {words}"
    assert lines[1].startswith("FAIL 3 fetched") and "1 not as stated" in lines[1]
    assert not any(word in line for line in lines for word in ("OK", "verified"))


def test_not_as_stated_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = shown(result(NotAsStated(REC, "x", sha256(b"x"), OTHER)), capsys, as_json=True)
    told = [json.loads(line) for line in lines]
    assert code == told[1]["exit_code"] == 6
    assert [one["type"] for one in told] == ["download", "summary"]
    assert told[1]["not_as_stated"] == [{"rec_id": REC, "path": "x", "sha256": sha256(b"x"), "stated": OTHER}]
