"""ursa: recordings from a lab's rigs into object storage and a catalog, with proof that they arrived.

Names load when they are first used, so that ``import ursa`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.3.0"

if TYPE_CHECKING:
    from ursa.catalog.overview import RecordingOverview
    from ursa.catalog.query import QueryResult
    from ursa.catalog.rows import FileRow, ModalityRow, ParticipantRow, RecordingRow, participant_id
    from ursa.errors import (
        ChecksumMismatchError,
        ConfigError,
        ConflictError,
        CredentialsError,
        FileChangedError,
        InvalidRecordingError,
        LockHeldError,
        ManifestError,
        ManifestNotFoundError,
        MissingFilesError,
        ObjectConflictError,
        RecordingExistsError,
        RecordingNotFoundError,
        StorageError,
        UrsaError,
        UsageError,
        WritesNotEnabledError,
    )
    from ursa.events import DownloadProgress, UploadProgress
    from ursa.fetch import DownloadResult
    from ursa.interface import DataInterface
    from ursa.manifest.hashing import derive_recording_hash
    from ursa.policies import Action, Existing, Level, Mark
    from ursa.register.results import IngestPlan, IngestResult
    from ursa.register.several import Outcome
    from ursa.verify import FileCheck, RecordingCheck

_HOMES = {
    "ursa.catalog.query": ("QueryResult",),
    "ursa.catalog.rows": ("FileRow", "ModalityRow", "ParticipantRow", "RecordingRow", "participant_id"),
    "ursa.errors": (
        "ChecksumMismatchError",
        "ConfigError",
        "ConflictError",
        "CredentialsError",
        "FileChangedError",
        "InvalidRecordingError",
        "LockHeldError",
        "ManifestError",
        "ManifestNotFoundError",
        "MissingFilesError",
        "ObjectConflictError",
        "RecordingExistsError",
        "RecordingNotFoundError",
        "StorageError",
        "UrsaError",
        "UsageError",
        "WritesNotEnabledError",
    ),
    "ursa.events": ("DownloadProgress", "UploadProgress"),
    "ursa.fetch": ("DownloadResult",),
    "ursa.interface": ("DataInterface",),
    "ursa.manifest.hashing": ("derive_recording_hash",),
    "ursa.policies": ("Action", "Existing", "Level", "Mark"),
    "ursa.verify": ("FileCheck", "RecordingCheck"),
    "ursa.register.results": ("IngestPlan", "IngestResult"),
    "ursa.register.several": ("Outcome",),
    "ursa.catalog.overview": ("RecordingOverview",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Action",
    "ChecksumMismatchError",
    "ConfigError",
    "ConflictError",
    "CredentialsError",
    "DataInterface",
    "DownloadProgress",
    "DownloadResult",
    "Existing",
    "FileChangedError",
    "FileCheck",
    "FileRow",
    "IngestPlan",
    "IngestResult",
    "InvalidRecordingError",
    "Level",
    "LockHeldError",
    "ManifestError",
    "ManifestNotFoundError",
    "Mark",
    "MissingFilesError",
    "ModalityRow",
    "ObjectConflictError",
    "Outcome",
    "ParticipantRow",
    "QueryResult",
    "RecordingCheck",
    "RecordingExistsError",
    "RecordingNotFoundError",
    "RecordingOverview",
    "RecordingRow",
    "StorageError",
    "UploadProgress",
    "UrsaError",
    "UsageError",
    "WritesNotEnabledError",
    "derive_recording_hash",
    "participant_id",
]


def __getattr__(name: str) -> object:
    import importlib

    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
