"""The words of config errors: file, line, key, what was found and expected; never the value of a reference."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from ursa.config.profile import PROVIDERS
from ursa.config.typed import known_keys
from ursa.errors import ConfigError


def file_error(file: Path | str, words: str, *, hint: str | None = None, key: str | None = None) -> ConfigError:
    """An error about a file, or about one setting in it."""
    hint = hint or f"Mend {key or 'it'} in {file}; `ursa config show --config {file}` checks it."
    return ConfigError(f"{file}: {key}: {words}" if key else f"{file}: {words}", hint=hint, path=str(file), key=key)


def user_path() -> Path | None:
    """The user's own config file; None without a home directory to look in (cron in a container)."""
    try:
        path = platformdirs.user_config_path("ursa") / "config.yaml"
    except RuntimeError:
        return None
    return path if path.is_absolute() else None


def file_name(source: Path | None) -> str:
    """The config file, or where it would be."""
    return str(source or user_path() or "the config file (`--config PATH`)")


def in_file(path: Path | None) -> str:
    """Where a profile was looked for."""
    return f"in {path}" if path else f"among the built-in ones, and {file_name(path)} isn't there"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The nearest known name, as an aside; nothing when none is near."""
    found = difflib.get_close_matches(word.casefold(), known, n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def position(text: str, index: int) -> str:
    """Line and column of a character."""
    before = text[:index]
    return f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"


def line_and_column(error: yaml.MarkedYAMLError) -> str:
    """Line and column of an error of yaml's."""
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"


_FOUND: Mapping[type, str] = {
    str: "text",
    bool: "a yes/no value",
    int: "a number",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}
_EXPECTED = {"string_type": "text", "model_type": "a mapping (`key: value`)", "dict_type": "a mapping (`key: value`)"}


def in_words(details: Any) -> tuple[str, str]:
    """One error of pydantic: its dotted path, and what was found and expected there; never the value of a reference."""
    loc = tuple(str(part) for part in details["loc"] if part != "[key]")
    dotted = ".".join(loc) or "the top level"
    if details["type"] == "extra_forbidden":
        known = known_keys(loc[:-1])
        return dotted, f"{dotted}: unknown key{did_you_mean(loc[-1], known)}; known here: {', '.join(known)}."
    value = details["input"]
    if details["type"] == "literal_error":
        nearest = did_you_mean(value, PROVIDERS) if isinstance(value, str) else ""
        found = repr(value[:40]) if isinstance(value, str) else _found(value)
        return dotted, f"{dotted}: found {found}, expected one of {', '.join(PROVIDERS)}{nearest}."
    expected = _EXPECTED.get(details["type"], details["msg"])
    quotes = " (put it in quotes)" if expected == "text" and isinstance(value, int) else ""
    return dotted, f"{dotted}: found {_found(value)}, expected {expected}{quotes}."


def _found(value: object) -> str:
    return _FOUND.get(type(value), f"a {type(value).__name__}")
