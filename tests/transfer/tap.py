"""What the transfer tests share: a store with hooks, files, and the stores themselves."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets
from ursa.bucket.proof import NoProofs, holds
from ursa.credentials import Credentials
from ursa.policies import Evidence
from ursa.store import ObjectInfo, OpenUpload, Store
from ursa.store.counting import RequestCounter
from ursa.store.s3 import S3Location, S3Store
from ursa.transfer.digest import Digest, SourceFile
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.items import Compare, Finished, Uploaded, UploadEvent, UploadItem
from ursa.transfer.parts import SINGLE_PUT_BYTES, part_bytes
from ursa.transfer.upload import upload

MIB = 1 << 20
MOST = SINGLE_PUT_BYTES
PART = part_bytes(MOST + 1)
TAIL = 1000
BIG = random.Random(1).randbytes(4 * PART + TAIL)  # five parts, more than goes in one request
Hook = Callable[..., object]


class Tap:
    """A store that notes every call, and calls a hook before (``before``) or after (``after``) the method of that name.

    A hook gets the method's arguments; what it raises the caller gets.
    """

    def __init__(
        self, inner: Store, *, before: dict[str, Hook] | None = None, after: dict[str, Hook] | None = None
    ) -> None:
        self.inner = inner
        self.before = before or {}
        self.after = after or {}
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not callable(method):
            return method

        def call(*args: Any, **options: Any) -> Any:
            self.calls.append((name, args, options))
            self.before.get(name, _nothing)(*args, **options)
            result = method(*args, **options)
            self.after.get(name, _nothing)(*args, **options)
            return result

        return call

    def names(self) -> list[str]:
        """The methods that were called, in order."""
        return [name for name, _, _ in self.calls]

    def part_numbers(self) -> list[int]:
        """The parts that were sent."""
        return sorted(args[2] for name, args, _ in self.calls if name == "upload_part")

    def part_bytes(self) -> int:
        """How many bytes of parts were sent."""
        return sum(len(args[3]) for name, args, _ in self.calls if name == "upload_part")


def _nothing(*_args: object, **_options: object) -> None:
    return None


def s3_store(buckets: Buckets) -> S3Store:
    """The raw bucket."""
    server = buckets.server
    secret = Credentials(server.access_key, server.secret_key)
    return S3Store(
        S3Location(server.endpoint_url, buckets.raw, "us-east-1", "raw_rw"), lambda _again: secret, RequestCounter()
    )


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes of which no two stretches are equal, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def make_file(path: Path, data: bytes) -> SourceFile:
    """Write a file; its description as the scan would give it."""
    path.write_bytes(data)
    return describe(path)


def describe(path: Path) -> SourceFile:
    """A file as it is now."""
    stat = path.stat()
    return SourceFile(path.name, path, stat.st_size, stat.st_mtime_ns)


def item(file: SourceFile, key: str = "", **options: Any) -> UploadItem:
    """``file`` under ``key``, its own name by default."""
    return UploadItem(file, key or file.path, **options)


def open_uploads(store: Store) -> dict[str, list[OpenUpload]]:
    """As the planner finds them: by key."""
    found: dict[str, list[OpenUpload]] = {}
    for one in store.list_uploads(""):
        found.setdefault(one.key, []).append(one)
    return found


def comparing(store: Store) -> Compare:
    """As an ingest judges what is under a key already."""

    def compare(info: ObjectInfo, local: Digest) -> tuple[str, Evidence] | None:
        proof = holds(store, info, local, NoProofs())
        return (proof.info.etag, proof.evidence) if proof else None

    return compare


def send(
    store: Store,
    items: Sequence[UploadItem],
    *,
    events: list[UploadEvent] | None = None,
    on_event: Callable[[UploadEvent], object] | None = None,
    stop: Stop | None = None,
    transfers: int = 4,
) -> list[Uploaded]:
    """Upload with an engine of its own, taking over what is there."""
    noted = [] if events is None else events
    with Engine(transfers=transfers) as engine:
        return upload(
            engine,
            store,
            items,
            stop=stop or Stop(),
            open_uploads=open_uploads(store),
            compare=comparing(store),
            on_event=on_event or noted.append,
        )


def told(events: Sequence[UploadEvent]) -> dict[str, int]:
    """Bytes by key, as the events tell them."""
    sums: dict[str, int] = {}
    for event in events:
        owner = event.result.item if isinstance(event, Finished) else event.item
        sums[owner.key] = sums.get(owner.key, 0) + event.bytes_done
    return sums


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def touch_later(path: Path) -> None:
    """Move the modification time, whatever the clock's grain."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def cut(data: bytes, size: int) -> Iterator[bytes]:
    """The pieces of ``data``, ``size`` bytes each."""
    return (data[start : start + size] for start in range(0, len(data), size))


class AbandonedError(Exception):
    """Ends a run as a power cut would, for the store."""


def abandon_after(store: Store, file: SourceFile, parts: int) -> None:
    """Leave an upload of ``file`` of which ``parts`` parts have arrived, in order."""
    arrived: list[int] = []

    def stop_in_time(_key: str, _upload_id: str, number: int, *_args: object, **_options: object) -> None:
        if len(arrived) == parts:
            raise AbandonedError
        arrived.append(number)

    with pytest.raises(AbandonedError):
        send(Tap(store, before={"upload_part": stop_in_time}), [item(file)], transfers=1)


def assert_whole(store: Store, key: str, data: bytes) -> None:
    """The object is this and nothing else."""
    assert sha256(b"".join(store.stream(key))) == sha256(data)
