"""What `ls` and `show` tell of a recording: its row, its participants' names, its modalities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ursa.beside import begin
from ursa.catalog.catalog import Catalog
from ursa.catalog.metadata import covers
from ursa.catalog.query import query
from ursa.catalog.rows import ModalityRow, RecordingRow
from ursa.catalog.where import any_of


@dataclass(frozen=True, slots=True)
class RecordingOverview:
    """A recording with all its modalities. ``participants``: display names, an id where there is no name."""

    recording: RecordingRow
    participants: tuple[str, ...]
    modalities: tuple[ModalityRow, ...]

    @property
    def bytes(self) -> int:
        """All its raw data, bytes."""
        return sum(row.bytes for row in self.modalities)

    @property
    def nodes_expected(self) -> tuple[str, ...]:
        """The machines that the manifest expects."""
        return tuple(name for name in self.recording.metadata.get("nodes", "").split(",") if name)

    @property
    def nodes_here(self) -> tuple[str, ...]:
        """The machines whose data is registered."""
        return tuple(sorted({row.node for row in self.modalities if row.node}))


def overview(
    catalog: Catalog,
    *,
    recording_hash: str | Iterable[str] | None = None,
    participants: Iterable[str] | None = None,
    modalities: Iterable[str] | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
) -> list[RecordingOverview]:
    """Recordings that meet all that is given, by date, each with all its modalities."""
    with catalog.snapshot():
        # Of what is asked for by its key, the rows tell which files are needed.
        narrowed = any(item is not None for item in (recording_hash, participants, since, until))
        ahead = [begin(catalog.participants.view.need)]
        ahead += [] if narrowed else [begin(catalog.modalities.view.need)]
        found = query(
            catalog,
            recording_hash=recording_hash,
            participants=participants,
            modalities=modalities,
            since=since,
            until=until,
            names=True,
        ).recordings
        rows: dict[str, list[ModalityRow]] = {}
        of = {row.recording_hash: row for row in found}
        for row in catalog.modalities_for(found):
            if covers(of[row.recording_hash], row):
                rows.setdefault(row.recording_hash, []).append(row)
        ids = {key for recording in found for key in recording.participant_ids}
        for files in ahead:
            files.exception()  # what fails is told by the query that needs it
        names = {
            row.participant_id: row.display_name for row in catalog.participants.select(any_of("participant_id", ids))
        }
    return [
        RecordingOverview(
            recording,
            tuple(names.get(key) or key for key in recording.participant_ids),
            tuple(rows.get(recording.recording_hash, ())),
        )
        for recording in found
    ]
