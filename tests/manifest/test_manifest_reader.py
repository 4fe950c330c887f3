"""Reading manifests: aliases, unknown fields, and one refusal a rule; whatever the bytes, nothing but ManifestError."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ursa.errors import ManifestError
from ursa.manifest import (
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    Node,
    Worker,
    check_identity,
    merge_manifests,
    parse_manifest,
    resolve_times,
)
from ursa.manifest.models import FILE_ALIASES, MANIFEST_ALIASES

REC_ID = "rec_20260520_195628_b1dd"
SHA = "ab" * 32
BASE64 = b64encode(b"\xab" * 32).decode()
SOURCE = "rec/manifest.json"


def document(**fields: Any) -> dict[str, Any]:
    files = [{"path": "eeg_a/seg.edf", "size_bytes": 3, "sha256": SHA}]
    return {"schema_version": 1, "recording_id": REC_ID, "files": files} | fields


def read(doc: Any) -> Manifest:
    data = doc if isinstance(doc, bytes) else json.dumps(doc).encode()
    return parse_manifest(data, source=SOURCE)


def entry(**fields: Any) -> dict[str, Any]:
    return document(files=[{"path": "eeg_a/seg.edf", "size_bytes": 3} | fields])


def test_canonical_names() -> None:
    manifest = read(
        document(
            recording_hash="cd" * 32,
            started_at="2026-05-20T19:56:28+02:00",
            ended_at="2026-05-20T20:56:28Z",
            timezone="Europe/Berlin",
            duration_s=3600,
            node={"hostname": "green-mantis", "role": "host"},
            nodes=[{"hostname": "green-motor"}, "blue"],
            workers=[{"dir": "eeg_a", "node": "green-motor", "sample_rate_hz": 500, "channels": ["Fp1"], "device": {}}],
            participant="Aria Lin",
            reconstruction={"by": "ursa"},
        )
    )
    assert manifest.node_hostname == "green-mantis"
    assert manifest.expected_nodes == ("blue", "green-mantis", "green-motor")
    assert manifest.duration_s == 3600.0
    assert manifest.files_by_path["eeg_a/seg.edf"].size_bytes == 3
    assert manifest.node_of(manifest.files[0]) == "green-motor"
    assert not manifest.is_placeholder


def test_aliases() -> None:
    manifest = read(
        {
            "rec_id": REC_ID,
            "hash": "cd" * 32,
            "start_time": "2026-05-20T19:56:28",
            "end_time": "2026-05-20T20:56:28",
            "tz": "+02:00",
            "duration": 1.5,
            "node": "green-mantis",
            "files": [
                {"name": "eeg_a\\a", "size": 1, "checksum": f"sha256:{SHA.upper()}"},
                {"key": "./eeg_a//b", "bytes": 2},
            ],
        }
    )
    assert (manifest.recording_id, manifest.recording_hash, manifest.timezone) == (REC_ID, "cd" * 32, "+02:00")
    assert (manifest.started_at, manifest.ended_at) == ("2026-05-20T19:56:28", "2026-05-20T20:56:28")
    assert manifest.duration_s == 1.5
    assert [(f.path, f.size_bytes, f.sha256) for f in manifest.files] == [("eeg_a/a", 1, SHA), ("eeg_a/b", 2, None)]
    assert read(document(duration_seconds=2)).duration_s == 2


def test_alias_beside_its_name() -> None:
    same = read(entry(name="eeg_a\\seg.edf", size=3, sha256=SHA, checksum=f"sha256:{SHA}"))
    assert same.files[0].sha256 == SHA
    assert read(document(rec_id=REC_ID, tz=None)).recording_id == REC_ID
    assert read({"recording_id": None, "rec_id": REC_ID}).recording_id == REC_ID


def test_null_is_absent() -> None:
    names = ("recording_hash", "started_at", "ended_at", "timezone", "duration_s", "node", "nodes", "workers")
    manifest = read(document(schema_version=None, participant=None, reconstruction=None, **dict.fromkeys(names)))
    assert manifest.schema_version == 1
    assert manifest.nodes == ()


@pytest.mark.parametrize("doc", [{}, {"files": []}, {"files": None}, {"recording_id": REC_ID, "files": []}])
def test_placeholder(doc: dict[str, Any]) -> None:
    assert read(doc).is_placeholder


def test_bom() -> None:
    assert read(b"\xef\xbb\xbf" + json.dumps(document()).encode()).recording_id == REC_ID


def test_unknown_fields_are_written_back_unchanged() -> None:
    unknown = {
        "rig": {"fw": [1, None, True, 1.25, {"é": "\U0001f600"}]},
        "big": 10**30,
        "_source": "x",
        "model_config": 1,
        "node_of": {"files_by_path": []},
    }
    doc = document(node={"hostname": "h", "os": "x"}, nodes=[{"hostname": "h", "n": 1}], **unknown)
    doc["workers"] = [{"dir": "eeg_a", "gain": 24, "sample_rate_hz": 500}]
    doc["files"][0]["mtime"] = 12
    again = json.loads(read(doc).to_json())
    assert again == doc
    assert again["workers"][0]["sample_rate_hz"] == 500
    assert read(again) == read(doc)
    assert read(document()).to_json().startswith(b'{\n  "schema_version": 1')


def test_worker_identity() -> None:
    workers = [
        {"dir": "left_cam", "modality": "camera", "worker_id": "left", "node": "b"},
        {"dir": "eeg_4559/", "worker_id": 4559},
        {"dir": "mic", "modality": "audio"},
        {"dir": "_private", "modality": "notes", "worker_id": ""},
    ]
    files = [
        {"path": "left_cam/x", "size_bytes": 1},
        {"path": "emg_1/x", "size_bytes": 1, "node": "c"},
        {"path": "root.bin", "size_bytes": 1, "worker": "_private"},
        {"path": "events.csv", "size_bytes": 1, "worker": ""},
        {"path": "_calibration/x", "size_bytes": 1},
    ]
    manifest = read(document(node="a", workers=workers, files=files))
    identities = {d: manifest.worker_identity(d) for d in ("left_cam", "eeg_4559", "mic", "_private", "emg_1", "new_2")}
    assert {d: (i.modality, i.worker_id, i.node) for d, i in identities.items()} == {
        "left_cam": ("camera", "left", "b"),
        "eeg_4559": ("eeg", "4559", "a"),
        "mic": ("audio", "", "a"),
        "_private": ("notes", "", "a"),
        "emg_1": ("emg", "1", "c"),
        "new_2": ("new", "2", "a"),
    }
    assert [manifest.worker_of(f) for f in manifest.files] == ["left_cam", "emg_1", "_private", "", "_calibration"]
    assert [manifest.node_of(f) for f in manifest.files] == ["b", "c", "a", "a", "a"]
    assert manifest.expected_nodes == ("a", "b", "c")


def test_copies_do_not_keep_stale_tables() -> None:
    manifest = read(document())
    assert set(manifest.files_by_path) == {"eeg_a/seg.edf"}
    assert manifest.model_copy(update={"files": ()}).files_by_path == {}


def deep(levels: int) -> bytes:
    return b'{"x":' + b"[" * levels + b"]" * levels + b"}"


REFUSALS = [
    # bytes, pointer, in found, in expected
    (b"", "", "empty", "JSON object"),
    (b" \n", "", "empty", "JSON object"),
    (b"\xff\xfe{\x00}\x00", "", "0xff", "UTF-8"),
    (b'{"a": "\xe9"}', "", "0xe9", "UTF-8"),
    (b"nonsense", "", "line 1 column 1", "JSON object"),
    (b'{"files": [{"path": "a', "", "truncated", "JSON object"),
    (b'{"files": [', "", "truncated", "JSON object"),
    (b'{"files": []}}', "", "no JSON", "JSON object"),
    (b"[]", "", "a list of 0", "one JSON object"),
    (b"null", "", "null", "one JSON object"),
    (b'"text"', "", '"text"', "one JSON object"),
    (b'{"files": [], "files": []}', "/files", "twice", "once"),
    (b'{"x": {"a~/b": 1, "a~/b": 2}}', "/x/a~0~1b", "twice", "once"),
    (b'{"x": {"y": 1, "y": 2}, "x": 3}', "/x", "twice", "once"),
    (b'{"x": [NaN]}', "/x/0", "NaN", "finite"),
    (b'{"x": -Infinity}', "/x", "Infinity", "finite"),
    (b'{"x": 1e400}', "/x", "Infinity", "finite"),
    (b'{"x": ' + b"9" * 5000 + b"}", "", "digits", "64 bits"),
    (deep(100), "", "more than 100", "100 levels"),
    (deep(100_000), "", "nested", "100 levels"),
    (rb'{"x": ["\ud800"]}', "/x/0", r"\ud800", "surrogates"),
    (rb'{"x": {"\udfff": 1}}', "/x", "object", "surrogates"),
    (b" " * (MAX_MANIFEST_BYTES + 1), "", "67,108,864", "64 MiB"),
    ({"schema_version": 2, "files": "new"}, "/schema_version", "2", "at most 1"),
    ({"schema_version": 10**40}, "/schema_version", "1000", "at most 1"),
    ({"schema_version": 0}, "/schema_version", "0", "1 or more"),
    ({"schema_version": "1"}, "/schema_version", '"1"', "whole number"),
    ({"schema_version": True}, "/schema_version", "true", "whole number"),
    ({"files": [{"path": "a", "size_bytes": 1}]}, "/recording_id", "nothing", "rec_"),
    (document(recording_id=5), "/recording_id", "5", "rec_"),
    ({"rec_id": ""}, "/rec_id", '""', "not empty"),
    (document(rec_id="rec_20260520_195628_b1de"), "/rec_id", "b1de", "same value"),
    (document(recording_hash="AB" * 32), "/recording_hash", "ABAB", "lowercase"),
    (document(hash="ab"), "/hash", "ab", "64"),
    (document(started_at="yesterday"), "/started_at", "yesterday", "ISO 8601"),
    (document(started_at="2026-05-20"), "/started_at", "2026-05-20", "ISO 8601"),
    (document(end_time=1747763788), "/end_time", "1747763788", "ISO 8601"),
    (document(ended_at="2026-13-20T00:00:00"), "/ended_at", "2026-13", "ISO 8601"),
    (document(timezone="Mars/Olympus"), "/timezone", "Mars/Olympus", "IANA"),
    (document(tz="../../etc/passwd"), "/tz", "etc/passwd", "IANA"),
    (document(tz="Europe"), "/tz", "Europe", "IANA"),
    (document(tz="+24:00"), "/tz", "+24:00", "IANA"),
    (document(tz=2), "/tz", "2", "IANA"),
    (document(duration_s=-1), "/duration_s", "-1", "0 or more"),
    (document(duration="5"), "/duration", '"5"', "seconds"),
    (document(duration_s=10**400), "/duration_s", "1000", "seconds"),
    (document(node=5), "/node", "5", "hostname"),
    (document(node={}), "/node/hostname", "nothing", "hostname"),
    (document(node=""), "/node/hostname", "nothing", "text"),
    (document(node="a\x1bb"), "/node/hostname", "", "control"),
    (document(nodes="a"), "/nodes", '"a"', "list"),
    (document(nodes=[5]), "/nodes/0", "5", "object"),
    (document(workers={}), "/workers", "object", "list"),
    (document(workers=[{}]), "/workers/0/dir", "nothing", "directory"),
    (document(workers=[{"dir": "a/b"}]), "/workers/0/dir", "a/b", "directory"),
    (document(workers=[{"dir": ".."}]), "/workers/0/dir", "..", "directory"),
    (document(workers=[{"dir": "eeg", "sample_rate_hz": -1}]), "/workers/0/sample_rate_hz", "-1", "samples"),
    (document(workers=[{"dir": "eeg", "sample_rate_hz": True}]), "/workers/0/sample_rate_hz", "true", "samples"),
    (document(workers=[{"dir": "_x"}]), "/workers/0/modality", "nothing", "modality"),
    (document(workers=[{"dir": "x", "modality": ""}]), "/workers/0/modality", '""', "not empty"),
    (document(workers=[{"dir": "x"}, {"dir": "x", "worker_id": "2"}]), "/workers/1/dir", "second time", "one entry"),
    (
        document(workers=[{"dir": "x_1"}, {"dir": "y", "modality": "x", "worker_id": "1"}]),
        "/workers/1/dir",
        "x 1",
        "one",
    ),
    (document(workers=[{"dir": "cap", "modality": "eeg", "worker_id": "a"}]), "/files/0/path", "cap and eeg_a", "one"),
    (document(files={}), "/files", "object", "list"),
    (document(files=["a"]), "/files/0", '"a"', "object"),
    (document(files=[{"path": "a"}]), "/files/0/size_bytes", "nothing", "bytes"),
    (document(files=[{"size": 1}]), "/files/0/path", "nothing", "path"),
    (entry(size=4), "/files/0/size", "4", "same value"),
    (entry(size=3.0), "/files/0/size", "3.0", "same value"),
    (entry(checksum=SHA, sha256="cd" * 32), "/files/0/checksum", "abab", "same value"),
    (document(files=[{"name": "a", "bytes": -1}]), "/files/0/bytes", "-1", "0 or more"),
    (entry(size_bytes=1.5), "/files/0/size_bytes", "1.5", "whole number"),
    (entry(size_bytes=1.0), "/files/0/size_bytes", "1.0", "whole number"),
    (entry(size_bytes=True), "/files/0/size_bytes", "true", "whole number"),
    (entry(size_bytes="3"), "/files/0/size_bytes", '"3"', "whole number"),
    (entry(size_bytes=2**64), "/files/0/size_bytes", "18446744073709551616", "whole number"),
    (entry(sha256="md5:ab"), "/files/0/sha256", "md5", "64 hex"),
    (entry(sha256=""), "/files/0/sha256", '""', "64 hex"),
    (entry(sha256=5), "/files/0/sha256", "5", "64 hex"),
    (entry(sha256=SHA[:-1]), "/files/0/sha256", "abab", "64 hex"),
    (entry(sha256=SHA + "ab"), "/files/0/sha256", "abab", "64 hex"),
    (entry(sha256="xy" * 32), "/files/0/sha256", "xyxy", "64 hex"),
    (entry(sha256=f"sha-256={SHA}"), "/files/0/sha256", "sha-256", "64 hex"),
    (entry(sha256=f"sha256:{BASE64}"), "/files/0/sha256", "sha256:", "base64 of 32 bytes"),
    (entry(sha256=BASE64[:-1]), "/files/0/sha256", "q6ur", "base64 of 32 bytes"),
    (entry(checksum=b64encode(b"\xab" * 16).decode()), "/files/0/checksum", "q6ur", "base64 of 32 bytes"),
    (entry(sha256="\u0430b" * 32), "/files/0/sha256", "\u0430b", "64 hex"),
    (entry(path="../x"), "/files/0/path", "../x", "escapes"),
    (entry(path="/x"), "/files/0/path", "/x", "absolute"),
    (entry(path="C:\\x"), "/files/0/path", "C:", "absolute"),
    (entry(path=""), "/files/0/path", '""', "empty"),
    (entry(path="eeg_a/\x1b[31m"), "/files/0/path", "\\x1b", "control"),
    (entry(worker="a/b"), "/files/0/worker", "a/b", "directory"),
    (entry(worker="_x"), "/files/0/worker", "_x", "worker"),
    (entry(node=5), "/files/0/node", "5", "hostname"),
    (document(participant=5), "/participant", "5", "text"),
    (document(reconstruction=[]), "/reconstruction", "list", "object"),
]


@pytest.mark.parametrize("field", ["sha256", "checksum"])
@pytest.mark.parametrize(
    "stated", [SHA, SHA.upper(), f"sha256:{SHA}", f"SHA256:{SHA.upper()}", f"sha256:{SHA.upper()}", BASE64]
)
def test_a_sha256_as_uploaders_spell_it(field: str, stated: str) -> None:
    assert read(entry(**{field: stated})).files[0].sha256 == SHA


@pytest.mark.parametrize(("doc", "pointer", "found", "expected"), REFUSALS, ids=range(len(REFUSALS)))
def test_refused(doc: Any, pointer: str, found: str, expected: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(doc)
    error = caught.value
    assert (error.path, error.pointer) == (SOURCE, pointer)
    assert found in error.found
    assert expected in error.expected
    assert error.message.startswith(SOURCE)
    assert error.found in error.message
    assert error.expected in error.message
    assert error.message.isprintable()
    assert error.hint


def test_duplicate_paths_after_nfc() -> None:
    files = [{"path": "eeg_a/e\u0301", "size_bytes": 1}, {"name": "eeg_a\\\u00e9", "size_bytes": 1}]
    with pytest.raises(ManifestError, match="second time") as caught:
        read(document(files=files))
    assert caught.value.pointer == "/files/1/name"


def test_newer_schema_has_the_upgrade_hint() -> None:
    with pytest.raises(ManifestError) as caught:
        read({"schema_version": 2})
    assert "upgrade ursa" in (caught.value.hint or "")


def test_no_wall_of_text() -> None:
    with pytest.raises(ManifestError) as caught:
        read({"\x1b" + "k" * 100_000: {"x": float("nan")}, "timezone": "y" * 100_000})
    assert len(caught.value.message) < 500
    assert caught.value.message.isprintable()


def test_identity() -> None:
    check_identity(read(document()), REC_ID, source=SOURCE)
    with pytest.raises(ManifestError) as caught:
        check_identity(read({"rec_id": "rec_other"}), REC_ID, source=SOURCE)
    assert (caught.value.pointer, caught.value.found) == ("/rec_id", '"rec_other"')
    assert REC_ID in caught.value.expected
    with pytest.raises(ManifestError, match="found null"):
        check_identity(read({}), REC_ID, source=SOURCE)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MODELS = (Manifest, FileEntry, Worker, Node)
NAMES = [name for model in MODELS for name in model.model_fields]
KEYS = st.sampled_from([*NAMES, *MANIFEST_ALIASES, *FILE_ALIASES, "__class__", "model_fields", "_source"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        [
            REC_ID,
            SHA,
            "eeg_a/x",
            "Europe/Berlin",
            "2026-05-20T19:56:28Z",
            "2026-10-25T02:30",
            10**300,
            "\ud800",
            "0001-01-01T00",
        ]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)


def survives(data: bytes) -> None:
    try:
        manifest = parse_manifest(data, source=SOURCE)
    except ManifestError as exc:
        assert exc.message.isprintable()
        assert len(exc.message) < 1000
        assert exc.path == SOURCE
        assert exc.found
        assert exc.expected
    else:
        again = parse_manifest(manifest.to_json(), source=SOURCE)
        assert again.files == manifest.files
        assert again.to_json() == manifest.to_json()
        resolves(manifest)


def resolves(manifest: Manifest) -> None:
    """Times and merging raise nothing else either, and merging one manifest loses no file and no flag."""
    try:
        times = resolve_times(manifest, REC_ID, rig_timezone=None)
        merged = merge_manifests({"_node_manifests/h.json": manifest})
    except ManifestError as exc:
        assert exc.message.isprintable()
    else:
        assert set(merged.files_by_path) == set(manifest.files_by_path)
        assert manifest.is_placeholder or resolve_times(merged, REC_ID, rig_timezone=None) == times


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    survives(data)


@FUZZ
@given(VALUES)
def test_any_json(value: Any) -> None:
    survives(json.dumps(value).encode())


@FUZZ
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_fields_in_a_valid_manifest(fields: dict[str, Any], in_file: dict[str, Any]) -> None:
    doc = document() | fields
    if isinstance(doc["files"], list) and doc["files"] and isinstance(doc["files"][0], dict):
        doc["files"][0] |= in_file
    survives(json.dumps(doc).encode())


@FUZZ
@given(st.data())
def test_mutated_bytes(data: st.DataObject) -> None:
    valid = json.dumps(
        document(node="h", workers=[{"dir": "eeg_a"}], tz="UTC", started_at="2026-05-20T19:56:28Z")
    ).encode()
    start = data.draw(st.integers(0, len(valid)))
    end = data.draw(st.integers(start, min(len(valid), start + 8)))
    survives(valid[:start] + data.draw(st.binary(max_size=4)) + valid[end:])
