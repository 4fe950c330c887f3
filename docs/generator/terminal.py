"""A program run on a pseudo-terminal, and the screen that it leaves."""

from __future__ import annotations

import fcntl
import itertools
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence

import pyte
from rich.style import Style
from rich.text import Text

COLUMNS = 100
_LINES = 200  # nothing may scroll away


def run(command: Sequence[str], environment: Mapping[str, str], cwd: str) -> tuple[bytes, int]:
    """What a command writes to its terminal, and its exit status."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command, stdin=there, stdout=there, stderr=there, env=environment, cwd=cwd, start_new_session=True
    )
    os.close(there)
    written = b""
    try:
        while chunk := _read(here):
            written += chunk
    finally:
        os.close(here)
    return written, process.wait()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says EIO where everybody has closed the other end
        return b""


def screen(written: bytes, scrub: Callable[[str], str]) -> Text:
    """What is on the screen at the end, with its colours.

    ``scrub`` is applied to what was written, not to the screen, so that lines wrap as they would have.
    """
    terminal = pyte.Screen(COLUMNS, _LINES)
    pyte.Stream(terminal).feed(scrub(written.decode("utf-8")))
    lines = [_line([terminal.buffer[row][column] for column in range(COLUMNS)]) for row in range(_LINES)]
    while lines and not lines[-1].plain:
        lines.pop()
    return Text("\n").join(lines)


def _line(cells: Sequence[pyte.screens.Char]) -> Text:
    text = Text(no_wrap=True)
    for style, run_of_cells in itertools.groupby(cells, _style):
        text.append("".join(cell.data for cell in run_of_cells), style)
    text.rstrip()
    return text


def _style(cell: pyte.screens.Char) -> Style:
    names = {"brown": "yellow", "default": None}
    colour = names.get(cell.fg, cell.fg)
    if colour and len(colour) == 6 and all(digit in "0123456789abcdef" for digit in colour):
        colour = f"#{colour}"
    elif colour and colour.startswith("bright"):
        colour = "bright_" + names.get(colour.removeprefix("bright"), colour.removeprefix("bright"))
    return Style(color=colour, bold=cell.bold, italic=cell.italics, underline=cell.underscore)
