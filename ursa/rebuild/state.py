"""Where a rebuild stands, kept in the assets bucket, so that any machine goes on with it.

``REBUILD.json`` beside ``ACTIVE.json`` names the prefix that is being filled; below that prefix ``_rebuild/`` has an
object for each chunk of recordings that is done: what was made of each, and a fingerprint of the live rows it was made
from, so that the last catch-up finds what has changed since.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import orjson

from ursa.beside import each
from ursa.catalog._pointer import POINTER_NAME, Pointer, is_catalog_prefix, overlap, read_pointer
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.errors import StorageError
from ursa.parallel import in_order
from ursa.rebuild.derive import Derived
from ursa.store import NotFoundError, PreconditionFailedError, Store
from ursa.transfer.engine import Stop

STATE_NAME = "REBUILD.json"
_READ_AT_ONCE = 8
_OUTCOMES = ("made", "left", "lost")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Started:
    """A rebuild that is under way: from one prefix to another, since when and by whom (``user@host``).

    ``run_id``: random; one that was given up and one that was begun after it may fill the same prefix.
    """

    prefix: str
    previous: str
    started_at: str
    started_by: str
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """What was made of a recording: ``outcome`` is ``made``, ``left`` (no row, and it had none) or ``lost``.

    ``before``: modality rows that it has in the live catalog. ``arrived``: when the manifest was written that speaks of
    something in no row yet, ISO 8601; "" where there is nothing of the kind. ``listing``: changes with the recording's
    objects; "" where its own do not tell all.
    """

    rec_id: str
    outcome: str
    fingerprint: str
    modalities: int
    told: tuple[str, ...]
    why: str
    before: int = 0
    arrived: str = ""
    listing: str = ""


class State:
    """The objects above, in the assets bucket. ``assets_prefix`` ends with '/'."""

    def __init__(self, store: Store, assets_prefix: str) -> None:
        self._store = store
        self._prefix = assets_prefix

    def started(self) -> Started | None:
        """The rebuild that is under way, or None."""
        try:
            data, _ = self._store.read(self._prefix + STATE_NAME)
        except NotFoundError:
            return None
        try:
            started = Started(**orjson.loads(data))
        except (orjson.JSONDecodeError, TypeError) as error:
            raise self._damaged(str(error)) from None
        if not all(isinstance(value, str) for value in asdict(started).values()):
            raise self._damaged("its values are not all texts")
        if not is_catalog_prefix(started.prefix):
            raise self._damaged(f"its prefix is {started.prefix!r}, not catalog/v<digits>")
        if overlap(started.prefix, started.previous):
            raise self._damaged(f"it is from {started.previous} into {started.prefix}")
        return started

    def refuse_in_use(self, prefix: str, pointer: Pointer | None) -> None:
        """Raises ``StorageError`` where a prefix is, contains or lies within that of the live catalog or of the one that was
        live before, or where there is no telling.
        """
        if pointer is None:
            raise self._damaged(f"without {POINTER_NAME} nothing tells whether {prefix} is the live catalog")
        for used, what in ((pointer.prefix, "the live catalog"), (pointer.previous, "the catalog before the live one")):
            if used is not None and overlap(prefix, used):
                raise self._damaged(f"its prefix {prefix} is that of {what}, {used}")
        if not is_catalog_prefix(prefix):
            raise self._damaged(f"its prefix is {prefix!r}, not catalog/v<digits>")

    def _damaged(self, why: str) -> StorageError:
        key = self._prefix + STATE_NAME
        return StorageError(
            f"can't use {self._store.uri}/{key}: {why}. Nothing was deleted or changed",
            hint="See who changed the assets bucket. Then delete this one object by hand and run `ursa catalog rebuild --abort`,"
            " which lets writers go on; `ursa catalog rebuild` begins anew under another prefix.",
            key=key,
            operation="read",
        )

    def start(self, previous: str, by: str) -> Started:
        """Begin one under the next free ``catalog/vN``; where somebody was faster, theirs is joined."""
        while True:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            wanted = Started(self._free_prefix(), previous, now, by, uuid.uuid4().hex)
            try:
                self._put(self._prefix + STATE_NAME, orjson.dumps(asdict(wanted)), if_absent=True)
            except PreconditionFailedError:
                # Ours too, where the first reply was lost.
                there = self.started()
                if there is None:
                    continue
                return there
            return wanted

    def end(self, prefix: str) -> None:
        """The rebuild into ``prefix`` is not under way any more; another one that was begun since stays."""
        started = self.started()
        if started is not None and started.prefix == prefix:
            self._store.delete(self._prefix + STATE_NAME)

    def chunks(self, prefix: str) -> Iterable[Done]:
        """What is done of the rebuild into ``prefix``; of a recording that was done twice, the later comes later.

        A chunk that is not as ``add_chunk`` writes it counts for nothing: its recordings are derived again.
        """
        keys = sorted(info.key for info in self._store.list(f"{self._prefix}{prefix}/_rebuild/"))
        for key, (data, _) in zip(keys, in_order(Stop(), self._store.read, keys, lambda: _READ_AT_ONCE), strict=True):
            try:
                yield from [_read_done(item) for item in orjson.loads(data)]
            except (ValueError, TypeError, KeyError) as error:
                _log.warning("%s/%s counts for nothing: %s", self._store.uri, key, error)

    def add_chunk(self, prefix: str, done: Sequence[Done]) -> None:
        """Note a chunk, after its rows were committed."""
        # Sorts by time, and two runs at once don't write over each other.
        data = orjson.dumps([asdict(item) for item in done])
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{hashlib.sha256(data).hexdigest()[:12]}.json"
        self._put(f"{self._prefix}{prefix}/_rebuild/{name}", data, if_absent=False)

    def drop(self, prefix: str) -> int:
        """Delete everything below a prefix that was never live; returns how many objects. Raises as ``refuse_in_use``."""
        self.refuse_in_use(prefix, read_pointer(self._store, self._prefix))
        keys = [info.key for info in self._store.list(f"{self._prefix}{prefix}/")]
        each(self._store.delete, keys)
        return len(keys)

    def _free_prefix(self) -> str:
        number = 2
        while any(self._store.list(f"{self._prefix}catalog/v{number}/")):
            number += 1
        return f"catalog/v{number}"

    def _put(self, key: str, data: bytes, *, if_absent: bool) -> None:
        self._store.put(key, data, sha256=hashlib.sha256(data).hexdigest(), if_absent=if_absent)


def _read_done(item: object) -> Done:
    """A chunk's entry as it was written. Raises ``ValueError``, ``TypeError``, ``KeyError``."""
    if not isinstance(item, dict):
        raise TypeError("an entry is not an object")
    read = Done(**{**item, "told": tuple(item["told"])})
    counts = (read.modalities, read.before)
    texts = (read.outcome, read.fingerprint, *read.told, read.why, read.arrived, read.listing)
    if not all(isinstance(text, str) for text in texts) or not all(type(count) is int for count in counts):
        raise TypeError(f"the entry of {read.rec_id!r} has values of other types")
    # A recording that was registered by hand goes by any one name.
    if not isinstance(read.rec_id, str) or read.rec_id in ("", ".", "..") or "/" in read.rec_id:
        raise ValueError(f"{read.rec_id!r} is not the name of a recording")
    if read.outcome not in _OUTCOMES:
        raise ValueError(f"the outcome of {read.rec_id} is {read.outcome!r}")
    if read.arrived and datetime.fromisoformat(read.arrived).tzinfo is None:
        raise ValueError(f"the time of {read.rec_id} has no zone")
    return read


def done(derived: Derived, fingerprint: str) -> Done:
    """A chunk's entry."""
    outcome = "made" if derived.row else "lost" if derived.lost else "left"
    return Done(
        derived.rec_id,
        outcome,
        fingerprint,
        len(derived.modalities),
        derived.told,
        derived.why,
        derived.before,
        derived.arrived.isoformat() if derived.arrived else "",
        derived.listing,
    )


def fingerprint(row: RecordingRow | None, modalities: Iterable[ModalityRow]) -> str:
    """Of a recording's rows in the live catalog: changes with any of their values; "" for none."""
    if row is None:
        return ""
    plain = [asdict(row), [asdict(item) for item in sorted(modalities, key=lambda item: item.name)]]
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def latest(items: Iterable[Done]) -> Mapping[str, Done]:
    """rec_id → the last word on it."""
    return {item.rec_id: item for item in items}
