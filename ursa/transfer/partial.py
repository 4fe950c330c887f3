"""Files that are being fetched: beside their target, under names of their own, claimed by one process each.

``.ursa-<name>-<content>-<id>.part`` holds the bytes, its journal ``.ursa-<name>-<content>-<id>.done`` the ranges that are
on the disk, each with the sha256 of its bytes. The random id is what makes the two belong together.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ursa.store.local import sync_directory
from ursa.transfer.parts import MIB, part_count

RANGE_BYTES: Final = 16 * MIB
"""What one request fetches, and what one line of a journal is about."""

_BLOCK_BYTES: Final = MIB
_MARK: Final = re.compile(rb"([0-9]{1,9}) ([0-9a-f]{64})")
_MISMATCH: Final = ".ursa-mismatch"


class Partial:
    """A file that is being fetched and that no other download has: its lock is held until ``close``.

    ``resumable``: it has a journal. Every method may raise ``OSError``.
    """

    def __init__(self, path: Path, file: int, journal: int | None) -> None:
        self.path = path
        self._file = file
        self._journal = journal
        self._lock = threading.Lock()

    @property
    def resumable(self) -> bool:
        """Whether what is in it will serve the next run."""
        return self._journal is not None

    def marks(self) -> Mapping[int, str]:
        """The ranges that the journal names, and the sha256 of each. A line that is damaged names none."""
        if self._journal is None:
            return {}
        lines = os.pread(self._journal, os.fstat(self._journal).st_size, 0).split(b"\n")
        found = filter(None, map(_MARK.fullmatch, lines))
        return {int(mark[1]): mark[2].decode() for mark in found}

    def mark(self, index: int, sha256: str) -> None:
        """Put a range's data on the disk, and only then say so in the journal."""
        journal = self._journal
        if journal is None:
            return
        _sync_data(self._file)
        # On a line of its own: the last one may have been cut off by a kill.
        line = b"\n%d %s\n" % (index, sha256.encode())
        with self._lock:
            _write_all(lambda rest, _at: os.write(journal, rest), line, 0)

    def write(self, data: bytes, position: int) -> None:
        """Write all of ``data``, in as many steps as the disk takes; what it does not take is its error."""
        _write_all(lambda rest, at: os.pwrite(self._file, rest, at), data, position)

    def resize(self, size_bytes: int) -> None:
        """Give the file its length; what was never written reads as zeros."""
        os.ftruncate(self._file, size_bytes)

    def restart(self) -> None:
        """Forget all that is in it, the journal first."""
        if self._journal is not None:
            os.ftruncate(self._journal, 0)
        os.ftruncate(self._file, 0)

    def sync(self) -> None:
        """Put the file on the disk."""
        os.fsync(self._file)

    def sha256(self, check: Callable[[], object], start: int = 0, end: int | None = None) -> str:
        """The sha256 of what is in the file from ``start`` to ``end``; what ``check`` raises ends the reading."""
        hasher = hashlib.sha256()
        position, end = start, os.fstat(self._file).st_size if end is None else end
        while position < end and (block := os.pread(self._file, min(_BLOCK_BYTES, end - position), position)):
            check()
            hasher.update(block)
            position += len(block)
        return hasher.hexdigest()

    def rename(self, target: Path) -> None:
        """Give the file its name, never another's place. Raises ``FileExistsError``."""
        try:
            os.link(self.path, target)
        except FileExistsError:
            raise
        except OSError:
            # No hard links here (exFAT, SMB): the check and the rename are two steps.
            if os.path.lexists(target):
                raise FileExistsError(str(target)) from None
            self.path.rename(target)
        else:
            self.path.unlink()
        self._journal_path.unlink(missing_ok=True)
        sync_directory(target.parent)

    def keep(self, target: Path) -> Path:
        """Keep the file beside ``target``, as what was fetched and is not it: ``NAME.ursa-mismatch``, ``-2``, …

        Where one of these has the same bytes already, that is the one: a nightly run must not fill the disk.
        """
        number = 1
        while True:
            name = _shortened(target, _MISMATCH if number == 1 else f"{_MISMATCH}-{number}")
            try:
                self.rename(name)
            except FileExistsError:
                if self._same(name):
                    self.remove()
                    return name
                number += 1
            else:
                return name

    def remove(self) -> None:
        """Remove the file and its journal."""
        self.path.unlink(missing_ok=True)
        self._journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it: another download may claim what is left."""
        if self._journal is not None:
            os.close(self._journal)
        os.close(self._file)

    def _same(self, other: Path) -> bool:
        size = os.fstat(self._file).st_size
        if not is_file(other) or other.stat().st_size != size:
            return False
        return file_sha256(other) == self.sha256(lambda: None)

    @property
    def _journal_path(self) -> Path:
        return self.path.with_suffix(".done")


class Leftovers:
    """What earlier downloads left in the directories of a new one; each is listed once, however many files go there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listed: dict[Path, list[Path]] = {}

    def of(self, target: Path) -> list[Path]:
        """The partials and journals of files of this name."""
        directory = target.parent
        with self._lock:
            if directory not in self._listed:
                self._listed[directory] = list(directory.glob(".ursa-*"))
            found = self._listed[directory]
        return [path for path in found if path.name.startswith(_stem(target)) and path.suffix in (".part", ".done")]


def claim(leftovers: Leftovers, target: Path, size_bytes: int, sha256: str | None) -> Partial:
    """A partial for ``target`` that is this download's alone: one that a killed run left, else a new one.

    Only a file of several ranges whose ``sha256`` was measured is taken up again: of other bytes nothing would tell which
    belong together. What nobody can take up any more is removed; what another process holds is left alone.
    """
    stem = f"{_stem(target)}{(sha256 or 'unproven')[:12]}-"
    resumable = sha256 is not None and part_count(size_bytes, RANGE_BYTES) > 1
    taken: Partial | None = None
    found = leftovers.of(target)
    for path in sorted(found, key=_journal_size, reverse=True):
        if path.suffix != ".part" or (file := _locked(path)) is None:
            continue
        usable = resumable and taken is None and path.name.startswith(stem)
        partial = Partial(path, file, _opened(path.with_suffix(".done")) if usable else None)
        if partial.resumable:
            taken = partial
        else:
            partial.remove()
            partial.close()
    for path in found:
        # A partial is made before its journal and goes before it.
        if path.suffix == ".done" and not os.path.lexists(path.with_suffix(".part")):
            path.unlink(missing_ok=True)
    return taken or _new(target.parent, stem, resumable)


def is_file(path: Path) -> bool:
    """Whether a path is a regular file itself, no link to one."""
    return path.is_file() and not path.is_symlink()


def file_sha256(path: Path) -> str:
    """The sha256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_directory(path: Path) -> None:
    """Make a directory and those above it, each on the disk."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def _stem(target: Path) -> str:
    # Short, since names may have 255 bytes.
    return f".ursa-{hashlib.sha256(_encoded(target.name)).hexdigest()[:12]}-"


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _shortened(target: Path, suffix: str) -> Path:
    """``target`` with ``suffix``, of whose own name as much is left as the file system takes."""
    name = target.name
    while len(_encoded(name + suffix)) > os.pathconf(target.parent, "PC_NAME_MAX"):
        name = name[:-1]
    return target.with_name(name + suffix)


def _new(directory: Path, stem: str, resumable: bool) -> Partial:
    while True:
        path = directory / f"{stem}{secrets.token_hex(6)}.part"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(OSError):
                # Where the file system has no locks nobody else can lock it either, and it is left alone.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            journal = _opened(path.with_suffix(".done"), os.O_CREAT | os.O_EXCL) if resumable else None
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        partial = Partial(path, file, journal)
        # Another download may have taken it for a leftover before it was locked.
        if path.exists():
            return partial
        partial.remove()
        partial.close()


def _locked(path: Path) -> int | None:
    """The open file, locked; None where another process has it, or where it is gone or can't be locked."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():  # not renamed by its owner just before it let go
            return file
    except OSError:
        pass
    os.close(file)
    return None


def _opened(journal: Path, create: int = 0) -> int | None:
    try:
        return os.open(journal, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | create, 0o666)
    except OSError:
        if create:
            raise
        return None


def _journal_size(path: Path) -> int:
    try:
        return path.with_suffix(".done").stat().st_size
    except OSError:
        return 0


def _write_all(write: Callable[[memoryview, int], int], data: bytes, position: int) -> None:
    rest = memoryview(data)
    while rest:
        written = write(rest, position)
        if written <= 0:
            raise OSError(errno.EIO, "the disk takes no more bytes and says no error")
        rest, position = rest[written:], position + written


def _sync_data(file: int) -> None:
    if sys.platform == "darwin":
        os.fsync(file)
    else:
        os.fdatasync(file)
