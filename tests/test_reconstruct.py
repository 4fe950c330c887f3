"""Path C in the bucket, on the local profile: what the manifest says, what is kept, what is refused."""

from __future__ import annotations

import json
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import manifest_of, write_json
from reconstructed import AUXILIARY, FILES, JUNK, OTHER, RAW, REC, Lab, by_hand, sha256
from ursa import (
    DataInterface,
    HashProgress,
    InvalidRecordingError,
    ManifestError,
    MissingFilesError,
    StorageError,
    WritesNotEnabledError,
    derive_recording_hash,
)
from ursa.manifest import parse_manifest
from ursa.recording import classify


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_the_manifest(lab: Lab) -> None:
    lab.fill(FILES | JUNK)
    result = lab.reconstruct()
    written = lab.manifest()
    assert written["recording_id"] == REC and written["schema_version"] == 1
    assert written["recording_hash"] == by_hand(RAW) == derive_recording_hash(sha256(data) for data in RAW.values())
    assert written["files"] == [
        {"path": path, "size_bytes": len(FILES[path]), "sha256": sha256(FILES[path])} for path in sorted(FILES)
    ]
    assert written["workers"] == [
        {"dir": "camera_left", "modality": "camera", "worker_id": "left"},
        {"dir": "eeg_a", "modality": "eeg", "worker_id": "a"},
        {"dir": "mic", "modality": "mic", "worker_id": ""},
    ]
    assert "started_at" not in written and "node" not in written
    about = written["reconstruction"]
    assert about["tool"] == "ursa" and about["tool_version"] and about["host"] and about["reconstructed_at"]
    assert (result.action, result.recording_hash, result.files) == ("made", by_hand(RAW), len(FILES))
    assert result.bytes == result.bytes_hashed == sum(map(len, FILES.values()))
    assert result.files_known == 0 and not result.dry_run
    assert result.warnings == ("not listed, as junk (.DS_Store and the like): 3",)
    manifest = parse_manifest((lab.recordings / REC / "manifest.json").read_bytes(), source="x")
    kinds = {path: classify(path, manifest.files_by_path)[0] for path in FILES}
    assert {path for path, kind in kinds.items() if kind == "raw"} == set(RAW)
    assert lab.measured() == {path: sha256(data) for path, data in FILES.items()}


@pytest.mark.parametrize(
    ("text", "name", "reconstructed"),
    [
        (None, "__unknown__", True),
        (b"", "__unknown__", True),
        (b" \n\t ", "__unknown__", True),
        (b"\xef\xbb\xbfAria Lin\r\n", "Aria Lin", False),
        ("Zoë 李 [bold]".encode(), "Zoë 李 [bold]", False),
    ],
)
def test_participant(lab: Lab, text: bytes | None, name: str, reconstructed: bool) -> None:
    lab.fill(RAW | ({} if text is None else {"participant.txt": text}))
    assert lab.reconstruct().participant == name
    written = lab.manifest()
    assert written["participant"] == name
    assert written["reconstruction"]["reconstructed_participant"] is reconstructed
    assert {entry["path"] for entry in written["files"]} == set(RAW)
    assert written["recording_hash"] == by_hand(RAW)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"Aria\nLin", "line"),
        (b"\xff\xfe", "UTF-8"),
        (b"x" * 201, "200"),
        (b"x" * 100_000, "200"),
        (b"a\x1bb", "control"),
    ],
)
def test_a_broken_participant_is_refused(lab: Lab, text: bytes, why: str) -> None:
    lab.fill(RAW | {"participant.txt": text})
    with pytest.raises(InvalidRecordingError, match=f"recordings/{REC}/participant.txt.*{why}"):
        lab.reconstruct()
    assert not lab.has_manifest()


def test_a_placeholder_is_replaced(lab: Lab) -> None:
    lab.fill(RAW | {"manifest.json": json.dumps({"recording_id": REC, "files": []}).encode()})
    assert lab.reconstruct().action == "replaced"
    assert lab.manifest()["recording_hash"] == by_hand(RAW)
    assert lab.reconstruct().action == "kept"


def test_a_rigs_manifest_is_kept(lab: Lab) -> None:
    lab.fill(RAW)
    write_json(lab.put("manifest.json", b""), manifest_of(REC, RAW, participant="Aria"))
    before = (lab.recordings / REC / "manifest.json").read_bytes()
    result = lab.reconstruct()
    assert (result.action, result.recording_hash, result.participant) == ("kept", by_hand(RAW), "Aria")
    assert (result.files, result.bytes, result.bytes_hashed) == (3, sum(map(len, RAW.values())), 0)
    assert (lab.recordings / REC / "manifest.json").read_bytes() == before


def test_node_manifests_are_kept(lab: Lab) -> None:
    lab.fill(RAW | {"manifest.json": b'{"files": []}'})
    write_json(lab.put("_node_manifests/a.json", b""), {"recording_id": REC, "files": [], "node": "a"})
    write_json(lab.put("_node_manifests/b.json", b""), manifest_of(REC, RAW))
    result = lab.reconstruct()
    assert result.action == "kept" and result.location.endswith("_node_manifests/b.json")
    assert lab.manifest() == {"files": []}


@pytest.mark.parametrize("name", ["manifest.json", "_node_manifests/a.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"recording_id": "rec_1", "files": [], "files": []}',
        json.dumps(manifest_of(OTHER, RAW)).encode(),
        b'{"recording_id": "%s", "files": [{"path": "../x", "size_bytes": 1}]}' % REC.encode(),
    ],
    ids=["empty", "truncated", "list", "twice", "another recording", "escapes"],
)
def test_a_broken_manifest_is_refused_and_stays(lab: Lab, name: str, content: bytes) -> None:
    lab.fill(RAW)
    target = lab.put(name, content)
    with pytest.raises(ManifestError, match=f"recordings/{REC}/{name}") as caught:
        lab.reconstruct()
    assert "never replaced" in (caught.value.hint or "")
    assert target.read_bytes() == content
    assert lab.has_manifest() == (name == "manifest.json")


def test_a_broken_node_manifest_beside_a_valid_one_is_told(lab: Lab) -> None:
    lab.fill(RAW | {"_node_manifests/a.json": b"{"})
    write_json(lab.put("_node_manifests/b.json", b""), manifest_of(REC, RAW))
    result = lab.reconstruct()
    assert result.action == "kept" and "a.json" in result.warnings[0]


@pytest.mark.parametrize("files", [{}, AUXILIARY, {"participant.txt": b"Aria", "eeg_a/.DS_Store": b""}])
def test_no_raw_data_is_refused(lab: Lab, files: dict[str, bytes]) -> None:
    lab.fill(files)
    with pytest.raises(InvalidRecordingError, match="no raw data"):
        lab.reconstruct()
    assert not lab.has_manifest()


@pytest.mark.parametrize("rec_id", ["rec_1", f"{REC}/", "../" + REC, "REC_20260520_195628_b1dd", f"{REC}\n"])
def test_no_rec_id_is_refused(lab: Lab, rec_id: str) -> None:
    lab.fill(RAW)
    with lab.data() as data, pytest.raises(InvalidRecordingError, match="not the name of a recording"):
        data.reconstruct(rec_id)


def test_offenders_are_all_named(lab: Lab) -> None:
    bad = {
        "eeg_a/x.edf.part": "unfinished",
        "cam.tmp/x": "unfinished",
        "eeg_a/a\\b": "backslash",
        "eeg_a/a\x1bb": "control",
    }
    lab.fill(RAW | dict.fromkeys(bad, b"x"))
    with pytest.raises(InvalidRecordingError) as caught:
        lab.reconstruct()
    for path, why in bad.items():
        assert path.replace("\x1b", "\\x1b") in caught.value.message and why in caught.value.message
    assert len(caught.value.paths) == len(bad)  # type: ignore[attr-defined]
    assert "\x1b" not in caught.value.message and not lab.has_manifest()


def test_two_keys_that_are_one_path_are_refused(lab: Lab) -> None:
    for form in ("NFC", "NFD"):
        lab.put("eeg_a/" + unicodedata.normalize(form, "é.edf"), b"x")  # type: ignore[arg-type]
    with pytest.raises(InvalidRecordingError, match=r"same name as .*NFC"):
        lab.reconstruct()
    assert not lab.has_manifest()


def test_two_directories_that_are_one_worker_are_refused(lab: Lab) -> None:
    lab.fill({"mic/a.wav": b"a", "mic_/b.wav": b"b"})
    with pytest.raises(InvalidRecordingError, match="same modality and worker_id"):
        lab.reconstruct()


def test_nfd_keys_are_listed_in_nfc_and_read_by_their_own_key(lab: Lab) -> None:
    name = unicodedata.normalize("NFD", "eeg_a/séance.edf")
    lab.fill({name: b"nfd"})
    result = lab.reconstruct()
    (entry,) = lab.manifest()["files"]
    assert entry == {"path": unicodedata.normalize("NFC", name), "size_bytes": 3, "sha256": sha256(b"nfd")}
    assert result.recording_hash == by_hand({name: b"nfd"})


def test_odd_names_are_names(lab: Lab) -> None:
    files = {"eeg_a/[red]x[/red]": b"1", "eeg_a/a b;$(c)'\"": b"2", "eeg_a/名前.edf": b"3", "eeg_a/-rf": b"4"}
    lab.fill(files)
    assert lab.reconstruct().recording_hash == by_hand(files)
    assert {entry["path"] for entry in lab.manifest()["files"]} == set(files)


def test_roles(lab: Lab) -> None:
    lab.fill(RAW)
    reading = DataInterface("local", lab.config)
    with pytest.raises(WritesNotEnabledError, match="raw_rw"):
        reading.reconstruct(REC)
    with lab.data("assets_rw") as data, pytest.raises(WritesNotEnabledError, match="raw_rw"):
        data.reconstruct(REC)
    planned = reading.reconstruct(REC, dry_run=True)
    assert (planned.action, planned.dry_run, planned.recording_hash) == ("made", True, None)
    assert planned.bytes_hashed == sum(map(len, RAW.values())) and not lab.has_manifest()
    with lab.data("raw_rw") as data:
        assert data.reconstruct(REC).action == "made"
    assert reading.reconstruct(REC, dry_run=True).action == "kept"
    reading.close()


def test_progress(lab: Lab) -> None:
    lab.fill(FILES)
    events: list[HashProgress] = []
    lab.reconstruct(progress=events.append)
    total = sum(map(len, FILES.values()))
    phases = [event.phase for event in events]
    assert phases[0] == "plan" and phases[-2:] == ["write", "done"]
    assert phases.count("file_done") == len(FILES)
    assert {event.bytes_total for event in events} == {total} and {event.files_total for event in events} == {
        len(FILES)
    }
    done = [event.bytes_done for event in events]
    assert done == sorted(done) and done[0] == 0 and done[-1] == total
    assert {event.rec_id for event in events} == {REC}
    assert {event.current_file for event in events if event.phase == "file_done"} == set(FILES)


@pytest.mark.parametrize("phase", ["plan", "hash", "file_done", "write"])
def test_a_callback_that_raises_stops_it_and_the_next_run_does_it(lab: Lab, phase: str) -> None:
    lab.fill(FILES)

    def callback(event: HashProgress) -> None:
        if event.phase == phase:
            raise RuntimeError("enough")

    with lab.data() as data:
        with pytest.raises(RuntimeError, match="enough"):
            data.reconstruct(REC, progress=callback)
        assert not lab.has_manifest()
        assert data.reconstruct(REC).recording_hash == by_hand(RAW)


def test_a_callback_that_raises_at_the_end_stops_nothing(lab: Lab) -> None:
    lab.fill(RAW)

    def callback(event: HashProgress) -> None:
        if event.phase == "done":
            raise RuntimeError("too late")

    assert lab.reconstruct(progress=callback).action == "made"
    assert lab.has_manifest()


def at_write(action: Callable[[], object]) -> Callable[[HashProgress], None]:
    """A callback that does something between the last hash and the second look."""

    def callback(event: HashProgress) -> None:
        if event.phase == "write":
            action()

    return callback


def test_a_replaced_object_is_refused(lab: Lab) -> None:
    lab.fill(RAW)
    with pytest.raises(StorageError, match=r"eeg_a/seg_000.edf was replaced.*no manifest was written"):
        lab.reconstruct(progress=at_write(lambda: lab.put("eeg_a/seg_000.edf", b"other")))
    assert not lab.has_manifest()
    assert lab.reconstruct().recording_hash == by_hand(RAW | {"eeg_a/seg_000.edf": b"other"})


def test_a_vanished_object_is_refused(lab: Lab) -> None:
    lab.fill(RAW)
    with pytest.raises(MissingFilesError, match=r"mic/empty.wav vanished") as caught:
        lab.reconstruct(progress=at_write((lab.recordings / REC / "mic/empty.wav").unlink))
    assert caught.value.paths == ("mic/empty.wav",) and not lab.has_manifest()


def test_an_object_that_comes_meanwhile_is_refused(lab: Lab) -> None:
    lab.fill(RAW)
    with pytest.raises(StorageError, match=r"eeg_a/seg_001.edf came into the bucket"):
        lab.reconstruct(progress=at_write(lambda: lab.put("eeg_a/seg_001.edf", b"more")))
    assert not lab.has_manifest()


@pytest.mark.parametrize("name", ["manifest.json", "_node_manifests/green-mantis.json"])
def test_a_rigs_manifest_that_comes_meanwhile_is_kept(lab: Lab, name: str) -> None:
    lab.fill(RAW)
    content = json.dumps(manifest_of(REC, RAW)).encode()
    result = lab.reconstruct(progress=at_write(lambda: lab.put(name, content)))
    assert (result.action, result.location) == ("kept", f"recordings/{REC}/{name}")
    assert (lab.recordings / REC / name).read_bytes() == content
    assert lab.has_manifest() == (name == "manifest.json")


def test_a_placeholder_that_changes_meanwhile_is_not_replaced(lab: Lab) -> None:
    lab.fill(RAW | {"manifest.json": b'{"files": []}'})
    newer = b'{"files": [], "note": "newer"}'
    with pytest.raises(StorageError, match=r"manifest.json was written or removed by somebody else"):
        lab.reconstruct(progress=at_write(lambda: lab.put("manifest.json", newer)))
    assert (lab.recordings / REC / "manifest.json").read_bytes() == newer


def test_one_recordings_interrupt_is_not_anothers(lab: Lab) -> None:
    lab.fill(RAW)
    lab.fill(RAW, OTHER)

    def fail() -> None:
        raise RuntimeError

    with lab.data() as data:
        assert data.reconstruct(OTHER).action == "made"
        with pytest.raises(RuntimeError):
            data.reconstruct(REC, progress=at_write(fail))
        assert data.reconstruct(OTHER).bytes_hashed == 0
        assert data.reconstruct(REC).bytes_hashed == 0, "every file was finished"


def test_missing_manifests(lab: Lab) -> None:
    with_hash = manifest_of(REC, RAW)
    contents: dict[str, dict[str, bytes]] = {
        "rec_20260101_000001_a0": RAW,
        "rec_20260101_000002_a0": RAW | {"manifest.json": b'{"files": []}'},
        "rec_20260101_000003_a0": RAW | {"manifest.json": json.dumps(with_hash).encode().replace(REC.encode(), b"%s")},
        "rec_20260101_000004_a0": RAW | {"_node_manifests/a.json": json.dumps(with_hash).encode()},
        "rec_20260101_000005_a0": RAW | {"manifest.json": b"{"},
        "rec_20260101_000006_a0": RAW | {"_node_manifests/a.json": b'{"files": []}'},
        "rec_odd": RAW,
        "something": RAW,
    }
    for rec_id, files in contents.items():
        own = {
            path: data.replace(b"%s", rec_id.encode()).replace(REC.encode(), rec_id.encode())
            for path, data in files.items()
        }
        lab.fill(own, rec_id)
    left_out: dict[str, str] = {}
    reading = DataInterface("local", lab.config)
    missing = reading.missing_manifests(on_left_out=lambda name, error: left_out.update({name: type(error).__name__}))
    reading.close()
    assert missing == ["rec_20260101_000001_a0", "rec_20260101_000002_a0", "rec_20260101_000006_a0"]
    assert left_out == {"rec_20260101_000005_a0": "ManifestError", "rec_odd": "InvalidRecordingError"}


def test_no_recordings_at_all(lab: Lab) -> None:
    with DataInterface("local", lab.config) as data:
        assert data.missing_manifests() == []


def test_several_in_flight_are_all_stopped(lab: Lab) -> None:
    rec_ids = [f"rec_20260101_00000{number}_a0" for number in range(6)]
    for rec_id in rec_ids:
        lab.fill(RAW, rec_id)
    with lab.data() as data:

        def progress(event: HashProgress) -> None:
            # All but the first are held up just before they write.
            if event.phase == "write" and event.rec_id != rec_ids[0]:
                time.sleep(0.3)

        outcomes = data.reconstruct_several(rec_ids, jobs=3, progress=progress)
        first = next(outcomes)
        with pytest.raises(KeyboardInterrupt):
            outcomes.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert first.result is not None and first.result.action == "made"
    made = [rec_id for rec_id in rec_ids if (lab.recordings / rec_id / "manifest.json").exists()]
    assert len(made) < len(rec_ids)


def test_several_are_under_way_at_once_and_told_in_order(lab: Lab) -> None:
    rec_ids = [f"rec_20260101_00000{number}_a0" for number in range(6)]
    for rec_id in rec_ids[:5]:
        lab.fill(RAW, rec_id)
    all_of_them = threading.Barrier(5, timeout=30)

    def progress(event: HashProgress) -> None:
        if event.phase == "plan":
            all_of_them.wait()

    with lab.data() as data:
        outcomes = list(data.reconstruct_several(rec_ids, progress=progress))
        assert [outcome.rec_id for outcome in outcomes] == rec_ids
        assert [outcome.result.action if outcome.result else None for outcome in outcomes] == ["made"] * 5 + [None]
        assert isinstance(outcomes[-1].error, InvalidRecordingError)
        assert list(data.reconstruct_several([])) == []
