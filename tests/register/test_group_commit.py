"""Group commit: every row exactly once, whoever else writes; nobody suffers for anybody else's refusal."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from r2_tools import Local, local_store, rows
from racer import rec_id, recording_hash, registration

from conftest import Buckets, MakeConfig
from ursa import ConflictError, DataInterface, RecordingExistsError
from ursa.register.build import Registration
from ursa.register.commit import Registered, register_all
from ursa.register.committer import Committer

THREADS = 30


@pytest.fixture
def local(tmp_path: Path) -> Local:
    return local_store(tmp_path)


@pytest.fixture
def data(local: Local) -> DataInterface:
    return local.open()


def check_once(data: DataInterface, numbers: range | list[int]) -> None:
    """These recordings, and no other rows, each exactly once."""
    there = rows(data)
    wanted = Counter(rec_id(number) for number in numbers)
    assert Counter(row.rec_id for row in there["recordings"]) == wanted
    modalities = Counter((row.rec_id, row.name) for row in there["modalities"])
    assert modalities == Counter((name, worker) for name in wanted for worker in ("camera_left", "eeg_a"))
    assert [row.display_name for row in there["participants"]] == ["Aria Lin"]


def test_thirty_threads_share_their_commits(data: DataInterface) -> None:
    catalog = data._catalog
    committer = Committer(catalog)
    before = [table.version for table in (catalog.recordings, catalog.modalities, catalog.participants)]
    with ThreadPoolExecutor(THREADS) as pool:
        with catalog.lock:
            # Whoever has the turn waits for the lock, and everybody else for the turn.
            waiting = [pool.submit(committer.register, registration(number)) for number in range(THREADS)]
            while len(committer._waiting) < THREADS - 1:
                time.sleep(0.001)
        done = [future.result(timeout=60) for future in waiting]
    assert {item.action for item in done} == {"created"}
    assert [item.row.rec_id for item in done] == list(map(rec_id, range(THREADS)))
    catalog.refresh()
    after = [table.version for table in (catalog.recordings, catalog.modalities, catalog.participants)]
    assert [now - was for now, was in zip(after, before, strict=True)] == [2, 2, 1]
    check_once(data, range(THREADS))


def test_one_refused_member_takes_nobody_with_it(data: DataInterface) -> None:
    catalog = data._catalog
    register_all(catalog, [registration(5), registration(7)])
    group = [registration(number) for number in range(10)]
    group[7] = registration(7, size_bytes=11)
    outcomes = register_all(catalog, group)
    assert isinstance(outcomes[5], RecordingExistsError) and outcomes[5].rec_id == rec_id(5)
    assert isinstance(outcomes[7], ConflictError) and "eeg_a/seg_000.bin" in outcomes[7].paths
    good = [outcome for i, outcome in enumerate(outcomes) if i not in (5, 7)]
    assert all(isinstance(outcome, Registered) for outcome in good)
    check_once(data, range(10))


def test_a_refused_member_of_threads_is_told_to_its_own_thread(data: DataInterface) -> None:
    catalog = data._catalog
    committer = Committer(catalog)
    committer.register(registration(5))
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(committer.register, registration(number)) for number in range(THREADS)]
        errors = [future.exception(timeout=60) for future in futures]
    assert isinstance(errors.pop(5), RecordingExistsError)
    assert set(errors) == {None}
    check_once(data, range(THREADS))


def test_two_halves_of_one_recording_in_one_group(data: DataInterface) -> None:
    other = "fe" * 32
    halves = [
        registration(1, ("eeg_a",)),
        registration(1, ("camera_left",), digest=other, participants=("Bo Berg",)),
        registration(2),
    ]
    first, second, third = register_all(data._catalog, halves)
    assert isinstance(first, Registered) and isinstance(second, Registered) and isinstance(third, Registered)
    assert (first.action, second.action, third.action) == ("created", "merged", "created")
    assert {first.row.recording_hash, second.row.recording_hash} == {recording_hash(1)}
    (row,) = data.list_recordings({"rec_id": rec_id(1)})
    assert row == second.row and len(row.participant_ids) == 2
    there = rows(data)["modalities"]
    assert {item.recording_hash for item in there if item.rec_id == rec_id(1)} == {recording_hash(1)}
    assert sorted(item.name for item in there if item.rec_id == rec_id(1)) == ["camera_left", "eeg_a"]


def test_the_same_recording_twice_in_one_group(data: DataInterface) -> None:
    first, second = register_all(data._catalog, [registration(1), registration(1)])
    assert isinstance(first, Registered) and isinstance(second, RecordingExistsError)
    check_once(data, [1])


def test_one_hash_under_two_names_in_one_group(data: DataInterface) -> None:
    first, second = register_all(data._catalog, [registration(1), registration(2, digest=recording_hash(1))])
    assert isinstance(first, Registered) and isinstance(second, ConflictError)
    check_once(data, [1])


def test_a_group_larger_than_a_commit_can_replace(data: DataInterface) -> None:
    """Merges replace rows by name, a hundred at a time."""
    catalog = data._catalog
    numbers = range(130)
    register_all(catalog, [registration(number, ("eeg_a",)) for number in numbers])
    outcomes = register_all(catalog, [registration(number, ("camera_left",)) for number in numbers])
    assert {outcome.action for outcome in outcomes if isinstance(outcome, Registered)} == {"merged"}
    check_once(data, numbers)


@contextmanager
def racers(count: int, config: Path, profile: str) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes that have opened the catalog and wait for numbers."""
    with ExitStack() as stack:
        found = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name("racer.py")), str(config), profile],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(count)
        ]
        for racer in found:
            stack.callback(racer.kill)
        for racer in found:
            assert answer(racer) == "ready"
        yield found


def answer(racer: subprocess.Popen[str]) -> str:
    assert racer.stdout is not None
    return racer.stdout.readline().strip()


def tell(racer: subprocess.Popen[str], numbers: range | list[int]) -> None:
    assert racer.stdin is not None
    racer.stdin.write("".join(f"{number}\n" for number in numbers))
    racer.stdin.flush()


@pytest.fixture
def server_config(weed_buckets: Buckets, s3_config: MakeConfig) -> Path:
    """A config with an empty catalog on a server."""
    config = s3_config(weed_buckets)
    data = DataInterface("r2", config)
    data.enable_writes()
    data.init_catalog()
    return config


@pytest.mark.slow
def test_eight_processes_that_register_twelve_each(server_config: Path) -> None:
    with racers(8, server_config, "r2") as found:
        for i, racer in enumerate(found):
            tell(racer, range(i * 12, i * 12 + 12))
        assert [answer(racer) for racer in found for _ in range(12)] == ["created"] * 96
    check_once(DataInterface("r2", server_config), range(96))


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["local", "r2"])
def test_eight_processes_that_register_the_same_recording(profile: str, server_config: Path, local: Local) -> None:
    config = server_config if profile == "r2" else local.config
    rounds = range(10)
    with racers(8, config, profile) as found:
        for number in rounds:
            for racer in found:
                tell(racer, [number])
            said = sorted(answer(racer) for racer in found)
            assert said[-1] == "created", said
            assert all(text.startswith(f"RecordingExistsError: {rec_id(number)} is already") for text in said[:-1]), (
                said
            )
    check_once(DataInterface(profile, config), rounds)


@pytest.mark.parametrize("when", ["before", "after"])
def test_two_runs_that_merge_one_worker_with_other_files(data: DataInterface, local: Local, when: str) -> None:
    """Between one run's recording and its modality comes the other: one of them is registered, the other is refused."""
    register_all(data._catalog, [registration(1, ("eeg_a",))])
    wanted = [merging(10), merging(20)]
    with local.open() as other:
        register_all(other._catalog, [registration(2)])  # it is open
        table, theirs = data._catalog.modalities, []
        write = table.compare_and_swap

        def overtaken(change: Any) -> Any:
            if not theirs and when == "before":
                theirs.extend(register_all(other._catalog, wanted[1:]))
            version = write(change)
            if not theirs:
                theirs.extend(register_all(other._catalog, wanted[1:]))
            return version

        table.compare_and_swap = overtaken  # type: ignore[method-assign]
        (ours,) = register_all(data._catalog, wanted[:1])
    outcomes = [ours, *theirs]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConflictError", "Registered"]
    (row,) = data.list_modalities({"modality": "mic"})
    assert row.files[0].size_bytes == (10 if isinstance(ours, Registered) else 20)


def merging(size_bytes: int) -> Registration:
    """Recording 1 with one more worker, whose only file has this size."""
    both = registration(1, ("eeg_a", "mic_b"))
    others = registration(1, ("mic_b",), size_bytes=size_bytes)
    return replace(both, modalities=(both.modalities[0], *others.modalities))
