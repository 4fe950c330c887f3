"""Every error that ursa raises on purpose.

Each class carries the process exit code that the command line returns for it (``exit_code``), a ``hint`` with the
next thing to type, and typed fields, so that a script need not parse messages.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

_log = logging.getLogger("ursa")


def named(names: Sequence[str], most: int = 20) -> str:
    """Names for a message: the first ones, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class UrsaError(Exception):
    """Base of all ursa errors.

    Args:
        message: what happened, to which file or key, and why.
        hint: the next command or step that mends it; None when there is nothing to add.
        fields: typed details; each is also an attribute of the exception.
    """

    exit_code: ClassVar[int] = 1
    hint: str | None

    def __init__(self, message: str, *, hint: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields
        for name, value in fields.items():
            setattr(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.fields)


def _rebuild(cls: type[UrsaError], message: str, hint: str | None, fields: dict[str, Any]) -> UrsaError:
    """Errors cross process borders (executors), so they pickle with their fields."""
    return cls(message, hint=hint, **fields)


class UsageError(UrsaError, ValueError):
    """An argument has a value that no call could honour."""

    exit_code = 2


class ConfigError(UrsaError):
    """The configuration is missing, unreadable or wrong. ``path``: the file; ``key``: the setting."""

    exit_code = 2
    path: str | None = None
    key: str | None = None


class CredentialsError(UrsaError):
    """Credentials can't be had, or the server refuses them. ``role``, ``provider``: which ones."""

    exit_code = 4
    role: str | None = None
    provider: str | None = None


class WritesNotEnabledError(UrsaError):
    """A write without its role. ``role``: the role to pass to ``enable_writes``."""

    exit_code = 2
    role: str | None = None


class InvalidRecordingError(UrsaError):
    """The recording directory can't be taken as it is. ``path``: the offending file or directory."""

    path: str | None = None


class ManifestError(UrsaError):
    """A manifest that can't be read as one.

    ``path``: the file or key; ``pointer``: the JSON pointer of the field; ``found``, ``expected``: in words.
    """

    path: str | None = None
    pointer: str = ""
    found: str = ""
    expected: str = ""


class ManifestNotFoundError(UrsaError):
    """The recording has no manifest, or only a placeholder with an empty ``files`` list. ``rec_id``: which."""

    rec_id: str | None = None


class RecordingExistsError(UrsaError):
    """The recording is registered already. ``rec_id``, ``recording_hash``: which. ``waiting``: manifests on this disk that
    are not in the bucket yet, since they list files of a node whose half has not come. ``told``: what a HAVE line adds.
    """

    exit_code = 5
    rec_id: str | None = None
    recording_hash: str | None = None
    waiting: tuple[str, ...] = ()
    told: str = ""


class RecordingNotFoundError(UrsaError):
    """No such recording in the catalog. ``ref``: what was asked for."""

    ref: str | None = None


class MissingFilesError(UrsaError):
    """Files that a manifest lists are neither on the disk nor whole in the bucket. ``paths``: all of them."""

    exit_code = 6
    paths: Sequence[str] = ()


class ChecksumMismatchError(UrsaError):
    """Bytes differ from what is stated about them. ``path``; ``expected`` and ``found``: sizes or sha256."""

    exit_code = 6
    path: str | None = None
    expected: str = ""
    found: str = ""


class FileChangedError(UrsaError):
    """A file changed while it was read: it is still being written. ``path``: which."""

    path: str | None = None


class ObjectConflictError(UrsaError):
    """The bucket holds other content under a key. ``keys``: all of them."""

    exit_code = 5
    keys: Sequence[str] = ()


class ConflictError(UrsaError):
    """The catalog holds something that contradicts this. ``rec_id``; ``paths``: the files that differ."""

    exit_code = 5
    rec_id: str | None = None
    paths: Sequence[str] = ()


class StorageError(UrsaError):
    """The object store failed or can't be reached. ``key``: the object; ``operation``: what was tried; ``unreachable``:
    no answer came at all.
    """

    key: str | None = None
    operation: str | None = None
    unreachable: bool = False


class CatalogDamagedError(StorageError):
    """The catalog in the bucket is not what was written to it. ``table``: which; ``version``: of its log, None where the
    damage is not of one version; ``object``: the object's name below the table, "" where there is none.
    """

    exit_code = 6
    table: str = ""
    version: int | None = None
    object: str = ""


class UnknownOutcomeError(StorageError):
    """A write may be there or not: its reply was lost, and the server did not tell for as long as was tried. Not retried
    within a run, and no other outcome is told in its place.
    """


class LockHeldError(UrsaError):
    """Another run holds the lock. ``pid``, ``host``, ``since``: whose."""

    exit_code = 11
    pid: int | None = None
    host: str | None = None
    since: str | None = None


class InterruptedRunError(UrsaError):
    """The run was asked to stop (Ctrl-C, SIGTERM)."""

    exit_code = 130


class UnexpectedError(UrsaError):
    """A bug of ours met a recording. ``kind``: the class of what was raised; the log has its traceback."""

    kind: str = ""


def unexpected(error: BaseException, what: str) -> UnexpectedError:
    """A bug of ours as an error of ``what`` alone, so that the rest goes on. The traceback goes to the log."""
    if _log.hasHandlers():  # without one Python would print it on the terminal
        _log.error("%s: unexpected", what, exc_info=error)
    return UnexpectedError(
        f"a bug in ursa: {what}: {type(error).__name__}: {str(error)[:400]}",
        hint="Please report it with the traceback, which `--log-file FILE` and `--verbose` show. `ursa show` tells whether"
        " the recording is registered; running it again is safe.",
        kind=type(error).__name__,
    )
