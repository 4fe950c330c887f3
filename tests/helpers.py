"""What tests share: recordings made to measure, and the installed ``ursa`` run as a process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from servers import find_executable
from ursa.beside import IDLE

HOSTNAME = "green-mantis"
DURATION_S = 60.0


def make_recording(
    root: Path,
    rec_id: str,
    files: Mapping[str, bytes],
    *,
    participant: str | None = None,
    manifest: dict[str, Any] | bool = True,
    list_sha256: bool = True,
    **manifest_fields: Any,
) -> Path:
    """Write ``root/rec_id`` as a rig would have and return it.

    Args:
        files: content by path below the recording; the manifest lists those in worker directories.
        participant: written to participant.txt, with a newline; None writes none.
        manifest: True writes a right one, False none, a dict is written as it is.
        list_sha256: whether the manifest states the files' sha256.
        manifest_fields: put over the right manifest's own fields; None takes one away.
    """
    rec_dir = root / rec_id
    rec_dir.mkdir(parents=True)
    for path, data in files.items():
        target = rec_dir / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    if participant is not None:
        (rec_dir / "participant.txt").write_text(f"{participant}\n", encoding="utf-8")
    if manifest is True:
        manifest = manifest_of(rec_id, files, list_sha256=list_sha256, **manifest_fields)
    if manifest is not False:
        write_json(rec_dir / "manifest.json", manifest)
    return rec_dir


def write_node_manifest(
    rec_dir: Path,
    hostname: str,
    workers: Collection[str],
    *,
    role: str | None = None,
    list_sha256: bool = True,
    **manifest_fields: Any,
) -> Path:
    """Write ``_node_manifests/<hostname>.json`` over these worker directories as they are on disk; return its path."""
    files = {
        path.relative_to(rec_dir).as_posix(): path.read_bytes()
        for worker in sorted(workers)
        for path in sorted((rec_dir / worker).rglob("*"))
        if path.is_file()
    }
    node = {"hostname": hostname} | ({} if role is None else {"role": role})
    target = rec_dir / "_node_manifests" / f"{hostname}.json"
    target.parent.mkdir(exist_ok=True)
    fields = {"node": node} | manifest_fields
    write_json(target, manifest_of(rec_dir.name, files, list_sha256=list_sha256, **fields))
    return target


def manifest_of(rec_id: str, files: Mapping[str, bytes], *, list_sha256: bool = True, **fields: Any) -> dict[str, Any]:
    """The right manifest for these files, as a dict; ``fields`` go over it, None takes a field away."""
    raw = {path: data for path, data in files.items() if "/" in path and path[0] not in "_."}
    started = _started_at(rec_id)
    manifest: dict[str, Any] = {
        "schema_version": 1,
        "recording_id": rec_id,
        "started_at": started.isoformat(),
        "ended_at": (started + timedelta(seconds=DURATION_S)).isoformat(),
        "duration_s": DURATION_S,
        "node": {"hostname": HOSTNAME, "role": "host"},
    } | fields
    hostname = manifest["node"]["hostname"] if isinstance(manifest["node"], dict) else manifest["node"]
    defaults = {
        "workers": [_worker_entry(name, hostname) for name in sorted({path.split("/")[0] for path in raw})],
        "files": [_file_entry(path, raw[path], list_sha256) for path in sorted(raw)],
    }
    return {name: value for name, value in (defaults | manifest).items() if value is not None}


def write_json(path: Path, value: object) -> None:
    """Write a JSON file as the rigs do: UTF-8, indented."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _started_at(rec_id: str) -> datetime:
    try:
        return datetime.strptime(rec_id[4:19], "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    except ValueError:  # tests make impossible dates as well
        return datetime(2026, 5, 20, 19, 56, 28, tzinfo=UTC)


def _worker_entry(name: str, hostname: str | None) -> dict[str, Any]:
    modality, _, worker_id = name.partition("_")
    entry = {"dir": name, "modality": modality, "worker_id": worker_id, "node": hostname}
    return {key: value for key, value in entry.items() if value is not None}


def _file_entry(path: str, data: bytes, list_sha256: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": path, "size_bytes": len(data)}
    if list_sha256:
        entry["sha256"] = hashlib.sha256(data).hexdigest()
    return entry


def run_ursa(
    *args: str | Path,
    env: Mapping[str, str] | None = None,
    stdin: int | str = subprocess.DEVNULL,
    timeout: float = 120,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the installed ``ursa`` to its end and return its exit code, stdout and stderr as text.

    Args:
        env: added to this process's environment.
        stdin: a file descriptor, or the text to send.
        timeout: seconds until ``subprocess.TimeoutExpired``.
    """
    source: dict[str, Any] = {"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}
    return subprocess.run(
        [find_executable("ursa"), *map(str, args)],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        **source,
    )


def start_ursa(
    *args: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[str]:
    """Start the installed ``ursa`` and return its process (use it in a ``with``), for tests that interrupt or kill it."""
    return subprocess.Popen(
        [find_executable("ursa"), *map(str, args)],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def working() -> set[threading.Thread]:
    """The threads of this process, but for those that are kept and have nothing to do."""
    return {thread for thread in threading.enumerate() if thread.name != IDLE}
