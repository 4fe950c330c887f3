"""What is said where a catalog is damaged, or not at hand."""

from __future__ import annotations

from ursa.catalog.files import TableFiles
from ursa.errors import CatalogDamagedError, StorageError

_HINT = (
    "Nothing was written, and no recording is lost: the bytes under the raw prefix are not touched. Let an admin see who"
    " changed the assets bucket; `ursa catalog rebuild --yes` derives the rows anew."
)


def damaged(files: TableFiles, why: str, name: str, version: int | None) -> CatalogDamagedError:
    """An object of the catalog in the bucket is not what was written. ``name``: of the object below the table."""
    message = f"{name or 'the log'} of the catalog table {files.uri} is damaged: {why}"
    return _error(files, message, name, version)


def gone(files: TableFiles, known: int) -> CatalogDamagedError:
    """The bucket has nothing of a table. ``known``: the version that this machine has read, -1 for none."""
    read = f"; this machine has read it up to version {known}" if known >= 0 else ""
    return _error(files, f"the catalog table {files.uri} is not there, though ACTIVE.json names it{read}", "", None)


def _error(files: TableFiles, message: str, name: str, version: int | None) -> CatalogDamagedError:
    return CatalogDamagedError(
        message,
        hint=_HINT,
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


def other_tool(files: TableFiles, what: str) -> StorageError:
    """Another tool has written to the table in a way that ursa does not read, or does not write."""
    return StorageError(
        f"another tool has written the catalog table {files.uri} {what}, which ursa does not know",
        hint="Nothing was written, and no recording is lost. See who writes to the assets bucket; `ursa catalog rebuild"
        " --yes` derives a catalog of ursa's own anew.",
        operation="read",
    )
