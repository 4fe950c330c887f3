"""The installed command in a pseudo-terminal of a given width, and what is on its screen in the end."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence

import pyte

HEIGHT = 400
TIMEOUT_S = 120.0


def run_on_terminal(argv: Sequence[str], columns: int, environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit status and screen, trailing blanks cut."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, columns, 0, 0))
    env = {**environment, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(HEIGHT)}
    process = subprocess.Popen(list(argv), stdin=follower, stdout=follower, stderr=follower, env=env)
    os.close(follower)
    screen = pyte.Screen(columns, HEIGHT)
    stream = pyte.ByteStream(screen)
    try:
        while True:
            try:
                data = os.read(leader, 65536)
            except OSError:
                # The terminal hangs up when the last writer has gone.
                break
            if not data:
                break
            stream.feed(data)
    finally:
        os.close(leader)
    code = process.wait(TIMEOUT_S)
    return code, "\n".join(line.rstrip() for line in screen.display).rstrip() + "\n"
