"""Dual-node sessions: what is united, what is compared, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ursa.errors import ManifestError, ManifestNotFoundError
from ursa.manifest import Manifest, merge_manifests, parse_manifest, resolve_times

REC_ID = "rec_20260520_195628_b1dd"
ONE, TWO = "_node_manifests/green-mantis.json", "_node_manifests/green-motor.json"
SHA = "ab" * 32


def half(path: str | None = None, **fields: Any) -> dict[str, Any]:
    files = [{"path": path, "size_bytes": 1}] if path else []
    return {"recording_id": REC_ID, "files": files} | fields


def merge(one: dict[str, Any], two: dict[str, Any] | None = None, **options: Any) -> Manifest:
    halves = {TWO: two, ONE: one}
    parsed = {
        name: parse_manifest(json.dumps(doc).encode(), source=name) for name, doc in halves.items() if doc is not None
    }
    return merge_manifests(parsed, **options)


def test_union() -> None:
    merged = merge(
        half("camera_left/x", node="green-mantis", recording_hash="cd" * 32, workers=[{"dir": "camera_left"}], rig="A"),
        half("eeg_a/x", node={"hostname": "green-motor", "role": "eeg"}, rig="B", extra=1, nodes=["blue"]),
    )
    assert [(f.path, f.node) for f in merged.files] == [("camera_left/x", "green-mantis"), ("eeg_a/x", "green-motor")]
    assert [(w.dir, w.node) for w in merged.workers] == [("camera_left", "green-mantis")]
    assert [(n.hostname, n.role) for n in merged.nodes] == [
        ("blue", None),
        ("green-mantis", None),
        ("green-motor", "eeg"),
    ]
    assert (merged.recording_id, merged.recording_hash, merged.node) == (REC_ID, "cd" * 32, None)
    assert merged.model_extra == {"rig": "A", "extra": 1}
    assert merged.worker_identity("eeg_a").node == "green-motor"
    assert merged.source == f"{ONE}, {TWO}"
    assert json.loads(merged.to_json())["files"][1]["node"] == "green-motor"


def test_order_is_by_hostname_not_by_file() -> None:
    merged = merge(half("b_1/x", node="zebra"), half("a_1/x", node="ant"))
    assert [f.path for f in merged.files] == ["a_1/x", "b_1/x"]


def test_the_node_of_a_file() -> None:
    files = [
        {"path": "eeg_a/own", "size_bytes": 1, "node": "own"},
        {"path": "eeg_b/worker", "size_bytes": 1},
        {"path": "mic/manifest", "size_bytes": 1},
    ]
    workers = [{"dir": "eeg_b", "node": "blue"}, {"dir": "mic"}]
    merged = merge(half(files=files, workers=workers), half("camera/x", node="host"))
    assert {f.path: f.node for f in merged.files} == {
        "eeg_a/own": "own",
        "eeg_b/worker": "blue",
        "mic/manifest": "green-mantis",
        "camera/x": "host",
    }
    assert {w.dir: w.node for w in merged.workers} == {"eeg_b": "blue", "mic": "green-mantis"}


def test_equal_entries_fold_and_complete_each_other() -> None:
    one = half(files=[{"path": "e\u0301/x", "size": 1}], workers=[{"dir": "e\u0301", "gain": 2}])
    two = half(files=[{"path": "\u00e9\\x", "size": 1, "sha256": SHA}], workers=[{"dir": "\u00e9", "device": "d"}])
    merged = merge(one, two)
    assert [(f.path, f.sha256, f.node) for f in merged.files] == [("\u00e9/x", SHA, "green-mantis")]
    assert [(w.device, w.model_extra) for w in merged.workers] == [("d", {"gain": 2})]
    assert len(merge(half("a/x"), half("a/x")).files) == 1


CONTRADICTIONS = [
    (half("a/x"), half("b/x", recording_id="rec_20260520_195628_ffff"), "/recording_id", "ffff"),
    (half("a/x", hash="ab" * 32), half("b/x", hash="cd" * 32), "/hash", "cdcd"),
    (half("a/x"), half(files=[{"path": "a/x", "size_bytes": 2}]), "/files/0", "a/x with size_bytes 2"),
    (
        half(files=[{"path": "a/x", "size_bytes": 1, "sha256": SHA}]),
        half(files=[{"path": "a/x", "size_bytes": 1, "sha256": "cd" * 32}]),
        "/files/0",
        "a/x with sha256 cdcd",
    ),
    (
        half("a/x", workers=[{"dir": "a", "node": "p"}]),
        half("b/x", workers=[{"dir": "a", "node": "q"}]),
        "/workers/0",
        "a with node q",
    ),
    (
        half("eeg_a/x"),
        half("cap/x", workers=[{"dir": "cap", "modality": "eeg", "worker_id": "a"}]),
        "/workers",
        "eeg a",
    ),
]


@pytest.mark.parametrize(("one", "two", "pointer", "found"), CONTRADICTIONS, ids=range(len(CONTRADICTIONS)))
def test_contradictions_name_both(one: dict[str, Any], two: dict[str, Any], pointer: str, found: str) -> None:
    with pytest.raises(ManifestError) as caught:
        merge(one, two)
    error = caught.value
    assert ONE in error.message
    assert TWO in error.message
    assert error.pointer == pointer
    assert found in error.found
    assert error.hint


def test_placeholder_contributes_only_its_node() -> None:
    stub = {
        "recording_id": "rec_other",
        "hash": "cd" * 32,
        "nodes": ["x"],
        "started_at": "1999-01-01T00:00:00Z",
        "rig": 1,
    }
    merged = merge(half("a/x", node="host"), stub)
    assert merged.expected_nodes == ("green-motor", "host")
    assert (merged.recording_hash, merged.started_at, merged.model_extra) == (None, None, {})
    assert merge({}, {}).is_placeholder


def test_one_half_alone() -> None:
    merged = merge(
        half("a/x", started_at="2026-05-20T19:56:28", tz="Europe/Berlin", node={"hostname": "h", "role": "r"})
    )
    assert (merged.node_hostname, merged.expected_nodes) == ("h", ("h",))
    assert resolve_times(merged, REC_ID, rig_timezone=None).flags == ()
    assert merge(half("a/x")).node_hostname == "green-mantis"


def test_none() -> None:
    with pytest.raises(ManifestNotFoundError):
        merge_manifests({})


def span(start: str | None, end: str | None, **fields: Any) -> dict[str, Any]:
    return half(fields.pop("path", "a/x"), started_at=start, ended_at=end, **fields)


BERLIN = {"timezone": "Europe/Berlin"}
SPANS = [
    # one, two, rig_timezone, start and end in UTC, flags
    (
        span("2026-05-20T20:00:00+02:00", "2026-05-20T20:10:00+02:00"),
        span("2026-05-20T18:00:01Z", "2026-05-20T18:20:00Z"),
        None,
        ("2026-05-20T18:00:00", "2026-05-20T18:20:00"),
        (),
    ),
    (  # each in its own zone
        span("2026-05-20T20:00:00", "2026-05-20T20:10:00", **BERLIN),
        span("2026-05-20T17:59:00", "2026-05-20T18:20:00", tz="UTC"),
        None,
        ("2026-05-20T17:59:00", "2026-05-20T18:20:00"),
        (),
    ),
    (  # an assumed time never beats a stated one
        span("2026-05-20T17:00:00", "2026-05-20T20:10:00"),
        span("2026-05-20T18:00:00Z", "2026-05-20T18:20:00Z"),
        None,
        ("2026-05-20T18:00:00", "2026-05-20T18:20:00"),
        (),
    ),
    (  # the rig's zone makes it a stated one
        span("2026-05-20T19:00:00", "2026-05-20T20:10:00"),
        span("2026-05-20T18:00:00Z", "2026-05-20T18:20:00Z"),
        "Europe/Berlin",
        ("2026-05-20T17:00:00", "2026-05-20T18:20:00"),
        (),
    ),
    (  # assumed on both sides stays flagged, also beside a peer's zone
        span("2026-05-20T17:00:00", "2026-05-20T20:10:00"),
        span(None, None, **BERLIN),
        None,
        ("2026-05-20T17:00:00", "2026-05-20T20:10:00"),
        ("time_assumed",),
    ),
    (
        span("2026-10-25T02:30:00", None, **BERLIN),
        span(None, "2026-10-25T09:00:00Z"),
        None,
        ("2026-10-25T00:30:00", "2026-10-25T09:00:00"),
        ("time_ambiguous",),
    ),
]


@pytest.mark.parametrize(("one", "two", "rig", "expected", "flags"), SPANS, ids=range(len(SPANS)))
def test_times(
    one: dict[str, Any], two: dict[str, Any], rig: str | None, expected: tuple[str, str], flags: tuple[str, ...]
) -> None:
    two["files"] = [{"path": "b/x", "size_bytes": 1}]
    times = resolve_times(merge(one, two, rig_timezone=rig), REC_ID, rig_timezone=rig)
    assert times.started_at and times.ended_at
    assert (times.started_at.isoformat(), times.ended_at.isoformat()) == tuple(f"{text}+00:00" for text in expected)
    assert times.flags == flags


def test_duration_is_the_longest() -> None:
    a_minute = {"start_time": "2026-05-20T18:00:00Z", "end_time": "2026-05-20T18:01:00Z"}
    assert merge(half("a/x", duration_s=10), half("b/x", duration_s=20)).duration_s == 20
    assert merge(half("a/x", duration_s=10), half("b/x")).duration_s == 10
    assert merge(half("a/x", duration_s=10), half("b/x", **a_minute)).duration_s == 60
    assert merge(half("a/x"), half("b/x", **a_minute)).duration_s is None


def test_a_time_that_never_was_names_its_source() -> None:
    with pytest.raises(ManifestError, match="skipped") as caught:
        merge(span("2026-03-29T02:30:00", None, **BERLIN))
    assert caught.value.path == ONE
