"""--notify: somebody is told of every run that is not clean, whatever ended it, and of no other."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from ursa.errors import CredentialsError, InterruptedRunError, InvalidRecordingError, LockHeldError
from ursa_cli.notify import Notifier

# A command as `ursa batch` is one: the shared options, the notifier around its whole body, then whatever BODY does.
COMMAND = """
import sys, time
import typer
from typing import Annotated
from ursa_cli import app, commands, options, streams
from ursa_cli.notify import Notifier

module = type(sys)("ursa_cli.commands.batch")
module.app = options.command_app()

@module.app.command()
@options.shared
def batch(session, notify: Annotated[str, typer.Option()]) -> None:
    with Notifier(notify) as notifier:
        exec(BODY)

BODY = sys.argv.pop(1)
sys.modules["ursa_cli.commands.batch"] = module
streams.steady()
sys.exit(app.run(["batch", *sys.argv[1:]]))
"""


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """What the --notify command wrote."""
    return tmp_path / "seen it.json"


def keep(seen: Path) -> str:
    """A command that writes its stdin to this file."""
    return f"cat >> {shlex.quote(str(seen))}"


def run(body: str, notify: str, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the command."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, body, "--notify", notify, "-p", "local", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )


def told(seen: Path) -> dict[str, Any]:
    """The one summary that was sent."""
    (line,) = seen.read_text().splitlines()
    assert line.isascii()
    summary: dict[str, Any] = json.loads(line)
    assert (summary["schema_version"], summary["type"], summary["command"]) == (1, "summary", "batch")
    assert summary["host"] == socket.gethostname()
    began, ended = (datetime.fromisoformat(summary[name]) for name in ("started_at", "ended_at"))
    assert began.utcoffset() is not None and began <= ended
    assert isinstance(summary["counts"], dict) and isinstance(summary["failed"], list)
    return summary


ENDS = [
    (typer.Exit(3), 3, None, "ended with exit status 3"),
    (LockHeldError("held by another", hint="wait"), 11, "LockHeldError", "held by another"),
    (InvalidRecordingError("the root is empty"), 1, "InvalidRecordingError", "the root is empty"),
    (InterruptedRunError("rec_1 was in flight"), 130, "InterruptedRunError", "rec_1 was in flight"),
    (KeyboardInterrupt(), 130, "InterruptedRunError", "nothing that was in flight is registered"),
    (SystemExit(7), 7, None, "exit status 7"),
    (OSError(28, "No space left on device"), 1, "OSError", "No space left"),
]


@pytest.mark.parametrize(("end", "code", "error", "message"), ENDS, ids=[repr(end[0]) for end in ENDS])
def test_whatever_ends_the_run_is_told(
    end: BaseException, code: int, error: str | None, message: str, seen: Path
) -> None:
    with pytest.raises(type(end)) as caught, Notifier(keep(seen)):
        raise end
    assert caught.value is end
    summary = told(seen)
    assert (summary["exit_code"], summary["error"]) == (code, error) and message in summary["message"]
    assert summary["hint"] == "wait" or code != 11


COMMANDS = [
    ("session.config = __import__('pathlib').Path('/no/such.yaml'); session.data()", 2, "ConfigError", "/no/such.yaml"),
    ("raise typer.BadParameter('no such root')", 2, "UsageError", "no such root"),
    ("{}['a bug']", 1, "KeyError", "a bug"),
]


@pytest.mark.parametrize(("body", "code", "error", "message"), COMMANDS, ids=[command[2] for command in COMMANDS])
def test_a_command_that_fails_early_is_told(body: str, code: int, error: str, message: str, seen: Path) -> None:
    with run(body, keep(seen)) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == code and message in err
    summary = told(seen)
    assert (summary["exit_code"], summary["error"]) == (code, error) and message in summary["message"]
    assert out == "" and "--notify" not in err


def test_a_log_file_that_can_not_be_is_told_too(seen: Path) -> None:
    with run("session.data()", keep(seen), "--log-file", "/proc/none/x.log") as process:
        assert process.communicate(timeout=60)[0] == "" and process.returncode == 2
    assert told(seen)["error"] == "UsageError"


def test_an_output_that_is_lost_is_told(seen: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-c", COMMAND, "session.out.line('OK')", "--notify", keep(seen)]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "can't write the output" in done.stderr
    assert "No space left" in told(seen)["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_told(number: signal.Signals, seen: Path) -> None:
    with run("print('ready', flush=True); time.sleep(60)", keep(seen)) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in err
    assert told(seen)["error"] == "InterruptedRunError"


def test_a_clean_run_tells_nobody(seen: Path) -> None:
    for end in (None, typer.Exit(0)):
        try:
            with Notifier(keep(seen)) as notifier:
                notifier.summary = {"counts": {"ok": 3}}
                if end:
                    raise end
        except typer.Exit:
            pass
    assert not seen.exists()


def test_the_commands_own_summary_goes_along(seen: Path) -> None:
    with pytest.raises(typer.Exit), Notifier(keep(seen)) as notifier:
        failed = [{"rec_id": "rec_20260520_195628_b1dd", "error": "ConflictError", "message": "ü\n\x1b[31m"}]
        notifier.summary = {
            "type": "other",
            "exit_code": 0,
            "counts": {"ok": 1, "fail": 1},
            "failed": failed,
            "more": 1,
        }
        raise typer.Exit(3)
    summary = told(seen)
    assert (summary["exit_code"], summary["counts"], summary["more"]) == (3, {"ok": 1, "fail": 1}, 1)
    assert summary["failed"] == failed


def test_an_error_after_the_summary_wins(seen: Path) -> None:
    with pytest.raises(CredentialsError), Notifier(keep(seen)) as notifier:
        notifier.summary = {"counts": {"ok": 1}, "error": None, "message": "all well", "hint": None}
        raise CredentialsError("the key was refused", hint="op signin")
    summary = told(seen)
    assert (summary["exit_code"], summary["error"], summary["counts"]) == (4, "CredentialsError", {"ok": 1})
    assert (summary["message"], summary["hint"]) == ("the key was refused", "op signin")


def notified(shell_command: str, capfd: pytest.CaptureFixture[str], **settings: float) -> tuple[str, str]:
    """Stdout and stderr of a run that the lock refuses."""
    with pytest.raises(LockHeldError), Notifier(shell_command, **settings):
        raise LockHeldError("held")
    out, err = capfd.readouterr()
    return out, err


def test_its_own_failure_is_said_and_changes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for shell_command, said in {
        "exit 3": "ended with exit status 3",
        "no-such-program-at-all": "ended with exit status 127",
        "kill -9 $$": "was killed by signal 9",
        "a\0b": "could not be started: ",
    }.items():
        out, err = notified(shell_command, capfd)
        assert out == "" and f"ursa: the --notify command {said}" in err, shell_command


def test_what_it_prints_is_not_on_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    assert notified("echo hello | tr a-z A-Z", capfd) == ("", "HELLO\n")


def test_it_need_not_read_its_stdin(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), Notifier("exec 0<&-; sleep 0.1") as notifier:
        notifier.summary = {"failed": ["x" * 1000] * 1000}
        raise typer.Exit(3)
    assert capfd.readouterr().err == ""


def gone(path: Path) -> Callable[[], bool]:
    """Whether the process whose pid is in this file has ended."""
    return lambda: not Path(f"/proc/{path.read_text().strip()}/cmdline").exists()


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_it_has_a_time_limit_and_leaves_nothing_behind(
    trap: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = tmp_path / "pid"
    command = f"{trap}sh -c 'echo $$ > {pid}; sleep 300'"
    assert "took more than 0.5 s and was ended" in notified(command, capfd, timeout_s=0.5)[1]
    ends = time.monotonic() + 30
    while not gone(pid)():
        assert time.monotonic() < ends, "what it started goes on"
        time.sleep(0.02)


def test_a_signal_while_it_runs_keeps_the_runs_own_status(tmp_path: Path) -> None:
    with run("raise typer.Exit(3)", f"touch {tmp_path}/runs; sleep 300") as process:
        ends = time.monotonic() + 30
        while not (tmp_path / "runs").exists():
            assert time.monotonic() < ends and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 3 and "was interrupted" in err and "Traceback" not in err
