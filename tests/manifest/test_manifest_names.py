"""Names: what fits, what is junk, what is refused and in which words."""

from __future__ import annotations

import pytest

from ursa.errors import InvalidRecordingError
from ursa.manifest.names import (
    JUNK_DIRS,
    beside_in,
    check_rec_id,
    is_junk,
    is_unfinished,
    is_worker_dir,
    looks_temporary,
    matches,
    normalize_path,
    shown,
    split_worker_dir,
)


@pytest.mark.parametrize(
    "name", ["rec_20260520_195628_b1dd", "rec_20269999_999999_0", "rec_00000000_000000_" + "f" * 40]
)
def test_rec_id_fits(name: str) -> None:
    assert check_rec_id(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "rec_20260520_195628",
        "rec_20260520_195628_",
        "rec_20260520_195628_B1DD",
        "rec_20260520_195628_b1dg",
        "rec_2026052_195628_b1dd",
        "rec_20260520_195628_b1dd\n",
        "REC_20260520_195628_b1dd",
        "rec_٢٠٢٦٠٥٢٠_195628_b1dd",
        "rec_20260520_195628_b1dd copy",
    ],
)
def test_rec_id_refused(name: str) -> None:
    with pytest.raises(InvalidRecordingError) as caught:
        check_rec_id(name)
    assert caught.value.path == name
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("camera_left", ("camera", "left")),
        ("eeg_a_b", ("eeg", "a_b")),
        ("mic", ("mic", "")),
        ("eeg_", ("eeg", "")),
        ("notes_operator", ("notes", "operator")),
    ],
)
def test_worker_dir(name: str, expected: tuple[str, str]) -> None:
    assert is_worker_dir(name)
    assert split_worker_dir(name) == expected


@pytest.mark.parametrize(
    "name", ["", "_calibration", ".hidden", "_node_manifests", "Thumbs.db", "~$notes.docx", *sorted(JUNK_DIRS)]
)
def test_no_worker_dir(name: str) -> None:
    assert not is_worker_dir(name)
    with pytest.raises(ValueError, match="not a worker directory"):
        split_worker_dir(name)


@pytest.mark.parametrize(
    ("path", "junk"),
    [
        (".DS_Store", True),
        ("eeg_a/._seg", True),
        ("eeg_a/Thumbs.db", True),
        ("eeg_a/desktop.ini", True),
        (".Spotlight-V100/store.db", True),
        (".Trashes/501/x", True),
        (".fseventsd/x", True),
        ("eeg_a/@eaDir/x", True),
        ("#recycle/x", True),
        *((f"eeg_a/deep/{name}/in/x.edf", True) for name in sorted(JUNK_DIRS)),
        *((name, True) for name in sorted(JUNK_DIRS)),
        ("eeg_a/Icon\r", True),
        ("eeg_a/Icon\uf00d", True),
        ("eeg_a/.nfs000000000a5f3b1200000001", True),
        ("eeg_a/.smbdeleteAAA4a2b6", True),
        ("eeg_a/.fuse_hidden0000001200000001", True),
        ("eeg_a/.apdisk", True),
        ("notes_op/~$notes.docx", True),
        ("notes_op/.~lock.notes.odt#", True),
        ("eeg_a/ehthumbs.db", True),
        ("eeg_a/THUMBS.DB", True),
        ("eeg_a/Desktop.ini", True),
        ("eeg_a/Thumbs.db:encryptable", True),
        ("eeg_a/Thumbs.db\uf022encryptable", True),
        (".localized", True),
        (".directory", True),
        (".stfolder/syncthing-folder-a1b2.txt", True),
        ("eeg_a/Icon", False),
        ("eeg_a/icon\r", False),
        ("eeg_a/.ds_store", False),
        ("eeg_a/.~lock.notes.odt", False),
        ("eeg_a/~notes", False),
        ("eeg_a/nfs0001", False),
        ("lost+found.txt", False),
        ("recycle.bin/x", False),
        ("eeg_a/seg.edf", False),
        ("eeg_a/x.DS_Store", False),
        ("eeg_a/.hidden", False),
        ("._folder/seg.edf", False),
        ("eeg_a/desktop.ini.txt", False),
    ],
)
def test_junk(path: str, junk: bool) -> None:
    assert is_junk(path) is junk


@pytest.mark.parametrize(
    ("path", "unfinished"),
    [
        ("eeg_a/x.part", True),
        ("eeg_a/x.tmp", True),
        ("eeg_a.part/x", True),
        ("eeg_a/x.PART", True),
        ("eeg_a/~DF3A.tmp", True),
        ("eeg_a/x.partial", True),
        ("eeg_a/x.filepart", True),
        ("eeg_a/x.Crdownload", True),
        ("eeg_a/x.aria2", True),
        ("eeg_a/x.docx.sb-1a2b3c4d-Xy9", True),
        ("eeg_a/.rsync-partial/x.edf", True),
        ("eeg_a/.syncthing.x.edf.tmp", True),
        ("eeg_a/.syncthing.x.edf", True),
        (".unison.x.edf.1a2b.unison", True),
        ("eeg_a/.x.edf.Ab12cD", True),
        ("eeg_a/.x.edf.abcde1", True),
        ("eeg_a/.x.edf.abcdeF", True),
        ("eeg_a/.camera.config", False),
        (".session.sqlite", False),
        ("eeg_a/.x.edf.Ab12c", False),
        ("eeg_a/.x.edf.Ab12cDe", False),
        ("eeg_a/x.edf.Ab12cD", False),
        ("eeg_a/..Ab12cD", False),
        (".x.Ab12cD/seg.edf", False),
        ("eeg_a/.rsync-partial", False),
        ("eeg_a/partial", False),
        ("eeg_a/x.sb", False),
        ("part/tmp", False),
    ],
)
def test_unfinished(path: str, unfinished: bool) -> None:
    assert is_unfinished(path) is unfinished


@pytest.mark.parametrize(
    ("path", "others", "unfinished"),
    [
        ("eeg_a/.camera.config", ["eeg_a/camera"], True),
        (".session.sqlite", ["session"], True),
        ("eeg_a/.camera.config", ["camera", "eeg_b/camera", "eeg_a/.camera"], False),
        (".camera.config", ["camera/seg.mp4"], False),  # a directory is no copy's name
        (".x.Ab12cD/in/seg.edf", ["x/in/seg.edf"], True),
        ("eeg_a/.x.Ab12cD/seg.edf", ["x/seg.edf", "eeg_a/x"], False),
    ],
)
def test_unfinished_by_what_is_beside(path: str, others: list[str], unfinished: bool) -> None:
    assert is_unfinished(path, beside_in([path, *others])) is unfinished


def test_beside_tells_files_and_directories() -> None:
    beside = beside_in(["a/b/c", "a/b/d", "x"])
    assert all(map(beside, ["a/b/c", "a/b/d", "x", "a/", "a/b/"]))
    assert not any(map(beside, ["a", "a/b", "x/", "b/", "/", ""]))


@pytest.mark.parametrize(
    ("path", "glob", "spared"),
    [
        ("eeg_a/x.part", "*.part", True),
        ("eeg_a/x.part", "x.part", True),
        ("eeg_a/x.part", "eeg_a/*.part", True),
        ("eeg_a/deep/x.part", "eeg_*", True),
        ("eeg_a.part/x", "eeg_a.part", True),
        ("eeg_a.part/.x.edf.Ab12cD", "eeg_a.part", False),
        ("eeg_a/\u00e9.part", "e\u0301.part", True),
        ("eeg_a/x.part", "*.PART", False),
        ("eeg_a/x.part", "mic/*", False),
        ("eeg_a/.x.edf.Ab12cD", ".x.*", True),
    ],
)
def test_not_unfinished(path: str, glob: str, spared: bool) -> None:
    assert is_unfinished(path)
    assert is_unfinished(path, spared=["nothing", glob]) is not spared


def test_globs_match_paths_and_names() -> None:
    assert matches("eeg_a/.rsync-partial/", [".rsync-partial"])
    assert not matches("eeg_a/x", [])


@pytest.mark.parametrize(
    ("path", "temporary"),
    [("eeg_a/.camera.config", True), (".x.Ab12cD/seg.edf", True), (".gitignore", False), ("eeg_a/x.sqlite", False)],
)
def test_what_looks_temporary(path: str, temporary: bool) -> None:
    assert looks_temporary(path) is temporary


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("eeg_a/seg.edf", "eeg_a/seg.edf"),
        ("eeg_a\\sub\\seg.edf", "eeg_a/sub/seg.edf"),
        ("./eeg_a/./seg.edf", "eeg_a/seg.edf"),
        ("eeg_a//seg.edf", "eeg_a/seg.edf"),
        ("eeg_a/e\u0301.edf", "eeg_a/\u00e9.edf"),
        ("eeg_a/..seg", "eeg_a/..seg"),
        ("eeg_a/a:b", "eeg_a/a:b"),
    ],
)
def test_path(text: str, path: str) -> None:
    assert normalize_path(text) == path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (".", "empty"),
        ("././", "empty"),
        ("/etc/passwd", "absolute"),
        ("\\\\nas\\share", "absolute"),
        ("C:/x", "absolute"),
        ("c:\\x", "absolute"),
        ("..", "escapes"),
        ("eeg_a/../../x", "escapes"),
        ("eeg_a\\..\\x", "escapes"),
        ("eeg_a/x\x1b[31m", "control"),
        ("eeg_a/x\x00", "control"),
        ("eeg_a/x\x85", "control"),
        ("eeg_a/\ud800", "surrogate"),
        ("eeg_a/", "directory"),
    ],
)
def test_path_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        normalize_path(text)


def test_shown_is_printable_and_short() -> None:
    assert shown("a\x1b[31m\u202e\udcff\ud800") == "a\\x1b[31m\\u202e\\xff\\ud800"
    assert shown("é/ü") == "é/ü"
    assert len(shown("x" * 10_000, 90)) <= 91
