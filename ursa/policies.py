"""The choices that the API, the command line and the docs share."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from ursa.errors import UsageError

E = TypeVar("E", bound=StrEnum)


def choice(kind: type[E], value: E | str, name: str) -> E:
    """The member of ``kind`` that ``value`` names. Raises ``UsageError`` (a ``ValueError``) with all that there are."""
    try:
        return kind(value)
    except ValueError:
        every = [str(member) for member in kind]
        told = " or ".join([", ".join(every[:-1]), every[-1]])
        raise UsageError(f"{name} is {value!r}; it is {told}") from None


class Evidence(StrEnum):
    """How good the proof is that an object holds the bytes with a sha256, best first.

    ``sha256``: the object's bytes were measured to have it while it had this ETag: read and hashed, or checked by a
    server that was seen to refuse a wrong one. ``etag``: the ETag is the one that the bytes with this sha256 must have.
    ``claimed``: somebody states it (a manifest, the object's metadata) and the size fits; nobody compared. ``size``: only
    the size was compared. The first two are measurements, the others are not.
    """

    SHA256 = "sha256"
    ETAG = "etag"
    CLAIMED = "claimed"
    SIZE = "size"

    @property
    def proven(self) -> bool:
        """Whether it is a measurement: what ``HAVE``, a skip and ``OK`` rest on."""
        return self in (Evidence.SHA256, Evidence.ETAG)


class Action(StrEnum):
    """What a registration does to the catalog."""

    CREATED = "created"
    MERGED = "merged"
    OVERWRITTEN = "overwritten"


class Existing(StrEnum):
    """What to do with a recording that is registered already, with the same files."""

    ERROR = "error"
    SKIP = "skip"
    OVERWRITE = "overwrite"


class OnFailure(StrEnum):
    """What a batch does after a recording failed."""

    CONTINUE = "continue"
    STOP = "stop"


class OnConflict(StrEnum):
    """What ``register_recording`` does with a recording that has a row. ``error``: refuse. ``extend``: the longer
    duration_s. ``merge_participants``: the union; every other field that is given must match. ``overwrite``: duration_s
    and ended_at, nothing else.
    """

    ERROR = "error"
    EXTEND = "extend"
    MERGE_PARTICIPANTS = "merge_participants"
    OVERWRITE = "overwrite"


class ModalityOnConflict(StrEnum):
    """What ``register_modality`` does with a modality that has a row."""

    ERROR = "error"
    OVERWRITE = "overwrite"


class Level(StrEnum):
    """How much ``verify`` does. ``head``: presence, size and ETag, from listings. ``checksum``: also the checksums that
    the store keeps, and local files' own. ``full``: every object is read and hashed.
    """

    HEAD = "head"
    CHECKSUM = "checksum"
    FULL = "full"


class Mark(StrEnum):
    """What ``verify`` says of a file."""

    SAME = "="
    MISSING = "-"
    UNREGISTERED = "+"
    DIFFERENT = "*"
    ERROR = "!"
