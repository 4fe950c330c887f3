"""What a reconstruct did, as a plain value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Made(StrEnum):
    """``made``: there was no manifest. ``replaced``: a placeholder gave way. ``kept``: there is a valid one, which stays."""

    MADE = "made"
    REPLACED = "replaced"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class ReconstructResult:
    """A recording's manifest: the one that was written, or the valid one that was there.

    ``location`` is its key or path. ``recording_hash`` is None where nobody has computed it: in a dry run, and for a kept
    manifest that neither states it nor every sha256. ``participant`` is what the manifest says, ``"__unknown__"`` where
    there is no ``participant.txt``. ``files`` and ``bytes`` are what it lists, auxiliary files included. ``bytes_hashed``
    were read by this run (in a dry run: would be), ``files_known`` is how many files' sha256 was known without reading.
    """

    rec_id: str
    action: Made
    location: str
    recording_hash: str | None
    participant: str | None
    files: int
    bytes: int
    bytes_hashed: int = 0
    files_known: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    dry_run: bool = False
