"""What the tests of the freeze and the flip share: doing something in the middle of a rebuild, and looking afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from grown import Lab, content, name

from helpers import make_recording
from ursa import HashProgress
from ursa.rebuild.flip import tables as tables_of


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def frozen(here: Lab) -> list[str | None]:
    """What the live catalog's tables are frozen for."""
    with here.open() as data:
        return [table.frozen for table in tables_of(data._catalog)]


def at(phase: str, action: Callable[[], object], *, nth: int = 1) -> Callable[[HashProgress], None]:
    """Progress that does something once, at the nth event of a phase."""
    seen = {"count": 0}

    def follow(event: HashProgress) -> None:
        if event.phase == phase:
            seen["count"] += 1
            if seen["count"] == nth:
                action()

    return follow


def plain(here: Lab, *numbers: int) -> None:
    """Recordings that are ingested from the NAS."""
    for number in numbers:
        here.ingest(make_recording(here.nas, name(number), content(number)), "Aria Lin")
