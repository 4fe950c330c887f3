"""Checks of single values: an endpoint, a region, a time zone, a size, a duration."""

from __future__ import annotations

import difflib
import re
from decimal import Decimal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from ursa.errors import ConfigError

_REGION = re.compile(r"[A-Za-z0-9-]+")
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?) ?([KMGT]?)(i?)B?", re.ASCII)
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?([smhdw])", re.ASCII)
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
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


def checked_size(text: str) -> int:
    """A size in bytes. K, M, G and T are powers of 1000, as disks are sold; Ki, Mi, Gi and Ti powers of 1024."""
    match = _SIZE.fullmatch(text)
    if not match or (match[3] and not match[2]):
        raise ConfigError(f"{text!r} is not a valid size; a number with K, M, G or T, such as 200G.")
    return int(Decimal(match[1]) * (1024 if match[3] else 1000) ** _POWER[match[2]])


def checked_duration(text: str) -> float:
    """A duration in seconds."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ConfigError(f"{text!r} is not a valid duration; a number with s, m, h, d or w, such as 14d.")
    return float(match[1]) * _UNIT_S[match[2]]
