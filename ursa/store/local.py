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
from ursa.policies import Evidence
from ursa.store.abandoned import remove_abandoned
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
    ignore,
)

_BLOCK_BYTES = 1 << 20
_PAGE = 1000
# What link(2) answers on file systems that have no hard links (exFAT, some SMB mounts).
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStore:
    """A ``Store`` in a directory. Single-object writes are atomic and on the disk when they return."""

    def __init__(self, root: Path, bucket: str) -> None:
        self._data = root / bucket
        self._own = root / ".ursa" / bucket
        self._swept = False

    @property
    def uri(self) -> str:
        return self._data.absolute().as_uri()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._listed(prefix, "")

    def list_page(self, prefix: str, *, start_after: str = "", token: str | None = None) -> Page:
        now = self._now()
        found = list(islice(self._listed(prefix, token or start_after), _PAGE + 1))
        # The last key of a page is the token of the next one.
        return Page(found[:_PAGE], token=found[_PAGE - 1].key if len(found) > _PAGE else None, now=now)

    def _listed(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        directory = prefix[: prefix.rfind("/") + 1]
        with _words(prefix, "list"):
            for key, stat in _walk(self._data, directory, prefix, after):
                yield ObjectInfo(key, stat.st_size, _etag(stat), _modified(stat))

    def _now(self) -> datetime | None:
        """The clock that this file system stamps its files with: its own, on a network."""
        if not self._data.is_dir():
            return None
        with contextlib.suppress(OSError), self._temporary() as (_path, file):
            return _modified(os.fstat(file.fileno()))
        return None

    def list_prefixes(self, prefix: str) -> Iterator[str]:
        try:
            with _words(prefix, "list"), os.scandir(self._data / prefix) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
        except NotFoundError:
            return
        yield from (f"{prefix}{name}/" for name in names)

    def head(self, key: str) -> ObjectInfo:
        with _words(key, "head"):
            stat = self._path(key).stat()
            if not S_ISREG(stat.st_mode):
                raise IsADirectoryError
            return self._info(key, stat)

    def read(self, key: str) -> tuple[bytes, ObjectInfo]:
        with _words(key, "read"), self._path(key).open("rb") as file:
            return file.read(), self._info(key, os.fstat(file.fileno()))

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[bytes]:
        with _words(key, "read"), self._path(key).open("rb") as file:
            stat = os.fstat(file.fileno())
            if if_match is not None and _etag(stat) != if_match:
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
            etag = self._publish(temporary, key, if_absent, if_match, metadata or {})
        return PutResult(etag, Evidence.SHA256)

    def delete(self, key: str) -> None:
        for path in (self._path(key), self._metadata_path(key)):
            with _words(key, "delete"):
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
                    yield OpenUpload(key, description.parent.name, _modified(description.stat()))

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
            with _still_open(key, upload_id):
                metadata = orjson.loads((directory / "upload.json").read_bytes())["metadata"]
                for part in parts:
                    with (directory / f"{part.number:05d}-{part.etag}").open("rb") as source:
                        shutil.copyfileobj(source, file, _BLOCK_BYTES)
            _sync(file)
            etag = self._publish(temporary, key, if_absent, if_match, metadata)
            shutil.rmtree(directory, ignore_errors=True)
        return etag

    def abort_upload(self, key: str, upload_id: str) -> None:  # noqa: ARG002  (the protocol names the key)
        shutil.rmtree(self._own / "uploads" / upload_id, ignore_errors=True)

    def _path(self, key: str) -> Path:
        if not key or key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")):
            raise StorageError(f"{key!r} is not a key that a directory can hold", key=key)
        return self._data / key

    def _metadata_path(self, key: str) -> Path:
        return self._own / "metadata" / key

    def _upload(self, key: str, upload_id: str) -> Path:
        directory = self._own / "uploads" / upload_id
        if not (directory / "upload.json").exists():
            raise _gone(key, upload_id)
        return directory

    def _info(self, key: str, stat: os.stat_result) -> ObjectInfo:
        metadata: dict[str, str] = {}
        with contextlib.suppress(OSError, orjson.JSONDecodeError):
            stored = orjson.loads(self._metadata_path(key).read_bytes())
            # Written after the object: one that names another ETag belongs to an object that is no more.
            if stored["etag"] == _etag(stat):
                metadata = stored["metadata"]
        return ObjectInfo(key, stat.st_size, _etag(stat), _modified(stat), metadata)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[Path, IO[bytes]]]:
        directory = self._own / "tmp"
        directory.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            remove_abandoned(directory)
        path = directory / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with path.open("xb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def _publish(
        self, temporary: Path, key: str, if_absent: bool, if_match: str | None, metadata: Mapping[str, str]
    ) -> str:
        target = self._path(key)
        etag = _etag(temporary.stat())
        target.parent.mkdir(parents=True, exist_ok=True)
        if if_absent:
            self._link(temporary, target, key)
        else:
            with self._lock():
                if if_match is not None and _etag_or_none(target) != if_match:
                    raise PreconditionFailedError(f"{key} was changed by somebody else", key=key, operation="write")
                temporary.replace(target)
        sync_directory(target.parent)
        if metadata:
            path = self._metadata_path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._temporary() as (side, file):
                file.write(orjson.dumps({"etag": etag, "metadata": dict(metadata)}))
                file.flush()
                side.replace(path)
        return etag

    def _link(self, temporary: Path, target: Path, key: str) -> None:
        there = PreconditionFailedError(f"{key} is there already", key=key, operation="write")
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise there from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with self._lock():
                if target.exists():
                    raise there from None
                temporary.rename(target)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self._own.mkdir(parents=True, exist_ok=True)
        with (self._own / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _walk(root: Path, directory: str, prefix: str, after: str) -> Iterator[tuple[str, os.stat_result]]:
    """Keys below ``directory`` ("" or with a trailing '/') that start with ``prefix`` and come after ``after``, in the
    order of their bytes. Directories that hold none of them are not opened.
    """
    try:
        with os.scandir(root / directory) as entries:
            # A directory sorts as its keys do, with the '/': after `a.txt`, before `a0`.
            found = sorted(((f"{directory}{entry.name}", entry, _is_directory(entry)) for entry in entries), key=_order)
    except (FileNotFoundError, NotADirectoryError):
        return
    for key, entry, below in found:
        if below:
            path = f"{key}/"
            if (path.startswith(prefix) or prefix.startswith(path)) and (path > after or after.startswith(path)):
                yield from _walk(root, path, prefix, after)
        elif key.startswith(prefix) and key > after:
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat()
                if S_ISREG(stat.st_mode):
                    yield key, stat


def _is_directory(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _order(found: tuple[str, os.DirEntry[str], bool]) -> str:
    # UTF-8 sorts as the characters' numbers do.
    return f"{found[0]}/" if found[2] else found[0]


def _gone(key: str, upload_id: str) -> NoSuchUploadError:
    return NoSuchUploadError(f"{key}: the multipart upload {upload_id} is gone", key=key)


@contextlib.contextmanager
def _still_open(key: str, upload_id: str) -> Iterator[None]:
    """What another process completes or aborts meanwhile is gone piece by piece: to a caller, it is gone."""
    try:
        yield
    except FileNotFoundError:
        raise _gone(key, upload_id) from None


def _etag(stat: os.stat_result) -> str:
    return f"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"


def _etag_or_none(path: Path) -> str | None:
    try:
        return _etag(path.stat())
    except FileNotFoundError:
        return None


def _modified(stat: os.stat_result) -> datetime:
    return datetime.fromtimestamp(stat.st_mtime, UTC)


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
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFoundError(f"there is no object {key}", key=key, operation=operation) from None
    except OSError as error:
        hint = (
            "Free some space and run the same command again." if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        )
        raise StorageError(
            f"can't {operation} {key}: {error.strerror or error}", hint=hint, key=key, operation=operation
        ) from error
