"""What an ingest would say to the recordings below a directory, from the disk alone: nothing is hashed or sent."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ursa.doctor.results import Finding, ok, warn
from ursa.errors import InvalidRecordingError, ManifestNotFoundError, UrsaError, named
from ursa.manifest.names import check_rec_id, is_unfinished, shown
from ursa.recording import MANIFEST_NAME, NODE_MANIFESTS_DIR
from ursa.register.local import read_local

MOST_RECORDINGS = 200
MOST_S = 20.0
_NAMED = 3


class _Tally:
    """Counts by what is wrong, each with the first few names."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.files: Counter[str] = Counter()
        self.example: UrsaError | None = None

    def add(self, what: str, name: str) -> None:
        self.names.setdefault(what, []).append(shown(name))

    def look(self, rec_dir: Path, key_prefix: str, rig_timezone: str | None) -> None:
        """Read one recording as an ingest would."""
        try:
            local = read_local(None, rec_dir, key_prefix=key_prefix, rig_timezone=rig_timezone)
        except ManifestNotFoundError:
            self.add("without a manifest", rec_dir.name)
        except UrsaError as error:
            self._refused(error, rec_dir.name)
        else:
            self.files["junk files (never uploaded)"] += len(local.scan.junk)
            self.files["files that no manifest lists (uploaded all the same)"] += len(local.unlisted)

    def _refused(self, error: UrsaError, name: str) -> None:
        paths: Sequence[str] = error.fields.get("paths", ())
        if isinstance(error, InvalidRecordingError) and paths and all(map(is_unfinished, paths)):
            self.add("with unfinished copies (*.part, *.tmp)", name)
            return
        self.example = self.example or error
        self.add("that an ingest would refuse", name)


def recordings(path: Path, key_prefix: str, rig_timezone: str | None) -> Finding:
    """Count the recordings below ``path`` (or take it for one), and look at the newest of them."""
    found, misnamed = _recordings_at(path)
    tally = _Tally()
    for name in misnamed:
        tally.add("whose name does not fit rec_<date>_<time>_<hex>", name)
    looked, until = 0, time.monotonic() + MOST_S
    for rec_dir in sorted(found, key=lambda item: item.name, reverse=True)[:MOST_RECORDINGS]:
        if time.monotonic() > until:
            break
        tally.look(rec_dir, key_prefix, rig_timezone)
        looked += 1
    return _judge(path, len(found), looked, tally)


def _judge(path: Path, count: int, looked: int, tally: _Tally) -> Finding:
    told = f"{count:,} recording{'' if count == 1 else 's'}"
    if looked < count:
        told += f" (looked into the newest {looked:,})"
    wrong = [f"{len(names):,} {what}: {named(names, _NAMED)}" for what, names in tally.names.items()]
    counted = [f"{number:,} {what}" for what, number in tally.files.items() if number]
    detail = "; ".join([told, *wrong, *counted])
    if tally.example:
        detail += f". First refusal: {tally.example.message}"
    if wrong:
        return warn(detail, _mend(path, tally))
    if not count:
        return warn(detail, "Point ursa at the directory that holds the rec_* directories. Is the right share mounted?")
    return ok(detail)


def _mend(path: Path, tally: _Tally) -> str:
    mends = {
        "without a manifest": f"`ursa reconstruct {shown(str(path), 400)}/REC_ID` makes a manifest",
        "with unfinished copies (*.part, *.tmp)": "let the copy end, or delete what a dead one left",
        "whose name does not fit rec_<date>_<time>_<hex>": "rename them back to what the rig called them",
        "that an ingest would refuse": (tally.example.hint if tally.example else None)
        or "`ursa ingest --dry-run` says why",
    }
    return "; ".join(mends[what].rstrip(".") for what in tally.names) + "."


def _recordings_at(path: Path) -> tuple[list[Path], list[str]]:
    """The recording directories at or below a path, and the names of directories that only look like one."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  (a symlink keeps its own name)
    if _fits(absolute.name):
        return [absolute], []
    found, misnamed = [], []
    with os.scandir(absolute) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if _fits(entry.name):
                found.append(Path(entry.path))
            elif entry.name.casefold().startswith("rec_") or _has_manifest(Path(entry.path)):
                misnamed.append(entry.name)
    return found, sorted(misnamed)


def _fits(name: str) -> bool:
    try:
        check_rec_id(name)
    except InvalidRecordingError:
        return False
    return True


def _has_manifest(directory: Path) -> bool:
    return (directory / MANIFEST_NAME).is_file() or (directory / NODE_MANIFESTS_DIR).is_dir()
