"""Several recordings, one after the other or a few at once; one failure never stops the rest."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ursa.errors import InvalidRecordingError, RecordingExistsError, StorageError, UrsaError
from ursa.manifest import shown
from ursa.policies import Existing
from ursa.recording import os_error_in_words
from ursa.register.results import IngestPlan, IngestResult

Status = Literal["ok", "have", "skip", "fail"]

# What no reading fails with.
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recording: ``ok`` with a result, ``have`` or ``fail`` with the error that says why, ``skip``
    with a ``reason`` in words (a batch leaves it for another time). A dry run has a ``plan`` in place of a result.

    ``rec_dir`` is None where it was not ingested from a directory. ``reached`` is False of a ``skip`` that says nothing
    of the recording: the run was stopped before it was done with it. ``told``: what a HAVE line adds.
    """

    rec_dir: Path | None
    rec_id: str
    status: Status
    result: IngestResult | None = None
    error: UrsaError | None = None
    reason: str = ""
    plan: IngestPlan | None = None
    reached: bool = True
    told: str = ""


def registered(rec_dir: Path, rec_id: str, error: RecordingExistsError, existing: Existing) -> Outcome:
    """Of a recording whose files are all registered, by the policy: what a manifest that waits says is on this disk only."""
    if existing is not Existing.SKIP:
        return Outcome(rec_dir, rec_id, "fail", error=error)
    if error.waiting:
        return Outcome(rec_dir, rec_id, "skip", reason=f"registered, but {_waits(error.waiting)}")
    return Outcome(rec_dir, rec_id, "have", error=error, told=error.told)


def _waits(manifests: Sequence[str]) -> str:
    are, have = ("is", "lists") if len(manifests) == 1 else ("are", "list")
    names = ", ".join(map(shown, manifests))
    return (
        f"{names} {are} on this disk only: {have} files of a node whose half has not come, and goes up with that half"
    )


def os_error_of(error: OSError, rec_dir: Path | None) -> UrsaError:
    """What the system refused, as an error of the recording where it is of a file in it, or of a reading that names none;
    else of that file, which is this machine's: the cache's, say. ``rec_dir``: None where no recording was read.
    """
    named = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None
    if rec_dir is not None and (_is_in(named, rec_dir) if named else error.errno not in _OF_WRITING):
        return InvalidRecordingError(f"{shown(str(rec_dir), 400)}: {os_error_in_words(error)}", path=str(rec_dir))
    words = shown(error.strerror or type(error).__name__)
    return StorageError(
        f"{shown(named, 400)}: {words}" if named else f"this machine can't write: {words}",
        hint="Nothing is wrong with the recording. Make room, or give access, there, and run the same command again; `ursa"
        " cache path` tells where this machine keeps its copies of the catalog.",
    )


def _is_in(named: str, directory: Path) -> bool:
    """By its name, or by where links lead."""
    ways = (os.path.abspath, os.path.realpath)
    return any(Path(way(named)).is_relative_to(way(directory)) for way in ways)
