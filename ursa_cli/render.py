"""What a person or a script reads: tables, plain lines, JSON lines, errors."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ursa_cli.typed import as_typed, told_as_typed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ursa.errors import UrsaError

SCHEMA_VERSION = 1
# Characters that move the cursor or reorder what is read: controls, and bidirectional embeddings and isolates.
_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = {"\u200c", "\u200d"}


def plain(text: object) -> str:
    """Text that may come from a file, with every control or bidirectional character written out."""
    return "".join(
        char if char in _JOINERS or unicodedata.category(char) not in _UNSAFE_CATEGORIES else _escaped(char)
        for char in str(text)
    )


class Printer:
    """Stdout for results, stderr for remarks; JSON Lines or text, never both.

    ``totals`` is what the command's summary has so far, for one that fails before it comes to that; ``summary`` is what
    it had, None before. ``log`` gets what the log file of the run has to hold, whatever is printed.
    """

    def __init__(self, *, json: bool, quiet: bool, color: bool) -> None:
        self.json = json
        self.quiet = quiet
        self.color = color
        self.totals: Mapping[str, Any] = {}
        self.summary: Mapping[str, Any] | None = None
        self.log: Callable[[int, str], object] = lambda _level, _text: None

    def line(self, text: str = "") -> None:
        """A line of a text result."""
        if not self.json and not self.quiet:
            print(_encodable("\n".join(plain(part) for part in as_typed(text).split("\n"))))

    def advice(self, text: str) -> None:
        """What to do about the line above: indented below it."""
        if not self.json and not self.quiet:
            print(_encodable(wrapped(plain(as_typed(f"     {text}")), "     ", sys.stdout)))

    def outcome(self, text: str, *, hint: str | None = None, level: int = logging.INFO) -> None:
        """What became of a recording, or of them all: a line of the result, and one of the log, there with its hint."""
        self.line(text)
        self.log(level, f"{text} | {hint}" if hint else text)

    def error(self, text: str) -> None:
        """Something that is wrong and does not end the run; said even when quiet."""
        print(_encodable(f"ursa: {plain(as_typed(text))}", sys.stderr), file=sys.stderr)

    def note(self, text: str) -> None:
        """A remark that is not the result."""
        if not self.quiet:
            indent = " " * (len(text) - len(text.lstrip(" ")))
            print(_encodable(wrapped(plain(as_typed(text)), indent, sys.stderr), sys.stderr), file=sys.stderr)

    def record(self, kind: str, /, **fields: Any) -> None:
        """A JSON line."""
        if kind == "summary":
            self.summary = fields
        if self.json:
            content = {"schema_version": SCHEMA_VERSION, "type": kind} | told_as_typed(fields)
            # In one write: with several recordings in flight a progress line may come at any moment.
            print(json.dumps(content, default=_jsonable, ensure_ascii=True) + "\n", end="")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Columns, left-aligned. On a terminal that is too narrow the widest are cut, but never the first;
        in a pipe nothing is."""
        cells = [[plain(cell) for cell in row] for row in rows]
        widths = [max(_width(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
        columns = _columns(sys.stdout)
        widths = _fitted(widths, [len(name) for name in headers], columns) if columns else widths
        if not self.json and not self.quiet:
            head = "  ".join(_padded(name, width) for name, width in zip(headers, widths, strict=True)).rstrip()
            print(f"\x1b[1m{head}\x1b[0m" if self.color else head)
            for row in cells:
                padded = (_padded(cell, width) for cell, width in zip(row, widths, strict=True))
                print(_encodable("  ".join(padded).rstrip()))


_NARROWEST = 8
_HELD = "\0"  # in no text that was made plain


def _columns(stream: Any) -> int | None:
    """How wide the terminal is; None where the stream is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def _fitted(widths: Sequence[int], least: Sequence[int], columns: int) -> list[int]:
    """Widths that fit beside each other, taken from the widest first; too wide still where the least don't fit.

    The first column is what a person copies: it stays whole.
    """
    fitted = list(widths)
    while len(fitted) > 1 and sum(fitted) + 2 * (len(fitted) - 1) > columns:
        widest = max(range(1, len(fitted)), key=lambda i: fitted[i] - max(least[i], _NARROWEST))
        if fitted[widest] <= max(least[widest], _NARROWEST):
            break
        fitted[widest] -= 1
    return fitted


def _padded(cell: str, width: int) -> str:
    """A cell of exactly this width; what doesn't fit ends in an ellipsis."""
    if _width(cell) > width:
        kept = ""
        for char in cell:
            if _width(kept + char) > width - 1:
                break
            kept += char
        cell = f"{kept}…"
    return cell + " " * (width - _width(cell))


def wrapped(text: str, indent: str, stream: Any) -> str:
    """For people: broken at spaces to the terminal's width, the next lines indented. In a pipe, as it is.

    Commands in backquotes stay whole, for they are copied.
    """
    columns = _columns(stream)
    if not columns:
        return text
    held = re.sub(r"`[^`]+`", lambda command: command[0].replace(" ", _HELD), text)
    lines = textwrap.wrap(held, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(_HELD, " ") or text


def print_error(error: UrsaError) -> None:
    """An error as an admin reads it: what, why, and what to type next."""
    told = [f"ursa: {type(error).__name__}: {plain(as_typed(error.message))}"]
    told += [f"      {plain(as_typed(error.hint))}"] if error.hint else []
    for text in told:
        print(_encodable(wrapped(text, "      ", sys.stderr), sys.stderr), file=sys.stderr)


def size(count: int) -> str:
    """Bytes for people: 1,024 is 1.0 KiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def duration(seconds: float | None) -> str:
    """Seconds for people: 1:02:03, or - where nobody knows."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds_in(text: str | None) -> float | None:
    """Seconds in a length of time as typed: ``90s``, ``30m``, ``12h``, ``3d``, ``2w``; None for None.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        from ursa.errors import UsageError

        raise UsageError(f"{text!r} is not a length of time", hint="Write for instance 30m, 12h, 3d or 2w.")
    # A century: more than any timer can be set to.
    return min(float(match[1]) * _UNITS_S[match[2]], 100 * 366 * 86_400.0)


def when(moment: datetime | None) -> str:
    """A UTC time to the second, or - where nobody knows."""
    return moment.strftime("%Y-%m-%d %H:%M:%SZ") if moment else "-"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _width(text: str) -> int:
    return sum(
        2 if unicodedata.east_asian_width(char) in "WF" else 0 if unicodedata.combining(char) else 1 for char in text
    )


def _encodable(text: str, stream: Any = None) -> str:
    """What the terminal's encoding can't show is escaped: cron has an ASCII locale."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        from ursa.names import disk_name

        return disk_name(str(value))
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(type(value).__name__)
