"""A store as the tests of evidence need it: a profile for the installed command, and objects as other tools put them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets, MakeConfig, make_buckets
from helpers import make_recording, run_ursa
from servers import S3Server
from ursa import DataInterface

REC = "rec_20260520_195628_b1dd"
OTHER = "rec_20260521_101500_c2ee"
FILES = {
    "camera_left/seg_000.mp4": b"left!" * 60_000,
    "eeg_a/seg_000.edf": b"eeg" * 3_000,
    "eeg_a/seg_001.edf": b"EEG" * 3_000,
}
FIRST = "camera_left/seg_000.mp4"
ZEROS = bytes(len(FILES[FIRST]))

Done = subprocess.CompletedProcess[str]


@dataclass
class Place:
    """A profile whose catalog is there. ``env``: for every command; its HOME is this machine's memory."""

    profile: str
    config: Path
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *args: str | Path, **env: str) -> Done:
        """The installed command, with this profile."""
        return run_ursa(*args, "--profile", self.profile, "--config", self.config, env={**self.env, **env})

    def lines(self, *args: str | Path) -> list[dict[str, Any]]:
        """What a command prints with ``--json``."""
        done = self.run(*args, "--json")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def data(self, *roles: str) -> DataInterface:
        """The API on it."""
        data = DataInterface(self.profile, self.config)
        if roles:
            data.enable_writes(roles=roles)
        return data

    def rows(self, rec_id: str = REC) -> dict[str, Any]:
        """Path → row of each file, raw and auxiliary."""
        with self.data() as data:
            row = data.find_recording(rec_id)
            files = [file for item in data.list_modalities({"rec_id": rec_id}) for file in item.files]
        return {file.path: file for file in [*files, *row.auxiliary_files]}

    def put(self, path: str, body: bytes, rec_id: str = REC, metadata: Mapping[str, str] | None = None) -> None:
        raise NotImplementedError

    def get(self, path: str, rec_id: str = REC) -> bytes:
        raise NotImplementedError

    def delete(self, path: str, rec_id: str = REC) -> None:
        raise NotImplementedError

    def put_dir(self, rec_dir: Path, but: Mapping[str, bytes] | None = None) -> None:
        """Every file of a recording, as another uploader would; ``but`` some with other bytes."""
        for path in sorted(rec_dir.rglob("*")):
            if path.is_file():
                name = path.relative_to(rec_dir).as_posix()
                self.put(name, (but or {}).get(name, path.read_bytes()), rec_dir.name)

    def another_machine(self, home: Path) -> None:
        """From now on the commands run where nothing is remembered."""
        home.mkdir(parents=True, exist_ok=True)
        self.env["HOME"] = str(home)


@dataclass
class LocalPlace(Place):
    """A directory."""

    root: Path = Path()

    def put(self, path: str, body: bytes, rec_id: str = REC, metadata: Mapping[str, str] | None = None) -> None:
        del metadata
        target = self._at(path, rec_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)

    def get(self, path: str, rec_id: str = REC) -> bytes:
        return self._at(path, rec_id).read_bytes()

    def delete(self, path: str, rec_id: str = REC) -> None:
        self._at(path, rec_id).unlink()

    def _at(self, path: str, rec_id: str) -> Path:
        return self.root / "constellation-data" / "recordings" / rec_id / path


@dataclass
class ServerPlace(Place):
    """Two buckets of a server."""

    buckets: Buckets = field(kw_only=True)

    def put(self, path: str, body: bytes, rec_id: str = REC, metadata: Mapping[str, str] | None = None) -> None:
        self._client.put_object(
            Bucket=self.buckets.raw, Key=f"recordings/{rec_id}/{path}", Body=body, Metadata=dict(metadata or {})
        )

    def put_parts(self, path: str, body: bytes, part: int, metadata: Mapping[str, str] | None = None) -> None:
        """In parts of this size, as ``aws s3 cp`` or a rig does: the ETag is none of an md5 of the whole."""
        key = {"Bucket": self.buckets.raw, "Key": f"recordings/{REC}/{path}"}
        upload = self._client.create_multipart_upload(**key, Metadata=dict(metadata or {}))["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(body), part), 1):
            sent = self._client.upload_part(**key, UploadId=upload, PartNumber=number, Body=body[start : start + part])
            parts.append({"PartNumber": number, "ETag": sent["ETag"]})
        self._client.complete_multipart_upload(**key, UploadId=upload, MultipartUpload={"Parts": parts})

    def get(self, path: str, rec_id: str = REC) -> bytes:
        body: bytes = self._client.get_object(Bucket=self.buckets.raw, Key=f"recordings/{rec_id}/{path}")["Body"].read()
        return body

    def delete(self, path: str, rec_id: str = REC) -> None:
        self._client.delete_object(Bucket=self.buckets.raw, Key=f"recordings/{rec_id}/{path}")

    @property
    def _client(self) -> Any:
        return self.buckets.server.client()


def local_place(tmp_path: Path) -> LocalPlace:
    """An empty directory store."""
    config = tmp_path / "local.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n", encoding="utf-8")
    return LocalPlace("local", config, root=tmp_path / "store")


def server_place(buckets: Buckets, s3_config: MakeConfig) -> ServerPlace:
    """Buckets with a catalog."""
    place = ServerPlace("r2", s3_config(buckets), buckets=buckets)
    done = place.run("catalog", "init", "--yes")
    assert done.returncode == 0, done.stderr
    return place


def sha256(data: bytes) -> str:
    """Lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def copy(rec_dir: Path, to: Path) -> Path:
    """Another disk's copy, with the times that it had."""
    to.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copytree(rec_dir, to / rec_dir.name))


def overwrite(path: Path, data: bytes) -> None:
    """Other bytes of the same size and with the same mtime: what ``cp -p`` of another version leaves."""
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def told(done: Done) -> str:
    """For the message of an assertion."""
    return f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(params=["local", "weed"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_config: MakeConfig) -> Place:
    """A directory store, and buckets of a real server."""
    if request.param == "local":
        return local_place(tmp_path)
    weed: S3Server = request.getfixturevalue("weed_server")
    return server_place(make_buckets(weed), s3_config)


@pytest.fixture
def server(weed_server: S3Server, s3_config: MakeConfig) -> ServerPlace:
    """Buckets of a real server."""
    return server_place(make_buckets(weed_server), s3_config)


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    """A directory with one recording in it."""
    root = tmp_path / "nas"
    make_recording(root, REC, FILES, participant="Aria Lin")
    return root


@pytest.fixture
def rec_dir(nas: Path) -> Path:
    """That recording."""
    return nas / REC
