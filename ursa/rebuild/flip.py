"""The end of a rebuild: freeze the live catalog, catch up, flip the pointer; or give all of that up.

What keeps two administrators apart is the pointer's ETag. Whoever flips does it under If-Match; whoever thaws a catalog
writes the pointer anew first, with a new mark, so that a flip that counted on the freeze fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import orjson

from ursa.catalog._pointer import POINTER_NAME, Pointer, write_pointer
from ursa.catalog.catalog import Catalog
from ursa.catalog.early import EarlyCatalog
from ursa.catalog.home import CatalogHome
from ursa.catalog.tables import CatalogTable, LostRaceError
from ursa.errors import ConflictError, StorageError
from ursa.rebuild.state import Started, State
from ursa.store import PreconditionFailedError

_ATTEMPTS = 20


class FlippedError(Exception):
    """The catalog that is being filled is the live one already: another run of the same rebuild was faster."""


def fence(home: CatalogHome, started: Started, previous: str) -> None:
    """Look at the pointer before a commit to the catalog that is being filled, and whether it was given up.

    The table must have been refreshed before: whatever others commit after a flip then makes that commit fail.

    Raises:
        FlippedError: it is live now; its rows belong to the writers.
        ConflictError: somebody has made another catalog the live one, or given this rebuild up.
    """
    pointer = home.pointer()
    if pointer.prefix == started.prefix:
        raise FlippedError
    if pointer.prefix != previous:
        raise changed(pointer)
    if State(home.store, home.assets_prefix).started() != started:
        if home.pointer().prefix == started.prefix:
            # It was put in place, and then ended.
            raise FlippedError
        raise ConflictError(
            f"the rebuild into {started.prefix} was given up meanwhile (`ursa catalog rebuild --abort`)",
            hint="Nothing was put in place, and no row of the live catalog was changed. Run it again to begin anew.",
        )


def flip(
    home: CatalogHome,
    old: Catalog,
    prefix: str,
    fenced: Callable[[], object],
    catch_up: Callable[[], None],
    *,
    back: bool = False,
) -> None:
    """Freeze, ``catch_up``, and make ``prefix`` live. Where anything fails in between, writers go on as before.

    Args:
        fenced: raises where ``prefix`` must not be put in place (any more).
        back: it had been live before, see ``Pointer``.

    Raises:
        FlippedError: it is live already.
        ConflictError: the pointer was changed by somebody else.
    """
    for _ in range(_ATTEMPTS):
        # Read before the fence: who gives this rebuild up later writes the pointer anew, and the flip fails.
        pointer = home.pointer()
        fenced()
        try:
            for table in tables(old):
                set_frozen(table, prefix)
            catch_up()
            write_pointer(home.store, home.assets_prefix, prefix, by=home.author.by, replacing=pointer, back=back)
        except PreconditionFailedError:
            # A lost reply, or somebody has thawed the catalog meanwhile: then freeze and catch up again.
            time.sleep(random.uniform(0, 0.2))
            continue
        except FlippedError:
            raise
        except BaseException:
            _release_quietly(home, old, prefix)
            raise
        return
    raise StorageError(
        f"can't put {prefix} in place: the live catalog was thawed {_ATTEMPTS} times meanwhile",
        hint="Another `ursa catalog rebuild` is failing at the same time. Stop it, then run this again.",
    )


def release(home: CatalogHome, old: Catalog, prefix: str | None, operation: str = "") -> str | None:
    """Let writers go on in the live catalog. ``prefix``: only where it is frozen for that one; None: for any.

    Returns the prefix that it was frozen for.

    Raises:
        FlippedError: a rebuild has put another catalog in its place.
    """
    found = None
    for table in tables(old):
        table.refresh()
        if table.frozen and prefix in (None, table.frozen):
            if found is None:
                _touch(home, old.pointer.prefix)
            found = table.frozen
            set_frozen(table, None, operation)
    return found


def abort(home: CatalogHome) -> str | None:
    """Give up the rebuild that is under way: thaw the live catalog, delete what was filled. Returns its prefix.

    Raises ``StorageError`` where its state names what must not be deleted. Then nothing was changed.
    """
    state = State(home.store, home.assets_prefix)
    started = state.started()
    old = EarlyCatalog.named_now(home)
    if started is not None and started.prefix == old.pointer.prefix:
        # Killed between the flip and its own end: there is nothing to give up.
        state.end(started.prefix)
        return None
    if started is not None:
        state.refuse_in_use(started.prefix, old.pointer)
    try:
        if started is not None:
            # Before the pointer is touched: a flip has read it before it saw that the rebuild is still under way.
            state.end(started.prefix)
        _touch(home, old.pointer.prefix)
        frozen = release(home, old, None)
    except FlippedError:
        raise changed(home.pointer()) from None
    if started is None:
        return frozen
    state.drop(started.prefix)
    return started.prefix


def changed(pointer: Pointer) -> ConflictError:
    """The error where somebody else has changed the pointer."""
    return ConflictError(
        f"ACTIVE.json was changed meanwhile: {pointer.prefix} is live, by {pointer.activated_by}",
        hint="This rebuild was not put in place, and no row of the live catalog was changed. See `ursa catalog location`,"
        " then run it again.",
    )


def tables(catalog: Catalog) -> tuple[CatalogTable[Any], ...]:
    """The recordings first: once they are frozen, no row becomes visible."""
    return catalog.recordings, catalog.modalities, catalog.participants


def set_frozen(table: CatalogTable[Any], prefix: str | None, operation: str = "") -> None:
    """Freeze or thaw, also among writers who commit all the time."""
    for attempt in range(_ATTEMPTS):
        table.refresh()
        if (table.frozen or None) == prefix:
            return
        with contextlib.suppress(LostRaceError):
            table.set_frozen(prefix, operation)
            return
        time.sleep(random.uniform(0, 0.05 * min(attempt + 1, 10)))
    raise StorageError(
        f"can't {'freeze' if prefix else 'thaw'} {table.uri}: other writers were faster {_ATTEMPTS} times in a row",
        hint="Run the same command again when no batch runs.",
    )


def _release_quietly(home: CatalogHome, old: Catalog, prefix: str) -> None:
    """After a failure, which is what has to be told; a catalog that stays frozen says so itself to every writer."""
    try:
        release(home, old, prefix)
    except (FlippedError, StorageError, ConflictError):
        return


def _touch(home: CatalogHome, expected: str) -> None:
    """Write the pointer anew, the same but for a random mark: its ETag is one that it never had, whoever else does this."""
    key = home.assets_prefix + POINTER_NAME
    for _ in range(_ATTEMPTS):
        data, info = home.store.read(key)
        if home.pointer().prefix != expected:
            raise FlippedError
        body = orjson.dumps({**orjson.loads(data), "mark": uuid.uuid4().hex}, option=orjson.OPT_INDENT_2)
        try:
            home.store.put(key, body, sha256=hashlib.sha256(body).hexdigest(), if_match=info.etag)
        except PreconditionFailedError:
            continue
        return
    raise StorageError(f"can't write {home.store.uri}/{key}: it was changed {_ATTEMPTS} times meanwhile", key=key)
