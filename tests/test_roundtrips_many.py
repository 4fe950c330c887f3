"""How many round trips each command waits for over ten and over a hundred recordings: none takes them one by one.

The goals are those of ``far_many.MANY``; the least of a few runs counts, as in ``test_roundtrips.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import make_buckets
from far import COMMANDS, Bench, filled
from far_many import DELAY_S, MANY
from proxy import FaultProxy
from servers import S3Server
from test_roundtrips import CONFIG
from trips import depth, trace

_TRIES = 3


@pytest.fixture(scope="module", params=[10, 100])
def bench(
    request: pytest.FixtureRequest, weed_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """A catalog of so many recordings behind a proxy."""
    with FaultProxy(weed_server.endpoint_url) as proxy:
        buckets = make_buckets(weed_server)
        config = CONFIG.format(url=proxy.url, raw=buckets.raw, assets=buckets.assets)
        yield filled(tmp_path_factory.mktemp("far"), proxy, weed_server, config, request.param)


@pytest.fixture(scope="module")
def known(bench: Bench) -> Path:
    """A home that has seen the catalog, and has written."""
    home = bench.new_home()
    for name in ("ls", "ingest, new"):
        bench.run(COMMANDS[name].words(bench), home)
    return home


@pytest.mark.parametrize("name", MANY)
def test_within_its_goal(bench: Bench, known: Path, name: str) -> None:
    command = MANY[name]
    goal = command.goal.ten if len(bench.registered) == 10 else command.goal.hundred
    found = []
    while len(found) < _TRIES and not (found and depth(found[-1]) <= goal):
        words = command.words(bench)
        found.append(bench.run(words, known, delay_s=DELAY_S, exit_code=command.exit_code).log)
    assert depth(found[-1]) <= goal, "\n".join(trace(found[-1]))
