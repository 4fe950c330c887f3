"""Write the generated parts of the documentation.

    python docs/make.py               pages and pictures
    python docs/make.py pages         pages only
    python docs/make.py pictures      pictures only; --to DIR puts them elsewhere
    python docs/make.py --check       write nothing; exit 1 and name the pages that are stale

Pages come from the program itself: the command line from its `--help`, the configuration from its pydantic models,
the exit codes from the exception classes. Pictures are what the installed `ursa` prints on a pseudo-terminal.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from generator import commands, configuration, exits
from generator.blocks import with_block

DOCS = Path(__file__).resolve().parent


def pages() -> dict[Path, str]:
    """Every page that is generated, or has a generated part, as it should be."""
    exit_codes = DOCS / "exit-codes.md"
    return {
        DOCS / "reference" / "cli.md": commands.page(),
        DOCS / "reference" / "config.md": configuration.page(),
        exit_codes: with_block(exit_codes.read_text(encoding="utf-8"), "errors", exits.table()),
    }


def stale() -> list[Path]:
    """The pages whose words are not what the program says now. White space does not count: typer's may change."""
    return [
        path
        for path, text in pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8").split() != text.split()
    ]


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("pages", "pictures"), help="both, unless said")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    parser.add_argument("--to", type=Path, default=DOCS / "pictures", metavar="DIR", help="where pictures go")
    parser.add_argument("--only", action="append", metavar="NAME", help="this picture; may be repeated")
    choices = parser.parse_args()
    if choices.check:
        found = stale()
        for path in found:
            print(
                f"docs/{path.relative_to(DOCS).as_posix()} is stale; run `python docs/make.py pages`", file=sys.stderr
            )
        return 1 if found else 0
    if choices.what != "pictures":
        for path, text in pages().items():
            path.write_text(text, encoding="utf-8")
    if choices.what != "pages":
        from generator import pictures

        pictures.draw(choices.to, choices.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
