"""Names: what fits, what is junk, what is refused and in which words."""

from __future__ import annotations

import pytest

from ursa.errors import InvalidRecordingError
from ursa.manifest.names import (
    check_rec_id,
    is_junk,
    is_unfinished,
    is_worker_dir,
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


@pytest.mark.parametrize("name", ["", "_calibration", ".hidden", "_node_manifests"])
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
        ("eeg_a/x.partial", False),
        ("part/tmp", False),
    ],
)
def test_unfinished(path: str, unfinished: bool) -> None:
    assert is_unfinished(path) is unfinished


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
