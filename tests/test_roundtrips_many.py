"""Round trips of the commands of ``far_many.MANY``: within their goals for 100 recordings, and hardly fewer for 10.

The least of a few runs counts, as in ``test_roundtrips``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import make_buckets
from far import Bench, Command, filled
from far_many import MANY
from proxy import FaultProxy
from proxy_rules import Logged
from servers import S3Server
from test_roundtrips import _CONFIG
from trips import depth, trace

_TRIES = 3
_RECORDINGS = 100
_FEW = 10
_FEW_MORE = 5
_DELAY_S = 0.05


@pytest.fixture(scope="module")
def bench(weed_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A catalog of a hundred recordings behind a proxy."""
    with FaultProxy(weed_server.endpoint_url) as proxy:
        buckets = make_buckets(weed_server)
        config = _CONFIG.format(url=proxy.url, raw=buckets.raw, assets=buckets.assets)
        yield filled(tmp_path_factory.mktemp("many"), proxy, weed_server, config, _RECORDINGS)


@pytest.fixture(scope="module")
def known(bench: Bench) -> Path:
    """A home that has seen the catalog and the disk."""
    home = bench.new_home()
    bench.run(["ls"], home)
    bench.run(["batch", str(bench.root / "nas"), "--quiet"], home)
    return home


def _least(bench: Bench, known: Path, command: Command, enough: int) -> list[Logged]:
    """The log of the run with the fewest round trips; no more runs once one took no more than ``enough``."""
    found: list[list[Logged]] = []
    while len(found) < _TRIES and not (found and depth(found[-1]) <= enough):
        found.append(bench.run(command.words(bench), known, delay_s=_DELAY_S, exit_code=command.exit_code).log)
    return min(found, key=depth)


@pytest.mark.parametrize("name", MANY)
def test_no_more_for_many(bench: Bench, known: Path, name: str) -> None:
    command = MANY[name]
    few = _least(replace(bench, registered=bench.registered[:_FEW]), known, command, 0)
    enough = min(command.goal.warm, depth(few) + _FEW_MORE)
    many = _least(bench, known, command, enough)
    assert depth(many) <= enough, "\n".join(trace(many))
