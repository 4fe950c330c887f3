"""Runs that nobody watches: no home, no terminal, closed or full streams, a terminal that went away."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from helpers import make_recording, run_ursa, start_ursa
from servers import find_executable

URSA = find_executable("ursa")
REC = "rec_20260520_195628_b1dd"
BARE = {"PATH": "/usr/bin:/bin"}
NO_COERCION = {"PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config whose profile local needs no home."""
    path = tmp_path / "c.yaml"
    path.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n")
    return path


@pytest.fixture
def recording(example_recordings: Path) -> Path:
    """An example."""
    return example_recordings / REC


def shell(
    line: str, *, env: dict[str, str] | None = None, cwd: Path | str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a line of sh in which $URSA is the installed command."""
    everything = {**(os.environ if env is None else env), "URSA": URSA}
    words = ["/bin/sh", "-c", line]
    return subprocess.run(words, env=everything, cwd=cwd, capture_output=True, text=True, timeout=60)


def three(config: Path, recording: Path) -> dict[str, str]:
    """The commands that are tried: one that writes, one that reads, one that does neither."""
    tail = f"-p local --config '{config}'"
    return {
        "ingest": f"\"$URSA\" ingest '{recording}' {tail}",
        "ls": f'"$URSA" ls {tail}',
        "config": f'"$URSA" config show {tail}',
    }


def stored(config: Path) -> list[str]:
    """The rec_ids in the catalog."""
    done = run_ursa("ls", "-p", "local", "--config", config)
    assert done.returncode == 0, done.stderr
    return [line.split()[0] for line in done.stdout.splitlines()[1:]]


ENVIRONMENTS = {
    "no home, no TERM": BARE,
    "an empty HOME, the C locale": BARE | {"HOME": "", "LC_ALL": "C", "TERM": "dumb"},
    "a HOME that can't be written": BARE | {"HOME": "/proc"},
    "a HOME that is none, an ASCII locale": BARE
    | {"HOME": "/dev/null", "LC_ALL": "C", "PYTHONUTF8": "0", **NO_COERCION},
}


@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_bare_environments_work(env: dict[str, str], config: Path, recording: Path) -> None:
    (recording / "participant.txt").write_text("Zoë 🐻\n", encoding="utf-8")
    for name, line in three(config, recording).items():
        done = shell(line, env=env, cwd="/")
        assert (done.returncode, done.stderr) == (0, ""), name
        assert done.stdout, name
    assert stored(config) == [REC]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_work(closed: str, config: Path, recording: Path) -> None:
    for name, line in three(config, recording).items():
        done = shell(f"{line} {closed}")
        assert (done.returncode, done.stderr) == (0, ""), name
        assert done.stdout or ">&- " in f"{closed} ", name
    assert stored(config) == [REC]
    # A failure keeps its exit status, with nobody to read why.
    assert shell(f"{three(config, recording)['ingest']} {closed}").returncode == 5
    store = config.parent / "store" / "constellation-data" / "recordings" / REC
    for path in (file for file in recording.rglob("*") if file.is_file()):
        assert (store / path.relative_to(recording)).read_bytes() == path.read_bytes()


def test_a_closed_stream_never_becomes_a_file_that_is_written(config: Path, recording: Path, tmp_path: Path) -> None:
    log = tmp_path / "ursa.log"
    done = shell(f"{three(config, recording)['ingest']} -v --log-file '{log}' <&- >&- 2>&-")
    assert done.returncode == 0
    assert all(" INFO ursa." in line for line in log.read_text().splitlines())


def test_a_full_disk_for_stdout_ends_nothing_and_is_said(config: Path, recording: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    for name, line in three(config, recording).items():
        done = shell(f"{line} > /dev/full")
        assert done.returncode == 1, name
        (said,) = done.stderr.splitlines()
        assert "can't write the output: No space left on device" in said and "is done" in said, name
        # Nobody can be told, and the exit status is all there is.
        both = shell(f"{line}{' --existing skip' if name == 'ingest' else ''} > /dev/full 2>&1")
        assert (both.returncode, both.stderr) == (1, ""), name
    assert stored(config) == [REC]


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A directory with three recordings."""
    for number in range(3):
        make_recording(tmp_path / "three", f"rec_2026052{number}_195628_b1dd", {"eeg_a/a.edf": b"%d" % number * 100})
    return tmp_path / "three"


def test_a_full_disk_for_stdout_ends_no_run_of_several(config: Path, several: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = shell(f"\"$URSA\" ingest '{several}'/rec_* -p local --config '{config}' > /dev/full")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert stored(config) == sorted(path.name for path in several.iterdir())


def test_a_full_disk_for_stderr_keeps_the_status(config: Path, recording: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    line = three(config, recording)["ingest"]
    assert [shell(f"{line} -v 2> /dev/full").returncode for _ in range(2)] == [0, 5]


def test_a_reader_that_leaves_ends_no_ingest(config: Path, several: Path) -> None:
    line = f"\"$URSA\" ingest '{several}'/rec_* -p local --config '{config}'"
    done = shell(f"{{ {line}; echo $? >&2; }} | true")
    assert done.stderr == "0\n"
    assert stored(config) == sorted(path.name for path in several.iterdir())


def test_a_home_that_can_not_be_written_is_said(recording: Path) -> None:
    for line in (f"\"$URSA\" ingest '{recording}' -p local", '"$URSA" ls -p local', '"$URSA" config init'):
        done = shell(line, env=BARE | {"HOME": "/proc"})
        assert done.returncode in (1, 2) and done.stderr.startswith("ursa: "), line
        assert "/proc" in done.stderr and "Traceback" not in done.stderr and "bug in ursa" not in done.stderr
    assert shell('"$URSA" config show -p local', env=BARE | {"HOME": "/proc"}).returncode == 0


def test_a_read_only_home_is_said(tmp_path: Path, recording: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    lines = (
        f'"$URSA" ls -p local; echo $?; "$URSA" ingest \'{recording}\' -p local; echo $?; "$URSA" config show -p local'
    )
    if os.geteuid() == 0:  # whom no mode bit stops
        lines = f"mount -t tmpfs -o ro none '{home}' || exit 77; {lines}"
        lines = f"unshare --mount sh -c {shlex.quote(lines)}"
    done = shell(lines, env=BARE | {"HOME": str(home), "PATH": os.environ["PATH"]})
    if os.geteuid() == 0 and done.returncode in (1, 77, 127):
        pytest.skip("root may not mount here")
    assert done.stdout.splitlines()[:2] == ["1", "1"] and f"root: {home}" in done.stdout
    assert done.stderr.count("ursa: ") == 2 and str(home) in done.stderr and "Traceback" not in done.stderr


def slow_ingest(config: Path, recording: Path) -> list[str | Path]:
    """An ingest of some fifteen seconds."""
    return ["ingest", recording, "-p", "local", "--config", config, "--bwlimit", "0.02M"]


def wait_until_it_sends(config: Path, process: subprocess.Popen[str]) -> None:
    """Until bytes of the recording are in the store."""
    ends = time.monotonic() + 30
    while not any((config.parent / "store" / "constellation-data").rglob("*")):
        assert process.poll() is None and time.monotonic() < ends
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_and_a_kill_are_as_graceful_as_ctrl_c(
    number: signal.Signals, config: Path, recording: Path, tmp_path: Path
) -> None:
    log = tmp_path / "ursa.log"
    with start_ursa(*slow_ingest(config, recording), "--log-file", log) as process:
        wait_until_it_sends(config, process)
        process.send_signal(number)
        if number == signal.SIGHUP:
            process.send_signal(number)  # a closed terminal hangs up twice: the shell, then the kernel
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and out == "", err
    assert "interrupted: " in err and "what was finished before stands" in err and "Traceback" not in err
    assert "exit status 130: InterruptedRunError" in log.read_text().splitlines()[-1]
    assert stored(config) == []
    assert run_ursa("ingest", recording, "-p", "local", "--config", config).returncode == 0
    assert stored(config) == [REC]


def test_a_terminal_that_is_gone_takes_nothing_along(config: Path, recording: Path) -> None:
    reading, writing = os.openpty()
    with subprocess.Popen(
        [URSA, *slow_ingest(config, recording)], stdin=writing, stdout=writing, stderr=writing, start_new_session=True
    ) as process:
        os.close(writing)
        ends = time.monotonic() + 30
        while not any((config.parent / "store" / "constellation-data").rglob("*")):
            assert process.poll() is None and time.monotonic() < ends
            time.sleep(0.02)
        os.close(reading)  # every write to it fails from now on
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=30) == 130
    assert stored(config) == []


def test_nohup_goes_on(config: Path, example_recordings: Path) -> None:
    recording = example_recordings / REC
    line = f"nohup \"$URSA\" ingest '{recording}' -p local --config '{config}' --bwlimit 0.2M & echo $!; wait $!"
    with subprocess.Popen(
        ["/bin/sh", "-c", line],
        env={**os.environ, "URSA": URSA},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        ends = time.monotonic() + 30
        while not any((config.parent / "store" / "constellation-data").rglob("*")):
            assert process.poll() is None and time.monotonic() < ends
            time.sleep(0.02)
        os.kill(pid, signal.SIGHUP)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and f"OK   {REC}" in out, err
    assert stored(config) == [REC]
