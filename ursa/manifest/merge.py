"""Several node manifests of one session, merged in memory. Nothing is invented for a node that has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NoReturn, TypeVar

from ursa.errors import ManifestError, ManifestNotFoundError
from ursa.manifest.models import FileEntry, Manifest, Node, Worker, identity_clash
from ursa.manifest.names import is_worker_dir, shown, split_worker_dir
from ursa.manifest.times import Instant, stated_instant, zone_for

_HINT = "One of the two was copied from elsewhere or edited: put the rigs' own node manifests back"

_Entry = TypeVar("_Entry", Worker, FileEntry)


@dataclass(frozen=True, slots=True)
class _Half:
    """One node manifest: where it lies, and the machine that it speaks for."""

    source: str
    host: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class _Moment:
    """A time that one half states."""

    text: str
    instant: Instant
    timezone: str | None

    def spelled(self) -> str:
        """With an offset, so that it means the same beside any ``timezone``."""
        return self.text if self.instant.own_zone else self.instant.local.isoformat()


@dataclass(frozen=True, slots=True)
class _Span:
    """The start, the end and the length in seconds that one half states."""

    start: _Moment | None
    end: _Moment | None
    duration_s: float | None


def merge_manifests(manifests: Mapping[str, Manifest], *, rig_timezone: str | None = None) -> Manifest:
    """One manifest out of those of a session's nodes, in the order of their hostnames.

    Workers are united by directory and files by path: what only one of two entries states is taken over, what both
    state must agree. The start is the earliest, the end the latest and the duration the longest; a time whose zone had
    to be assumed, or that is ambiguous, counts only where no other is stated. Every file and worker gets its ``node``.
    A placeholder contributes only its node. Of any other field the first node's is taken.

    Args:
        manifests: by source, for example ``_node_manifests/green-motor.json``.
        rig_timezone: the zone of naive times where a manifest names none.

    Raises:
        ManifestError: they contradict each other; both sources are named.
        ManifestNotFoundError: there are none.
    """
    if not manifests:
        raise ManifestNotFoundError(
            "there is no node manifest to merge",
            hint="Copy the nodes' manifests from the rig into _node_manifests/; where the rig has none, run"
            " `ursa reconstruct REC_DIR` first.",
        )
    everyone = sorted((_half(source, m) for source, m in manifests.items()), key=lambda half: (half.host, half.source))
    halves = [half for half in everyone if not half.manifest.is_placeholder]
    fields = _other_fields(halves) | {
        "recording_id": _agreed(halves, "recording_id"),
        "recording_hash": _agreed(halves, "recording_hash"),
        "node": _own_node(everyone[0]) if len(everyone) == 1 else None,
        "nodes": _nodes(everyone),
        "participant": _first(half.manifest.participant for half in halves),
        "reconstruction": _first(half.manifest.reconstruction for half in halves),
        **_times(halves, rig_timezone),
        **_contents(halves),
    }
    stated = {name: value for name, value in fields.items() if value is not None}
    return Manifest(**stated).read_from(", ".join(half.source for half in everyone), {})


def _half(source: str, manifest: Manifest) -> _Half:
    return _Half(source, manifest.node_hostname or PurePosixPath(source).stem, manifest)


def _own_node(half: _Half) -> Node:
    return half.manifest.node or Node(hostname=half.host)


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _other_fields(halves: list[_Half]) -> dict[str, Any]:
    """The fields that ursa doesn't know, the first node's of each."""
    fields: dict[str, Any] = {}
    for half in halves:
        fields = (half.manifest.model_extra or {}) | fields
    return fields


def _agreed(halves: list[_Half], field: str) -> str | None:
    """The one value that all halves which state the field agree on."""
    first: tuple[_Half, str] | None = None
    for half in halves:
        value = getattr(half.manifest, field)
        if value is not None and first and first[1] != value:
            _contradict(first[0], half, half.manifest.pointer_to(field), shown(value, 80), shown(first[1], 80))
        if value is not None and first is None:
            first = (half, value)
    return first[1] if first else None


def _nodes(everyone: list[_Half]) -> tuple[Node, ...]:
    """Every node that is stated, by hostname; of two descriptions of one the first half's wins."""
    nodes: dict[str, Node] = {}
    for half in everyone:
        others = () if half.manifest.is_placeholder else half.manifest.nodes
        for node in (_own_node(half), *others):
            known = nodes.get(node.hostname)
            nodes[node.hostname] = Node(**_stated(node) | _stated(known)) if known else node
    return tuple(nodes[hostname] for hostname in sorted(nodes))


def _contents(halves: list[_Half]) -> dict[str, tuple[Worker, ...] | tuple[FileEntry, ...]]:
    """``workers`` and ``files`` united, each with its node."""
    workers = _unite(halves, "workers", lambda manifest: manifest.workers, lambda worker: worker.dir)
    listed = _unite(halves, "files", lambda manifest: manifest.files, lambda entry: entry.path)
    _check_identities(workers, listed)
    files: list[FileEntry] = []
    nodes: dict[str, set[str]] = {}
    for entry, half in listed.values():
        worker = workers.get(entry.worker_dir)
        node = entry.node or (worker and worker[0].node) or half.host
        nodes.setdefault(entry.worker_dir, set()).add(node)
        files.append(entry if entry.node else entry.model_copy(update={"node": node}))
    owned = []
    for worker_entry, half in workers.values():
        below = nodes.get(worker_entry.dir, set())
        node = worker_entry.node or (next(iter(below)) if len(below) == 1 else half.host)
        owned.append(worker_entry if worker_entry.node else worker_entry.model_copy(update={"node": node}))
    return {"workers": tuple(owned), "files": tuple(files)}


def _unite(
    halves: list[_Half],
    field: str,
    entries: Callable[[Manifest], tuple[_Entry, ...]],
    key: Callable[[_Entry], str],
) -> dict[str, tuple[_Entry, _Half]]:
    """Entries by key, each with the first half that lists it."""
    united: dict[str, tuple[_Entry, _Half]] = {}
    for half in halves:
        for index, entry in enumerate(entries(half.manifest)):
            known = united.setdefault(key(entry), (entry, half))
            if known[0] != entry:
                united[key(entry)] = (_folded(known, (entry, half), f"/{field}/{index}", key(entry)), known[1])
    return united


def _folded(known: tuple[_Entry, _Half], other: tuple[_Entry, _Half], pointer: str, name: str) -> _Entry:
    """Two descriptions of one thing as one."""
    ours, theirs = _stated(known[0]), _stated(other[0])
    for field in ours.keys() & theirs.keys():
        if ours[field] != theirs[field]:
            found = f"{shown(name, 120)} with {field} {shown(str(theirs[field]), 80)}"
            _contradict(known[1], other[1], pointer, found, f"{field} {shown(str(ours[field]), 80)}")
    return type(known[0])(**theirs | ours)


def _stated(entry: Worker | FileEntry | Node) -> dict[str, Any]:
    return {name: value for name, value in entry.model_dump(exclude_unset=True).items() if value is not None}


def _check_identities(workers: dict[str, tuple[Worker, _Half]], listed: dict[str, tuple[FileEntry, _Half]]) -> None:
    """Two nodes may not use different directories for one (modality, worker_id)."""
    identities = {name: worker.identity for name, (worker, _) in workers.items()}
    owners = {name: half for name, (_, half) in workers.items()}
    for entry, half in listed.values():
        name = entry.worker_dir
        if name not in identities and is_worker_dir(name):
            identities[name], owners[name] = split_worker_dir(name), half
    clash = identity_clash(identities.items())
    if clash:
        one, other = clash
        modality, worker_id = identities[one]
        found = f"{shown(other, 80)} as {shown(f'{modality} {worker_id}'.strip(), 80)}"
        _contradict(owners[one], owners[other], "/workers", found, f"one directory for it, {shown(one, 80)}")


def _times(halves: list[_Half], rig_timezone: str | None) -> dict[str, Any]:
    """``started_at``, ``ended_at``, ``duration_s``, and the ``timezone`` that the texts need to mean the same."""
    spans = [_span(half, rig_timezone) for half in halves]
    start = _pick(min, (span.start for span in spans))
    end = _pick(max, (span.end for span in spans))
    timezone = _first(half.manifest.timezone for half in halves)
    naive = [moment for moment in (start, end) if moment and moment.instant.flag]
    if naive:  # stays as it was, so that the flag is found again
        timezone = naive[0].timezone
    texts = {
        name: moment.text if moment.instant.flag and moment.timezone == timezone else moment.spelled()
        for name, moment in (("started_at", start), ("ended_at", end))
        if moment
    }
    return {**texts, "timezone": timezone, "duration_s": _longest(halves, spans)}


def _span(half: _Half, rig_timezone: str | None) -> _Span:
    manifest = half.manifest
    zone = zone_for(manifest, rig_timezone)
    start, end = stated_instant(manifest, "started_at", zone), stated_instant(manifest, "ended_at", zone)
    duration_s = manifest.duration_s
    if duration_s is None and start and end and start.flag == end.flag and start.utc <= end.utc:
        duration_s = (end.utc - start.utc).total_seconds()
    return _Span(
        _Moment(manifest.started_at or "", start, manifest.timezone) if start else None,
        _Moment(manifest.ended_at or "", end, manifest.timezone) if end else None,
        duration_s,
    )


def _pick(best: Callable[..., _Moment], moments: Iterable[_Moment | None]) -> _Moment | None:
    """The best of the stated times; of flagged ones only if there is no other."""
    stated = [moment for moment in moments if moment]
    certain = [moment for moment in stated if moment.instant.flag is None]
    pool = certain or stated
    return best(pool, key=lambda moment: moment.instant.utc) if pool else None


def _longest(halves: list[_Half], spans: list[_Span]) -> float | None:
    """The longest duration. Where no half states one it stays absent, and the merged end − start speaks."""
    if all(half.manifest.duration_s is None for half in halves):
        return None
    return max(span.duration_s for span in spans if span.duration_s is not None)


def _contradict(one: _Half, other: _Half, pointer: str, found: str, expected: str) -> NoReturn:
    first, second = shown(one.source), shown(other.source)
    raise ManifestError(
        f"{second}: {pointer}: found {found}, expected {expected}, as {first} says",
        hint=_HINT,
        path=other.source,
        pointer=pointer,
        found=found,
        expected=expected,
    )
