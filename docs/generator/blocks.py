"""A generated part of a page that is written by hand otherwise, between two comments."""

from __future__ import annotations


def with_block(page: str, name: str, text: str) -> str:
    """The page with ``text`` between its comments ``<!-- begin NAME … -->`` and ``<!-- end NAME -->``."""
    begin = f"<!-- begin {name}: written by docs/make.py -->"
    end = f"<!-- end {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"no place for {name!r}: the page needs the lines {begin} and {end} once each")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"
