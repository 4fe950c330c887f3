"""The HTML report in a real browser: what a person sees and does, and that nothing in it can do anything by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import browser as chromium
import pytest
from browser import Browser

from ursa import LinkUse
from ursa.transfer.trace import Stage
from ursa_cli.report import RecordingEntry, RunReport

pytestmark = pytest.mark.skipif(chromium.missing() is not None, reason=f"needs Chromium: {chromium.missing()}")

BEGAN = datetime(2026, 5, 21, 2, 0, tzinfo=UTC)
ATTACK = "<img src=x onerror=window.hacked=1></script><script>window.hacked=2</script><!--\u2028\u202egpj.\x1b[31m&amp;"
WIDTHS = {"phone": 360, "tablet": 768, "desk": 1440}
SHOWN = "return [...document.querySelectorAll('tr.row .name button')].map(e => e.textContent)"


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    """One browser for all."""
    with chromium.browser() as opened:
        yield opened


def entries(count: int) -> list[RecordingEntry]:
    """Of every four one failed, one was skipped, one was there, one is new."""
    kinds = (
        {
            "status": "ok",
            "action": "created",
            "files_uploaded": 12,
            "bytes_uploaded": 5 << 30,
            "recording_hash": "ab" * 32,
        },
        {"status": "have", "files_skipped": 7, "bytes_skipped": 1 << 30, "evidence": {"size": 1, "sha256": 6}},
        {"status": "skip", "message": "no manifest", "hint": "`ursa reconstruct /nas/x` makes one."},
        {
            "status": "fail",
            "error": "ConflictError",
            "message": "eeg_a/x.edf differs",
            "hint": "Run `ursa verify rec_x`.",
        },
    )
    made = []
    for number in range(count):
        fields: dict[str, Any] = {"seconds": float(number % 90), "evidence": {"sha256": 12}, **kinds[number % 4]}
        ended = BEGAN + timedelta(seconds=number)
        rec_id = f"rec_20260520_195628_{number:04x}"
        made.append(RecordingEntry(rec_id, f"/nas/{rec_id}", finished_at=ended, **fields))
    return made


def write(
    path: Path, recordings: list[RecordingEntry], *, roots: tuple[str, ...] = ("/nas",), link: LinkUse | None = None
) -> Path:
    """A finished report of them."""
    report = RunReport(
        path,
        command=["ursa", "batch", *roots],
        profile="r2",
        roots=list(roots),
        started_at=BEGAN,
        now=lambda: BEGAN + timedelta(hours=1),
    )
    report.check()
    if link is not None:
        report.follow_link(lambda: link)
    for number, entry in enumerate(recordings):
        report.sample(float(number * 10), number * number << 20)
        report.add(entry)
    report.finish(3 if any(entry.status == "fail" for entry in recordings) else 0, {})
    return path


def still(page: Browser) -> None:
    """Nothing was logged as wrong, and nothing was asked for but files."""
    assert page.log("browser") == []
    assert {address.partition(":")[0] for address in page.requests()} <= {"file"}


def test_the_page_filters_sorts_and_unfolds(page: Browser, tmp_path: Path) -> None:
    page.look_like(WIDTHS["desk"])
    page.open(write(tmp_path / "run.html", entries(40)))
    assert "10 of 40 recordings failed" in page.run("return document.querySelector('.verdict').innerText")
    assert len(page.run(SHOWN)) == 40
    chips = page.run("return [...document.querySelectorAll('.chip')].map(e => e.textContent)")
    assert chips == ["All 40", "✕ FAIL 10", "» SKIP 10", "✓ OK 10", "= HAVE 10"]
    page.click(".chip.fail")
    assert page.run(SHOWN) == [entry.rec_id for entry in entries(40) if entry.status == "fail"]
    assert page.run("return document.querySelector('.chip.fail').getAttribute('aria-pressed')") == "true"
    page.click(".chip.fail")
    page.type("#text", "_0003")
    assert page.until(SHOWN + ".length === 1")
    page.run("const t = document.getElementById('text'); t.value = ''; t.dispatchEvent(new Event('input'))")
    assert page.until(SHOWN + ".length === 40")
    page.click('th[data-key="seconds"] button')
    assert page.run(SHOWN)[0] == entries(40)[39].rec_id
    page.click('th[data-key="seconds"] button')
    assert page.run(SHOWN)[0] == entries(40)[0].rec_id
    assert page.run("return document.querySelector('th[data-key=seconds]').ariaSort") == "ascending"
    page.click(".chip.fail")
    row = page.run("return document.querySelector('tr.row').innerText")
    assert "ConflictError: eeg_a/x.edf differs" in row and "ursa verify rec_x" in row, "without a click"
    cut = "return [...document.querySelectorAll('.brief')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert page.run(cut) == 0
    page.click("tr.row .name button")
    told = page.run("return document.querySelector('tr.more').innerText")
    assert "ConflictError: eeg_a/x.edf differs" in told and "ursa verify rec_x" in told and "Copy" in told
    assert page.run("return document.querySelector('tr.row .name button').ariaExpanded") == "true"
    still(page)


def test_the_mend_is_copied_as_it_is_shown(page: Browser, tmp_path: Path) -> None:
    page.open(write(tmp_path / "run.html", [replace(entries(4)[3], hint="Run `ursa verify rec_\u202ex`.")]))
    page.devtools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.click("tr.row .name button")
    page.click(".copyable button")
    assert page.until("return document.querySelector('.copyable button').textContent === 'Copied'")
    assert page.run("return navigator.clipboard.readText()") == "ursa verify rec_\\u202ex"


def test_keys_are_enough(page: Browser, tmp_path: Path) -> None:
    page.look_like(WIDTHS["desk"])
    page.open(write(tmp_path / "run.html", entries(8)))
    page.run("document.querySelector('tr.row .name button').focus()")
    page.type("tr.row .name button", "\ue007")
    assert page.run("return document.querySelectorAll('tr.more').length") == 1
    page.run("document.querySelector('#curve svg').focus()")
    page.type("#curve svg", "\ue014\ue014")
    assert "so far" in page.run("return document.getElementById('curve-read').textContent")
    unnamed = page.run(
        "return [...document.querySelectorAll('button, input, select')].filter("
        "e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


def test_the_curve_is_drawn_and_read(page: Browser, tmp_path: Path) -> None:
    page.look_like(WIDTHS["desk"])
    page.open(write(tmp_path / "run.html", entries(40)))
    assert page.run("return document.querySelector('path.rate').getTotalLength()") > 300
    labels = page.run("return [...document.querySelectorAll('#curve text')].map(e => e.textContent)")
    assert any(label.endswith("MiB/s") for label in labels) and "5 min" in labels
    page.run("window.scrollTo(0, 0)")
    box = page.run("const b = document.querySelector('#curve svg').getBoundingClientRect(); return [b.x, b.y, b.width]")
    page.devtools("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] * 0.6, y=box[1] + 60)
    assert page.until("return document.getElementById('curve-read').textContent.startsWith('at ')")


def test_the_curve_is_of_what_went_out_and_shades_where_the_link_was_idle(page: Browser, tmp_path: Path) -> None:
    sent = tuple(0 if at in (3, 4, 7) else 600 << 20 for at in range(10))
    idle = tuple(60.0 if not bytes_sent else 1.0 for bytes_sent in sent)
    link = LinkUse(600.0, 60.0, sent, idle, {Stage.COMMIT: 160.0, Stage.HASH: 27.0})
    for scheme in ("light", "dark"):
        page.look_like(WIDTHS["desk"], scheme=scheme)
        page.open(write(tmp_path / "run.html", entries(4), link=link))
        shaded = page.run(
            "return [...document.querySelectorAll('rect.idle')].map(e => e.getBoundingClientRect().width)"
        )
        assert len(shaded) == 2 and shaded[0] == pytest.approx(2 * shaded[1], rel=0.01)
        read = page.run("return document.getElementById('curve-read').textContent")
        assert "peak 10.0 MiB/s" in read and "4.1 GiB in 10:00 min" in read and "shaded: link idle" in read
        said = page.run("return document.querySelector('.idle-words').innerText")
        assert said == "Link idle for 31 % of the run, mostly while waiting for the catalog's commit."
        assert page.run(CONTRAST) == []
    still(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_scrolls_sideways_and_all_can_be_read(page: Browser, tmp_path: Path, scheme: str) -> None:
    long = replace(
        entries(4)[3], path="/nas/" + "x" * 300, message="y" * 2000, error="Z" * 200, hint="`" + "c" * 200 + "`"
    )
    path = write(tmp_path / "run.html", [*entries(8), long], roots=("/nas/" + "r" * 200,))
    for width in WIDTHS.values():
        page.look_like(width, scheme=scheme)
        page.open(path)
        page.run("document.querySelectorAll('tr.row .name button').forEach(e => e.click())")
        assert page.run("return document.documentElement.scrollWidth") <= width
        outside = page.run(
            "return [...document.querySelectorAll('main *:not(.sr, .brief, svg *, option)')].filter(e => {"
            " const b = e.getBoundingClientRect(); return b.width && b.right > innerWidth + 1; }).map(e => e.className)"
        )
        assert outside == [], width
        assert page.run(CONTRAST) == [], (width, scheme)
    still(page)


# Text whose contrast to what is behind it is under 4.5 (WCAG AA).
CONTRAST = """
const light = (color) => {
  const part = color.match(/[\\d.]+/g).slice(0, 3).map((each) => each / 255)
    .map((each) => (each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4));
  return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (color !== "rgba(0, 0, 0, 0)") return color;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("main *, footer *")].filter((element) => element.getClientRects().length
  && !element.closest("svg, :disabled, noscript, select")
  && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())).filter((element) => {
    const one = light(getComputedStyle(element).color), other = light(behind(element));
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
  }).map((element) => element.className + ": " + element.textContent.slice(0, 40));
"""


def test_hostile_names_are_inert_and_shown(page: Browser, tmp_path: Path) -> None:
    page.look_like(WIDTHS["desk"])
    nasty = RecordingEntry(
        ATTACK, ATTACK, "fail", ATTACK, error=ATTACK, message=ATTACK, hint=f"`{ATTACK}`", warnings=(ATTACK, "\udcff"),
        recording_hash=ATTACK, evidence={ATTACK: 1},
    )  # fmt: skip
    path = tmp_path / "run.html"
    write(path, [nasty], roots=(ATTACK, "<!--ursa:DATA-->", "<!--ursa:CSP-->"))
    page.open(path)
    page.click("tr.row .name button")
    assert page.run("return window.hacked") is None
    assert page.run("return document.querySelectorAll('img').length") == 0
    assert page.run("return document.scripts.length") == 2
    for selector in ("tr.row .name button", "tr.more"):
        text = page.run(f"return document.querySelector('{selector}').textContent")
        assert "<img src=x onerror=window.hacked=1></script>" in text
        assert "\\u202egpj.\\x1b[31m&amp;" in text and "\u202e" not in text and "\x1b" not in text
    assert "<!--ursa:DATA-->" in page.run("return document.querySelector('.roots').textContent")
    still(page)
    # What a script that got in would meet: the policy.
    page.run("const e = document.createElement('script'); e.textContent = 'window.hacked = 3'; document.body.append(e)")
    page.run("const e = document.createElement('img'); e.src = 'https://example.org/x.png'; document.body.append(e)")
    assert page.run("return window.hacked") is None
    told = page.log("browser")
    assert len(told) >= 2 and all("Content Security Policy" in entry["message"] for entry in told)
    page.requests()


def test_without_javascript_the_verdict_the_totals_and_the_failures(page: Browser, tmp_path: Path) -> None:
    page.javascript(on=False)
    try:
        page.open(write(tmp_path / "run.html", entries(40)))
        tree = page.devtools("DOM.getDocument", depth=-1)["root"]
        body = page.devtools("DOM.querySelector", nodeId=tree["nodeId"], selector=".troubles")
        assert page.devtools("DOM.getBoxModel", nodeId=body["nodeId"])["model"]["height"] > 500
        html = page.devtools("DOM.getOuterHTML", nodeId=body["nodeId"])["outerHTML"]
        assert html.count("<article") == 20 and "Run `ursa verify rec_x`." in html
        assert html.index("FAIL") < html.index("SKIP")
    finally:
        page.javascript(on=True)
    page.open(tmp_path / "run.html")
    assert page.run("return getComputedStyle(document.querySelector('.troubles')).display") == "none"


def test_on_paper_failures_come_first(page: Browser, tmp_path: Path) -> None:
    page.open(write(tmp_path / "run.html", entries(40)))
    page.look_like(WIDTHS["tablet"], media="print")
    try:
        top = "return document.querySelector('{}').getBoundingClientRect().top"
        assert page.run(top.format(".troubles")) < page.run(top.format("#list-head"))
        assert page.run("return getComputedStyle(document.querySelector('.tools')).display") == "none"
    finally:
        page.look_like(WIDTHS["desk"])


def test_ten_thousand_recordings_stay_fluid(page: Browser, tmp_path: Path) -> None:
    small, large = write(tmp_path / "small.html", entries(100)), write(tmp_path / "large.html", entries(10_000))

    def opened(path: Path) -> float:
        began = time.monotonic()
        page.open(path)
        assert len(page.run(SHOWN)) == 100
        return time.monotonic() - began

    opened(small)
    few, many = (min(opened(path) for _ in range(2)) for path in (small, large))
    # A hundred times the recordings; a page that drew them all would take as many times as long.
    assert many < 20 * few, (few, many)
    assert page.run("return document.querySelectorAll('*').length") < 5_000
    page.click("#next")
    assert page.run("return document.getElementById('where').textContent") == "101–200 of 10,000"
    page.type("#text", "_270f")
    assert page.until(SHOWN + ".length === 1")
    still(page)
