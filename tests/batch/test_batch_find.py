"""What a batch is about: roots, globs of roots, recordings themselves, and what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from batch_tools import make_lab, rec

from ursa import InvalidRecordingError
from ursa.batch.find import find_recordings


def names(*roots: Path | str) -> list[str]:
    """What is found, in order."""
    return [path.name for path in find_recordings(roots).rec_dirs]


def dirs(root: Path, *paths: str) -> Path:
    """Directories below a root."""
    for path in paths:
        (root / path).mkdir(parents=True)
    return root


def test_sorted_by_rec_id_over_all_roots(tmp_path: Path) -> None:
    dirs(tmp_path, "a/rec_2", "a/rec_9", "a/other", "b/rec_1", "b/rec_5")
    (tmp_path / "a" / "rec_7.zip").touch()
    found = find_recordings([tmp_path / "a", tmp_path / "b"])
    assert [path.name for path in found.rec_dirs] == ["rec_1", "rec_2", "rec_5", "rec_9"]
    assert found.problems == () and len(found.remarks) == 1 and "rec_7.zip" in found.remarks[0]


def test_globs_are_of_roots_or_of_recordings(tmp_path: Path) -> None:
    dirs(tmp_path, "usb1/r/rec_1", "usb2/r/rec_2", "disk/r/rec_3")
    assert names(f"{tmp_path}/usb*/r") == ["rec_1", "rec_2"]
    assert names(f"{tmp_path}/*/r/rec_[13]") == ["rec_1", "rec_3"]


def test_a_root_with_brackets_in_its_name_is_itself(tmp_path: Path) -> None:
    assert names(dirs(tmp_path, "nas [old]/rec_1") / "nas [old]") == ["rec_1"]


def test_a_link_to_nothing_is_not_lost_in_a_glob(tmp_path: Path) -> None:
    (tmp_path / rec(1)).symlink_to(tmp_path / "gone")
    assert names(f"{tmp_path}/rec_*") == [rec(1)]


def test_two_ways_to_one_recording_are_one(tmp_path: Path) -> None:
    dirs(tmp_path, "nas/rec_1")
    (tmp_path / "link").symlink_to("nas")
    assert names(tmp_path / "nas", tmp_path / "link", tmp_path / "nas" / "rec_1", tmp_path / "x" / ".." / "nas") == [
        "rec_1"
    ]


def test_one_rec_id_on_two_roots_is_two(tmp_path: Path) -> None:
    dirs(tmp_path, "a/rec_1", "b/rec_1")
    assert names(tmp_path / "a", tmp_path / "b") == ["rec_1", "rec_1"]


def test_a_root_that_is_called_like_a_recording(tmp_path: Path) -> None:
    dirs(tmp_path, f"rec_backup/{rec(1)}", f"{rec(2)}/rec_inside")
    assert names(tmp_path / "rec_backup") == [rec(1)]
    assert names(tmp_path / rec(2)) == [rec(2)]


def test_a_home_that_cron_does_not_expand(home: Path) -> None:
    dirs(home, f"recordings/{rec(1)}")
    assert names("~/recordings") == [rec(1)] == names("~/record*")


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("missing", "no such directory (is the NAS mounted?)"),
        (rec(5), "no such directory"),
        ("empty", "no recording (rec_*) below it (is the NAS mounted?)"),
        ("file", "not a directory"),
        ("*/nothing*", "nothing matches"),
        ("loop", "a symlink that loops"),
        ("~nobody-has-this-name/x", "no such directory"),
    ],
)
def test_what_is_wrong_with_a_root_is_said(tmp_path: Path, root: str, words: str) -> None:
    dirs(tmp_path, "empty", "good/rec_1")
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    found = find_recordings([root if root.startswith("~") else tmp_path / root, tmp_path / "good"])
    assert len(found.rec_dirs) == 1 and len(found.problems) == 1
    assert words in found.problems[0] and root.rsplit("/", 1)[0] in found.problems[0]


def test_an_empty_argument_is_not_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dirs(tmp_path, "rec_1"))
    found = find_recordings([""])
    assert found.rec_dirs == () and "unset variable" in found.problems[0]
    assert names(".") == ["rec_1"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_a_root_that_can_not_be_read(tmp_path: Path) -> None:
    dirs(tmp_path, "nas/rec_1")
    (tmp_path / "nas").chmod(0)
    assert "permission denied" in find_recordings([tmp_path / "nas"]).problems[0]


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    with pytest.raises(InvalidRecordingError, match="is the NAS mounted"), lab.data() as data:
        data.batch([lab.nas, lab.root / "other"])
