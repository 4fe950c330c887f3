"""The runbook's Python, word for word, against a real server: only the path and the config are put in."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_tools import objects, on_disk, writer

from conftest import Buckets, MakeConfig
from helpers import run_ursa
from proxy import FaultProxy
from servers import S3Server
from ursa import RecordingExistsError

NAS = "/Volumes/Shared_Drive/constellation-data/recordings"
REC = "rec_20260520_195628_b1dd"

PATH_A = f"""
from pathlib import Path
from ursa import DataInterface

data = DataInterface(profile="r2")
data.enable_writes(roles=("assets_rw", "raw_rw"))  # ingest() uploads raw bytes — needs raw_rw

rec_dir = Path("{NAS}/{REC}")
manifest = rec_dir / "manifest.json"
participant_file = rec_dir / "participant.txt"
participant = participant_file.read_text().strip() if participant_file.exists() else None

result = data.ingest(
    manifest_path=manifest,
    source_dir=rec_dir,
    participant=participant,
)
print(f"ingested: {{result.recording.recording_hash}}")
print(f"files uploaded: {{result.files_uploaded}}, skipped: {{result.files_skipped}}")
"""

OVERWRITE = """
result = data.ingest(
    manifest_path=manifest,
    source_dir=rec_dir,
    participant=participant,
    overwrite=True,  # clobber a partial prior row
)
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

BATCH = f"""
from pathlib import Path
from ursa import DataInterface

data = DataInterface(profile="r2")
data.enable_writes(roles=("assets_rw", "raw_rw"))  # ingest() uploads raw bytes — needs raw_rw

nas_root = Path("{NAS}")
for rec_dir in sorted(nas_root.glob("rec_*")):
    manifest = rec_dir / "manifest.json"
    if not manifest.exists():
        print(f"SKIP {{rec_dir.name}}: no manifest (run reconstruct first)")
        continue
    pfile = rec_dir / "participant.txt"
    participant = pfile.read_text().strip() if pfile.exists() else None
    try:
        result = data.ingest(
            manifest_path=manifest,
            source_dir=rec_dir,
            participant=participant,
        )
        print(f"OK   {{rec_dir.name}}: {{result.files_uploaded}} uploaded, {{result.files_skipped}} skipped")
    except Exception as exc:  # noqa: BLE001  — broad: we want to keep going
        print(f"FAIL {{rec_dir.name}}: {{type(exc).__name__}}: {{exc}}")
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

Run = Callable[..., str]


@pytest.fixture
def config(weed_buckets: Buckets, s3_config: MakeConfig) -> Path:
    """A config with an empty catalog behind it."""
    path = s3_config(weed_buckets)
    writer(path).close()
    return path


@pytest.fixture
def run(config: Path, example_recordings: Path) -> Run:
    """``run(snippet, …)`` executes snippets in one namespace, and returns what they printed."""
    names: dict[str, Any] = {"CONFIG": config}

    def execute(*snippets: str, **replaced: str) -> str:
        out = io.StringIO()
        for snippet in snippets:
            text = snippet.replace('DataInterface(profile="r2")', 'DataInterface(profile="r2", config_path=CONFIG)')
            text = text.replace(NAS, str(example_recordings))
            for name, value in replaced.items():
                text = text.replace(f"<{name}>", value)
            with contextlib.redirect_stdout(out):
                exec(compile(text, "<runbook>", "exec"), names)
        return out.getvalue()

    return execute


def test_path_a(run: Run, weed_buckets: Buckets, example_recordings: Path) -> None:
    lines = run(PATH_A).splitlines()
    files = on_disk(example_recordings / REC)
    assert lines[0].startswith("ingested: ") and len(lines[0]) == len("ingested: ") + 64
    assert lines[1:] == [f"files uploaded: {len(files)}, skipped: 0"]
    assert objects(weed_buckets) == files


def test_a_second_ingest_is_refused_and_overwrite_is_not(run: Run, weed_buckets: Buckets) -> None:
    run(PATH_A)
    before = objects(weed_buckets)
    with pytest.raises(RecordingExistsError, match=REC) as refused:
        run(PATH_A)
    assert refused.value.exit_code == 5
    assert refused.value.rec_id == REC
    printed = run(OVERWRITE, "print(result.action, result.files_uploaded, result.files_skipped, result.paused)")
    assert printed == f"overwritten 0 {len(before)} False\n"
    assert objects(weed_buckets) == before


def test_the_refusal_moves_no_byte(
    run: Run,
    weed_buckets: Buckets,
    s3_config: MakeConfig,
    fault_proxy: Callable[[S3Server], FaultProxy],
    example_recordings: Path,
) -> None:
    run(PATH_A)
    proxy = fault_proxy(weed_buckets.server)
    config = s3_config(weed_buckets.at(proxy.url))
    # In a process of its own: a catalog query holds Python's lock, so a proxy in the same process could not answer.
    script = PATH_A.replace('profile="r2"', f'profile="r2", config_path={str(config)!r}')
    done = subprocess.run(
        [sys.executable, "-c", script.replace(NAS, str(example_recordings))], capture_output=True, text=True
    )
    assert "RecordingExistsError: " in done.stderr and done.stdout == ""
    assert proxy.count() > 0
    assert _writes(proxy, weed_buckets.raw) == []


def test_the_command_line_says_so_with_exit_5(
    run: Run, config: Path, weed_buckets: Buckets, example_recordings: Path
) -> None:
    first = run_ursa("ingest", example_recordings / REC, "--config", config)
    assert first.returncode == 0, first.stderr
    again = run_ursa("ingest", example_recordings / REC, "--config", config)
    assert again.returncode == 5
    assert "RecordingExistsError" in again.stderr and REC in again.stderr
    with pytest.raises(RecordingExistsError):
        run(PATH_A)
    assert run_ursa("ingest", example_recordings / REC, "--config", config, "--overwrite").returncode == 0


def test_progress(run: Run, example_recordings: Path) -> None:
    printed = run(PATH_A.partition("result =")[0], PROGRESS)
    total = sum(len(data) for data in on_disk(example_recordings / REC).values())
    assert printed.splitlines()[-1].endswith(f": {total:,}/{total:,}")
    assert "  eeg_a/seg_000.edf: " in printed


def test_batch_loop(run: Run, example_recordings: Path) -> None:
    shutil.copytree(example_recordings / REC, example_recordings / "rec_20260523_080000_e4aa")
    first = run(BATCH).splitlines()
    assert first[0] == f"OK   {REC}: 9 uploaded, 0 skipped"
    # The loop of the runbook asks for manifest.json alone, so a dual-node session is skipped by it.
    assert first[1] == "SKIP rec_20260521_101500_c2ee: no manifest (run reconstruct first)"
    assert first[2] == "SKIP rec_20260522_090000_d3ff: no manifest (run reconstruct first)"
    assert first[3].startswith("FAIL rec_20260523_080000_e4aa: ManifestError: ")
    assert len(first) == 4
    second = run(BATCH).splitlines()
    assert second[0].startswith(f"FAIL {REC}: RecordingExistsError: ")
    assert second[1:] == first[1:]


def test_verification_and_round_trip(run: Run, example_recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingested = run(PATH_A).split()[1]
    dest = example_recordings.parent / "verify"
    dest.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(dest))
    lines = run(VERIFICATION, ROUND_TRIP, recording_hash=ingested).splitlines()
    assert lines[0].startswith(f"recording: rec_id={REC}, participants=(") and "p_" in lines[0]
    assert lines[1] == (
        "modalities: [('camera', 'left'), ('camera', 'right'), ('eeg', 'a'), ('mic', 'room'), ('notes', 'operator')]"
    )
    fetched = {path.relative_to(dest).parts[1:]: path.read_bytes() for path in dest.rglob("*") if path.is_file()}
    wanted = {
        (REC, *path.relative_to(example_recordings / REC).parts): path.read_bytes()
        for path in (example_recordings / REC).glob("camera_*/*")
    }
    assert fetched == wanted


def _writes(proxy: FaultProxy, bucket: str) -> list[str]:
    return [
        f"{entry.method} {entry.path}"
        for entry in proxy.log
        if entry.method != "GET" and entry.method != "HEAD" and entry.path.startswith(f"/{bucket}/")
    ]
