"""A directory as an object store: the same keys as in the buckets, as plain files.

Objects lie at ``<root>/<bucket>/<key>``; what S3 keeps out of sight (metadata, open multipart uploads, temporary
files) lies under ``<root>/.ursa/<bucket>/``, on the same file system, so that link(2) and rename(2) are atomic.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import IO

import orjson

from ursa.errors import StorageError
from ursa.names import disk_name, on_disk
from ursa.policies import Evidence
from ursa.store.abandoned import remove_abandoned
from ursa.store.local_records import Record, Records, open_object
from ursa.store.local_walk import walk
from ursa.store.protocol import (
    Body,
    NoSuchUploadError,
    NotFoundError,
    ObjectInfo,
    OpenUpload,
    Page,
    Part,
    PreconditionFailedError,
    PutResult,
    TransientError,
    ignore,
)

_BLOCK_BYTES = 1 << 20
_PAGE = 1000
_READS = 5
# What link(2) answers on file systems that have no hard links (exFAT, some SMB mounts).
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStore:
    """A ``Store`` in a directory. Single-object writes are atomic and on the disk when they return."""

    def __init__(self, root: Path, bucket: str) -> None:
        self._data = root / bucket
        self._own = root / ".ursa" / bucket
        self._records = Records(self._own / "metadata", self._data, self._temporary, self._lock)
        self._swept = False

    @property
    def uri(self) -> str:
        return self._data.absolute().as_uri()

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        return self._listed(prefix, start_after)

    def list_page(self, prefix: str, *, start_after: str = "", token: str | None = None) -> Page:
        now = self._now()
        found = list(islice(self._listed(prefix, token or start_after), _PAGE + 1))
        # The last key of a page is the token of the next one.
        return Page(found[:_PAGE], token=found[_PAGE - 1].key if len(found) > _PAGE else None, now=now)

    def _listed(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        directory = prefix[: prefix.rfind("/") + 1]
        with _words(prefix, "list"):
            for key, stat in walk(self._data, directory, prefix, after):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    record = self._records.told(key, stat)
                    yield ObjectInfo(key, record.size, record.sha256, _time(record.mtime_ns))

    def _now(self) -> datetime | None:
        """The clock that this file system stamps its files with: its own, on a network."""
        if not self._data.is_dir():
            return None
        with contextlib.suppress(OSError), self._temporary() as (_path, file):
            return _time(os.fstat(file.fileno()).st_mtime_ns)
        return None

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        try:
            with _words(prefix, "list"), os.scandir(self._data / on_disk(prefix)) as entries:
                names = sorted(disk_name(entry.name) for entry in entries if entry.is_dir())
        except NotFoundError:
            return
        yield from (f"{prefix}{name}/" for name in names)

    def head(self, key: str) -> ObjectInfo:
        with _words(key, "head"):
            stat = self._path(key).lstat()
            if not S_ISREG(stat.st_mode):
                raise IsADirectoryError
            return _info(key, self._records.told(key, stat))

    def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        with _words(key, "read"), open_object(self._path(key)) as file:
            for _ in range(_READS):
                before = os.fstat(file.fileno())
                file.seek(0)
                data = file.read()
                record = self._records.told(key, os.fstat(file.fileno()), file)
                if record.describes(before):
                    return data, _info(key, record)
        raise TransientError(f"{key} is being written by another program", key=key, operation="read")

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        with _words(key, "read"), open_object(self._path(key)) as file:
            stat = os.fstat(file.fileno())
            if if_match is not None and self._records.told(key, stat, file).sha256 != if_match:
                raise PreconditionFailedError(f"{key} was replaced while it was read", key=key, operation="read")
            left = (stat.st_size if end is None else min(end, stat.st_size)) - start
            file.seek(start)
            while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
                left -= len(block)
                yield block

    def put(
        self,
        key: str,
        body: Body,
        *,
        sha256: str,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> PutResult:
        with _words(key, "write"), self._temporary() as (temporary, file):
            file.write(body)
            _sync(file)
            if _read_back_sha256(temporary) != sha256:
                raise StorageError(
                    f"{key}: the disk gave back other bytes than were written", key=key, operation="write"
                )
            self._publish(temporary, file, sha256, key, if_absent, if_match, metadata or {})
        return PutResult(sha256, Evidence.SHA256)

    def delete(self, key: str) -> None:
        paths = (self._path(key), self._records.path(key))
        if not any(path.exists() for path in paths):
            return
        # Under the lock: between the two, the record would be that of an object which was put meanwhile.
        with _words(key, "delete"), self._lock():
            for path in paths:
                path.unlink(missing_ok=True)

    def create_upload(self, key: str, *, metadata: Mapping[str, str] | None = None) -> str:
        upload_id = secrets.token_hex(12)
        with _words(key, "start a multipart upload"), self._temporary() as (temporary, file):
            file.write(orjson.dumps({"key": key, "metadata": dict(metadata or {})}))
            _sync(file)
            directory = self._own / "uploads" / upload_id
            directory.mkdir(parents=True)
            # The upload exists from this rename on: whoever dies before it leaves an empty directory, nothing half written.
            temporary.rename(directory / "upload.json")
        return upload_id

    def upload_part(
        self, key: str, upload_id: str, number: int, body: Body, *, md5: str, sent: Callable[[int], object] = ignore
    ) -> Part:
        directory = self._upload(key, upload_id)
        with _words(key, "write a part of"), self._temporary() as (temporary, file):
            file.write(body)
            _sync(file)
            with _still_open(key, upload_id):
                for old in directory.glob(f"{number:05d}-*"):
                    old.unlink(missing_ok=True)
                temporary.rename(directory / f"{number:05d}-{md5}")
        sent(len(body))
        return Part(number, len(body), md5)

    def list_parts(self, key: str, upload_id: str) -> Sequence[Part]:
        directory = self._upload(key, upload_id)
        with _words(key, "list the parts of"), _still_open(key, upload_id):
            return [
                Part(int(path.name[:5]), path.stat().st_size, path.name[6:])
                for path in sorted(directory.glob("?????-*"))
            ]

    def list_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        for description in sorted((self._own / "uploads").glob("*/upload.json")):
            with contextlib.suppress(FileNotFoundError):
                key = orjson.loads(description.read_bytes())["key"]
                if key.startswith(prefix):
                    yield OpenUpload(key, description.parent.name, _time(description.stat().st_mtime_ns))

    def complete_upload(
        self,
        key: str,
        upload_id: str,
        parts: Sequence[Part],
        *,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> str:
        directory = self._upload(key, upload_id)
        with _words(key, "complete a multipart upload"), self._temporary() as (temporary, file):
            hasher = hashlib.sha256()
            with _still_open(key, upload_id):
                metadata = orjson.loads((directory / "upload.json").read_bytes())["metadata"]
                for part in parts:
                    with (directory / f"{part.number:05d}-{part.etag}").open("rb") as source:
                        while block := source.read(_BLOCK_BYTES):
                            hasher.update(block)
                            file.write(block)
            _sync(file)
            etag = hasher.hexdigest()
            self._publish(temporary, file, etag, key, if_absent, if_match, metadata)
            shutil.rmtree(directory, ignore_errors=True)
        return etag

    def abort_upload(self, key: str, upload_id: str) -> None:  # noqa: ARG002  (the protocol names the key)
        shutil.rmtree(self._own / "uploads" / upload_id, ignore_errors=True)

    def _path(self, key: str) -> Path:
        if not key or key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
            raise StorageError(f"{key!r} is not a key that a directory can hold", key=key)
        return self._data / on_disk(key)

    def _upload(self, key: str, upload_id: str) -> Path:
        directory = self._own / "uploads" / upload_id
        if not (directory / "upload.json").exists():
            raise _gone(key, upload_id)
        return directory

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, IO[bytes]]]:
        directory = self._own / "tmp"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with path.open("xb") as file:
                if not self._swept:
                    self._swept = True
                    remove_abandoned(directory, os.fstat(file.fileno()).st_mtime)
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def _publish(
        self,
        temporary: Path,
        file: IO[bytes],
        sha256: str,
        key: str,
        if_absent: bool,
        if_match: str | None,
        metadata: Mapping[str, str],
    ) -> None:
        target = self._path(key)
        written = os.fstat(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        if if_absent:
            self._link(temporary, target, key)
        with self._lock():
            if not if_absent:
                self._check(target, key, if_match)
                temporary.replace(target)
            sync_directory(target.parent)
            self._keep(file, written, sha256, key, metadata)

    def _check(self, target: Path, key: str, if_match: str | None) -> None:
        if if_match is None:
            return
        try:
            # This holds the lock: what is measured is not kept.
            etag = self._records.told(key, target.lstat(), keep=False).sha256
        except FileNotFoundError:
            etag = None
        if etag != if_match:
            raise PreconditionFailedError(f"{key} was changed by another writer", key=key, operation="write")

    def _keep(
        self, file: IO[bytes], written: os.stat_result, sha256: str, key: str, metadata: Mapping[str, str]
    ) -> None:
        """Write the record of an object that has its final name: the link, and the end of its temporary name, have
        changed its ctime. Whoever dies before it leaves an object that is hashed before an ETag is told.
        """
        stat = os.fstat(file.fileno())
        if (stat.st_size, stat.st_mtime_ns) != (written.st_size, written.st_mtime_ns):
            return
        try:
            self._records.keep_new(key, file, self._records.of(sha256, stat, metadata))
        except OSError:
            # Without metadata it costs a reading, and the object is there.
            if metadata:
                raise

    def _link(self, temporary: Path, target: Path, key: str) -> None:
        there = PreconditionFailedError(f"{key} is there already", key=key, operation="write")
        try:
            os.link(temporary, target)
        except FileExistsError:
            with self._lock():
                if not target.is_symlink():
                    raise there from None
                temporary.replace(target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with self._lock():
                if target.exists():
                    raise there from None
                temporary.rename(target)
        temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self._own.mkdir(parents=True, exist_ok=True)
        with (self._own / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _gone(key: str, upload_id: str) -> NoSuchUploadError:
    return NoSuchUploadError(f"{key}: the multipart upload {upload_id} is gone", key=key)


@contextlib.contextmanager
def _still_open(key: str, upload_id: str) -> Iterator[None]:
    """What another process completes or aborts meanwhile is gone piece by piece: to a caller, it is gone."""
    try:
        yield
    except FileNotFoundError:
        raise _gone(key, upload_id) from None


def _info(key: str, record: Record) -> ObjectInfo:
    """``checked_sha256``: it was measured while the file had these times, as a server's checksum is."""
    return ObjectInfo(key, record.size, record.sha256, _time(record.mtime_ns), record.metadata, record.sha256)


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Put a directory's names on the disk, where its file system can: after a rename or a link into it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        # Some network file systems refuse fsync on a directory; the file itself is synced already.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_back_sha256(path: Path) -> str:
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            # The pages are clean after fsync: drop them, so that the disk itself answers.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _words(key: str, operation: str) -> Iterator[None]:
    """Turn what the operating system says into a ``StorageError`` with words."""
    try:
        yield
    except OSError as error:
        # That a directory can't be made, in a write, is no word about the object.
        if operation != "write" and isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            raise NotFoundError(f"there is no object {key}", key=key, operation=operation) from None
        hint = (
            "Free some space and run the same command again." if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        )
        raise StorageError(
            f"can't {operation} {key}: {error.strerror or error}", hint=hint, key=key, operation=operation
        ) from error
