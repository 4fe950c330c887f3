"""How a run ended, for whoever was not there: its exit status, and its error in words."""

from __future__ import annotations

import re
from typing import Any

from ursa.errors import UrsaError
from ursa_cli import streams


def exit_code(error: BaseException | None) -> int:
    """The exit status of a run that ends with this error; a lost output counts as `ursa` counts it."""
    if error is None:
        return 1 if streams.output_failure() else 0
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return 130
    # UrsaError, typer.Exit and typer's usage errors all carry one; what doesn't is a bug.
    code = getattr(error, "exit_code", 1)
    return code if isinstance(code, int) else 1


_REWORDED = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer, .*", "that is no whole number"),
    (r"Input should be greater than or equal to (\S+)", r"it must be at least \1"),
    (r"Input should be less than or equal to (\S+)", r"it must be at most \1"),
)


def usage(error: Any) -> str:
    """A usage error of typer's, as a person says it."""
    text = str(error.format_message())
    for pattern, words in _REWORDED:
        text = re.sub(pattern, words, text)
    return text


def told(error: BaseException | None, otherwise: str) -> dict[str, Any]:
    """``error`` (its class), ``message`` and ``hint``; ``otherwise`` is the message of a run that no error ended."""
    if isinstance(error, UrsaError):
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        return {
            "error": "UsageError",
            "message": usage(error),
            "hint": f"See `{context.command_path if context else 'ursa COMMAND'} --help`.",
        }
    if type(error).__name__ == "Abort":
        return {"error": "Abort", "message": "stopped; nothing was done", "hint": None}
    if isinstance(error, Exception) and not hasattr(error, "exit_code"):
        hint = "This is a bug in ursa: please report the traceback, which is on stderr. Running it again is safe."
        if isinstance(error, OSError):
            hint = "What was finished before stands. Mend it, and run the same command again."
        return {"error": type(error).__name__, "message": str(error), "hint": hint}
    lost = streams.output_failure() if error is None else None
    return {"error": None, "message": f"can't write the output: {lost}" if lost else otherwise, "hint": None}
