"""The choices that the API, the command line and the docs share."""

from __future__ import annotations

from enum import StrEnum


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
