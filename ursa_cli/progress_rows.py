"""What the bars show, row by row, and how a row is laid out. Pure.

rich measures the text; its tables and bars are not used: twenty rows of them cost 35 ms to draw, these under 1 ms, and
uploads of small files need every bit of the one core that Python has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from rich.cells import cell_len, set_cell_size

from ursa_cli.progress_state import Moving, Overall
from ursa_cli.render import plain, size

_BOLD, _DIM, _CYAN, _OFF = "\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[0m"
_WIDEST_BAR, _NARROWEST_BAR = 30, 6
_WIDEST_NAME = 34
_GAP = 2


@dataclass(frozen=True, slots=True)
class Row:
    """A name, how much of how much (bytes; nobody knows where ``total`` is 0), how fast, and what is at hand."""

    name: str
    done: int = 0
    total: int = 0
    pace: str = ""
    what: str = ""
    bold: bool = False

    @property
    def amount(self) -> str:
        """``1.0/2.0 MiB``, or nothing where nobody knows."""
        total, done = size(self.total), size(self.done)
        if not self.total:
            return ""
        unit = total.rpartition(" ")[2]
        return f"{done.removesuffix(f' {unit}')}/{total}"


def rows_of(whole: Overall, moving: Sequence[Moving], most: int) -> list[Row]:
    """The whole run, the recordings in flight, their large files; at most ``most`` rows."""
    if not moving and whole.recordings_total is None:
        return []
    alone = len(moving) == 1 and whole.recordings_done == 0 and whole.recordings_total in (None, 1)
    rows = [] if alone else [Row(whole.recordings, whole.bytes_done, whole.bytes_total, whole.pace, bold=True)]
    room = most - len(rows)
    # The last row says how many there was no room for.
    shown = list(moving) if len(moving) <= room else list(moving[: max(0, room - 1)])
    more = len(moving) - len(shown)
    rows += [Row(f" {each.name}", each.bytes_done, each.bytes_total, each.pace, each.what) for each in shown]
    if more:
        return [*rows, Row(f" … and {more} more")]
    count, room = sum(len(each.large) for each in shown), most - len(rows)
    files = (Row(f"   {path}", *at) for each in shown for path, at in each.large.items())
    if count <= room:
        return [*rows, *files]
    return [*rows, *islice(files, room - 1), Row(f"   … and {count - room + 1} more")] if room > 0 else rows


def laid_out(rows: Sequence[Row], columns: int, *, color: bool, ascii_only: bool) -> list[str]:
    """Lines of at most ``columns`` cells. What a narrow terminal has no room for goes first: the file, the bar."""
    names = min(max((cell_len(plain(row.name)) for row in rows), default=0), _WIDEST_NAME, max(10, columns // 3))
    amounts = max((len(row.amount) for row in rows), default=0)
    paces = max((len(row.pace) for row in rows), default=0)
    left = columns - names - amounts - paces - 3 * _GAP
    bars = min(_WIDEST_BAR, left // 2 if left >= 4 * _NARROWEST_BAR else left)
    bars = bars if bars >= _NARROWEST_BAR else 0
    rest = left - bars - _GAP if bars else left
    return [_line(row, columns, (names, bars, amounts, paces, rest), color, ascii_only) for row in rows]


def _line(row: Row, columns: int, widths: tuple[int, int, int, int, int], color: bool, ascii_only: bool) -> str:
    names, bars, amounts, paces, rest = widths
    if not row.total and not row.pace:
        return _styled(_fitted(plain(f"{row.name}  {row.what}"), columns, ascii_only).rstrip(), _DIM, color)
    cells = [_styled(_fitted(plain(row.name), names, ascii_only), _BOLD if row.bold else "", color)]
    cells += [_bar(row, bars, color, ascii_only)] if bars else []
    cells += [row.amount.rjust(amounts), row.pace.ljust(paces)]
    used = names + amounts + paces + 2 * _GAP + (bars + _GAP if bars else 0)
    if used > columns:
        return set_cell_size((" " * _GAP).join(_uncolored(row, widths, ascii_only)), columns).rstrip()
    if rest > _NARROWEST_BAR and row.what:
        cells.append(_styled(_fitted(plain(row.what), rest, ascii_only, tail=True).rstrip(), _DIM, color))
    return (" " * _GAP).join(cells).rstrip()


def _uncolored(row: Row, widths: tuple[int, int, int, int, int], ascii_only: bool) -> list[str]:
    """For a terminal that is too narrow for all: cut where it ends, and no colour code is cut in two."""
    return [_fitted(plain(row.name), widths[0], ascii_only), row.amount, row.pace]


def _bar(row: Row, wide: int, color: bool, ascii_only: bool) -> str:
    filled = wide * min(row.done, row.total) // max(row.total, 1)
    mark = "#" if ascii_only else "━"
    empty = ("-" if ascii_only else "━") if color else ("-" if ascii_only else "╌")
    return _styled(mark * filled, _CYAN, color) + _styled(empty * (wide - filled), _DIM, color)


def _fitted(text: str, wide: int, ascii_only: bool, *, tail: bool = False) -> str:
    """Exactly ``wide`` cells. Of a file the end says more than the beginning: ``tail`` keeps that."""
    if cell_len(text) <= wide:
        return set_cell_size(text, wide)
    dots = "~" if ascii_only else "…"
    if not tail:
        return set_cell_size(text, wide - 1) + dots
    while cell_len(text) > wide - 1:
        text = text[max(1, (cell_len(text) - wide + 1) // 2) :]
    return set_cell_size(dots + text, wide)


def _styled(text: str, style: str, color: bool) -> str:
    return f"{style}{text}{_OFF}" if color and style and text else text
