"""Which recordings a batch is about: roots, globs of roots, and recording directories themselves."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ursa.errors import InvalidRecordingError
from ursa.manifest import shown
from ursa.recording import os_error_in_words

PREFIX = "rec_"


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
    rec_dirs: dict[str, Path] = {}
    looked: list[Path] = []
    problems: list[str] = []
    remarks: list[str] = []
    for root in roots:
        paths = _expanded(str(root))
        if not paths:
            problems.append(f"{shown(str(root))}: nothing matches")
        for path in paths:
            looked.append(path)
            found, problem = _below(path, remarks)
            problems += [problem] if problem else []
            rec_dirs |= {os.path.abspath(item): item for item in found}  # noqa: PTH100 (a symlink keeps its name)
    ordered = sorted(rec_dirs.items(), key=lambda entry: (entry[1].name, entry[0]))
    return Found(tuple(path for _, path in ordered), tuple(looked), tuple(problems), tuple(remarks))


def nothing_found(found: Found) -> InvalidRecordingError:
    """The error for a batch of nothing."""
    return InvalidRecordingError(
        f"nothing to ingest: {'; '.join(found.problems) or 'no root was given'}",
        hint="An empty or missing root is no success: check the path, and that the NAS or the drive is mounted.",
        path=str(found.roots[0]) if found.roots else None,
    )


def _expanded(root: str) -> list[Path]:
    # A directory whose name has brackets is itself, not a pattern.
    if not glob.has_magic(root) or os.path.lexists(root):
        return [Path(root).expanduser()]
    return [Path(name) for name in sorted(glob.glob(root)) if os.path.isdir(name)]  # noqa: PTH112, PTH207


def _below(root: Path, remarks: list[str]) -> tuple[list[Path], str | None]:
    where = shown(str(root))
    if root.absolute().name.startswith(PREFIX):
        return [root], None
    found: list[Path] = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if not entry.name.startswith(PREFIX):
                    continue
                if _is_dir(entry):
                    found.append(root / entry.name)
                else:
                    remarks.append(f"{where}/{shown(entry.name)} is no directory: left aside")
    except FileNotFoundError:
        return [], f"{where}: there is no such directory (is the NAS mounted?)"
    except NotADirectoryError:
        return [], f"{where}: not a directory"
    except OSError as error:
        return [], f"{where}: {os_error_in_words(error)}"
    if not found:
        return [], f"{where}: no recording (rec_*) below it (is the NAS mounted?)"
    return found, None


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        # A symlink to nothing, or one that loops, is looked at as a recording, and refused by name.
        return entry.is_dir() or entry.is_symlink()
    except OSError:
        return True
