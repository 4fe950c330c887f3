"""What is past the retention, by the server's clock: files that only versions of more than 90 days ago need.

This machine's clock decides nothing, nor do timestamps inside commits: ages are a listing's LastModified against the
Date that came with it. deltalake's own vacuum and log clean-up go by the local clock, and are never called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from ursa.catalog._pointer import is_catalog_prefix
from ursa.errors import StorageError
from ursa.store import ObjectInfo, Store

if TYPE_CHECKING:
    from ursa.catalog.files import TableFiles
    from ursa.catalog.tables import CatalogTable

RETENTION_DAYS = 90
"""How far back `undo` and `history` reach."""
RETENTION = timedelta(days=RETENTION_DAYS)
SETTLED = timedelta(days=1)
"""What is younger may belong to a run that is alive."""
MAX_SKEW = timedelta(minutes=15)
"""S3 and R2 refuse requests whose signature is further off; a machine whose clock is has no say in what is old."""
_TOPIC = "clean-up refused"
_KEPT_CHECKPOINTS = 2
_SIDE_BY_SIDE = 16
_COMMIT = re.compile(r"_delta_log/(\d{20})\.json")
_CHECKPOINT = re.compile(r"_delta_log/(\d{20})\.checkpoint(\.[^/]+)?\.(parquet|json)")
_DATA = re.compile(r"(?![_.])[^/]+\.parquet")

Clock = Callable[[], datetime]
"""This machine's time, UTC: only compared with the server's."""


def local_time() -> datetime:
    """The system's clock."""
    return datetime.now(UTC)


class CleanUpRefusedError(Exception):
    """Nothing may be deleted by age; the message says why. ``at``: the server's time then, None where it tells none."""

    def __init__(self, why: str, at: datetime | None = None) -> None:
        super().__init__(why)
        self.at = at


class Notes(Protocol):
    """What this machine notes about something (``ursa.disk.cache.FilesCache``)."""

    def note(self, topic: str, about: str) -> Mapping[str, Any] | None:
        """What was noted; None where nothing was."""

    def put_note(self, topic: str, about: str, value: Mapping[str, Any] | None) -> None:
        """Note something; None takes it away."""


def note_clean_up(notes: Notes, store: str, refused: CleanUpRefusedError | None) -> None:
    """Note since when clean-up has been refused, or that it is not; ``store``: endpoint and bucket, or the directory."""
    before = refused_since(notes, store)
    if refused is None:
        if before:
            notes.put_note(_TOPIC, store, None)
        return
    since = before[0] if before else refused.at or local_time()
    notes.put_note(_TOPIC, store, {"since": since.isoformat(timespec="seconds"), "why": str(refused)})


def refused_since(notes: Notes, store: str) -> tuple[datetime, str] | None:
    """Since when, by the server's clock, clean-up has been refused, and why; None where it is not."""
    noted = notes.note(_TOPIC, store) or {}
    since, why = noted.get("since"), noted.get("why")
    if not isinstance(since, str) or not isinstance(why, str):
        return None
    try:
        return datetime.fromisoformat(since), why
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Expired:
    """Names below a table's prefix that may be deleted: data files, and files of the log in an order that leaves no gap."""

    data: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """A table's objects by their names below its prefix; ``now``: the server's clock when the listing began."""

    objects: Mapping[str, ObjectInfo]
    now: datetime

    def older(self, name: str, age: timedelta) -> bool:
        """Whether it was last written more than ``age`` ago; no where the server does not tell."""
        at = self.objects[name].modified_at
        return at is not None and self.now - at > age

    @cached_property
    def commits(self) -> Mapping[int, str]:
        """Version → name, in order."""
        return self._numbered(_COMMIT)

    @cached_property
    def checkpoints(self) -> Mapping[int, Sequence[str]]:
        """Version → names (one that was written in parts has several), in order."""
        found: dict[int, list[str]] = {}
        for name in sorted(self.objects):
            if match := _CHECKPOINT.fullmatch(name):
                found.setdefault(int(match[1]), []).append(name)
        return found

    def _numbered(self, pattern: re.Pattern[str]) -> Mapping[int, str]:
        matches = (pattern.fullmatch(name) for name in sorted(self.objects))
        return {int(match[1]): match[0] for match in matches if match}

    def newest_settled(self, age: timedelta) -> int | None:
        """The newest version whose commit was written more than ``age`` ago."""
        return max((version for version, name in self.commits.items() if self.older(name, age)), default=None)


def list_table(store: Store, prefix: str, clock: Clock = local_time, below: str = "") -> Listed:
    """List what is below a table's prefix, which ends with '/'; ``below``: only there.

    Raises:
        CleanUpRefusedError: the server tells no time, or this machine's is another one.
        StorageError: it fails.
    """
    objects: dict[str, ObjectInfo] = {}
    moments: list[datetime] = []
    token: str | None = None
    while True:
        page = store.list_page(prefix + below, token=token)
        if page.now is None:
            raise CleanUpRefusedError(f"{store.uri} does not tell its time, and nothing is deleted by another clock")
        _compare(clock() - page.now, page.now)
        moments.append(page.now)
        objects |= {info.key.removeprefix(prefix): info for info in page.objects}
        token = page.token
        if token is None:
            return Listed(objects, min(moments))


def server_now(store: Store, prefix: str, clock: Clock = local_time) -> datetime:
    """The server's clock, by which what is old is told. Raises as ``list_table``."""
    now = store.list_page(prefix).now
    if now is None:
        raise CleanUpRefusedError(f"{store.uri} does not tell its time, and nothing is deleted by another clock")
    _compare(clock() - now, now)
    return now


def _compare(ahead: timedelta, at: datetime) -> None:
    if abs(ahead) > MAX_SKEW:
        way = "ahead of" if ahead > timedelta() else "behind"
        raise CleanUpRefusedError(
            f"this machine's clock is {duration(abs(ahead.total_seconds()))} {way} the server's", at
        )


def duration(seconds: float) -> str:
    """In the largest unit that it has two of: ``20 minutes``, ``1,826 days``."""
    for unit, size in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def clean_up(table: CatalogTable[Any], files: TableFiles, clock: Clock = local_time, *, dry_run: bool = False) -> int:
    """Delete what is past the retention; returns how many data files. Killed in between, the rest goes the next time.

    Raises:
        CleanUpRefusedError: nothing may be deleted by age.
        StorageError: the server fails.
    """
    try:
        gone = _expired(table, files, clock)
    except CleanUpRefusedError as refused:
        files.clean_up(refused)
        raise
    files.clean_up(None)
    if not dry_run:
        files.delete(gone.data)
        for start in range(0, len(gone.log), _SIDE_BY_SIDE):
            files.delete(gone.log[start : start + _SIDE_BY_SIDE])
    return len(gone.data)


def _expired(table: CatalogTable[Any], files: TableFiles, clock: Clock) -> _Expired:
    _refuse_other_prefix(files.prefix)
    # Before the listing: a file that leaves the table between the two is still among these.
    table.refresh()
    live = {name for file in table.files() for name in (file.path, unquote(file.path))}
    found = list_table(files.store, files.prefix, clock)
    return _Expired(_data(files, found, live, table.version), _log(table, found))


def _refuse_other_prefix(table_prefix: str) -> None:
    """Raises ``CleanUpRefusedError`` where a table is not that of a ``catalog/v<digits>``: a pointer is not believed."""
    parts = table_prefix.rstrip("/").split("/")
    if not is_catalog_prefix("/".join(parts[-3:-1])):
        raise CleanUpRefusedError(f"{table_prefix} is not below a prefix catalog/v<digits>")


def _data(files: TableFiles, listed: Listed, live: Collection[str], version: int) -> tuple[str, ...]:
    old = {name for name in listed.objects if _DATA.fullmatch(name) and listed.older(name, RETENTION)} - set(live)
    if not old:
        return ()
    return tuple(sorted(old - _named_lately(files, listed, version)))


def _named_lately(files: TableFiles, listed: Listed, version: int) -> set[str]:
    """Data files that a commit of the last 90 days adds or removes: a version within the retention may need them."""
    lately = [number for number, name in listed.commits.items() if not listed.older(name, RETENTION)]
    newest = max(listed.commits, default=-1)
    first = min(lately, default=newest + 1)
    since = [number for number in listed.commits if number >= first]
    # What the log no longer tells, or does not tell yet, might name any file.
    if newest < version or len(since) != newest + 1 - first or (first > 0 and first - 1 not in listed.commits):
        raise CleanUpRefusedError(f"the log of {files.prefix} has a gap within the last {RETENTION_DAYS} days")
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        texts = pool.map(lambda number: files.read(listed.commits[number]), since)
        return {name for text in texts for name in _names(files.prefix, text)}


def _names(prefix: str, commit: bytes) -> Iterable[str]:
    try:
        actions = [json.loads(line) for line in commit.splitlines() if line.strip()]
        paths = [action[kind]["path"] for action in actions for kind in ("add", "remove") if kind in action]
        if not actions:
            raise ValueError("it is empty")
        return [name for path in paths for name in (path, unquote(path))]
    except (ValueError, KeyError, TypeError) as error:
        raise CleanUpRefusedError(f"a commit of {prefix} can't be read: {error}") from None


def _log(table: CatalogTable[Any], listed: Listed) -> tuple[str, ...]:
    """Commits and checkpoints that are old and below a checkpoint that is old and opens. ``_last_checkpoint`` stays."""
    checkpoints = listed.checkpoints
    proven = _proven(table, listed)
    if proven is None:
        return ()
    # Should the newest one be damaged, the other serves: it needs the commits that come after it.
    floor = min(proven, *sorted(checkpoints)[-_KEPT_CHECKPOINTS:])
    commits = [name for number, name in listed.commits.items() if number < floor]
    parts = [name for number, names in checkpoints.items() if number < floor for name in names]
    return tuple(name for name in (*commits, *parts) if listed.older(name, RETENTION))


def _proven(table: CatalogTable[Any], listed: Listed) -> int | None:
    """The newest old checkpoint below which something is old as well, where there are others to spare and it opens."""
    old = [n for n, names in listed.checkpoints.items() if all(listed.older(name, RETENTION) for name in names)]
    newest = max(old, default=0)
    if len(listed.checkpoints) < _KEPT_CHECKPOINTS or not any(number < newest for number in listed.commits):
        return None
    try:
        return newest if table.replica.reads_back(newest) else None
    except StorageError:
        return None
