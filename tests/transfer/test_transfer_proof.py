"""What is known of an object, and in which order it is found out: from what was measured, by its ETag, by reading it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tap import MIB, Tap, md5, noise, s3_store, sha256

from conftest import Buckets
from ursa.bucket.proof import CachedProofs, NoProofs, Proof, from_etags, from_row, holds, measure, measure_now
from ursa.catalog.rows import FileRow
from ursa.disk.cache import FilesCache
from ursa.policies import Evidence
from ursa.store import ObjectInfo, PreconditionFailedError, Store
from ursa.store.local import LocalStore
from ursa.transfer.digest import Digest, is_md5, is_multipart_etag
from ursa.transfer.parts import multipart_etag

MD5 = md5(b"some other content")


@pytest.fixture
def bucket(moto_buckets: Buckets) -> Tap:
    """A bucket with md5 ETags, whose requests are noted."""
    return Tap(s3_store(moto_buckets))


def found(store: Tap, key: str) -> ObjectInfo:
    """As a listing tells it: without metadata."""
    (info,) = store.inner.list(key)
    return info


def local(data: bytes, etag: str = "") -> Digest:
    """What ``digest`` finds for a file with this content."""
    count = etag.rpartition("-")[2] if is_multipart_etag(etag) else ""
    etags = {multipart_etag([md5(data)])} if count == "1" else {md5(data)} if is_md5(etag) else set()
    return Digest(len(data), sha256(data), frozenset(etags))


def multipart(store: Store, key: str, pieces: list[bytes], stated: str | None) -> None:
    upload_id = store.create_upload(key, metadata={"sha256": stated} if stated else {})
    parts = [store.upload_part(key, upload_id, number, piece, md5=md5(piece)) for number, piece in enumerate(pieces, 1)]
    store.complete_upload(key, upload_id, parts)


def how(store: Tap, key: str, digest: Digest) -> str | None:
    """The evidence that an object holds what a file has."""
    proof = holds(store, found(store, key), digest, NoProofs())
    return str(proof.evidence) if proof else None


def test_another_size_needs_no_request(bucket: Tap) -> None:
    bucket.inner.put("k", b"12345", sha256=sha256(b"12345"))
    assert how(bucket, "k", local(b"1234", MD5)) is None
    assert bucket.calls == []


def test_the_etag_needs_no_request(bucket: Tap) -> None:
    bucket.inner.put("k", b"1234", sha256=sha256(b"1234"))
    assert how(bucket, "k", local(b"1234", MD5)) == "etag"
    multipart(bucket.inner, "m", [b"1234"], None)
    assert how(bucket, "m", local(b"1234", f"{MD5}-1")) == "etag"
    assert bucket.calls == []


@pytest.mark.parametrize("stated", ["its own", None, "ab" * 32], ids=["right", "none", "wrong"])
def test_else_the_bytes_whatever_the_metadata_states(bucket: Tap, stated: str | None) -> None:
    """Whoever wrote the object wrote its metadata: an upload that is taken over keeps what its Create said."""
    data = noise(6 * MIB)
    stated = sha256(data) if stated == "its own" else stated
    multipart(bucket.inner, "k", [data[: 6 * MIB - 1], data[6 * MIB - 1 :]], stated)
    assert how(bucket, "k", local(data)) == "sha256"
    assert bucket.names()[-1] == "stream" and "head" in bucket.names()
    other = data[:-1] + b"x"
    assert how(bucket, "k", local(other)) is None


def test_metadata_that_lies_for_another_content_is_not_believed(bucket: Tap, moto_buckets: Buckets) -> None:
    client = moto_buckets.server.client()
    client.put_object(Bucket=moto_buckets.raw, Key="k", Body=b"1235", Metadata={"sha256": sha256(b"1234")})
    assert how(bucket, "k", local(b"1234", MD5)) is None
    # So small an object is read at once: a HEAD would cost as much.
    assert bucket.names() == ["stream"]


def test_a_directory_has_sha256s_for_etags(tmp_path: Path) -> None:
    store = Tap(LocalStore(tmp_path, "raw"))
    store.inner.put("k", b"1234", sha256=sha256(b"1234"))
    assert how(store, "k", local(b"1234")) == "etag"
    assert store.names() == []
    assert how(store, "k", local(b"1235")) is None


def test_what_was_measured_is_not_measured_again(bucket: Tap, tmp_path: Path) -> None:
    data = noise(6 * MIB)
    multipart(bucket.inner, "k", [data[: 6 * MIB - 1], data[6 * MIB - 1 :]], None)
    proofs = CachedProofs(FilesCache.open(tmp_path), "here")
    assert measure(bucket, found(bucket, "k"), proofs).sha256 == sha256(data)
    asked = len(bucket.calls)
    assert holds(bucket, found(bucket, "k"), local(data), proofs) is not None
    assert holds(bucket, found(bucket, "k"), local(data[:-1] + b"x"), proofs) is None
    assert len(bucket.calls) == asked
    # Of another bucket it says nothing; nor of the object that takes its place.
    holds(bucket, found(bucket, "k"), local(data), CachedProofs(FilesCache.open(tmp_path), "there"))
    assert len(bucket.calls) > asked
    other = data[:-1] + b"x"
    multipart(bucket.inner, "k", [other[:-1], other[-1:]], None)
    assert holds(bucket, found(bucket, "k"), local(data), proofs) is None


def test_an_object_that_is_replaced_meanwhile(bucket: Tap) -> None:
    """A measurement is of one object from the first to the last block; ``measure_now`` takes the one that is there then."""
    bucket.inner.put("k", b"1234", sha256=sha256(b"1234"))
    old = found(bucket, "k")
    bucket.inner.put("k", b"5678", sha256=sha256(b"5678"))
    with pytest.raises(PreconditionFailedError):
        measure(bucket, old, NoProofs())
    proof = measure_now(bucket, old, NoProofs())
    assert (proof.sha256, proof.info.etag) == (sha256(b"5678"), md5(b"5678"))


def test_what_a_row_proves() -> None:
    """Its own object alone: key, size and ETag; and nothing where its evidence is a claim."""
    info = ObjectInfo("recordings/r/a", 4, MD5)
    row = FileRow("a", "recordings/r/a", 4, sha256(b"1234"), MD5, Evidence.SHA256)
    assert from_row(row, info) == Proof(info, sha256(b"1234"), Evidence.SHA256)
    for other in (
        FileRow("a", "recordings/r/a", 4, sha256(b"1234"), MD5, Evidence.CLAIMED),
        FileRow("a", "recordings/r/a", 4, None, MD5, Evidence.SIZE),
        FileRow("a", "recordings/r/b", 4, sha256(b"1234"), MD5, Evidence.SHA256),
        FileRow("a", "recordings/r/a", 5, sha256(b"1234"), MD5, Evidence.SHA256),
        FileRow("a", "recordings/r/a", 4, sha256(b"1234"), md5(b""), Evidence.ETAG),
        FileRow("a", "recordings/r/a", 4, sha256(b"1234"), None, Evidence.SHA256),
        None,
    ):
        assert from_row(other, info) is None


def test_an_etag_of_no_hash_proves_nothing() -> None:
    assert from_etags(ObjectInfo("k", 4, ""), Digest(4, sha256(b"1234"), frozenset())) is None
    assert from_etags(ObjectInfo("k", 5, MD5), Digest(4, sha256(b"1234"), frozenset({MD5}))) is None
