"""Who is in the recordings: an overview, and what the bucket's ``participant.txt`` could add (a ``BackfillPlan``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ursa.catalog.catalog import Catalog
from ursa.catalog.rows import RecordingRow, participant_id
from ursa.catalog.where import EVERYTHING
from ursa.errors import InvalidRecordingError
from ursa.manifest import normalize_path
from ursa.reconstruct.run import each
from ursa.recording import MAX_PARTICIPANT_CHARS, PARTICIPANT_NAME, parse_participant
from ursa.register.services import Services
from ursa.store import NotFoundError, Store

_MOST_BYTES = 64 * 1024
_MOST_KEY_BYTES = 1024
# Other ids were given by a caller: no name leads to them.
_DERIVED_ID = re.compile(r"p_[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class ParticipantOverview:
    """A participant and its recordings. ``display_name`` is None where recordings name an id that has no row.

    ``first`` and ``last``: when its first and last recording started, None where nobody knows.
    """

    participant_id: str
    display_name: str | None
    recordings: int
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True, slots=True)
class ParticipantsOverview:
    """All participants by name, those without a row last. ``recordings_without``: recordings that name nobody."""

    participants: tuple[ParticipantOverview, ...]
    recordings_without: int


class State(StrEnum):
    """What a backfill is to do with a recording, or has done."""

    ATTACH = "attach"
    """It has no participant, and participant.txt has a name."""
    NAME = "name"
    """It names an id without a row, and participant.txt has the name that this id is derived from."""
    NO_FILE = "no_file"
    EMPTY = "empty"
    BROKEN = "broken"
    OTHER = "other"
    """It names an id without a row, and participant.txt has a name that leads to another id."""
    ATTACHED = "attached"
    NAMED = "named"
    OVERTAKEN = "overtaken"
    """Somebody else gave it a participant, or its id a name, after the plan was made; that stands."""
    GONE = "gone"
    """It left the catalog after the plan was made."""


@dataclass(frozen=True, slots=True)
class BackfillItem:
    """A recording. ``name`` and ``participant_id``: what its participant.txt says; ``error``: why it is broken."""

    rec_id: str
    state: State
    name: str | None = None
    participant_id: str | None = None
    error: InvalidRecordingError | None = None

    @property
    def writes(self) -> bool:
        """Whether there is something to write for it."""
        return self.state in (State.ATTACH, State.NAME)

    @property
    def ended(self) -> bool:
        """Whether there was something to write for it, and that is over."""
        return self.state in (State.ATTACHED, State.NAMED, State.OVERTAKEN, State.GONE)


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """Recordings by their rec_id. ``left_alone``: so many have participants, all of them with a row; not in ``items``."""

    items: tuple[BackfillItem, ...]
    left_alone: int

    def count(self, state: State) -> int:
        """How many recordings are in this state."""
        return sum(item.state == state for item in self.items)

    @property
    def to_write(self) -> int:
        """For how many recordings there is something to write."""
        return sum(item.writes for item in self.items)


@dataclass(frozen=True, slots=True)
class BackfillResult(BackfillPlan):
    """The plan's recordings as they are now. ``participants_made``: rows that were added to the participants table."""

    participants_made: int


def participants_overview(catalog: Catalog) -> ParticipantsOverview:
    """Everybody whom the participants table or a recording names."""
    with catalog.snapshot():
        catalog.bring((catalog.recordings, EVERYTHING), (catalog.participants, EVERYTHING))
        recordings = catalog.list_recordings()
        names = {row.participant_id: row.display_name for row in catalog.list_participants()}
    of: dict[str, list[RecordingRow]] = {key: [] for key in names}
    for row in recordings:
        for key in dict.fromkeys(row.participant_ids):
            of.setdefault(key, []).append(row)
    found = (_overview(key, names.get(key), rows) for key, rows in of.items())
    ordered = sorted(found, key=lambda item: (item.display_name is None, item.display_name or "", item.participant_id))
    return ParticipantsOverview(tuple(ordered), sum(not row.participant_ids for row in recordings))


def plan_backfill(services: Services, refs: Iterable[str] = ()) -> BackfillPlan:
    """What a backfill would do: one GET for a recording without participants, or with an id that has no row yet.

    Args:
        refs: rec_ids, recording_hashes or unique prefixes of one; none is every recording of the catalog.

    Raises:
        RecordingNotFoundError, UsageError (a prefix of several), StorageError, CredentialsError. Nothing is written.
    """
    catalog = services.catalog
    with catalog.snapshot():
        rows = {row.rec_id: row for row in _chosen(catalog, list(refs))}
        known = {row.participant_id for row in catalog.list_participants()}
    nameless = {rec_id: _nameless(row, known) for rec_id, row in rows.items()}
    wanted = sorted(rec_id for rec_id, row in rows.items() if not row.participant_ids or nameless[rec_id])

    def look(rec_id: str) -> BackfillItem:
        return _look(services.raw, services.raw_prefix, rec_id, nameless[rec_id])

    return BackfillPlan(tuple(each(services.engine, services.stop, wanted, look)), len(rows) - len(wanted))


def _chosen(catalog: Catalog, refs: Sequence[str]) -> list[RecordingRow]:
    if not refs:
        return catalog.list_recordings()
    exact = catalog.lookup_all(refs, refs)
    names = {row.rec_id for row in exact} | {row.recording_hash for row in exact}
    # What is written out needs no look-up of its own; a prefix does, and may be nobody's or several's.
    return exact + [catalog.resolve(ref) for ref in refs if ref not in names]


def _nameless(row: RecordingRow, known: set[str]) -> frozenset[str]:
    """Ids of a recording that have no row, and that a name may lead to."""
    return frozenset(key for key in row.participant_ids if key not in known and _DERIVED_ID.fullmatch(key))


def _look(store: Store, raw_prefix: str, rec_id: str, nameless: frozenset[str]) -> BackfillItem:
    """What a recording's participant.txt is good for. Raises ``StorageError``."""
    key = f"{raw_prefix}{rec_id}/{PARTICIPANT_NAME}"
    if not _is_key(rec_id, key):
        return BackfillItem(rec_id, State.NO_FILE)
    source = f"{store.uri}/{key}"
    try:
        name = parse_participant(_read(store, key, source), source=source)
    except NotFoundError:
        return BackfillItem(rec_id, State.NO_FILE)
    except InvalidRecordingError as error:
        return BackfillItem(rec_id, State.BROKEN, error=_broken(rec_id, error))
    if name is None:
        return BackfillItem(rec_id, State.EMPTY)
    derived = participant_id(name)
    if not nameless:
        return BackfillItem(rec_id, State.ATTACH, name, derived)
    return BackfillItem(rec_id, State.NAME if derived in nameless else State.OTHER, name, derived)


def _is_key(rec_id: str, key: str) -> bool:
    """Whether a recording can have objects: ``register_recording`` takes any text for a rec_id."""
    try:
        return "/" not in rec_id and normalize_path(rec_id) == rec_id and len(key.encode()) <= _MOST_KEY_BYTES
    except ValueError:
        return False


def _read(store: Store, key: str, source: str) -> bytes:
    """A participant.txt. Not by a ranged GET, which servers refuse of an empty object.

    Raises:
        NotFoundError: there is none.
        InvalidRecordingError: it is far too long.
    """
    data = bytearray()
    for block in store.stream(key):
        data += block
        if len(data) > _MOST_BYTES:
            # What is left of it is not fetched.
            raise InvalidRecordingError(f"{source}: it has more than {MAX_PARTICIPANT_CHARS} characters", path=source)
    return bytes(data)


def _broken(rec_id: str, error: InvalidRecordingError) -> InvalidRecordingError:
    return InvalidRecordingError(
        error.message,
        hint=f"No participant was attached. Put the name there, on one line of at most {MAX_PARTICIPANT_CHARS}"
        f" characters, as UTF-8, then run `ursa participants backfill {rec_id}`.",
        path=error.path,
    )


def _overview(key: str, name: str | None, rows: Sequence[RecordingRow]) -> ParticipantOverview:
    started = [row.started_at for row in rows if row.started_at is not None]
    return ParticipantOverview(key, name, len(rows), min(started, default=None), max(started, default=None))
