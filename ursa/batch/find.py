"""Which recordings a batch is about: roots, globs of roots, and recording directories themselves."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ursa.errors import InvalidRecordingError
from ursa.manifest import check_rec_id, shown
from ursa.recording import os_error_in_words

PREFIX = "rec_"
_Key = tuple[str, str]
"""A recording's real parent and its name: two roots may lead to one; a recording that is a symlink keeps its own name."""


@dataclass(frozen=True, slots=True)
class Found:
    """``rec_dirs``: sorted by rec_id. ``roots``: as they were looked into. ``problems``: roots that are missing, empty or
    unreadable, in words: a failure, since an unmounted NAS looks just like that. ``remarks``: what is left aside.
    """

    rec_dirs: tuple[Path, ...]
    roots: tuple[Path, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def find_recordings(roots: Iterable[Path | str]) -> Found:
    """``rec_*`` directly below each root; a root that is called ``rec_*`` is a recording itself. Globs are expanded."""
    rec_dirs: dict[_Key, Path] = {}
    looked: list[Path] = []
    problems: list[str] = []
    remarks: list[str] = []
    for root in map(str, roots):
        if not root:
            problems.append("a root without a name (an unset variable?)")
            continue
        paths = _expanded(root)
        if not paths:
            problems.append(f"{shown(root)}: nothing matches (is the NAS mounted?)")
        for path in paths:
            looked.append(path)
            found, problem = _below(path, remarks)
            problems += [problem] if problem else []
            rec_dirs = found | rec_dirs
    ordered = sorted(rec_dirs, key=lambda entry: (entry[1], entry[0]))
    return Found(tuple(rec_dirs[key] for key in ordered), tuple(looked), tuple(problems), tuple(remarks))


def nothing_found(found: Found) -> InvalidRecordingError:
    """The error for a batch of nothing."""
    return InvalidRecordingError(
        f"nothing to ingest: {'; '.join(found.problems) or 'no root was given'}",
        hint="An empty or missing root is no success: check the path, and that the NAS or the drive is mounted.",
        path=str(found.roots[0]) if found.roots else None,
        problems=found.problems,
    )


def _expanded(root: str) -> list[Path]:
    # A directory whose name has brackets is itself, not a pattern.
    if os.path.lexists(root) or not glob.has_magic(root):
        return [_at_home(root)]
    # A symlink to nothing stays: what it is called may be a recording's name, which then is refused by name.
    matches = sorted(glob.glob(str(_at_home(root))))  # noqa: PTH207
    return [Path(name) for name in matches if os.path.isdir(name) or os.path.islink(name)]  # noqa: PTH112, PTH114


def _at_home(root: str) -> Path:
    """With the home directory for a ``~``, which cron and launchd don't expand."""
    try:
        return Path(root) if os.path.lexists(root) else Path(root).expanduser()
    except RuntimeError:  # ~ of nobody
        return Path(root)


def _below(root: Path, remarks: list[str]) -> tuple[dict[_Key, Path], str | None]:
    where, absolute = shown(str(root)), root.absolute()
    if absolute.name.startswith(PREFIX) and os.path.lexists(root) and not holds_recordings(root):
        return {(os.path.realpath(absolute.parent), absolute.name): root}, None
    found: dict[_Key, Path] = {}
    real = os.path.realpath(root)
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if not entry.name.startswith(PREFIX):
                    continue
                if _is_dir(entry):
                    found[real, entry.name] = root / entry.name
                else:
                    remarks.append(f"{where}/{shown(entry.name)} is no directory: left aside")
    except FileNotFoundError:
        return {}, f"{where}: there is no such directory (is the NAS mounted?)"
    except NotADirectoryError:
        return {}, f"{where}: not a directory"
    except OSError as error:
        return {}, f"{where}: {os_error_in_words(error)}"
    if not found:
        return {}, f"{where}: no recording (rec_*) below it (is the NAS mounted?)"
    return found, None


def holds_recordings(root: Path) -> bool:
    """Whether a directory is a root, with recordings in it, and none itself: ``recordings/``, also ``rec_backup/``."""
    try:
        check_rec_id(root.absolute().name)
    except InvalidRecordingError:
        with suppress(OSError), os.scandir(root) as entries:
            return any(entry.name.startswith(PREFIX) and _is_dir(entry) for entry in entries)
    return False


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        # A symlink to nothing, or one that loops, is looked at as a recording, and refused by name.
        return entry.is_dir() or entry.is_symlink()
    except OSError:
        return True
