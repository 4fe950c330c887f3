"""The lock of a batch: who has it, who is refused, and that a death releases it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from ursa import lock
from ursa.errors import ConfigError, LockHeldError

HOLD = """
import sys
from pathlib import Path
from ursa import lock
with lock.hold("r2", "config", sys.argv[2:], directory=Path(sys.argv[1]) if sys.argv[1] else None) as path:
    print(path, flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(directory: Path | str, *roots: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that holds the lock until its stdin ends."""
    words = [sys.executable, "-c", HOLD, str(directory), *map(str, roots)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        path = process.stdout.readline().strip()
        try:
            assert path
            yield process, Path(path)
        finally:
            process.stdin.close()
            process.kill()


def refused(directory: Path | None, *roots: Path, wait_s: float = 0.0) -> LockHeldError:
    """What another run is told."""
    with pytest.raises(LockHeldError) as caught, lock.hold("r2", "config", roots, directory=directory, wait_s=wait_s):
        pass
    return caught.value


def test_another_run_is_named_and_refused(tmp_path: Path) -> None:
    with holder(tmp_path / "locks", tmp_path) as (process, path):
        error = refused(tmp_path / "locks", tmp_path)
        content = json.loads(path.read_text())
    assert (error.exit_code, error.pid, error.host) == (11, process.pid, socket.gethostname())
    assert error.since is not None and datetime.fromisoformat(error.since).utcoffset() is not None
    clock = datetime.fromisoformat(error.since).strftime("%H:%M:%S")
    said = f"another `ursa batch` of these roots is running since {clock} (pid {process.pid} on host {error.host})"
    assert said in error.message and "nothing is lost" in error.message
    assert error.hint is not None and "--wait 30m" in error.hint
    assert content == {"pid": error.pid, "host": error.host, "since": error.since, "command": "ursa batch"}


def test_a_death_releases_and_what_it_left_is_no_obstacle(tmp_path: Path) -> None:
    with holder(tmp_path / "locks", tmp_path) as (process, path):
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert json.loads(path.read_text())["pid"] == process.pid
        with lock.hold("r2", "config", [tmp_path], directory=tmp_path / "locks") as again:
            assert again == path
            assert json.loads(path.read_text())["pid"] == os.getpid()
    assert path.exists() and path.read_bytes() == b"", "the file stays and names nobody"


def test_a_dead_run_is_never_named_as_the_holder(tmp_path: Path) -> None:
    with holder(tmp_path / "locks", tmp_path) as (process, path):
        content = json.loads(path.read_text())
        gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        path.write_text(json.dumps(content | {"pid": int(gone.stdout)}))
        error = refused(tmp_path / "locks", tmp_path)
        assert (error.pid, error.since) == (None, None) and str(path) in error.message
        path.write_text("{half")
        assert refused(tmp_path / "locks", tmp_path).pid is None
        assert process.poll() is None


def test_an_error_inside_releases_too(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError), lock.hold("r2", "config", [tmp_path], directory=tmp_path / "locks"):
            raise RuntimeError


def test_one_set_of_roots_has_one_lock_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to("a")
    monkeypatch.chdir(tmp_path)
    a, b = tmp_path / "a", tmp_path / "b"
    name = lock.lock_name("r2", "config", [a, b])
    spellings: list[list[Path | str]] = [
        [b, a],
        [a, b, a],
        ["a", "b"],
        ["link", f"{b}/"],
        [f"{a}/../a", f"{tmp_path}//b/."],
    ]
    assert {lock.lock_name("r2", "config", roots) for roots in spellings} == {name}
    others = [
        lock.lock_name("r2", "config", [a]),
        lock.lock_name("r2", "config", [a, b, tmp_path]),
        lock.lock_name("r2-test", "config", [a, b]),
        lock.lock_name("r2", "other", [a, b]),
        lock.lock_name("r2c", "onfig", [a, b]),
        lock.lock_name("r2", "config", [os.fsdecode(b"/\xff")]),
    ]
    assert len({name, *others}) == 7


def test_other_roots_run_at_the_same_time(tmp_path: Path) -> None:
    locks = tmp_path / "locks"
    with holder(locks, tmp_path / "a"), lock.hold("r2", "config", [tmp_path / "b"], directory=locks) as path:
        assert path.exists()


def test_waiting_gets_it_when_the_other_ends(tmp_path: Path) -> None:
    with holder(tmp_path / "locks", tmp_path) as (process, path):
        timer = threading.Timer(0.5, process.kill)
        timer.start()
        with lock.hold("r2", "config", [tmp_path], directory=tmp_path / "locks", wait_s=60) as got:
            assert got == path and process.wait() == -signal.SIGKILL
        timer.join()


def test_waiting_ends(tmp_path: Path) -> None:
    with holder(tmp_path / "locks", tmp_path) as (process, _):
        assert "after waiting" in refused(tmp_path / "locks", tmp_path, wait_s=0.3).message
        asked = []
        started = time.monotonic()
        with (
            pytest.raises(KeyboardInterrupt),
            lock.hold(
                "r2",
                "config",
                [tmp_path],
                directory=tmp_path / "locks",
                wait_s=3600,
                stopped=lambda: bool(asked.append(1)) or len(asked) > 2,  # type: ignore[func-returns-value]
            ),
        ):
            raise AssertionError("nobody can have it now")
        assert len(asked) == 3 and time.monotonic() - started < 1800
        assert process.poll() is None


def test_a_child_does_not_keep_it(tmp_path: Path) -> None:
    with lock.hold("r2", "config", [tmp_path], directory=tmp_path / "locks"):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with lock.hold("r2", "config", [tmp_path], directory=tmp_path / "locks") as path:
            assert path.exists()
    finally:
        child.kill()
        child.wait()


def test_the_state_directory_is_where_it_is(home: Path) -> None:
    with lock.hold("r2", "config", ["/mnt/nas"]) as path:
        assert path.parent == home / ".local" / "state" / "ursa" / "locks"
        assert path.parent.stat().st_mode & 0o777 == 0o700 and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("state", ["/proc/none", "a file"])
def test_without_a_home_that_can_be_written_it_is_the_temp_directory(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file") if state == "a file" else state)
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a terminal has one and cron has none: they must agree
    with lock.hold("r2", "config", [tmp_path]) as path:
        assert path.parent == Path("/tmp") / f"ursa-{os.getuid()}-locks"
        with holder("", tmp_path / "other") as (_, other):
            assert other.parent == path.parent
    path.unlink()
    other.unlink()


def test_a_full_disk_hides_the_name_not_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with lock.hold("r2", "config", [tmp_path], directory=tmp_path / "locks") as path:
        assert path.read_bytes() == b"" and refused(tmp_path / "locks", tmp_path).pid is None


def test_a_directory_that_others_control_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(mine)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    wrong = {link: "symlink", shared: "other users may write"}
    if os.geteuid() == 0:
        foreign = tmp_path / "foreign"
        foreign.mkdir()
        os.chown(foreign, 65534, 65534)
        wrong[foreign] = "another user (uid 65534)"
    for directory, said in wrong.items():
        with (
            pytest.raises(ConfigError, match=re.escape(said)) as caught,
            lock.hold("r2", "config", [tmp_path], directory=directory),
        ):
            pass
        assert caught.value.path == str(directory) and caught.value.exit_code == 2 and caught.value.hint
        assert list(directory.iterdir()) == []
    name = lock.lock_name("r2", "config", [tmp_path])
    (mine / name).symlink_to(tmp_path / "victim")
    with pytest.raises(ConfigError, match="symlink"), lock.hold("r2", "config", [tmp_path], directory=mine):
        pass
    assert not (tmp_path / "victim").exists()
