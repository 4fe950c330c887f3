"""deltalake's errors in the house's words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from deltalake.exceptions import DeltaError

from ursa.catalog.stream import StreamError
from ursa.errors import StorageError


@contextlib.contextmanager
def words(uri: str, operation: str) -> Iterator[None]:
    """Raise what deltalake raises as ``StorageError``: what was tried with which table, and why it failed."""
    try:
        yield
    except (DeltaError, OSError, StreamError) as error:
        full = "No space left" in str(error)
        raise StorageError(
            f"can't {operation} the catalog table {uri}: {one_line(error)}",
            hint="Free some space on that disk, then run the same command again."
            if full
            else "Check the network and `ursa config show`, then run the same command again.",
            operation=operation,
        ) from error
    except Exception as error:
        # DataFusion's errors have no class of their own on the Python side.
        if type(error) is not Exception:
            raise
        raise StorageError(
            f"can't {operation} the catalog table {uri}: {one_line(error)}", operation=operation
        ) from error


def one_line(error: BaseException) -> str:
    """An error's message without colours and newlines, not longer than a few lines of a terminal."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return " ".join(plain.split())[:300]
