"""Write the completion scripts beside this file: ``python completions/make.py``."""

from __future__ import annotations

from pathlib import Path

from typer._completion_shared import get_completion_script

SHELLS = {"bash": "ursa.bash", "zsh": "_ursa", "fish": "ursa.fish"}


def script(shell: str) -> str:
    """What the shell loads; it asks `ursa` itself at every Tab."""
    return get_completion_script(prog_name="ursa", complete_var="_URSA_COMPLETE", shell=shell).strip() + "\n"


if __name__ == "__main__":
    for shell, name in SHELLS.items():
        Path(__file__).with_name(name).write_text(script(shell), encoding="utf-8")
