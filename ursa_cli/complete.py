"""Completion of rec_ids and profiles, from a cache on this machine: never a config parsed, never the network."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

_BUILT_IN = ("local", "r2", "r2-test")


def complete_recordings(args: list[str], incomplete: str) -> list[str]:
    """rec_ids that this machine has seen under the profile that is being typed."""
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
    block = re.search(r"^profiles:\s*\n((?:[ #\n].*\n?|\n)*)", text, re.MULTILINE)
    names = re.findall(r"^ {1,4}([A-Za-z0-9_.-]+):", block[1], re.MULTILINE) if block else []
    return sorted(name for name in {*_BUILT_IN, *names} if name.startswith(incomplete))


def remember(profile: str, rec_ids: Iterable[str]) -> None:
    """Add rec_ids to the cache; that it fails (no home, a full disk) matters to nobody."""
    path = _cache_file(profile)
    try:
        known = set(path.read_text(encoding="utf-8").split()) if path.exists() else set()
        if not set(rec_ids) <= known:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}")
            fresh.write_text("\n".join(sorted(known | set(rec_ids))[-10_000:]) + "\n", encoding="utf-8")
            fresh.replace(path)
    except (OSError, UnicodeError):
        return


def _profile_in(args: list[str]) -> str:
    for option, value in itertools.pairwise(args):
        if option in ("-p", "--profile"):
            return value
    return next((arg.removeprefix("--profile=") for arg in args if arg.startswith("--profile=")), "r2")


def _cache_file(profile: str) -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("ursa") / "rec_ids" / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', profile)}.txt"
