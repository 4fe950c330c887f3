"""A script on a pseudo-terminal, and what a person would see there: the screen is emulated by pyte."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyte

HERE = Path(__file__).parent
SETUP = """
import logging, os, sys, termios, threading, time
attributes = termios.tcgetattr(0)
attributes[3] &= ~termios.ECHO
termios.tcsetattr(0, termios.TCSANOW, attributes)
from events_of import MIB, REC, upload
from ursa_cli.progress import Bars
def wait(): os.read(0, 1)
"""


@contextmanager
def terminal(script: str, columns: int, rows: int = 24, *, code: int = 0, **env: str) -> Iterator[Terminal]:
    """A Python script on a pseudo-terminal of this size; it goes on when ``step`` is called."""
    main, other = pty.openpty()
    shown = Terminal(main, columns, rows)
    process = subprocess.Popen(
        [sys.executable, "-c", SETUP + script],
        stdin=other,
        stdout=other,
        stderr=other,
        env=os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(HERE), "PYTHONIOENCODING": "utf-8"} | env,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(other)
    try:
        yield shown
        assert process.wait(timeout=20) == code
    finally:
        process.kill()
        process.wait()
        os.close(main)


class Terminal:
    """What a person sees."""

    def __init__(self, file: int, columns: int, rows: int) -> None:
        self.file = file
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self.stream = pyte.ByteStream(self.screen)
        self.written = b""
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """As when a person drags the window: the kernel tells the processes by SIGWINCH."""
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def step(self) -> None:
        """Press Return (the script waits for it)."""
        os.write(self.file, b"\n")

    def lines(self) -> list[str]:
        """All lines, those that have scrolled away included; none for an empty end."""
        above = ["".join(line[at].data for at in range(self.screen.columns)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self.screen.display]).rstrip().split("\n")

    def until(self, right: Callable[[list[str]], bool]) -> list[str]:
        """Read until the screen is right, and return it."""
        ends = time.monotonic() + 20
        while not right(self.lines()):
            ready = select.select([self.file], [], [], max(0, ends - time.monotonic()))[0]
            assert ready, "it never came to that:\n" + "\n".join(self.lines())
            try:
                block = os.read(self.file, 65536)
            except OSError:
                block = b""
            assert block, "it ended before:\n" + "\n".join(self.lines())
            self.written += block
            self.stream.feed(block)
        return self.lines()
