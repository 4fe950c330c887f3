"""Progress of one reconstruct: from counts to ``HashProgress``, the callback and the logger."""

from __future__ import annotations

import logging

from ursa.events import HashPhase, HashProgress
from ursa.telling import Teller


class Progress(Teller[HashProgress]):
    """Counts what a reconstruct reads, and tells."""

    logger = logging.getLogger("ursa.reconstruct")
    quiet = frozenset({"plan", "hash", "file_done"})

    def planned(self, files: int, size_bytes: int) -> None:
        """So much has to be read."""
        self._files_total, self._bytes_total = files, size_bytes
        self._tell("plan", "", always=True)

    def hashed(self, path: str, size_bytes: int) -> None:
        """More bytes of a file are hashed."""
        self._bytes_done += size_bytes
        self._tell("hash", path)

    def file_done(self, path: str) -> None:
        """A file's sha256 is known."""
        self._files_done += 1
        self._tell("file_done", path, always=True)

    def writing(self, name: str) -> None:
        """The manifest is about to be written."""
        self._tell("write", name, always=True)

    def done(self) -> None:
        """It is there."""
        self._send_last(lambda: self._tell("done", "", always=True))

    def _tell(self, phase: HashPhase, path: str, *, always: bool = False) -> None:
        if not self._due(path, self._bytes_done, always=always):
            return
        self._send(
            HashProgress(
                phase=phase,
                rec_id=self._rec_id,
                current_file=path,
                bytes_done=self._bytes_done,
                bytes_total=self._bytes_total,
                files_done=self._files_done,
                files_total=self._files_total,
                elapsed_s=self.seconds,
                bytes_per_s=self._speed.bytes_per_s,
                eta_s=self._speed.eta_s(self._bytes_total - self._bytes_done),
            )
        )
