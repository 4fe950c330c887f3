"""What is under a key: another process was there first, or the store did not prove what it was sent."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ursa.errors import StorageError
from ursa.store import ObjectInfo, Store
from ursa.transfer.digest import Digest
from ursa.transfer.items import Compare, Uploaded, UploadItem, conflict


@dataclass(frozen=True, slots=True)
class Landing:
    """Looks at objects. ``compare``: judges what is there."""

    store: Store
    compare: Compare

    def settle(self, item: UploadItem, local: Digest) -> Uploaded:
        """Another process, perhaps this one in a request whose reply was lost, wrote the key first.

        Raises:
            ObjectConflictError: it holds other bytes. NotFoundError: there is no such object (any more).
        """
        found = self._compared(item, self.store.head(item.key), local)
        if found is None:
            raise conflict([item.key])
        return found

    def read_back(self, item: UploadItem, local: Digest) -> Uploaded:
        """Of a store that did not prove that it has what was sent: what it gives back decides. Raises ``StorageError``."""
        found = self._compared(item, self.store.head(item.key), local)
        if found is None:
            raise StorageError(
                f"{item.key} arrived damaged: what the store gives back is not what was sent",
                hint="Run the same command with --replace-objects; if it happens again, the network or server is at fault.",
                key=item.key,
                operation="write",
            )
        return replace(found, sent=True)

    def _compared(self, item: UploadItem, found: ObjectInfo, local: Digest) -> Uploaded | None:
        """What the object under the key is, where it holds the same bytes."""
        held = self.compare(found, local)
        return Uploaded(item, local, *held, sent=False) if held else None
