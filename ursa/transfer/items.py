"""What an upload is given, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ursa.errors import ChecksumMismatchError, ObjectConflictError, named
from ursa.policies import Evidence
from ursa.store import ObjectInfo
from ursa.transfer.digest import Digest, SourceFile


@dataclass(frozen=True, slots=True)
class UploadItem:
    """A file to send.

    ``sha256``: what the manifest states, or None. ``replace_etag``: the object that this one may replace; None means
    put-if-absent. ``data``: the content, where it was read already, and what that reading told of the file.
    """

    file: SourceFile
    key: str
    sha256: str | None = None
    replace_etag: str | None = None
    data: bytes | None = field(default=None, repr=False)
    digest: Digest | None = None

    @property
    def size_bytes(self) -> int:
        """Of the file, as it was when the recording was read."""
        return self.file.size_bytes


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file that is in the store. ``sent`` is False where another process had put the same content there first.
    ``digest``: what reading it told.
    """

    item: UploadItem
    digest: Digest
    etag: str
    evidence: Evidence
    sent: bool = True

    @property
    def sha256(self) -> str:
        """Of the file, and of the object."""
        return self.digest.sha256


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes of one file that are in the store now; ``resumed`` of them had been sent by an earlier run."""

    item: UploadItem
    bytes_done: int
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """One file is done; ``bytes_done`` of it are not told by a ``Moved`` before."""

    result: Uploaded
    bytes_done: int = 0


UploadEvent = Moved | Finished

Compare = Callable[[ObjectInfo, Digest], tuple[str, Evidence] | None]
"""Whether an object holds these bytes: its ETag and how well that is proven, or None (``ursa.bucket.proof``)."""


def check_stated(item: UploadItem, sha256: str) -> None:
    """Raise ``ChecksumMismatchError`` where a file is not what its manifest states."""
    if item.sha256 is not None and item.sha256 != sha256:
        raise ChecksumMismatchError(
            f"{item.file.path} has sha256 {sha256}, the manifest states {item.sha256}",
            hint="Nothing was registered. Copy the file from the rig again and run the same command.",
            path=item.file.path,
            expected=item.sha256,
            found=sha256,
        )


def conflict(keys: Sequence[str], *, registered: bool = False) -> ObjectConflictError:
    """The error for keys under which the bucket holds other content; ``registered``: than their rows say."""
    return ObjectConflictError(
        f"the bucket holds other content under {named(keys)}",
        hint="Nothing was overwritten and nothing was registered. Compare the two; where the disk is right, run again"
        f" with{' --overwrite' if registered else ''} --replace-objects.",
        keys=tuple(keys),
    )
