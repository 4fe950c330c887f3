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

from ursa.errors import UrsaError
from ursa_cli import streams
from ursa_cli.render import SCHEMA_VERSION
from ursa_cli.session import interrupted

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
        """The summary as CMD reads it: what the command set, and how the run ended."""
        told = _told(error, f"ursa {self._command} on {_host()} ended with exit status {code}")
        defaults = {"counts": {}, "failed": []} | told
        fixed = {
            "schema_version": SCHEMA_VERSION,
            "type": "summary",
            "command": self._command,
            "exit_code": code,
            "host": _host(),
            "started_at": self._started_at,
            "ended_at": _now(),
        }
        return fixed | defaults | dict(self.summary) | fixed | (told if told["error"] else {})

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


def exit_code(error: BaseException | None) -> int:
    """The exit status of a run that ends with this error; a lost output counts as `ursa` counts it."""
    if error is None:
        return 1 if streams.output_failure() else 0
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    # UrsaError, typer.Exit and typer's usage errors all carry one; what doesn't is a bug.
    code = getattr(error, "exit_code", 1)
    return code if isinstance(code, int) else 1


def _told(error: BaseException | None, otherwise: str) -> dict[str, Any]:
    if isinstance(error, UrsaError):
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    usage = getattr(error, "format_message", None)
    if error is not None and usage is not None:
        return {"error": "UsageError", "message": usage(), "hint": "`ursa COMMAND --help`"}
    if isinstance(error, Exception) and not hasattr(error, "exit_code") and type(error).__name__ != "Abort":
        hint = "This is a bug in ursa: please report the traceback, which is on stderr. Running it again is safe."
        return {"error": type(error).__name__, "message": str(error), "hint": hint}
    lost = streams.output_failure() if error is None else None
    return {"error": None, "message": f"can't write the output: {lost}" if lost else otherwise, "hint": None}


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
