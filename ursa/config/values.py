"""Checks of single values: an endpoint, a region, a time zone."""

from __future__ import annotations

import difflib
import re
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from ursa.errors import ConfigError

_REGION = re.compile(r"[A-Za-z0-9-]+")
_OFFSET = re.compile(r"[+-](\d\d):(\d\d)", re.ASCII)


def checked_endpoint(url: str) -> str:
    """An http(s) URL without a trailing '/'. The URL is never quoted in an error: it may hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ConfigError("not an http:// or https:// URL with a host.")
    if "@" in parts.netloc:
        raise ConfigError("holds a user name or password; credentials never stand in this file.")
    if parts.query or parts.fragment:
        raise ConfigError("has a '?' or '#' part; an endpoint is https://host or https://host:port.")
    if parts.path.strip("/") and str(parts.hostname).endswith(".r2.cloudflarestorage.com"):
        raise ConfigError("ends in a path; the bucket goes into raw.bucket and assets.bucket.")
    return url.rstrip("/?#")


def checked_region(region: str) -> str:
    """A region as servers spell theirs."""
    if not _REGION.fullmatch(region):
        raise ConfigError(f"{region!r} is no region; 'auto' on R2, else like 'eu-central-1'.")
    return region


def checked_timezone(name: str | None) -> str | None:
    """An IANA name or ±HH:MM, up to 14 hours: the farthest offset in use."""
    if name is None:
        return None
    offset = _OFFSET.fullmatch(name)
    if offset and int(offset[1]) * 60 + int(offset[2]) <= 14 * 60 and int(offset[2]) < 60:
        return name
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        nearest = difflib.get_close_matches(name, available_timezones(), n=1)
        guess = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise ConfigError(
            f"{name!r} is no time zone{guess}; expected an IANA name such as Europe/Berlin, or ±HH:MM."
        ) from None
    return name
