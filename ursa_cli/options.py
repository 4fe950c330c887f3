"""Every shared option, defined once, and the decorator that gives them to a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from ursa_cli.session import Session

PANEL = "Common options"

TrustMtime = Annotated[
    bool, typer.Option("--trust-mtime", help="Don't read registered files whose size and mtime are as registered.")
]
NotUnfinished = Annotated[
    list[str] | None,
    typer.Option(
        "--not-unfinished", metavar="GLOB", help="Files that are whole, though called like unfinished copies."
    ),
]

Offline = Annotated[
    bool, typer.Option("--offline", help="Answer from this machine's copy of the catalog, without a network.")
]

_SHARED: dict[str, tuple[Any, Any]] = {
    "profile": (
        Annotated[
            str,
            typer.Option("--profile", "-p", metavar="NAME", help="Profile of the config file."),
        ],
        "r2",
    ),
    "config": (
        Annotated[Path | None, typer.Option("--config", metavar="PATH", help="Config file instead of your own.")],
        None,
    ),
    "json": (Annotated[bool, typer.Option("--json", help="Print JSON Lines, and nothing else, on stdout.")], False),
    "quiet": (Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")], False),
    "verbose": (Annotated[bool, typer.Option("--verbose", "-v", help="Print what happens, on stderr.")], False),
    "log_file": (
        Annotated[
            Path | None,
            typer.Option(
                "--log-file", metavar="PATH", help="Append a log of the run to this file (10 MiB, 5 older ones)."
            ),
        ],
        None,
    ),
    "no_color": (Annotated[bool, typer.Option("--no-color", help="No colours (as NO_COLOR does).")], False),
    "no_progress": (Annotated[bool, typer.Option("--no-progress", help="No progress bars.")], False),
}


def shared(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the shared options; it receives them as ``session``."""
    hints = get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "session"
    ]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _SHARED.items()
    ]

    @functools.wraps(function)
    def run(**values: Any) -> None:
        with Session(**{name: values.pop(name) for name in _SHARED}) as session:
            function(session, **values)

    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    run.__signature__ = inspect.Signature([*keyword, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
    del run.__wrapped__
    return run


class Group(TyperGroup):
    """Subcommands with their whole summary: a sentence that is cut off says nothing."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1_000)) for name, command in commands if command])


def command_app(**settings: Any) -> typer.Typer:
    """A Typer app for one command module, in the house's settings."""
    return typer.Typer(
        cls=Group,
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )
