"""The HTML report: the page around the JSON, with what a reader without JavaScript, or a printer, has to see."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ursa_cli.render import plain, size
from ursa_cli.report_link import link_in_words

if TYPE_CHECKING:
    from ursa_cli.report import RecordingEntry

# Colour, symbol and word say the same, so that no one of them is needed.
_VERDICTS = {
    "ok": ("✓", "All well"),
    "warn": ("!", "Look at this"),
    "fail": ("✕", "Failed"),
    "running": ("…", "Still running, or killed"),
}
_STATUSES = {"ok": ("✓", "OK"), "have": ("=", "HAVE"), "skip": ("»", "SKIP"), "fail": ("✕", "FAIL")}
_DATA = "DATA"


def page_around(facts: Mapping[str, Any], troubles: Sequence[RecordingEntry]) -> tuple[bytes, bytes]:
    """What comes before and after the JSON. ``troubles``: the failed and skipped recordings to show as they are."""
    before, after = _template()
    parts = {
        "CSP": _policy(),
        "TITLE": _text(f"{_VERDICTS[facts['verdict']['level']][1]} – ursa {' '.join(facts['command'][1:2])}"),
        "HEADER": _header(facts),
        "VERDICT": _verdict(facts),
        "TILES": _tiles(facts),
        "LINK": _link(facts),
        "TROUBLES": _troubles(facts, troubles),
        "FOOTER": _footer(facts),
    }
    return _filled(before, parts), _filled(after, parts)


def _filled(template: str, parts: Mapping[str, str]) -> bytes:
    # In one pass: a name that looks like a mark is a name.
    text = re.sub(r"<!--ursa:(\w+)-->", lambda mark: parts[mark[1]], template)
    return text.encode("utf-8", "backslashreplace")


@cache
def _template() -> tuple[str, str]:
    page = files("ursa_cli").joinpath("report_page.html").read_text(encoding="utf-8")
    before, _, after = page.partition(f"<!--ursa:{_DATA}-->")
    return before, after


@cache
def _policy() -> str:
    """Nothing is loaded and nothing runs but the page's own style and script, by their hashes."""
    page = "".join(_template())
    allowed = []
    for kind in ("style", "script"):
        (inline,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode("utf-8")).digest()).decode("ascii")
        allowed.append(f"{kind}-src 'sha256-{digest}'")
    return "; ".join(["default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'"])


def _header(facts: Mapping[str, Any]) -> str:
    started = datetime.fromisoformat(facts["started_at"])
    ended = facts["state"] == "finished"
    took = f"{'took' if ended else 'for'} {_lasting(facts['seconds'])}"
    roots = "".join(f"<li><code>{_text(root)}</code></li>" for root in facts["roots"])
    name = _text(" ".join(facts["command"][1:2]) or "run")
    return (
        f'<p class="over">ursa {name}</p>'
        f'<h1><time datetime="{_text(facts["started_at"])}">{started:%A, {started.day} %B %Y, %H:%M} UTC</time></h1>'
        f'<p class="meta"><span>host <b>{_text(facts["host"])}</b></span>'
        f"<span>profile <b>{_text(facts['profile'])}</b></span><span>{took}</span></p>"
        f'<ul class="roots" aria-label="Where the recordings are">{roots}</ul>'
    )


def _verdict(facts: Mapping[str, Any]) -> str:
    level, words = facts["verdict"]["level"], facts["verdict"]["words"]
    symbol, word = _VERDICTS[level]
    error = facts["error"] or {}
    mend = f'<p class="mend">{_text(error["hint"])}</p>' if error.get("hint") else ""
    return (
        f'<section class="verdict {level}" role="status" aria-label="Verdict">'
        f'<span class="mark" aria-hidden="true">{symbol}</span>'
        f"<div><h2>{word}</h2><p>{_text(words)}</p>{mend}</div></section>"
    )


def _tiles(facts: Mapping[str, Any]) -> str:
    totals, counts = facts["totals"], facts["counts"]
    expected = f"of {facts['expected']}" if facts["expected"] is not None else "in all"
    sent = totals["bytes_uploaded"] - totals["bytes_resumed"]
    mean = sent / facts["seconds"] if facts["seconds"] > 0 else 0.0
    now = f"{counts['ok']:,} now, {counts['have']:,} before"
    ended = facts["state"] == "finished" and facts["expected"] is not None
    left = max(0, facts["expected"] - totals["recordings"]) if ended else 0
    open_ends = f"{counts['fail']:,} failed, {counts['skip']:,} skipped" + (f", {left:,} not reached" if left else "")
    tiles = [
        ("Recordings", f"{totals['recordings']:,}", expected),
        ("Registered", f"{counts['ok'] + counts['have']:,}", now),
        ("Not registered", f"{counts['fail'] + counts['skip'] + left:,}", open_ends),
        (
            "Uploaded",
            size(sent),
            f"{totals['files_uploaded']:,} files, {_together(size(round(mean)))}/s",
        ),
        ("Was there", size(totals["bytes_skipped"]), f"{totals['files_skipped']:,} files"),
        _evidence_tile(totals["evidence"]),
    ]
    cells = (f"<div><dt>{name}</dt><dd><b>{value}</b><span>{more}</span></dd></div>" for name, value, more in tiles)
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _evidence_tile(evidence: Mapping[str, int]) -> tuple[str, str, str]:
    strong = [kind for kind in ("sha256", "etag") if evidence.get(kind)]
    by = " and ".join(strong)
    if evidence.get("size"):
        return (
            "Proven by size only",
            f"{evidence['size']:,}",
            f"of {sum(evidence.values()):,} files" + (f", the rest by {by}" if by else ""),
        )
    return "Files proven", f"{sum(evidence.values()):,}", f"by {by}" if by else "none was looked at"


def _troubles(facts: Mapping[str, Any], troubles: Sequence[RecordingEntry]) -> str:
    ordered = sorted(troubles, key=lambda entry: entry.status != "fail")
    if not ordered:
        return ""
    more = facts["counts"]["fail"] + facts["counts"]["skip"] - len(ordered)
    rest = f"<p>And {more:,} more, in the table and in the data of this page.</p>" if more > 0 else ""
    articles = "".join(map(_trouble, ordered))
    return (
        f'<section class="troubles" id="troubles" aria-labelledby="troubles-head">'
        f'<h2 id="troubles-head">Failed and skipped</h2>{articles}{rest}</section>'
    )


def _trouble(entry: RecordingEntry) -> str:
    symbol, word = _STATUSES[entry.status]
    why = ": ".join(part for part in (entry.error, entry.message) if part)
    mend = f'<p class="mend">{_text(entry.hint)}</p>' if entry.hint else ""
    return (
        f'<article class="{entry.status}"><h3><span class="badge {entry.status}">{symbol} {word}</span> '
        f'{_text(entry.rec_id)}</h3><p class="why">{_text(why)}</p>{mend}<p class="path">{_text(entry.path)}</p></article>'
    )


def _link(facts: Mapping[str, Any]) -> str:
    words = link_in_words(facts["link"])
    return f'<p class="idle-words">{_text(words)}</p>' if words else ""


def _footer(facts: Mapping[str, Any]) -> str:
    code = "none yet" if facts["exit_code"] is None else facts["exit_code"]
    # The name of what was started, not where it is; the rest so that a shell takes it again.
    typed = shlex.join([PurePath(word).name if not at else word for at, word in enumerate(facts["command"])])
    return (
        f"<p><code>{_text(typed)}</code></p>"
        f"<p>exit status {code} · ursa {_text(facts['version'])} · state of {_text(facts['updated_at'][:19])}Z</p>"
    )


def _text(text: object) -> str:
    """Text from a file, harmless: escaped for HTML, and without characters that reorder what is read."""
    return escape(plain(text), quote=True)


def _together(text: str) -> str:
    return text.replace(" ", "\u00a0")


def _lasting(seconds: float) -> str:
    whole = round(seconds)
    parts = [(whole // 3600, "h"), (whole % 3600 // 60, "min"), (whole % 60, "s")]
    told = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(told[:2]) or "less than a second"
