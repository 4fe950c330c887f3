"""No false alarm, no true bytes out of reach; what was measured once is in the rows, or on this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from places import (
    FILES,
    FIRST,
    OTHER,
    REC,
    ZEROS,
    LocalPlace,
    Place,
    ServerPlace,
    nas,
    place,
    rec_dir,
    server,
    sha256,
    told,
)

from helpers import make_recording, manifest_of, write_json

__all__ = ["nas", "place", "rec_dir", "server"]


def _again(place: Place, path: str, body: bytes) -> None:
    """The same bytes under another ETag: other parts, or a copy whose record does not count any more."""
    if isinstance(place, ServerPlace):
        place.put_parts(path, body, 5 << 20)
    else:
        place.put(path, body)


def test_the_rig_uploads_the_same_bytes_again(server: ServerPlace, nas: Path, rec_dir: Path) -> None:
    body = bytes(range(256)) * 30_000
    (rec_dir / FIRST).write_bytes(body)
    write_json(rec_dir / "manifest.json", manifest_of(REC, FILES | {FIRST: body}))
    assert server.run("ingest", rec_dir).returncode == 0
    before = server.rows()[FIRST].etag
    server.put_parts(FIRST, body, 5 << 20)
    verified = server.run("verify", REC)
    assert verified.returncode == 0 and f"= sha256  {FIRST}" in verified.stdout, told(verified)
    fetched = server.run("download", REC, "--dest", nas / "out")
    assert fetched.returncode == 0, told(fetched)
    assert (nas / "out" / REC / FIRST).read_bytes() == body
    done = server.run("batch", nas)
    assert f"HAVE {REC}" in done.stdout and done.returncode == 0, told(done)
    row = server.rows()[FIRST]
    assert row.etag != before and row.proven
    history = server.run("catalog", "history")
    assert "proven" in history.stdout, told(history)


def test_a_directory_store_that_was_copied(tmp_path: Path, nas: Path, rec_dir: Path) -> None:
    """``cp -a`` keeps no change times: everything is hashed once, and is what it was."""
    from places import local_place

    place = local_place(tmp_path)
    assert place.run("ingest", rec_dir).returncode == 0
    moved = tmp_path / "copied"
    shutil.copytree(tmp_path / "store", moved)
    place.config.write_text(f"profiles:\n  local: {{root: {moved}}}\n", encoding="utf-8")
    for args in (["verify", REC], ["download", REC, "--dest", tmp_path / "out"], ["batch", nas]):
        done = place.run(*args)
        assert done.returncode == 0, told(done)
    place.root = moved
    place.put(FIRST, ZEROS)
    assert place.run("verify", REC).returncode == 6


@pytest.mark.parametrize("spelling", ["base64", "upper", "prefix", "nonsense"])
def test_what_others_state_in_metadata(server: ServerPlace, tmp_path: Path, spelling: str) -> None:
    """One strange object ends nothing: three recordings are registered, verified, fetched and rebuilt."""
    import base64

    digest = sha256(b"x" * 500)
    stated = {
        "base64": base64.b64encode(bytes.fromhex(digest)).decode(),
        "upper": digest.upper(),
        "prefix": f"sha256:{digest}",
        "nonsense": "no digest",
    }[spelling]
    names = [REC, OTHER, "rec_20260522_090000_d3ff"]
    for number, name in enumerate(names):
        made = make_recording(
            tmp_path / "rig", name, {"eeg_a/a.edf": b"x" * 500, "eeg_a/b.edf": bytes([number])}, list_sha256=False
        )
        server.put_dir(made)
    server.put("eeg_a/a.edf", b"x" * 500, metadata={"sha256": stated})
    done = server.run("ingest-r2", *names)
    assert done.returncode == 0 and "Traceback" not in done.stderr, told(done)
    rebuilt = server.run("catalog", "rebuild", "--yes")
    assert rebuilt.returncode == 0, told(rebuilt)
    assert server.rows()["eeg_a/a.edf"].sha256 == digest
    for args in (["verify", *names], ["download", *names, "--dest", tmp_path / "out"]):
        assert server.run(*args).returncode == 0


def test_a_wrong_claim_hides_no_bytes(place: Place, rec_dir: Path, tmp_path: Path) -> None:
    """The manifest states a wrong sha256 of a right object: it is delivered, and said."""
    place.put_dir(rec_dir)
    wrong = json.loads((rec_dir / "manifest.json").read_text(encoding="utf-8"))
    wrong["files"][0]["sha256"] = sha256(b"something else")
    place.put("manifest.json", json.dumps(wrong).encode())
    assert place.run("ingest-r2", REC).returncode == 0
    path = wrong["files"][0]["path"]
    done = place.run("download", REC, "--dest", tmp_path / "out")
    assert done.returncode == 6, told(done)
    words = f"not as its manifest states: sha256 {sha256(FILES[path])}, stated {sha256(b'something else')}"
    assert words in done.stdout + done.stderr, told(done)
    assert (tmp_path / "out" / REC / path).read_bytes() == FILES[path]
    with place.data("assets_rw") as data:
        result = data.download(data.query(recording_hash=data.find_recording(REC).recording_hash), tmp_path / "out2")
        assert [item.path for item in result.not_as_stated] == [path]
    row = place.rows()[path]
    assert (row.sha256, row.evidence) == (sha256(FILES[path]), "sha256")
    with place.data() as data:
        (modality,) = [m for m in data.list_modalities({"rec_id": REC}) if any(f.path == path for f in m.files)]
        assert sha256(b"something else") in modality.metadata["stated_sha256"]


def test_evidence_after_reconstruct_and_path_b(place: Place, tmp_path: Path) -> None:
    """Every byte was just hashed: the rows say so, on another machine too."""
    made = make_recording(tmp_path / "rig", REC, FILES, manifest=False)
    place.put_dir(made)
    done = place.run("reconstruct", REC, "--yes")
    assert done.returncode == 0, told(done)
    place.another_machine(tmp_path / "elsewhere")
    registered = place.run("ingest-r2", REC)
    assert registered.returncode == 0 and "by size only" not in registered.stdout, told(registered)
    assert {row.evidence for row in place.rows().values()} == {"sha256"}
    place.put(FIRST, ZEROS)
    place.another_machine(tmp_path / "third")
    wrong = place.run("ingest-r2", REC, "--overwrite")
    assert {row.evidence for path, row in place.rows().items() if path == FIRST} <= {"claimed", "sha256"}
    assert wrong.returncode == 0 and "1 by size only" in wrong.stdout, told(wrong)


def test_a_file_registered_under_another_key(place: Place, rec_dir: Path) -> None:
    """``register_modality`` may name any key: verify looks there, and nowhere else."""
    assert place.run("ingest", rec_dir).returncode == 0
    place.put("derived/features.bin", b"features", rec_id="shared_place")
    with place.data("assets_rw") as data:
        recording = data.find_recording(REC)
        data.register_modality(
            recording_hash=recording.recording_hash,
            modality="features",
            files=[{"path": "features.bin", "key": "recordings/shared_place/derived/features.bin", "size_bytes": 8}],
        )
    done = place.run("verify", REC)
    assert done.returncode == 0 and "features.bin" in done.stdout, told(done)
    place.put("features.bin", b"features")
    place.delete("derived/features.bin", rec_id="shared_place")
    gone = place.run("verify", REC)
    assert gone.returncode == 6 and "- -       features.bin" in gone.stdout, told(gone)


def test_claims_are_upgraded_once(place: Place, nas: Path, rec_dir: Path) -> None:
    """Rows of Path B are claims; the disk's bytes prove them by ETag, and then they are proven for everybody."""
    place.put_dir(rec_dir)
    assert place.run("ingest-r2", REC, "--participant", "Aria Lin").returncode == 0
    assert {row.evidence for row in place.rows().values()} == {"claimed"}
    seen = place.run("verify", REC)
    assert seen.returncode == 0 and "3 not proven" in seen.stdout and "OK" not in seen.stdout, told(seen)
    done = place.run("batch", nas)
    assert f"HAVE {REC}" in done.stdout or f"OK   {REC}" in done.stdout, told(done)
    assert {row.evidence for row in place.rows().values()} == {"etag"}
    good = place.run("verify", REC)
    assert good.returncode == 0 and good.stdout.splitlines()[-1].startswith(f"OK   {REC}"), told(good)


def test_wiping_a_disk(place: Place, rec_dir: Path) -> None:
    """A directory is verified in full unless told otherwise, and then it is no OK."""
    assert place.run("ingest", rec_dir).returncode == 0
    done = place.run("verify", rec_dir)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith(f"OK   {REC}"), told(done)
    seen = place.run("verify", rec_dir, "--level", "checksum")
    assert seen.returncode == 0 and seen.stdout.splitlines()[-1].startswith(f"SEEN {REC}"), told(seen)
    assert "no object was read back" in seen.stdout
    body = bytearray(FILES[FIRST])
    body[7] ^= 1
    if isinstance(place, LocalPlace):
        # Rot: the disk under the store gives other bytes, and nothing else tells.
        target = place.root / "constellation-data" / "recordings" / REC / FIRST
        target.write_bytes(bytes(body))
    else:
        place.put(FIRST, bytes(body))
    wrong = place.run("verify", rec_dir)
    assert wrong.returncode == 6 and f"* -       {FIRST}" in wrong.stdout, told(wrong)
