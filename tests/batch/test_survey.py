"""What a walk knows of the disk: what was read before, what is to be read again, and whose turn that is tonight."""

from __future__ import annotations

import os
import shutil
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from batch_tools import WRITES, Lab, age, make_lab, on_disks, rec, without_a_look

from helpers import make_recording, manifest_of, write_json
from ursa import ConflictError, DataInterface, MissingFilesError, Outcome
from ursa.batch import survey
from ursa.batch.survey import Survey, Surveyed, file_digest, state_of_scan
from ursa.disk.cache import FilesCache
from ursa.disk.clock import system_clock
from ursa.register.local import read_local

FILES = {"eeg_a/a.edf": b"eeg" * 300, "camera_left/a.mp4": b"left" * 100, "events.csv": b"t\n"}
BYTES = sum(map(len, FILES.values()))
NO_CTIME = "this disk keeps no change time"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An empty lab."""
    on_disks(monkeypatch)
    return make_lab(tmp_path)


def registered(lab: Lab, *numbers: int) -> list[Path]:
    """Recordings that are registered and known; no two have the same bytes."""
    rec_dirs = [lab.make(number, {path: b"%d" % number + data for path, data in FILES.items()}) for number in numbers]
    for rec_dir in rec_dirs:
        age(rec_dir)
    assert {outcome.status for outcome in lab.run()} == {"ok"}
    assert all(map(without_a_look, lab.run()))
    return rec_dirs


def move_ctimes(*directories: Path) -> None:
    """As ``cp -al``, chown or an indexer does: of every file below."""
    for path in (path for directory in directories for path in directory.rglob("*") if path.is_file()):
        before = path.stat()
        while path.stat().st_ctime_ns == before.st_ctime_ns:
            path.chmod(before.st_mode)


def read_days_ago(number: int, days: float) -> str:
    """As if this machine had last read a recording's files then; the day."""
    then = datetime.now(UTC) - timedelta(days=days)
    with closing(FilesCache.open(clock=replace(system_clock(), now=lambda: then))) as cache:
        for path, entries in cache.entries(rec(number)).items():
            for entry in entries:
                cache.remember(rec(number), path, entry.fingerprint, entry.sha256 or "", entry.etags)
    return f"{then:%Y-%m-%d}"


def lost_cache() -> None:
    """The files cache goes, as with a home that is made anew."""
    shutil.rmtree(Path.home() / ".cache" / "ursa")


def waits(outcome: Outcome, day: str, files: str = "3 files") -> bool:
    """Whether a recording waits for its turn, in exactly these words."""
    told = f"{files} to be read again (only their ctime moved); last read {day}"
    return (outcome.status, outcome.reason, outcome.error) == ("skip", told, None)


def was_read(outcome: Outcome) -> bool:
    """Whether it was HAVE since an ingest compared it."""
    return outcome.status == "have" and outcome.error is not None


# A change time that moved alone.


def test_the_longest_unread_are_read_first_within_the_budget(lab: Lab) -> None:
    move_ctimes(*registered(lab, 1, 2, 3))
    days = {number: read_days_ago(number, ago) for number, ago in ((1, 3), (2, 9), (3, 6))}
    lab = replace(lab, settings=f", reread: '{2 * BYTES}'")  # one, and not quite another one
    first, second, third = lab.run()
    assert was_read(second) and waits(first, days[1]) and waits(third, days[3])
    first, second, third = lab.run()
    assert was_read(third) and waits(first, days[1]) and without_a_look(second)
    first, second, third = lab.run()
    assert was_read(first) and without_a_look(second) and without_a_look(third)
    assert all(map(without_a_look, lab.run()))


def test_what_is_left_of_the_budget_goes_to_the_next_that_fits(lab: Lab) -> None:
    rec_dirs = registered(lab, 1, 2, 3)
    move_ctimes(*rec_dirs[:2], rec_dirs[2] / "eeg_a")
    days = {number: read_days_ago(number, ago) for number, ago in ((1, 9), (2, 6), (3, 3))}
    first, second, third = replace(lab, settings=f", reread: '{2 * BYTES - 100}'").run()
    assert was_read(first) and waits(second, days[2]) and was_read(third)


def test_one_that_is_larger_than_the_budget_has_its_turn(lab: Lab) -> None:
    rec_dirs = registered(lab, 1, 2)
    move_ctimes(*rec_dirs)
    day = read_days_ago(1, 2)
    read_days_ago(2, 4)
    lab = replace(lab, settings=", reread: '1'")
    first, second = lab.run()
    assert waits(first, day) and was_read(second)
    first, second = lab.run()
    assert was_read(first) and without_a_look(second)


def test_one_file_of_many_waits_with_its_recording(lab: Lab) -> None:
    rec_dirs = registered(lab, 1, 2)
    move_ctimes(rec_dirs[0] / "eeg_a", rec_dirs[1])
    day = read_days_ago(1, 1)
    read_days_ago(2, 2)
    assert waits(replace(lab, settings=", reread: '1'").run()[0], day, "1 file")


def test_a_new_file_among_moved_ones_is_sent_at_once(lab: Lab) -> None:
    rec_dirs = registered(lab, 1, 2)
    move_ctimes(*rec_dirs)
    read_days_ago(1, 2)
    read_days_ago(2, 4)
    (rec_dirs[0] / "eeg_b").mkdir()
    (rec_dirs[0] / "eeg_b" / "b.edf").write_bytes(b"new")
    first, second = replace(lab, settings=", reread: '1'").run()
    assert first.status == "ok" and first.result is not None and first.result.files_uploaded == 1
    assert was_read(second)
    assert all(map(without_a_look, lab.run()))


def test_other_bytes_are_found_when_their_turn_has_come(lab: Lab) -> None:
    rec_dirs = registered(lab, 1, 2)
    target = rec_dirs[0] / "eeg_a" / "a.edf"
    before = target.stat()
    content = target.read_bytes()[::-1]
    target.write_bytes(content)
    others = {path: (rec_dirs[0] / path).read_bytes() for path in FILES}
    write_json(rec_dirs[0] / "manifest.json", manifest_of(rec(1), others))
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert isinstance(lab.run()[0].error, ConflictError)


@pytest.mark.parametrize("path", FILES)
def test_an_object_that_is_gone_is_told_before_its_turn(lab: Lab, path: str) -> None:
    rec_dirs = registered(lab, 1, 2)
    move_ctimes(*rec_dirs)
    read_days_ago(1, 2)
    read_days_ago(2, 4)
    (lab.stored / rec(1) / path).unlink()
    first, second = replace(lab, settings=", reread: '1'").run()
    assert isinstance(first.error, MissingFilesError) and path in first.error.message
    assert was_read(second)


# Disks that keep no change time.


@pytest.fixture
def exfat(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A recording on a USB disk, registered and known."""
    on_disks(monkeypatch, "exfat", "1234-ABCD")
    registered(lab, 1)
    return lab


def test_a_disk_without_change_times_is_believed_for_a_while(exfat: Lab) -> None:
    day = read_days_ago(1, 13)
    move_ctimes(exfat.nas / rec(1))  # which means nothing there
    outcome = exfat.one()
    assert without_a_look(outcome) and outcome.told == f" (read {day}; {NO_CTIME})"
    read_days_ago(1, 15)
    assert was_read(exfat.one())
    outcome = exfat.one()
    assert without_a_look(outcome) and outcome.told == f" (read {datetime.now(UTC):%Y-%m-%d}; {NO_CTIME})"


def test_how_long_is_a_setting(exfat: Lab) -> None:
    read_days_ago(1, 13)
    assert was_read(replace(exfat, settings=", reread_after: 12d").one())
    read_days_ago(1, 15)
    assert without_a_look(replace(exfat, settings=", reread_after: 16d").one())


def test_the_oldest_reading_is_told_and_counts(exfat: Lab) -> None:
    then = datetime.now(UTC) - timedelta(days=10)
    with closing(FilesCache.open(clock=replace(system_clock(), now=lambda: then))) as cache:
        (entry,) = cache.entries(rec(1))["events.csv"]
        cache.remember(rec(1), "events.csv", entry.fingerprint, entry.sha256 or "")
    assert exfat.one().told == f" (read {then:%Y-%m-%d}; {NO_CTIME})"
    assert was_read(replace(exfat, settings=", reread_after: 9d").one())


def test_a_reading_of_the_future_does_not_count(exfat: Lab) -> None:
    """The clock was set back since."""
    read_days_ago(1, -2)
    assert was_read(exfat.one())
    assert without_a_look(exfat.one())


def test_another_disk_in_the_same_port_is_read(exfat: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disks(monkeypatch, "exfat", "5678-EF01")
    assert was_read(exfat.one())
    assert without_a_look(exfat.one())


def test_a_disk_that_does_not_tell_its_name_is_read_each_time(exfat: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disks(monkeypatch, "exfat", None)
    assert was_read(exfat.one()) and was_read(exfat.one())


def test_a_share_that_reports_the_mtime_for_the_ctime(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told for each file, as it is found: of the others the ctime counts."""
    on_disks(monkeypatch, "cifs", "//nas/recordings")
    rec_dir = lab.make(1, FILES)  # new files: both times are the same
    assert [path for path in FILES if (rec_dir / path).stat().st_ctime_ns == (rec_dir / path).stat().st_mtime_ns]
    assert lab.one().status == "ok"
    assert NO_CTIME in lab.one().told
    age(rec_dir)
    assert was_read(lab.one())
    outcome = lab.one()
    assert without_a_look(outcome) and outcome.told == ""


# What this disk has of a recording.


def test_less_than_the_rows_have_is_said(lab: Lab) -> None:
    (rec_dir,) = registered(lab, 1)
    (rec_dir / "camera_left" / "a.mp4").unlink()
    (rec_dir / "camera_left").rmdir()
    outcome = lab.one()
    assert without_a_look(outcome) and outcome.told == "; 2 of 3 files on this disk"
    (lab.stored / rec(1) / "camera_left" / "a.mp4").unlink()
    assert isinstance(lab.one().error, MissingFilesError)


def test_no_raw_file_is_no_have(lab: Lab) -> None:
    (rec_dir,) = registered(lab, 1)
    for path in FILES:
        if path != "events.csv":
            (rec_dir / path).unlink()
    assert not without_a_look(lab.one())


# A walk alone.


@pytest.fixture
def cache() -> Iterator[FilesCache]:
    """The user's, empty."""
    with closing(FilesCache.open()) as opened:
        yield opened


def look(cache: FilesCache, rec_dir: Path) -> Surveyed:
    """What a walk finds there."""
    walk = Survey([rec_dir], cache, reread_bytes=0, reread_after_s=0.0)
    walk.start()
    return walk.of(rec_dir)


def test_a_walk_counts_what_it_does_not_know(cache: FilesCache, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, rec(1), FILES, participant="Aria Lin")
    found = look(cache, rec_dir)
    assert (found.known, found.raw, found.unknown, found.unknown_bytes) == (frozenset(), True, 3, BYTES)
    assert [path for path, _ in sorted(found.sidecars)] == ["manifest.json", "participant.txt"]


def test_junk_is_not_looked_at(cache: FilesCache, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, rec(1), FILES)
    before = look(cache, rec_dir)
    for path in (".DS_Store", "eeg_a/._a.edf", "@eaDir/x/thumb.jpg", "#snapshot/eeg_a/a.edf", "eeg_a/.nfs0001", "~$x"):
        (rec_dir / path).parent.mkdir(parents=True, exist_ok=True)
        (rec_dir / path).write_bytes(b"junk")
    (rec_dir / "eeg_a" / ".DS_Store").symlink_to("nowhere")
    after = look(cache, rec_dir)
    assert replace(after, seen_at=0.0) == replace(before, seen_at=0.0)


@pytest.mark.parametrize("odd", ["file link", "directory link", "dangling", "fifo", "twins", "huge manifest", "gone"])
def test_what_an_ingest_has_to_judge(cache: FilesCache, odd: str, tmp_path: Path) -> None:
    name = "eeg_a/Übung.edf"
    rec_dir = make_recording(tmp_path, rec(1), {name: b"eeg"})
    match odd:
        case "file link":
            (rec_dir / "eeg_a" / "b.edf").symlink_to("Übung.edf")
        case "directory link":
            (rec_dir / "eeg_b").symlink_to("eeg_a")
        case "dangling":
            (rec_dir / "eeg_a" / "b.edf").symlink_to("nowhere")
        case "fifo":
            os.mkfifo(rec_dir / "eeg_a" / "pipe")
        case "twins":
            (rec_dir / unicodedata.normalize("NFD", name)).write_bytes(b"EEG")
        case "huge manifest":
            os.truncate(rec_dir / "manifest.json", 1 << 40)
        case _:
            rec_dir = tmp_path / "gone"
    assert look(cache, rec_dir) == Surveyed()


def test_names_are_compared_in_nfc(lab: Lab, cache: FilesCache) -> None:
    name = "eeg_a/Übung.edf"
    rec_dir = lab.make(1, {unicodedata.normalize("NFD", name): b"eeg"})
    age(rec_dir)
    assert lab.one().status == "ok"
    (sha256,) = (entry.sha256 for entry in cache.entries(rec(1))[unicodedata.normalize("NFC", name)])
    assert look(cache, rec_dir).known == {file_digest(unicodedata.normalize("NFC", name), 3, sha256 or "")}


def test_a_walk_and_a_scan_agree_on_what_they_saw(cache: FilesCache, tmp_path: Path) -> None:
    files = {**FILES, "_calibration/board.json": b"{}", unicodedata.normalize("NFD", "eeg_a/ü.edf"): b"u"}
    rec_dir = make_recording(tmp_path, rec(1), files, participant="Aria Lin")
    (rec_dir / "eeg_a" / "Thumbs.db").write_bytes(b"junk")
    local = read_local(None, rec_dir, key_prefix="recordings/", rig_timezone=None)
    assert look(cache, rec_dir).state == state_of_scan(local.scan.files)


def test_whoever_waits_for_a_walk_that_is_stopped_knows_nothing(cache: FilesCache, tmp_path: Path) -> None:
    walk = Survey([tmp_path], cache, reread_bytes=0, reread_after_s=0.0)
    walk.stop()
    assert walk.of(tmp_path) == Surveyed() and not walk.has_turn(tmp_path)


def test_a_directory_that_takes_long_holds_up_no_other(
    cache: FilesCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec_dirs = [make_recording(tmp_path, rec(number), FILES) for number in (1, 2)]
    looked, other = survey._look, threading.Event()

    def slow(rec_dir: Path, *words: Any) -> Surveyed:
        if rec_dir == rec_dirs[0]:
            assert other.wait(30)
        found = looked(rec_dir, *words)
        other.set()
        return found

    monkeypatch.setattr(survey, "_look", slow)
    walk = Survey(rec_dirs, cache, reread_bytes=0, reread_after_s=0.0)
    walk.start()
    assert [walk.of(rec_dir).unknown for rec_dir in rec_dirs] == [3, 3]


def test_a_walk_that_fails_as_nobody_foresaw_leaves_the_recording_to_the_ingest(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registered(lab, 1, 2, 3)
    judged = survey._judged

    def broken(rec_dir: Path, *words: Any) -> Surveyed:
        if rec_dir.name == rec(2):
            raise KeyError("x")
        return judged(rec_dir, *words)

    monkeypatch.setattr(survey, "_judged", broken)
    first, second, third = lab.run()
    assert without_a_look(first) and was_read(second) and without_a_look(third)
    assert rec(2) in caplog.text and "KeyError" in caplog.text


# Whether what is read is remembered.


def test_what_the_walk_saw_long_before_is_remembered_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes hours: its last recordings were seen at its start."""
    for module in ("ursa.register.memory", "ursa.disk.cache"):
        monkeypatch.setattr(f"{module}.SETTLED_S", 1800.0)
    walked = survey._look
    monkeypatch.setattr(survey, "_look", lambda *words: replace(walked(*words), seen_at=walked(*words).seen_at - 3600))
    age(lab.make(1, FILES))
    assert lab.one().status == "ok"
    assert without_a_look(lab.one())


def test_the_time_of_a_walk_is_that_of_its_last_look(
    cache: FilesCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of many files takes long, and what was seen last was seen shortly before it is read."""
    walked, ended = survey._files, []

    def walk(*words: str) -> Iterator[tuple[str, str, os.stat_result]]:
        yield from walked(*words)
        ended.append(time.monotonic())

    monkeypatch.setattr(survey, "_files", walk)
    found = look(cache, make_recording(tmp_path, rec(1), FILES))
    assert ended and found.seen_at >= max(ended)


def test_nothing_is_remembered_that_was_read_too_soon(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests least of all: a rig writes them last."""
    for module in ("ursa.register.memory", "ursa.disk.cache"):
        monkeypatch.setattr(f"{module}.SETTLED_S", 1800.0)
    age(lab.make(1, FILES, participant="Aria Lin"))
    assert lab.one().status == "ok"
    assert was_read(lab.one())
    with closing(FilesCache.open()) as cache:
        entries = cache.entries(rec(1))
    assert entries.keys() == {*FILES, "manifest.json", "participant.txt"}
    assert not [entry for of_path in entries.values() for entry in of_path if entry.sha256]


@pytest.mark.parametrize(("temporary", "large", "warnings"), [(True, 1000, 1), (True, 10**6, 0), (False, 1000, 0)])
def test_a_lot_that_is_read_in_vain_is_said(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, temporary: bool, large: int, warnings: int
) -> None:
    registered(lab, 1, 2, 3)
    lost_cache()
    monkeypatch.setattr("ursa.disk.cache.is_temporary", lambda *_: temporary)
    monkeypatch.setattr("ursa.batch.run.LARGE_READ_BYTES", large)
    told: list[str] = []
    with DataInterface("local", lab.config) as data:
        data.enable_writes(roles=WRITES)
        batch = data.batch([lab.nas])
        batch.warn = told.append
        assert all(map(was_read, batch))
    assert len(told) == warnings and all("cache_dir" in words for words in told)
