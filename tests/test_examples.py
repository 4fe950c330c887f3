"""The committed example recordings are what their manifests and their formats say."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import wave
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
RECORDINGS = EXAMPLES / "recordings"
MANIFESTS = sorted([*RECORDINGS.glob("*/manifest.json"), *RECORDINGS.glob("*/_node_manifests/*.json")])


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_examples", EXAMPLES / "make_examples.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_examples"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _relative(path: Path) -> str:
    return path.relative_to(RECORDINGS).as_posix()


def _files(rec_dir: Path) -> dict[str, bytes]:
    return {p.relative_to(rec_dir).as_posix(): p.read_bytes() for p in sorted(rec_dir.rglob("*")) if p.is_file()}


def _rec_dir(manifest: Path) -> Path:
    return RECORDINGS / manifest.relative_to(RECORDINGS).parts[0]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=_relative)
def test_manifest_states_sizes_and_sha256_of_the_files(manifest: Path) -> None:
    rec_dir = _rec_dir(manifest)
    stated: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    assert stated["recording_id"] == rec_dir.name
    assert stated["files"]
    for entry in stated["files"]:
        data = (rec_dir / entry["path"]).read_bytes()
        assert len(data) == entry["size_bytes"], entry["path"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["path"]


def test_every_raw_file_is_listed_once_where_there_is_a_manifest() -> None:
    for rec_dir in {_rec_dir(manifest) for manifest in MANIFESTS}:
        listed = [f["path"] for m in MANIFESTS if _rec_dir(m) == rec_dir for f in json.loads(m.read_bytes())["files"]]
        sidecars = ("manifest.json", "participant.txt")
        raw = [path for path in _files(rec_dir) if path not in sidecars and not path.startswith("_node_manifests/")]
        assert sorted(listed) == sorted(raw)


def test_two_halves_state_one_recording_hash_and_the_single_node_none() -> None:
    halves = [json.loads(m.read_bytes()) for m in MANIFESTS if m.parent.name == "_node_manifests"]
    assert len(halves) == 2
    assert halves[0]["recording_hash"] == halves[1]["recording_hash"]
    assert halves[0]["nodes"] == halves[1]["nodes"]
    assert {half["node"]["hostname"] for half in halves} == {node["hostname"] for node in halves[0]["nodes"]}
    digests = sorted(entry["sha256"] for half in halves for entry in half["files"])
    assert halves[0]["recording_hash"] == hashlib.sha256("\n".join(digests).encode()).hexdigest()
    single = [json.loads(m.read_bytes()) for m in MANIFESTS if m.name == "manifest.json"]
    assert single and all("recording_hash" not in manifest for manifest in single)


def test_total_size_stays_small() -> None:
    assert sum(path.stat().st_size for path in RECORDINGS.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize("edf", sorted(RECORDINGS.rglob("*.edf")), ids=_relative)
def test_edf_header_agrees_with_the_file_size(edf: Path) -> None:
    data = edf.read_bytes()
    header_bytes, records, signals = int(data[184:192]), int(data[236:244]), int(data[252:256])
    assert data[:8] == b"0       "
    assert header_bytes == 256 * (signals + 1)
    counts_at = 256 + signals * 216  # label 16, transducer 80, dimension 8, four limits of 8, prefilter 80
    counts = [int(data[counts_at + 8 * n : counts_at + 8 * n + 8]) for n in range(signals)]
    assert header_bytes + records * 2 * sum(counts) == len(data)
    assert data[:header_bytes].isascii()


@pytest.mark.parametrize("wav", sorted(RECORDINGS.rglob("*.wav")), ids=_relative)
def test_wav_opens(wav: Path) -> None:
    with wave.open(str(wav), "rb") as opened:
        assert (opened.getnchannels(), opened.getsampwidth(), opened.getframerate()) == (1, 2, 8000)
        assert len(opened.readframes(opened.getnframes())) == 2 * opened.getnframes() > 0


@pytest.mark.parametrize("mp4", sorted(RECORDINGS.rglob("*.mp4")), ids=_relative)
def test_mp4_boxes_cover_the_file(mp4: Path) -> None:
    data, at, boxes = mp4.read_bytes(), 0, []
    while at < len(data):
        boxes.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    assert at == len(data)
    assert boxes[0] == b"ftyp"
    assert {b"moov", b"mdat"} <= set(boxes)


def test_making_them_again_gives_the_same_bytes(maker: ModuleType) -> None:
    """All but the videos, whose bytes depend on the ffmpeg; the manifests are made over the committed videos."""
    assert sorted(session.rec_id for session in maker.SESSIONS) == sorted(p.name for p in RECORDINGS.iterdir())
    for session in maker.SESSIONS:
        committed = _files(RECORDINGS / session.rec_id)
        raw = maker.other_files(session) | {path: committed[path] for path in maker.videos(session)}
        assert raw | maker.sidecars(session, raw) == committed
