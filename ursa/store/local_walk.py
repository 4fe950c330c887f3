"""The files of a directory store in the order of a listing: that of their keys' bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

from ursa.names import disk_name, on_disk


def walk(root: Path, directory: str, prefix: str, after: str) -> Iterator[tuple[str, os.stat_result]]:
    """Keys below ``directory`` ("" or with a trailing '/') that start with ``prefix`` and come after ``after``, in the
    order of their bytes. Directories that hold none of them are not opened. A symbolic link is no object: its bytes are
    elsewhere.
    """
    try:
        with os.scandir(root / on_disk(directory)) as entries:
            # A directory sorts as its keys do, with the '/': after `a.txt`, before `a0`.
            found = sorted(
                ((f"{directory}{disk_name(entry.name)}", entry, _is_directory(entry)) for entry in entries), key=_order
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for key, entry, below in found:
        if below:
            path = f"{key}/"
            if (path.startswith(prefix) or prefix.startswith(path)) and (path > after or after.startswith(path)):
                yield from walk(root, path, prefix, after)
        elif key.startswith(prefix) and key > after:
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat(follow_symlinks=False)
                if S_ISREG(stat.st_mode):
                    yield key, stat


def _is_directory(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _order(found: tuple[str, os.DirEntry[str], bool]) -> str:
    # UTF-8 sorts as the characters' numbers do.
    return f"{found[0]}/" if found[2] else found[0]
