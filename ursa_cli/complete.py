"""Completion of commands, rec_ids and profiles: never a config parsed, never the network.

rec_ids come from a cache on this machine, which `ls`, `show` and `ingest` fill. What this module does not know (a
command's options) is left to typer, in the same formats.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ursa_cli.commands import COMMANDS

_BUILT_IN = ("local", "r2", "r2-test")
_REMEMBERED = 10_000


@dataclass(frozen=True)
class Answer:
    """What to offer, for one of the shells that typer's completion scripts serve."""

    shell: str
    values: tuple[str, ...]
    fish_asks: bool

    def print(self) -> int:
        """Write it as the shell's script expects it; returns the exit code."""
        if self.fish_asks:
            return 0 if self.values else 1
        if self.shell == "zsh":
            quoted = "\n".join('"' + value.replace(":", r"\\:") + '"' for value in self.values)
            print(f"_arguments '*: :(({quoted}))'" if self.values else "_files")
        elif self.values:
            print("\n".join(self.values))
        return 0


def answer(environment: Mapping[str, str]) -> Answer | None:
    """What completes the words in ``environment`` (as typer's scripts pass them); None: typer shall answer."""
    instruction, _, shell = environment["_URSA_COMPLETE"].partition("_")
    if instruction != "complete" or shell not in ("bash", "zsh", "fish"):
        return None
    values = _values(*_words(shell, environment))
    if values is None:
        return None
    return Answer(shell, tuple(values), environment.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args")


def complete_recordings(args: list[str], incomplete: str) -> list[str]:
    """rec_ids that this machine has seen under the profile that is being typed, the newest first."""
    try:
        seen = _cache_file(_profile_in(args)).read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [name for name in reversed(seen) if name.startswith(incomplete)]


def complete_profiles(incomplete: str) -> list[str]:
    """The built-in profiles and those of the config file."""
    from platformdirs import user_config_path

    try:
        text = (user_config_path("ursa") / "config.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    block = re.search(r"^profiles:[ \t]*\n((?:(?:[ #].*)?\n)*)", text + "\n", re.MULTILINE)
    first = re.search(r"^ +(?=[^ #\n])", block[1], re.MULTILINE) if block else None
    names = re.findall(rf"^{first[0]}([A-Za-z0-9_.-]+):", block[1], re.MULTILINE) if block and first else []
    return sorted(name for name in {*_BUILT_IN, *names} if name.startswith(incomplete))


def remember(profile: str, rec_ids: Iterable[str]) -> None:
    """Add rec_ids to the cache; that it fails (no home, a full disk) matters to nobody."""
    path = _cache_file(profile)
    try:
        known = set(path.read_text(encoding="utf-8").split()) if path.exists() else set()
        if not set(rec_ids) <= known:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}")
            fresh.write_text("\n".join(sorted(known | set(rec_ids))[-_REMEMBERED:]) + "\n", encoding="utf-8")
            fresh.replace(path)
    except (OSError, UnicodeError):
        return


def _words(shell: str, environment: Mapping[str, str]) -> tuple[list[str], str]:
    """The words before the cursor, without `ursa`, and the one that is being typed."""
    if shell == "bash":
        words = _split(environment.get("COMP_WORDS", ""))
        index = int(environment.get("COMP_CWORD", len(words)))
        return words[1:index], words[index] if index < len(words) else ""
    line = environment.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(line)[1:]
    if words and not line.endswith(" "):
        return words[:-1], words[-1]
    return words, ""


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        # An open quote: the word is still being typed.
        return line.split()


def _values(words: list[str], incomplete: str) -> list[str] | None:
    if words and words[-1] in ("-p", "--profile"):
        return complete_profiles(incomplete)
    if incomplete.startswith("-"):
        return None
    if not words:
        return [name for name in COMMANDS if name.startswith(incomplete)]
    entry = COMMANDS.get(words[0])
    if entry is None:
        return None
    if len(words) == 1 and entry.subcommands:
        return [name for name in entry.subcommands if name.startswith(incomplete)]
    if entry.recordings and not words[-1].startswith("-"):
        return complete_recordings(words, incomplete)
    return None


def _profile_in(args: list[str]) -> str:
    for option, value in itertools.pairwise(args):
        if option in ("-p", "--profile"):
            return value
    return next((arg.removeprefix("--profile=") for arg in args if arg.startswith("--profile=")), "r2")


def _cache_file(profile: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", profile)
    return _cache_directory() / "rec_ids" / f"{name}.txt"


def _cache_directory() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("ursa")
