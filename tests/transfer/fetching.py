"""What the download tests share: objects as the catalog describes them, downloads, and what they leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tap import MIB, Tap, noise, sha256

from ursa.errors import StorageError
from ursa.store import Store
from ursa.transfer.download import DownloadItem, Fetched, download
from ursa.transfer.engine import Engine, Stop

RANGE = 16 * MIB
BIG = noise(2 * RANGE + 1000, seed=2)  # three ranges


def wanted(store: Store, dest: Path, key: str, data: bytes, *, etag: bool = True, known: bool = True) -> DownloadItem:
    """Put an object and describe it as the catalog would; ``known``: its sha256 was measured, else none is stated."""
    written = store.put(key, data, sha256=sha256(data))
    return DownloadItem(
        key, dest / key, len(data), sha256(data) if known else None, written.etag if etag else None, proven=known
    )


def fetch(
    store: Store,
    items: Sequence[DownloadItem],
    *,
    stop: Stop | None = None,
    on_done: Callable[[Fetched], object] = lambda _fetched: None,
    on_bytes: Callable[[int], object] = lambda _count: None,
) -> list[Fetched]:
    """Download with an engine of its own."""
    with Engine(transfers=4) as engine:
        return download(engine, store, items, stop=stop or Stop(), on_done=on_done, on_bytes=on_bytes)


def files_below(directory: Path) -> list[str]:
    """All files, hidden ones too."""
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def streamed(tap: Tap) -> list[tuple[int, int]]:
    """The ranges that were asked for."""
    return sorted((options["start"], options["end"]) for name, _, options in tap.calls if name == "stream")


def failing_at(store: Store, start: int) -> Tap:
    """A store in which the range that begins at ``start`` fails, once the ranges before it are on the disk."""

    def fail(_key: str, **options: int) -> None:
        if options["start"] == start:
            raise StorageError("the line went dead", key="k")

    return Tap(store, before={"stream": fail})
