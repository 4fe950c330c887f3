"""The report's file: its words and numbers, when it is written, and what can't be written."""

from __future__ import annotations

import json
import os
import stat
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ursa.errors import LockHeldError, UsageError
from ursa_cli.report import RecordingEntry, RunReport
from ursa_cli.report_curve import MOST_POINTS, Curve
from ursa_cli.report_verdict import verdict

BEGAN = datetime(2026, 5, 21, 2, 0, tzinfo=UTC)
REC = "rec_20260520_195628_{:04x}"


class Clock:
    """Both of a report's clocks, moved by the test."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def now(self) -> datetime:
        """The wall's."""
        return BEGAN + timedelta(seconds=self.now_s)


def a_report(path: Path, clock: Clock | None = None, **fields: Any) -> RunReport:
    """A report of a run that has just begun."""
    clock = clock or Clock()
    values: dict[str, Any] = {"command": ["ursa", "batch", "/nas"], "profile": "r2", "roots": ["/nas"]} | fields
    return RunReport(path, **values, started_at=BEGAN, monotonic=clock, now=clock.now)


def read(path: Path) -> dict[str, Any]:
    """The JSON of a report, out of its page if it is one."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        text = text.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    content: dict[str, Any] = json.loads(text)
    return content


def ok(number: int, **fields: Any) -> RecordingEntry:
    """A recording that was registered."""
    values: dict[str, Any] = {
        "action": "created",
        "files_uploaded": 3,
        "files_skipped": 1,
        "bytes_uploaded": 1000,
        "bytes_resumed": 0,
        "bytes_skipped": 10,
        "seconds": 2.5,
        "recording_hash": "ab" * 32,
        "evidence": MappingProxyType({"sha256": 3, "etag": 1}),
        "finished_at": BEGAN,
    } | fields
    return RecordingEntry(REC.format(number), f"/nas/{REC.format(number)}", "ok", **values)


def failed(number: int, **fields: Any) -> RecordingEntry:
    """A recording that failed."""
    values: dict[str, Any] = {"error": "ConflictError", "message": "other files", "hint": "Look at them."} | fields
    return RecordingEntry(REC.format(number), f"/nas/{REC.format(number)}", "fail", **values)


@pytest.mark.parametrize("suffix", [".json", ".html"])
def test_a_finished_report_has_it_all(tmp_path: Path, suffix: str) -> None:
    clock, path = Clock(), tmp_path / "new" / f"run{suffix}"
    report = a_report(path, clock, command=["ursa", "batch", "/nas", "--notify", "curl https://secret", "--notify=x"])
    report.check()
    report.expect(3)
    report.add(ok(0, warnings=("odd",)))
    report.add(RecordingEntry(REC.format(1), "/nas/1", "have"))
    report.sample(0.0, 0)
    report.sample(90.0, 1000)
    report.add(failed(2))
    clock.now_s = 100.0
    report.finish(3, {"remarks": ["r"]})
    told = read(path)
    assert (told["schema_version"], told["type"], told["state"], told["exit_code"]) == (1, "report", "finished", 3)
    assert told["command"] == ["ursa", "batch", "/nas", "--notify", "…", "--notify=…"]
    assert told["started_at"] == "2026-05-21T02:00:00+00:00" and told["ended_at"] == "2026-05-21T02:01:40+00:00"
    assert (told["seconds"], told["expected"]) == (100.0, 3)
    assert told["counts"] == {"ok": 1, "have": 1, "skip": 0, "fail": 1}
    assert told["totals"] == {
        "recordings": 3,
        "files_uploaded": 3,
        "files_skipped": 1,
        "bytes_uploaded": 1000,
        "bytes_resumed": 0,
        "bytes_skipped": 10,
        "evidence": {"sha256": 3, "etag": 1},
    }
    assert told["throughput"] == [[0.0, 0], [90.0, 1000]] and told["summary"] == {"remarks": ["r"]}
    first = told["recordings"][0]
    assert (first["rec_id"], first["warnings"], first["finished_at"]) == (REC.format(0), ["odd"], told["started_at"])
    assert [each["status"] for each in told["recordings"]] == ["ok", "have", "fail"]
    assert told["verdict"]["level"] == "fail"
    assert "1 of 3 recordings failed" in told["verdict"]["words"] and "must not be wiped" in told["verdict"]["words"]
    assert "secret" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", [".json", ".html"])
def test_a_killed_run_leaves_its_last_state(tmp_path: Path, suffix: str) -> None:
    clock, path = Clock(), tmp_path / f"run{suffix}"
    report = a_report(path, clock)
    report.check()
    assert not path.exists()
    written = []
    for number in range(100):
        clock.now_s += 1
        report.add(ok(number))
        told = read(path)
        written += [] if told["updated_at"] in written else [told["updated_at"]]
        assert (told["state"], told["exit_code"], told["ended_at"]) == ("running", None, None)
        assert told["verdict"]["level"] == "running" and "killed" in told["verdict"]["words"]
    assert len(written) == 4
    if suffix == ".html":
        assert "Still running, or killed" in path.read_text(encoding="utf-8")


def test_it_is_replaced_in_one_step_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("of yesterday")
    report = a_report(path)
    report.check()
    assert path.read_text() == "of yesterday"
    with path.open() as reader:
        report.finish(0, {})
        assert reader.read() == "of yesterday"
    assert read(path)["state"] == "finished"
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


def test_a_link_stays_a_link_and_others_may_read(tmp_path: Path) -> None:
    (tmp_path / "latest.json").symlink_to("run.json")
    before = os.umask(0o022)
    try:
        a_report(tmp_path / "latest.json").finish(0, {})
    finally:
        os.umask(before)
    assert (tmp_path / "latest.json").is_symlink() and read(tmp_path / "run.json")["exit_code"] == 0
    assert stat.S_IMODE((tmp_path / "run.json").stat().st_mode) == 0o644


def test_what_can_not_be_written_is_refused_early(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "run.html").mkdir()
    inside = tmp_path / REC.format(1) / "eeg_a"
    inside.mkdir(parents=True)
    refused = {
        tmp_path / "run.txt": r"\.json .*\.html",
        tmp_path / "run": r"\.json .*\.html",
        tmp_path / "run.html": "directory",
        tmp_path / "file" / "run.json": "can't write the report",
        Path("/proc/nowhere/run.json"): "can't write the report",
        inside / "run.json": "inside the recording",
    }
    for path, words in refused.items():
        with pytest.raises(UsageError, match=words) as caught:
            a_report(path).check()
        assert caught.value.hint and caught.value.exit_code == 2
    assert list(inside.iterdir()) == [] and not (tmp_path / "run").exists()


def test_what_fails_later_is_said_and_fails_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "there" / "run.json"
    report = a_report(path)
    report.check()
    report.add(ok(0))
    path.unlink()
    path.parent.rmdir()
    report.finish(0, {})
    told = capsys.readouterr()
    assert told.out == "" and str(path) in told.err and "stands all the same" in told.err


def counts(**given: int) -> Counter[str]:
    """Recordings by status."""
    return Counter(given)


@pytest.mark.parametrize(
    ("given", "code", "expected", "error", "level", "words"),
    [
        ({"ok": 2, "have": 38}, 0, 40, None, "ok", "the bucket was not asked"),
        ({"ok": 1}, 0, 1, None, "ok", "The recording is in the bucket and registered"),
        ({"ok": 36, "fail": 3, "skip": 1}, 3, 40, None, "fail", "3 of 40 recordings failed: not all of their bytes"),
        ({"ok": 39, "fail": 1}, 3, 40, None, "fail", "1 of 40 recordings failed: not all of its bytes"),
        ({"ok": 39, "skip": 1}, 0, 40, None, "warn", "1 of 40 recordings was skipped"),
        ({"ok": 39, "skip": 1}, 3, 40, None, "fail", "1 of 40 recordings was skipped"),
        ({"ok": 30}, 0, 40, None, "warn", "10 of 40 recordings were not reached"),
        ({"ok": 30}, 130, 40, "InterruptedRunError: x", "fail", "interrupted (InterruptedRunError: x): 10 of 40"),
        ({}, 11, None, "LockHeldError: y", "fail", "stopped early (LockHeldError: y)"),
        ({"ok": 5}, 4, 5, None, "fail", "stopped early with exit status 4"),
        ({}, 1, None, None, "fail", "exit status 1"),
        ({}, 0, 0, None, "warn", "no recording"),
        ({"ok": 5}, None, 9, None, "running", "5 of 9 recordings had ended"),
    ],
)
def test_the_verdict_in_words(
    given: dict[str, int], code: int | None, expected: int | None, error: str | None, level: str, words: str
) -> None:
    told = verdict(counts(**given), expected=expected, exit_code=code, ended_by=error, dry_run=False, as_of=BEGAN)
    assert told.level == level and words in told.words
    safe = level == "ok" or not given or (code == 4 and given == {"ok": 5})
    assert safe or "wiped" in told.words


def test_an_empty_root_is_no_clean_run(tmp_path: Path) -> None:
    report = a_report(tmp_path / "run.json")
    report.add(ok(0))
    report.finish(1, {"problems": ["/nas2 is empty"]})
    told = read(tmp_path / "run.json")["verdict"]
    assert told["level"] == "fail" and "/nas2 is empty" in told["words"] and "wiped" in told["words"]


def test_progress_callbacks_of_many_threads_may_sample(tmp_path: Path) -> None:
    clock = Clock()
    report = a_report(tmp_path / "run.json", clock)

    def work(start: int) -> None:
        for number in range(start, 400, 4):
            clock.now_s += 10
            report.sample(clock.now_s, number)
            report.add(ok(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    report.finish(0, {})
    told = read(tmp_path / "run.json")
    assert sorted(each["rec_id"] for each in told["recordings"]) == [REC.format(number) for number in range(400)]
    assert told["throughput"] == sorted(told["throughput"])


def test_a_dry_run_claims_nothing(tmp_path: Path) -> None:
    report = a_report(tmp_path / "run.json", command=["ursa", "batch", "/nas", "--dry-run"])
    report.add(ok(0))
    report.finish(0, {})
    told = read(tmp_path / "run.json")["verdict"]
    assert (
        told["level"] == "warn" and "nothing was sent or written" in told["words"] and "registered" not in told["words"]
    )


def test_the_page_tells_the_command_as_a_shell_takes_it_again_and_what_was_not_reached(tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    report = a_report(path, command=["/opt/my venv/bin/ursa", "batch", "/our nas", "--settle", "10m"])
    report.expect(3)
    report.add(ok(0))
    report.add(RecordingEntry(REC.format(1), "/nas/1", "skip", message="the time is over", reached=False))
    report.finish(3, {})
    text = path.read_text()
    assert "<code>ursa batch &#x27;/our nas&#x27; --settle 10m</code>" in text
    assert "0 failed, 0 skipped, 2 not reached" in text and "2 of 3 recordings were not reached" in text
    told = read(path)
    assert told["counts"]["skip"] == 0 and len(told["recordings"]) == 2


def test_what_ended_the_run_is_in_it(tmp_path: Path) -> None:
    report = a_report(tmp_path / "run.html")
    report.finish(11, {}, LockHeldError("another run", hint="Wait for it."))
    told = read(tmp_path / "run.html")
    assert told["error"] == {"error": "LockHeldError", "message": "another run", "hint": "Wait for it."}
    assert "Wait for it." in (tmp_path / "run.html").read_text().partition("</section>")[0]
    report.finish(1, {}, ValueError("a bug"))
    assert read(tmp_path / "run.html")["error"]["error"] == "ValueError"


ANY = st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=30)


@given(ANY | st.sampled_from(["</script>", "<!--", "<!--ursa:DATA-->", "]]>", "\u2028", "\udcff", "&lt;", "<script>"]))
def test_any_text_comes_back_and_none_is_markup(text: str) -> None:
    path = Path(os.environ["HOME"]) / "run.html"
    report = a_report(path, profile=text, roots=[text])
    report.add(failed(0, message=text, hint=text, error=text, warnings=(text,)))
    report.finish(3, {"x": text})
    told = read(path)
    assert told["profile"] == told["roots"][0] == told["recordings"][0]["hint"] == told["summary"]["x"] == text
    elements: Counter[str] = Counter()

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            elements[tag] += 1

    Parser().feed(path.read_text(encoding="utf-8"))
    assert (elements["script"], elements["style"], elements["article"], elements["img"]) == (2, 1, 1, 0)


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    report = a_report(tmp_path / "run.json")
    report.add(failed(0, message="x" * 100_000, warnings=tuple("w" * 10_000 for _ in range(1000))))
    report.finish(3, {})
    (entry,) = read(tmp_path / "run.json")["recordings"]
    assert entry["message"].endswith("(96000 more characters: see the log)")
    assert entry["warnings"][-1] == "and 950 more: see the log" and len(json.dumps(entry)) < 300_000


def test_the_page_shows_failures_before_skips_however_many(tmp_path: Path) -> None:
    report = a_report(tmp_path / "run.html")
    for number in range(300):
        report.add(RecordingEntry(REC.format(number), "/nas", "skip", message="no manifest"))
    report.add(failed(999))
    report.finish(3, {})
    shown = (tmp_path / "run.html").read_text(encoding="utf-8").partition('id="data"')[0]
    assert shown.count("<article") == 200 and "And 101 more" in shown
    assert REC.format(999) in shown.partition("<article")[2].partition("</article>")[0]


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1 << 40)), max_size=2_000))
def test_the_curve_has_few_points_and_its_ends(steps: list[tuple[float, int]]) -> None:
    curve, at, sent = Curve(), 0.0, 0
    for later, more in steps:
        at, sent = at + later, sent + more
        curve.add(at, sent)
    assert len(curve.points) <= MOST_POINTS
    assert curve.points == sorted(curve.points)
    if steps:
        assert curve.points[0][0] == round(steps[0][0], 2)
        assert curve.points[-1] == (round(at, 2), sent)


def test_the_curve_stays_even_over_a_long_run() -> None:
    curve = Curve()
    for second in range(100_000):
        curve.add(float(second), second * 1000)
    apart = [later[0] - earlier[0] for earlier, later in zip(curve.points, curve.points[1:], strict=False)]
    assert MOST_POINTS / 4 < len(curve.points) <= MOST_POINTS
    assert max(apart) < 4 * sorted(apart)[len(apart) // 2]
    curve.add(5.0, 1)  # the clock went back
    assert curve.points[-1][0] == 99_999.0


def test_ten_thousand_recordings_are_little_to_hold(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "run.html"
    tracemalloc.start()
    try:
        report = a_report(path, clock)
        for number in range(10_000):
            clock.now_s += 0.01
            report.add(ok(number) if number % 10 else failed(number, message="m" * 200))
        tracemalloc.reset_peak()
        report.finish(3, {})
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(read(path)["recordings"]) == 10_000
    size = path.stat().st_size
    # What is held is about what is written; writing it takes no second copy.
    assert held < 1.5 * size and peak < held + size / 2, (held, peak, size)
