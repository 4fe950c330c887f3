"""Commands over many recordings behind a far server, and how many round trips each may take for ten and for a hundred.

For ``test_roundtrips_many.py``: a command that took its recordings one by one would wait ten times as often for a hundred.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import yaml

from far import Bench

DELAY_S = 0.05


class Goal(NamedTuple):
    """Round trips to reach, from a home that knows the catalog: over ten recordings, and over a hundred."""

    ten: int
    hundred: int


class Command(NamedTuple):
    """``words``: the arguments, made anew for each run, over as many recordings as the bench has registered."""

    words: Callable[[Bench], list[str]]
    goal: Goal
    exit_code: int = 0


def in_bucket(bench: Bench, *, manifest: bool = True) -> list[str]:
    """As many recordings as are registered, put into the raw bucket past the proxy; nobody has registered them."""
    raw = yaml.safe_load((bench.root / "ursa.yaml").read_text())["profiles"]["r2"]["raw"]
    client = bench.server.client()
    made = [bench.new_recording() for _ in bench.registered]
    files = [file for root in made for file in root.rglob("*") if file.is_file()]
    wanted = [file for file in files if manifest or file.name != "manifest.json"]
    with ThreadPoolExecutor(8) as pool:
        for future in [
            pool.submit(
                client.put_object,
                Bucket=raw["bucket"],
                Key=f"{raw['prefix']}{file.relative_to(made[0].parent).as_posix()}",
                Body=file.read_bytes(),
            )
            for file in wanted
        ]:
            future.result()
    return [root.name for root in made]


def _without_participants(bench: Bench) -> list[str]:
    names = in_bucket(bench)
    bench.run(["ingest-r2", *names], bench.new_home())
    return names


def _directories(bench: Bench) -> list[str]:
    return [str(bench.root / "nas" / name) for name in bench.registered]


def _new(bench: Bench) -> list[str]:
    return [str(bench.new_recording()) for _ in bench.registered]


def _backlog(bench: Bench) -> list[str]:
    shutil.rmtree(bench.root / "new")
    _new(bench)
    return [str(bench.root / "new")]


# The rebuilds first: what is in the bucket and in no row yet they wait for.
MANY = {
    "catalog rebuild --dry-run": Command(lambda _: ["catalog", "rebuild", "--dry-run"], Goal(10, 15)),
    "catalog rebuild": Command(lambda _: ["catalog", "rebuild", "--yes"], Goal(100, 110)),
    "participants backfill": Command(
        lambda bench: ["participants", "backfill", *_without_participants(bench), "--yes"], Goal(14, 20)
    ),
    "ingest-r2": Command(lambda bench: ["ingest-r2", *in_bucket(bench)], Goal(15, 25)),
    "ingest-r2 --dry-run": Command(lambda bench: ["ingest-r2", *in_bucket(bench), "--dry-run"], Goal(6, 15)),
    "download REC…": Command(
        lambda bench: ["download", *bench.registered, "--dest", tempfile.mkdtemp(dir=bench.root / "downloads")],
        Goal(8, 25),
    ),
    "verify REC… --level full": Command(lambda bench: ["verify", *bench.registered, "--level", "full"], Goal(8, 15)),
    "verify DIR…": Command(lambda bench: ["verify", *_directories(bench)], Goal(8, 15)),
    "verify --all": Command(lambda _: ["verify", "--all"], Goal(8, 15)),
    "ingest": Command(lambda bench: ["ingest", *_new(bench)], Goal(18, 35)),
    "ingest --existing skip, nothing new": Command(
        lambda bench: ["ingest", *_directories(bench), "--existing", "skip"], Goal(8, 15)
    ),
    "ingest --dry-run": Command(lambda bench: ["ingest", *_new(bench), "--dry-run"], Goal(6, 10)),
    "batch": Command(lambda bench: ["batch", *_backlog(bench)], Goal(18, 35)),
    "batch, nothing new": Command(lambda bench: ["batch", str(bench.root / "nas")], Goal(5, 8)),
    "doctor": Command(lambda bench: ["doctor", str(bench.root / "nas"), *_directories(bench)], Goal(25, 25)),
    "reconstruct": Command(lambda bench: ["reconstruct", *in_bucket(bench, manifest=False), "--yes"], Goal(16, 40)),
}
