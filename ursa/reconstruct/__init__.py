"""Path C: the manifest of a recording that has none, made from its bytes, in the bucket or on a disk."""

from __future__ import annotations

from ursa.reconstruct.bucket import reconstruct
from ursa.reconstruct.directory import reconstruct_dir
from ursa.reconstruct.missing import missing_manifests
from ursa.reconstruct.planning import Bucket
from ursa.reconstruct.results import Made, ReconstructResult
from ursa.reconstruct.several import ReconstructOutcome, reconstruct_several

__all__ = [
    "Bucket",
    "Made",
    "ReconstructOutcome",
    "ReconstructResult",
    "missing_manifests",
    "reconstruct",
    "reconstruct_dir",
    "reconstruct_several",
]
