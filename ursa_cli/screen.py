"""The lines at the bottom of a terminal, and everything else that is printed above them."""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TextIO

from ursa_cli.progress_rows import laid_out, rows_of
from ursa_cli.progress_state import Moving, Overall

Picture = tuple[Overall, list[Moving]]

_EVERY_S = 0.2
# Room for what a person has just typed and for the last results.
_ROWS_LEFT_FREE = 4
_MOST_ROWS = 24
_ERASE_DOWN = "\x1b[J"


class Screen:
    """Draws ``picture()`` on stderr five times a second, in one write, each line shorter than the terminal.

    While it runs, what goes to stderr, to stdout where that is the same terminal, and to the log's stderr handlers
    is printed above.
    """

    def __init__(self, picture: Callable[[], Picture], *, color: bool) -> None:
        self._picture = picture
        # Its own lock: a terminal that was halted (Ctrl-S) must hold up no upload. Reentrant, for handlers of signals.
        self._lock = threading.RLock()
        self._color = color
        self._stream = sys.stderr
        self._drawn = 0
        self._partial = False
        self._paused = 0
        self._frozen = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._draw_on, name="ursa-bars", daemon=True)
        self._undo: list[Callable[[], object]] = []

    def start(self) -> None:
        """From now on."""
        # The cursor is not hidden: a killed process could not bring it back.
        self._take_streams()
        self._thread.start()

    def stop(self) -> None:
        """The bars are gone, the streams are as they were."""
        self._stopping.set()
        self._thread.join(timeout=5)
        with self._lock:
            self._write(self._erased())
            for undo in reversed(self._undo):
                undo()

    def freeze(self) -> None:
        """No bars any more; may be called in the handler of a signal, whatever the other threads are in."""
        self._frozen = True
        with suppress(OSError, ValueError):
            os.write(self._stream.fileno(), self._erased().encode("ascii"))

    @contextmanager
    def away(self) -> Iterator[None]:
        """No bars inside; whoever else wants to print waits."""
        with self._lock:
            if not self._paused:
                self._write(self._erased())
            self._paused += 1
            try:
                yield
            finally:
                self._paused -= 1

    def print_text(self, stream: TextIO, text: str) -> None:
        """Text for ``stream``, above the bars. They come back once its last line is whole."""
        with self.away():
            stream.write(text)
            stream.flush()
            self._partial = not text.endswith("\n")

    def _draw_on(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            with self._lock:
                if self._frozen or self._paused or self._partial or self._stopping.is_set():
                    continue
                self._write(self._frame())

    def _frame(self) -> str:
        columns, rows = _terminal_size(self._stream)
        lines = self._lines(*self._picture(), columns, min(_MOST_ROWS, max(1, rows - _ROWS_LEFT_FREE)))
        # Each line is erased as it is written and what is below goes last: nothing is ever blank for a moment.
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._drawn = len(lines)
        return f"\r{up}" + "".join(f"{line}\x1b[K\n" for line in lines) + _ERASE_DOWN

    def _erased(self) -> str:
        up = f"\r\x1b[{self._drawn}A{_ERASE_DOWN}" if self._drawn else ""
        self._drawn = 0
        return up

    def _lines(self, whole: Overall, moving: list[Moving], columns: int, most: int) -> list[str]:
        rows = rows_of(whole, moving, most)
        # One column stays free: a full line wraps on some terminals.
        return laid_out(rows, columns - 1, color=self._color, ascii_only=not _shows_lines(self._stream.encoding))

    def _take_streams(self) -> None:
        for name in ("stderr", *(["stdout"] if _same_terminal(sys.stdout, sys.stderr) else [])):
            original = getattr(sys, name)
            above = _Above(self, original)
            setattr(sys, name, above)
            self._undo.append(partial(setattr, sys, name, original))
        for handler in [*logging.getLogger("ursa").handlers, *logging.getLogger().handlers]:
            if isinstance(handler, logging.StreamHandler) and handler.stream is self._stream:
                handler.setStream(sys.stderr)
                self._undo.append(partial(handler.setStream, self._stream))

    def _write(self, text: str) -> None:
        if text:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
            self._stream.flush()


class _Above(io.TextIOBase):
    """A stream whose text goes above the bars, line by line."""

    def __init__(self, screen: Screen, stream: TextIO) -> None:
        self._screen = screen
        self._stream = stream

    def write(self, text: str) -> int:
        if text:
            self._screen.print_text(self._stream, text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors


def _shows_lines(encoding: str) -> bool:
    try:
        "━…".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _terminal_size(stream: TextIO) -> tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns = rows = 0
    fallback = shutil.get_terminal_size((80, 24))
    return columns or fallback.columns, rows or fallback.lines


def _same_terminal(one: TextIO, other: TextIO) -> bool:
    try:
        return one.isatty() and os.fstat(one.fileno()).st_rdev == os.fstat(other.fileno()).st_rdev
    except (OSError, ValueError, AttributeError):
        return False
