"""What lies in the bucket of a recording: its prefix, and the keys elsewhere that its rows name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ursa.beside import each
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow
from ursa.names import nfc
from ursa.store import ObjectInfo


class Lists(Protocol):
    """What of a store is asked."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``."""


class Listing:
    """The objects of a recording, by their path in NFC; each keeps the key that it really has.

    ``prefix``: of the recording. Objects elsewhere are found by their key only (``of``).
    """

    def __init__(self, prefix: str, objects: Iterable[ObjectInfo]) -> None:
        self.prefix = prefix
        self._by_path: dict[str, ObjectInfo] = {}
        self._by_key: dict[str, ObjectInfo] = {}
        for info in objects:
            self._by_key[info.key] = info
            if not info.key.startswith(prefix):
                continue
            path = info.key.removeprefix(prefix)
            normal = nfc(path)
            if path == normal or normal not in self._by_path:
                self._by_path[normal] = info

    def get(self, path: str) -> ObjectInfo | None:
        """The object of a path, or None."""
        return self._by_path.get(path)

    def of(self, row: FileRow) -> ObjectInfo | None:
        """The object that a row names by its key (in either form of Unicode), or None. A row without a key: by its path."""
        found = self._by_key.get(row.key)
        if found is None and (not row.key or row.key.startswith(self.prefix)):
            found = self._by_path.get(nfc(row.key.removeprefix(self.prefix)) or row.path)
        return found

    def items(self) -> Iterable[tuple[str, ObjectInfo]]:
        """Path and object, by path."""
        return sorted(self._by_path.items())

    def key(self, path: str) -> str:
        """The key of a path: that of the object that is there, else the NFC one."""
        info = self._by_path.get(path)
        return info.key if info else self.prefix + path


def list_recording(
    store: Lists, prefix: str, rows: Iterable[FileRow] = (), objects: Iterable[ObjectInfo] | None = None
) -> Listing:
    """One LIST of the recording's prefix, unless ``objects`` are what it has; and beside it one for each directory elsewhere
    that ``rows`` have keys in.
    """
    elsewhere = {_directory(row.key) for row in rows if row.key and not row.key.startswith(prefix)}
    wanted = sorted(elsewhere if objects is not None else elsewhere | {prefix})
    found = each(lambda place: list(store.list(place)), wanted)
    return Listing(prefix, [*(objects or ()), *(info for place in found for info in place)])


def files_of(row: RecordingRow | None, modalities: Iterable[ModalityRow]) -> list[FileRow]:
    """Every file that the rows of a recording name, raw and auxiliary."""
    return [file for item in modalities for file in item.files] + list(row.auxiliary_files if row else ())


def _directory(key: str) -> str:
    directory, slash, _name = key.rpartition("/")
    return directory + slash or key
