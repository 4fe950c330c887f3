"""Lines over time as SVG, without a library: readable in a light and in a dark page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

WIDE, HIGH = 760, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 58, 40
_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #3c4347; }
.title { font-size: 15px; font-weight: 600; }
.grid { stroke: #d9d9d4; }
.limit { stroke: #8a8f92; stroke-dasharray: 5 4; }
.line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
.a { stroke: #19707c; } .b { stroke: #c26a1b; }
.end { stroke-width: 1.4; stroke-dasharray: 2 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #c9d0d3; } .grid { stroke: #3a4246; } .a { stroke: #5cc4d0; } .b { stroke: #f0a45e; }
}
"""


class Line(NamedTuple):
    """``points``: (seconds, value). ``end_s``: when it was over."""

    name: str
    points: Sequence[tuple[float, float]]
    end_s: float


def plot(path: Path, title: str, lines: Sequence[Line], *, limit: float, unit: str = "MB/s") -> None:
    """Write the picture. ``limit``: what there is at most, as a dashed line."""
    parts = "\n".join(_parts(title, lines, limit, unit))
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(title)}">\n'
        f"<style>{_STYLE}</style>\n{parts}\n</svg>\n",
        encoding="utf-8",
    )


def _parts(title: str, lines: Sequence[Line], limit: float, unit: str) -> Iterator[str]:
    end = max(line.end_s for line in lines)
    top = 1.15 * max(limit, *(value for line in lines for _, value in line.points))
    across = (WIDE - LEFT - RIGHT) / end
    up = (HIGH - TOP - BOTTOM) / top

    def x(at_s: float) -> float:
        return round(LEFT + at_s * across, 1)

    def y(value: float) -> float:
        return round(HIGH - BOTTOM - value * up, 1)

    yield f'<text class="title" x="{LEFT}" y="20">{escape(title)}</text>'
    step = next(each for each in _STEPS if top / each <= 7)
    for value in range(0, int(top) + 1, step):
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y(value)}" y2="{y(value)}"/>'
        yield f'<text x="{LEFT - 8}" y="{y(value) + 4}" text-anchor="end">{value}</text>'
    yield f'<text x="{LEFT - 8}" y="{TOP - 6}" text-anchor="end">{unit}</text>'
    wide = next(each for each in _STEPS if end / each <= 12)
    for second in range(0, int(end) + 1, wide):
        yield f'<text x="{x(second)}" y="{HIGH - BOTTOM + 20}" text-anchor="middle">{second} s</text>'
    yield f'<line class="limit" x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y(limit)}" y2="{y(limit)}"/>'
    for number, (line, kind) in enumerate(zip(lines, "ab", strict=False)):
        drawn = " ".join(f"{x(at_s)},{y(value)}" for at_s, value in line.points)
        yield f'<polyline class="line {kind}" points="{drawn}"/>'
        yield f'<line class="end {kind}" x1="{x(line.end_s)}" x2="{x(line.end_s)}" y1="{TOP}" y2="{HIGH - BOTTOM}"/>'
        at = LEFT + 200 * number
        yield f'<line class="line {kind}" x1="{at}" x2="{at + 22}" y1="38" y2="38"/>'
        yield f'<text x="{at + 28}" y="42">{escape(line.name)}, {line.end_s:.1f} s</text>'
