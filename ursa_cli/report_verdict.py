"""A run in one sentence: whether all is well, and what must not be done if not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ursa.errors import named
from ursa_cli.render import when

Level = Literal["ok", "warn", "fail", "running"]
_KEEP = "what they come from must not be wiped"
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Verdict:
    """``level`` for the colour and the symbol, ``words`` for the admin at 1 a.m."""

    level: Level
    words: str


def verdict(
    counts: Mapping[str, int],
    *,
    expected: int | None,
    exit_code: int | None,
    ended_by: str | None,
    problems: Sequence[str] = (),
    dry_run: bool,
    as_of: datetime,
) -> Verdict:
    """Judge a run by its recordings and by how it ended (``exit_code`` None: it has not, or nobody came to say so).

    ``problems``: what kept it from looking everywhere, such as an empty root.
    """
    done = sum(counts.values())
    total = max(done, expected or 0)
    open_ends = _open_ends(counts, total, total - done)
    if exit_code is None:
        ended = f"{done} of {total}" if expected else f"{done}"
        known = "; ".join([f"{ended} recordings had ended", *_open_ends(counts, total, 0)])
        words = f"At {when(as_of)} it was running, and may have been killed since: {known}. Nothing may be wiped yet."
        return Verdict("running", words)
    if dry_run:
        wrong = counts["fail"] > 0 or exit_code != 0
        return Verdict("fail" if wrong else "warn", f"A dry run: nothing was sent or written. {_ended(exit_code)}.")
    if problems and ended_by is None:
        rest = "; ".join(open_ends) or f"the {done} recordings elsewhere are registered"
        return Verdict("fail", f"{named(problems, 3)}; {rest}; nothing may be wiped before this is understood.")
    if ended_by is not None or (exit_code not in (0, 3) and not counts["fail"]):
        how = "The run was interrupted" if exit_code == _INTERRUPTED else "The run stopped early"
        why = f" ({ended_by})" if ended_by else f" with exit status {exit_code}"
        rest = "; ".join(open_ends) or f"the {done} recordings before that are registered"
        return Verdict("fail", f"{how}{why}: {rest}{f'; {_KEEP}' if open_ends else ''}.")
    if open_ends:
        return Verdict("fail" if counts["fail"] or exit_code else "warn", f"{'; '.join(open_ends)}; {_KEEP}.")
    return _clean(counts, done)


def _open_ends(counts: Mapping[str, int], total: int, untried: int) -> list[str]:
    """What is not registered, in words; the first one says of how many."""
    failed, skipped = counts["fail"], counts["skip"]
    told = [
        (failed, f"failed: not all of {'its' if failed == 1 else 'their'} bytes are registered"),
        (skipped, f"{_were(skipped)} skipped and not registered"),
        (untried, f"{_were(untried)} not reached"),
    ]
    said = [(count, what) for count, what in told if count]
    of = f" of {total} recording{'' if total == 1 else 's'}"
    return [f"{count}{'' if at else of} {what}" for at, (count, what) in enumerate(said)]


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _clean(counts: Mapping[str, int], done: int) -> Verdict:
    if not done:
        return Verdict("warn", "There was no recording to do anything about.")
    # HAVE is said by the catalog and the disk alone.
    unasked = "; the bucket was not asked about what had been, `ursa verify` does" if counts["have"] else ""
    if done == 1:
        return Verdict("ok", f"The recording {'was' if unasked else 'is in the bucket and'} registered{unasked}.")
    here = f"{counts['ok']} now, {counts['have']} had been before"
    return Verdict("ok", f"All {done} recordings are registered: {here}{unasked}.")


def _ended(exit_code: int) -> str:
    return "All that was looked at could be done" if exit_code == 0 else f"It ended with exit status {exit_code}"
