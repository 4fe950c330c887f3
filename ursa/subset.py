"""``--subset``: which of the files that could be verified are, in one run."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence

from ursa.errors import UsageError

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

Candidate = tuple[str, str, int]
"""rec_id, path and size in bytes."""


class Subset:
    """All files; the others choose among all that a run is about, whichever recording they are of."""

    def choose(self, files: Sequence[Candidate]) -> Sequence[Candidate]:
        """The chosen ones, in any order."""
        return files


class _Slice(Subset):
    """The n-th of t fixed slices: t runs with n from 1 to t check everything once."""

    def __init__(self, number: int, total: int) -> None:
        self._number, self._total = number, total

    def choose(self, files: Sequence[Candidate]) -> Sequence[Candidate]:
        return [item for item in files if zlib.crc32(f"{item[0]}/{item[1]}".encode()) % self._total == self._number - 1]


class _Share(Subset):
    """So much of the files at random, at least one."""

    def __init__(self, share: float, rng: random.Random) -> None:
        self._share, self._rng = share, rng

    def choose(self, files: Sequence[Candidate]) -> Sequence[Candidate]:
        return self._rng.sample(files, min(len(files), max(1, round(len(files) * self._share))))


class _Amount(Subset):
    """At random, up to so many bytes in all; at least one file."""

    def __init__(self, budget_bytes: float, rng: random.Random) -> None:
        self._budget, self._rng = budget_bytes, rng

    def choose(self, files: Sequence[Candidate]) -> Sequence[Candidate]:
        left = self._budget
        chosen: list[Candidate] = []
        for item in self._rng.sample(files, len(files)):
            if item[2] <= left:
                left -= item[2]
                chosen.append(item)
        return chosen or sorted(files, key=lambda item: item[2])[:1]


def parse_subset(text: str | None, *, rng: random.Random | None = None) -> Subset:
    """``"2/7"``: the second of seven fixed slices; ``"5%"``: at random; ``"10G"``: at random, up to so many bytes in all.

    Raises:
        UsageError: it is none of these.
    """
    rng = rng or random.Random()
    if text is None:
        return Subset()
    slice_of = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    if slice_of and 0 < int(slice_of[1]) <= int(slice_of[2]):
        return _Slice(int(slice_of[1]), int(slice_of[2]))
    percent = re.fullmatch(r"(\d+(?:\.\d+)?)%", text, re.ASCII)
    if percent and 0 < float(percent[1]) <= 100:
        return _Share(float(percent[1]) / 100, rng)
    amount = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])i?B?", text, re.IGNORECASE | re.ASCII)
    if amount:
        return _Amount(float(amount[1]) * _UNITS[amount[2].upper()], rng)
    raise UsageError(f"{text!r} is not a subset", hint="Write for instance 2/7, 5% or 10G.")
