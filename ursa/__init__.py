"""ursa: recordings from a lab's rigs into object storage and a catalog, with proof that they arrived.

Names load when they are first used, so that ``import ursa`` stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.3.0"

if TYPE_CHECKING:
    from ursa.batch.estimate import Estimate
    from ursa.batch.run import BatchRun
    from ursa.catalog.compact import CompactResult
    from ursa.catalog.history import Operation
    from ursa.catalog.overview import RecordingOverview
    from ursa.catalog.query import QueryResult
    from ursa.catalog.rows import FileRow, ModalityRow, ParticipantRow, RecordingRow, participant_id
    from ursa.catalog.undo import UndoPlan
    from ursa.doctor import ProbeResult, Status, diagnose
    from ursa.errors import (
        CatalogDamagedError,
        ChecksumMismatchError,
        ConfigError,
        ConflictError,
        CredentialsError,
        FileChangedError,
        InterruptedRunError,
        InvalidRecordingError,
        LockHeldError,
        ManifestError,
        ManifestNotFoundError,
        MissingFilesError,
        ObjectConflictError,
        RecordingExistsError,
        RecordingNotFoundError,
        StorageError,
        UnexpectedError,
        UnknownOutcomeError,
        UrsaError,
        UsageError,
        WritesNotEnabledError,
    )
    from ursa.events import DownloadProgress, HashProgress, UploadProgress
    from ursa.fetch import DownloadResult, Measured, NotAsStated
    from ursa.interface import DataInterface
    from ursa.manifest.hashing import derive_recording_hash
    from ursa.policies import Action, Evidence, Existing, Level, Mark, ModalityOnConflict, OnConflict, OnFailure
    from ursa.rebuild.back import BackResult
    from ursa.rebuild.run import RebuildResult
    from ursa.reconstruct.results import Made, ReconstructResult
    from ursa.register.from_r2_plan import BucketPlan
    from ursa.register.participants import BackfillPlan, BackfillResult, ParticipantsOverview
    from ursa.register.results import IngestPlan, IngestResult
    from ursa.register.several import Outcome
    from ursa.transfer.trace import LinkUse
    from ursa.verify import FileCheck, RecordingCheck

_HOMES = {
    "ursa.register.from_r2_plan": ("BucketPlan",),
    "ursa.rebuild.back": ("BackResult",),
    "ursa.rebuild.run": ("RebuildResult",),
    "ursa.batch.estimate": ("Estimate",),
    "ursa.batch.run": ("BatchRun",),
    "ursa.catalog.query": ("QueryResult",),
    "ursa.catalog.rows": ("FileRow", "ModalityRow", "ParticipantRow", "RecordingRow", "participant_id"),
    "ursa.doctor": ("ProbeResult", "Status", "diagnose"),
    "ursa.errors": (
        "CatalogDamagedError",
        "ChecksumMismatchError",
        "ConfigError",
        "ConflictError",
        "CredentialsError",
        "FileChangedError",
        "InterruptedRunError",
        "InvalidRecordingError",
        "LockHeldError",
        "ManifestError",
        "ManifestNotFoundError",
        "MissingFilesError",
        "ObjectConflictError",
        "RecordingExistsError",
        "RecordingNotFoundError",
        "StorageError",
        "UnexpectedError",
        "UnknownOutcomeError",
        "UrsaError",
        "UsageError",
        "WritesNotEnabledError",
    ),
    "ursa.events": ("DownloadProgress", "HashProgress", "UploadProgress"),
    "ursa.fetch": ("DownloadResult", "Measured", "NotAsStated"),
    "ursa.interface": ("DataInterface",),
    "ursa.manifest.hashing": ("derive_recording_hash",),
    "ursa.policies": (
        "Action",
        "Evidence",
        "Existing",
        "Level",
        "Mark",
        "ModalityOnConflict",
        "OnConflict",
        "OnFailure",
    ),
    "ursa.transfer.trace": ("LinkUse",),
    "ursa.verify": ("FileCheck", "RecordingCheck"),
    "ursa.reconstruct.results": ("Made", "ReconstructResult"),
    "ursa.register.participants": ("BackfillPlan", "BackfillResult", "ParticipantsOverview"),
    "ursa.register.results": ("IngestPlan", "IngestResult"),
    "ursa.register.several": ("Outcome",),
    "ursa.catalog.overview": ("RecordingOverview",),
    "ursa.catalog.compact": ("CompactResult",),
    "ursa.catalog.history": ("Operation",),
    "ursa.catalog.undo": ("UndoPlan",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Action",
    "BackResult",
    "BackfillPlan",
    "BackfillResult",
    "BatchRun",
    "BucketPlan",
    "CatalogDamagedError",
    "ChecksumMismatchError",
    "CompactResult",
    "ConfigError",
    "ConflictError",
    "CredentialsError",
    "DataInterface",
    "DownloadProgress",
    "DownloadResult",
    "Estimate",
    "Evidence",
    "Existing",
    "FileChangedError",
    "FileCheck",
    "FileRow",
    "HashProgress",
    "IngestPlan",
    "IngestResult",
    "InterruptedRunError",
    "InvalidRecordingError",
    "Level",
    "LinkUse",
    "LockHeldError",
    "Made",
    "ManifestError",
    "ManifestNotFoundError",
    "Mark",
    "Measured",
    "MissingFilesError",
    "ModalityOnConflict",
    "ModalityRow",
    "NotAsStated",
    "ObjectConflictError",
    "OnConflict",
    "OnFailure",
    "Operation",
    "Outcome",
    "ParticipantRow",
    "ParticipantsOverview",
    "ProbeResult",
    "QueryResult",
    "RebuildResult",
    "ReconstructResult",
    "RecordingCheck",
    "RecordingExistsError",
    "RecordingNotFoundError",
    "RecordingOverview",
    "RecordingRow",
    "Status",
    "StorageError",
    "UndoPlan",
    "UnexpectedError",
    "UnknownOutcomeError",
    "UploadProgress",
    "UrsaError",
    "UsageError",
    "WritesNotEnabledError",
    "derive_recording_hash",
    "diagnose",
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
