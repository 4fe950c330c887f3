"""Back to the catalog that was live before: what has changed since is carried over, then the pointer is flipped.

The catalog that is left is frozen first, as by a rebuild. The one that is gone back to is still frozen from the day it
was left, so that nobody writes to it before the pointer names it, and is thawed last: at no time two take writes.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ursa.catalog.catalog import Catalog
from ursa.catalog.compare import Turn, see, snapshot, turns
from ursa.catalog.history import GONE_BACK, filled
from ursa.catalog.home import CatalogHome
from ursa.catalog.tables import CatalogTable, Change, LostRaceError
from ursa.catalog.undo import Look, missing_of, refuse_missing
from ursa.errors import ConflictError, StorageError, UsageError
from ursa.rebuild.fill import exactly, with_participants
from ursa.rebuild.flip import FlippedError, changed, flip, release, set_frozen, tables
from ursa.rebuild.state import State

_ATTEMPTS = 20


@dataclass(frozen=True)
class BackResult:
    """What going back did, or would do. ``prefix`` is live then, in place of ``previous``.

    rec_ids, sorted: ``carried``: registered or changed since, taken over as they are; ``disappear``: without a row
    there; ``reappear``: with a row only there; ``change``: with other rows there. ``missing``: files (``rec_id/path``)
    that rows of there speak of and that are not in the bucket; then it is refused. ``finished``: one that was killed
    after the flip was ended, and nothing else done.
    """

    prefix: str
    previous: str
    carried: tuple[str, ...] = ()
    disappear: tuple[str, ...] = ()
    reappear: tuple[str, ...] = ()
    change: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    finished: bool = False
    dry_run: bool = False

    def refuse_missing(self) -> None:
        """Raises ``MissingFilesError`` where it would register anew what is not in the bucket."""
        refuse_missing(self.missing, self.prefix, "--drop-lost leaves these recordings as they are now.")


def back(home: CatalogHome, look: Look, *, dry_run: bool = False, drop_lost: bool = False) -> BackResult:
    """Make the catalog live that was live before, with all that was registered since.

    ``drop_lost``: recordings whose files are missing stay as they are in the live catalog.

    Raises:
        UsageError: there is none.
        MissingFilesError: rows that it has and the live one has not speak of files that are not in the bucket.
        ConflictError: a rebuild is under way, or the pointer was changed meanwhile.
        StorageError: a server fails, or nobody can tell any more what was registered since. Typed again, it goes on.
    """
    live = Catalog.named_now(home)
    pointer = live.pointer
    if pointer.previous is None:
        raise UsageError(
            f"{pointer.prefix} is the only catalog that there was: no rebuild has been put in place",
            hint="`ursa catalog history` and `ursa catalog undo` go back within it.",
        )
    if pointer.back and pointer.previous in [table.frozen for table in tables(live)]:
        if not dry_run:
            _thaw(home, live)
        return BackResult(pointer.prefix, pointer.previous, finished=True, dry_run=dry_run)
    _refuse_rebuild(home, live)
    old = Catalog(home, replace(pointer, prefix=pointer.previous))
    result = _compare(live, old, look, drop_lost)
    if dry_run:
        return replace(result, dry_run=True)
    result.refuse_missing()
    made = [result]

    def catch_up() -> None:
        made[0] = _compare(live, old, look, drop_lost)
        made[0].refuse_missing()
        _carry(live, old, made[0].carried, fenced)

    fenced = partial(_fence, home, live, old)
    # A lost reply, or another admin who did the same: then it is so.
    with contextlib.suppress(FlippedError):
        flip(home, live, old.pointer.prefix, fenced, catch_up, back=True)
    _thaw(home, old)
    return made[0]


def _thaw(home: CatalogHome, gone_back_to: Catalog) -> None:
    try:
        release(home, gone_back_to, None, GONE_BACK)
    except FlippedError:
        raise changed(home.pointer()) from None


def _refuse_rebuild(home: CatalogHome, live: Catalog) -> None:
    state = State(home.store, home.assets_prefix)
    started = state.started()
    if started is not None and started.prefix == live.pointer.prefix:
        # Killed between the flip and its own end.
        state.end(started.prefix)
    elif started is not None:
        raise ConflictError(
            f"a rebuild into {started.prefix} is under way, begun {started.started_at} by {started.started_by}",
            hint="Nothing was changed. End it, or give it up with `ursa catalog rebuild --abort`, then go back.",
        )


def _compare(live: Catalog, old: Catalog, look: Look, drop_lost: bool) -> BackResult:
    """What differs; whatever has changed in the live catalog since it was filled goes along."""
    for table in (*tables(live), *tables(old)):
        table.refresh()
    carried = set(turns(live, snapshot(live, _filled(live))))
    differing = {name: turn for name, turn in turns(live, snapshot(old)).items() if name not in carried}
    missing = missing_of(differing, look)
    if drop_lost:
        lost = {path.partition("/")[0] for path in missing}
        carried |= lost
        differing, missing = {name: turn for name, turn in differing.items() if name not in lost}, ()
    return _result(live, old, carried, differing, missing)


def _result(
    live: Catalog, old: Catalog, carried: Collection[str], differing: Mapping[str, Turn], missing: tuple[str, ...]
) -> BackResult:
    return BackResult(
        old.pointer.prefix,
        live.pointer.prefix,
        tuple(sorted(carried)),
        tuple(name for name, turn in differing.items() if not turn.then.recordings),
        tuple(name for name, turn in differing.items() if not turn.now.recordings),
        tuple(name for name, turn in differing.items() if turn.now.recordings and turn.then.recordings),
        missing,
    )


def _filled(live: Catalog) -> Mapping[str, int]:
    versions = filled(live)
    if versions is None:
        raise StorageError(
            f"can't tell what was registered since {live.pointer.prefix} was put in place: its history does not reach"
            " so far back",
            hint="Nothing was changed. `ursa catalog rebuild` derives every row anew from the bucket.",
        )
    return versions


def _fence(home: CatalogHome, live: Catalog, old: Catalog) -> None:
    """Look at the pointer before a commit to the catalog that is gone back to, as ``ursa.rebuild.flip.fence`` does."""
    pointer = home.pointer()
    if pointer.prefix == old.pointer.prefix:
        raise FlippedError
    if pointer.prefix != live.pointer.prefix:
        raise changed(pointer)


def _carry(live: Catalog, old: Catalog, rec_ids: Collection[str], fenced: Callable[[], object]) -> None:
    """The rows that readers see of these recordings, and every participant."""
    participants = live.participants.select()
    rows = see(live, snapshot(live), rec_ids)
    modalities = {name: rows[name].modalities if name in rows else () for name in rec_ids}
    recordings = {name: rows[name].recordings if name in rows else () for name in rec_ids}
    # Frozen from the day it was left; where an early ursa left it unfrozen, it is now.
    for table in tables(old):
        fenced()
        if not table.frozen:
            set_frozen(table, live.pointer.prefix)
    _commit(old.participants, fenced, lambda: with_participants(old, participants, GONE_BACK))
    if rec_ids:
        _commit(old.modalities, fenced, lambda: exactly(old.modalities, modalities, f"{GONE_BACK}:modalities"))
        _commit(old.recordings, fenced, lambda: exactly(old.recordings, recordings, f"{GONE_BACK}:recordings"))


def _commit(table: CatalogTable[Any], fenced: Callable[[], object], decide: Callable[[], Change[Any] | None]) -> None:
    """A compare-and-swap in a frozen table, among other admins who do the same."""
    for _ in range(_ATTEMPTS):
        # Refreshed before the fence: a commit that comes after a flip then makes ours fail.
        table.refresh()
        fenced()
        change = decide()
        if change is None:
            return
        try:
            table.commit(change)
        except LostRaceError:
            time.sleep(random.uniform(0, 0.2))
        else:
            return
    raise StorageError(f"can't write {table.uri}: others were faster {_ATTEMPTS} times", operation="commit")
