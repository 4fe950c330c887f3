"""A Delta log as files: the names of commits and checkpoints, and when a commit is whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

LOG = "_delta_log/"
"""Where a table's log is, below the table."""
HINT = "_last_checkpoint"
"""The object of the log that names a recent checkpoint."""
PREVIOUS_KEY = "ursa_previous_sha256"
"""Key of a commit's metadata: the sha256 of the commit before it. A commit that was replaced or lost breaks the chain."""
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.(\d{10})\.(\d{10}))?\.parquet")
_V2_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.[0-9a-fA-F-]{36}\.(json|parquet)")
_OURS = "ursa_op_id"
_ACTIONS = {"add", "remove", "metaData", "protocol", "txn", "cdc", "commitInfo", "domainMetadata", "checkpointMetadata"}


class NotWholeError(Exception):
    """An object of the log, or a data file, is not what was written. The message says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint with all of its parts. ``names``: in the log."""

    version: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that is whole. ``data``: its bytes; ``actions``: its lines."""

    version: int
    data: bytes
    actions: Sequence[Mapping[str, Any]]

    @property
    def info(self) -> Mapping[str, Any]:
        """What it says of itself."""
        found: Any = next((action["commitInfo"] for action in self.actions if "commitInfo" in action), {})
        return found if isinstance(found, dict) else {}

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return hashlib.sha256(self.data).hexdigest()


def commit_name(version: int) -> str:
    """The name of a commit in the log."""
    return f"{version:020}.json"


def commits_in(names: Iterable[str]) -> list[int]:
    """The versions whose commits are among these names of a log, in order."""
    return sorted(int(match[1]) for match in map(_COMMIT.fullmatch, names) if match)


def checkpoints_in(names: Iterable[str]) -> list[Checkpoint]:
    """The checkpoints that are whole among these names of a log, in order."""
    found: dict[tuple[int, str], list[str]] = {}
    for name in names:
        if match := _CHECKPOINT.fullmatch(name):
            found.setdefault((int(match[1]), match[3] or "0000000001"), []).append(name)
    return [
        Checkpoint(version, tuple(sorted(parts)))
        for (version, count), parts in sorted(found.items())
        if len(parts) == int(count)
    ]


def has_v2_checkpoint(names: Iterable[str]) -> bool:
    """Whether another tool has written checkpoints of a kind that ursa does not read."""
    return any(map(_V2_CHECKPOINT.fullmatch, names))


def known_from(names: Collection[str]) -> tuple[Checkpoint | None, int]:
    """The newest checkpoint among these names of a log, and the version up to which commits follow it without a gap; -1
    where there is nothing to begin from.
    """
    checkpoint = max(checkpoints_in(names), key=lambda found: found.version, default=None)
    there = set(commits_in(names))
    version = checkpoint.version if checkpoint else -1
    while version + 1 in there:
        version += 1
    return checkpoint, version


def parse_commit(version: int, data: bytes) -> Commit:
    """A commit from its bytes. Raises ``NotWholeError``."""
    try:
        actions = [orjson.loads(line) for line in data.split(b"\n") if line.strip()]
    except orjson.JSONDecodeError as error:
        raise NotWholeError(f"a line of it is not JSON ({error})") from None
    if not all(isinstance(action, dict) for action in actions):
        raise NotWholeError("a line of it is not a JSON object")
    if not actions:
        raise NotWholeError("it is empty" if not data else "it holds nothing")
    if not any(_ACTIONS & action.keys() for action in actions):
        raise NotWholeError("nothing in it is an action of a Delta log")
    commit = Commit(version, data, actions)
    # Other writers may commit nothing but a description of themselves, or leave that out.
    if _OURS in commit.info and len(actions) < 2:
        raise NotWholeError("it ends after its first line")
    return commit


def local_name(path: str) -> str:
    """Where a data file lies below its table, from its path in the log. Raises ``NotWholeError``: outside of it."""
    name = unquote(path)
    if "://" in name or name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
        raise NotWholeError(f"the log names a file outside of the table: {path[:200]!r}")
    return name
