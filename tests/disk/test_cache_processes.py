"""Several processes and threads with one files cache, and one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cache_tools import PATH, PRINT, REC, ROOT, SHA, Opened, opened, time

from ursa.disk.cache import FilesCache

WRITER = """
import hashlib, sys
from pathlib import Path
from ursa.disk.cache import FilesCache
from ursa.disk.fingerprint import Fingerprint
cache = FilesCache.open(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    sha256 = hashlib.sha256(f"{sys.argv[2]} {number}".encode()).hexdigest()
    cache.remember(f"rec_{number % 7}", f"{sys.argv[2]}/{number}", Fingerprint(number, 1, 2, 3), sha256, ["e"])
    print(number, flush=True)
if sys.argv[4] == "wait":
    sys.stdin.read()
cache.close()
"""


def writer(directory: Path, name: str, files: int, end: str = "close") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(directory), name, str(files), end]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def remembered(cache: FilesCache) -> set[str]:
    return {
        path for number in range(7) for path, entries in cache.entries(f"rec_{number}").items() if entries[0].sha256
    }


def test_two_processes(tmp_path: Path, opened: Opened) -> None:
    directory = tmp_path / "cache"
    both = [writer(directory, name, 300) for name in ("a", "b")]
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert remembered(opened(directory)) == {f"{name}/{number}" for name in ("a", "b") for number in range(300)}


def test_a_kill_right_after_a_file_ended(tmp_path: Path, opened: Opened) -> None:
    """Each line is printed after a file was remembered: whatever was printed must be there."""
    directory = tmp_path / "cache"
    process = writer(directory, "a", 100_000)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.readlines()
    process.communicate(timeout=60)
    whole = [line for line in told if line.endswith("\n")]
    assert len(whole) < 100_000 and process.returncode == -signal.SIGKILL
    assert {f"a/{line.strip()}" for line in whole} <= remembered(opened(directory))


def test_threads(opened: Opened) -> None:
    cache = opened()
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for turn in range(50):
            cache.sight(REC, {f"{number}/{turn}": PRINT})
            cache.remember(REC, f"{number}/{turn}", PRINT, SHA)
            cache.entries(REC)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, number) for number in range(8)]:
            future.result()
    assert len(opened().entries(REC)) == 400


def test_after_a_fork_the_parents_connection_is_not_used(opened: Opened) -> None:
    cache = opened()
    cache.remember(REC, PATH, PRINT, SHA)
    child = os.fork()
    if child == 0:
        cache.remember(REC, "child", PRINT, SHA)
        cache.close()
        os._exit(0 if cache.entries(REC) == {} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert list(cache.entries(REC)) == [PATH]
