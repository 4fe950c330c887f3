"""Made-up progress events; imports little, for scripts that start often."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ursa.events import UploadProgress

MIB = 1 << 20
REC = "rec_20260520_195628_{:04x}"


def upload(rec_id: str, done: int = 0, total: int = 100 * MIB, **fields: Any) -> UploadProgress:
    """An event in the midst of an upload."""
    event = UploadProgress(
        "upload", rec_id, "eeg_a/seg_000.edf", done, 10 * MIB, done, total, 0, 3, 0, 0, 1.0, 5.0 * MIB, 20.0
    )
    return replace(event, **fields)
