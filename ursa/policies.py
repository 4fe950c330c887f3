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
