"""Commands that a hint names, with the profile and the config file that were typed: copied, they act on the same catalog."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from ursa_cli.commands import COMMANDS

DEFAULT_PROFILE = "r2"
_COMMAND = re.compile(r"`ursa ([^`\n]+)`")
# Without a word more these are the names of commands, not commands to type.
_NEED_MORE = {
    "ingest",
    "batch",
    "ingest-r2",
    "reconstruct",
    "show",
    "download",
    "verify",
    "schedule",
    "config",
    "catalog",
}
_TOLD = {"message", "hint", "reason", "detail", "mend", "stopped", "problems", "warnings"}

_options: dict[str, str] = {}


def remember(profile: str, config: object = None) -> None:
    """What was typed in this process, from now on."""
    _options.clear()
    if profile != DEFAULT_PROFILE:
        _options["--profile"] = shlex.quote(profile)
    if config is not None:
        _options["--config"] = shlex.quote(str(config))


def as_typed(text: str) -> str:
    """``text``, in which each `ursa …` in backquotes has the profile and the config that were typed, unless it names its own."""
    return _COMMAND.sub(_completed, text) if _options and "`ursa " in text else text


def options() -> str:
    """What such a command ends in, with a space before it; empty where nothing but the defaults was typed."""
    return "".join(f" {name} {value}" for name, value in _options.items())


def told_as_typed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON line's or a report's values: those that people read are treated so; names, paths and the like stay."""
    return {name: _deep(value, told=name in _TOLD) for name, value in fields.items()}


def _deep(value: Any, *, told: bool) -> Any:
    if isinstance(value, str):
        return as_typed(value) if told else value
    if isinstance(value, Mapping):
        return told_as_typed(value)
    if isinstance(value, list | tuple):
        return [_deep(item, told=told) for item in value]
    return value


def _completed(match: re.Match[str]) -> str:
    words = match[1].split()
    known = {word.partition("=")[0] for word in words}
    if words[0] not in COMMANDS or "--help" in known or (len(words) == 1 and words[0] in _NEED_MORE):
        return match[0]
    missing = dict(_options)
    if known & {"--profile", "-p", "--config"} or words[:2] == ["config", "init"]:
        missing.pop("--profile", None)
    if "--config" in known:
        missing.pop("--config", None)
    return "`ursa " + match[1] + "".join(f" {name} {value}" for name, value in missing.items()) + "`"
