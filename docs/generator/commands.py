"""The command line's reference: the `--help` of every command and subcommand."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from unittest import mock

WIDTH = 80
INTRO = """\
<!-- written by docs/make.py from `--help`; edit the command instead -->

# Command line

What `--help` prints. The options from `--profile` to `--no-progress` are those of every command; they
come after the command's name. What the exit status means to a script is in [Exit codes](../exit-codes.md).
"""


def page() -> str:
    """The page."""
    return "\n".join([INTRO, *(_section(words) for words in command_names())])


def command_names() -> Iterator[tuple[str, ...]]:
    """Everything that can be typed after `ursa`, in the order of its help: ``()``, ``("ingest",)``, …"""
    import typer

    from ursa_cli.app import app

    root = typer.main.get_command(app)
    yield ()
    for name in root.list_commands(None):
        yield (name,)
        for subcommand in getattr(root.get_command(None, name), "commands", {}):
            yield name, subcommand


def help_of(words: tuple[str, ...]) -> str:
    """What `ursa WORDS --help` prints on 80 columns."""
    from ursa_cli.app import run

    printed = io.StringIO()
    with mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH)}), contextlib.redirect_stdout(printed):
        status = run([*words, "--help"])
    if status != 0:
        raise SystemExit(f"`ursa {' '.join(words)} --help` ends with exit status {status}")
    # Some releases of typer put the Python type behind an argument's name, which tells a user nothing.
    return re.sub(r"^(  [A-Z_]+) <[A-Za-z\[\]]+>", r"\1", printed.getvalue(), flags=re.MULTILINE).rstrip()


def _section(words: tuple[str, ...]) -> str:
    level = "##" if len(words) < 2 else "###"
    return f"{level} {' '.join(['ursa', *words])}\n\n```text\n{help_of(words)}\n```\n"
