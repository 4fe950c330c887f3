"""Times: zones, what is assumed, and the two hours a year that are not what they seem."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ursa.errors import ConfigError, InvalidRecordingError, ManifestError
from ursa.manifest import RecordingTimes, flagged, parse_manifest, resolve_times

REC_ID = "rec_20260520_195628_b1dd"
ASSUMED, AMBIGUOUS, FROM_REC_ID = "time_assumed", "time_ambiguous", "started_at_from_rec_id"


def resolve(rec_id: str = REC_ID, rig_timezone: str | None = None, **fields: Any) -> RecordingTimes:
    data = json.dumps({"recording_id": rec_id, **fields}).encode()
    return resolve_times(parse_manifest(data, source="m.json"), rec_id, rig_timezone=rig_timezone)


def utc(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None


STARTS = [
    # fields, rig_timezone, rec_id, started_at in UTC, flags
    ({"started_at": "2026-05-20T19:56:28Z"}, "Asia/Tokyo", REC_ID, "2026-05-20T19:56:28", ()),
    ({"started_at": "2026-05-20t19:56:28z"}, None, REC_ID, "2026-05-20T19:56:28", ()),
    ({"started_at": "2026-05-20 19:56:28.25+02:00"}, None, REC_ID, "2026-05-20T17:56:28.250", ()),
    ({"started_at": "20260520T195628-0130"}, None, REC_ID, "2026-05-20T21:26:28", ()),
    ({"started_at": "2026-05-20T19:56:28", "tz": "Europe/Berlin"}, "UTC", REC_ID, "2026-05-20T17:56:28", ()),
    ({"started_at": "2026-05-20T19:56:28", "tz": "-03:30"}, None, REC_ID, "2026-05-20T23:26:28", ()),
    ({"started_at": "2026-05-20T19:56:28", "tz": "Z"}, None, REC_ID, "2026-05-20T19:56:28", ()),
    ({"started_at": "2026-05-20T19:56:28"}, "Europe/Berlin", REC_ID, "2026-05-20T17:56:28", ()),
    ({"started_at": "2026-05-20T19:56:28"}, None, REC_ID, "2026-05-20T19:56:28", (ASSUMED,)),
    ({"started_at": "2026-10-25T02:30:00"}, "Europe/Berlin", REC_ID, "2026-10-25T00:30:00", (AMBIGUOUS,)),
    ({}, "Europe/Berlin", REC_ID, "2026-05-20T17:56:28", (FROM_REC_ID,)),
    ({"tz": "+01:00"}, "Europe/Berlin", REC_ID, "2026-05-20T18:56:28", (FROM_REC_ID,)),
    ({}, None, REC_ID, "2026-05-20T19:56:28", (FROM_REC_ID, ASSUMED)),
    ({}, "Europe/Berlin", "rec_20261025_023000_0", "2026-10-25T00:30:00", (FROM_REC_ID, AMBIGUOUS)),
    ({}, "Europe/Berlin", "rec_20260329_023000_0", None, (FROM_REC_ID,)),
    ({}, "Europe/Berlin", "rec_20269999_999999_0", None, ()),
    ({}, None, "rec_00000000_000000_0", None, ()),
    ({}, "+02:00", "rec_00010101_000000_0", None, (FROM_REC_ID,)),
]


@pytest.mark.parametrize(("fields", "rig", "rec_id", "started", "flags"), STARTS, ids=range(len(STARTS)))
def test_start(
    fields: dict[str, Any], rig: str | None, rec_id: str, started: str | None, flags: tuple[str, ...]
) -> None:
    times = resolve(rec_id, rig, **fields)
    assert times == RecordingTimes(utc(started), None, None, flags)


def test_duration() -> None:
    span = {"started_at": "2026-05-20T19:56:28Z", "ended_at": "2026-05-20T20:56:28.5Z"}
    assert resolve(**span).duration_s == 3600.5
    assert resolve(**span, duration_s=7).duration_s == 7
    assert resolve(ended_at="2026-05-20T20:00:00Z").duration_s == 212
    assert resolve("rec_20269999_999999_0", ended_at="2026-05-20T20:00:00Z").duration_s is None
    assert resolve(started_at="2026-05-20T19:56:28Z", ended_at="2026-05-20T19:56:28Z").duration_s == 0


def test_the_end_is_read_in_the_same_zone() -> None:
    times = resolve(started_at="2026-05-20T17:56:28Z", ended_at="2026-05-20T20:00:00", tz="Europe/Berlin")
    assert (times.ended_at, times.flags) == (utc("2026-05-20T18:00:00"), ())
    assert resolve(started_at="2026-05-20T17:56:28Z", ended_at="2026-05-20T20:00:00").flags == (ASSUMED,)


def test_a_session_across_the_repeated_hour() -> None:
    times = resolve(started_at="2026-10-25T02:50:00", ended_at="2026-10-25T02:10:00", tz="Europe/Berlin")
    assert (times.duration_s, times.flags) == (1200, (AMBIGUOUS,))


def test_an_assumed_start_from_the_rec_id_yields_to_a_stated_end() -> None:
    times = resolve(ended_at="2026-05-20T18:10:00Z")
    assert (times.started_at, times.ended_at) == (None, utc("2026-05-20T18:10:00"))
    assert FROM_REC_ID in times.flags


@pytest.mark.parametrize(
    ("fields", "pointer", "why"),
    [
        ({"started_at": "2026-03-29T02:30:00", "tz": "Europe/Berlin"}, "/started_at", "skipped"),
        ({"end_time": "2026-03-29T02:30:00", "tz": "Europe/Berlin"}, "/end_time", "skipped"),
        ({"started_at": "0001-01-01T00:00:00+02:00"}, "/started_at", "years"),
        ({"started_at": "2026-05-20T19:56:28Z", "ended_at": "2026-05-20T19:56:27Z"}, "/ended_at", "before the start"),
        ({"start_time": "2026-05-20T19:56:28", "ended_at": "2026-05-20T19:00:00Z"}, "/ended_at", "before the start"),
    ],
)
def test_refused(fields: dict[str, Any], pointer: str, why: str) -> None:
    with pytest.raises(ManifestError, match=why) as caught:
        resolve(**fields)
    assert (caught.value.path, caught.value.pointer) == ("m.json", pointer)
    assert caught.value.hint


def test_the_rigs_zone_is_checked() -> None:
    with pytest.raises(ConfigError, match="Mars") as caught:
        resolve(rig_timezone="Mars/Olympus")
    assert caught.value.key == "rig_timezone"


def test_the_rec_id_is_checked() -> None:
    with pytest.raises(InvalidRecordingError):
        resolve("recording")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [((), False), ((FROM_REC_ID,), False), ((ASSUMED,), True), ((FROM_REC_ID, AMBIGUOUS), True)],
)
def test_flagged(flags: tuple[str, ...], expected: bool) -> None:
    assert flagged(flags) is expected
