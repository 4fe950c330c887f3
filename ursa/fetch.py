"""Downloads of query results: ``dest/<rec_id>/<path>``, with the six phases that callers follow."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from ursa.catalog.query import QueryResult
from ursa.catalog.rows import FileRow, ModalityRow
from ursa.errors import ConflictError, InvalidRecordingError, StorageError, UsageError
from ursa.events import DownloadCallback, DownloadPhase, DownloadProgress, Speed
from ursa.manifest import normalize_path, shown
from ursa.names import disk_name, on_disk
from ursa.store import Store
from ursa.transfer.download import DownloadItem, Fetched, download
from ursa.transfer.engine import Engine, Stop

logger = logging.getLogger("ursa.download")


@dataclass(frozen=True, slots=True)
class Measured:
    """What reading an object showed that its row did not prove: the bytes under ``key``, while it had this ``etag``,
    have this ``sha256``. ``recording_hash``, ``modality`` and ``worker_id`` name the row, ``path`` the file in it.
    """

    recording_hash: str
    rec_id: str
    modality: str
    worker_id: str
    path: str
    key: str
    size_bytes: int
    etag: str
    sha256: str


@dataclass(frozen=True, slots=True)
class NotAsStated:
    """A file that was delivered as it is in the bucket, though its manifest states another sha256: that was never proven.

    ``path`` is relative to the recording; ``sha256`` was measured, ``stated`` was not.
    """

    rec_id: str
    path: str
    sha256: str
    stated: str


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """What a download did.

    ``paths``: every file of the result, whether it was fetched or there already. ``measured``: what its reading proves and
    the rows do not. ``not_as_stated``: files that are not what their manifest states. ``files_not_compared``: those of
    which no sha256 is stated, delivered by their length alone.
    """

    dest: Path
    paths: tuple[Path, ...]
    files_downloaded: int
    files_skipped: int
    bytes_downloaded: int
    bytes_skipped: int
    seconds: float
    measured: tuple[Measured, ...] = ()
    not_as_stated: tuple[NotAsStated, ...] = ()
    files_not_compared: int = 0


@dataclass(frozen=True, slots=True)
class _Group:
    """A modality of a recording, and the files that it asks for."""

    rec_id: str
    modality: str
    items: tuple[DownloadItem, ...]


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where an item comes from in the catalog."""

    rec_id: str
    row: ModalityRow
    file: FileRow


def fetch(
    engine: Engine,
    store: Store,
    results: QueryResult,
    dest: Path,
    *,
    stop: Stop,
    callback: DownloadCallback | None = None,
    on_measured: Callable[[Measured], object] = lambda _measured: None,
) -> DownloadResult:
    """Download every file of a query's result and verify it against the catalog.

    Only a row whose sha256 was measured refuses other bytes. Files of the others are delivered as they are, and the result
    says which are not as stated. ``on_measured`` is told at once, in the calling thread, what the result lists at the end.

    Raises:
        InvalidRecordingError: the catalog has a rec_id or a path that would leave ``dest``.
        ConflictError: a file is there with other content, or two names fall together on this disk.
        ChecksumMismatchError, MissingFilesError, StorageError
    """
    started = time.monotonic()
    origins: dict[DownloadItem, _Origin] = {}
    groups = list(_groups(results, dest, origins))
    items = [item for group in groups for item in group.items]
    _refuse_collisions(items, dest)
    teller = _Teller(groups, callback, started)
    teller.tell("start")
    teller.tell("plan_done")

    def finished(result: Fetched) -> None:
        if measured := _measured(result, origins[result.item]):
            on_measured(measured)
        teller.done(result)

    done = download(engine, store, items, stop=stop, on_done=finished, on_bytes=teller.count)
    teller.finish()
    pairs = [(fetched, origins[fetched.item]) for fetched in done]
    return DownloadResult(
        dest=dest,
        paths=tuple(item.target for item in items),
        files_downloaded=sum(item.sent for item in done),
        files_skipped=sum(not item.sent for item in done),
        bytes_downloaded=sum(item.item.size_bytes for item in done if item.sent),
        bytes_skipped=sum(item.item.size_bytes for item in done if not item.sent),
        seconds=time.monotonic() - started,
        measured=tuple(filter(None, (_measured(*pair) for pair in pairs))),
        not_as_stated=tuple(filter(None, (_not_as_stated(*pair) for pair in pairs))),
        files_not_compared=sum(item.sha256 is None for item in items),
    )


def _measured(fetched: Fetched, origin: _Origin) -> Measured | None:
    """What the row does not prove of the object that was read: its sha256, or that this is its ETag now."""
    info, row, file = fetched.info, origin.row, origin.file
    if info is None or fetched.sha256 is None or (file.proven and file.etag == info.etag):
        return None
    return Measured(
        recording_hash=row.recording_hash,
        rec_id=origin.rec_id,
        modality=row.modality,
        worker_id=row.worker_id,
        path=file.path,
        key=file.key,
        size_bytes=info.size_bytes,
        etag=info.etag,
        sha256=fetched.sha256,
    )


def _not_as_stated(fetched: Fetched, origin: _Origin) -> NotAsStated | None:
    stated = origin.file.sha256
    if fetched.sha256 is None or stated is None or stated == fetched.sha256:
        return None
    return NotAsStated(origin.rec_id, origin.file.path, fetched.sha256, stated)


def _groups(results: QueryResult, dest: Path, origins: dict[DownloadItem, _Origin]) -> Iterator[_Group]:
    if not isinstance(results, QueryResult):
        raise UsageError(
            f"download takes the result of query, not {type(results).__name__}",
            hint='Call for instance data.download(data.query(recording_hash="…"), dest).',
        )
    rec_ids = results.rec_ids
    keyed = [(rec_ids[row.recording_hash], key, row) for key, rows in results.modalities.items() for row in rows]
    for rec_id, key, row in sorted(keyed, key=lambda entry: entry[:2]):
        asked = list(_items(rec_id, row, dest))
        origins.update((item, _Origin(rec_id, row, file)) for item, file in asked)
        yield _Group(rec_id, key, tuple(item for item, _ in asked))


def _items(rec_id: str, row: ModalityRow, dest: Path) -> Iterator[tuple[DownloadItem, FileRow]]:
    if not rec_id or rec_id in (".", "..") or "/" in rec_id or "\\" in rec_id or not rec_id.isprintable():
        raise InvalidRecordingError(
            f"the catalog has a rec_id that would leave {dest}: {shown(rec_id)}",
            hint="Nothing was downloaded. `ursa catalog history` says who registered it.",
            path=rec_id,
        )
    for file in row.files:
        try:
            path = PurePosixPath(rec_id) / on_disk(normalize_path(file.path))
        except ValueError as error:
            raise InvalidRecordingError(
                f"the catalog has a path that would leave {dest}: {shown(file.path)} ({error})", path=file.path
            ) from None
        yield DownloadItem(file.key, dest / path, file.size_bytes, file.sha256, file.etag, file.proven), file


def _refuse_collisions(items: Sequence[DownloadItem], dest: Path) -> None:
    """Two keys that are one name on a case-insensitive disk: refuse both, before anything is written."""
    folded: dict[str, list[str]] = {}
    for item in items:
        folded.setdefault(disk_name(str(item.target)).casefold(), []).append(str(item.target))
    clashes = sorted(name for names in folded.values() if len(set(names)) > 1 for name in set(names))
    try:
        dest.mkdir(parents=True, exist_ok=True)
        insensitive = bool(clashes) and _is_case_insensitive(dest)
    except OSError as error:
        raise StorageError(
            f"can't write to {dest}: {error.strerror or error}", hint="Choose another --dest.", operation="write"
        ) from None
    if insensitive:
        raise ConflictError(
            f"{dest} does not tell upper from lower case, so these would overwrite each other: {', '.join(clashes[:20])}",
            hint="Nothing was written. Download to a case-sensitive disk.",
            paths=tuple(clashes),
        )


def _is_case_insensitive(directory: Path) -> bool:
    probe = directory / f".ursa-case-{secrets.token_hex(4)}"
    probe.touch()
    try:
        return os.path.lexists(probe.with_name(probe.name.upper()))
    finally:
        probe.unlink()


class _Teller:
    """Events in the order of the plan, whatever finishes first: a modality's files are told once it has started."""

    def __init__(self, groups: Sequence[_Group], callback: DownloadCallback | None, started: float) -> None:
        self._groups = groups
        self._callback = callback
        self._started = started
        self._bytes_total = sum(item.size_bytes for group in groups for item in group.items)
        self._files_total = sum(len(group.items) for group in groups)
        self._bytes = 0
        self._files = 0
        self._lock = threading.Lock()
        self._speed = Speed()
        self._ready: set[Path] = set()
        self._current = 0
        self._begun = False

    def count(self, size_bytes: int) -> None:
        """Bytes that arrived (called from the pool)."""
        with self._lock:
            self._bytes += size_bytes

    def done(self, result: Fetched) -> None:
        """A file is whole."""
        if not result.sent:
            self.count(result.item.size_bytes)
        self._ready.add(result.item.target)
        while self._current < len(self._groups) and self._advance():
            pass

    def finish(self) -> None:
        """Everything is there."""
        while self._current < len(self._groups) and self._advance():
            pass
        self.tell("finish")

    def _advance(self) -> bool:
        """Tell what can be told of the current modality; True when it is done."""
        group = self._groups[self._current]
        if not self._begun:
            self._begun = True
            self.tell("modality_start", group)
        left = []
        for item in group.items:
            if item.target in self._ready:
                self._ready.discard(item.target)
                self._files += 1
                self.tell("file_done", group, item)
            else:
                left.append(item)
        if left:
            self._groups = [*self._groups]
            self._groups[self._current] = _Group(group.rec_id, group.modality, tuple(left))
            return False
        self.tell("modality_done", group)
        self._current += 1
        self._begun = False
        return True

    def tell(self, phase: DownloadPhase, group: _Group | None = None, item: DownloadItem | None = None) -> None:
        """One event, to the logger and to the callback."""
        with self._lock:
            count = self._bytes
            self._speed.update(time.monotonic(), count)
        event = DownloadProgress(
            phase=phase,
            rec_id=group.rec_id if group else "",
            modality=group.modality if group else "",
            current_file=disk_name(item.target.name) if item else "",
            bytes_downloaded=count,
            bytes_total=self._bytes_total,
            files_done=self._files,
            files_total=self._files_total,
            elapsed_s=time.monotonic() - self._started,
            bytes_per_s=self._speed.bytes_per_s,
            eta_s=self._speed.eta_s(self._bytes_total - count),
        )
        logger.log(
            logging.DEBUG if phase == "file_done" else logging.INFO,
            "%s %s %s",
            phase,
            event.rec_id,
            event.modality,
            extra=asdict(event),
        )
        if self._callback is not None:
            self._callback(event)
