"""The Typer app: which commands there are, loaded when called, and the one place that maps errors to exit codes."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ursa.errors import UrsaError
from ursa_cli import streams
from ursa_cli.commands import COMMANDS
from ursa_cli.session import Session

EPILOG = """
Start here:

\b
  ursa ingest REC_DIR --profile local    into a directory on this machine
  ursa batch ROOT --profile local        everything below a NAS or a drive
  ursa config init                       set up R2
  ursa COMMAND --help                    options, examples and exit status

\b
Exit status: 0 done, 1 failed, 2 usage or configuration, 3 some of a batch
failed, 4 credentials, 5 conflict or already registered, 6 bytes missing or
different, 11 another batch holds the lock, 130 interrupted.
"""


class LazyGroup(TyperGroup):
    """Loads a command's module when it is called; `--help` and completion need only the names."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=entry.summary, rich_markup_mode=None)
        module = importlib.import_module(f"ursa_cli.commands.{cmd_name.replace('-', '_')}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # The names alone are enough to suggest the one that was meant.
        self.commands = {name: TyperCommand(name) for name in COMMANDS}
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self._listing = True
        return super().shell_complete(ctx, incomplete)


app = typer.Typer(
    cls=LazyGroup,
    name="ursa",
    help="Get recordings off a lab's rigs into object storage and a catalog, and prove that they arrived.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from ursa import __version__

        print(f"ursa {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", callback=_version, is_eager=True
    ),
) -> None:
    """Get recordings off a lab's rigs into object storage and a catalog, and prove that they arrived."""


def run(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit code. Every error ends here, in words on stderr, and as JSON where that was asked."""
    Session.current = None
    error: BaseException | None = None
    try:
        result = app(args=arguments, prog_name="ursa", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001  (typer's usage errors, ours, bugs: told apart below)
        error, code = raised, _say(raised)
    if code:
        _summarize(sys.argv[1:] if arguments is None else arguments, code, error)
    streams.flush()
    lost = streams.output_failure()
    if lost is None:
        return code
    # Only what was printed is lost: the streams let the run itself go on.
    done = "; what was asked for is done all the same" if code == 0 else ""
    print(f"ursa: can't write the output: {lost}{done}", file=sys.stderr)
    return code or 1


def _summarize(words: list[str], code: int, error: BaseException | None) -> None:
    """With --json a run that failed as a whole ends in a summary all the same, if its command did not come to print one."""
    from ursa_cli.ending import told
    from ursa_cli.render import Printer

    session = Session.current
    asked = "--json" in words[: words.index("--")] if "--" in words else "--json" in words
    out = session.out if session else Printer(json=asked, quiet=False, color=False)
    if out.summary is None:
        out.record("summary", **{**out.totals, **told(error, f"ended with exit status {code}"), "exit_code": code})


def _say(error: BaseException) -> int:
    """Words on stderr; returns the exit code."""
    if isinstance(error, UrsaError):
        from ursa_cli.render import print_error

        print_error(error)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
        from ursa_cli.render import plain

        where = f" {plain(error.filename)}" if error.filename else ""
        print(f"ursa: can't write{where}: {error.strerror}; what was finished before stands", file=sys.stderr)
        return 1
    return _other(error)


def _other(error: BaseException) -> int:
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            print(context.get_help() if context else EPILOG)
            return 2
        from ursa_cli.ending import usage
        from ursa_cli.render import plain

        where = f"\nSee `{context.command_path} --help`." if context else ""
        print(f"ursa: {plain(usage(error))}{where}", file=sys.stderr)
        return 2
    if type(error).__name__ == "Abort":
        print("ursa: stopped; nothing was done", file=sys.stderr)
        return 1
    import traceback

    traceback.print_exception(error)
    print(
        "ursa: this is a bug in ursa, not a mistake of yours. Please report the lines above with the command you typed"
        " and `ursa --version`.\nNothing is registered unless a line above says so; running the command again is safe.",
        file=sys.stderr,
    )
    return 1
