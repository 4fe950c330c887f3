"""What a batch would send, how many requests that takes, and what R2 asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from ursa.register.results import IngestPlan
from ursa.transfer.parts import SINGLE_PUT_BYTES, part_bytes, part_count

# R2's prices for standard storage in US dollars, without the monthly free allowance
# (https://developers.cloudflare.com/r2/pricing/, read 2026-11).
_CLASS_A_DOLLARS = 4.50e-6
_CLASS_B_DOLLARS = 0.36e-6
_GB_MONTH_DOLLARS = 0.015
_KEYS_A_PAGE = 1_000
# A recording's share of the catalog's commits, when they are alone in theirs (docs/performance.md, "Catalog").
_CATALOG_CLASS_A = 12
_CATALOG_CLASS_B = 28


@dataclass(frozen=True, slots=True)
class Estimate:
    """Totals over plans. Sizes in bytes; requests by R2's billing class; an upper bound as far as plans can tell.

    ``bytes_in_parts`` of ``bytes`` are in the bucket, in parts that an earlier run sent.
    """

    recordings: int = 0
    files: int = 0
    bytes: int = 0
    files_skipped: int = 0
    class_a: int = 0
    class_b: int = 0
    bytes_in_parts: int = 0

    @property
    def dollars(self) -> float:
        """What the requests cost, once."""
        return self.class_a * _CLASS_A_DOLLARS + self.class_b * _CLASS_B_DOLLARS

    @property
    def dollars_a_month(self) -> float:
        """What keeping the bytes costs, a month."""
        return self.bytes / 1e9 * _GB_MONTH_DOLLARS

    def seconds(self, bytes_per_s: float) -> float:
        """How long what has to be sent takes at this rate."""
        return (self.bytes - self.bytes_in_parts) / bytes_per_s

    def plus(self, plan: IngestPlan) -> Estimate:
        """With one more recording."""
        return Estimate(
            self.recordings + 1,
            self.files + len(plan.sends),
            self.bytes + plan.bytes_to_send,
            self.files_skipped + plan.files_skipped,
            self.class_a + _class_a(plan),
            self.class_b + _CATALOG_CLASS_B,
            self.bytes_in_parts + plan.bytes_in_parts,
        )


def _class_a(plan: IngestPlan) -> int:
    """PUTs, parts and their Create and Complete, and the two listings of the prefix."""
    sent = 0
    for item in plan.sends:
        size = item.file.size_bytes
        sent += 1 if size <= SINGLE_PUT_BYTES else part_count(size, part_bytes(size)) + 2
    there = len(plan.files) + len(plan.sidecars)
    pages = max(1, -(-plan.files_skipped // _KEYS_A_PAGE)) + max(1, -(-there // _KEYS_A_PAGE))
    return sent + pages + _CATALOG_CLASS_A
