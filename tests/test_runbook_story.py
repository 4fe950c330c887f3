"""The lab's runbook (offline ingest) from its first page to its last, as one story on a real server.

Every snippet is as the runbook has it. What is bound: the profile ``r2`` is in the home's config file, the shared
drive is a directory of the test, ``<recording_hash>`` is the one that was printed.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording
from ursa import ConflictError, DataInterface, ManifestNotFoundError, RecordingExistsError, participant_id

NAS = "/Volumes/Shared_Drive/constellation-data/recordings"
REC = "rec_20260520_195628_b1dd"
DUAL, BARE, FRESH = "rec_20260521_101500_c2ee", "rec_20260522_090000_d3ff", "rec_20260523_080000_e4aa"

PATH_A = """
from pathlib import Path
from ursa import DataInterface

data = DataInterface(profile="r2")
data.enable_writes(roles=("assets_rw", "raw_rw"))  # ingest() uploads raw bytes — needs raw_rw

rec_dir = Path("/Volumes/Shared_Drive/constellation-data/recordings/rec_20260520_195628_b1dd")
manifest = rec_dir / "manifest.json"
participant_file = rec_dir / "participant.txt"
participant = participant_file.read_text().strip() if participant_file.exists() else None

result = data.ingest(
    manifest_path=manifest,
    source_dir=rec_dir,
    participant=participant,
)
print(f"ingested: {result.recording.recording_hash}")
print(f"files uploaded: {result.files_uploaded}, skipped: {result.files_skipped}")
"""

OVERWRITE = """
result = data.ingest(
    manifest_path=manifest,
    source_dir=rec_dir,
    participant=participant,
    overwrite=True,  # clobber a partial prior row
)
"""

PATH_B = """
from ursa import DataInterface

data = DataInterface(profile="r2")
data.enable_writes()

result = data.ingest_from_r2(
    rec_id="rec_20260520_195628_b1dd",
    participant="Aria Lin",  # or None if unknown
)
print(f"registered: {result.recording.recording_hash}")
"""

PATH_C = """
cd /path/to/ursa
uv run python examples/reconstruct_missing_manifests.py \\
    --profile r2 \\
    --rec-id rec_20260520_195628_b1dd \\
    --yes
"""

PROGRESS = """
from ursa import DataInterface, UploadProgress

def on_progress(p: UploadProgress) -> None:
    print(f"  {p.current_file}: {p.bytes_uploaded:,}/{p.bytes_total:,}")

result = data.ingest(
    manifest_path=manifest,
    source_dir=rec_dir,
    participant=participant,
    progress=on_progress,
)
"""

BATCH = """
from pathlib import Path
from ursa import DataInterface

data = DataInterface(profile="r2")
data.enable_writes(roles=("assets_rw", "raw_rw"))  # ingest() uploads raw bytes — needs raw_rw

nas_root = Path("/Volumes/Shared_Drive/constellation-data/recordings")
for rec_dir in sorted(nas_root.glob("rec_*")):
    manifest = rec_dir / "manifest.json"
    if not manifest.exists():
        print(f"SKIP {rec_dir.name}: no manifest (run reconstruct first)")
        continue
    pfile = rec_dir / "participant.txt"
    participant = pfile.read_text().strip() if pfile.exists() else None
    try:
        result = data.ingest(
            manifest_path=manifest,
            source_dir=rec_dir,
            participant=participant,
        )
        print(f"OK   {rec_dir.name}: {result.files_uploaded} uploaded, {result.files_skipped} skipped")
    except Exception as exc:  # noqa: BLE001  — broad: we want to keep going
        print(f"FAIL {rec_dir.name}: {type(exc).__name__}: {exc}")
"""

VERIFICATION = """
from ursa import DataInterface

data = DataInterface(profile="r2")
rec = data.get_recording("<recording_hash>")
# RecordingRow is keyed by recording_hash; the legacy data-engine rec_id is
# preserved in metadata["manifest_recording_id"].
legacy_id = (rec.metadata or {}).get("manifest_recording_id")
print(f"recording: rec_id={legacy_id}, participants={rec.participant_ids}")
mods = data.list_modalities(where={"recording_hash": rec.recording_hash})
print(f"modalities: {[(m.modality, m.worker_id) for m in mods]}")
"""

ROUND_TRIP = """
import tempfile
from pathlib import Path
results = data.query(recording_hash=rec.recording_hash, modalities=["camera"], status="raw")
data.download(results, dest=tempfile.mkdtemp(prefix="ursa_verify_"))
"""

CONFIG_PATH = """
from pathlib import Path
data = DataInterface(profile="r2", config_path=Path("/tmp/my-override.yaml"))
"""


class Story:
    """One admin's session: snippets run in one namespace, in the order of the pages."""

    def __init__(self, buckets: Buckets, config: Path, nas: Path) -> None:
        self.buckets = buckets
        self.config = config
        self.nas = nas
        self.names: dict[str, Any] = {}

    def run(self, *snippets: str, **bound: str) -> str:
        """What the snippets print."""
        out = io.StringIO()
        for snippet in snippets:
            text = snippet.replace(NAS, str(self.nas)).replace("/tmp/my-override.yaml", str(self.config))
            for name, value in bound.items():
                text = text.replace(f"<{name}>", value)
            with contextlib.redirect_stdout(out):
                exec(compile(text, "<runbook>", "exec"), self.names)
        return out.getvalue()

    def lose_the_catalog(self) -> None:
        """As on the day on which no row was ever written."""
        client = self.buckets.server.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=self.buckets.assets):
            for item in page.get("Contents", ()):
                client.delete_object(Bucket=self.buckets.assets, Key=item["Key"])
        admin = DataInterface("r2")
        admin.enable_writes()
        admin.init_catalog()

    def objects(self, rec_id: str) -> dict[str, bytes]:
        """A recording's objects by path."""
        client, prefix = self.buckets.server.client(), f"recordings/{rec_id}/"
        listed = client.list_objects_v2(Bucket=self.buckets.raw, Prefix=prefix).get("Contents", ())
        return {
            item["Key"].removeprefix(prefix): client.get_object(Bucket=self.buckets.raw, Key=item["Key"])["Body"].read()
            for item in listed
        }

    def on_disk(self, rec_id: str) -> dict[str, bytes]:
        """A recording's files by path."""
        root = self.nas / rec_id
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def story(weed_buckets: Buckets, s3_config: MakeConfig, example_recordings: Path, home: Path, tmp_path: Path) -> Story:
    config = s3_config(weed_buckets)
    own = home / ".config" / "ursa" / "config.yaml"
    own.parent.mkdir(parents=True)
    shutil.copy(config, own)
    told = Story(weed_buckets, config, example_recordings)
    told.lose_the_catalog()
    return told


@pytest.mark.slow
def test_the_runbook_in_its_order(story: Story, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chapters: list[Callable[[Story], None]] = [path_a, path_b, path_c, progress, batch_loop, policies]
    for chapter in chapters:
        chapter(story)
    dest = tmp_path / "verify"
    dest.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(dest))
    verification(story, dest)


def path_a(story: Story) -> None:
    printed = story.run(PATH_A).splitlines()
    files = story.on_disk(REC)
    assert printed[0].startswith("ingested: ") and len(printed[0].split()[1]) == 64
    assert printed[1] == f"files uploaded: {len(files)}, skipped: 0"
    assert story.objects(REC) == files
    story.names["HASH"] = printed[0].split()[1]
    with pytest.raises(RecordingExistsError, match=REC):
        story.run(PATH_A)
    printed = story.run(OVERWRITE, "print(result.files_uploaded, result.files_skipped, result.paused)").splitlines()
    assert printed == [f"0 {len(files)} False"]
    assert story.run(CONFIG_PATH, "print(data.find_recording(result.recording.rec_id) == result.recording)") == "True\n"


def path_b(story: Story) -> None:
    with pytest.raises(RecordingExistsError, match=REC):
        story.run(PATH_B)
    story.lose_the_catalog()
    assert story.run(PATH_B) == f"registered: {story.names['HASH']}\n"
    assert story.run("print(result.recording.participant_ids)") == f"{(participant_id('Aria Lin'),)}\n"
    assert story.objects(REC) == story.on_disk(REC)


def path_c(story: Story) -> None:
    story.lose_the_catalog()
    story.buckets.server.client().delete_object(Bucket=story.buckets.raw, Key=f"recordings/{REC}/manifest.json")
    with pytest.raises(ManifestNotFoundError, match="no manifest"):
        story.run(PATH_B)
    command = PATH_C.replace("/path/to/ursa", str(Path(__file__).parents[1])).replace("uv run python", sys.executable)
    for _ in range(2):
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert story.run(PATH_B) == f"registered: {story.names['HASH']}\n"
    made = story.objects(REC)
    assert made.pop("manifest.json") != (story.nas / REC / "manifest.json").read_bytes()
    assert made == {path: body for path, body in story.on_disk(REC).items() if path != "manifest.json"}


def progress(story: Story) -> None:
    story.run(PATH_A.partition("result =")[0].replace(REC, DUAL))
    printed = story.run(PROGRESS).splitlines()
    total = sum(map(len, story.on_disk(DUAL).values()))
    assert printed[-1].endswith(f": {total:,}/{total:,}")
    assert any(line.startswith("  eeg_a/") for line in printed)
    assert story.objects(DUAL) == story.on_disk(DUAL)


def batch_loop(story: Story) -> None:
    make_recording(story.nas, FRESH, {"camera_left/seg_000.mp4": b"left" * 100}, participant="Bo Berg")
    printed = story.run(BATCH).splitlines()
    # The rig's own manifest takes the place of the reconstructed one.
    assert printed[0] == f"OK   {REC}: 1 uploaded, 8 skipped"
    assert story.objects(REC) == story.on_disk(REC)
    assert printed[1] == f"SKIP {DUAL}: no manifest (run reconstruct first)"
    assert printed[2] == f"SKIP {BARE}: no manifest (run reconstruct first)"
    assert printed[3:] == [f"OK   {FRESH}: 3 uploaded, 0 skipped"]
    again = story.run(BATCH).splitlines()
    for line, rec_id in ((again[0], REC), (again[3], FRESH)):
        assert line.startswith(f"FAIL {rec_id}: RecordingExistsError: ")


def policies(story: Story) -> None:
    data: DataInterface = story.names["data"]
    row = data.find_recording(FRESH)
    own = {"recording_hash": row.recording_hash, "metadata": {"manifest_recording_id": FRESH}}
    with pytest.raises(RecordingExistsError):
        data.register_recording(**own)
    assert data.register_recording(**own, duration_s=75.0, on_conflict="extend").duration_s == 75.0
    assert data.register_recording(**own, duration_s=70.0, on_conflict="extend").duration_s == 75.0
    cleo = data.register_participant("Cleo Fox").participant_id
    merged = data.register_recording(**own, participant_ids=[cleo], on_conflict="merge_participants")
    assert set(merged.participant_ids) == {cleo, participant_id("Bo Berg")}
    with pytest.raises(ConflictError):
        data.register_recording(**own, duration_s=1.0, participant_ids=[cleo], on_conflict="merge_participants")
    ended = datetime(2026, 5, 23, 8, 1, tzinfo=UTC)
    done = data.register_recording(**own, duration_s=60.0, ended_at=ended, on_conflict="overwrite")
    assert (done.duration_s, done.ended_at, done.participant_ids) == (60.0, ended, merged.participant_ids)
    assert [item.name for item in data.list_modalities({"recording_hash": row.recording_hash})] == ["camera_left"]
    key = f"recordings/{FRESH}/notes_op/notes.txt"
    story.buckets.server.client().put_object(Bucket=story.buckets.raw, Key=key, Body=b"late notes")
    notes = {"modality": "notes", "worker_id": "op", "files": [{"path": "notes_op/notes.txt", "size_bytes": 10}]}
    data.register_modality(recording_hash=row.recording_hash, **notes, on_conflict="error")
    with pytest.raises(ConflictError):
        data.register_modality(recording_hash=row.recording_hash, **notes, on_conflict="error")
    data.register_modality(recording_hash=row.recording_hash, **notes, on_conflict="overwrite")
    with pytest.raises(ValueError, match="error or overwrite"):
        data.register_modality(recording_hash=row.recording_hash, **notes, on_conflict="extend")


def verification(story: Story, dest: Path) -> None:
    printed = story.run(VERIFICATION, ROUND_TRIP, recording_hash=story.names["HASH"]).splitlines()
    assert printed == [
        f"recording: rec_id={REC}, participants={(participant_id('Aria Lin'),)}",
        "modalities: [('camera', 'left'), ('camera', 'right'), ('eeg', 'a'), ('mic', 'room'), ('notes', 'operator')]",
    ]
    (made,) = dest.iterdir()
    fetched = {path.relative_to(made / REC).as_posix(): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert fetched == {path: body for path, body in story.on_disk(REC).items() if path.startswith("camera_")}
    keys = story.run(
        "found = data.query()\nprint(sorted(found.modalities))\n"
        f'dual = data.query(recording_hash=data.find_recording("{DUAL}").recording_hash)\nprint(sorted(dual.modalities))'
    ).splitlines()
    assert "'eeg_a', 'eeg_b'" in keys[1]
