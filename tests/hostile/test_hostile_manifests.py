"""Manifests that no rig should write: each is refused by file and field, or read as what it says; nothing half done."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from helpers import make_recording, manifest_of, run_ursa

RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
MIB = 1 << 20

Bytes = Callable[[str], bytes]


@dataclass(frozen=True)
class Bad:
    """``data``: a rec_id's manifest.json. ``status``: what becomes of it; ``words``: all of them in its line."""

    data: Bytes
    words: tuple[str, ...] = ()
    status: str = "fail"


def files_of(rec_id: str) -> dict[str, bytes]:
    """Every recording's bytes are its own: the same ones under two names would be a conflict."""
    return {"eeg_a/a.edf": rec_id.encode() * 30, "camera_left/a.mp4": rec_id.encode() * 20}


def text(rec_id: str) -> str:
    """The right one."""
    return json.dumps(manifest_of(rec_id, files_of(rec_id)))


def changed(**fields: Any) -> Bytes:
    """The right one with these fields; ``...`` takes one away."""

    def make(rec_id: str) -> bytes:
        whole = {"recording_id": rec_id} | manifest_of(rec_id, files_of(rec_id)) | fields
        return json.dumps({key: value for key, value in whole.items() if value is not ...}).encode()

    return make


def entry(**fields: Any) -> Bytes:
    """The right one with these fields in its first file."""

    def make(rec_id: str) -> bytes:
        whole = manifest_of(rec_id, files_of(rec_id))
        whole["files"][0] |= fields
        return json.dumps(whole).encode()

    return make


def replaced(old: str, new: str) -> Bytes:
    """The right one's text with a piece replaced."""

    def make(rec_id: str) -> bytes:
        whole = text(rec_id)
        assert old in whole
        return whole.replace(old, new, 1).encode("utf-8", "surrogatepass")

    return make


def padded(size: int) -> Bytes:
    """The right one, so many bytes long."""
    return lambda rec_id: text(rec_id).encode().ljust(size)


def windows(rec_id: str) -> bytes:
    """As a program on Windows would write the first entry."""
    digest = hashlib.sha256(files_of(rec_id)["camera_left/a.mp4"]).hexdigest()
    return entry(path="camera_left\\a.mp4", sha256=f"sha256:{digest}")(rec_id)


MANIFESTS = {
    "empty": Bad(lambda _: b"", ("ManifestError", "manifest.json")),
    "truncated": Bad(lambda rec_id: text(rec_id).encode()[:-40], ("ManifestError", "manifest.json")),
    "zeros": Bad(lambda _: bytes(4096), ("ManifestError",)),
    "not json": Bad(lambda _: b"<html>502 Bad Gateway</html>", ("ManifestError",)),
    "two objects": Bad(lambda rec_id: text(rec_id).encode() * 2, ("ManifestError",)),
    "a list": Bad(lambda _: b"[]", ("ManifestError", "object")),
    "a string": Bad(lambda _: b'"rec"', ("ManifestError", "object")),
    "null": Bad(lambda _: b"null", ("ManifestError", "object")),
    "duplicate keys": Bad(replaced('"size_bytes"', '"size_bytes": 1, "size_bytes"'), ("ManifestError", "size_bytes")),
    "duplicate paths": Bad(
        lambda rec_id: changed(files=manifest_of(rec_id, files_of(rec_id))["files"] * 2)(rec_id),
        ("ManifestError", "/files/"),
    ),
    "nested deep": Bad(
        replaced('"schema_version"', f'"x": {"[" * 100_000}{"]" * 100_000}, "schema_version"'), ("ManifestError",)
    ),
    "a huge number": Bad(replaced('"duration_s": 60.0', f'"duration_s": 1{"0" * 5000}'), ("ManifestError", "digits")),
    "a huge size": Bad(entry(size_bytes=10**30), ("/files/0/size_bytes",)),
    "1e999": Bad(replaced('"duration_s": 60.0', '"duration_s": 1e999'), ("ManifestError",)),
    "NaN": Bad(replaced('"duration_s": 60.0', '"duration_s": NaN'), ("ManifestError",)),
    "Infinity": Bad(replaced('"duration_s": 60.0', '"duration_s": -Infinity'), ("ManifestError",)),
    "a negative size": Bad(entry(size_bytes=-1), ("/files/0/size_bytes",)),
    "a fractional size": Bad(entry(size_bytes=80.5), ("/files/0/size_bytes",)),
    "a size that is a bool": Bad(entry(size_bytes=True), ("/files/0/size_bytes",)),
    "a sha256 that is none": Bad(entry(sha256="abc"), ("/files/0/sha256",)),
    "files that is an object": Bad(changed(files={}), ("/files",)),
    "a path that escapes": Bad(entry(path="../../etc/passwd"), ("/files/0/path", "escapes")),
    "a path that escapes with backslashes": Bad(entry(path="eeg_a\\..\\..\\x"), ("/files/0/path", "escapes")),
    "an absolute path": Bad(entry(path="/etc/passwd"), ("/files/0/path", "absolute")),
    "a drive": Bad(entry(path="C:\\x.edf"), ("/files/0/path", "absolute")),
    "a path with a NUL": Bad(entry(path="eeg_a/a\u0000.edf"), ("/files/0/path", "control")),
    "a path with a lone surrogate": Bad(
        replaced('"camera_left/a.mp4"', '"camera_left/\\ud800.mp4"'), ("ManifestError",)
    ),
    "an escape in the id": Bad(changed(recording_id="rec\u001b[2J\u202e"), ("ManifestError", r"\x1b")),
    "another recording's": Bad(changed(recording_id="rec_20260101_000000_aa"), ("rec_20260101_000000_aa",)),
    "a newer schema": Bad(changed(schema_version=99), ("/schema_version", "99")),
    "not utf-8": Bad(replaced('"green-mantis"', '"caf\udce9"'), ("ManifestError", "UTF-8")),
    "utf-16": Bad(lambda rec_id: text(rec_id).encode("utf-16"), ("ManifestError", "UTF-8")),
    "over 64 MiB": Bad(padded(64 * MIB + 1), ("ManifestError", "64 MiB")),
    "an impossible time": Bad(changed(started_at="2026-02-30T25:00:00Z"), ("ManifestError", "started_at")),
    "a list in place of a name": Bad(changed(recording_id=["rec"]), ("ManifestError", "recording_id")),
    "another sha256": Bad(entry(sha256="0" * 64), ("ChecksumMismatchError", "camera_left/a.mp4")),
    "a file that is not there": Bad(entry(path="camera_left/b.mp4"), ("MissingFilesError", "camera_left/b.mp4")),
    "placeholder": Bad(changed(files=[]), ("no manifest (run reconstruct first)",), "skip"),
    "a bom": Bad(lambda rec_id: b"\xef\xbb\xbf" + text(rec_id).encode(), (), "ok"),
    "unknown fields": Bad(changed(x={"<script>": "[red]"}, files_=[1]), (), "ok"),
    "windows": Bad(windows, (), "ok"),
    "almost 64 MiB": Bad(padded(64 * MIB - 1), (), "ok"),
}
IDS = {f"rec_20260520_{number:06d}_ab": bad for number, bad in enumerate(MANIFESTS.values())}


@dataclass(frozen=True)
class Run:
    """What one batch over all of them said, and what is in the store and the catalog after it."""

    nas: Path
    stored: Path
    lines: dict[str, str]
    out: str
    err: str
    rows: set[str]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run over all of them."""
    root = tmp_path_factory.mktemp("manifests")
    for rec_id, bad in IDS.items():
        rec_dir = make_recording(root / "nas", rec_id, files_of(rec_id), manifest=False)
        (rec_dir / "manifest.json").write_bytes(bad.data(rec_id))
    config = root / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {root / 'store'}}}\n")
    common = ["-p", "local", "--config", str(config)]
    run = run_ursa("batch", root / "nas", *common)
    assert run.returncode == 3, run.stderr
    ls = run_ursa("ls", "--json", *common)
    *lines, _summary = run.stdout.splitlines()
    result = Run(
        root / "nas",
        root / "store" / "constellation-data" / "recordings",
        {line[5 : 5 + len("rec_20260520_000000_ab")]: line for line in lines},
        run.stdout,
        run.stderr,
        {json.loads(line)["rec_id"] for line in ls.stdout.splitlines()},
    )
    yield result
    shutil.rmtree(root)  # two of them are 64 MiB


@pytest.mark.parametrize("rec_id", IDS, ids=list(MANIFESTS))
def test_read_or_refused_by_name(done: Run, rec_id: str) -> None:
    bad, line = IDS[rec_id], done.lines[rec_id]
    status = {"OK": "ok", "SKIP": "skip", "FAIL": "fail"}[line.split()[0]]
    assert status == bad.status, line
    for word in bad.words:
        assert word in line, line
    assert (rec_id in done.rows) == (status == "ok")
    here, there = done.nas / rec_id, done.stored / rec_id
    if status == "ok":
        assert (there / "manifest.json").read_bytes() == (here / "manifest.json").read_bytes()
        assert all((there / path).read_bytes() == content for path, content in files_of(rec_id).items())
    else:
        assert not there.exists(), "half done"


def test_nothing_raw_and_no_traceback(done: Run) -> None:
    assert RAW.search(done.out.replace("\n", "")) is None and RAW.search(done.err.replace("\n", "")) is None
    assert "Traceback" not in done.err and "UnexpectedError" not in done.out and len(done.lines) == len(IDS)
    assert "pgrade" in done.err  # how to go on with a newer schema
    assert max(map(len, done.lines.values())) < 2000, "a message that fills the screen"
