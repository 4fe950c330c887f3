"""What identifies content: hashes, ETags of any usual cut, and the order in which proofs are asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tap import MIB, cut, describe, make_file, md5, noise, sha256, touch_later

from ursa.errors import FileChangedError
from ursa.transfer.digest import Digest, digest, is_md5, is_multipart_etag
from ursa.transfer.parts import COMMON_PART_BYTES, MAX_PARTS, likely_part_sizes, multipart_etag, part_bytes, part_count

PART_SIZES = [5 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB]
MD5 = md5(b"some other content")


def sparse(path: Path, size: int, marks: int) -> Path:
    """A file of ``size`` bytes that is all zeros but for noise around every ``marks`` bytes."""
    with path.open("wb") as file:
        file.truncate(size)
        for start in range(0, size, marks):
            file.seek(max(0, start - 8))
            file.write(noise(16, start)[: size - max(0, start - 8)])
    return path


def reference_etag(path: Path, part_size: int) -> str:
    """The multipart ETag by hand."""
    binary = b""
    with path.open("rb") as file:
        while piece := file.read(part_size):
            binary += hashlib.md5(piece).digest()
    return f"{hashlib.md5(binary).hexdigest()}-{len(binary) // 16}"


def identity(found: Digest) -> tuple[int, str, frozenset[str]]:
    """What a digest says of the content."""
    return found.size_bytes, found.sha256, found.etags


# --- digest


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1])
def test_sha256_and_md5(tmp_path: Path, size: int) -> None:
    data = noise(size)
    file = make_file(tmp_path / "f", data)
    assert identity(digest(file)) == (size, sha256(data), frozenset())
    assert identity(digest(file, etag=MD5)) == (size, sha256(data), frozenset({md5(data)}))


@pytest.mark.parametrize(
    ("part_size", "extra"),
    [(size, extra) for size in PART_SIZES for extra in (0, 1, -1) if extra >= 0 or size < 16 * MIB],
    ids=lambda value: f"{value // MIB}MiB" if value > 1 else f"{value:+}",
)
def test_multipart_etags(tmp_path: Path, part_size: int, extra: int) -> None:
    path = sparse(tmp_path / "f", 2 * part_size + extra, part_size)
    wanted = reference_etag(path, part_size)
    assert wanted.endswith("-3" if extra == 1 else "-2")
    assert wanted in digest(describe(path), etag=f"{MD5}-{wanted[33:]}").etags


def test_a_cut_into_another_number_of_parts(tmp_path: Path) -> None:
    path = sparse(tmp_path / "f", 10 * MIB, 5 * MIB)
    assert digest(describe(path), etag=f"{MD5}-7").etags == frozenset()


def test_a_single_part(tmp_path: Path) -> None:
    data = noise(1000)
    file = make_file(tmp_path / "f", data)
    assert multipart_etag([md5(data)]) in digest(file, etag=f"{MD5}-1").etags


def test_an_empty_multipart_object(tmp_path: Path) -> None:
    assert multipart_etag([md5(b"")]) in digest(make_file(tmp_path / "f", b""), etag=f"{MD5}-1").etags


def test_an_etag_that_is_no_hash_costs_nothing(tmp_path: Path) -> None:
    file = make_file(tmp_path / "f", b"1")
    for etag in ("", "5f3-17ab-1", f"{MD5}-", f"{MD5}-0", f"{MD5}-10001", f"{MD5}-1-1", MD5.upper(), MD5[:-1]):
        assert digest(file, etag=etag).etags == frozenset()


def test_progress_and_what_it_raises(tmp_path: Path) -> None:
    file = make_file(tmp_path / "f", noise(3 * MIB + 5))
    counts: list[int] = []
    digest(file, progress=counts.append)
    assert counts == [MIB, MIB, MIB, 5]

    def refuse(_count: int) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        digest(file, progress=refuse)


def test_a_file_that_changes_while_it_is_hashed(tmp_path: Path) -> None:
    file = make_file(tmp_path / "f", noise(3 * MIB))
    with pytest.raises(FileChangedError, match="f is still being written: its modification time moved"):
        digest(file, progress=lambda _count: touch_later(file.source))
    file = make_file(tmp_path / "g", noise(3 * MIB))
    with pytest.raises(FileChangedError, match=f"its size went from {3 * MIB} to 10 bytes"):
        digest(file, progress=lambda _count: file.source.open("r+b").truncate(10))


# --- parts


@given(st.integers(min_value=0, max_value=5 << 40))
def test_parts_suffice(size: int) -> None:
    part = part_bytes(size)
    assert part >= 5 * MIB
    assert 1 <= part_count(size, part) <= MAX_PARTS
    assert part in (5 * MIB, 8 * MIB, 16 * MIB) or part_count(size, part // 2) > MAX_PARTS
    likely = likely_part_sizes(size, part_count(size, part))
    # In one part it is the same ETag whatever that part could have held.
    assert part in likely or part_count(size, part) == 1 == len(likely)


@given(st.binary(max_size=200), st.integers(min_value=1, max_value=50))
def test_multipart_etag_by_hand(data: bytes, size: int) -> None:
    digests = [hashlib.md5(piece).digest() for piece in cut(data, size)]
    assert multipart_etag(one.hex() for one in digests) == f"{md5(b''.join(digests))}-{len(digests)}"


def test_likely_cuts() -> None:
    """The usual ones first, then every whole MiB and million of bytes where these are few."""
    assert set(PART_SIZES) <= set(COMMON_PART_BYTES)
    assert likely_part_sizes(40 * MIB, 8) == (5 * MIB,)
    assert likely_part_sizes(40 * MIB, 5) == (8 * MIB, 9 * MIB, 9 * 10**6, 10**7)
    assert likely_part_sizes(40 * MIB, 4) == (*(n * MIB for n in range(10, 14)), *(n * 10**6 for n in range(11, 14)))
    assert likely_part_sizes(40 * MIB, 3)[0] == 16 * MIB
    # Of a GiB in two parts there would be hundreds.
    assert likely_part_sizes(1024 * MIB, 2) == ()
    assert likely_part_sizes(60 * MIB, 2) == (32 * MIB, 50 * MIB)


@given(st.integers(min_value=1, max_value=5 << 40), st.integers(min_value=2, max_value=MAX_PARTS))
def test_every_likely_cut_gives_that_number_of_parts(size: int, count: int) -> None:
    likely = likely_part_sizes(size, count)
    assert len(set(likely)) == len(likely) <= len(COMMON_PART_BYTES) + 1 + 16
    assert all(part_count(size, part) == count for part in likely)


def test_what_looks_like_an_etag() -> None:
    assert is_md5(MD5)
    assert is_multipart_etag(f"{MD5}-12")
    assert not is_md5(f"{MD5}-12")
    assert not is_multipart_etag(MD5)
