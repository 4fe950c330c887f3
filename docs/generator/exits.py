"""Exit codes by error class: the code lives on the class, and so does what it means."""

from __future__ import annotations

import inspect
import re


def table() -> str:
    """A table of every error, by exit code."""
    from ursa import errors

    classes = [
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.UrsaError) and item is not errors.UrsaError
    ]
    rows = [
        f"| {item.exit_code} | `{item.__name__}` | {_meaning(item)} |"
        for item in sorted(classes, key=lambda item: (item.exit_code, item.__name__))
    ]
    return "\n".join(["| status | error | when, and its fields |", "| --- | --- | --- |", *rows])


def _meaning(item: type) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", " ".join((item.__doc__ or "").split()))
