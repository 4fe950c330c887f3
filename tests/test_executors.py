"""`reconstruct`, `verify` and the rebuild in any executor's workers: threads, spawned processes, a dask cluster."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import Buckets, MakeConfig, make_buckets
from helpers import make_recording, run_ursa
from servers import S3Server
from ursa import ConfigError, DataInterface, StorageError
from ursa.cluster import executor as cluster_executor

NAMES = [f"rec_20260520_1956{number:02d}_b1dd" for number in range(4)]
FILES = {"camera_left/seg_000.mp4": b"left " * 400, "eeg_a/seg_000.edf": b"eeg"}
SECRETS = ("test-access-key", "test-secret-key")


class Watched(Executor):
    """Another executor, and every task that was given to it, pickled as it goes out."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.tasks: list[bytes] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.tasks.append(pickle.dumps((fn, args, kwargs)))
        return self.inner.submit(fn, *args, **kwargs)


@pytest.fixture(params=["threads", "processes"])
def pool(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """Executors of the standard library."""
    spawn = multiprocessing.get_context("spawn")
    made = ThreadPoolExecutor(2) if request.param == "threads" else ProcessPoolExecutor(2, mp_context=spawn)
    with made:
        yield Watched(made)


@pytest.fixture
def local(tmp_path: Path) -> DataInterface:
    """Four recordings in a directory store, the last two without a manifest; nothing is registered."""
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n", encoding="utf-8")
    fill(tmp_path / "store" / "constellation-data" / "recordings")
    data = DataInterface("local", config)
    data.enable_writes(roles=("assets_rw", "raw_rw"))
    return data


def fill(bucket: Path) -> None:
    """The recordings, as somebody has uploaded them."""
    for number, name in enumerate(NAMES):
        files = {path: content + bytes([number]) for path, content in FILES.items()}
        make_recording(bucket, name, files, manifest=number < 2)


def everything(data: DataInterface, pool: Executor) -> None:
    """Path C, the rebuild and verify in the pool's workers, and each result as it is here."""
    outcomes = list(data.reconstruct_several(NAMES, executor=pool))
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert [str(outcome.result.action) for outcome in outcomes if outcome.result] == ["kept", "kept", "made", "made"]
    result = data.rebuild(executor=pool)
    assert result.flipped and result.new == tuple(NAMES) and not result.left
    told: list[str] = []
    checks = data.verify(everything=True, level="full", executor=pool, on_file=lambda name, _check: told.append(name))
    assert checks == data.verify(everything=True, level="full") and all(check.ok for check in checks)
    assert told == sorted(told) and len(told) == 8


@pytest.fixture(autouse=True)
def settles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has just been uploaded is waited for no longer than this."""
    monkeypatch.setattr("ursa.rebuild.run.SETTLES_S", 0.0)


def test_every_verb(local: DataInterface, pool: Watched) -> None:
    everything(local, pool)
    assert len(pool.tasks) == 12


def test_an_error_comes_back_whole(local: DataInterface, pool: Watched) -> None:
    """With its class, its fields and its hint; the other recordings go on."""
    outcomes = list(local.reconstruct_several(["rec_1", NAMES[2]], executor=pool))
    assert type(outcomes[0].error).__name__ == "InvalidRecordingError" and "rec_1" in str(outcomes[0].error)
    assert outcomes[1].result is not None


def test_directories_are_read_here(local: DataInterface, pool: Watched, tmp_path: Path) -> None:
    """The workers may be machines without that disk."""
    rec_dir = make_recording(tmp_path / "nas", NAMES[2], {"eeg_a/x.edf": b"x"}, manifest=False)
    (outcome,) = local.reconstruct_several([rec_dir], executor=pool)
    assert outcome.result is not None and (rec_dir / "manifest.json").exists()
    (check,) = local.verify([rec_dir], executor=pool)
    assert not check.ok and pool.tasks == []


def test_a_worker_that_dies(local: DataInterface) -> None:
    """The error says so; nothing is in place."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as dying:
        dying.submit(int).result()
        for process in (dying._processes or {}).values():
            process.kill()
        with pytest.raises(StorageError, match="a worker of the executor failed: BrokenProcessPool"):
            local.rebuild(executor=dying)
    assert local.list_recordings() == []
    assert local.rebuild().recordings == 2


def test_without_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError) as refused, cluster_executor("tcp://127.0.0.1:1"):
        pass
    assert refused.value.hint == "pip install 'ursa[dask]'" and refused.value.exit_code == 2
    with cluster_executor(None) as nothing:
        assert nothing is None


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two dask workers, processes of their own, that have keys which nobody else has in their environment."""
    distributed = pytest.importorskip("distributed")
    with pytest.MonkeyPatch.context() as patch:
        # Only the workers, which start now, get these.
        patch.setenv("W_KEY", SECRETS[0])
        patch.setenv("W_SECRET", SECRETS[1])
        made = distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0", memory_limit=0
        )
    with made:
        yield made


@pytest.fixture
def far(weed_server: S3Server, s3_config: MakeConfig, tmp_path: Path) -> tuple[Path, Buckets]:
    """A profile whose raw bucket can be read with the workers' keys alone, four recordings in it."""
    buckets = make_buckets(weed_server)
    path = s3_config(buckets)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys = {"access_key_id": "W_KEY", "secret_access_key": "W_SECRET"}
    values["profiles"]["workers"] = {"extends": "r2", "credentials": {"provider": "env", "roles": {"raw_rw": keys}}}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    fill(tmp_path / "bucket")
    client = weed_server.client()
    for file in sorted((tmp_path / "bucket").rglob("*")):
        if file.is_file():
            key = f"recordings/{file.relative_to(tmp_path / 'bucket').as_posix()}"
            client.put_object(Bucket=buckets.raw, Key=key, Body=file.read_bytes())
    with DataInterface("r2", path) as data:
        data.enable_writes()
        data.init_catalog()
    return path, buckets


@pytest.mark.slow
def test_dask(far: tuple[Path, Buckets], cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret is in any task; each worker reads with the credentials that it finds where it runs."""
    config, _buckets = far
    with cluster_executor(cluster.scheduler_address) as workers:
        assert workers is not None
        watched = Watched(workers)
        data = DataInterface("workers", config)
        data.enable_writes(roles=("assets_rw", "raw_rw"))
        # This process has no key to the raw bucket, so these can only have been made in a worker.
        outcomes = list(data.reconstruct_several(NAMES, executor=watched))
        assert [outcome.error for outcome in outcomes] == [None] * 4
        with monkeypatch.context() as patch:
            # The rebuild lists what there is from here.
            patch.setenv("W_KEY", SECRETS[0])
            patch.setenv("W_SECRET", SECRETS[1])
            assert data.rebuild(executor=watched).new == tuple(NAMES)
        with DataInterface("workers", config) as reader:
            checks = reader.verify(everything=True, level="full", executor=watched)
        assert len(checks) == 4 and all(check.ok for check in checks)
    assert len(watched.tasks) == 12
    for task in watched.tasks:
        assert not any(secret.encode() in task for secret in SECRETS)


@pytest.mark.slow
def test_dask_on_the_command_line(far: tuple[Path, Buckets], cluster: Any) -> None:
    config, _buckets = far
    address = cluster.scheduler_address
    environment = dict(zip(("W_KEY", "W_SECRET"), SECRETS, strict=True))
    words = ("--config", config, "-p", "workers", "--dask", address)
    made = run_ursa("reconstruct", "--all-missing", "--yes", *words, env=environment)
    assert made.returncode == 0 and made.stdout.count("MADE ") == 2, made.stderr
    rebuilt = run_ursa("catalog", "rebuild", "--yes", "--json", *words, env=environment)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert json.loads(rebuilt.stdout.splitlines()[-1])["new"] == 4
    # Verify reads the raw bucket in the workers alone. What only the rigs' manifests state was not compared by a rebuild.
    checked = run_ursa("verify", "--all", *words)
    assert checked.returncode == 0, checked.stderr
    assert (checked.stdout.count("OK   "), checked.stdout.count("SEEN ")) == (2, 2)
    assert "4 not proven" in checked.stdout.splitlines()[-1]
    checked = run_ursa("verify", "--all", "--level", "full", *words)
    assert checked.returncode == 0 and checked.stdout.count("OK   ") == 4, checked.stderr


def test_no_scheduler(local: DataInterface) -> None:
    for address, code, words in (
        ("nonsense://x", 2, "'nonsense://x' is not the address of a dask scheduler"),
        ("tcp://127.0.0.1:1", 1, "can't reach a dask scheduler at tcp://127.0.0.1:1"),
    ):
        done = run_ursa("verify", "--all", "--dask", address, "--config", config_of(local), "-p", "local")
        assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def config_of(data: DataInterface) -> Path:
    """The config file of a directory store."""
    assert data.profile.root is not None
    return data.profile.root.parent / "ursa.yaml"
