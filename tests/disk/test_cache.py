"""What the files cache keeps: files that were read or seen, what was measured of objects, notes."""

from __future__ import annotations

import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
from cache_tools import ETAG, KEY, OTHER_SHA, PATH, PRINT, REC, ROOT, SHA, STORE, Opened, Time, opened, time
from hypothesis import given, settings
from hypothesis import strategies as st

from ursa.disk.cache import KEPT, KEPT_DAYS, Entry
from ursa.disk.clock import system_clock
from ursa.disk.fingerprint import SETTLED_S, Fingerprint
from ursa.disk.rows import fingerprint_text, parse_fingerprint

# --- files -------------------------------------------------------------------------------------------------------------


def test_what_was_read_is_remembered(opened: Opened, time: Time) -> None:
    first = opened()
    first.remember(REC, PATH, PRINT, SHA, ["etag-2"])
    entry = Entry(PRINT, SHA, ("etag-2",), time.now)
    assert first.entries(REC) == {PATH: [entry]}
    assert opened().entries(REC) == {PATH: [entry]}
    assert opened().entries("rec_b") == {}


def test_etags_of_the_same_bytes_are_united_and_those_of_others_are_not(opened: Opened, time: Time) -> None:
    cache = opened()
    cache.remember(REC, PATH, PRINT, SHA, ["a", "b"])
    time.now += timedelta(days=1)
    cache.remember(REC, PATH, PRINT, SHA, ["c", "b"])
    assert cache.entries(REC) == {PATH: [Entry(PRINT, SHA, ("c", "b", "a"), time.now)]}
    cache.remember(REC, PATH, PRINT, OTHER_SHA, ["d"])
    assert cache.entries(REC) == {PATH: [Entry(PRINT, OTHER_SHA, ("d",), time.now)]}


def test_the_oldest_reading_goes(opened: Opened, time: Time) -> None:
    cache = opened()
    prints = [replace(PRINT, inode=number) for number in range(KEPT + 2)]
    for fingerprint in (*prints, prints[2]):
        time.now += timedelta(seconds=1)
        cache.remember(REC, PATH, fingerprint, SHA)
    cache.remember(REC, "cam1/video.mp4", PRINT, SHA)
    kept = [entry.fingerprint for entry in cache.entries(REC)[PATH]]
    assert kept == [prints[2], *reversed(prints[3:])]
    assert len(cache.entries(REC)["cam1/video.mp4"]) == 1


def test_what_was_only_seen_goes_before_what_was_read(opened: Opened, time: Time) -> None:
    cache = opened()
    prints = [replace(PRINT, inode=number) for number in range(KEPT + 1)]
    for fingerprint in prints[: KEPT - 1]:
        cache.remember(REC, PATH, fingerprint, SHA)
    time.now += timedelta(days=1)
    for fingerprint in prints[KEPT - 1 :]:
        cache.sight(REC, {PATH: fingerprint})
    entries = cache.entries(REC)[PATH]
    assert len(entries) == KEPT
    assert {entry.fingerprint for entry in entries if entry.sha256} == set(prints[: KEPT - 1])
    assert entries[-1] == Entry(prints[-1], None)


@pytest.mark.parametrize("sha256", ["", "x" * 64, SHA.upper(), SHA[:-1], f"sha256:{SHA}"])
def test_what_is_no_sha256_is_not_remembered(opened: Opened, sha256: str) -> None:
    cache = opened()
    cache.remember(REC, PATH, PRINT, sha256)
    cache.prove(STORE, KEY, 12, ETAG, sha256)
    assert cache.entries(REC) == {} and cache.proof(STORE, KEY, 12, ETAG) is None


INTEGERS = st.integers(min_value=-(2**80), max_value=2**80)
PRINTS = st.builds(
    Fingerprint,
    st.integers(min_value=0, max_value=2**63),
    INTEGERS,
    st.none() | INTEGERS,
    st.none() | st.integers(min_value=0, max_value=2**64 - 1),
    st.sampled_from(["", "-", " ", "1234-ABCD", "//nas/a b\n", "nas:/ä"]),
)


@settings(deadline=None)
@given(PRINTS, PRINTS)
def test_fingerprints_as_text(one: Fingerprint, other: Fingerprint) -> None:
    assert parse_fingerprint(fingerprint_text(one)) == one
    assert (fingerprint_text(one) == fingerprint_text(other)) == (one == other)


# --- sightings ---------------------------------------------------------------------------------------------------------


def test_seen_long_enough_ago(opened: Opened, time: Time) -> None:
    cache = opened()
    assert not cache.was_sighted(REC, PATH, PRINT)
    cache.sight(REC, {PATH: PRINT})
    for since_s, expected in ((0.0, False), (SETTLED_S - 0.01, False), (SETTLED_S, True), (86_400.0, True)):
        time.monotonic_s = 1000.0 + since_s
        assert cache.was_sighted(REC, PATH, PRINT) is expected
        assert opened().was_sighted(REC, PATH, PRINT) is expected
    assert not cache.was_sighted(REC, PATH, replace(PRINT, ctime_ns=3))
    assert not cache.was_sighted(REC, "cam1/video.mp4", PRINT)


def test_seeing_again_does_not_begin_anew(opened: Opened, time: Time) -> None:
    cache = opened()
    for _ in range(3):
        cache.sight(REC, {PATH: PRINT})
        time.monotonic_s += SETTLED_S / 2
    assert cache.was_sighted(REC, PATH, PRINT)


def test_no_wall_clock_takes_part(opened: Opened, time: Time) -> None:
    cache = opened()
    cache.sight(REC, {PATH: PRINT})
    time.now += timedelta(days=3650)
    assert not cache.was_sighted(REC, PATH, PRINT)


def test_before_the_machines_last_start(opened: Opened) -> None:
    opened().sight(REC, {PATH: PRINT})
    assert opened(at=Time(boot=str(uuid.UUID(int=2)), monotonic_s=1.0)).was_sighted(REC, PATH, PRINT)


@pytest.mark.parametrize("boots", [(None, None), (None, str(uuid.UUID(int=1))), (str(uuid.UUID(int=1)), None)])
def test_where_starts_are_not_told_only_ones_own_sightings_count(
    opened: Opened, boots: tuple[str | None, str | None]
) -> None:
    other, mine = Time(boots[0]), Time(boots[1], monotonic_s=1100.0)
    opened(at=other).sight(REC, {PATH: PRINT})
    cache = opened(at=mine)
    assert not cache.was_sighted(REC, PATH, PRINT)
    cache.sight(REC, {PATH: PRINT})
    assert not cache.was_sighted(REC, PATH, PRINT)
    mine.monotonic_s += SETTLED_S
    assert cache.was_sighted(REC, PATH, PRINT)


def test_a_clock_that_went_back_settles_nothing(opened: Opened, time: Time) -> None:
    cache = opened()
    cache.sight(REC, {PATH: PRINT})
    time.monotonic_s = 10.0
    assert not cache.was_sighted(REC, PATH, PRINT)
    cache.sight(REC, {PATH: PRINT})
    time.monotonic_s = 10.0 + SETTLED_S
    assert cache.was_sighted(REC, PATH, PRINT)


def test_what_was_read_had_been_seen(opened: Opened, time: Time) -> None:
    cache = opened()
    cache.sight(REC, {PATH: PRINT})
    cache.remember(REC, PATH, PRINT, SHA)
    cache.sight(REC, {PATH: PRINT})
    assert cache.entries(REC)[PATH][0].sha256 == SHA
    assert cache.was_sighted(REC, PATH, PRINT)


def test_the_machines_own_clock() -> None:
    clock = system_clock()
    again = subprocess.run(
        [sys.executable, "-c", "from ursa.disk.clock import system_clock as c; print(c().boot, c().monotonic())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert again[0] == str(clock.boot)
    assert float(again[1]) <= clock.monotonic()


# --- objects and notes -------------------------------------------------------------------------------------------------


def test_an_object_is_proven_while_it_has_this_etag(opened: Opened) -> None:
    opened().prove(STORE, KEY, 12, ETAG, SHA)
    cache = opened()
    assert cache.proof(STORE, KEY, 12, ETAG) == SHA
    assert cache.proof(STORE, KEY, 13, ETAG) is None
    assert cache.proof(STORE, KEY, 12, "other") is None
    assert cache.proof(STORE, f"{KEY}x", 12, ETAG) is None
    assert cache.proof("elsewhere", KEY, 12, ETAG) is None
    cache.prove(STORE, KEY, 12, ETAG, OTHER_SHA)
    assert opened().proof(STORE, KEY, 12, ETAG) == OTHER_SHA


def test_notes(opened: Opened) -> None:
    opened().put_note("conduct", STORE, {"refuses_wrong_sha256": True, "at": "2026-11-28"})
    cache = opened()
    assert cache.note("conduct", STORE) == {"refuses_wrong_sha256": True, "at": "2026-11-28"}
    assert cache.note("conduct", "elsewhere") is None and cache.note("other", STORE) is None
    cache.put_note("conduct", STORE, {"not JSON": object()})
    assert cache.note("conduct", STORE) is not None
    cache.put_note("conduct", STORE, None)
    assert opened().note("conduct", STORE) is None


# --- growth ------------------------------------------------------------------------------------------------------------


def days_of_use(opened: Opened, time: Time, days: int) -> None:
    for _ in range(days):
        time.now += timedelta(days=1)
        opened().close()


def test_what_is_not_asked_for_any_more_is_dropped(opened: Opened, time: Time) -> None:
    cache = opened()
    for rec_id in ("rec_gone", "rec_seen", "rec_asked", "rec_read"):
        cache.remember(rec_id, PATH, PRINT, SHA)
    for key in ("gone", "asked"):
        cache.prove(STORE, key, 12, ETAG, SHA)
    cache.close()
    time.now += timedelta(days=KEPT_DAYS - 10)
    cache = opened()
    cache.sight("rec_seen", {PATH: replace(PRINT, inode=8)})
    assert cache.entries("rec_asked") and cache.proof(STORE, "asked", 12, ETAG)
    cache.remember("rec_read", "other", PRINT, SHA)
    cache.close()
    days_of_use(opened, time, 20)
    cache = opened()
    assert cache.entries("rec_gone") == {} and cache.proof(STORE, "gone", 12, ETAG) is None
    assert all(PATH in cache.entries(rec_id) for rec_id in ("rec_seen", "rec_asked", "rec_read"))
    assert cache.proof(STORE, "asked", 12, ETAG) == SHA


def test_a_clock_that_was_wrong_for_some_days_drops_nothing(opened: Opened, time: Time) -> None:
    opened().remember(REC, PATH, PRINT, SHA)
    days_of_use(opened, time, 10)
    right = time.now
    time.now += timedelta(days=3650)
    days_of_use(opened, time, 5)
    time.now = right
    days_of_use(opened, time, 10)
    assert opened().entries(REC)


def test_days_that_never_were_do_not_count_when_the_clock_is_right_again(opened: Opened, time: Time) -> None:
    right = time.now
    time.now += timedelta(days=3650)
    days_of_use(opened, time, 20)
    time.now = right
    opened().remember(REC, PATH, PRINT, SHA)
    days_of_use(opened, time, 10)
    assert opened().entries(REC)
