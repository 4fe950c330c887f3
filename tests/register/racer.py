"""A process that registers what it is told: ``racer.py CONFIG PROFILE``, then numbers on stdin, a line each.

It answers each number with a line: the action, or the class and the message of the error. What is registered is made
up (there are no bytes behind it), so that a race is about the catalog alone.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ursa import DataInterface, UrsaError
from ursa.catalog.metadata import WORKERS_KEY, workers_text
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow, participant_id
from ursa.policies import Evidence
from ursa.register.build import Registration
from ursa.register.committer import Committer

START = datetime(2026, 5, 20, 12, tzinfo=UTC)


def rec_id(number: int) -> str:
    return f"rec_20260520_{number:06}_ab"


def recording_hash(number: int) -> str:
    return f"{number % 256:02x}{number:062x}"


def registration(
    number: int,
    workers: tuple[str, ...] = ("eeg_a", "camera_left"),
    *,
    digest: str | None = None,
    participants: tuple[str, ...] = ("Aria Lin",),
    size_bytes: int = 10,
) -> Registration:
    """What an ingest of recording ``number`` wants; ``digest``: another recording_hash, that it derived."""
    under, name = digest or recording_hash(number), rec_id(number)
    modalities = tuple(_modality(under, name, worker, size_bytes) for worker in sorted(workers))
    row = RecordingRow(
        under,
        name,
        START + timedelta(seconds=number),
        duration_s=60.0,
        participant_ids=tuple(sorted(map(participant_id, participants))),
        metadata={"manifest_recording_id": name, WORKERS_KEY: workers_text(modalities)},
        registered_at=datetime.now(UTC),
        registered_by="ada@green-mantis",
    )
    return Registration(row, modalities, participants, None, overwrite=False)


def _modality(under: str, name: str, worker: str, size_bytes: int) -> ModalityRow:
    modality, _, worker_id = worker.partition("_")
    path = f"{worker}/seg_000.bin"
    file = FileRow(path, f"recordings/{name}/{path}", size_bytes, "cd" * 32, "etag", Evidence.SHA256)
    return ModalityRow(under, modality, worker_id, files=(file,), bytes=size_bytes, rec_id=name)


def main() -> None:
    config, profile = sys.argv[1:]
    data = DataInterface(profile, Path(config))
    data.enable_writes()
    committer = Committer(data._catalog)
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            print(committer.register(registration(int(line))).action, flush=True)
        except UrsaError as error:
            print(f"{type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
