"""Fixtures for every test: an empty home, real servers that start when first asked for, configs and recordings."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import servers
from proxy import FaultProxy
from servers import S3Server
from sharing import shared

EXAMPLES = Path(__file__).parent.parent / "examples" / "recordings"
PRIVATE = ("AWS_", "OP_", "URSA_", "XDG_")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--refresh-golden``: write the golden outputs anew."""
    parser.addoption("--refresh-golden", action="store_true", help="write tests/golden/outputs anew")


@dataclass(frozen=True)
class Buckets:
    """A server and two fresh buckets on it."""

    server: S3Server
    raw: str
    assets: str

    def at(self, endpoint_url: str) -> Buckets:
        """The same buckets through another endpoint: a proxy's ``url``."""
        return replace(self, server=self.server.at(endpoint_url))


class MakeConfig(Protocol):
    """What the ``s3_config`` fixture gives."""

    def __call__(self, buckets: Buckets, *, profile: str = "r2", **settings: Any) -> Path: ...


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and nothing in the environment that tells of anybody's accounts or settings."""
    for name in os.environ:
        if name.startswith(PRIVATE):
            monkeypatch.delenv(name)
    empty = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(empty))
    # Without it the AWS credential chain asks a metadata service on the network, and waits.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return empty


@pytest.fixture(scope="session")
def weed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS, one for the run: all pytest-xdist workers share it."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with shared(root, "weed", servers.weed) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """moto, one for each pytest worker."""
    with servers.moto() as server:
        yield server


def make_buckets(server: S3Server) -> Buckets:
    """Two new buckets with names that nobody had before."""
    mark = uuid.uuid4().hex[:12]
    return Buckets(server, server.create_bucket(f"raw-{mark}"), server.create_bucket(f"assets-{mark}"))


@pytest.fixture
def weed_buckets(weed_server: S3Server) -> Buckets:
    """Fresh buckets on SeaweedFS."""
    return make_buckets(weed_server)


@pytest.fixture
def moto_buckets(moto_server: S3Server) -> Buckets:
    """Fresh buckets on moto."""
    return make_buckets(moto_server)


@pytest.fixture
def fault_proxy() -> Iterator[Callable[[S3Server], FaultProxy]]:
    """``fault_proxy(server)`` starts a proxy before it; all are closed at the end of the test."""
    with ExitStack() as open_proxies:
        yield lambda server: open_proxies.enter_context(FaultProxy(server.endpoint_url))


@pytest.fixture
def s3_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeConfig:
    """``s3_config(buckets, **settings)`` writes a config whose profile ``r2`` uses them, and sets its keys' variables.

    ``settings`` go over the profile's own.
    """

    def make(buckets: Buckets, *, profile: str = "r2", **settings: Any) -> Path:
        monkeypatch.setenv("T_KEY", buckets.server.access_key)
        monkeypatch.setenv("T_SECRET", buckets.server.secret_key)
        keys = {"access_key_id": "T_KEY", "secret_access_key": "T_SECRET"}
        values = {
            "endpoint_url": buckets.server.endpoint_url,
            "raw": {"bucket": buckets.raw, "prefix": "recordings/"},
            "assets": {"bucket": buckets.assets, "prefix": "ursa/"},
            "credentials": {"provider": "env", "roles": {"raw_rw": dict(keys), "assets_rw": dict(keys)}},
        } | settings
        path = tmp_path / "ursa.yaml"
        path.write_text(yaml.safe_dump({"profiles": {profile: values}}, sort_keys=False), encoding="utf-8")
        return path

    return make


@pytest.fixture
def example_recordings(tmp_path: Path) -> Path:
    """A copy of the example recordings: a directory with ``rec_*`` in it."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "recordings"))
