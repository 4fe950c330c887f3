"""A recording directory on disk: real directories, links, sockets and odd names."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ursa.errors import InvalidRecordingError, ManifestError, ManifestNotFoundError
from ursa.manifest import Manifest, beside_in, is_unfinished, parse_manifest
from ursa.recording import (
    load_manifest,
    parse_participant,
    read_participant,
    scan_recording,
)

REC_ID = "rec_20260520_195628_b1dd"
not_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    root = tmp_path / "nas" / REC_ID
    root.mkdir(parents=True)
    return root


def put(root: Path, path: str, data: str | bytes = "x") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data.encode() if isinstance(data, str) else data)
    return target


def listing(*files: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
    entries = [{"path": f, "size_bytes": 1} if isinstance(f, str) else {"size_bytes": 1} | f for f in files]
    return {"recording_id": REC_ID, "files": entries} | fields


def manifest(*files: str | dict[str, Any], **fields: Any) -> Manifest:
    return parse_manifest(json.dumps(listing(*files, **fields)).encode(), source="manifest.json")


def refused(root: Path, listed: Manifest | None = None, **options: Any) -> InvalidRecordingError:
    with pytest.raises(InvalidRecordingError) as caught:
        scan_recording(root, manifest=listed, **options)
    assert caught.value.message.isprintable()
    return caught.value


def test_kinds(rec: Path) -> None:
    paths = [
        "camera_left/seg_000.mp4",
        "eeg_a/deep/er/x.edf",
        "_calibration/board.png",
        ".hidden/x",
        "events.csv",
        "stray.bin",
        "manifest.json",
        "_node_manifests/h.json",
        "_node_manifests/old/h.json",
        "participant.txt",
        "mic/manifest.json",
        "_odd/x",
    ]
    for path in paths:
        put(rec, path, "ab")
    listed = manifest(
        {"path": "stray.bin", "worker": "mic"},
        {"path": "_odd/x", "worker": "_odd"},
        "events.csv",
        workers=[{"dir": "_odd", "modality": "odd"}],
    )
    scan = scan_recording(rec, manifest=listed)
    assert [f.path for f in scan.files] == sorted(paths)
    assert {f.path: (f.kind, f.worker) for f in scan.files} == {
        "camera_left/seg_000.mp4": ("raw", "camera_left"),
        "eeg_a/deep/er/x.edf": ("raw", "eeg_a"),
        "_calibration/board.png": ("auxiliary", ""),
        ".hidden/x": ("auxiliary", ""),
        "events.csv": ("auxiliary", ""),
        "stray.bin": ("raw", "mic"),
        "manifest.json": ("manifest", ""),
        "_node_manifests/h.json": ("manifest", ""),
        "_node_manifests/old/h.json": ("auxiliary", ""),
        "participant.txt": ("participant", ""),
        "mic/manifest.json": ("raw", "mic"),
        "_odd/x": ("raw", "_odd"),
    }
    assert {f.path for f in scan.raw} == {f.path for f in scan.files if f.kind == "raw"}
    file = scan.by_path["camera_left/seg_000.mp4"]
    status = file.source.stat()
    assert (file.size_bytes, file.mtime_ns) == (status.st_size, status.st_mtime_ns) == (2, status.st_mtime_ns)
    assert (scan.rec_id, scan.root, scan.junk, scan.warnings) == (REC_ID, rec, (), ())


def test_empty(rec: Path) -> None:
    (rec / "eeg_a").mkdir()
    assert scan_recording(rec).files == ()


def test_names_of_the_root(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(rec, "eeg_a/x")
    other = "rec_20260521_000000_aa"
    (tmp_path / other).symlink_to(rec)
    assert scan_recording(tmp_path / other).rec_id == other
    assert scan_recording(Path(f"{rec}/eeg_a/..")).rec_id == REC_ID
    monkeypatch.chdir(rec)
    assert scan_recording(Path()).raw[0].path == "eeg_a/x"
    assert scan_recording(Path()).rec_id == REC_ID


def test_root_refused(rec: Path, tmp_path: Path) -> None:
    assert "no such directory" in refused(tmp_path / "rec_20260520_195628_ffff").message
    assert "mounted" in (refused(tmp_path / "rec_20260520_195628_ffff").hint or "")
    assert "not a directory" in refused(put(rec, "eeg_a/x")).message
    assert "not the name of a recording" in refused(rec.parent).message
    (tmp_path / "rec_20260520_195628_0").symlink_to("nowhere")
    assert "no such directory" in refused(tmp_path / "rec_20260520_195628_0").message


def test_junk(rec: Path) -> None:
    junk = [".DS_Store", "eeg_a/._x", "eeg_a/@eaDir/x/y", "#recycle/x.part", "_node_manifests/._h.json"]
    for path in [*junk, "eeg_a/x", "._dir/x"]:
        put(rec, path)
    (rec / "eeg_a" / "Thumbs.db").symlink_to("/nowhere")
    (rec / ".Trashes").mkdir()
    scan = scan_recording(rec)
    assert scan.junk == tuple(sorted([*junk, "eeg_a/Thumbs.db"]))
    assert [f.path for f in scan.files] == ["._dir/x", "eeg_a/x"]


def test_a_listed_file_is_never_junk(rec: Path) -> None:
    for path in ["eeg_a/._x", "eeg_a/@eaDir/in/x", "eeg_a/@eaDir/in/y"]:
        put(rec, path)
    scan = scan_recording(rec, manifest=manifest("eeg_a/._x", "eeg_a/@eaDir/in/x"))
    assert [f.path for f in scan.raw] == ["eeg_a/._x", "eeg_a/@eaDir/in/x"]
    assert scan.junk == ("eeg_a/@eaDir/in/y",)


def test_unfinished(rec: Path) -> None:
    put(rec, "eeg_a/x.part")
    put(rec, "eeg_a/y.tmp")
    put(rec, "manifest.json.tmp")
    error = refused(rec, manifest("eeg_a/x.part"))
    assert error.fields["paths"] == ("eeg_a/y.tmp", "manifest.json.tmp")
    assert "unfinished" in error.message
    (rec / "manifest.json.tmp").unlink()
    assert len(scan_recording(rec, manifest=manifest("eeg_a/x.part", "eeg_a/y.tmp")).raw) == 2


def test_junk_of_every_kind(rec: Path) -> None:
    names = ["Icon\r", ".nfs0001", ".~lock.x.odt#", "~$x.docx", "Thumbs.db:encryptable", "THUMBS.DB", ".fuse_hidden01"]
    junk = [f"eeg_a/deep/{name}" for name in names]
    junk += [f"{name}/x.edf" for name in ["lost+found", "$RECYCLE.BIN", "System Volume Information", "#snapshot"]]
    for path in [*junk, "eeg_a/x", "Thumbs.db/x", "eeg_a/~$dir/x"]:
        put(rec, path)
    scan = scan_recording(rec)
    assert scan.junk == tuple(sorted(junk))
    # A directory is no lock file; but one of such a name is no worker either.
    assert {f.path: f.kind for f in scan.files} == {
        "eeg_a/x": "raw",
        "Thumbs.db/x": "auxiliary",
        "eeg_a/~$dir/x": "raw",
    }


def test_unfinished_directories(rec: Path) -> None:
    for path in [
        "eeg_a/.rsync-partial/deep/x",
        "eeg_a/y.PART/z",
        "eeg_a/.x.Ab12cD/a",
        "eeg_a/.dir.Ab12cD/a",
        "eeg_a/dir/a",
    ]:
        put(rec, path)
    error = refused(rec, manifest("eeg_a/.rsync-partial/deep/listed"))
    assert error.fields["paths"] == ("eeg_a/.dir.Ab12cD/a", "eeg_a/.rsync-partial/deep/x", "eeg_a/y.PART/z")


def test_a_disk_and_a_bucket_are_judged_alike(rec: Path) -> None:
    names = ["x", ".x.random", ".x.Ab12cD", ".y.random", "z.part", ".rsync-partial"]
    paths = [
        f"{above}{name}" for above in ("", "eeg_a/", "eeg_a/.sub.random/", ".eeg_a.Ab12cD/", "b.tmp/") for name in names
    ]
    paths += ["eeg_a/sub/w", "eeg_b/.rsync-partial/w", "eeg_b/.sub.random/w"]
    for path in paths:
        put(rec, path)
    unfinished = sorted(path for path in paths if is_unfinished(path, beside_in(paths)))
    assert refused(rec).fields["paths"] == tuple(unfinished)
    assert {"eeg_a/.sub.random/x", ".eeg_a.Ab12cD/x"} <= set(unfinished) and "eeg_b/.sub.random/w" not in unfinished


def test_unfinished_copies_of_rsync(rec: Path) -> None:
    put(rec, "eeg_a/seg.edf")
    temporary = ["eeg_a/.seg.edf.random", "eeg_a/.new.edf.Ab12cD", "eeg_a/.gone.random"]
    for path in [*temporary, "camera/x", ".camera.config"]:
        put(rec, path)
    error = refused(rec, manifest("eeg_a/seg.edf", "eeg_a/gone"))
    assert error.fields["paths"] == tuple(sorted(temporary))
    scan = scan_recording(rec, manifest=manifest(*temporary))
    assert {f.path for f in scan.files} >= {*temporary, ".camera.config"}


def test_a_name_beside_is_compared_in_nfc(rec: Path) -> None:
    put(rec, "eeg_a/e\u0301.edf")
    put(rec, "eeg_a/.\u00e9.edf.random")
    assert refused(rec).fields["paths"] == ("eeg_a/.\u00e9.edf.random",)


def test_ordinary_files_that_look_temporary_are_a_warning(rec: Path) -> None:
    for path in [
        "eeg_a/x",
        ".session.sqlite",
        "eeg_a/.camera.config",
        "eeg_a/.listed.config",
        "eeg_a/._settings.config",
    ]:
        put(rec, path)
    scan = scan_recording(rec, manifest=manifest("eeg_a/.listed.config"))
    assert scan.junk == ("eeg_a/._settings.config",)
    assert len(scan.files) == 4
    assert scan.warnings == (
        ".session.sqlite, eeg_a/.camera.config: called as rsync calls its unfinished copies, taken as they are",
    )
    for number in range(40):
        put(rec, f"eeg_a/.x{number}.config")
    (warning,) = scan_recording(rec).warnings
    assert "and 23 more" in warning


def test_not_unfinished(rec: Path) -> None:
    for path in ["eeg_a/a.part", "eeg_a/b.tmp", "c.part/x", "eeg_a/.x.Ab12cD"]:
        put(rec, path)
    assert refused(rec, not_unfinished=["*.part"]).fields["paths"] == ("eeg_a/.x.Ab12cD", "eeg_a/b.tmp")
    scan = scan_recording(rec, not_unfinished=["*.part", "eeg_a/*.tmp", ".x.??????"])
    assert len(scan.files) == 4
    assert scan.warnings == ()


def fifo(root: Path) -> None:
    os.mkfifo(root / "eeg_a" / "bad")


def link(target: str) -> Callable[[Path], None]:
    return lambda root: (root / "eeg_a" / "bad").symlink_to(target)


def two_links(root: Path) -> None:
    (root / "eeg_a" / "bad").symlink_to("other")
    (root / "eeg_a" / "other").symlink_to("bad")


def raw_name(name: bytes) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / "eeg_a" / os.fsdecode(name)).write_bytes(b"x")

    return make


@pytest.mark.parametrize(
    ("make", "why", "named"),
    [
        (link("/etc/hostname"), "leaves the recording", "eeg_a/bad"),
        (link("../../outside"), "leaves the recording", "eeg_a/bad"),
        (link("../.."), "leaves the recording", "eeg_a/bad"),
        (link(f"../../{REC_ID}-not"), "leaves the recording", "eeg_a/bad"),
        (link("nowhere"), "symlink to nothing", "eeg_a/bad"),
        (link("good/below"), "symlink to nothing", "eeg_a/bad"),
        (link("."), "loops", "eeg_a/bad"),
        (link(".."), "loops", "eeg_a/bad"),
        (link("bad"), "loops", "eeg_a/bad"),
        (two_links, "loops", "eeg_a/bad"),
        (fifo, "FIFO", "eeg_a/bad"),
        (raw_name(b"bad\xff"), "not UTF-8", "eeg_a/bad\\xff"),
        (raw_name(b"bad\x1b[31m"), "control characters", "eeg_a/bad\\x1b[31m"),
        (raw_name(b"bad\nname"), "control characters", "eeg_a/bad\\nname"),
        (raw_name(b"bad\\name"), "backslash", "eeg_a/bad\\name"),
    ],
)
def test_refused_by_name(rec: Path, make: Callable[[Path], None], why: str, named: str) -> None:
    put(rec, "eeg_a/good")
    put(rec.parent, "outside")
    put(rec.parent, f"{REC_ID}-not")
    make(rec)
    error = refused(rec)
    assert why in error.message
    assert named in error.message
    assert error.path == named
    assert REC_ID in error.message
    assert error.hint


def test_socket(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (rec / "eeg_a").mkdir()
    monkeypatch.chdir(rec / "eeg_a")  # a socket's path may have 107 bytes only
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("s")
        assert "eeg_a/s: a socket" in refused(rec).message


def test_a_link_to_a_fifo(rec: Path) -> None:
    (rec / "eeg_a").mkdir()
    fifo(rec)
    put(rec, "mic/x").with_name("y").symlink_to("../eeg_a/bad")
    assert refused(rec).fields["paths"] == ("eeg_a/bad", "mic/y")


def test_every_offender_is_found_and_twenty_are_named(rec: Path) -> None:
    for number in range(25):
        put(rec, f"eeg_a/{number:02d}.part")
    error = refused(rec)
    assert "25 things" in error.message
    assert "eeg_a/19.part" in error.message
    assert "eeg_a/20.part" not in error.message
    assert "and 5 more" in error.message
    assert len(error.fields["paths"]) == 25


def test_links_inside_are_followed(rec: Path) -> None:
    put(rec, "_store/deep/x", "abc")
    (rec / "camera_left").symlink_to("_store")
    (rec / "eeg_a").mkdir()
    (rec / "eeg_a" / "x").symlink_to(rec / "_store" / "deep" / "x")
    (rec / "eeg_a" / "y").symlink_to("x")
    scan = scan_recording(rec)
    assert {f.path: f.kind for f in scan.files} == {
        "_store/deep/x": "auxiliary",
        "camera_left/deep/x": "raw",
        "eeg_a/x": "raw",
        "eeg_a/y": "raw",
    }
    assert {f.size_bytes for f in scan.files} == {3}


def test_links_in_a_circle(rec: Path) -> None:
    for name, target in [("a", "b"), ("b", "a")]:
        (rec / name).mkdir()
        (rec / name / "link").symlink_to(f"../{target}")
    assert refused(rec).fields["paths"] == ("a/link/link", "b/link/link")


def test_nfc(rec: Path) -> None:
    nfd = put(rec, "eeg_e\u0301/x\u0308")
    file = scan_recording(rec).raw[0]
    assert (file.path, file.worker, file.source) == ("eeg_\u00e9/\u1e8d", "eeg_\u00e9", nfd)
    put(rec, "eeg_\u00e9/\u1e8d")
    error = refused(rec)
    assert "NFC" in error.message
    assert len(error.fields["paths"]) == 1


def test_case(rec: Path) -> None:
    for path in ["eeg_a/X", "eeg_a/x", "eeg_a/stra\u00dfe", "eeg_a/STRASSE", "eeg_a/y"]:
        put(rec, path)
    scan = scan_recording(rec)
    assert len(scan.warnings) == 2
    assert scan.warnings[1].startswith("eeg_a/X, eeg_a/x")


def test_key_length(rec: Path) -> None:
    folder = "eeg_a/" + "/".join(["\u00e9" * 100, "b" * 200, "c" * 200, "d" * 200]) + "/"
    fits = folder + "x" * (1024 - len(f"recordings/{REC_ID}/{folder}".encode()))
    put(rec, fits)
    assert len(scan_recording(rec).raw) == 1
    assert "1,025 bytes" in refused(rec, key_prefix="recordings2/").message


@not_root
def test_permissions(rec: Path) -> None:
    put(rec, "eeg_a/x").chmod(0)
    put(rec, "mic/x")
    (rec / "mic").chmod(0)
    try:
        error = refused(rec)
    finally:
        (rec / "mic").chmod(0o755)
    assert error.fields["paths"] == ("eeg_a/x", "mic/")
    assert "permission denied" in error.message


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EIO, "input/output error"), (errno.ESTALE, "mount the share again"), (errno.EACCES, "permission denied")],
)
def test_a_failing_nas(rec: Path, number: int, words: str) -> None:
    put(rec, "eeg_a/x")
    put(rec, "mic/x")

    def scandir(path: str) -> Any:
        if path.endswith("mic"):
            raise OSError(number, os.strerror(number), path)
        return os.scandir(path)

    error = refused(rec, scandir=scandir)
    assert error.path == "mic/"
    assert words in error.message


def test_two_directories_for_one_worker(rec: Path) -> None:
    put(rec, "eeg_a/x")
    put(rec, "cap/x")
    listed = manifest("eeg_b/x", workers=[{"dir": "cap", "modality": "eeg", "worker_id": "a"}])
    assert "same modality and worker_id" in refused(rec, listed).message
    assert len(scan_recording(rec).raw) == 2


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"Aria Lin", "Aria Lin"),
        (b"\xef\xbb\xbf  Aria Lin \r\n\n", "Aria Lin"),
        (b"", None),
        (b"\xef\xbb\xbf \n\t", None),
        ("é" * 200, "é" * 200),
    ],
)
def test_participant(rec: Path, data: str | bytes, name: str | None) -> None:
    put(rec, "participant.txt", data)
    assert read_participant(rec) == name


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"Aria\nLin", "more than one line"),
        (b"Aria\rLin", "more than one line"),
        ("Aria\u2028Lin".encode(), "more than one line"),
        (b"x" * 201, "201 characters"),
        (b"x" * 100_000, "more than 200 characters"),
        (b"Aria \xe9", "not UTF-8"),
        (b"\xff\xfeA\x00", "not UTF-8"),
        (b"Aria\x1b[31m", "control characters"),
        (b"Aria\x07Lin", "control characters"),
        (b"Aria\x00", "control characters"),
    ],
)
def test_participant_refused(rec: Path, data: bytes, why: str) -> None:
    path = put(rec, "participant.txt", data)
    with pytest.raises(InvalidRecordingError, match=why) as caught:
        read_participant(rec)
    assert caught.value.path == str(path)
    assert str(path) in caught.value.message
    assert caught.value.message.isprintable()


def test_no_participant(rec: Path) -> None:
    assert read_participant(rec) is None
    (rec / "participant.txt").mkdir()
    with pytest.raises(InvalidRecordingError, match="not a regular file"):
        read_participant(rec)
    assert parse_participant(b"x", source="s3://b/participant.txt") == "x"


MANIFEST, ONE, TWO = "manifest.json", "_node_manifests/green-mantis.json", "_node_manifests/green-motor.json"


def write(root: Path, path: str, document: dict[str, Any]) -> Path:
    return put(root, path, json.dumps(document))


def test_manifest_json_wins(rec: Path) -> None:
    write(rec, MANIFEST, listing("camera_left/x", {"path": "eeg_a/x"}, node="green-mantis"))
    write(rec, TWO, listing({"path": "eeg_a/x", "size_bytes": 5}, "mic/unlisted"))
    put(rec, "_node_manifests/._x.json", b"\0")
    loaded = load_manifest(rec)
    assert [f.path for f in loaded.manifest.files] == ["camera_left/x", "eeg_a/x"]
    assert [loaded.manifest.node_of(f) for f in loaded.manifest.files] == ["green-mantis", "green-motor"]
    assert [s.path for s in loaded.sources] == [TWO, MANIFEST]
    assert loaded.sources[1].data == (rec / MANIFEST).read_bytes()
    assert loaded.sources[1].source == rec / MANIFEST


@pytest.mark.parametrize("stub", [None, {}, {"recording_id": "rec_other", "files": []}])
@pytest.mark.parametrize("explicit", [True, False])
def test_node_manifests_are_merged(rec: Path, stub: dict[str, Any] | None, explicit: bool) -> None:
    write(rec, ONE, listing("camera_left/x"))
    write(rec, TWO, listing("eeg_a/x"))
    if stub is not None:
        write(rec, MANIFEST, stub)
    loaded = load_manifest(rec, rec / MANIFEST if explicit else None)
    assert [f.path for f in loaded.manifest.files] == ["camera_left/x", "eeg_a/x"]
    assert [s.path for s in loaded.sources] == [ONE, TWO] + [MANIFEST] * (stub is not None)


def test_one_node_manifest_counts_alone(rec: Path) -> None:
    put(rec, MANIFEST, b"broken")
    put(rec, TWO, b"broken")
    one = write(rec, ONE, listing("camera_left/x"))
    loaded = load_manifest(rec, one)
    assert [(f.path, f.node) for f in loaded.manifest.files] == [("camera_left/x", "green-mantis")]
    assert [s.path for s in loaded.sources] == [ONE]


def test_through_a_symlinked_root(rec: Path, tmp_path: Path) -> None:
    write(rec, ONE, listing("camera_left/x"))
    (tmp_path / REC_ID).symlink_to(rec)
    assert load_manifest(tmp_path / REC_ID, rec / ONE).sources[0].path == ONE


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "there is no manifest.json"),
        ({MANIFEST: {}}, "placeholder"),
        ({MANIFEST: {}, ONE: {"files": []}}, "placeholder"),
        ({ONE: {}}, "no node manifest that lists files"),
    ],
)
def test_no_manifest(rec: Path, files: dict[str, dict[str, Any]], why: str) -> None:
    for path, document in files.items():
        write(rec, path, document)
    with pytest.raises(ManifestNotFoundError, match=why) as caught:
        load_manifest(rec)
    assert caught.value.rec_id == REC_ID
    assert str(rec) in (caught.value.hint or "") and f"`ursa reconstruct {rec}`" in (caught.value.hint or "")


def test_no_such_node_manifest(rec: Path) -> None:
    write(rec, TWO, {})
    write(rec, MANIFEST, listing("eeg_a/x"))
    for path, why in [(rec / ONE, "there is no"), (rec / TWO, "placeholder"), (rec.parent / MANIFEST, "there is no")]:
        with pytest.raises(ManifestNotFoundError, match=why):
            load_manifest(rec, path)


@pytest.mark.parametrize("path", [MANIFEST, ONE])
def test_another_recordings_manifest(rec: Path, path: str) -> None:
    write(rec, TWO, listing("eeg_a/x"))
    write(rec, path, listing("eeg_a/x", recording_id="rec_20260520_195628_ffff"))
    with pytest.raises(ManifestError, match="ffff") as caught:
        load_manifest(rec)
    assert caught.value.path == str(rec / path)


def test_a_manifest_from_elsewhere(rec: Path, tmp_path: Path) -> None:
    outside = write(tmp_path, "fetched.json", listing("eeg_a/x"))
    assert load_manifest(rec, outside).sources[0].path == MANIFEST
    node = write(tmp_path, f"usb/{ONE}", listing("eeg_a/x"))
    assert load_manifest(rec, node).sources[0].path == ONE
    write(rec, ONE, listing("eeg_a/x"))
    assert load_manifest(rec, node).sources[0].source == node
    write(rec, ONE, listing("eeg_a/y"))
    with pytest.raises(InvalidRecordingError, match="the recording has another one"):
        load_manifest(rec, node)
    write(rec, MANIFEST, {})
    with pytest.raises(InvalidRecordingError, match="the recording has another one"):
        load_manifest(rec, outside)


@pytest.mark.parametrize(
    "path", ["old.json", "backup/manifest.json", "_node_manifests/x.txt", "eeg_a/_node_manifests/x.json"]
)
def test_a_manifest_out_of_place(rec: Path, path: str) -> None:
    with pytest.raises(InvalidRecordingError, match="not the recording's"):
        load_manifest(rec, write(rec, path, listing("eeg_a/x")))


def test_unreadable_manifests(rec: Path) -> None:
    (rec / MANIFEST).mkdir()
    with pytest.raises(InvalidRecordingError, match="not a regular file"):
        load_manifest(rec)
    (rec / MANIFEST).rmdir()
    os.mkfifo(rec / MANIFEST)
    with pytest.raises(InvalidRecordingError, match="not a regular file"):
        load_manifest(rec)
    (rec / MANIFEST).unlink()
    put(rec, "_node_manifests", b"a file")
    with pytest.raises(InvalidRecordingError, match="_node_manifests"):
        load_manifest(rec)
    with pytest.raises(InvalidRecordingError, match="no such directory"):
        load_manifest(rec.parent / "rec_20260520_195628_ffff")
