"""What a report says of the link: figures, and a sentence where it was idle."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ursa import LinkUse
from ursa.transfer.trace import Stage
from ursa_cli.report import RunReport
from ursa_cli.report_link import link_in_words, told_link

BEGAN = datetime(2026, 5, 21, 2, 0, tzinfo=UTC)


def use(idle_s: dict[Stage, float], *, sent: int = 1000) -> LinkUse:
    """Of a run of a hundred seconds."""
    idle = sum(idle_s.values())
    return LinkUse(100.0, 25.0, (sent, 0, 0, 0), (idle / 4,) * 4, idle_s)


def written(path: Path, link: LinkUse | None) -> str:
    """A finished report."""
    report = RunReport(
        path,
        command=["ursa", "batch", "/nas"],
        profile="r2",
        roots=["/nas"],
        started_at=BEGAN,
        now=lambda: BEGAN + timedelta(seconds=100),
    )
    if link is not None:
        report.follow_link(lambda: link)
    report.finish(0, {})
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (None, ""),
        (use({Stage.COMMIT: 4.9}), ""),
        (use({Stage.COMMIT: 12.0}), "Link idle for 12 % of the run, mostly while waiting for the catalog's commit."),
        (
            use({Stage.COMMIT: 3.0, Stage.HASH: 5.0, Stage.SCAN: 2.0}),
            "Link idle for 10 % of the run, mostly while reading and hashing files.",
        ),
        (use({Stage.SCAN: 100.0}, sent=0), ""),
    ],
)
def test_it_says_where_the_link_was_idle(tmp_path: Path, link: LinkUse | None, words: str) -> None:
    assert link_in_words(told_link(link)) == words
    page = written(tmp_path / "run.html", link).replace("&#x27;", "'")
    assert (words in page) if words else ("of the run, mostly" not in page)


def test_a_script_has_the_figures(tmp_path: Path) -> None:
    link = use({Stage.COMMIT: 9.0, Stage.HASH: 3.0})
    told: dict[str, Any] = json.loads(written(tmp_path / "run.json", link))["link"]
    assert told == {
        "idle_share": 0.12,
        "idle_s": {"waiting for the catalog's commit": 9.0, "reading and hashing files": 3.0},
        "bucket_s": 25.0,
        "sent": [1000, 0, 0, 0],
        "idle": [3.0] * 4,
    }
    assert json.loads(written(tmp_path / "other.json", None))["link"] is None


def test_it_is_asked_as_the_run_goes_on(tmp_path: Path) -> None:
    path, uses = tmp_path / "run.json", iter([use({Stage.SCAN: 1.0}), use({Stage.SCAN: 2.0})])
    report = RunReport(path, command=["ursa"], profile="r2", roots=[], started_at=BEGAN)
    report.follow_link(lambda: next(uses))
    report.sample(1.0, 10)
    assert json.loads(path.read_text())["link"]["idle_share"] == 0.01
    report.finish(0, {})
    assert json.loads(path.read_text())["link"]["idle_share"] == 0.02
