"""The page of messages quotes what ursa really says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = [line for line in PAGE.splitlines() if line.startswith("### ")]
QUOTES = [quote for line in HEADINGS for quote in re.findall(r"`([^`]+)`", line)]
GAP = "…"


def template(node: ast.expr) -> str | None:
    """A text of the source with ``…`` for whatever is put in; None where the expression is no text."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(part.value if isinstance(part, ast.Constant) else GAP for part in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            both = template(left), template(right)
            return None if both == (None, None) else "".join(part or GAP for part in both)
    return None


def templates(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = template(node) if isinstance(node, ast.expr) and node not in docstrings else None
        if text:
            yield re.sub(r"\{[^{}]*\}|…+", GAP, text)


SOURCE = [
    re.sub("…+", GAP, text)
    for package in ("ursa", "ursa_cli")
    for path in sorted((ROOT / package).rglob("*.py"))
    for text in templates(path)
]


@pytest.mark.parametrize("quote", QUOTES)
def test_every_quoted_message_is_in_the_source(quote: str) -> None:
    # What is put in may stand in backticks, which a quote can't hold.
    pattern = re.compile(f"`?{GAP}`?".join(map(re.escape, quote.split(GAP))))
    assert any(pattern.search(text) for text in SOURCE), quote
    assert re.search(r"[A-Za-z]{3}", quote), "a quote of gaps alone would be found anywhere"


def test_every_heading_quotes() -> None:
    assert len(QUOTES) > 50
    assert [line for line in HEADINGS if not re.findall(r"`([^`]+)`", line)] == []


def test_what_is_not_said_is_not_found() -> None:
    assert not [text for text in SOURCE if "the moon is in the way" in text]
