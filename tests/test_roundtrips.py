"""How many round trips each command waits for behind a far server: from a home that knows the catalog, and from a new one.

The goals are those of ``far.COMMANDS``. A machine that is so busy that what is begun side by side begins a whole round trip
apart counts more than there are, never fewer: so the least of a few runs counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import make_buckets
from far import COMMANDS, DELAY_S, Bench, filled
from proxy import FaultProxy
from servers import S3Server
from trips import depth, trace

_TRIES = 3
_RECORDINGS = 12
CONFIG = """profiles:
  r2:
    endpoint_url: {url}
    raw: {{bucket: {raw}, prefix: recordings/}}
    assets: {{bucket: {assets}, prefix: ursa/}}
    rig_timezone: UTC
    credentials: {{provider: env}}
"""


@pytest.fixture(scope="module")
def bench(weed_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A catalog of a few recordings behind a proxy."""
    with FaultProxy(weed_server.endpoint_url) as proxy:
        buckets = make_buckets(weed_server)
        config = CONFIG.format(url=proxy.url, raw=buckets.raw, assets=buckets.assets)
        yield filled(tmp_path_factory.mktemp("far"), proxy, weed_server, config, _RECORDINGS)


@pytest.fixture(scope="module")
def known(bench: Bench) -> Path:
    """A home that has seen the catalog, has written, and has read what is on the disk."""
    home = bench.new_home()
    for name in ("ls", "show REC", "ingest, new", "batch, nothing new", "batch, nothing new"):
        bench.run(COMMANDS[name].words(bench), home)
    return home


@pytest.mark.parametrize("first", [False, True], ids=["warm", "first"])
@pytest.mark.parametrize("name", COMMANDS)
def test_within_its_goal(bench: Bench, known: Path, name: str, first: bool) -> None:
    command = COMMANDS[name]
    goal = command.goal.first if first else command.goal.warm
    found = []
    while len(found) < _TRIES and not (found and depth(found[-1]) <= goal):
        home = bench.new_home() if first else known
        run = bench.run(command.words(bench), home, delay_s=DELAY_S, exit_code=command.exit_code)
        found.append(run.log)
    assert depth(found[-1]) <= goal, "\n".join(trace(found[-1]))
