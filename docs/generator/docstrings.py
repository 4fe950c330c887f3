"""Docstrings as mkdocstrings takes them.

A house docstring may end in ``Raises:`` and a sentence that names several errors; griffe's parser wants one error a line
and would drop the sentence. Those sections become paragraphs; the others stay as they are.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^Raises:\n((?:[ ]{4}.*\n?|\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"    \w+: ")


def rewritten(text: str) -> str:
    """The docstring with such a section as a paragraph."""

    def as_text(found: re.Match[str]) -> str:
        lines = [line for line in found[1].splitlines() if line.strip()]
        if all(line.startswith("     ") or (_ENTRY.match(line) and ". " not in line) for line in lines):
            return found[0]
        return "**Raises:** " + " ".join(line.strip() for line in lines) + "\n"

    return _SECTION.sub(as_text, text)


class PlainRaises(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for every class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = rewritten(obj.docstring.value)
