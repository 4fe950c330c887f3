"""Manifests as pydantic models: canonical names, aliases folded in, unknown fields kept at every level.

The models check one manifest in itself; :mod:`ursa.manifest.reader` turns their complaints into ``ManifestError``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from ursa.manifest.names import has_control, is_unicode, is_worker_dir, normalize_path, shown, split_worker_dir
from ursa.manifest.times import TIME_EXPECTED, ZONE_EXPECTED, parse_time, parse_zone
from ursa.names import is_sha256, parse_sha256

SCHEMA_VERSION = 1

MANIFEST_ALIASES = {
    "rec_id": "recording_id",
    "hash": "recording_hash",
    "start_time": "started_at",
    "end_time": "ended_at",
    "tz": "timezone",
    "duration": "duration_s",
    "duration_seconds": "duration_s",
}
FILE_ALIASES = {
    "name": "path",
    "key": "path",
    "size": "size_bytes",
    "bytes": "size_bytes",
    "checksum": "sha256",
}

NAME_EXPECTED = "text without control characters, not empty"
PATH_EXPECTED = "a path relative to the recording directory, without '..'"
DIR_EXPECTED = "the name of a directory directly below the recording directory"
SHA256_EXPECTED = "64 hex digits, sha256: and 64 hex digits, or base64 of 32 bytes"
HASH_EXPECTED = "64 lowercase hex digits"
REC_ID_EXPECTED = "the recording's name, such as rec_20260520_195628_b1dd"

_MAX_SIZE_BYTES = 2**63 - 1


def refusal(expected: str, *, found: str | None = None, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """A validation error in our words; ``at`` leads from the validated object to the offending field."""
    return PydanticCustomError("refused", "expected {expected}", {"expected": expected, "found": found, "at": at})


def _name(value: Any) -> Any:
    if not isinstance(value, str):
        return value  # the field's strict type says it better
    if not value or has_control(value) or not is_unicode(value):
        raise refusal(NAME_EXPECTED)
    return value


def _name_or_none(value: Any) -> Any:
    return None if value == "" else _name(value)


def _path(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return normalize_path(value)
    except ValueError as exc:
        raise refusal(f"{PATH_EXPECTED}: {exc}") from None


def _dir(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        path = normalize_path(value.rstrip("/\\") or value)
    except ValueError as exc:
        raise refusal(f"{DIR_EXPECTED}: {exc}") from None
    if "/" in path:
        raise refusal(DIR_EXPECTED)
    return path


def _dir_or_none(value: Any) -> Any:
    return None if value == "" else _dir(value)


def _sha256(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    digest = parse_sha256(value)
    if digest is None:
        raise refusal(SHA256_EXPECTED)
    return digest


def _recording_hash(value: Any) -> Any:
    if isinstance(value, str) and not is_sha256(value):
        raise refusal(HASH_EXPECTED)
    return value


def _time(value: Any) -> Any:
    if isinstance(value, str):
        try:
            parse_time(value)
        except ValueError:
            raise refusal(TIME_EXPECTED) from None
    return value


def _zone(value: Any) -> Any:
    if isinstance(value, str):
        try:
            parse_zone(value)
        except ValueError:
            raise refusal(ZONE_EXPECTED) from None
    return value


def _worker_id(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # rigs number their workers
    return value if value == "" else _name(value)


def _rate(value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18):
        raise refusal("a number of samples a second, 0 or more")
    return value  # an int stays one, and is written back as it was


def _node(value: Any) -> Any:
    return {"hostname": value} if isinstance(value, str) else value


def _absent_list(value: Any) -> Any:
    return () if value is None else value


def _absent_version(value: Any) -> Any:
    return SCHEMA_VERSION if value is None else value


_Text = Annotated[str, Field(strict=True)]
_Name = Annotated[_Text, BeforeValidator(_name)]
_OptionalName = Annotated[_Text | None, BeforeValidator(_name_or_none)]


def fold_aliases(data: Any, aliases: Mapping[str, str]) -> Any:
    """The same object under canonical names. A name and its alias that say different things are refused."""
    if not isinstance(data, dict) or aliases.keys().isdisjoint(data):
        return data
    folded: dict[str, Any] = {key: value for key, value in data.items() if key not in aliases}
    for alias, canonical in aliases.items():
        value = data.get(alias)
        if value is None:
            continue
        other = folded.get(canonical)
        if other is None:
            folded[canonical] = value
        elif not _same(canonical, other, value):
            raise refusal(f"the same value as another name of {canonical} has", at=(alias,))
    return folded


def _same(canonical: str, one: Any, other: Any) -> bool:
    if type(one) is type(other) and one == other:
        return True
    normal = {"path": _path, "sha256": _sha256}.get(canonical)
    if normal is None:
        return False
    try:
        return bool(normal(one) == normal(other))
    except PydanticCustomError:
        return False


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """What a worker directory is in the catalog; ``node`` is the hostname that wrote it, None when nobody says."""

    modality: str
    worker_id: str
    node: str | None


class _Model(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Node(_Model):
    """A machine of the rig. A bare hostname is read as one."""

    hostname: _Name
    role: Annotated[str | None, Field(strict=True)] = None

    @model_validator(mode="before")
    @classmethod
    def _from_hostname(cls, data: Any) -> Any:
        return _node(data)


class Worker(_Model):
    """A ``workers[]`` entry; where it is silent, the directory's name speaks (see ``Manifest.worker_identity``)."""

    dir: Annotated[_Text, BeforeValidator(_dir)]
    modality: Annotated[_Text | None, BeforeValidator(_name)] = None
    worker_id: Annotated[_Text | None, BeforeValidator(_worker_id)] = None
    node: _OptionalName = None
    device: Any = None
    sample_rate_hz: Annotated[Any, BeforeValidator(_rate)] = None
    channels: Any = None

    @property
    def identity(self) -> tuple[str, str]:
        """(modality, worker_id), each from the entry, else from the directory's name."""
        from_name = split_worker_dir(self.dir) if is_worker_dir(self.dir) else ("", "")
        modality = from_name[0] if self.modality is None else self.modality
        return modality, from_name[1] if self.worker_id is None else self.worker_id


class FileEntry(_Model):
    """A ``files[]`` entry. ``path`` is NFC and '/'-separated, ``sha256`` lowercase hex."""

    path: Annotated[_Text, BeforeValidator(_path)]
    size_bytes: Annotated[int, Field(strict=True, ge=0, le=_MAX_SIZE_BYTES)]
    sha256: Annotated[_Text | None, BeforeValidator(_sha256)] = None
    worker: Annotated[_Text | None, BeforeValidator(_dir_or_none)] = None
    node: _OptionalName = None

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, data: Any) -> Any:
        return fold_aliases(data, FILE_ALIASES)

    @property
    def worker_dir(self) -> str:
        """The worker directory it belongs to; "" for a file at the root that states none."""
        if self.worker:
            return self.worker
        first, slash, _ = self.path.partition("/")
        return first if slash else ""


class Manifest(_Model):
    """One manifest: a rig's aggregate, one node's, or several merged in memory.

    Times and the time zone stay the texts they were; ``ursa.manifest.times.resolve_times`` reads them.
    """

    schema_version: Annotated[int, Field(strict=True, ge=1), BeforeValidator(_absent_version)] = SCHEMA_VERSION
    recording_id: Annotated[_Text | None, BeforeValidator(_name)] = None
    recording_hash: Annotated[_Text | None, BeforeValidator(_recording_hash)] = None
    started_at: Annotated[_Text | None, BeforeValidator(_time)] = None
    ended_at: Annotated[_Text | None, BeforeValidator(_time)] = None
    timezone: Annotated[_Text | None, BeforeValidator(_zone)] = None
    duration_s: Annotated[float | None, Field(strict=True, ge=0, allow_inf_nan=False)] = None
    node: Node | None = None
    nodes: Annotated[tuple[Node, ...], BeforeValidator(_absent_list)] = ()
    workers: Annotated[tuple[Worker, ...], BeforeValidator(_absent_list)] = ()
    files: Annotated[tuple[FileEntry, ...], BeforeValidator(_absent_list)] = ()
    participant: Annotated[str | None, Field(strict=True)] = None
    reconstruction: dict[str, Any] | None = None

    _source: str = PrivateAttr(default="manifest.json")
    _spelling: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, data: Any) -> Any:
        return fold_aliases(data, MANIFEST_ALIASES)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.recording_id is None and self.files:
            raise refusal(REC_ID_EXPECTED, found="nothing", at=("recording_id",))
        _check_paths(self.files)
        _check_workers(self.workers)
        _check_identities(self)
        return self

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, as pydantic's, without the look-up tables that ``update`` may have outdated."""
        copied = super().model_copy(update=update, deep=deep)
        for table in ("files_by_path", "workers_by_dir", "nodes_by_dir"):
            copied.__dict__.pop(table, None)
        return copied

    @property
    def source(self) -> str:
        """Where it was read, for messages."""
        return self._source

    def read_from(self, source: str, spelling: Mapping[str, str]) -> Self:
        """Note where it was read and under which aliases (canonical name → alias); returns itself."""
        self._source = source
        self._spelling = dict(spelling)
        return self

    def pointer_to(self, field: str) -> str:
        """The JSON pointer of a top-level field, as the file spells it."""
        return f"/{self._spelling.get(field, field)}"

    @property
    def is_placeholder(self) -> bool:
        """Whether it lists no files: a dashboard's stub, which counts as no manifest."""
        return not self.files

    @property
    def identity_hash(self) -> str | None:
        """The recording_hash as a rig states it. One that a reconstruction derived is over the files that it found, and
        states nothing about a half that it did not see."""
        return None if self.reconstruction is not None else self.recording_hash

    @property
    def node_hostname(self) -> str | None:
        """The machine that wrote it."""
        return self.node.hostname if self.node else None

    @property
    def expected_nodes(self) -> tuple[str, ...]:
        """Hostnames of every machine it speaks of, sorted: ``nodes``, its own, and those of workers and files."""
        names: set[str | None] = {self.node_hostname}
        names.update(node.hostname for node in self.nodes)
        names.update(worker.node for worker in self.workers)
        names.update(entry.node for entry in self.files)
        return tuple(sorted(name for name in names if name))

    def worker_of(self, entry: FileEntry) -> str:
        """The worker directory that a file belongs to; "" for a root-level file that states none."""
        return entry.worker_dir

    def worker_identity(self, dir: str) -> WorkerIdentity:
        """What a worker directory is in the catalog: its ``workers[]`` entry first, then its name.

        The node is the entry's, else the one that all files listed below it state, else the manifest's own.

        Raises:
            ValueError: no entry, and the name is not that of a worker directory.
        """
        worker = self.workers_by_dir.get(dir)
        modality, worker_id = worker.identity if worker else split_worker_dir(dir)
        node = (worker.node if worker else None) or self.nodes_by_dir.get(dir) or self.node_hostname
        return WorkerIdentity(modality, worker_id, node)

    def stated_node_of(self, entry: FileEntry) -> str | None:
        """The node that a file's entry or its worker's names; None when neither does."""
        if entry.node:
            return entry.node
        worker = self.workers_by_dir.get(entry.worker_dir)
        return worker.node if worker else None

    def node_of(self, entry: FileEntry) -> str | None:
        """The node that wrote a file: the entry's, else its worker's, else the manifest's own."""
        return self.stated_node_of(entry) or self.node_hostname

    @cached_property
    def files_by_path(self) -> Mapping[str, FileEntry]:
        """Entries by their NFC path."""
        return {entry.path: entry for entry in self.files}

    @cached_property
    def workers_by_dir(self) -> Mapping[str, Worker]:
        return {worker.dir: worker for worker in self.workers}

    @cached_property
    def nodes_by_dir(self) -> Mapping[str, str | None]:
        nodes: dict[str, str | None] = {}
        for entry in self.files:
            if nodes.setdefault(entry.worker_dir, entry.node) != entry.node:
                nodes[entry.worker_dir] = None
        return nodes

    def to_json(self) -> bytes:
        """UTF-8 JSON under canonical names, unknown fields unchanged, indented by two."""
        document = {"schema_version": self.schema_version} | self.model_dump(exclude_unset=True)
        try:
            return orjson.dumps(document, option=orjson.OPT_INDENT_2)
        except TypeError:  # an unknown field with an integer beyond 64 bits
            return json.dumps(document, indent=2, ensure_ascii=False).encode()


def identity_clash(pairs: Iterable[tuple[str, tuple[str, str]]]) -> tuple[str, str] | None:
    """The first two directories that would be the same (modality, worker_id), out of (dir, identity) pairs."""
    seen: dict[tuple[str, str], str] = {}
    for name, identity in pairs:
        if seen.setdefault(identity, name) != name:
            return seen[identity], name
    return None


def _check_paths(files: tuple[FileEntry, ...]) -> None:
    seen: set[str] = set()
    for index, entry in enumerate(files):
        if entry.path in seen:
            raise refusal(
                "each path once",
                found=f"{shown(entry.path, 120)} for the second time",
                at=("files", index, "path"),
            )
        seen.add(entry.path)


def _check_workers(workers: tuple[Worker, ...]) -> None:
    by_dir: dict[str, Worker] = {}
    for index, worker in enumerate(workers):
        if not worker.identity[0]:
            raise refusal("a modality, which this directory's name doesn't tell", at=("workers", index, "modality"))
        if by_dir.setdefault(worker.dir, worker) != worker:
            raise refusal(
                "one entry a directory",
                found=f"{shown(worker.dir, 120)} for the second time, with other content",
                at=("workers", index, "dir"),
            )


def _check_identities(manifest: Manifest) -> None:
    """No two directories may be the same worker, and every file's worker must be one."""
    at: dict[str, tuple[str | int, ...]] = {w.dir: ("workers", i, "dir") for i, w in enumerate(manifest.workers)}
    identities = {worker.dir: worker.identity for worker in manifest.workers}
    for index, entry in enumerate(manifest.files):
        name = entry.worker_dir
        if name in identities:
            continue
        if is_worker_dir(name):
            identities[name] = split_worker_dir(name)
            at[name] = ("files", index, "worker" if entry.worker else "path")
        elif entry.worker:
            raise refusal("a worker directory, or a workers[] entry for this one", at=("files", index, "worker"))
    clash = identity_clash(identities.items())
    if clash:
        modality, worker_id = identities[clash[1]]
        what = shown(f"{modality} {worker_id}".strip(), 60)
        raise refusal(
            "one directory for each worker",
            found=f"{shown(clash[0], 60)} and {shown(clash[1], 60)}, both {what}",
            at=at[clash[1]],
        )
