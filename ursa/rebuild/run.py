"""A rebuild from its start to the flip. Every step can be killed and run again, by any machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Protocol

from ursa.catalog._pointer import Pointer
from ursa.catalog.catalog import Catalog
from ursa.catalog.early import EarlyCatalog
from ursa.catalog.home import CatalogHome
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.errors import InvalidRecordingError, MissingFilesError, StorageError, named
from ursa.events import HashCallback, HashPhase, HashProgress
from ursa.manifest import check_rec_id
from ursa.rebuild import fill
from ursa.rebuild.derive import Derived
from ursa.rebuild.flip import FlippedError, changed, fence, flip, release
from ursa.rebuild.listing import list_again
from ursa.rebuild.reading import SETTLES_S, WAITS_S, younger
from ursa.rebuild.state import Done, Started, State, done, fingerprint, latest
from ursa.store import Store

CHUNK = 500
"""Recordings that are looked up together, and committed together."""

Wanted = tuple[str, RecordingRow | None, tuple[ModalityRow, ...], datetime | None]
"""What ``derive`` takes: rec_id, the live rows, and since when what arrives is left alone."""


class Deriver(Protocol):
    """Derives recordings, many at once, here or in an executor's workers; in their order."""

    def __call__(self, wanted: Iterable[Wanted]) -> Generator[Derived]: ...


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

    ``prefix``: what was filled, "" for a dry run; ``previous``: what was live before. ``recordings`` and ``modalities``
    count the new rows, ``recordings_before`` and ``modalities_before`` the live ones. Keyed by rec_id, in words:
    ``told``: how its new rows differ from the live ones; ``carried``: why its live rows were taken over without a look
    into the files; ``left``: why it has no row, as before; ``lost``: why a recording that is registered gets no row.
    ``new``: rec_ids that get a row and had none. ``resumed``: a rebuild that was begun before was gone on with, as
    ``"2026-05-20T19:56:28+00:00 by user@host"``. ``flipped``: the new catalog is live.
    """

    prefix: str
    previous: str
    recordings: int
    modalities: int
    recordings_before: int
    modalities_before: int
    told: Mapping[str, tuple[str, ...]]
    carried: Mapping[str, str]
    left: Mapping[str, str]
    lost: Mapping[str, str]
    new: tuple[str, ...]
    resumed: str
    flipped: bool
    dry_run: bool
    seconds: float


@dataclass
class _Run:
    site: Site
    old: Catalog
    callback: HashCallback | None
    state: State
    new: Catalog | None = None
    fence: fill.Fence = lambda: None
    known: dict[str, Done] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    resumed: str = ""
    total: int = 0
    finished: int = 0
    passed: int = 0  # as they were done before

    def tell(self, phase: HashPhase, rec_id: str = "") -> None:
        """Recordings count as files here: a rebuild reads bytes only where nobody states a sha256."""
        if self.callback is None:
            return
        elapsed = time.monotonic() - self.started
        done = self.finished + self.passed
        left = elapsed / done * (self.total - done) if done else None
        self.callback(HashProgress(phase, rec_id, "", 0, 0, done, self.total, elapsed, eta_s=left))


def rebuild(
    site: Site,
    *,
    put_in_place: bool = True,
    drop_lost: bool = False,
    dry_run: bool = False,
    callback: HashCallback | None = None,
) -> RebuildResult:
    """Fill a new prefix from the bucket, compare it with the live catalog, and put it in its place.

    Raises:
        MissingFilesError: registered recordings would get no row, and ``drop_lost`` is not set. Nothing was flipped.
        ConflictError: the pointer was changed by somebody else meanwhile. Nothing was flipped.
        StorageError: a server fails; the same call goes on.
    """
    run = _Run(site, EarlyCatalog.named_now(site.home), callback, State(site.home.store, site.home.assets_prefix))
    if dry_run:
        _fill(run, _everything(run))
        return _result(run, "", flipped=False, dry_run=True)
    started = _begin(run)
    try:
        # A run that was killed between freeze and flip: nobody need wait while this one derives.
        thawed = release(site.home, run.old, None)
        _new_catalog(run, started)
        # Also what is in no live row: nothing but the bucket speaks for it, and that was asked perhaps days ago.
        unsure = {name for name, entry in run.known.items() if entry.outcome != "made" or not entry.fingerprint}
        _fill(run, sorted({*_everything(run), *run.known}), again=unsure)
        if put_in_place:
            _again_where_it_changed(run, _just_now())
            _refuse_lost(run.known, drop_lost)
            _settle(run, SETTLES_S + (WAITS_S if thawed else 0.0))
            flip(site.home, run.old, started.prefix, run.fence, partial(_catch_up, run, drop_lost))
    except (FlippedError, StorageError) as error:
        if not _in_place(run, started):
            if isinstance(error, StorageError):
                raise
            raise changed(site.home.pointer()) from None
        # Another run of the same rebuild was faster: what this one wanted is so.
        put_in_place = True
    if put_in_place:
        run.state.end(started.prefix)
    run.tell("done")
    return _result(run, started.prefix, flipped=put_in_place, dry_run=False)


def _in_place(run: _Run, started: Started) -> bool:
    """Whether what is filled is live. Raises ``ConflictError`` where the rebuild was given up, or another was faster."""
    try:
        _fence(run, started)()
    except FlippedError:
        return True
    return False


def _begin(run: _Run) -> Started:
    started = run.state.started()
    if started is not None and started.prefix == run.old.pointer.prefix:
        # Killed between the flip and its own end: that rebuild is done, this is another one.
        run.state.end(started.prefix)
        started = None
    if started is not None:
        run.state.refuse_in_use(started.prefix, run.old.pointer)
        run.resumed = f"{started.started_at} by {started.started_by}"
    return started or run.state.start(run.old.pointer.prefix, run.site.home.author.by)


def _new_catalog(run: _Run, started: Started) -> None:
    """Open the catalog that is being filled, with the participants copied, and read what is done of it."""
    home = run.site.home
    home.create_tables(started.prefix)
    run.new = Catalog(home, Pointer(started.prefix, "", "", started.previous))
    run.fence = _fence(run, started)
    fill.copy_participants(run.old, run.new, run.fence)
    run.known = dict(latest(run.state.chunks(started.prefix)))


def _fence(run: _Run, started: Started) -> fill.Fence:
    return partial(fence, run.site.home, started, run.old.pointer.prefix)


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


def _catch_up(run: _Run, drop_lost: bool) -> None:
    """Between the freeze and the flip, while other writers wait: what has changed since it was derived, here and there."""
    assert run.new is not None
    since = _just_now()
    run.old.refresh()
    fill.copy_participants(run.old, run.new, run.fence)
    _fill(run, sorted({*_everything(run), *run.known}), since=since)
    _again_where_it_changed(run, since)
    _refuse_lost(run.known, drop_lost)


def _just_now() -> datetime:
    """Whoever has brought something since is about to register it."""
    return datetime.now(UTC) - timedelta(seconds=SETTLES_S)


def _again_where_it_changed(run: _Run, since: datetime) -> None:
    """What was made may be hours old by now: a row must not go live whose bytes have gone since."""
    made = {name: entry.listing for name, entry in run.known.items() if entry.outcome == "made"}
    changed = list_again(run.site.raw, run.site.raw_prefix, made, run.site.stopped)
    if changed:
        _fill(run, changed, again=changed, since=since)


def _settle(run: _Run, age_s: float) -> None:
    """Wait for uploads that ended just now: who uploaded them registers them, with what only they know.

    ``age_s``: for such as ended within so many seconds; those who waited for a frozen catalog ended longer ago.
    """
    deadline = time.monotonic() + SETTLES_S
    while time.monotonic() < deadline:
        arriving = {
            name: entry
            for name, entry in run.known.items()
            if entry.arrived and younger(datetime.fromisoformat(entry.arrived), age_s)
        }
        live = run.old.registered(arriving) if arriving else {}
        if not any(entry.fingerprint == _print(live, name) for name, entry in arriving.items()):
            return
        run.site.stopped()
        time.sleep(0.5)


def _fill(run: _Run, rec_ids: Sequence[str], *, again: Collection[str] = (), since: datetime | None = None) -> None:
    """Derive and commit, a chunk at a time, what is not done, or was done from rows that have changed since. The next ones
    are read while a chunk is committed.

    ``again``: what is derived whether or not that is so.
    """
    run.total, run.finished, run.passed = len(rec_ids), 0, 0
    run.tell("plan")
    prints: dict[str, str] = {}
    more = bool(rec_ids)
    with closing(run.site.derive(_wanted(run, rec_ids, again, since, prints))) as derived:
        while more:
            chunk = list(_told(run, islice(derived, CHUNK)))
            more = len(chunk) == CHUNK
            _put(run, chunk, prints)
            run.tell("write", chunk[-1].rec_id if chunk else rec_ids[-1])


def _wanted(
    run: _Run, rec_ids: Sequence[str], again: Collection[str], since: datetime | None, prints: dict[str, str]
) -> Iterator[Wanted]:
    """What is to be derived. ``prints`` gets the fingerprint of the live rows that each is derived from."""
    for start in range(0, len(rec_ids), CHUNK):
        run.site.stopped()
        names = rec_ids[start : start + CHUNK]
        live = run.old.registered(names)
        for name in names:
            now = _print(live, name)
            if name in again or name not in run.known or run.known[name].fingerprint != now:
                prints[name] = now
                yield (name, *live.get(name, (None, ())), since)
            else:
                run.passed += 1


def _told(run: _Run, derived: Iterable[Derived]) -> Iterator[Derived]:
    for item in derived:
        run.site.stopped()
        run.finished += 1
        run.tell("file_done", item.rec_id)
        yield item


def _put(run: _Run, derived: Sequence[Derived], prints: dict[str, str]) -> None:
    """Commit what was derived, and note that."""
    kept = fill.without_doubles(run.old, run.new, run.taken, derived)
    if not kept:
        return
    chunk = [done(item, prints.pop(item.rec_id)) for item in kept]
    if run.new is not None:
        fill.put(run.new, kept, run.fence)
        run.state.add_chunk(run.new.pointer.prefix, chunk)
    run.known |= latest(chunk)


def _print(live: Mapping[str, tuple[RecordingRow, tuple[ModalityRow, ...]]], rec_id: str) -> str:
    return fingerprint(*live[rec_id]) if rec_id in live else ""


def _result(run: _Run, prefix: str, *, flipped: bool, dry_run: bool) -> RebuildResult:
    entries = sorted(run.known.values(), key=lambda entry: entry.rec_id)
    made = [entry for entry in entries if entry.outcome == "made"]
    return RebuildResult(
        prefix=prefix,
        previous=run.old.pointer.prefix,
        recordings=len(made),
        modalities=sum(entry.modalities for entry in made),
        recordings_before=sum(bool(entry.fingerprint) for entry in entries),
        modalities_before=sum(entry.before for entry in entries),
        told={entry.rec_id: entry.told for entry in entries if entry.told},
        carried={entry.rec_id: entry.why for entry in made if entry.why},
        left={entry.rec_id: entry.why for entry in entries if entry.outcome == "left"},
        lost={entry.rec_id: entry.why for entry in entries if entry.outcome == "lost"},
        new=tuple(entry.rec_id for entry in made if not entry.fingerprint),
        resumed=run.resumed,
        flipped=flipped,
        dry_run=dry_run,
        seconds=time.monotonic() - run.started,
    )


def _refuse_lost(known: Mapping[str, Done], drop_lost: bool) -> None:
    lost = {rec_id: entry for rec_id, entry in known.items() if entry.outcome == "lost"}
    if not lost or drop_lost:
        return
    told = named([f"{entry.rec_id} ({entry.why})" for entry in lost.values()], 20)
    raise MissingFilesError(
        f"{len(lost)} registered recording{'' if len(lost) == 1 else 's'} would have no row in the new catalog: {told}",
        hint="The live catalog is as it was. Bring the files back (`ursa verify REC`, `ursa ingest REC_DIR --overwrite`)"
        " and run this again; --drop-lost goes on without these recordings.",
        paths=tuple(lost),
    )
