"""Queries over recordings and their modalities, as scientists ask them."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ursa.catalog.catalog import Catalog
from ursa.catalog.metadata import covers
from ursa.catalog.rows import ModalityRow, RecordingRow, normalize_name
from ursa.catalog.where import EVERYTHING, NOTHING, Where, any_of, at_or_after, before, by_hash, by_rec_id, literal
from ursa.errors import UsageError


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query found.

    ``modalities`` maps a key to the rows that have it, over all ``recordings``: ``"eeg"`` where a recording has one
    eeg worker, ``"eeg_a"`` and ``"eeg_b"`` where it has several.
    """

    recordings: tuple[RecordingRow, ...]
    modalities: dict[str, list[ModalityRow]]

    @property
    def rec_ids(self) -> dict[str, str]:
        """recording_hash → rec_id."""
        return {row.recording_hash: row.rec_id for row in self.recordings}

    @property
    def bytes(self) -> int:
        """All that a download of this result holds, bytes."""
        return sum(row.bytes for rows in self.modalities.values() for row in rows)


def query(
    catalog: Catalog,
    *,
    recording_hash: str | Iterable[str] | None = None,
    modalities: str | Iterable[str] | None = None,
    participants: str | Iterable[str] | None = None,
    status: str | Iterable[str] | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    names: bool = False,
) -> QueryResult:
    """Find recordings; every argument that is given narrows the result.

    Args:
        recording_hash: one or several.
        modalities: families (``"eeg"``: all its workers) or single workers (``"eeg_a"``).
        participants: names or participant ids; any of them.
        status: of the modalities, such as ``"raw"``.
        since: earliest ``started_at``; a text is ISO 8601, UTC where it has no zone.
        until: ``started_at`` before this.
        names: the rows of the recordings' participants are asked for next: they are fetched with the modalities.
    """
    wanted = None if modalities is None else frozenset(_several(modalities))
    statuses = None if status is None else frozenset(_several(status))
    with catalog.snapshot():
        terms = [
            *([by_hash(_several(recording_hash))] if recording_hash is not None else []),
            *([_participants(catalog, _several(participants))] if participants is not None else []),
            *([at_or_after("started_at", moment(since))] if since is not None else []),
            *([before("started_at", moment(until))] if until is not None else []),
        ]
        wherever = functools.reduce(operator.and_, terms, EVERYTHING)
        if not terms:
            everybody = [(catalog.participants, EVERYTHING)] if names else []
            catalog.bring((catalog.recordings, EVERYTHING), (catalog.modalities, EVERYTHING), *everybody)
        recordings = catalog.recordings.select(wherever, tail="ORDER BY rec_id")
        if terms and names:
            ids = {key for row in recordings for key in row.participant_ids}
            of_these = by_rec_id(row.rec_id for row in recordings)
            catalog.bring((catalog.modalities, of_these), (catalog.participants, any_of("participant_id", ids)))
        rows = catalog.modalities_for(recordings) if terms else catalog.modalities.select()
    return _result(recordings, rows, wanted, statuses)


def moment(text: datetime | str) -> datetime:
    """A time in a query: a datetime, or ISO 8601 text (a date is its first moment), UTC where it has no zone."""
    if isinstance(text, str):
        try:
            text = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(f"{text!r} is not a date or time", hint="Write for instance 2026-05-20.") from None
    return text if text.tzinfo else text.replace(tzinfo=UTC)


def _result(
    recordings: Sequence[RecordingRow],
    rows: Sequence[ModalityRow],
    wanted: frozenset[str] | None,
    statuses: frozenset[str] | None,
) -> QueryResult:
    order = {row.recording_hash: index for index, row in enumerate(recordings)}
    of = {row.recording_hash: row for row in recordings}
    visible = [row for row in rows if row.recording_hash in of and covers(of[row.recording_hash], row)]
    workers = Counter((row.recording_hash, row.modality) for row in visible)
    picked = [
        row
        for row in visible
        if (wanted is None or row.modality in wanted or row.name in wanted)
        and (statuses is None or row.status in statuses)
    ]
    keyed: dict[str, list[ModalityRow]] = {}
    for row in sorted(picked, key=lambda row: (order[row.recording_hash], row.modality, row.worker_id)):
        alone = workers[row.recording_hash, row.modality] == 1
        keyed.setdefault(row.modality if alone else row.name, []).append(row)
    having = {row.recording_hash for row in picked}
    narrowed = wanted is not None or statuses is not None
    found = tuple(row for row in recordings if not narrowed or row.recording_hash in having)
    return QueryResult(found, dict(sorted(keyed.items())))


def _participants(catalog: Catalog, names: Sequence[str]) -> Where:
    """Recordings of any of these participants, by id or by name (folded as ``participant_id`` folds it)."""
    wanted = {normalize_name(name) for name in names}
    ids = set(names) | {
        row.participant_id for row in catalog.participants.select() if normalize_name(row.display_name or "") in wanted
    }
    return functools.reduce(
        operator.or_, (Where(f"array_has(participant_ids, {literal(key)})") for key in sorted(ids)), NOTHING
    )


def _several(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
