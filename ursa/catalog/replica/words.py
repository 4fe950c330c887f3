"""What is said where a catalog is damaged, or not at hand."""

from __future__ import annotations

from ursa.catalog.files import TableFiles
from ursa.errors import CatalogDamagedError, StorageError


def damaged(files: TableFiles, why: str, name: str, version: int | None) -> CatalogDamagedError:
    """The catalog in the bucket is not what was written. ``name``: of the object below the table, "" for the table."""
    of = f"{name} of the catalog table {files.uri}" if name else f"the catalog table {files.uri}"
    told = f"{of} is damaged: {why}" if name else f"{of} {why}"
    return CatalogDamagedError(
        told,
        hint="Nothing was written, and no recording is lost: the bytes under the raw prefix are not touched. Write to the"
        " assets bucket with no other tool, and let an admin see who changed it; `ursa catalog rebuild --yes` derives the"
        " rows anew from the bucket.",
        table=files.prefix.rstrip("/").rpartition("/")[2],
        version=version,
        object=name,
        key=files.prefix + name,
        operation="read",
    )


def offline_lacks(uri: str) -> StorageError:
    """Offline, and this machine's replica has not what is asked for."""
    return StorageError(
        f"offline, and this machine has no copy of the catalog table {uri} that answers this",
        hint="Run the same command once without --offline.",
        operation="read",
    )
