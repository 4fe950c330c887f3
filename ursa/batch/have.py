"""Is all that a disk has of a recording registered, and in the bucket now? Without reading a file and without a request.

"Yes" is only said where this machine has read every file, as it is now, and each is registered, with evidence, and listed;
and where every manifest and participant.txt is a version that a run has dealt with. Anything else, the least doubt
included, is looked into by an ingest, which compares.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ursa.batch.listed import object_digest, sidecar_digest
from ursa.batch.survey import Surveyed, file_digest
from ursa.bucket.listing import files_of
from ursa.catalog.metadata import Sidecar, covers, sidecars
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.manifest import is_junk

# A time so far ahead of ours is a wrong clock, and no sign that a file is being written now.
_AHEAD_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """``have``: with what the line adds. ``reread``: all of it would be so, but for files that are to be read again."""

    have: bool = False
    told: str = ""
    reread: bool = False


def judge(
    look: Surveyed, row: RecordingRow, modalities: Sequence[ModalityRow], listed: frozenset[bytes] | None
) -> Verdict:
    """What may be said of a recording without reading it. ``listed``: digests of its objects; None: nothing is known."""
    if look.known is None or listed is None or look.unknown or not look.raw:
        return Verdict()
    rows = files_of(row, [item for item in modalities if covers(row, item)])
    good = {
        file_digest(file.path, file.size_bytes, file.sha256)
        for file in rows
        if file.proven and file.sha256 and file.etag and object_digest(file.key, file.size_bytes, file.etag) in listed
    }
    settled = sidecars(row)
    beside = all(sha256 in {version.sha256 for version in settled.get(path, ())} for path, sha256 in look.sidecars)
    # An ingest would miss them in the bucket, whether this disk has them or not.
    beside = beside and all(_is_listed(path, versions, listed) for path, versions in settled.items())
    if not beside or not look.known <= good:
        return Verdict()
    if look.moved.files:
        # What is not in the bucket as it was is told at once, not when its turn has come.
        return Verdict(reread=len(good) == len(rows))
    told = f" (read {look.read_at:%Y-%m-%d}; this disk keeps no change time)" if look.read_at else ""
    here, total = len(look.known), len(rows)
    if here < total:
        if len(good) < total or any(is_junk(file.path) for file in rows):
            # What is not on this disk is not listed as it was, or is called like junk and was not looked at.
            return Verdict()
        told += f"; {here} of {total} files on this disk"
    return Verdict(True, told)


def _is_listed(path: str, versions: Sequence[Sidecar], listed: frozenset[bytes]) -> bool:
    """Whether a manifest or participant.txt is in the bucket as one of its versions; as any, where no ETag was kept."""
    etags = {version.etag for version in versions if version.etag} or {""}
    return any(sidecar_digest(path, etag) in listed for etag in etags)


def changed_within(rec_dir: str, seconds: float) -> bool:
    """Whether a file or directory below was touched so recently; what can't be looked at is judged by the ingest."""
    now = time.time()
    since, until = now - seconds, now + max(seconds, _AHEAD_S)
    todo = [rec_dir]
    while todo:
        try:
            below = todo.pop()
            if since < os.stat(below).st_mtime < until:  # noqa: PTH116
                return True
            with os.scandir(below) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif since < entry.stat(follow_symlinks=False).st_mtime < until:
                        return True
        except OSError:
            continue
    return False
