"""The run: order, twins, poison among good recordings, stops; the API's side of it."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import Any

import pytest
from batch_tools import Lab, age, make_lab, rec
from deltalake import DeltaTable

from helpers import write_node_manifest
from ursa import InvalidRecordingError, Outcome, UploadProgress, UsageError, WritesNotEnabledError
from ursa.batch.find import Found
from ursa.batch.listed import Listed
from ursa.batch.model import BatchOptions, Verbs
from ursa.batch.run import BatchRun
from ursa.batch.survey import Survey
from ursa.catalog.catalog import Catalog
from ursa.catalog.standings import Standings
from ursa.disk.cache import FilesCache
from ursa.errors import CredentialsError, StorageError, UnexpectedError
from ursa.register.build import Registration
from ursa.register.gathering import Gathering
from ursa.store.local import LocalStore


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty lab."""
    return make_lab(tmp_path)


def told(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    """What became of each."""
    return [(outcome.rec_id, outcome.status) for outcome in outcomes]


def test_in_order_whatever_ends_first(lab: Lab) -> None:
    lab.make(1, {"eeg_a/big.edf": os.urandom(24 << 20)}, list_sha256=False)
    for number in range(2, 9):
        lab.make(number)
    ended: list[str] = []

    def follow(event: UploadProgress) -> None:
        if event.phase == "done":
            ended.append(event.rec_id)

    outcomes = lab.run(jobs=8, progress=follow)
    assert told(outcomes) == [(rec(number), "ok") for number in range(1, 9)]
    assert ended[0] != rec(1) and sorted(ended) == lab.rows()


def test_a_poisoned_one_never_stops_the_rest(lab: Lab) -> None:
    good = [lab.make(number) for number in (10, 20, 30)]
    (lab.nas / rec(11)).symlink_to(lab.root / "gone")
    (lab.nas / rec(12)).symlink_to(rec(12))
    looped = lab.make(13)
    (looped / "eeg_a" / "again").symlink_to("..")
    latin = lab.make(14)
    (Path(os.fsdecode(bytes(latin) + b"/eeg_a/caf\xe9.edf"))).write_bytes(b"x")
    os.mkfifo(lab.make(15) / "eeg_a" / "pipe")
    (lab.nas / "rec_20260520_000016_UPPER").mkdir()
    Path(os.fsdecode(os.fsencode(lab.nas) + b"/rec_20260520_000017_\xe9")).mkdir()
    os.mkfifo(lab.nas / rec(18))
    (lab.make(19) / "manifest.json").write_bytes(b"\xff\xfe{")
    lab.make(21, manifest=False)
    lab.make(22, {"_notes/a.txt": b"no raw data"})
    outcomes = {outcome.rec_id: outcome for outcome in lab.run()}
    assert lab.rows() == [path.name for path in good]
    failed = {name for name, outcome in outcomes.items() if outcome.status == "fail"}
    assert (
        len(failed) == 8
        and {rec(11), rec(12), rec(13), rec(14), rec(15), rec(19), "rec_20260520_000016_UPPER"} < failed
    )
    assert {name for name, outcome in outcomes.items() if outcome.status == "skip"} == {rec(21), rec(22)}
    words = {name: str(outcomes[name].error) for name in failed}
    assert r"eeg_a/caf\xe9.edf" in words[rec(14)] and "FIFO" in words[rec(15)] and "loops" in words[rec(13)]
    assert all(type(outcome.error) is not UnexpectedError for outcome in outcomes.values())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_an_unreadable_one_fails_by_name(lab: Lab) -> None:
    lab.make(1).chmod(0)
    lab.make(2)
    first, second = lab.run()
    assert (first.status, second.status) == ("fail", "ok") and "permission denied" in str(first.error)
    (lab.nas / rec(1)).chmod(0o755)


def test_halves_on_two_roots_are_one_recording(lab: Lab) -> None:
    for root, worker, host in (("left", "camera_left", "ape"), ("right", "camera_right", "bee")):
        half = lab.make(1, {f"{worker}/a.mp4": worker.encode()}, root=lab.root / root, manifest=False)
        write_node_manifest(half, host, [worker])
    outcomes = lab.run(lab.root / "left", lab.root / "right", jobs=8)
    assert [outcome.result.action for outcome in outcomes if outcome.result] == ["created", "merged"]
    with lab.data() as data:
        assert [row.name for row in data.list_modalities()] == ["camera_left", "camera_right"]
        (check,) = data.verify(everything=True, level="full")
        assert check.ok
    assert [outcome.status for outcome in lab.run(lab.root / "left", lab.root / "right")] == ["have", "have"]


def test_the_same_on_two_roots_is_sent_once_and_other_bytes_are_a_conflict(lab: Lab) -> None:
    files = {"eeg_a/a.edf": b"eeg"}
    for root, content in (("a", files), ("b", files), ("c", {"eeg_a/a.edf": b"EEG"})):
        lab.make(1, content, root=lab.root / root)
    first, second, third = lab.run(*(lab.root / root for root in "abc"), jobs=8)
    assert (first.status, second.status, third.status) == ("ok", "have", "fail")
    assert third.rec_dir == lab.root / "c" / rec(1)
    assert (lab.stored / rec(1) / "eeg_a/a.edf").read_bytes() == b"eeg"


def test_settle_leaves_alone_what_is_still_copied(lab: Lab) -> None:
    age(lab.make(1), 7200)
    lab.make(2)
    future = lab.make(3)
    age(future, -10 * 86_400)  # a wrong clock is no sign of writing
    assert told(lab.run(settle_s=3600)) == [(rec(1), "ok"), (rec(2), "skip"), (rec(3), "ok")]
    assert lab.rows() == [rec(1), rec(3)]


def test_on_failure_stop_starts_nothing_after_it(lab: Lab) -> None:
    lab.make(1)
    (lab.nas / rec(2)).mkdir()
    (lab.make(2, {"eeg_a/a.edf": b"x"}, root=lab.root / "x") / "manifest.json").rename(
        lab.nas / rec(2) / "manifest.json"
    )
    lab.make(3)
    outcomes = lab.run(jobs=1, on_failure="stop")
    assert told(outcomes) == [(rec(1), "ok"), (rec(2), "fail"), (rec(3), "skip")]
    assert outcomes[2].reason == f"not tried, since {rec(2)} failed" and lab.rows() == [rec(1)]


def test_reconstruct_missing_writes_the_manifest_first(lab: Lab) -> None:
    rec_dir = lab.make(1, manifest=False)
    assert lab.one().status == "skip" and not (rec_dir / "manifest.json").exists()
    assert lab.one(reconstruct_missing=True, dry_run=True).status == "skip"
    assert not (rec_dir / "manifest.json").exists()
    assert lab.one(reconstruct_missing=True).status == "ok"
    assert (rec_dir / "manifest.json").read_bytes() == (lab.stored / rec(1) / "manifest.json").read_bytes()


def test_a_dry_run_plans_and_writes_nothing(lab: Lab) -> None:
    lab.make(1, {"eeg_a/a.edf": bytes(1000)})
    lab.run()
    lab.make(2, {"eeg_a/a.edf": bytes(5000), "eeg_a/b.edf": bytes(7000)})
    before = sorted(path for path in (lab.root / "store").rglob("*"))
    with lab.data() as data:
        batch = data.batch([lab.nas], dry_run=True)
        have, planned = list(batch)
    assert (have.status, planned.status) == ("have", "ok") and planned.plan is not None
    assert [item.key.rsplit("/", 1)[1] for item in planned.plan.sends] == ["a.edf", "b.edf", "manifest.json"]
    assert batch.estimate.files == 3 and batch.estimate.bytes == planned.plan.bytes_to_send > 12_000
    assert batch.estimate.class_a > 3 and batch.estimate.dollars > 0
    assert sorted(path for path in (lab.root / "store").rglob("*")) == before


def test_what_the_callback_raises_ends_the_run(lab: Lab) -> None:
    for number in range(1, 30):
        lab.make(number)

    def follow(_event: UploadProgress) -> None:
        raise RuntimeError("enough")

    with lab.data() as data:
        batch = data.batch([lab.nas], jobs=2, progress=follow)
        with pytest.raises(RuntimeError, match="enough"):
            list(batch)
    assert lab.rows() == []


def test_have_is_not_said_of_what_was_undone_meanwhile(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes hours, and the rows that it has looked up at its start may be gone."""
    monkeypatch.setattr("ursa.catalog.standings.FRESH_FOR_S", 0.0)
    for number in (2, 3):
        age(lab.make(number))
    assert told(lab.run()) == [(rec(2), "ok"), (rec(3), "ok")]
    age(lab.make(1))
    left = [rec(3)]

    def follow(_event: UploadProgress) -> None:
        if left:
            DeltaTable(lab.data().catalog_location()["recordings"]).delete(f"rec_id = '{left.pop()}'")

    assert told(lab.run(jobs=1, progress=follow)) == [(rec(1), "ok"), (rec(2), "have"), (rec(3), "ok")]
    assert lab.rows() == [rec(1), rec(2), rec(3)]


def test_writes_and_jobs_are_checked_first(lab: Lab) -> None:
    lab.make(1)
    with lab.data() as data, pytest.raises(UsageError):
        data.batch([lab.nas], jobs=0)
    reader = type(lab.data())("local", lab.config)
    with pytest.raises(WritesNotEnabledError):
        reader.batch([lab.nas])
    assert [outcome.status for outcome in reader.batch([lab.nas], dry_run=True)] == ["ok"]


# The run alone, with verbs that do what no real one does on demand.

DIRS = tuple(Path(f"/nas/{rec(number)}") for number in range(1, 9))


def unopened() -> Catalog:
    """No part of this needs it."""
    raise AssertionError


class Unknown(Standings):
    """In a catalog that knows none of them, and that nobody has to open."""

    def begin(self, at: int) -> int:
        return len(DIRS)

    def of(self, rec_id: str) -> None:
        return None

    now = of


@dataclass
class Sent:
    """Sent, by a verb that returns this."""

    result_of_it: Any
    wanted: Any = None

    def result(self, _registered: object) -> Any:
        return self.result_of_it


class AtOnce(Gathering):
    """Registers nothing, and at once."""

    def __init__(self) -> None:
        super().__init__(unopened, lambda: pytest.fail("nothing is to be committed"))

    def register(self, _wanted: object) -> Any:
        done: Future[None] = Future()
        done.set_result(None)
        return done


def alone(
    ingest: Callable[..., Any],
    stop: Callable[[], object] = lambda: None,
    standings: Callable[[Sequence[str]], Standings] = lambda names: Unknown(unopened, names),
    **options: Any,
) -> BatchRun:
    """A run over eight recordings of which none is registered."""

    def survey(rec_dirs: Sequence[Path]) -> Survey:
        return Survey(rec_dirs, FilesCache.open(), reread_bytes=0, reread_after_s=0.0)

    def listed(stopped: Callable[[], object]) -> Listed:
        return Listed(LocalStore(Path.home(), "raw"), "recordings/", stopped, ranges=False)

    def send(*of: Any) -> Any:
        return Sent(ingest(*of))

    verbs = Verbs(send, lambda *_: None, standings, survey, listed, AtOnce(), lambda: 8, stop)
    return BatchRun(Found(DIRS, (Path("/nas"),), (), ()), verbs, BatchOptions(**options))


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (KeyError("x"), UnexpectedError),
        (OSError(5, "Input/output error"), InvalidRecordingError),
        (PermissionError(13, "Permission denied", str(DIRS[3] / "camera")), InvalidRecordingError),
        (PermissionError(13, "Permission denied", str(DIRS[2] / "camera")), StorageError),
        (OSError(28, "No space left on device", "/home/ada/.cache/ursa/catalog/x"), StorageError),
        (OSError(28, "No space left on device"), StorageError),
        (RecursionError(), InvalidRecordingError),
        (StorageError("down"), StorageError),
    ],
)
def test_whatever_one_raises_the_others_are_tried(raised: Exception, kind: type[Exception]) -> None:
    def ingest(rec_dir: Path, *_: object) -> Any:
        if rec_dir == DIRS[3]:
            raise raised
        raise InvalidRecordingError("no")

    outcomes = list(alone(ingest))
    assert [outcome.rec_dir for outcome in outcomes] == list(DIRS)
    assert type(outcomes[3].error) is kind and outcomes[3].status == "fail"


def test_refused_credentials_end_the_run() -> None:
    def ingest(*_: object) -> Any:
        raise CredentialsError("expired")

    batch = alone(ingest, jobs=1)
    outcomes = list(batch)
    assert [outcome.status for outcome in outcomes] == ["fail"] + ["skip"] * 7
    assert batch.ended_by is not None and "credentials" in outcomes[-1].reason


def test_a_server_that_answers_nobody_ends_the_run() -> None:
    def ingest(*_: object) -> Any:
        raise StorageError("no answer", unreachable=True)

    batch = alone(ingest, jobs=1)
    outcomes = list(batch)
    assert [outcome.status for outcome in outcomes] == ["fail"] + ["skip"] * 7
    assert batch.ended_by is outcomes[0].error and "does not answer" in outcomes[-1].reason
    assert (batch.counts["fail"], batch.not_reached) == (1, 7)


def test_a_server_that_answers_others_meanwhile_is_tried_on() -> None:
    others = threading.Barrier(2)

    def ingest(rec_dir: Path, *_: object) -> Any:
        if rec_dir == DIRS[0]:
            others.wait(10)
            while batch._answered_at == float("-inf"):
                time.sleep(0.001)
            raise StorageError("no answer", unreachable=True)
        if rec_dir == DIRS[1]:
            others.wait(10)
        return object()

    batch = alone(ingest, jobs=2)
    assert [outcome.status for outcome in batch] == ["fail"] + ["ok"] * 7
    assert batch.ended_by is None


def test_a_disk_that_has_no_place_for_the_catalog_ends_the_run() -> None:
    """It is no fault of a recording, and told once."""

    class Full(Unknown):
        def begin(self, at: int) -> int:
            raise OSError(28, "No space left on device", "/home/ada/.cache/ursa/catalog/x")

    batch = alone(lambda *_: None, standings=lambda names: Full(unopened, names))
    assert {outcome.reason for outcome in batch} == {"not tried: the catalog can't be read"}
    assert isinstance(batch.ended_by, StorageError)
    assert batch.ended_by.message == "/home/ada/.cache/ursa/catalog/x: No space left on device"
    assert "`ursa cache path`" in str(batch.ended_by.hint)


def test_a_catalog_that_can_not_be_read_ends_the_run_with_a_line_for_each() -> None:
    error = StorageError("no answer", unreachable=True)

    def broken() -> Catalog:
        raise error

    batch = alone(lambda *_: pytest.fail("nothing is to be tried"), standings=lambda names: Standings(broken, names))
    outcomes = list(batch)
    assert [(outcome.status, outcome.reached) for outcome in outcomes] == [("skip", False)] * 8
    assert batch.ended_by is error and batch.why_stopped == "not tried: the server does not answer"


def test_time_that_is_over_stops_who_has_not_heard_of_it() -> None:
    """A recording that is about to begin as the time ends misses ``stop``, and must see it in its slot."""
    over = threading.Event()

    def ingest(_rec_dir: Path, _standing: object, place: Any, *_look: object) -> Any:
        assert over.wait(10)
        place.check()
        raise AssertionError("it went on")

    outcomes = list(alone(ingest, over.set, jobs=2, max_duration_s=0.05))
    assert [outcome.status for outcome in outcomes] == ["skip"] * 8
    assert outcomes[0].reason == "the time of --max-duration is over; it goes on next time"
    assert outcomes[-1].reason == "the time of --max-duration is over"


def test_an_interrupted_run_still_tells_what_had_ended() -> None:
    release = threading.Event()
    started = threading.Event()

    def ingest(rec_dir: Path, *_: object) -> Any:
        if rec_dir == DIRS[1]:
            started.set()
            assert release.wait(10)
            raise KeyboardInterrupt
        raise InvalidRecordingError("no")

    batch = alone(ingest, release.set, jobs=2)
    outcomes = iter(batch)
    assert next(outcomes).rec_dir == DIRS[0]
    assert started.wait(10)
    time.sleep(0.2)  # the other six go by
    outcomes.close()  # type: ignore[attr-defined]
    assert [outcome.rec_dir for outcome in batch.untold()] == list(DIRS[2:])
    assert batch.counts["fail"] == 7 and list(batch.untold()) == []


def test_no_more_in_flight_than_jobs() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def ingest(*_: object) -> Any:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        raise InvalidRecordingError("no")

    assert len(list(alone(ingest, jobs=3))) == 8
    assert most[0] == 3


def test_the_same_data_under_two_names_is_registered_once(lab: Lab) -> None:
    for number in (1, 2):
        lab.make(number, {"eeg_a/a.edf": b"the same"})
    outcomes = lab.run(jobs=8)
    assert sorted(outcome.status for outcome in outcomes) == ["fail", "ok"]
    (failed,) = [outcome for outcome in outcomes if outcome.status == "fail"]
    assert "is registered already, as" in str(failed.error) and len(lab.rows()) == 1


@pytest.mark.parametrize("company", [False, True], ids=["alone", "in company"])
def test_have_is_not_said_of_what_was_undone_before_the_commit(
    company: bool, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine registers it while this one sends it; this one sees that; an admin undoes it; this one commits."""
    lab.make(9)
    lab.run()
    with lab.data() as admin:
        before = admin.catalog_history()[0].operation_id
    rec_dir = lab.make(1)
    if company:
        lab.make(3)
    other = tmp_path / "other" / rec_dir.name
    shutil.copytree(rec_dir, other)
    real, seen = Gathering.register, list[str]()

    def register(gathering: Gathering, wanted: Registration) -> Any:
        if wanted.row.rec_id == rec(1) and not seen:
            seen.append("first")
            with lab.data() as data:
                (outcome,) = data.batch([other.parent])
                assert outcome.status == "ok"
            gathering._catalog().refresh()  # as each commit of this run that meets a conflict does
            with lab.data() as data:
                data.undo(before)
        return real(gathering, wanted)

    monkeypatch.setattr(Gathering, "register", register)
    outcomes = lab.run()
    there = lab.rows()
    assert [(outcome.rec_id, outcome.rec_id in there) for outcome in outcomes if outcome.status in ("ok", "have")] == [
        (name, True) for name in sorted({rec(1), rec(9), *([rec(3)] if company else [])})
    ]


def test_one_hash_stated_twice_is_refused_before_a_byte_moves(lab: Lab) -> None:
    for number in (1, 2):
        lab.make(number, {"eeg_a/a.edf": bytes([number])}, recording_hash="ab" * 32)
    outcomes = lab.run(jobs=8)
    assert sorted(outcome.status for outcome in outcomes) == ["fail", "ok"]
    (failed,) = [outcome for outcome in outcomes if outcome.status == "fail"]
    assert "is registered already, as" in str(failed.error)
    assert not (lab.stored / failed.rec_id).exists()


def test_what_waits_for_its_commit_keeps_no_bytes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent at the link's rate for a minute, they would be gigabytes."""
    body = os.urandom(3 << 20)
    lab.make(1, {"eeg_a/a.edf": body})
    kept: list[int] = []
    real = Gathering.register

    def register(gathering: Gathering, wanted: Registration) -> Any:
        gc.collect()
        kept.extend(len(item) for item in gc.get_objects() if isinstance(item, bytes))
        kept.extend(_bytes_below(sys._getframe(1).f_locals["sent"]))
        return real(gathering, wanted)

    monkeypatch.setattr(Gathering, "register", register)
    assert lab.one().status == "ok"
    assert max(kept, default=0) < len(body)


def _bytes_below(root: object) -> Iterator[int]:
    """Lengths of all bytes that can be reached from an object, but through modules, classes and frames."""
    todo, seen = [root], set[int]()
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, (ModuleType, type, FrameType, FunctionType, threading.Thread)):
            continue
        seen.add(id(item))
        if isinstance(item, bytes):
            yield len(item)
        else:
            todo += gc.get_referents(item)


def test_a_look_up_that_fails_later_is_no_success(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of directories that were named: what ended the run before they were tried is told, and is the exit status."""
    for number in range(1, 7):
        lab.make(number)
    with lab.data() as data:
        run = data.ingest_dirs([lab.nas / rec(number) for number in range(1, 7)])
        begin, calls = run._standings.begin, list[int]()

        def failing(at: int) -> int:
            calls.append(at)
            if len(calls) > 1:
                raise StorageError("no answer", unreachable=True)
            return min(3, begin(at))

        monkeypatch.setattr(run._standings, "begin", failing)
        list(run)
    assert isinstance(run.ended_by, StorageError) and run.not_reached >= 3


def test_time_that_is_over_does_not_wait_for_company(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    """More recordings than may wait to be told: the earlier ones wait for their commit, and not for the pace."""
    monkeypatch.setattr("ursa.batch.run._WAITING", 3)
    monkeypatch.setattr("ursa.register.gathering.SHORTEST_S", 300.0)
    monkeypatch.setattr("ursa.register.gathering.LONGEST_S", 300.0)
    for number in range(1, 12):
        lab.make(number)
    outcomes = lab.run(max_duration_s=1.0)
    assert {outcome.status for outcome in outcomes} <= {"ok", "skip"}
    assert outcomes[0].status == "ok" and len(outcomes) == 11
