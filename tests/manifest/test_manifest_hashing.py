"""The recording_hash, recomputed by hand."""

from __future__ import annotations

import doctest
import hashlib

import pytest

from ursa.errors import InvalidRecordingError
from ursa.manifest import derive_recording_hash, hashing

A = hashlib.sha256(b"a").hexdigest()
B = hashlib.sha256(b"b").hexdigest()


def test_worked_example() -> None:
    assert doctest.testmod(hashing) == doctest.TestResults(failed=0, attempted=3)


def test_order_and_case_do_not_matter_but_copies_do() -> None:
    assert derive_recording_hash(iter([B.upper(), A])) == derive_recording_hash([A, B])
    assert derive_recording_hash([A]) == hashlib.sha256(A.encode()).hexdigest()
    assert derive_recording_hash([A, A]) != derive_recording_hash([A])


def test_no_file() -> None:
    with pytest.raises(InvalidRecordingError, match="no raw file"):
        derive_recording_hash([])


@pytest.mark.parametrize("digest", ["", "ab", "g" * 64, f"sha256:{A}", A + "\n"])
def test_not_a_digest(digest: str) -> None:
    with pytest.raises(ValueError, match="64 hex"):
        derive_recording_hash([A, digest])
