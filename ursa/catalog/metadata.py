"""What ursa keeps in the metadata of a row: the keys, and their values to and from text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from ursa.catalog.rows import ModalityRow, RecordingRow

AUXILIARY_KEY = "auxiliary_files"
"""Metadata key: JSON object of path → [size_bytes, sha256] for files outside of worker directories."""
WORKERS_KEY = "workers"
"""Metadata key: JSON list of the [modality, worker_id] that the recording's commit covers. A modality row that is not
in it belongs to a run that has not committed (yet)."""
NODES_KEY = "nodes"
"""Metadata key: hostnames of the machines that the manifests speak of, joined by commas."""
REGISTERED_AT_KEY = "registered_at"
"""Metadata key of a modality: when its files were proven, ISO 8601."""


def auxiliary(row: RecordingRow) -> dict[str, list[int | str | None]]:
    """Path → [size_bytes, sha256] of the files outside of worker directories; none where nobody can read the text."""
    try:
        parsed = json.loads(row.metadata.get(AUXILIARY_KEY, "{}"))
        return {str(path): [size, sha256] for path, (size, sha256) in parsed.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def workers_text(modalities: Iterable[ModalityRow]) -> str:
    """The metadata value for the workers that a commit covers."""
    return json.dumps(sorted([item.modality, item.worker_id] for item in modalities), ensure_ascii=False)


def workers_of(row: RecordingRow) -> set[tuple[str, str]] | None:
    """The workers that a recording's commit covers; None where its row does not say (or says what nobody can read)."""
    try:
        return {(str(modality), str(worker_id)) for modality, worker_id in json.loads(row.metadata[WORKERS_KEY])}
    except (KeyError, ValueError, TypeError):
        return None


def auxiliary_text(files: Mapping[str, Sequence[int | str | None]]) -> str:
    """The metadata value for auxiliary files."""
    return json.dumps(dict(sorted(files.items())), ensure_ascii=False, separators=(",", ":"))


def covers(row: RecordingRow, modality: ModalityRow) -> bool:
    """Whether a modality row belongs to what the recording's row has committed; a dead run may have left others."""
    covered = workers_of(row)
    same = (row.rec_id, row.recording_hash) == (modality.rec_id, modality.recording_hash)
    return same and (covered is None or (modality.modality, modality.worker_id) in covered)
