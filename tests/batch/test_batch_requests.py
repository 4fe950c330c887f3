"""How many requests a batch takes: a thousandth of one for a file that is registered, few for a recording that is new."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_tools import WRITES, age, on_disks, rec, without_a_look

from conftest import Buckets, MakeConfig
from helpers import make_recording
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface, Outcome


@pytest.fixture
def proxied(
    weed_buckets: Buckets,
    s3_config: MakeConfig,
    fault_proxy: Callable[[S3Server], FaultProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[FaultProxy, Path]:
    """A proxy before a server with an empty catalog, and the config that goes through it."""
    on_disks(monkeypatch)
    with DataInterface("r2", s3_config(weed_buckets)) as data:
        data.enable_writes()
        data.init_catalog()
    proxy = fault_proxy(weed_buckets.server)
    return proxy, s3_config(weed_buckets.at(proxy.url))


def run(config: Path, *roots: Path) -> list[Outcome]:
    """A batch in a data interface of its own, as a process has."""
    with DataInterface("r2", config) as data:
        data.enable_writes(roles=WRITES)
        return list(data.batch(roots, jobs=8))


def raw(proxy: FaultProxy) -> list[str]:
    """The kinds of the requests to the bucket with the raw data."""
    return [entry.kind for entry in proxy.log if entry.path.startswith("/raw-")]


def test_the_same_for_sixty_registered_ones_as_for_ten(proxied: tuple[FaultProxy, Path], tmp_path: Path) -> None:
    proxy, config = proxied
    few, many = tmp_path / "few", tmp_path / "many"
    many.mkdir()
    for number in range(60):
        rec_dir = make_recording(few if number < 10 else many, rec(number), {"eeg_a/a.edf": b"eeg %d" % number})
        age(rec_dir)
    assert {outcome.status for outcome in run(config, few, many)} == {"ok"}
    assert proxy.count() / 60 <= 2 + 20, "more than twenty requests a recording over its two files"
    counts = []
    for roots, expected in (((few,), 10), ((few, many), 60)):
        proxy.clear()
        outcomes = run(config, *roots)
        assert len(outcomes) == expected
        assert all(map(without_a_look, outcomes)), [outcome.error and outcome.error.message for outcome in outcomes]
        counts.append(proxy.count())
        assert raw(proxy) == ["list"], "a request for a recording"
    # Opening the catalog and one look-up; the data files that it reads are not as many as recordings.
    assert counts[1] <= counts[0] + 4


def test_a_few_requests_however_many_groups(
    proxied: tuple[FaultProxy, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ten thousand recordings take in groups of 2,500: 36, of which 26 are the logs of two tables; and the listing."""
    monkeypatch.setattr("ursa.batch.run._WAITING", 40)
    proxy, config = proxied
    for number in range(150):
        age(make_recording(tmp_path, rec(number), {"eeg_a/a.edf": b"eeg %d" % number}))
    assert {outcome.status for outcome in run(config, tmp_path)} == {"ok"}
    proxy.clear()
    assert [outcome.status for outcome in run(config, tmp_path)] == ["have"] * 150
    assert proxy.count() <= 40, [(entry.method, entry.path) for entry in proxy.log]
    assert not [entry for entry in proxy.log if "/participants/" in entry.path]


def test_touched_and_equal_is_compared_with_what_is_listed_already(
    proxied: tuple[FaultProxy, Path], tmp_path: Path
) -> None:
    proxy, config = proxied
    rec_dirs = [make_recording(tmp_path, rec(number), {"eeg_a/a.edf": b"eeg %d" % number}) for number in range(5)]
    for rec_dir in rec_dirs:
        age(rec_dir)
    run(config, tmp_path)
    for rec_dir in rec_dirs:
        os.utime(rec_dir / "eeg_a" / "a.edf")
    proxy.clear()
    outcomes = run(config, tmp_path)
    assert {outcome.status for outcome in outcomes} == {"have"} and not any(map(without_a_look, outcomes))
    assert raw(proxy) == ["list"], "an object was asked for, or listed again"
