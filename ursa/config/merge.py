"""Profiles merged: the built-in ones, what the file says, and whom a profile extends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ursa.config.draft import Draft, provider_of
from ursa.config.profile import Kind
from ursa.config.references import references
from ursa.config.words import did_you_mean, file_error

LAYOUT = {"raw": ("constellation-data", "recordings/"), "assets": ("constellation-assets", "ursa/")}
_BUILT_IN: Mapping[str, dict[str, Any]] = {
    "local": {section: {"bucket": bucket} for section, (bucket, _) in LAYOUT.items()},
    "r2": {section: {"bucket": bucket} for section, (bucket, _) in LAYOUT.items()},
    "r2-test": {section: {"bucket": f"{bucket}-test"} for section, (bucket, _) in LAYOUT.items()},
}
_NEEDS_ENDPOINT = ("r2", "r2-test")  # nothing turns these into a local directory
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def drafts(declared: Mapping[str, dict[str, Any]], source: Path | None) -> dict[str, Draft]:
    """Every profile by name, the built-in ones included."""
    found = {name: _resolve(name, declared, source) for name in (*_BUILT_IN, *declared)}
    for draft in found.values():
        _refuse_bad_name(draft)
        references(draft)  # also of the profiles that nobody asked for: a secret must not lie in the file
    return found


def _resolve(
    name: str, declared: Mapping[str, dict[str, Any]], source: Path | None, trail: tuple[str, ...] = ()
) -> Draft:
    """Merge, weakest first: the profile it extends, the built-in of its name, what is typed under its name.

    The built-in lies over the extended one so that ``r2-test: {extends: r2}`` keeps the test buckets.
    """
    own = declared.get(name, {})
    parent = own.get("extends")
    base = None
    if parent is not None:
        _refuse_bad_parent(name, parent, (*trail, name), declared, source)
        base = _resolve(parent, declared, source, (*trail, name))
    settings = _merge(_merge(base.settings if base else {}, _BUILT_IN.get(name, {})), own)
    return Draft(name, _kind(name, base, settings), settings, ((name, own), *(base.typed if base else ())), source)


def _kind(name: str, base: Draft | None, settings: Mapping[str, Any]) -> Kind:
    if name in _NEEDS_ENDPOINT:
        return "s3"
    directory = settings.get("root") and not settings.get("endpoint_url")
    return "local" if name == "local" or (base and base.kind == "local") or directory else "s3"


def _refuse_bad_parent(
    name: str, parent: str, trail: tuple[str, ...], declared: Mapping[str, Any], source: Path | None
) -> None:
    known = sorted({*_BUILT_IN, *declared})
    if parent in trail:
        words = f"goes round in a circle: {' → '.join((*trail, parent))}."
    elif parent not in known:
        words = f"there is no profile {parent!r}{did_you_mean(parent, known)}; known: {', '.join(known)}."
    else:
        return
    assert source  # the built-in profiles extend nothing
    raise file_error(source, words, key=f"profiles.{name}.extends")


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` over ``under``, section by section. An empty section changes nothing; a null value unsets."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if key == "credentials" and below and value and value.get("provider") not in (None, provider_of(below)):
            below = None  # references mean nothing to another provider
        if isinstance(value, dict):
            merged[key] = _merge(below or {}, value)
        elif value is not None or not isinstance(below, dict):
            merged[key] = value
    return merged


def _refuse_bad_name(draft: Draft) -> None:
    if draft.source and not _NAME.fullmatch(draft.name):
        key = f"profiles.{draft.name!r}"
        raise file_error(draft.source, "a profile's name is letters, digits, '.', '_' and '-'.", key=key)
