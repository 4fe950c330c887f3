"""The file system that an open file lies on, and how far what it says of a file can be relied on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Ctime(StrEnum):
    """Whose change times count. ``own``: always. ``if_differs``: of files whose ctime is not their mtime (a NAS may report
    the one for the other). ``none``: never.
    """

    OWN = "own"
    IF_DIFFERS = "if_differs"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Rules:
    """Of a type of file system. ``stable_inodes``: the same file has the same inode at every mount. ``network``: attributes
    are as of an open, so that a file is opened before it is looked at.
    """

    ctime: Ctime = Ctime.IF_DIFFERS
    stable_inodes: bool = False
    network: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """Where an open file lies. ``type``: as the system calls it, "" where nobody tells. ``volume``: the file system's UUID,
    or server and share; None where nobody tells.
    """

    type: str = ""
    volume: str | None = None


RULES: Mapping[str, Rules] = {}
"""By type; whatever is not listed has the defaults of ``Rules``."""


def rules_of(kind: str, rules: Mapping[str, Rules] = RULES) -> Rules:
    """The rules of a type of file system."""
    return rules.get(kind, Rules())


def mount_of(descriptor: int) -> Mount:
    """The mount of an open file. Raises nothing: what can't be told is left empty."""
    del descriptor
    return Mount()
