"""How large files are cut, and the ETags that this gives.

Limits (S3 and R2): at most 10,000 parts, equal but for the last, at least 5 MiB each; an object at most 5 TiB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

MIB = 1 << 20
SINGLE_PUT_BYTES = 16 * MIB
"""Files up to this size go in one request."""
MAX_PARTS = 10_000
# What ursa, rclone, boto3, the aws command and s5cmd cut with when nobody tells them otherwise.
COMMON_PART_BYTES = (5 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 50 * MIB, 64 * MIB)


_MOST_GUESSES = 16
# Up to this file size, parts of this size: what a killed run loses is the parts in flight.
_SMALLER_PARTS = ((480 * MIB, 5 * MIB), (1 << 30, 8 * MIB))


def part_bytes(size_bytes: int) -> int:
    """The part size for a file of ``size_bytes``: 5, 8 or 16 MiB, that doubled until 10,000 parts suffice."""
    for limit, part in _SMALLER_PARTS:
        if size_bytes <= limit:
            return part
    size = 16 * MIB
    while size * MAX_PARTS < size_bytes:
        size *= 2
    return size


def floor_bytes(size_bytes: int, part_size_bytes: int) -> int:
    """How much of one file may be in flight on any link: about a sixteenth of it, which a kill costs; three parts at least."""
    return max(3, size_bytes // 16 // part_size_bytes) * part_size_bytes


def part_count(size_bytes: int, part_size_bytes: int) -> int:
    """How many parts of ``part_size_bytes`` hold ``size_bytes``."""
    return max(1, -(-size_bytes // part_size_bytes))


def multipart_etag(md5s: Iterable[str]) -> str:
    """The ETag of a multipart object: md5 over the binary md5s of its parts, and their number."""
    digests = [bytes.fromhex(md5) for md5 in md5s]
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def likely_part_sizes(size_bytes: int, count: int) -> tuple[int, ...]:
    """The part sizes that cut ``size_bytes`` into ``count`` parts: the usual ones, and every MiB and million of bytes
    where these are at most 16. Each costs an md5 of the whole file, and saves reading the object.
    """
    least = max(1, -(-size_bytes // count))
    most = (size_bytes - 1) // (count - 1) if count > 1 else least
    usual = [size for size in (part_bytes(size_bytes), *COMMON_PART_BYTES) if part_count(size_bytes, size) == count]
    round_ones = [
        size for unit in (MIB, 10**6) for size in range(-(-least // unit) * unit, most + 1, unit)[: _MOST_GUESSES + 1]
    ]
    if count == 1:
        return (least,)
    return tuple(dict.fromkeys([*usual, *(round_ones if len(round_ones) <= _MOST_GUESSES else ())]))
