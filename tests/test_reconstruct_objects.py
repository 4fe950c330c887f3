"""Keys that somebody else wrote: whatever they are, they end as a manifest or as an InvalidRecordingError."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ursa import InvalidRecordingError
from ursa.manifest import parse_manifest
from ursa.reconstruct.document import Hashed, build
from ursa.reconstruct.objects import check_raw, read_contents
from ursa.recording import classify
from ursa.store import ObjectInfo

REC = "rec_20260520_195628_b1dd"
PREFIX = f"recordings/{REC}/"
SHA256 = hashlib.sha256(b"").hexdigest()

PIECES = st.one_of(
    st.sampled_from(
        ["eeg_a", "eeg", "eeg_", "_calibration", ".x", "manifest.json", "participant.txt", "é", "e\u0301", "C:"]
    ),
    st.sampled_from(
        ["_node_manifests", "x.part", "._x", "@eaDir", ".", "..", "", "a\\b", "\x00", "\ud800", "rec", " "]
    ),
    st.text(max_size=6),
)
KEYS = st.lists(st.lists(PIECES, min_size=1, max_size=4).map("/".join), max_size=6, unique=True)


def listing(sizes: Mapping[str, int]) -> list[ObjectInfo]:
    """As a store lists them."""
    return [ObjectInfo(PREFIX + path, size, "etag") for path, size in sizes.items()]


@given(KEYS)
def test_any_keys_end_as_a_manifest_or_in_words(paths: list[str]) -> None:
    try:
        contents = read_contents(REC, PREFIX, listing(dict.fromkeys(paths, 1)))
        check_raw(REC, contents)
        files = [Hashed(found.path, found.size_bytes, SHA256, found.worker) for found in contents.data]
        document = build(REC, files, "Aria")
    except InvalidRecordingError as error:
        assert error.message.isprintable()
        return
    manifest = parse_manifest(document.data, source="x")
    assert set(manifest.files_by_path) == {found.path for found in contents.data}
    # What is raw for us is raw for whoever reads the manifest.
    for found in contents.data:
        assert classify(found.path, manifest.files_by_path) == ("raw" if found.worker else "auxiliary", found.worker)
    # Nothing is left out silently: every key is listed, a sidecar, or counted as junk.
    listed = {found.key for found in (*contents.data, *contents.manifests.values())}
    listed |= {contents.participant.key} if contents.participant else set()
    assert len(listed) + contents.junk == len(paths)


def test_a_consoles_folders_are_junk() -> None:
    contents = read_contents(REC, PREFIX, listing({"": 0, "eeg_a/": 0, "eeg_a/x.edf": 5}))
    assert (len(contents.data), contents.junk) == (1, 2)
    with pytest.raises(InvalidRecordingError, match="eeg_a/"):
        read_contents(REC, PREFIX, listing({"eeg_a/": 3, "eeg_a/x.edf": 5}))


def test_many_offenders_are_counted() -> None:
    with pytest.raises(InvalidRecordingError, match=r"25 objects can't be taken: .* and 5 more;") as caught:
        read_contents(REC, PREFIX, listing({f"eeg_a/{number:02}.part": 1 for number in range(25)}))
    assert len(caught.value.fields["paths"]) == 25


def test_rsyncs_copies_are_told_by_what_is_beside() -> None:
    keys = ["eeg_a/x.edf", "eeg_a/.y.edf.random", "eeg_a/.session.sqlite"]
    assert len(read_contents(REC, PREFIX, listing(dict.fromkeys(keys, 1))).data) == 3
    # The copy is listed before the file that it is of.
    keys += ["eeg_a/.x.edf.random", "eeg_a/y.edf", ".rsync-partial/z", "eeg_a/.z.edf.Ab12cD"]
    with pytest.raises(InvalidRecordingError, match="unfinished copy") as caught:
        read_contents(REC, PREFIX, listing(dict.fromkeys(keys, 1)))
    offenders = [".rsync-partial/z", "eeg_a/.x.edf.random", "eeg_a/.y.edf.random", "eeg_a/.z.edf.Ab12cD"]
    assert list(caught.value.fields["paths"]) == offenders


def test_the_document_does_not_depend_on_the_order() -> None:
    files = [Hashed(path, 1, hashlib.sha256(path.encode()).hexdigest(), "eeg_a") for path in ("eeg_a/b", "eeg_a/a")]
    one, other = build(REC, files, None), build(REC, files[::-1], None)
    assert one.recording_hash == other.recording_hash
    assert [entry["path"] for entry in json.loads(one.data)["files"]] == ["eeg_a/a", "eeg_a/b"]
    assert json.loads(one.data)["files"] == json.loads(other.data)["files"]
