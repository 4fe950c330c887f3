"""What ursa refuses: through the installed command, in words, before a byte moves or a row is written."""

from __future__ import annotations

import json
import os
import socket
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording, manifest_of, run_ursa, write_json, write_node_manifest
from ursa import DataInterface

REC = "rec_20260520_195628_b1dd"
FILES = {"camera_left/seg_000.mp4": b"left " * 20, "eeg_a/seg_000.edf": b"eeg" * 30}
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """A directory to refuse. ``words`` must all be in the message; ``first`` is ingested before."""

    name: str
    build: Callable[[Path], Path]
    words: tuple[str, ...]
    code: int = 1
    args: tuple[str, ...] = ()
    first: Callable[[Path], Path] | None = field(default=None)


def recording(root: Path, rec_id: str = REC, **settings: Any) -> Path:
    """A right recording."""
    return make_recording(root, rec_id, settings.pop("files", FILES), **settings)


def fields(**changes: Any) -> Callable[[Path], Path]:
    """A recording whose manifest has these top-level fields."""
    manifest = {key: value for key, value in (manifest_of(REC, FILES) | changes).items() if value is not None}
    return lambda root: recording(root, manifest=manifest)


def entry(**changes: Any) -> Callable[[Path], Path]:
    """A recording whose manifest's second file entry has these fields; ``...`` takes one away."""

    def build(root: Path) -> Path:
        manifest = manifest_of(REC, FILES)
        merged = manifest["files"][1] | changes
        manifest["files"][1] = {key: value for key, value in merged.items() if value is not ...}
        return recording(root, manifest=manifest)

    return build


def text(content: str | bytes, name: str = "manifest.json") -> Callable[[Path], Path]:
    """A recording in which one file at its root has this content."""

    def build(root: Path) -> Path:
        rec_dir = recording(root)
        (rec_dir / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return rec_dir

    return build


def also(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    """A right recording to which ``change`` is then done."""

    def build(root: Path) -> Path:
        rec_dir = recording(root)
        change(rec_dir)
        return rec_dir

    return build


def named(name: str) -> Callable[[Path], Path]:
    """A recording in a directory of this name."""
    return lambda root: recording(root, rec_id=name)


def nodes(**second: Any) -> Callable[[Path], Path]:
    """Two node manifests, of which the second has these fields."""

    def build(root: Path) -> Path:
        rec_dir = recording(root, manifest=False)
        write_node_manifest(rec_dir, "green-mantis", ["camera_left"])
        write_node_manifest(rec_dir, "green-motor", ["eeg_a"], **second)
        return rec_dir

    return build


def node_text(content: bytes) -> Callable[[Path], Path]:
    """A right node manifest and one with this content."""

    def build(root: Path) -> Path:
        rec_dir = nodes()(root)
        (rec_dir / "_node_manifests" / "green-motor.json").write_bytes(content)
        return rec_dir

    return build


def _fifo(rec_dir: Path) -> None:
    os.mkfifo(rec_dir / "eeg_a" / "pipe")


def _socket(rec_dir: Path) -> None:
    here = Path.cwd()
    os.chdir(rec_dir / "eeg_a")  # a socket's address is at most 108 bytes long
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("sock")
    finally:
        os.chdir(here)


def _device(rec_dir: Path) -> None:
    try:
        os.mknod(rec_dir / "eeg_a" / "zero", 0o020666, os.makedev(1, 5))
    except OSError:
        pytest.skip("devices can't be made here")


def _unreadable(rec_dir: Path) -> None:
    path = rec_dir / "eeg_a" / "seg_000.edf"
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("permissions don't bind this user")


def _long_key(rec_dir: Path) -> None:
    deep = rec_dir / "eeg_a" / "/".join("d" * 200 for _ in range(5))
    deep.mkdir(parents=True)
    (deep / "file.bin").write_bytes(b"x")


def _nfc_twins(rec_dir: Path) -> None:
    for form in ("NFC", "NFD"):
        (rec_dir / "eeg_a" / unicodedata.normalize(form, "é.edf")).write_bytes(b"x")
    if len(list((rec_dir / "eeg_a").iterdir())) < 3:
        pytest.skip("this file system normalises names")


def _not_utf8(rec_dir: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(rec_dir / "eeg_a") + b"/bad\xff.edf")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")


def _write(name: str, data: bytes = b"x") -> Callable[[Path], object]:
    def write(rec_dir: Path) -> None:
        (rec_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (rec_dir / name).write_bytes(data)

    return write


def _link(name: str, target: str) -> Callable[[Path], object]:
    return lambda rec_dir: (rec_dir / name).symlink_to(target)


def _plain_file(root: Path) -> Path:
    (root / REC).write_bytes(b"not a directory")
    return root / REC


def _no_raw(root: Path) -> Path:
    return recording(
        root, files={"events.csv": b"t\n"}, manifest=manifest_of(REC, FILES) | {"files": [], "workers": []}
    )


def _empty(root: Path) -> Path:
    (root / REC).mkdir()
    return root / REC


def _listed_away(root: Path) -> Path:
    rec_dir = recording(root, files=FILES | {"eeg_a/seg_001.edf": b"1", "eeg_a/seg_002.edf": b"2"})
    for name in ("seg_001", "seg_002"):
        (rec_dir / "eeg_a" / f"{name}.edf").unlink()
    return rec_dir


def _damaged(root: Path) -> Path:
    rec_dir = recording(root)
    path = rec_dir / "eeg_a" / "seg_000.edf"
    path.write_bytes(b"EEG" + path.read_bytes()[3:])
    return rec_dir


def _big_manifest(root: Path) -> Path:
    rec_dir = recording(root)
    with (rec_dir / "manifest.json").open("ab") as file:
        file.truncate(64 * MIB + 1)
    return rec_dir


def _other_files(root: Path) -> Path:
    return recording(root / "second", files=FILES | {"eeg_a/seg_000.edf": b"other"})


def _as_first(root: Path) -> Path:
    return recording(root / "first")


def _hashed(rec_hash: str, where: str, rec_id: str = REC, **settings: Any) -> Callable[[Path], Path]:
    return lambda root: recording(root / where, rec_id=rec_id, recording_hash=rec_hash, **settings)


def _two_manifests(root: Path) -> Path:
    """A half that merges by its workers, but brings another manifest.json than the bucket has."""
    return recording(root / "second", files={"mic_room/seg_000.wav": b"wav"})


def _same_worker_dirs(root: Path) -> Path:
    manifest = manifest_of(REC, FILES)
    manifest["workers"] = [
        {"dir": "camera_left", "modality": "eeg", "worker_id": "a"},
        {"dir": "eeg_a", "modality": "eeg", "worker_id": "a"},
    ]
    return recording(root, manifest=manifest)


def _node_dirs_differ(root: Path) -> Path:
    rec_dir = nodes()(root)
    other = rec_dir / "_node_manifests" / "green-motor.json"
    content = json.loads(other.read_bytes())
    content["workers"].append({"dir": "camera_left", "modality": "video", "worker_id": "left"})
    write_json(other, content)
    return rec_dir


def _node_files_differ(root: Path) -> Path:
    rec_dir = nodes()(root)
    other = rec_dir / "_node_manifests" / "green-motor.json"
    content = json.loads(other.read_bytes())
    content["files"].append({"path": "camera_left/seg_000.mp4", "size_bytes": 1})
    write_json(other, content)
    return rec_dir


A, B = "a" * 64, "b" * 64
WHOLE = json.dumps(manifest_of(REC, FILES))
LONG = "x" * 201

NAMES = [
    Case("name_without_hex", named("rec_20260520_195628_"), ("rec_20260520_195628_",)),
    Case("name_upper_case", named("rec_20260520_195628_B1DD"), ("rec_20260520_195628_B1DD",)),
    Case("name_not_hex", named("rec_20260520_195628_xyz"), ("rec_20260520_195628_xyz",)),
    Case("name_short_date", named("rec_2026052_195628_b1dd"), ("rec_2026052_195628_b1dd",)),
    Case("name_arabic_digits", named("rec_٢٠٢٦٠٥٢٠_195628_b1dd"), ("rec_٢٠٢٦٠٥٢٠_195628_b1dd",)),
    Case("name_with_newline", named(f"{REC}\n"), (f"{REC}\\n",)),
    Case("directory_missing", lambda root: root / REC, (REC, "no such directory")),
    Case("directory_is_a_file", _plain_file, (REC, "not a directory")),
]
DISK = [
    Case("part_file", also(_write("eeg_a/seg_001.edf.part")), ("eeg_a/seg_001.edf.part", "unfinished")),
    Case("tmp_file", also(_write("camera_left/x.tmp")), ("camera_left/x.tmp", "unfinished")),
    Case("part_file_at_the_root", also(_write("events.csv.part")), ("events.csv.part", "unfinished")),
    Case("link_leaves", also(_link("eeg_a/out.edf", "../../elsewhere")), ("eeg_a/out.edf", "symlink")),
    Case("link_to_device", also(_link("eeg_a/null", "/dev/null")), ("eeg_a/null", "symlink")),
    Case("link_to_directory_leaves", also(_link("mic_room", "/")), ("mic_room", "symlink")),
    Case("link_to_nothing", also(_link("eeg_a/gone.edf", "nothing.edf")), ("eeg_a/gone.edf", "symlink")),
    Case("link_loops", also(_link("eeg_a/again", "..")), ("eeg_a/again", "symlink")),
    Case("link_to_itself", also(_link("eeg_a/self", "self")), ("eeg_a/self", "symlink")),
    Case("fifo", also(_fifo), ("eeg_a/pipe", "FIFO")),
    Case("socket", also(_socket), ("eeg_a/sock", "socket")),
    Case("device", also(_device), ("eeg_a/zero", "device")),
    Case("unreadable", also(_unreadable), ("eeg_a/seg_000.edf", "permission")),
    Case("nfc_collision", also(_nfc_twins), ("eeg_a/", ".edf", "NFC")),
    Case("key_too_long", also(_long_key), ("file.bin", "1,024")),
    Case("name_with_control", also(_write("eeg_a/a\x1bb.edf")), ("eeg_a/a\\x1bb.edf", "control")),
    Case("name_with_backslash", also(_write("eeg_a/a\\b.edf")), ("a\\b.edf", "backslash")),
    Case("name_not_utf8", also(_not_utf8), ("eeg_a/bad\\xff.edf", "UTF-8")),
    Case("same_worker_twice", _same_worker_dirs, ("camera_left", "eeg_a")),
    Case("no_raw_file", _no_raw, (REC,)),
    Case("empty_directory", _empty, (REC, "manifest")),
]
PARTICIPANTS = [
    Case("participant_two_lines", text("Aria\nLin\n", "participant.txt"), ("participant.txt", "line")),
    Case("participant_carriage_returns", text("Aria\rLin", "participant.txt"), ("participant.txt", "line")),
    Case("participant_too_long", text("x" * 201, "participant.txt"), ("participant.txt", "200")),
    Case("participant_not_utf8", text(b"\xff\xfe", "participant.txt"), ("participant.txt", "UTF-8")),
    Case("participant_escapes", text("a\x1b[31mb", "participant.txt"), ("participant.txt", "control")),
    Case("participant_option_too_long", recording, ("participant", "200"), args=("--participant", LONG)),
    Case("participant_option_lines", recording, ("participant", "line"), args=("--participant", "Aria\nLin")),
]
SYNTAX = [
    Case("no_manifest", lambda root: recording(root, manifest=False), (REC, "manifest", "ursa reconstruct")),
    Case("placeholder", fields(files=[]), (REC, "placeholder", "ursa reconstruct")),
    Case("json_empty", text(""), ("manifest.json", "empty")),
    Case("json_not_utf8", text(b'{"a": "\xff"}'), ("manifest.json", "UTF-8")),
    Case("json_utf16", text(WHOLE.encode("utf-16")), ("manifest.json", "UTF-8")),
    Case("json_none", text("not json"), ("manifest.json", "JSON")),
    Case("json_truncated", text(WHOLE[:-30]), ("manifest.json", "truncated")),
    Case("json_truncated_in_text", text(WHOLE[:40]), ("manifest.json", "truncated")),
    Case("json_two_objects", text(WHOLE + WHOLE), ("manifest.json", "JSON")),
    Case("json_list", text(f"[{WHOLE}]"), ("manifest.json", "a list", "object")),
    Case("json_null", text("null"), ("manifest.json", "null", "object")),
    Case("json_text", text('"hello"'), ("manifest.json", "hello", "object")),
    Case("json_duplicate_key", text('{"files": [], ' + WHOLE[1:]), ("manifest.json", "/files", "twice")),
    Case(
        "json_duplicate_key_inside",
        text(WHOLE.replace('"size_bytes": 90', '"size_bytes": 90, "size_bytes": 90')),
        ("manifest.json", "/files/1/size_bytes", "twice"),
    ),
    Case("json_nan", text(WHOLE.replace('"duration_s": 60.0', '"duration_s": NaN')), ("/duration_s", "finite")),
    Case("json_deep", text('{"x": ' + "[" * 5000 + "]" * 5000 + "}"), ("manifest.json", "levels")),
    Case("json_huge_number", text('{"x": ' + "9" * 6000 + "}"), ("manifest.json", "number")),
    Case("json_surrogate", text(WHOLE.replace("camera_left/", "camera_left/\\ud800")), ("manifest.json", "surrogate")),
    Case("json_too_big", _big_manifest, ("manifest.json", "64 MiB")),
    Case(
        "manifest_is_a_directory",
        also(lambda d: ((d / "manifest.json").unlink(), (d / "manifest.json").mkdir())),
        ("manifest.json",),
    ),
    Case(
        "manifest_is_a_fifo",
        also(lambda d: ((d / "manifest.json").unlink(), os.mkfifo(d / "manifest.json"))),
        ("manifest.json",),
    ),
]
FIELDS = [
    Case("version_newer", fields(schema_version=2), ("manifest.json", "/schema_version", "found 2", "upgrade")),
    Case("version_zero", fields(schema_version=0), ("/schema_version", "found 0")),
    Case("version_text", fields(schema_version="1"), ("/schema_version", 'found "1"')),
    Case("other_recording", fields(recording_id="rec_20260520_195628_ffff"), ("/recording_id", "ffff", REC)),
    Case("other_recording_alias", fields(recording_id=None, rec_id="rec_2"), ("/rec_id", "rec_2", REC)),
    Case("no_recording_id", fields(recording_id=None), ("/recording_id", "nothing")),
    Case("names_contradict", fields(rec_id="rec_20260520_195628_ffff"), ("rec_id", "ffff")),
    Case("hash_upper_case", fields(recording_hash="A" * 64), ("/recording_hash", "64 lowercase hex")),
    Case("hash_short", fields(hash="abc"), ("/hash", "64 lowercase hex")),
    Case("time_not_iso", fields(started_at="yesterday"), ("/started_at", "yesterday", "ISO 8601")),
    Case("time_number", fields(started_at=1779300000), ("/started_at", "1779300000", "ISO 8601")),
    Case("time_impossible", fields(ended_at="2026-02-30T10:00:00Z"), ("/ended_at", "2026-02-30", "ISO 8601")),
    Case(
        "time_nonexistent",
        fields(started_at="2026-03-29T02:30:00", ended_at=None, timezone="Europe/Berlin"),
        ("/started_at", "2026-03-29T02:30:00", "skipped"),
    ),
    Case("end_before_start", fields(ended_at="2020-01-01T00:00:00Z"), ("/ended_at", "2020-01-01")),
    Case("zone_unknown", fields(timezone="Mars/Olympus"), ("/timezone", "Mars/Olympus")),
    Case("duration_negative", fields(duration_s=-1), ("/duration_s", "found -1")),
    Case("duration_text", fields(duration_s="60"), ("/duration_s", 'found "60"')),
    Case("files_object", fields(files={"a": 1}), ("/files", "object", "list")),
    Case("file_is_text", fields(files=["eeg_a/seg_000.edf"]), ("/files/0", "eeg_a/seg_000.edf", "object")),
    Case("path_missing", entry(path=...), ("/files/1/path", "nothing")),
    Case("path_number", entry(path=7), ("/files/1/path", "found 7")),
    Case("path_empty", entry(path=""), ("/files/1/path", "empty")),
    Case("path_escapes", entry(path="eeg_a/../../x"), ("manifest.json", "/files/1/path", "eeg_a/../../x", "..")),
    Case("path_escapes_backslash", entry(path="eeg_a\\..\\..\\x"), ("/files/1/path", "..")),
    Case("path_absolute", entry(path="/etc/passwd"), ("/files/1/path", "/etc/passwd", "absolute")),
    Case("path_drive", entry(path="C:\\data\\x.edf"), ("/files/1/path", "absolute")),
    Case("path_control", entry(path="eeg_a/a\nb"), ("/files/1/path", "control")),
    Case("path_twice", entry(path="camera_left/seg_000.mp4"), ("/files/1/path", "camera_left/seg_000.mp4", "once")),
    Case("path_twice_dotted", entry(path="./camera_left\\seg_000.mp4"), ("/files/1/path", "once")),
    Case("path_alias_contradicts", entry(name="eeg_a/other.edf"), ("/files/1/name", "other.edf")),
    Case("size_missing", entry(size_bytes=...), ("/files/1/size_bytes", "nothing")),
    Case("size_negative", entry(size_bytes=-1), ("/files/1/size_bytes", "found -1", "0 or more")),
    Case("size_fraction", entry(size_bytes=1.5), ("/files/1/size_bytes", "found 1.5", "whole number")),
    Case("size_whole_float", entry(size_bytes=90.0), ("/files/1/size_bytes", "found 90.0", "whole number")),
    Case("size_text", entry(size_bytes=..., size="90"), ("/files/1/size", 'found "90"', "whole number")),
    Case("size_bool", entry(size_bytes=True), ("/files/1/size_bytes", "found true")),
    Case("sha256_short", entry(sha256="abc"), ("/files/1/sha256", "abc", "64 hex")),
    Case("sha256_md5", entry(sha256=..., checksum="md5:" + "a" * 32), ("/files/1/checksum", "64 hex")),
    Case("worker_escapes", entry(worker="../x"), ("/files/1/worker", "../x")),
    Case("worker_twice", fields(workers=[{"dir": "eeg_a", "modality": m} for m in ("eeg", "emg")]), ("/workers/1",)),
    Case("node_number", fields(node=5), ("/node", "found 5")),
]
NODES = [
    Case("node_json", node_text(b"{"), ("_node_manifests/green-motor.json", "truncated")),
    Case("node_ids_differ", nodes(recording_id="rec_20260520_195628_ffff"), ("green-motor.json", "/recording_id")),
    Case(
        "node_hashes_differ",
        lambda root: (
            write_node_manifest(d := nodes(recording_hash=A)(root), "green-mantis", ["camera_left"], recording_hash=B),
            d,
        )[1],
        ("green-motor.json", "green-mantis.json", "/recording_hash"),
    ),
    Case("node_workers_differ", _node_dirs_differ, ("green-motor.json", "/workers/1", "camera_left")),
    Case("node_files_differ", _node_files_differ, ("green-motor.json", "/files/1", "camera_left/seg_000.mp4")),
    Case(
        "node_placeholders",
        lambda root: (write_node_manifest(d := recording(root, manifest=False), "a", []), d)[1],
        (REC, "ursa reconstruct"),
    ),
]
BYTES = [
    Case("listed_missing", _listed_away, ("eeg_a/seg_001.edf", "eeg_a/seg_002.edf"), code=6),
    Case("listed_other_size", entry(size_bytes=91), ("eeg_a/seg_000.edf", "90", "91"), code=6),
    Case("listed_other_sha256", _damaged, ("eeg_a/seg_000.edf", "sha256"), code=6),
]
REGISTERED = [
    Case("registered_equal", lambda root: root / "first" / REC, (REC, "already registered"), 5, first=_as_first),
    Case("registered_other_files", _other_files, (REC, "eeg_a/seg_000.edf"), 5, first=_as_first),
    Case("registered_other_hash", _hashed(B, "second"), (REC, A, B), 5, first=_hashed(A, "first")),
    Case(
        "hash_of_another",
        _hashed(A, "second", rec_id="rec_20260521_000000_aa"),
        (REC, "rec_20260521_000000_aa", A),
        5,
        first=_hashed(A, "first"),
    ),
    Case("bucket_manifest_differs", _two_manifests, ("manifest.json",), 5, first=_as_first),
]
CASES = [*NAMES, *DISK, *PARTICIPANTS, *SYNTAX, *FIELDS, *NODES, *BYTES, *REGISTERED]


def snapshot(root: Path) -> dict[str, bytes]:
    """Every object, every open upload and every stored metadata of the local raw bucket, by path."""
    places = [*root.glob("constellation-data/**/*"), *root.glob(".ursa/constellation-data/**/*")]
    return {str(path): path.read_bytes() for path in places if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused_in_words_and_nothing_written(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    data = DataInterface("local")
    if case.first is not None:
        first = run_ursa("ingest", case.first(tmp_path), "-p", "local")
        assert first.returncode == 0, first.stderr
    rows = [(row, data.list_modalities()) for row in data.list_recordings()]
    before = snapshot(tmp_path / "data" / "ursa")
    done = run_ursa("ingest", case.build(tmp_path), "-p", "local", *case.args)
    assert done.returncode == case.code, done.stderr
    for word in case.words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    assert len(done.stderr) < 3000, "an error is a few lines"
    assert snapshot(tmp_path / "data" / "ursa") == before
    assert [(row, data.list_modalities()) for row in data.list_recordings()] == rows


@pytest.mark.parametrize("case", [DISK[0], SYNTAX[6], BYTES[0]], ids=lambda case: case.name)
def test_ls_shows_nothing_after_a_refusal(case: Case, tmp_path: Path) -> None:
    run_ursa("ingest", case.build(tmp_path), "-p", "local")
    listed = run_ursa("ls", "--json", "-p", "local")
    assert (listed.returncode, listed.stdout) == (0, "")


WEED = [BYTES[0], BYTES[1], BYTES[2], DISK[0], PARTICIPANTS[0], FIELDS[3], NODES[1]]


def test_nothing_reaches_a_server_either(tmp_path: Path, weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    config = s3_config(weed_buckets)
    assert run_ursa("catalog", "init", "--yes", "--config", config).returncode == 0
    for case in WEED:
        done = run_ursa("ingest", case.build(tmp_path / case.name), "--config", config)
        assert done.returncode == case.code, (case.name, done.stderr)
        assert all(word in done.stderr for word in case.words), (case.name, done.stderr)
        assert "Traceback" not in done.stderr
    client = weed_buckets.server.client()
    assert client.list_objects_v2(Bucket=weed_buckets.raw).get("KeyCount", 0) == 0
    assert not client.list_multipart_uploads(Bucket=weed_buckets.raw).get("Uploads")
    listed = run_ursa("ls", "--json", "--config", config)
    assert (listed.returncode, listed.stdout) == (0, "")


ACCEPTED = [
    Case("impossible_date", named("rec_99999999_999999_a"), ()),
    Case("junk", also(_write("eeg_a/.DS_Store")), ("junk",)),
    Case("listed_part_file", lambda root: recording(root, files=FILES | {"eeg_a/x.part": b"x"}), ()),
    Case("link_inside", also(_link("eeg_a/again.edf", "seg_000.edf")), ()),
    Case("participant_empty", text(" \n", "participant.txt"), ()),
    Case("participant_bom", text(b"\xef\xbb\xbfAria Lin\r\n", "participant.txt"), ()),
    Case("sha256_prefix", entry(checksum="sha256:" + manifest_of(REC, FILES)["files"][1]["sha256"].upper()), ()),
    Case("backslashes", entry(path="eeg_a\\seg_000.edf"), ()),
    Case("version_absent", fields(schema_version=None), ()),
    Case("node_name_only", fields(node="green-mantis"), ()),
    Case("unlisted_and_auxiliary", also(_write("events.csv")), ("1 not in the manifest",)),
]


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_what_looks_odd_and_is_accepted(case: Case, tmp_path: Path) -> None:
    done = run_ursa("ingest", case.build(tmp_path), "-p", "local", *case.args)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in case.words)
