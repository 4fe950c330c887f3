"""Texts and values for a report: short enough, harmless in a page, and without secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_LONGEST_TEXT = 4_000
_MOST_WARNINGS = 50


def shortened(values: dict[str, Any]) -> dict[str, Any]:
    """Texts cut to a length at which ten thousand of them are still a file to open."""
    cut = {name: _cut(value) if isinstance(value, str) else value for name, value in values.items()}
    warnings = values.get("warnings", ())
    if warnings:
        more = len(warnings) - _MOST_WARNINGS
        kept = [_cut(text) for text in warnings[:_MOST_WARNINGS]]
        cut["warnings"] = (*kept, *([f"and {more} more: see the log"] if more > 0 else []))
    return cut


def _cut(text: str) -> str:
    over = len(text) - _LONGEST_TEXT
    return f"{text[:_LONGEST_TEXT]}… ({over} more characters: see the log)" if over > 0 else text


def encoded(value: Mapping[str, Any]) -> bytes:
    """JSON that may stand inside a <script> as well: ASCII only, and nothing that could end or open an element.

    Not orjson: it refuses the lone surrogates by which Python carries file names that are not UTF-8.
    """
    text = json.dumps(value, default=_jsonable, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode("ascii")


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def without_secrets(command: list[str]) -> list[str]:
    """The command as typed, without the one of ``--notify``: a webhook's address is a secret, and reports get around."""
    told = list(command)
    for at, word in enumerate(told):
        if word == "--notify" and at + 1 < len(told):
            told[at + 1] = "…"
        elif word.startswith("--notify="):
            told[at] = "--notify=…"
    return told
