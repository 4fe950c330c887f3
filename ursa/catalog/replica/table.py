"""The replica of one table: its log as the bucket has it up to a version, and the data files that were asked for.

What was read once never changes, so one LIST from the newest known commit on tells what is new. Checkpoints and data
files are placed before the commits that count on them, commits in ascending order: whoever opens the directory while
another process fills it sees a table that the bucket has had.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from ursa.beside import begin, each
from ursa.catalog.author import WRITER_ID, WRITER_KEY
from ursa.catalog.files import TableFiles
from ursa.catalog.foreign import foreign
from ursa.catalog.layout import DataFile
from ursa.catalog.replica.directory import TableDirectory, link, names_in, place_file
from ursa.catalog.replica.log import (
    HINT,
    LOG,
    PREVIOUS_KEY,
    Checkpoint,
    Commit,
    NotWholeError,
    checkpoints_in,
    commit_name,
    commits_in,
    known_from,
    local_name,
    parse_commit,
)
from ursa.catalog.replica.words import damaged, gone, offline_lacks
from ursa.errors import CatalogDamagedError, StorageError
from ursa.store import NotFoundError, ObjectInfo

_SKIPPED = 50
"""More new commits than these are taken from a checkpoint, where there is one."""
_LATELY_S = 30.0
_BASES = 2
_TOUCH_S = 3600.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a LIST of the log told. ``since``: the version that was known then, -1 where none was. ``read``: a table's id,
    and the version up to which processes of this machine had read it before the LIST was sent.
    """

    since: int
    objects: Mapping[str, ObjectInfo]
    read: tuple[str, int] | None = None

    @property
    def news(self) -> bool:
        """Whether there may be something that the replica has not."""
        return self.since < 0 or self.newest != self.since

    @property
    def newest(self) -> int:
        """The newest commit; -1 where there is none."""
        return max(commits_in(self.objects), default=-1)


class TableReplica:
    """Not thread-safe but for ``need``; other processes may use the same directory.

    ``version``: up to which the log is here, -1 before the first ``follow``; ``path``: the directory that deltalake opens.
    ``checkpoint``: the newest that was seen in the bucket. ``shaped``: the newest commit that changed the table's schema,
    properties or protocol, among those that came in this process.
    """

    def __init__(self, files: TableFiles, directory: TableDirectory, *, offline: bool = False) -> None:
        self.files = files
        self.directory = directory
        self.version = -1
        self.checkpoint = -1
        self.shaped = -1
        self._writers: dict[str, float] = {}
        self._path: Path | None = None
        self._head: tuple[int, str] | None = None
        self._offline = offline
        self._fetching = threading.Lock()  # what is asked for ahead, and then again, is fetched once
        self._open_known()

    @property
    def path(self) -> Path:
        """Raises ``StorageError`` where nothing was read yet."""
        if self._path is None:
            raise offline_lacks(self.files.uri)
        return self._path

    @property
    def log(self) -> Path:
        """The log's directory."""
        return self.path / LOG

    def _open_known(self) -> None:
        current = self.directory.current
        if current is None:
            return
        with contextlib.suppress(OSError):
            self.directory.hold(current)
            names = names_in(current / LOG)
            checkpoint, version = known_from(names)
            if any((current / LOG / name).stat().st_size == 0 for name in names):
                # A power cut, on a disk without hard links. deltalake would open it, with rows missing.
                self._path = current
                self.begin_anew()
            elif version >= 0:
                self._path, self.version = current, version
                self.checkpoint = checkpoint.version if checkpoint else -1

    def begin_anew(self) -> None:
        """Forget what is here, since it can't be opened: the next ``follow`` fetches it again."""
        if self._path is not None:
            with self.directory.scratch() as aside, contextlib.suppress(OSError):
                self._path.rename(aside / "damaged")
        self._path, self.version, self.checkpoint, self._head = None, -1, -1, None

    # --- what is new

    def look(self) -> Look:
        """Ask the bucket what is new: one LIST. Changes nothing. Raises ``StorageError``."""
        if self._offline:
            return Look(self.version, {commit_name(self.version): ObjectInfo("", 0, "")})
        if self.version < 0:
            return self._look_cold()
        return Look(self.version, _named(self.files.log(_before(self.version))))

    def _look_cold(self) -> Look:
        read = self._read_before()
        hint = begin(self._hint)
        page = self.files.log_page()
        found = _named(page.objects)
        if page.token is None:
            return Look(-1, found, read)
        version = hint.result()
        if version is not None:
            later = _named(self.files.log(_before(version)))
            if any(checkpoint.version >= version for checkpoint in checkpoints_in(later)):
                return Look(-1, later, read)
        return Look(-1, found | _named(self.files.log(token=page.token)), read)

    def _read_before(self) -> tuple[str, int] | None:
        current = self.directory.current
        return (current.name, known_from(names_in(current / LOG))[1]) if current else None

    def _hint(self) -> int | None:
        """The version of the checkpoint that ``_last_checkpoint`` names; None where it names none."""
        return hint_version(self.files)[0]

    def follow(self, look: Look) -> bool:
        """Fetch what a look found; returns whether the version is another one now.

        Raises:
            CatalogDamagedError: the bucket's log is not what was written, or has a gap. The replica stays as it was.
            StorageError: the server fails.
        """
        if self._offline:
            self.path  # noqa: B018  (raises where there is none)
            return False
        if look.since != self.version or look.since < 0:
            look = self._look_cold() if look.since >= 0 else look
            return self._follow_cold(look)
        if not self._continues(look):
            return self._follow_cold(self._look_cold())
        found = checkpoints_in(look.objects)
        self.checkpoint = max([self.checkpoint, *(item.version for item in found)])
        if look.newest == self.version:
            return False
        if any(item.version > self.version + _SKIPPED for item in found):
            return self._follow_cold(self._look_cold())
        versions = self._without_gap(look, self.version + 1)
        commits = self._commits(versions, self.commit_here(self.version), self.commit_here)
        self._place(self.path, (), commits)
        self._note_writers(commits)
        self.version = look.newest
        return True

    def advance(self, commit: Commit, etag: str | None = None) -> None:
        """Take over the commit after ``version``, which was put or read by this process. ``etag``: of the object."""
        self._place(self.path, (), [commit])
        self._note_writers([commit])
        self.version = commit.version
        self._head = None if etag is None else (commit.version, etag)

    def others_lately(self) -> int:
        """How many other processes have committed to this table in the last half minute, as far as this one has seen."""
        since = time.monotonic() - _LATELY_S
        return sum(at >= since for writer, at in self._writers.items() if writer != WRITER_ID)

    def _note_writers(self, commits: Iterable[Commit]) -> None:
        now = time.monotonic()
        self._writers |= {str(writer): now for it in commits if (writer := it.info.get(WRITER_KEY))}

    def read_commit(self, version: int) -> Commit:
        """A commit of the bucket. Raises ``NotFoundError``, ``CatalogDamagedError``, ``StorageError``."""
        name = LOG + commit_name(version)
        try:
            data, _ = self.files.read_checked(name)
            return parse_commit(version, data)
        except NotWholeError as error:
            raise damaged(self.files, str(error), name, version) from None

    def commit_here(self, version: int) -> Commit | None:
        """A commit that the replica has; None where it has it not, or not whole."""
        return None if self._path is None else _whole(self._path, version)

    def _continues(self, look: Look) -> bool:
        """Whether the bucket's commit at the known version is the one that was read."""
        info = look.objects.get(commit_name(self.version))
        if info is None:
            return False
        if self._head == (self.version, info.etag):
            return True
        here = self.commit_here(self.version)
        if here is None:
            return False
        measured = (hashlib.md5(here.data, usedforsecurity=False).hexdigest(), here.sha256)
        if info.size_bytes != len(here.data):
            return False
        if info.etag not in measured:
            # A server whose ETags are not of the bytes alone.
            there, _ = self.files.store.read(self.files.prefix + LOG + commit_name(self.version))
            if there != here.data:
                return False
        self._head = (self.version, info.etag)
        return True

    def _without_gap(self, look: Look, first: int) -> list[int]:
        there = set(commits_in(look.objects))
        versions = list(range(first, look.newest + 1))
        gap = next((version for version in versions if version not in there), None)
        if gap is not None:
            raise damaged(self.files, "it is not there, and later ones are", LOG + commit_name(gap), gap)
        return versions

    def _commits(
        self,
        versions: Sequence[int],
        before: Commit | None,
        at_hand: Callable[[int], Commit | None] = lambda _version: None,
    ) -> list[Commit]:
        """Fetch commits that follow each other, side by side, and compare each with the one before.

        ``at_hand`` gives those that need not be fetched: of a log that was seen to be the one that was read before.
        """
        commits = each(lambda version: at_hand(version) or self.read_commit(version), versions)
        for commit in commits:
            stated = commit.info.get(PREVIOUS_KEY)
            if before is not None and stated is not None and stated != before.sha256:
                why = "it is not the commit that the next one was written after"
                raise damaged(self.files, why, LOG + commit_name(before.version), before.version)
            before = commit
        return commits

    def _place(self, directory: Path, checkpoint: Iterable[tuple[str, bytes]], commits: Iterable[Commit]) -> None:
        """Put log files in place, in an order that shows a whole table at each moment."""
        for name, data in checkpoint:
            place_file(directory / LOG / name, data)
        for commit in commits:
            place_file(directory / LOG / commit_name(commit.version), commit.data)
            if any("metaData" in action or "protocol" in action for action in commit.actions):
                self.shaped = max(self.shaped, commit.version)

    # --- the first time, and where the log no longer begins where it was left

    def _follow_cold(self, look: Look) -> bool:
        bases: list[Checkpoint | None] = [*reversed(checkpoints_in(look.objects)[-_BASES:])]
        if commit_name(0) in look.objects or not bases:
            bases.append(None)
        problem: StorageError | None = None
        for base in bases:
            try:
                return self._from_base(look, base)
            except CatalogDamagedError as error:
                # An older checkpoint, or the commits from the first one on, may tell the same.
                problem = problem or error
        assert problem is not None
        raise problem

    def _from_base(self, look: Look, base: Checkpoint | None) -> bool:
        if look.newest < 0 and base is None:
            raise gone(self.files, self.version)
        first = base.version + 1 if base else 0
        newest = max(look.newest, first - 1)
        versions = self._without_gap(look, first)
        if base is not None and commit_name(base.version) in look.objects:
            # By this one the next look finds its place in the log.
            versions = [base.version, *versions]
        with self.directory.scratch() as made:
            parts = begin(lambda: self._checkpoint(base))
            commits = self._commits(versions, None)
            self._place(made, parts.result(), commits)
            table_id = self._table_id(made, newest, base)
            self._refuse_other_history(table_id, commits, newest, look.read)
            place = self.directory.make_current(made, table_id)
            if made.exists():
                self._merge(made, place)
        changed = (self._path, self.version) != (place, newest)
        self._path, self.version, self._head = place, newest, None
        self.checkpoint = max([base.version if base else -1, *(item.version for item in checkpoints_in(look.objects))])
        self.directory.hold(place)
        return changed

    def _checkpoint(self, base: Checkpoint | None) -> list[tuple[str, bytes]]:
        def part(name: str) -> tuple[str, bytes]:
            try:
                return name, self.files.read_checked(LOG + name)[0]
            except NotWholeError as error:
                raise damaged(self.files, str(error), LOG + name, base.version if base else None) from None

        return each(part, base.names if base else ())

    def _table_id(self, made: Path, version: int, base: Checkpoint | None) -> str:
        try:
            with foreign():
                table_id = str(DeltaTable(str(made), version=version).metadata().id)
        except (DeltaError, OSError, ValueError) as error:
            name = LOG + (base.names[0] if base else commit_name(0))
            raise damaged(self.files, f"the log can't be opened from it ({error!s:.200})", name, None) from None
        if not table_id.replace("-", "").isalnum() or not table_id.isascii():
            raise damaged(self.files, f"its table id is {table_id[:80]!r}", LOG + commit_name(0), 0)
        return table_id

    def _refuse_other_history(
        self, table_id: str, commits: Sequence[Commit], newest: int, read: tuple[str, int] | None
    ) -> None:
        """Raises ``CatalogDamagedError`` where the bucket has lost or replaced what this machine has read of this table."""
        current = self.directory.current
        if current is None or current.name != table_id:
            return
        if read is not None and read[0] == table_id and newest < (known := read[1]):
            why = f"the log ends at version {newest}, and this machine has read it up to {known}"
            raise damaged(self.files, why, LOG + commit_name(newest + 1), newest + 1)
        for commit in commits:
            here = _whole(current, commit.version)
            if here is not None and here.data != commit.data:
                why = "it is another one than this machine has read before"
                raise damaged(self.files, why, LOG + commit_name(commit.version), commit.version)

    def _merge(self, made: Path, place: Path) -> None:
        names = sorted(names_in(made / LOG), key=lambda name: (not name.endswith(".parquet"), name))
        for name in names:
            if name.endswith(".json") and _whole(place, _version_of(name)) is None:
                (place / LOG / name).unlink(missing_ok=True)  # damaged on this disk
            link(made / LOG / name, place / LOG / name)

    # --- files

    def need(self, files: Iterable[DataFile]) -> None:
        """See to it that these data files are here. Raises ``NotFoundError``, ``CatalogDamagedError``, ``StorageError``."""
        with self._fetching:
            each(self._fetch, [file for file in files if not self._has(file)], 16)

    def drop(self, files: Iterable[DataFile]) -> None:
        """Remove copies of data files, which may be damaged here."""
        for file in files:
            with contextlib.suppress(OSError, NotWholeError):
                (self.path / local_name(file.path)).unlink()

    def _has(self, file: DataFile) -> bool:
        path = self.path / self._local_name(file)
        try:
            found = path.stat()
            if time.time() - found.st_mtime > _TOUCH_S:
                os.utime(path)
        except OSError:
            return False
        return found.st_size == file.size_bytes

    def _local_name(self, file: DataFile) -> str:
        try:
            return local_name(file.path)
        except NotWholeError as error:
            raise damaged(self.files, str(error), "", self.version) from None

    def _fetch(self, file: DataFile) -> None:
        name = self._local_name(file)
        if self._offline:
            raise offline_lacks(self.files.uri)
        target = self.path / name
        with contextlib.suppress(FileNotFoundError):
            target.unlink()  # of another size: cut on this disk
        try:
            data, info = self.files.read_checked(name)
        except NotWholeError as error:
            raise damaged(self.files, str(error), name, None) from None
        if info.size_bytes != file.size_bytes or len(data) != file.size_bytes:
            why = f"it has {len(data):,} bytes, and the log says {file.size_bytes:,}"
            raise damaged(self.files, why, name, None)
        place_file(target, data)

    def log_to(self, version: int) -> list[str]:
        """The names of the log's files that a table at ``version`` is opened from, all of them here.

        Raises:
            StorageError: the log no longer reaches so far back.
        """
        names = self._names_to(names_in(self.log), version)
        if names is None:
            there = _named(self.files.log()) if not self._offline else {}
            names = self._names_to(there, version)
            if names is None:
                raise StorageError(
                    f"can't open version {version} of the catalog table {self.files.uri}: its log no longer reaches so"
                    " far back",
                    operation="read",
                )
            each(self._bring, names)
        return names

    @staticmethod
    def _names_to(names: Iterable[str], version: int) -> list[str] | None:
        upto = {name for name in names if _version_of(name) <= version}
        checkpoint, known = known_from(upto)
        # deltalake opens no version without its commit, though the checkpoint says it all.
        if known != version or commit_name(version) not in upto:
            return None
        first = 0
        if checkpoint is not None:
            first = checkpoint.version + (checkpoint.version < version)
        return [*(checkpoint.names if checkpoint else ()), *(commit_name(n) for n in range(first, version + 1))]

    def _bring(self, name: str) -> None:
        """Fetch a file of the log that lies below what is known."""
        if (self.log / name).exists():
            return
        try:
            data, _ = self.files.read_checked(LOG + name)
            if name.endswith(".json"):
                parse_commit(_version_of(name), data)
        except NotWholeError as error:
            raise damaged(self.files, str(error), LOG + name, _version_of(name)) from None
        place_file(self.log / name, data)

    def reads_back(self, version: int) -> bool:
        """Whether the bucket's checkpoint of this version opens, read anew. Raises ``StorageError``."""
        found = [item for item in checkpoints_in(_named(self.files.log())) if item.version == version]
        with self.directory.scratch() as made:
            for item in found:
                self._place(made, self._checkpoint(item), ())
            try:
                with foreign():
                    return bool(found) and DeltaTable(str(made), version=version).version() == version
            except (DeltaError, OSError):
                return False

    def commits(self, limit: int | None = None) -> list[Commit]:
        """The newest commits, newest first; None gives all that the log still has. Raises ``StorageError``."""
        low = 0 if limit is None else max(0, self.version + 1 - limit)
        if limit is None and not self._offline:
            low = min(commits_in(_named(self.files.log())), default=0)
        wanted = range(self.version, low - 1, -1)
        found = each(self._commit, wanted)
        return [commit for commit in found if commit is not None]

    def _commit(self, version: int) -> Commit | None:
        here = self.commit_here(version)
        if here is None and not self._offline:
            with contextlib.suppress(NotFoundError):  # past the retention
                self._bring(commit_name(version))
                here = self.commit_here(version)
        return here

    @contextlib.contextmanager
    def scratch(self, version: int, files: Iterable[DataFile] = ()) -> Iterator[Path]:
        """A private table at a version, of the same files under second names; removed afterwards."""
        with self.directory.scratch() as made:
            for name in self.log_to(version):
                link(self.log / name, made / LOG / name)
            for file in files:
                link(self.path / self._local_name(file), made / self._local_name(file))
            yield made


def hint_version(files: TableFiles) -> tuple[int | None, str]:
    """The version that ``_last_checkpoint`` names, and its ETag; None where it names none, and "" where it is not there."""
    try:
        data, info = files.store.read(files.prefix + LOG + HINT)
        version = orjson.loads(data)["version"]
    except NotFoundError:
        return None, ""
    except (ValueError, TypeError, KeyError):
        return None, info.etag
    return (version if type(version) is int and version >= 0 else None), info.etag


def _whole(directory: Path, version: int) -> Commit | None:
    """A commit in a directory; None where it is not there, or damaged on this disk."""
    try:
        return parse_commit(version, (directory / LOG / commit_name(version)).read_bytes())
    except (OSError, NotWholeError):
        return None


def _version_of(name: str) -> int:
    digits = name[:20]
    return int(digits) if digits.isdecimal() else 1 << 62


def _before(version: int) -> str:
    """The last name of the log that is left out of a listing from this version on."""
    return commit_name(version - 1) if version > 0 else ""


def _named(infos: Iterable[ObjectInfo]) -> dict[str, ObjectInfo]:
    return {info.key: info for info in infos}
