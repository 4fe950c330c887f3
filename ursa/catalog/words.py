"""deltalake's errors in the house's words. It works on this disk alone: the network has no part in them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import NoReturn

from deltalake.exceptions import DeltaError

from ursa.errors import StorageError


@contextlib.contextmanager
def words(uri: str, operation: str) -> Iterator[None]:
    """Raise what deltalake raises as ``StorageError``: what was tried with which table, and why it failed."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001  (raised again, whatever it is)
        raise_in_words(error, uri, operation)


def of_deltalake(error: BaseException) -> bool:
    """DataFusion's errors have no class of their own on the Python side, and a panic of Rust is no Exception."""
    return (
        isinstance(error, DeltaError | OSError) or type(error) is Exception or type(error).__name__ == "PanicException"
    )


def raise_in_words(error: BaseException, uri: str, operation: str) -> NoReturn:
    """Raise an error of deltalake's as ``StorageError``, and any other as it is."""
    if not of_deltalake(error):
        raise error
    full = "No space left" in str(error)
    raise StorageError(
        f"can't {operation} the catalog table {uri}: {one_line(error)}",
        hint="Free some space on the disk of the cache directory (`ursa cache path`), then run the same command again."
        if full
        else None,
        operation=operation,
    ) from error


def one_line(error: BaseException) -> str:
    """An error's message without colours and newlines, not longer than a few lines of a terminal."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return " ".join(plain.split())[:300]
