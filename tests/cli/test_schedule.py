"""`ursa schedule`: what is printed is read by what it is made for, and says what `ursa batch` shall get."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shutil
import subprocess
from datetime import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import run_ursa
from servers import find_executable
from ursa.errors import UsageError
from ursa.schedule import Job, unit

ROOTS = [
    "/mnt/nas/re cor",
    "/mnt/100%/$HOME/${x}",
    '/mnt/it\'s "quoted"',
    "/mnt/ünï/録音",
    r"/mnt/a\b\\%c\%",
    "/mnt/rig*",
]
NOTIFY = r"""curl -sd @- "https://example.org/$(date +%F)?x=it's\\n" """.strip()
HOSTILE = [*ROOTS, "--notify", NOTIFY, "--at", "3:07", "-p", "local"]


def printed(*words: str | Path) -> str:
    """The unit that is printed."""
    done = run_ursa("schedule", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wanted(home: Path, program: str) -> list[str]:
    """What the job shall run for HOSTILE."""
    logs = home / ".local" / "state" / "ursa" / "logs"
    options = ["--profile", "local", "--wait", "30m"]
    files = ["--log-file", str(logs / "batch.log"), "--report", str(logs / "batch.json")]
    return [program, "batch", *ROOTS, *options, *files, f"--notify={NOTIFY}"]


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A program that prints its environment's locale and its arguments."""
    path = tmp_path / "bin with blank" / "ursa"
    path.parent.mkdir()
    path.write_text(
        "#!/usr/bin/env python3\nimport json, os, sys\n"
        "names = ('LC_ALL', 'PATH', 'OP_SERVICE_ACCOUNT_TOKEN')\n"
        "print(json.dumps([sys.argv, {name: os.environ.get(name) for name in names}]))\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def op_config(tmp_path: Path) -> Path:
    """A config whose profile r2 reads its keys from 1Password."""
    keys = {"access_key_id": "op://Lab/R2/id", "secret_access_key": "op://Lab/R2/secret"}
    profile = {
        "endpoint_url": "https://account.example.org",
        "credentials": {"provider": "1password", "roles": {"raw_rw": keys, "assets_rw": keys}},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"profiles": {"r2": profile}}))
    return path


def uncron(command: str, *, halves: bool) -> str:
    r"""What cron gives to the shell: up to the first bare %, with \% a %. ``halves``: it takes \\ for one backslash."""
    out, chars = "", iter(command)
    for char in chars:
        assert char != "%", "cron ends the command at a bare %"
        if char == "\\":
            following = next(chars, "")
            char = following if following == "%" or (halves and following == "\\") else char + following
        out += char
    return out


@pytest.mark.parametrize("halves", [False, True])
def test_cron_runs_what_was_asked(halves: bool, home: Path, stub: Path) -> None:
    line = printed("cron", *HOSTILE).splitlines()[-1]
    found = re.fullmatch(r"7 3 \* \* \* (.+)", line)
    assert found is not None, line
    command = uncron(found[1], halves=halves)
    ursa = find_executable("ursa")
    command = command.replace(f" {ursa} batch", f" '{stub}' batch")
    done = subprocess.run(
        ["/bin/sh", "-c", command], env={"PATH": "/usr/bin:/bin", "HOME": str(home)}, capture_output=True, check=True
    )
    arguments, environment = json.loads(done.stdout)
    assert arguments == wanted(home, str(stub))
    assert environment["LC_ALL"] == "C.UTF-8" and "/usr/sbin" in environment["PATH"]
    assert ursa in line and Path(ursa).is_absolute()


def test_cron_sources_the_token_and_does_not_hold_it(home: Path, stub: Path, op_config: Path) -> None:
    text = printed("cron", "/mnt/nas", "--config", op_config)
    assert "OP_SERVICE_ACCOUNT_TOKEN" in text and "no desktop session" in text and "install -m 600" in text
    command = text.splitlines()[-1].removeprefix("30 2 * * * ").replace(find_executable("ursa"), f"'{stub}'")
    secrets = home / ".config" / "ursa" / "op.env"
    for token in (None, "ops_made-up"):
        if token:
            secrets.parent.mkdir(parents=True)
            secrets.write_text(f"OP_SERVICE_ACCOUNT_TOKEN={token}\n")
        done = subprocess.run(["/bin/sh", "-c", uncron(command, halves=False)], capture_output=True, check=True)
        arguments, environment = json.loads(done.stdout)
        assert environment["OP_SERVICE_ACCOUNT_TOKEN"] == token
        assert arguments[1:3] == ["batch", "/mnt/nas"] and str(op_config) in arguments
    assert "OP_SERVICE" not in printed("cron", "/mnt/nas", "-p", "local")


def test_launchd_is_a_plist(home: Path) -> None:
    agent = plistlib.loads(printed("launchd", *HOSTILE).encode())
    assert agent["ProgramArguments"] == wanted(home, find_executable("ursa"))
    assert agent["StartCalendarInterval"] == {"Hour": 3, "Minute": 7}
    assert agent["EnvironmentVariables"]["LC_ALL"].endswith("UTF-8")
    assert "Library/LaunchAgents" in printed("launchd", *HOSTILE)


def test_launchd_sources_the_token(home: Path, stub: Path, op_config: Path) -> None:
    text = printed("launchd", "/mnt/nas", "--config", op_config)
    words = plistlib.loads(text.encode())["ProgramArguments"]
    secrets = home / ".config" / "ursa" / "op.env"
    secrets.parent.mkdir(parents=True)
    secrets.write_text("OP_SERVICE_ACCOUNT_TOKEN=ops_made-up\n")
    words[words.index(find_executable("ursa"))] = str(stub)
    arguments, environment = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert environment["OP_SERVICE_ACCOUNT_TOKEN"] == "ops_made-up"
    assert arguments[1:3] == ["batch", "/mnt/nas"]


def systemd_words(text: str, *, variables: bool) -> list[str]:
    """Split as systemd does: double quotes, backslashes, %% and, in arguments, $$."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    assert " ".join(f'"{word}"' for word in words) == text
    assert not re.search(r"(?<!%)%(?:%%)*(?!%)", text), "a bare % is a specifier"
    plain = [re.sub(r"\\(.)", r"\1", word).replace("%%", "%") for word in words]
    return [plain[0], *(word.replace("$$", "$") for word in plain[1:])] if variables else plain


def test_systemd_units(home: Path, tmp_path: Path) -> None:
    done = run_ursa("schedule", "systemd", *HOSTILE, "--json")
    made = json.loads(done.stdout)
    assert (made["schema_version"], made["type"], made["kind"]) == (1, "unit", "systemd")
    service, timer = made["files"].values()
    assert list(made["files"]) == [f"~/.config/systemd/user/ursa-batch.{kind}" for kind in ("service", "timer")]
    assert service in made["text"] and timer in made["text"]
    settings = dict(line.split("=", 1) for line in service.splitlines() if "=" in line and line[0] != "#")
    assert systemd_words(settings["ExecStart"], variables=True) == wanted(home, find_executable("ursa"))
    assert systemd_words(settings["RequiresMountsFor"], variables=False) == [*ROOTS[:-1], "/mnt"]
    assert "LC_ALL=C.UTF-8" in systemd_words(settings["Environment"], variables=False)
    assert "OnCalendar=*-*-* 03:07:00" in timer and "WantedBy=timers.target" in timer
    assert "systemctl --user enable --now" in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_itself_takes_the_units(home: Path, tmp_path: Path, op_config: Path) -> None:
    root = tmp_path / "re cor %h $x ü"
    done = run_ursa("schedule", "systemd", root, "--config", op_config, "--notify", NOTIFY, "--json")
    names = []
    for name, text in json.loads(done.stdout)["files"].items():
        path = tmp_path / Path(name).name
        path.write_text(text)
        names.append(str(path))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"}
    seen = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *names], capture_output=True, text=True, env=environment
    )
    about = [line for line in seen.stderr.splitlines() if "ursa-batch" in line]
    assert seen.returncode == 0 and about == [], seen.stderr


@pytest.mark.parametrize("kind", ["cron", "systemd", "launchd"])
def test_nothing_is_written_and_paths_are_absolute(kind: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "c.yaml").write_text("profiles: {}\n")
    options = ["--log-file", "l/x.log", "--report", "r.html", "--config", "c.yaml", "--wait", "2h"]
    done = run_ursa("schedule", kind, "here", "~/there", *options, "-p", "local", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for path in ("here", "l/x.log", "r.html", "c.yaml"):
        assert str(tmp_path / path) in done.stdout
    assert str(home / "there") in done.stdout and "~/there" not in done.stdout and "2h" in done.stdout
    assert "~/there is no directory now" in done.stderr and "here is no directory" not in done.stderr.split("~/t")[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "here"]
    assert list(home.iterdir()) == []
    for status in ("0 all", "3 some", "11 another", "130 stopped"):
        assert status in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cron", "/mnt/a\nb"], r"/mnt/a\nb"),
        (["launchd", os.fsdecode(b"/mnt/\xff")], "can't hold the character"),
        (["cron"], "ROOT"),
        (["cron", "/mnt/a", "--at", "25:00"], "25:00"),
        (["cron", "/mnt/a", "--wait", "long"], "long"),
        (["cron", "/mnt/a", "--report", "r.txt"], ".html"),
        (["cron", "/mnt/a", "-p", "nowhere"], "nowhere"),
    ],
)
def test_what_can_not_be_a_unit_is_refused(words: list[str], said: str) -> None:
    local = [] if "-p" in words else ["-p", "local"]
    done = run_ursa("schedule", *words, *local)
    assert done.returncode == 2 and said in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "char", ["\n", "\r", "\t", "\x00", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\udcff"]
)
def test_no_part_of_a_job_may_drive_a_terminal_or_a_unit(char: str) -> None:
    right = {
        "program": ("/bin/ursa",),
        "roots": ("/mnt/a", "/mnt/b"),
        "profile": "r2",
        "log_file": Path("/l"),
        "report": Path("/r.json"),
        "notify": "mail",
        "config": Path("/c"),
    }
    Job(at=time(2, 30), **right)  # type: ignore[arg-type]
    for name, value in right.items():
        wrong: Any = (*value, f"/x{char}") if isinstance(value, tuple) else type(value)(f"{value}{char}")
        with pytest.raises(UsageError, match="can't hold the character"):
            Job(at=time(2, 30), **{**right, name: wrong})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="root"):
        Job(at=time(2, 30), **{**right, "roots": ()})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cron, systemd, launchd"):
        unit("at", Job(at=time(2, 30), **right))  # type: ignore[arg-type]


def test_a_unit_that_this_locale_would_change_is_refused() -> None:
    words = ["schedule", "cron", "/mnt/ünï", "-p", "local"]
    done = run_ursa(*words, env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2 and done.stdout == "" and "LC_ALL=C.UTF-8" in done.stderr
    made = json.loads(run_ursa(*words, "--json", env={"PYTHONIOENCODING": "ascii"}).stdout)
    assert "/mnt/ünï" in made["text"]


def test_a_long_line_is_said() -> None:
    assert "some crons take no more" in printed("cron", "/mnt/" + "a" * 900, "-p", "local")
    assert "some crons take no more" not in printed("cron", "/mnt/a", "-p", "local")


def test_the_program_is_the_one_that_runs(tmp_path: Path) -> None:
    link = tmp_path / "ursa"
    link.symlink_to(find_executable("ursa"))
    done = subprocess.run(
        ["./ursa", "schedule", "cron", "/mnt/a", "-p", "local"], cwd=tmp_path, capture_output=True, text=True
    )
    assert f" {link} batch /mnt/a " in done.stdout
