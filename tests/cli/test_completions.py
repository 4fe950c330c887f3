"""The completion scripts are current, and work in the shells themselves."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import make_recording, run_ursa

COMPLETIONS = Path(__file__).parents[2] / "completions"
sys.path.insert(0, str(COMPLETIONS))
from make import SHELLS, script  # noqa: E402

REC = "rec_20260520_195628_b1dd"
# zsh asks a completion function with `words` and CURRENT set; what that offers, it hands to _arguments.
ZSH = """
compdef() {{ : }}
_files() {{ : }}
_arguments() {{ print -rl -- "$@" }}
source {completions}/_ursa
words=({line}); CURRENT={current}
_ursa_completion
"""


def needed(shell: str) -> str:
    """The shell's program; skips where there is none."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"there is no {shell} on this machine")
    return found


def environment() -> dict[str, str]:
    """As the tests' own, with the installed `ursa` first on the PATH."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def ask(shell: str, line: str) -> str:
    """What the shell offers at a Tab behind ``line``."""
    program = needed(shell)
    if shell == "bash":
        words = line.split(" ")
        listed = " ".join(f"'{word}'" for word in words)
        code = (
            f"source {COMPLETIONS}/ursa.bash; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1};"
            ' _ursa_completion ursa; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        command = [program, "--norc", "-c", code]
    elif shell == "fish":
        command = [program, "--no-config", "-c", f"source {COMPLETIONS}/ursa.fish; complete -C '{line}'"]
    else:
        filled = ZSH.format(completions=COMPLETIONS, line=line, current=len(line.split(" ")))
        command = [program, "-f", "-c", filled]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    return run.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_are_current(shell: str) -> None:
    assert (COMPLETIONS / SHELLS[shell]).read_text(encoding="utf-8") == script(shell), "run completions/make.py"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes_commands_recordings_and_profiles(shell: str, home: Path, tmp_path: Path) -> None:
    needed(shell)
    rec_dir = make_recording(tmp_path, REC, {"eeg_a/a.edf": b"eeg"})
    assert run_ursa("ingest", rec_dir, "-p", "local").returncode == 0
    assert {"schedule", "show"} <= set(re.findall(r"[\w-]+", ask(shell, "ursa s")))
    assert REC in ask(shell, "ursa show -p local rec")
    assert "r2-test" in ask(shell, "ursa ls --profile r2-")
