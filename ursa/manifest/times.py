"""When a recording was made: ISO 8601 texts, time zones, and what is assumed where a rig left them out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from ursa.errors import ConfigError, ManifestError
from ursa.manifest.names import check_rec_id, shown

if TYPE_CHECKING:
    from ursa.manifest.models import Manifest

TIME_ASSUMED = "time_assumed"
TIME_AMBIGUOUS = "time_ambiguous"
FROM_REC_ID = "started_at_from_rec_id"

TIME_EXPECTED = "an ISO 8601 date and time such as 2026-05-20T19:56:28+02:00"
ZONE_EXPECTED = "an IANA time zone such as Europe/Berlin, or ±HH:MM"

_HINT = "Nothing was uploaded. Correct the field in the manifest and run the same command again."
_ZONE_HINT = "set rig_timezone in the profile: a time without a zone was read as UTC"
_HAS_TIME = re.compile(r"[0-9W-]{7,10}[Tt ][0-9]{2}")
_OFFSET = re.compile(r"([+-])([0-9]{2}):([0-5][0-9])")
_ZONE_NAME = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*")


@dataclass(frozen=True, slots=True)
class RecordingTimes:
    """Start and end as aware UTC datetimes, the duration in seconds, and what had to be assumed (``flags``)."""

    started_at: datetime | None
    ended_at: datetime | None
    duration_s: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Instant:
    """A time, resolved. ``own_zone``: it had one; ``local``: with the zone it was read in; ``second``: UTC of the
    second reading of an ambiguous one; ``flag``: what had to be assumed."""

    own_zone: bool
    local: datetime
    utc: datetime
    second: datetime | None
    flag: str | None


class NonexistentTimeError(ValueError):
    """A local time that the clocks skipped."""


def flagged(flags: Iterable[str]) -> bool:
    """Whether a time was assumed or ambiguous; such a time never beats a stated one."""
    return not {TIME_ASSUMED, TIME_AMBIGUOUS}.isdisjoint(flags)


def parse_time(text: str) -> datetime:
    """An ISO 8601 date and time, naive when it has no offset.

    Raises:
        ValueError: it is not one, or only a date.
    """
    if not (text.isascii() and _HAS_TIME.match(text)):
        raise ValueError(f"expected {TIME_EXPECTED}")
    return datetime.fromisoformat(text.upper())


def parse_zone(text: str) -> tzinfo:
    """A time zone by IANA name, ±HH:MM, Z or UTC.

    Raises:
        ValueError: there is no such zone.
    """
    if text.upper() in ("Z", "UTC"):
        return UTC
    offset = _OFFSET.fullmatch(text)
    if offset:
        sign, hours, minutes = offset.groups()
        delta = timedelta(hours=int(hours), minutes=int(minutes))
        if delta < timedelta(hours=24):
            return timezone(-delta if sign == "-" else delta)
    elif _ZONE_NAME.fullmatch(text):
        try:
            return ZoneInfo(text)
        except (KeyError, ValueError, OSError):  # unknown; a file that is no zone; a directory such as "Europe"
            pass
    raise ValueError(f"expected {ZONE_EXPECTED}")


def instant(naive_or_aware: datetime, zone: tzinfo | None) -> Instant:
    """The moment that a time means, read in ``zone`` if it has none of its own and in UTC (flagged) without either.

    Raises:
        NonexistentTimeError: the clocks skipped it.
        OverflowError: it is outside of the years 1 to 9999 in UTC.
    """
    if naive_or_aware.tzinfo is not None:
        return Instant(True, naive_or_aware, naive_or_aware.astimezone(UTC), None, None)
    local = naive_or_aware.replace(tzinfo=zone or UTC, fold=0)
    utc = local.astimezone(UTC)
    if zone is None:
        return Instant(False, local, utc, None, TIME_ASSUMED)
    if utc.astimezone(zone).replace(tzinfo=None, fold=0) != naive_or_aware.replace(fold=0):
        raise NonexistentTimeError("a local time that the clocks skipped")
    second = local.replace(fold=1).astimezone(UTC)
    if second != utc:
        return Instant(False, local, utc, second, TIME_AMBIGUOUS)
    return Instant(False, local, utc, None, None)


def resolve_times(manifest: Manifest, rec_id: str, *, rig_timezone: str | None) -> RecordingTimes:
    """What the catalog says about when a recording was made.

    A time without a zone is read in the manifest's ``timezone``, else in ``rig_timezone``, else in UTC and flagged.
    Without a stated start, the rec_id's digits are read the same way.

    Raises:
        ManifestError: a stated time that the clocks skipped, or an end before the start.
        ConfigError: ``rig_timezone`` is no time zone.
        InvalidRecordingError: ``rec_id`` is not one.
    """
    check_rec_id(rec_id)
    zone = zone_for(manifest, rig_timezone)
    flags: set[str] = set()
    ended = stated_instant(manifest, "ended_at", zone)
    started = stated_instant(manifest, "started_at", zone)
    if started is None:
        started = _from_rec_id(rec_id, zone, ended, flags)
    flags.update(moment.flag for moment in (started, ended) if moment and moment.flag)
    ended_at = _end(manifest, started, ended)
    duration_s = manifest.duration_s
    if duration_s is None and started and ended_at:
        duration_s = (ended_at - started.utc).total_seconds()
    return RecordingTimes(started.utc if started else None, ended_at, duration_s, tuple(sorted(flags)))


def zone_for(manifest: Manifest, rig_timezone: str | None) -> tzinfo | None:
    """The zone of a manifest's naive times: its own, else the rig's, else None.

    Raises:
        ConfigError: ``rig_timezone`` is no time zone.
    """
    rig_zone = _rig_zone(rig_timezone)
    if manifest.timezone is None:
        return rig_zone
    try:
        return parse_zone(manifest.timezone)
    except ValueError:
        raise _refusal(manifest, "timezone", shown(manifest.timezone), ZONE_EXPECTED) from None


def stated_instant(manifest: Manifest, field: str, zone: tzinfo | None) -> Instant | None:
    """The manifest's ``started_at`` or ``ended_at``, resolved in ``zone``; None when it states none.

    Raises:
        ManifestError: the clocks skipped it, or it is out of range.
    """
    text = manifest.started_at if field == "started_at" else manifest.ended_at
    if text is None:
        return None
    try:
        return instant(parse_time(text), zone)
    except NonexistentTimeError:
        found = f"{shown(text)}, which {zone} skipped when its clocks went forward"
        raise _refusal(manifest, field, found, "a time that existed") from None
    except OverflowError:
        raise _refusal(manifest, field, shown(text), "a time in the years 1 to 9999 UTC") from None
    except ValueError:
        raise _refusal(manifest, field, shown(text), TIME_EXPECTED) from None


def _rig_zone(rig_timezone: str | None) -> tzinfo | None:
    if rig_timezone is None:
        return None
    try:
        return parse_zone(rig_timezone)
    except ValueError as exc:
        raise ConfigError(
            f"rig_timezone: found {shown(rig_timezone)}, {exc}",
            hint="Correct rig_timezone in the profile (see `ursa config show`)",
            key="rig_timezone",
        ) from None


def _from_rec_id(rec_id: str, zone: tzinfo | None, ended: Instant | None, flags: set[str]) -> Instant | None:
    """The start as the rec_id's digits say, or None; nobody stated it, so it never makes a recording refusable."""
    try:
        local = datetime.strptime(rec_id[4:19], "%Y%m%d_%H%M%S")
    except ValueError:
        return None  # an impossible date; rigs without a clock write such
    flags.add(FROM_REC_ID)
    try:
        started = instant(local, zone)
    except (NonexistentTimeError, OverflowError):
        return None
    if ended and max(ended.utc, ended.second or ended.utc) < started.utc:
        return None
    return started


def _end(manifest: Manifest, started: Instant | None, ended: Instant | None) -> datetime | None:
    """The end in UTC. An ambiguous end takes its second reading where the first would lie before the start."""
    if ended is None or started is None or started.utc <= ended.utc:
        return ended.utc if ended else None
    if ended.second and started.utc <= ended.second:
        return ended.second
    found = f"{shown(manifest.ended_at or '')}, before the start"
    expected = f"no earlier than {shown(manifest.started_at or '')}"
    assumed = TIME_ASSUMED in (started.flag, ended.flag)
    raise _refusal(manifest, "ended_at", found, expected, _ZONE_HINT if assumed else _HINT)


def _refusal(manifest: Manifest, field: str, found: str, expected: str, hint: str = _HINT) -> ManifestError:
    pointer = manifest.pointer_to(field)
    return ManifestError(
        f"{shown(manifest.source, 400)}: {pointer}: found {found}, expected {expected}",
        hint=hint,
        path=manifest.source,
        pointer=pointer,
        found=found,
        expected=expected,
    )
