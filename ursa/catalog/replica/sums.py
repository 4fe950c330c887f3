"""The sha256 of each file of a replica, as it came: what is on this disk is compared with it before it counts."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

NAME = "sums"


def sha256(data: bytes) -> str:
    """Of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


class Sums:
    """Those of one table's directory, in a file that only grows: other processes add to it as well."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, str] = {}
        self._read_bytes = 0

    def of(self, name: str) -> str | None:
        """The sha256 of a file by its name below the table; None where nobody noted it."""
        if name not in self._known:
            self._load()
        return self._known.get(name)

    def add(self, sums: Mapping[str, str]) -> None:
        """Note files that are about to get their names, or have just got them. Raises ``OSError``."""
        text = "".join(f"{digest} {name}\n" for name, digest in sums.items())
        with (self._directory / NAME).open("ab") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        self._known |= sums

    def right(self, name: str) -> bool:
        """Whether the file is there, and is what came. Reads it whole."""
        wanted = self.of(name)
        try:
            with (self._directory / name).open("rb") as file:
                return wanted is not None and hashlib.file_digest(file, "sha256").hexdigest() == wanted
        except OSError:
            return False

    def _load(self) -> None:
        with contextlib.suppress(OSError):
            data = (self._directory / NAME).read_bytes()
            if len(data) == self._read_bytes:
                return
            self._read_bytes = len(data)
            for line in data.decode("utf-8", "surrogateescape").split("\n")[:-1]:
                digest, _, name = line.partition(" ")
                if len(digest) == 64 and name:
                    self._known[name] = digest
