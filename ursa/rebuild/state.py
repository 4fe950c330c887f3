"""Where a rebuild stands, kept in the assets bucket, so that any machine goes on with it.

``REBUILD.json`` beside ``ACTIVE.json`` names the prefix that is being filled; below that prefix ``_rebuild/`` has an
object for each chunk of recordings that is done: what was made of each, and a fingerprint of the live rows it was made
from, so that the last catch-up finds what has changed since.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import orjson

from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.errors import StorageError
from ursa.rebuild.derive import Derived
from ursa.store import NotFoundError, PreconditionFailedError, Store

STATE_NAME = "REBUILD.json"


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
        key = self._prefix + STATE_NAME
        try:
            data, _ = self._store.read(key)
        except NotFoundError:
            return None
        try:
            return Started(**orjson.loads(data))
        except (orjson.JSONDecodeError, TypeError) as error:
            raise StorageError(f"can't use {self._store.uri}/{key}: {error}", key=key, operation="read") from None

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
        """What is done of the rebuild into ``prefix``; of a recording that was done twice, the later comes later."""
        for info in sorted(self._store.list(f"{self._prefix}{prefix}/_rebuild/"), key=lambda info: info.key):
            data, _ = self._store.read(info.key)
            for item in orjson.loads(data):
                yield Done(**{**item, "told": tuple(item["told"])})

    def add_chunk(self, prefix: str, done: Sequence[Done]) -> None:
        """Note a chunk, after its rows were committed."""
        # Sorts by time, and two runs at once don't write over each other.
        data = orjson.dumps([asdict(item) for item in done])
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{hashlib.sha256(data).hexdigest()[:12]}.json"
        self._put(f"{self._prefix}{prefix}/_rebuild/{name}", data, if_absent=False)

    def drop(self, prefix: str) -> int:
        """Delete everything below a prefix that was never live; returns how many objects."""
        infos = list(self._store.list(f"{self._prefix}{prefix}/"))
        for info in infos:
            self._store.delete(info.key)
        return len(infos)

    def _free_prefix(self) -> str:
        number = 2
        while any(self._store.list(f"{self._prefix}catalog/v{number}/")):
            number += 1
        return f"catalog/v{number}"

    def _put(self, key: str, data: bytes, *, if_absent: bool) -> None:
        self._store.put(key, data, sha256=hashlib.sha256(data).hexdigest(), if_absent=if_absent)


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
