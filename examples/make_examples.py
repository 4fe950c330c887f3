"""Make the example recordings: three small sessions as a rig would have written them.

    python examples/make_examples.py [--out examples/recordings]

Needs the standard library and ffmpeg (on PATH, or from ``pip install imageio-ffmpeg``). Signals are synthetic, from
fixed seeds; times are fixed. Everything but the videos is the same bytes on every machine; the videos are the same
for the same ffmpeg. The people in them are invented.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import json
import math
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Files = dict[str, bytes]
Encoder = Callable[["Video"], bytes]

EEG_HZ = 250
MIC_HZ = 8000
VIDEO_FPS = 25
SEGMENT_S = 3
TIMEZONE = "Europe/Berlin"  # every example is recorded in summer: UTC+2
MANTIS = {"hostname": "green-mantis", "role": "host"}
MOTOR = {"hostname": "green-motor", "role": "eeg"}
CHANNELS = ("Fp1", "Fp2", "C3", "C4", "P3", "P4", "O1", "O2")


@dataclass(frozen=True)
class Worker:
    """One worker directory and what its manifest entry says about the device."""

    dir: str
    node: Mapping[str, str]
    device: str
    sample_rate_hz: int | None = None
    channels: tuple[str, ...] = ()

    def entry(self) -> dict[str, Any]:
        """The ``workers[]`` entry."""
        modality, _, worker_id = self.dir.partition("_")
        entry: dict[str, Any] = {
            "dir": self.dir,
            "modality": modality,
            "worker_id": worker_id,
            "node": self.node["hostname"],
            "device": self.device,
        }
        if self.sample_rate_hz is not None:
            entry["sample_rate_hz"] = self.sample_rate_hz
        if self.channels:
            entry["channels"] = list(self.channels)
        return entry


@dataclass(frozen=True)
class Video:
    """A synthetic clip: an ffmpeg test source, tinted so that the two cameras differ."""

    hue_degrees: int
    frame_offset_s: int
    created: datetime


@dataclass(frozen=True)
class Session:
    """One example recording; ``nodes`` empty means that the rig wrote no manifest."""

    rec_id: str
    started_at: datetime
    duration_s: int
    workers: tuple[Worker, ...]
    note: str
    participant: str | None = None
    nodes: tuple[Mapping[str, str], ...] = ()


def _session_start(rec_id: str) -> datetime:
    day_and_time = rec_id.removeprefix("rec_").rpartition("_")[0]
    return datetime.strptime(f"{day_and_time}+0200", "%Y%m%d_%H%M%S%z")


def _sessions() -> tuple[Session, ...]:
    camera = ("ELP USB camera 720p", VIDEO_FPS)
    left, right = (Worker(f"camera_{side}", MANTIS, *camera) for side in ("left", "right"))
    mic = Worker("mic_room", MANTIS, "USB microphone", MIC_HZ, ("mono",))
    notes = Worker("notes_operator", MANTIS, "dashboard")
    single, dual, bare = "rec_20260520_195628_b1dd", "rec_20260521_101500_c2ee", "rec_20260522_090000_d3ff"
    return (
        Session(
            single,
            _session_start(single),
            2 * SEGMENT_S,
            (left, right, Worker("eeg_a", MANTIS, "8-channel amplifier", EEG_HZ, CHANNELS), mic, notes),
            "Impedances below 5 kΩ on all channels.\n19:56:30  eyes closed → alpha over O1/O2\n",
            "Aria Lin",
            (MANTIS,),
        ),
        Session(
            dual,
            _session_start(dual),
            2 * SEGMENT_S,
            (
                left,
                right,
                mic,
                notes,
                Worker("eeg_a", MOTOR, "8-channel amplifier", EEG_HZ, CHANNELS),
                Worker("eeg_b", MOTOR, "4-channel amplifier", EEG_HZ, CHANNELS[:4]),
            ),
            "Two nodes: cameras and microphone on the host, both amplifiers on the mini-PC.\nRaumtemperatur 21,5 °C\n",
            "Noor Haddad",
            (MANTIS, MOTOR),
        ),
        Session(
            bare,
            _session_start(bare),
            2,
            (Worker("eeg_a", MANTIS, "2-channel amplifier", EEG_HZ, CHANNELS[:2]), mic, notes),
            "Test run, no participant. The rig lost power before it wrote a manifest.\n",
        ),
    )


def _noise(rng: random.Random) -> float:
    """About normal, unit variance: ``random()`` alone is promised to be the same on every Python."""
    return sum(rng.random() for _ in range(12)) - 6.0


def eeg_samples(channel: int, count: int, seed: str) -> list[int]:
    """An EEG-like trace in digital units of 0.1 µV: drift, 10 Hz alpha that grows to the back of the head, noise."""
    rng = random.Random(f"{seed}/{channel}")
    samples, slow = [], 0.0
    for i in range(count):
        slow = 0.98 * slow + _noise(rng)
        alpha = (5 + 4 * channel) * math.sin(2 * math.pi * 10 * i / EEG_HZ + channel)
        microvolts = slow + alpha + 2 * _noise(rng)
        samples.append(max(-32768, min(32767, round(microvolts * 10))))
    return samples


def edf_bytes(channels: tuple[str, ...], duration_s: int, start: datetime, seed: str) -> bytes:
    """A plain EDF file with one-second records (Kemp et al. 1992, https://www.edfplus.info/specs/edf.html)."""
    signals = [eeg_samples(n, duration_s * EEG_HZ, seed) for n in range(len(channels))]
    records = bytearray()
    for second in range(duration_s):
        for samples in signals:
            records += struct.pack(f"<{EEG_HZ}h", *samples[second * EEG_HZ : (second + 1) * EEG_HZ])
    return _edf_header(channels, duration_s, start) + bytes(records)


def _edf_header(channels: tuple[str, ...], records: int, start: datetime) -> bytes:
    count = len(channels)
    fixed = [
        ("0", 8),
        ("X X X X", 80),
        ("Startdate " + f"{start:%d-%b-%Y}".upper() + " X X X", 80),
        (f"{start:%d.%m.%y}", 8),
        (f"{start:%H.%M.%S}", 8),
        (str(256 * (count + 1)), 8),
        ("", 44),
        (str(records), 8),
        ("1", 8),
        (str(count), 4),
    ]
    # Each property is written for all signals before the next property begins.
    per_signal: list[tuple[list[str], int]] = [
        ([f"EEG {name}" for name in channels], 16),
        (["AgAgCl electrode"] * count, 80),
        (["uV"] * count, 8),
        (["-3276.8"] * count, 8),
        (["3276.7"] * count, 8),
        (["-32768"] * count, 8),
        (["32767"] * count, 8),
        (["HP:0.1Hz LP:100Hz"] * count, 80),
        ([str(EEG_HZ)] * count, 8),
        ([""] * count, 32),
    ]
    fields = fixed + [(value, width) for values, width in per_signal for value in values]
    return "".join(value.ljust(width) for value, width in fields).encode("ascii")


def wav_bytes(duration_s: int, seed: str) -> bytes:
    """A quiet room with a 440 Hz beep in each second: 16 bit, mono."""
    rng = random.Random(seed)
    frames = bytearray()
    for i in range(duration_s * MIC_HZ):
        beep = 6000 * math.sin(2 * math.pi * 440 * i / MIC_HZ) if i % MIC_HZ < MIC_HZ // 5 else 0.0
        frames += struct.pack("<h", round(beep + 200 * (rng.random() - 0.5)))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(MIC_HZ)
        out.writeframes(bytes(frames))
    return buffer.getvalue()


def find_ffmpeg() -> str:
    """The ffmpeg to encode with: from PATH, else imageio-ffmpeg's."""
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        imageio_ffmpeg = importlib.import_module("imageio_ffmpeg")
    except ImportError:
        sys.exit("make_examples: no ffmpeg on PATH. Install it, or type: pip install imageio-ffmpeg")
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def encode_mp4(ffmpeg: str, video: Video) -> bytes:
    """Encode one segment as H.264 in mp4; one thread and bit-exact flags, so that a re-run gives the same bytes."""
    source = f"testsrc2=size=320x240:rate={VIDEO_FPS},trim=start={video.frame_offset_s}:duration={SEGMENT_S}"
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "out.mp4"
        command = [
            *(ffmpeg, "-hide_banner", "-loglevel", "error", "-nostdin", "-f", "lavfi"),
            *("-i", f"{source},setpts=PTS-STARTPTS,hue=h={video.hue_degrees}"),
            *("-c:v", "libx264", "-preset", "medium", "-crf", "34", "-pix_fmt", "yuv420p", "-threads", "1"),
            *("-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"),
            *("-metadata", f"creation_time={video.created.isoformat()}", "-movflags", "+faststart", str(target)),
        ]
        subprocess.run(command, check=True)
        return target.read_bytes()


def videos(session: Session) -> dict[str, Video]:
    """The session's clips by path: segments of ``SEGMENT_S`` seconds."""
    clips = {}
    for number, worker in enumerate(w for w in session.workers if w.dir.startswith("camera_")):
        for segment in range(session.duration_s // SEGMENT_S):
            offset_s = segment * SEGMENT_S
            created = session.started_at + timedelta(seconds=offset_s)
            hue_degrees = 90 * number + session.started_at.day
            clips[f"{worker.dir}/seg_{segment:03d}.mp4"] = Video(hue_degrees, offset_s, created)
    return clips


def other_files(session: Session) -> Files:
    """Every raw file but the videos: the same bytes on every machine."""
    files: Files = {}
    for worker in session.workers:
        seed = f"{session.rec_id}/{worker.dir}"
        if worker.dir.startswith("eeg"):
            edf = edf_bytes(worker.channels, session.duration_s, session.started_at, seed)
            files[f"{worker.dir}/seg_000.edf"] = edf
        elif worker.dir.startswith("mic"):
            files[f"{worker.dir}/seg_000.wav"] = wav_bytes(session.duration_s, seed)
        elif worker.dir.startswith("notes"):
            files[f"{worker.dir}/notes.txt"] = session.note.encode()
    return files


def recording_hash(raw: Files) -> str:
    """The documented derivation: sha256 over the sorted sha256 of every raw file, joined by newlines."""
    digests = sorted(hashlib.sha256(data).hexdigest() for data in raw.values())
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def sidecars(session: Session, raw: Files) -> Files:
    """participant.txt and the manifests that the rig wrote beside ``raw``."""
    files: Files = {}
    if session.participant is not None:
        files["participant.txt"] = f"{session.participant}\n".encode()
    if len(session.nodes) == 1:
        files["manifest.json"] = _json_bytes(_manifest(session, session.nodes[0], raw))
    elif session.nodes:
        for node in session.nodes:
            manifest = _manifest(session, node, raw) | {"recording_hash": recording_hash(raw)}
            files[f"_node_manifests/{node['hostname']}.json"] = _json_bytes(manifest)
    return files


def _manifest(session: Session, node: Mapping[str, str], raw: Files) -> dict[str, Any]:
    workers = [worker for worker in session.workers if worker.node == node]
    own = {worker.dir for worker in workers}
    return {
        "schema_version": 1,
        "recording_id": session.rec_id,
        "started_at": session.started_at.isoformat(),
        "ended_at": (session.started_at + timedelta(seconds=session.duration_s)).isoformat(),
        "timezone": TIMEZONE,
        "duration_s": float(session.duration_s),
        "node": dict(node),
        "nodes": [dict(each) for each in session.nodes],
        "workers": [worker.entry() for worker in workers],
        "files": [_file_entry(path, raw[path]) for path in sorted(raw) if path.split("/")[0] in own],
    }


def _file_entry(path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _json_bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def build(session: Session, encode: Encoder) -> Files:
    """Every file of one recording by its path, sidecars last."""
    raw = other_files(session) | {path: encode(video) for path, video in videos(session).items()}
    return raw | sidecars(session, raw)


def write(out: Path, session: Session, files: Files) -> None:
    """Write one recording below ``out``; files of an older run that are no longer made are removed."""
    target = out / session.rec_id
    if target.exists():
        shutil.rmtree(target)
    for path, data in files.items():
        destination = target / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes(data)


SESSIONS = _sessions()


def main() -> None:
    """Parse ``--out``, make the recordings, print one line for each."""
    parser = argparse.ArgumentParser(description="Make the example recordings.")
    default = Path(__file__).parent / "recordings"
    parser.add_argument("--out", type=Path, default=default, metavar="DIR", help="where to (default: %(default)s)")
    arguments = parser.parse_args()
    ffmpeg = find_ffmpeg()
    for session in SESSIONS:
        files = build(session, lambda video: encode_mp4(ffmpeg, video))
        write(arguments.out, session, files)
        print(f"{arguments.out / session.rec_id}: {len(files)} files, {sum(map(len, files.values()))} bytes")


if __name__ == "__main__":
    main()
