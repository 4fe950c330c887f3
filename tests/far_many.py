"""Commands that go over many recordings, and how many round trips each may take, whatever the number of recordings."""

from __future__ import annotations

from far import Bench, Command, Goal


def _directories(bench: Bench) -> list[str]:
    return [str(bench.root / "nas" / name) for name in bench.registered]


MANY = {
    "verify REC… --level full": Command(lambda bench: ["verify", *bench.registered, "--level", "full"], Goal(60, 60)),
    "verify DIR…": Command(lambda bench: ["verify", *_directories(bench)], Goal(20, 20)),
    "verify --all": Command(lambda _: ["verify", "--all"], Goal(15, 15)),
}
