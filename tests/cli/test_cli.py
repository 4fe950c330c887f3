"""The command line as a process: what it prints where, its exit codes, odd environments, odd names."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
import unicodedata
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from conftest import Buckets, MakeConfig
from helpers import make_recording, run_ursa, start_ursa
from servers import find_executable

REC, OTHER = "rec_20260520_195628_b1dd", "rec_20260521_101500_c2ee"
FILES = {"camera_left/seg_000.mp4": b"left " * 2_000, "eeg_a/seg_000.edf": b"eeg" * 3_000}
URSA = find_executable("ursa")
COMMANDS = ["ingest", "ls", "show", "download", "catalog init", "catalog location", "config init", "config show"]


@pytest.fixture
def registered(tmp_path: Path) -> Path:
    """A recording that is registered on the local profile."""
    rec_dir = make_recording(tmp_path, REC, FILES, participant="Aria Lin")
    done = run_ursa("ingest", rec_dir, "-p", "local")
    assert done.returncode == 0, done.stderr
    return rec_dir


def lines(stdout: str) -> list[dict[str, Any]]:
    """JSON Lines, every one of them; without those that only tell how far it is."""
    parsed = [json.loads(line) for line in stdout.splitlines()]
    return [line for line in parsed if line["type"] != "progress"]


def commands(tmp_path: Path, registered: Path) -> list[list[str]]:
    """Every command, so that it succeeds."""
    return [
        ["ls"],
        ["show", REC],
        ["show", REC, "--files"],
        ["download", REC, "--dest", str(tmp_path / "out")],
        ["catalog", "location"],
        ["catalog", "init", "--yes"],
        ["config", "show"],
        ["ingest", str(registered), "--existing", "skip"],
        ["ingest", str(registered), "--overwrite"],
        ["ingest", str(registered), "--overwrite", "--dry-run"],
    ]


def test_a_pipe_gets_plain_text(tmp_path: Path, registered: Path) -> None:
    for words in commands(tmp_path, registered):
        done = run_ursa(*words, "-p", "local", env={"FORCE_COLOR": "1"})
        assert done.returncode == 0, (words, done.stderr)
        assert done.stdout, words
        assert "\x1b" not in done.stdout + done.stderr, words
        assert "\r" not in done.stdout + done.stderr, words
        assert done.stderr == "", words


def test_json_is_json_lines_only(tmp_path: Path, registered: Path) -> None:
    for words in commands(tmp_path, registered):
        done = run_ursa(*words, "-p", "local", "--json", "-v")
        assert done.returncode == 0, (words, done.stderr)
        printed = lines(done.stdout)
        assert printed, words
        assert all(record["schema_version"] == 1 and record["type"] for record in printed), words
        assert done.stdout.isascii(), words


def test_quiet_prints_errors_only(registered: Path, tmp_path: Path) -> None:
    for words in (["ls"], ["show", REC], ["ingest", str(registered), "--overwrite"]):
        done = run_ursa(*words, "-p", "local", "-q")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), words
    failed = run_ursa("ingest", registered, "-p", "local", "-q")
    assert failed.returncode == 5 and failed.stdout == "" and REC in failed.stderr


def test_ls_json_has_the_columns_of_the_contract(registered: Path) -> None:
    (record,) = lines(run_ursa("ls", "--json", "-p", "local").stdout)
    assert record["rec_id"] == REC and len(record["recording_hash"]) == 64
    assert (record["started_at"], record["duration_s"]) == ("2026-05-20T19:56:28+00:00", 60.0)
    assert (record["participants"], record["modalities"]) == (["Aria Lin"], ["camera", "eeg"])
    assert record["bytes"] == sum(map(len, FILES.values()))


def test_ls_filters(registered: Path, tmp_path: Path) -> None:
    run_ursa("ingest", make_recording(tmp_path, OTHER, {"mic_room/a.wav": b"wav"}, participant="Bo"), "-p", "local")
    filters = {
        (): [REC, OTHER],
        ("--since", "2026-05-21"): [OTHER],
        ("--until", "2026-05-21"): [REC],
        ("--participant", "aria  lin"): [REC],
        ("--participant", "Bo", "--participant", "Aria Lin"): [REC, OTHER],
        ("--modality", "mic"): [OTHER],
        ("--modality", "eeg_a"): [REC],
        ("--participant", "nobody"): [],
    }
    for words, wanted in filters.items():
        done = run_ursa("ls", *words, "--json", "-p", "local")
        assert (done.returncode, [record["rec_id"] for record in lines(done.stdout)]) == (0, wanted), words
    wrong = run_ursa("ls", "--since", "yesterday-ish", "-p", "local")
    assert wrong.returncode == 2 and "yesterday-ish" in wrong.stderr


def test_ingest_json_tells_all(tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES, participant="Aria Lin")
    done = run_ursa("ingest", rec_dir, "--json", "-p", "local")
    recording, summary = lines(done.stdout)
    assert (recording["type"], recording["rec_id"], recording["status"]) == ("recording", REC, "ok")
    assert (recording["action"], recording["files_uploaded"], recording["files_skipped"]) == ("created", 4, 0)
    assert (summary["type"], summary["ok"], summary["fail"]) == ("summary", 1, 0)
    again = run_ursa("ingest", rec_dir, "--json", "-p", "local")
    recording, summary = lines(again.stdout)
    assert (again.returncode, recording["status"], recording["error"]) == (5, "fail", "RecordingExistsError")
    assert recording["exit_code"] == summary["exit_code"] == 5


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES, participant="Aria Lin")
    before = {path: path.stat().st_mtime_ns for path in rec_dir.rglob("*")}
    done = run_ursa("ingest", rec_dir, "--dry-run", "-p", "local")
    assert done.returncode == 0, done.stderr
    assert f"PLAN {REC}: 4 to upload, 0 to skip" in done.stdout
    assert all(path in done.stdout for path in (*FILES, "manifest.json", "participant.txt"))
    assert "participant: Aria Lin" in done.stdout
    store = Path(os.environ["HOME"]) / ".local" / "share" / "ursa"
    assert not (store / "constellation-data").exists()
    assert {path: path.stat().st_mtime_ns for path in rec_dir.rglob("*")} == before
    plan, summary = lines(run_ursa("ingest", rec_dir, "--dry-run", "--json", "-p", "local").stdout)
    assert (summary["type"], summary["ok"], summary["exit_code"]) == ("summary", 1, 0)
    assert (plan["type"], plan["action"], {item["action"] for item in plan["files"]}) == ("plan", "created", {"upload"})
    assert run_ursa("ls", "--json", "-p", "local").stdout == ""
    (rec_dir / "eeg_a" / "seg_000.edf").unlink()
    refused = run_ursa("ingest", rec_dir, "--dry-run", "-p", "local")
    assert refused.returncode == 6 and "eeg_a/seg_000.edf" in refused.stderr


def test_several_directories_in_their_order(registered: Path, tmp_path: Path) -> None:
    good = make_recording(tmp_path, OTHER, {"mic_room/a.wav": b"wav"})
    bad = make_recording(tmp_path, "rec_20260522_000000_aa", FILES, manifest=False)
    words = ["ingest", bad, registered, good, "-p", "local", "--jobs", "2"]
    done = run_ursa(*words)
    printed = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [line.split(":")[0] for line in printed[:3]] == [f"FAIL {bad.name}", f"FAIL {REC}", f"OK   {OTHER}"]
    assert printed[3] == "1 registered, 0 already there, 2 failed"
    assert done.returncode == 1
    again = run_ursa("ingest", registered, good, "-p", "local", "--existing", "skip")
    assert again.returncode == 0
    assert again.stdout.splitlines()[:2] == [f"HAVE {REC}: already registered", f"HAVE {OTHER}: already registered"]
    assert run_ursa("ingest", registered, good, "-p", "local", "--existing", "overwrite").returncode == 0


USAGE = [
    ["ingest"],
    ["ingest", "x", "--jobs", "0"],
    ["ingest", "x", "--existing", "perhaps"],
    ["ingest", "x", "--bwlimit", "fast", "-p", "local"],
    ["ls", "--no-such-option"],
    ["lss"],
    ["show"],
    ["ls", "-p", "nowhere"],
    ["ls", "--config", "/no/such/file.yaml"],
    ["ls"],  # r2 is not configured
    ["catalog", "init", "-p", "local"],  # nobody to ask
    ["show", "rec_", "-p", "local", "extra"],
]


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_usage_and_configuration_are_exit_2(words: list[str]) -> None:
    done = run_ursa(*words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" or words == []
    assert done.stderr.startswith("ursa: ") and "Traceback" not in done.stderr


def test_the_nearest_command_is_named() -> None:
    assert "ls" in run_ursa("lss").stderr
    assert "ingest" in run_ursa("inges").stderr


def test_exit_codes_of_reading(registered: Path, tmp_path: Path) -> None:
    assert run_ursa("show", "rec_1999", "-p", "local").returncode == 1
    assert run_ursa("download", REC, "-m", "mic", "-d", tmp_path / "o", "-p", "local").returncode == 1
    run_ursa("ingest", make_recording(tmp_path, OTHER, {"mic_room/a.wav": b"wav"}), "-p", "local")
    several = run_ursa("show", "rec_2026", "-p", "local")
    assert several.returncode == 2 and REC in several.stderr and OTHER in several.stderr
    assert run_ursa("show", REC[:-2], "-p", "local").returncode == 0


def test_a_download_is_whole_or_refused(registered: Path, tmp_path: Path) -> None:
    words = ["download", REC, "--dest", tmp_path / "out", "-p", "local"]
    assert run_ursa(*words).returncode == 0
    for path, body in FILES.items():
        assert (tmp_path / "out" / REC / path).read_bytes() == body
    assert "0 fetched" in run_ursa(*words).stdout
    (tmp_path / "out" / REC / "eeg_a" / "seg_000.edf").write_bytes(b"mine")
    clash = run_ursa(*words)
    assert clash.returncode == 5 and "eeg_a/seg_000.edf" in clash.stderr
    assert (tmp_path / "out" / REC / "eeg_a" / "seg_000.edf").read_bytes() == b"mine"
    store = Path(os.environ["HOME"]) / ".local/share/ursa/constellation-data/recordings" / REC
    (store / "eeg_a" / "seg_000.edf").write_bytes(bytes(9_000))
    damaged = run_ursa("download", REC, "--dest", tmp_path / "new", "-p", "local")
    assert damaged.returncode == 6 and "eeg_a/seg_000.edf" in damaged.stderr
    assert not (tmp_path / "new" / REC / "eeg_a" / "seg_000.edf").exists()
    (store / "eeg_a" / "seg_000.edf").unlink()
    missing = run_ursa("download", REC, "--dest", tmp_path / "newer", "-p", "local")
    assert missing.returncode == 6 and "eeg_a/seg_000.edf" in missing.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_examples_and_exit_status(command: str) -> None:
    done = run_ursa(*command.split(), "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert "\x1b" not in done.stdout
    text = done.stdout
    assert "Example" in text and f"ursa {command}" in text.partition("Example")[2]
    assert text.index("Exit status:") > text.index("Example")
    for option in (
        "--profile",
        "--config",
        "--json",
        "--quiet",
        "--verbose",
        "--log-file",
        "--no-color",
        "--no-progress",
    ):
        assert option in text


def test_config_init_writes_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ursa.yaml"
    done = run_ursa("config", "init", "--config", path)
    assert done.returncode == 0 and str(path) in done.stdout
    before = path.read_bytes()
    assert run_ursa("config", "init", "--config", path).returncode == 2
    assert path.read_bytes() == before
    shown = run_ursa("config", "show", "--config", path, "-p", "local")
    assert shown.returncode == 0, shown.stderr


HOSTILE = {
    "bidi": "Aria \u202egnp.exe",
    "markup": "[red]Aria[/red] [link=file:///x]y[/link]",
    "zero width": "Ar\u200bia",
    "line separator": "Aria\u2028Lin",
    "emoji": "Zoë 🐻 (é) 李",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_names_from_files_never_drive_the_terminal(name: str, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, {"eeg_a/[bold]x\u202ey.edf": b"x"}, participant=name)
    done = run_ursa("ingest", rec_dir, "-v", "-p", "local")
    printed = [done]
    if done.returncode == 0:
        printed += [run_ursa(*words, "-p", "local") for words in (["ls"], ["show", REC, "--files"])]
    assert done.returncode in (0, 1)
    text = "".join(run.stdout + run.stderr for run in printed)
    unsafe = {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp")} - {"\n"}
    assert not unsafe, unsafe
    if "[red]" in name:
        assert name in text
    if done.returncode == 0:
        (record,) = lines(run_ursa("ls", "--json", "-p", "local").stdout)
        assert record["participants"] == [name]


@pytest.mark.parametrize("name", ["Aria\x1b[31m", "Aria\x07", "a\x00b", "Aria\x9b31m"])
def test_control_characters_in_a_name_are_refused(name: str, tmp_path: Path) -> None:
    done = run_ursa("ingest", make_recording(tmp_path, REC, FILES, participant=name), "-p", "local")
    assert done.returncode == 1 and "participant.txt" in done.stderr
    assert not {char for char in done.stderr if unicodedata.category(char) == "Cc"} - {"\n"}


def test_runs_like_cron_does(tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES, participant="Zoë 🐻")
    config = tmp_path / "c.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n")
    bare = {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C"}
    for words in (["ingest", rec_dir, "-v"], ["ls"], ["show", REC, "--files"], ["ls", "--json"]):
        done = subprocess.run(
            [URSA, *words, "-p", "local", "--config", config],
            env=bare,
            capture_output=True,
            text=True,
            cwd="/",
            timeout=60,
        )
        assert done.returncode == 0, (words, done.stderr)
        assert "Traceback" not in done.stderr
    closed = subprocess.run(
        ["/bin/sh", "-c", f'exec "{URSA}" ls -p local --config "{config}" 0<&- 2>&-'],
        env=bare,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert closed.returncode == 0 and REC in closed.stdout


def test_no_home_at_all_is_said_in_words() -> None:
    done = subprocess.run(
        [URSA, "ls", "-p", "local"],
        env={"PATH": "/usr/bin:/bin", "HOME": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path, registered: Path) -> None:
    for words in (
        "ls",
        f"show {REC} --files",
        "ls --json",
        "--help",
        "ingest --help",
        f"ingest {registered} --existing skip",
    ):
        local = "" if words.endswith("--help") else "-p local"
        piped = f'"{URSA}" {words} {local} | (exec 0<&-; sleep 0.7)'
        done = subprocess.run(["/bin/bash", "-c", piped], capture_output=True, text=True, timeout=60)
        assert done.stderr == "", words
        head = subprocess.run(
            ["/bin/bash", "-c", f'"{URSA}" {words} {local} | head -1'], capture_output=True, text=True
        )
        assert head.stderr == "" and len(head.stdout.splitlines()) == 1, words


def test_a_full_disk_for_the_output_is_no_traceback(registered: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{URSA}" ls -p local > /dev/full'], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "bug in ursa" not in done.stderr and "Traceback" not in done.stderr


def on_a_terminal(*words: str, timeout_s: float = 60, **env: str) -> tuple[int, str]:
    """Run ``ursa`` on a pseudo-terminal; its exit code and all that it wrote there."""
    main, other = pty.openpty()
    process = subprocess.Popen(
        [URSA, *words],
        stdin=other,
        stdout=other,
        stderr=other,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"} | env,
        close_fds=True,
    )
    os.close(other)
    seen, ends = b"", time.monotonic() + timeout_s
    while time.monotonic() < ends and select.select([main], [], [], ends - time.monotonic())[0]:
        try:
            block = os.read(main, 65536)
        except OSError:  # Linux says EIO where the last writer has gone
            break
        if not block:
            break
        seen += block
    os.close(main)
    return process.wait(timeout=10), seen.decode()


def test_a_terminal_gets_bars_and_a_pipe_none(tmp_path: Path) -> None:
    size = {"camera_left/big.mp4": os.urandom(1 << 20) * 40}
    slow = ("--bwlimit", "60M", "-p", "local")
    code, text = on_a_terminal("ingest", str(make_recording(tmp_path / "a", REC, size)), *slow)
    assert code == 0 and "OK   " in text
    assert "\r" in text and "\x1b[" in text and "MiB" in text and "/s" in text
    code, plain = on_a_terminal("ingest", str(make_recording(tmp_path / "b", OTHER, size)), *slow, "--no-progress")
    assert code in (0, 5)
    assert "\x1b[" not in plain
    code, listed = on_a_terminal("ls", "-p", "local")
    assert code == 0 and "\x1b[1m" in listed
    for words, env in ((["--no-color"], {}), ([], {"NO_COLOR": "1"})):
        code, listed = on_a_terminal("ls", "-p", "local", *words, **env)
        assert code == 0 and "\x1b[" not in listed


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ursa show rec", [OTHER, REC]),
        ("ursa show rec_20260520", [REC]),
        ("ursa download ", [OTHER, REC]),
        ("ursa sh", ["show"]),
        ("ursa catalog l", ["location"]),
        ("ursa ls -p loc", ["local"]),
        ("ursa show nothing", []),
    ],
)
def test_completion_answers_from_this_machine(line: str, wanted: list[str], home: Path) -> None:
    cache = home / ".cache" / "ursa" / "rec_ids"
    cache.mkdir(parents=True)
    (cache / "r2.txt").write_text(f"{REC}\n{OTHER}\n")
    words = line.split(" ")
    env = {"_URSA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    traced = """
import socket, sys
def refuse(*args, **kwargs): raise SystemExit("touched the network")
socket.socket.connect = socket.getaddrinfo = refuse
from ursa_cli.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", traced], env=os.environ | env, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == wanted


def test_commands_fill_the_completion(registered: Path, home: Path) -> None:
    (home / ".cache" / "ursa").rename(home / "gone")
    run_ursa("ls", "-p", "local")
    env = {"_URSA_COMPLETE": "complete_bash", "COMP_WORDS": "ursa show -p local rec", "COMP_CWORD": "4"}
    assert run_ursa(env=env).stdout.split() == [REC]


def test_a_server_without_a_catalog_is_said_in_words(
    weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    config = s3_config(weed_buckets)
    rec_dir = make_recording(tmp_path, REC, FILES)
    for words in (["ls"], ["ingest", rec_dir], ["show", REC]):
        done = run_ursa(*words, "--config", config)
        assert done.returncode == 2
        assert "ursa catalog init --yes" in done.stderr and "ACTIVE.json" in done.stderr
    assert run_ursa("catalog", "init", "--yes", "--config", config).returncode == 0
    assert "already" in run_ursa("catalog", "init", "--yes", "--config", config).stdout
    located = run_ursa("catalog", "location", "--config", config).stdout
    assert f"delta_scan('s3://{weed_buckets.assets}/ursa/catalog/v1/recordings')" in located


@pytest.mark.slow
def test_an_unreachable_server_is_said_in_words(weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path) -> None:
    """Both at the same time, since they mostly wait."""
    started = time.monotonic()
    running = {}
    with ExitStack() as open_processes:
        for number, endpoint in enumerate(("http://127.0.0.1:9", "http://no-such-host.invalid")):
            config = s3_config(weed_buckets, endpoint_url=endpoint).rename(tmp_path / f"unreachable-{number}.yaml")
            running[endpoint] = open_processes.enter_context(start_ursa("ls", "--config", config))
        for endpoint, process in running.items():
            _, stderr = process.communicate(timeout=130)
            assert process.returncode == 1 and time.monotonic() - started < 120
            assert endpoint in stderr and "Traceback" not in stderr
            assert "endpoint_url" in stderr


def test_a_log_file_has_the_phases(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "ursa.log"
    rec_dir = make_recording(tmp_path, REC, FILES)
    done = run_ursa("ingest", rec_dir, "-p", "local", "--log-file", log)
    assert done.returncode == 0 and done.stderr == ""
    text = log.read_text()
    assert all(
        f"ursa.register.orchestrator {REC} {phase}" in text for phase in ("sidecars", "prove", "register", "done")
    )
    denied = run_ursa("ls", "-p", "local", "--log-file", "/proc/none/x.log")
    assert denied.returncode == 2 and "/proc/none" in denied.stderr
