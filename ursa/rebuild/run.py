"""A rebuild from its start to the flip. Every step can be killed and run again, by any machine."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ursa.catalog._pointer import Pointer, read_pointer, write_pointer
from ursa.catalog.catalog import Catalog
from ursa.catalog.home import KINDS, CatalogHome
from ursa.catalog.rows import ModalityRow, ParticipantRow, RecordingRow
from ursa.catalog.tables import CatalogTable, Change
from ursa.catalog.where import any_of
from ursa.errors import ConflictError, InvalidRecordingError, MissingFilesError, named
from ursa.events import HashCallback, HashPhase, HashProgress
from ursa.manifest import check_rec_id
from ursa.rebuild.derive import Derived
from ursa.rebuild.state import Done, Started, State, done, fingerprint, latest
from ursa.store import PreconditionFailedError, Store

CHUNK = 500
"""Recordings that are derived and committed together."""


class Deriver(Protocol):
    """Derives recordings, side by side, here or in an executor's workers; in any order."""

    def __call__(
        self, wanted: Sequence[tuple[str, RecordingRow | None, tuple[ModalityRow, ...]]]
    ) -> Iterator[Derived]: ...


@dataclass(frozen=True)
class Site:
    """What a rebuild works with. ``raw_prefix`` ends with '/'; ``stopped`` raises where the run is to stop."""

    home: CatalogHome
    raw: Store
    raw_prefix: str
    derive: Deriver
    stopped: Callable[[], object]


@dataclass(frozen=True)
class RebuildResult:
    """What a rebuild found and did.

    ``prefix``: what was filled; ``previous``: what was live before. ``recordings`` and ``modalities`` count the new
    rows, ``recordings_before`` and ``modalities_before`` the live ones. ``told``: rec_id → in words, how its new rows
    differ from the live ones. ``left``: rec_id → why it has no row, as before. ``lost``: rec_id → why a recording that
    is registered gets no row. ``flipped``: the new catalog is live.
    """

    prefix: str
    previous: str
    recordings: int
    modalities: int
    recordings_before: int
    modalities_before: int
    told: Mapping[str, tuple[str, ...]]
    left: Mapping[str, str]
    lost: Mapping[str, str]
    flipped: bool
    dry_run: bool
    seconds: float


@dataclass
class _Run:
    site: Site
    old: Catalog
    callback: HashCallback | None
    started: float = field(default_factory=time.monotonic)
    total: int = 0
    finished: int = 0

    def tell(self, phase: HashPhase, rec_id: str = "") -> None:
        """Recordings count as files here: a rebuild reads bytes only where nobody states a sha256."""
        if self.callback is None:
            return
        elapsed = time.monotonic() - self.started
        left = elapsed / self.finished * (self.total - self.finished) if self.finished else None
        self.callback(HashProgress(phase, rec_id, "", 0, 0, self.finished, self.total, elapsed, eta_s=left))


def rebuild(
    site: Site,
    *,
    flip: bool = True,
    drop_lost: bool = False,
    dry_run: bool = False,
    callback: HashCallback | None = None,
) -> RebuildResult:
    """Fill a new prefix from the bucket, compare it with the live catalog, and put it in its place.

    Raises:
        MissingFilesError: registered recordings would get no row, and ``drop_lost`` is not set. Nothing was flipped.
        ConflictError: the pointer was changed by somebody else meanwhile.
        StorageError: a server fails; the same call goes on.
    """
    run = _Run(site, Catalog.open(site.home), callback)
    if dry_run:
        entries = latest(itertools.chain.from_iterable(_chunks(run, _everything(run), {}, None)))
        return _result(run, "", entries, flipped=False, dry_run=True)
    state = State(site.home.store, site.home.assets_prefix)
    started = _begin(state, run)
    new = _new_catalog(run, started)
    known = dict(latest(state.chunks(started.prefix)))
    _fill(run, state, started, new, known)
    if flip:
        _refuse_lost(known, drop_lost)
        _flip(run, state, started, new, known, drop_lost)
    run.tell("done")
    return _result(run, started.prefix, known, flipped=flip, dry_run=False)


def abort(home: CatalogHome) -> str | None:
    """Give up the rebuild that is under way: thaw the live catalog, delete what was filled. Returns its prefix."""
    state = State(home.store, home.assets_prefix)
    started = state.started()
    pointer = home.pointer()
    old = Catalog.open(home)
    _thaw(old, started.prefix if started else None)
    if started is None:
        return None
    if started.prefix != pointer.prefix:
        state.drop(started.prefix)
    state.end()
    return started.prefix


def _begin(state: State, run: _Run) -> Started:
    started = state.started()
    if started is not None and started.prefix == run.old.pointer.prefix:
        # Killed between the flip and its own end: that rebuild is done, this is another one.
        state.end()
        started = None
    return started or state.start(run.old.pointer.prefix, run.site.home.author.by)


def _new_catalog(run: _Run, started: Started) -> Catalog:
    """The catalog that is being filled, its participants copied."""
    home = run.site.home
    for kind in KINDS:
        CatalogTable.create(kind, home.table_uri(started.prefix, kind.name), home.options(), home.author)
    new = Catalog(home, Pointer(started.prefix, "", "", started.previous))
    _copy_participants(run.old, new)
    return new


def _copy_participants(old: Catalog, new: Catalog) -> None:
    old.participants.refresh()
    rows = old.participants.select("true")

    def change() -> Change[ParticipantRow] | None:
        there = {row.participant_id: row for row in new.participants.select("true")}
        other = [row for row in rows if there.get(row.participant_id) != row]
        known = any(row.participant_id in there for row in other)
        predicate = any_of("participant_id", [row.participant_id for row in other]) if known else None
        return Change(other, predicate, "rebuild:participants") if other else None

    new.participants.compare_and_swap(change)


def _everything(run: _Run) -> list[str]:
    """Every rec_id that the bucket or the live catalog has, in order."""
    found = {row.rec_id for row in run.old.list_recordings()}
    prefix = run.site.raw_prefix
    for below in run.site.raw.list_prefixes(prefix):
        name = below.removeprefix(prefix).rstrip("/")
        try:
            found.add(check_rec_id(name))
        except InvalidRecordingError:
            continue
    return sorted(found)


def _fill(run: _Run, state: State, started: Started, new: Catalog, known: dict[str, Done]) -> None:
    """Derive and commit, a chunk at a time, what is not done, or was done from rows that have changed since."""
    for chunk in _chunks(run, sorted({*_everything(run), *known}), known, new):
        state.add_chunk(started.prefix, chunk)
        known |= latest(chunk)


def _chunks(run: _Run, rec_ids: Sequence[str], known: Mapping[str, Done], new: Catalog | None) -> Iterator[list[Done]]:
    run.total, run.finished = len(rec_ids), 0
    run.tell("plan")
    for start in range(0, len(rec_ids), CHUNK):
        names = rec_ids[start : start + CHUNK]
        live = run.old.registered(names)
        prints = {name: fingerprint(*live[name]) if name in live else "" for name in names}
        wanted = [
            (name, *live.get(name, (None, ())))
            for name in names
            if name not in known or known[name].fingerprint != prints[name]
        ]
        run.finished += len(names) - len(wanted)
        derived: list[Derived] = []
        for item in run.site.derive(wanted):
            run.site.stopped()
            derived.append(item)
            run.finished += 1
            run.tell("file_done", item.rec_id)
        if derived and new is not None:
            _put(new, derived)
        if derived:
            yield [done(item, prints[item.rec_id]) for item in derived]
        run.tell("write", names[-1])


def _put(new: Catalog, derived: Sequence[Derived]) -> None:
    """Commit a chunk: modalities, then recordings. What a run before had written of them is replaced."""
    rows = [item.row for item in derived if item.row]
    modalities = [row for item in derived for row in item.modalities]
    naming = any_of("rec_id", [item.rec_id for item in derived])
    _swap(new.modalities, modalities, naming, "rebuild:modalities")
    _swap(new.recordings, rows, naming, "rebuild:recordings")


def _swap(table: CatalogTable[Any], rows: Sequence[Any], naming: str, operation: str) -> None:
    def change() -> Change[Any] | None:
        there = table.select(naming)
        if sorted(map(repr, there)) == sorted(map(repr, rows)):
            return None
        return Change(rows, naming if there else None, operation)

    table.refresh()
    table.compare_and_swap(change)


def _flip(run: _Run, state: State, started: Started, new: Catalog, known: dict[str, Done], drop_lost: bool) -> None:
    """Freeze the live catalog, catch up with what changed since, flip the pointer.

    From the freeze to the flip other writers wait; they go on in the new catalog.
    """
    for table in _tables(run.old):
        table.refresh()
        if not table.frozen:
            table.set_frozen(started.prefix)
    run.old.refresh()
    _copy_participants(run.old, new)
    _fill(run, state, started, new, known)
    try:
        _refuse_lost(known, drop_lost)
    except MissingFilesError:
        _thaw(run.old, started.prefix)
        raise
    home = run.site.home
    try:
        write_pointer(home.store, home.assets_prefix, started.prefix, by=home.author.by, replacing=run.old.pointer)
    except PreconditionFailedError:
        pointer = read_pointer(home.store, home.assets_prefix)
        if pointer is None or pointer.prefix != started.prefix:
            raise ConflictError(
                f"ACTIVE.json was changed meanwhile: {pointer.prefix if pointer else 'it is gone'} is live,"
                f" by {pointer.activated_by if pointer else 'somebody'}",
                hint="This rebuild was not put in place. See `ursa catalog location`, then run it again.",
            ) from None
    state.end()


def _thaw(catalog: Catalog, prefix: str | None) -> None:
    """Let writers go on. ``prefix``: only where the freeze is for that one; None: for any."""
    for table in _tables(catalog):
        if table.frozen and prefix in (None, table.frozen):
            table.set_frozen(None)


def _tables(catalog: Catalog) -> tuple[CatalogTable[Any], ...]:
    # The recordings first: no row becomes visible from there on.
    return catalog.recordings, catalog.modalities, catalog.participants


def _result(run: _Run, prefix: str, known: Mapping[str, Done], *, flipped: bool, dry_run: bool) -> RebuildResult:
    made = [entry for entry in known.values() if entry.outcome == "made"]
    return RebuildResult(
        prefix=prefix,
        previous=run.old.pointer.prefix,
        recordings=len(made),
        modalities=sum(entry.modalities for entry in made),
        recordings_before=_count(run.old.recordings),
        modalities_before=_count(run.old.modalities),
        told={entry.rec_id: entry.told for entry in known.values() if entry.told},
        left={entry.rec_id: entry.why for entry in known.values() if entry.outcome == "left"},
        lost={entry.rec_id: entry.why for entry in known.values() if entry.outcome == "lost"},
        flipped=flipped,
        dry_run=dry_run,
        seconds=time.monotonic() - run.started,
    )


def _count(table: CatalogTable[Any]) -> int:
    return int(table.query(f"SELECT count(*) AS n FROM {table.kind.name}").column("n").to_pylist()[0])


def _refuse_lost(known: Mapping[str, Done], drop_lost: bool) -> None:
    lost = {rec_id: entry for rec_id, entry in known.items() if entry.outcome == "lost"}
    if not lost or drop_lost:
        return
    told = named([f"{entry.rec_id} ({entry.why})" for entry in lost.values()], 20)
    raise MissingFilesError(
        f"{len(lost)} registered recordings would have no row in the new catalog: {told}",
        hint="The live catalog is as it was. Bring the files back (`ursa verify REC`, `ursa ingest REC_DIR`) and run this"
        " again; --drop-lost goes on without these recordings.",
        paths=tuple(lost),
    )
