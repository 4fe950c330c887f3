"""No ``OK``, no ``HAVE``, no "with the same files" for bytes that are not in the bucket."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from places import (
    FILES,
    FIRST,
    OTHER,
    REC,
    ZEROS,
    Place,
    ServerPlace,
    copy,
    nas,
    overwrite,
    place,
    rec_dir,
    server,
    sha256,
    told,
)

from helpers import make_recording, manifest_of, write_json
from ursa import derive_recording_hash

__all__ = ["nas", "place", "rec_dir", "server"]


def _no_success(place: Place, root: Path) -> None:
    """Of a disk whose bytes are not those of the bucket, no command says that all is well."""
    batch = place.run("batch", root)
    assert f"FAIL {REC}" in batch.stdout and batch.returncode == 3, told(batch)
    for args in (["ingest", root / REC], ["ingest", root / REC, "--overwrite"]):
        done = place.run(*args)
        assert done.returncode in (5, 6), told(done)
        assert "with the same files" not in done.stderr and not done.stdout.startswith("OK"), told(done)


def test_a_rows_claim_is_no_proof(place: Place, nas: Path, rec_dir: Path) -> None:
    """Zeros in the bucket, a right manifest, rows by Path B: the disk's bytes are compared with the object's."""
    place.put_dir(rec_dir, but={FIRST: ZEROS})
    registered = place.run("ingest-r2", REC)
    assert registered.returncode == 0 and "by size only" in registered.stdout, told(registered)
    assert place.rows()[FIRST].evidence == "claimed"
    _no_success(place, nas)
    rebuilt = place.run("catalog", "rebuild", "--yes")
    assert rebuilt.returncode == 0, told(rebuilt)
    assert place.rows()[FIRST].evidence == "claimed"
    _no_success(place, nas)
    replaced = place.run("ingest", rec_dir, "--overwrite", "--replace-objects")
    assert replaced.returncode == 0, told(replaced)
    assert place.get(FIRST) == FILES[FIRST] and place.rows()[FIRST].proven
    done = place.run("batch", nas)
    assert done.returncode == 0, told(done)


def test_a_second_copy_that_was_never_read(place: Place, tmp_path: Path) -> None:
    """Two USB copies with the same times: one lost its second half to zeros, and was registered first."""
    half = FILES[FIRST][: len(FILES[FIRST]) // 2] + bytes(len(FILES[FIRST]) // 2)
    good = make_recording(tmp_path / "usb_b", REC, FILES, list_sha256=False)
    bad = copy(good, tmp_path / "usb_a")
    overwrite(bad / FIRST, half)
    done = place.run("batch", tmp_path / "usb_a", tmp_path / "usb_b")
    assert done.stdout.count(f"OK   {REC}") == 1 and "HAVE" not in done.stdout, told(done)
    assert f"FAIL {REC}: ConflictError" in done.stdout and FIRST in done.stdout, told(done)
    assert done.returncode == 3


@pytest.mark.parametrize("how", ["cp -p", "rename", "1970"])
def test_a_good_file_over_a_bad_one(place: Place, tmp_path: Path, how: str) -> None:
    """Same size, same mtime, other bytes: registered from the bad one, the good one is no HAVE."""
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, list_sha256=False)
    overwrite(rec_dir / FIRST, ZEROS)
    if how == "1970":
        for path in rec_dir.rglob("*"):
            os.utime(path, (0, 0))
    assert place.run("batch", tmp_path / "nas").returncode == 0
    assert f"HAVE {REC}" in place.run("batch", tmp_path / "nas").stdout
    if how == "rename":
        side = tmp_path / "side"
        shutil.copy2(rec_dir / FIRST, side)
        overwrite(side, FILES[FIRST])
        side.replace(rec_dir / FIRST)
    else:
        overwrite(rec_dir / FIRST, FILES[FIRST])
    done = place.run("batch", tmp_path / "nas")
    assert f"FAIL {REC}: ConflictError" in done.stdout and "HAVE" not in done.stdout, told(done)


def test_a_clock_that_was_ahead(place: Place, nas: Path, rec_dir: Path, tmp_path: Path) -> None:
    """Files "older" than their registration by a clock that ran ahead are read all the same."""
    assert place.run("ingest", rec_dir).returncode == 0
    (rec_dir / "manifest.json").unlink()
    overwrite(rec_dir / FIRST, ZEROS)
    write_json(rec_dir / "manifest.json", manifest_of(REC, FILES | {FIRST: ZEROS}))
    past = (rec_dir / FIRST).stat().st_mtime - 86_400
    os.utime(rec_dir / FIRST, (past, past))
    done = place.run("batch", nas)
    assert f"FAIL {REC}" in done.stdout, told(done)


@pytest.mark.parametrize("metadata", [sha256(b"stale"), "", "base64"])
def test_metadata_makes_no_hash(server: ServerPlace, rec_dir: Path, metadata: str) -> None:
    """A multipart object with a stale sha256 in its metadata, and a manifest that states none: it is read."""
    body = os.urandom(6 << 20)
    files = {"eeg_a/seg_000.edf": body}
    write_json(rec_dir / "manifest.json", manifest_of(REC, files, list_sha256=False))
    server.put("manifest.json", (rec_dir / "manifest.json").read_bytes())
    stated = {"sha256": "AAAA" if metadata == "base64" else metadata} if metadata else {}
    server.put_parts("eeg_a/seg_000.edf", body, 5 << 20, stated)
    done = server.run("ingest-r2", REC)
    assert done.returncode == 0, told(done)
    row = server.rows()["eeg_a/seg_000.edf"]
    assert (row.sha256, row.evidence) == (sha256(body), "sha256")
    with server.data() as data:
        assert data.find_recording(REC).recording_hash == derive_recording_hash([sha256(body)])
    dest = rec_dir.parent / "out"
    fetched = server.run("download", REC, "--dest", dest)
    assert fetched.returncode == 0, told(fetched)
    assert (dest / REC / "eeg_a/seg_000.edf").read_bytes() == body


@pytest.mark.parametrize("stated", [True, False])
def test_a_listed_file_that_is_only_in_the_bucket(place: Place, rec_dir: Path, stated: bool) -> None:
    """Zeros of its size there, with or without metadata that states the manifest's sha256."""
    (rec_dir / FIRST).unlink()
    place.put(FIRST, ZEROS, metadata={"sha256": sha256(FILES[FIRST])} if stated else None)
    done = place.run("ingest", rec_dir)
    assert done.returncode == 6 and FIRST in done.stderr and "OK" not in done.stdout, told(done)
    assert f"FAIL {REC}: MissingFilesError" in place.run("batch", rec_dir.parent).stdout
    place.put(FIRST, FILES[FIRST])
    good = place.run("ingest", rec_dir)
    assert good.returncode == 0 and "1 only in the bucket" in good.stdout.splitlines()[0], told(good)
    assert place.rows()[FIRST].evidence == (
        "sha256" if isinstance(place, ServerPlace) else place.rows()[FIRST].evidence
    )
    assert place.rows()[FIRST].proven
    again = place.run("batch", rec_dir.parent)
    assert f"HAVE {REC}: already registered; " in again.stdout and "of 3 files on this disk" in again.stdout, told(
        again
    )


@pytest.mark.parametrize("lost", ["deleted", "zeros", "cut"])
@pytest.mark.parametrize("path", [FIRST, "events.csv"])
def test_have_looks_at_the_bucket(place: Place, nas: Path, rec_dir: Path, path: str, lost: str) -> None:
    """An object that is gone, replaced or cut after its registration, raw or auxiliary."""
    (rec_dir / "events.csv").write_bytes(b"t,what\n1,go\n")
    done = place.run("batch", nas)
    assert done.returncode == 0, told(done)
    assert f"HAVE {REC}" in place.run("batch", nas).stdout
    whole = (rec_dir / path).read_bytes()
    if lost == "deleted":
        place.delete(path)
    else:
        place.put(path, bytes(len(whole)) if lost == "zeros" else whole[:-1])
    batch = place.run("batch", nas)
    assert f"FAIL {REC}" in batch.stdout and path in batch.stdout and batch.returncode == 3, told(batch)
    done = place.run("ingest", rec_dir)
    assert done.returncode == (5 if lost == "zeros" else 6), told(done)
    assert "with the same files" not in done.stderr, told(done)
    verified = place.run("verify", REC)
    assert verified.returncode == 6 and path in verified.stdout, told(verified)
    mended = place.run("ingest", rec_dir, "--overwrite", "--replace-objects")
    assert mended.returncode == 0, told(mended)
    assert f"HAVE {REC}" in place.run("batch", nas).stdout


def test_the_first_night_on_a_second_machine(place: Place, nas: Path, rec_dir: Path, tmp_path: Path) -> None:
    """It has read nothing: everything is hashed, and then it is HAVE; one flipped byte is not."""
    done = place.run("batch", nas)
    assert done.returncode == 0, told(done)
    place.another_machine(tmp_path / "elsewhere")
    assert f"HAVE {REC}: already registered\n" in place.run("batch", nas).stdout
    data = bytearray(FILES[FIRST])
    data[1000] ^= 1
    overwrite(rec_dir / FIRST, bytes(data))
    done = place.run("batch", nas)
    assert f"FAIL {REC}" in done.stdout, told(done)


def test_a_damaged_cache_costs_time_only(place: Place, nas: Path, home: Path) -> None:
    done = place.run("batch", nas)
    assert done.returncode == 0, told(done)
    for path in (home / ".cache" / "ursa").glob("files-*"):
        path.write_bytes(b"\0" * 5000)
    done = place.run("batch", nas)
    assert f"HAVE {REC}" in done.stdout and done.returncode == 0, told(done)


def test_same_bytes_under_two_names(place: Place, tmp_path: Path) -> None:
    """Both empty after a crash: one hash; the refusal says so, and what to do."""
    first = make_recording(tmp_path, REC, {"eeg_a/seg_000.edf": b""})
    second = make_recording(tmp_path, OTHER, {"eeg_a/seg_000.edf": b""})
    assert place.run("ingest", first).returncode == 0
    done = place.run("ingest", second)
    assert done.returncode == 5 and "exactly the same bytes" in done.stderr and "recording_hash" in done.stderr, told(
        done
    )
    write_json(second / "manifest.json", manifest_of(OTHER, {"eeg_a/seg_000.edf": b""}, recording_hash=sha256(b"own")))
    assert place.run("ingest", second).returncode == 0
