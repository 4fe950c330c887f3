"""``--notify CMD``: tell somebody of every run that is not clean, whatever ended it."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Self

from ursa_cli.ending import exit_code, told
from ursa_cli.render import SCHEMA_VERSION
from ursa_cli.session import interrupted
from ursa_cli.typed import told_as_typed

TIMEOUT_S = 60.0
_END_S = 2.0  # between asking a command that takes too long to end and killing it

_log = logging.getLogger("ursa.notify")


class Notifier:
    """Around the whole body of a command: runs CMD with the summary on its stdin unless the run is clean (exit 0).

    CMD goes through the shell (``/bin/sh -c``). Its stdout goes to stderr, for stdout is the command's own. That it
    fails, or takes more than ``timeout_s``, is said on stderr and changes nothing else.

    Args:
        shell_command: CMD; None notifies nobody.
        command: the command's name, for the summary.
        timeout_s: how long CMD may take, in seconds.
    """

    def __init__(self, shell_command: str | None, *, command: str = "batch", timeout_s: float = TIMEOUT_S) -> None:
        self.summary: Mapping[str, Any] = {}
        """What the command knows of its run, as JSON values: ``counts``, ``failed``, what else its last JSON line has."""
        self._shell_command = shell_command
        self._command = command
        self._timeout_s = timeout_s
        self._started_at = _now()

    def __enter__(self) -> Self:
        self._started_at = _now()
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            error = interrupted()
        code = exit_code(error)
        if code != 0 and self._shell_command is not None:
            self._run(self._shell_command, self.payload(code, error))

    def payload(self, code: int, error: BaseException | None) -> dict[str, Any]:
        """The summary as CMD reads it: what the command set, and how the run ended where that says nothing of it."""
        said = told(error, f"ursa {self._command} on {_host()} ended with exit status {code}")
        defaults = {"counts": {}, "failed": []} | said
        fixed = {
            "schema_version": SCHEMA_VERSION,
            "type": "summary",
            "command": self._command,
            "exit_code": code,
            "host": _host(),
            "started_at": self._started_at,
            "ended_at": _now(),
        }
        # An error that the command's own summary does not know came after it, and wins.
        after = said if said["error"] not in (None, self.summary.get("error")) else {}
        return told_as_typed(fixed | defaults | dict(self.summary) | fixed | after)

    def _run(self, shell_command: str, payload: dict[str, Any]) -> None:
        try:
            text = json.dumps(payload, default=str, ensure_ascii=True)
            said = _pipe(shell_command, f"{text}\n".encode("ascii"), self._timeout_s)
        except KeyboardInterrupt:
            said = "was interrupted"
        except (OSError, ValueError) as error:
            said = f"could not be started: {error}"
        if said is None:
            _log.info("notified")
            return
        if _log.hasHandlers():
            _log.warning("the --notify command %s", said)
        print(f"ursa: the --notify command {said}; the exit status is the run's own", file=sys.stderr)


def _pipe(shell_command: str, payload: bytes, timeout_s: float) -> str | None:
    """Run it; None, or what went wrong in words."""
    # A session of its own: Ctrl-C in a terminal is for us, and on time-out everything that it started ends with it.
    process = subprocess.Popen(shell_command, shell=True, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
    try:
        process.communicate(payload, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return f"took more than {timeout_s:g} s and was ended"
    finally:
        if process.returncode is None:
            _end(process)
    if process.returncode < 0:
        return f"was killed by signal {-process.returncode}"
    return f"ended with exit status {process.returncode}" if process.returncode else None


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
            return


def _host() -> str:
    return socket.gethostname() or "unknown"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
