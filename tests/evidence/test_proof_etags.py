"""Which ETags prove something: those that are a digest of bytes; never one that is missing, or a version or a time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ursa.bucket.proof import CachedProofs, NoProofs, from_etags, from_row, known
from ursa.bucket.record import Entry, WithRecord
from ursa.catalog.rows import FileRow
from ursa.disk.cache import FilesCache
from ursa.policies import Evidence
from ursa.store import ObjectInfo
from ursa.transfer.digest import Digest

SHA256 = hashlib.sha256(b"eeg").hexdigest()
MD5 = hashlib.md5(b"eeg").hexdigest()


def test_an_object_without_an_etag_is_never_known(tmp_path: Path) -> None:
    info = ObjectInfo("k", 3, "")
    proofs = CachedProofs(FilesCache.open(tmp_path, temp_dirs=()), "https://s3/raw")
    proofs.record(info, SHA256)
    row = FileRow("p", "k", 3, SHA256, "", Evidence.SHA256)
    assert known(info, row, proofs) is None and from_row(row, info) is None
    assert WithRecord(NoProofs(), {"k": Entry(3, "", SHA256)}).recall(info) is None


@pytest.mark.parametrize(
    ("etag", "proves"), [(MD5, True), (f"{MD5}-2", True), (SHA256, True), ("1", False), ("", False)]
)
def test_an_etag_that_is_no_digest_proves_nothing(etag: str, proves: bool) -> None:
    """The files cache has the ETags that these bytes had in any bucket: ``1`` is the first version of anything."""
    local = Digest(3, SHA256, frozenset({MD5, f"{MD5}-2", "1", ""}))
    assert bool(from_etags(ObjectInfo("k", 3, etag), local)) is proves
