"""Progress on a terminal, in a pipe, as JSON Lines; the terminal is a pseudo-terminal, its screen emulated by pyte."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyte", reason="pyte, the terminal emulator, is not installed")

from events_of import MIB, REC, upload
from terminal import terminal

from helpers import make_recording, run_ursa
from servers import find_executable
from ursa.events import DownloadProgress, HashProgress
from ursa_cli.progress import Bars
from ursa_cli.progress_rows import Row, laid_out, rows_of
from ursa_cli.progress_state import Standing
from ursa_cli.render import Printer

TWO = """
with Bars(enabled=True, lines=False, color=True) as bars:
    bars.expect(3)
    bars.upload(upload(REC.format(0), 30 * MIB))
    bars.upload(upload(REC.format(1), 60 * MIB, current_file="camera_left/big.mp4", file_bytes_done=60 * MIB,
        file_bytes_total=90 * MIB))
    wait()
    bars.finished(REC.format(0))
    wait()
print("END")
"""


@pytest.mark.parametrize("columns", [80, 120])
def test_the_run_the_recordings_and_their_large_files(columns: int) -> None:
    with terminal(TWO, columns) as shown:
        lines = shown.until(lambda lines: any("big.mp4" in line and "60.0/90.0 MiB" in line for line in lines))
        assert "0 of 3 recordings" in lines[0] and "90.0/200.0 MiB" in lines[0]
        assert REC.format(0) in lines[1] and "30.0/100.0 MiB" in lines[1] and "5.0 MiB/s 0:00:20 left" in lines[1]
        assert REC.format(1) in lines[2]
        assert "camera_left/big" in lines[3] and len(lines) == 4
        assert all(len(line) < columns and "━" in line for line in lines)
        shown.step()
        lines = shown.until(lambda lines: "1 of 3 recordings" in lines[0] and len(lines) == 3)
        assert not any(REC.format(0) in line for line in lines)
        shown.step()
        assert shown.until(lambda lines: lines[-1] == "END") == ["END"]


def test_printed_lines_stay_whole_above_the_bars() -> None:
    script = """
log = logging.getLogger("ursa")
log.addHandler(logging.StreamHandler())
with Bars(enabled=True, lines=False, color=False) as bars:
    def events():
        for at in range(4000):
            bars.upload(upload(REC.format(at % 3), at))
    thread = threading.Thread(target=events)
    thread.start()
    for number in range(60):
        with bars.print_above():
            print(f"OK   {number:03}", "x" * 90)
        if number % 10 == 0:
            print("remark", number, file=sys.stderr)
            log.warning("logged %s", number)
            time.sleep(0.25)
    thread.join()
    wait()
print("END")
"""
    with terminal(script, 80, 20) as shown:
        shown.until(lambda lines: any(line.startswith("OK   059") for line in lines) and "MiB/s" in lines[-1])
        assert b"recordings" in shown.written
        shown.step()
        lines = shown.until(lambda lines: lines[-1] == "END")[:-1]
        wanted = []
        for number in range(60):
            text = f"OK   {number:03} " + "x" * 90
            wanted += [text[:80], text[80:]]
            wanted += [f"remark {number}", f"logged {number}"] if number % 10 == 0 else []
        assert lines == wanted


def test_more_recordings_than_rows_and_a_resize() -> None:
    script = """
with Bars(enabled=True, lines=False, color=True) as bars:
    print("ABOVE")
    for number in range(40):
        bars.upload(upload(REC.format(number), number * MIB))
    wait()
print("END")
"""
    with terminal(script, 100, 16) as shown:
        lines = shown.until(lambda lines: len(lines) > 1 and "more" in lines[-1])
        assert lines[0] == "ABOVE" and len(lines) == 13
        assert "0 recordings" in lines[1] and lines[-1] == " … and 30 more"
        shown.resize(70, 16)
        lines = shown.until(lambda lines: lines[-1] == " … and 30 more" and max(map(len, lines)) < 70)
        assert lines[0] == "ABOVE" and len(lines) == 13
        shown.resize(110, 30)
        lines = shown.until(lambda lines: lines[-1] == " … and 18 more" and len(lines[2]) > 70)
        assert lines[0] == "ABOVE" and len(lines) == 25
        shown.step()
        assert shown.until(lambda lines: lines[-1] == "END")[0] == "ABOVE"


def test_no_colour_and_a_terminal_that_can_do_nothing() -> None:
    with terminal(TWO.replace("color=True", "color=False"), 80) as shown:
        shown.until(lambda lines: "0 of 3 recordings" in lines[0])
        assert not re.search(rb"\x1b\[[\d;]*m", shown.written)
        shown.step()
        shown.step()
        shown.until(lambda lines: lines[-1] == "END")
    with terminal(TWO, 80, TERM="dumb") as shown:
        shown.step()
        shown.step()
        shown.until(lambda lines: lines[-1] == "END")
        assert shown.written.strip() == b"END"


def test_stdout_into_a_file_keeps_its_lines(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    script = f"""
sys.stdout = open({str(target)!r}, "w")
with Bars(enabled=True, lines=False, color=False) as bars:
    bars.upload(upload(REC.format(0), MIB))
    with bars.print_above():
        print("OK   line")
    wait()
"""
    with terminal(script, 80) as shown:
        lines = shown.until(lambda lines: REC.format(0) in lines[0])
        assert len(lines) == 1
        shown.step()
    assert target.read_text() == "OK   line\n"


def test_ctrl_c_leaves_a_clean_screen(tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC.format(0), {"camera_left/big.mp4": os.urandom(MIB) * 40})
    words = [find_executable("ursa"), "ingest", str(rec_dir), "-p", "local", "--bwlimit", "2M"]
    with terminal(f"os.execv({words[0]!r}, {words!r})", 100, code=130) as shown:
        shown.until(lambda lines: any("MiB/s" in line for line in lines))
        os.write(shown.file, b"\x03")
        with pytest.raises(AssertionError, match="it ended before"):
            shown.until(lambda lines: False)
        lines = [line for line in shown.lines() if line.strip("^C ")]
        assert lines[0].startswith("ursa: stopping") and "ursa: InterruptedRunError" in lines[1]
        assert not any("━" in line for line in lines)


class Clock:
    """A monotonic clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_json_lines_at_most_one_a_second_of_a_long_run(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    out = Printer(json=True, quiet=False, color=False)
    with Bars(enabled=True, lines=True, color=True, printer=out, monotonic=clock) as bars:
        bars.expect(2)
        bars.upload(upload(REC.format(0), phase="plan", current_file=""))
        for number in range(101):
            clock.now += 0.1
            phase = "file_done" if number % 7 == 0 else "upload"
            bars.upload(upload(REC.format(0), number * MIB, phase=phase))
        bars.upload(upload(REC.format(0), 100 * MIB, phase="register"))
        bars.finished(REC.format(0))
    captured = capsys.readouterr()
    printed = [json.loads(line) for line in captured.out.splitlines()]
    assert captured.err == ""
    assert all((each["schema_version"], each["type"], each["of"]) == (1, "progress", "upload") for each in printed)
    assert 5 <= len(printed) <= 6 and printed[0]["bytes_uploaded"] >= 49 * MIB
    assert printed[-1]["bytes_uploaded"] == printed[-1]["overall"]["bytes_done"]
    assert printed[-1]["overall"]["recordings_total"] == 2


def test_lines_in_a_pipe_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    for lines in (False, True):
        with Bars(enabled=False, lines=lines, color=False, monotonic=clock) as bars:
            for number in range(10):
                clock.now += 10
                bars.upload(upload("rec_\x1b[31m\u202e", number * MIB))
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.splitlines()) == (3 if lines else 0)
        assert "\x1b" not in told.err and "\u202e" not in told.err


def test_what_a_run_adds_up_to() -> None:
    clock = Clock()
    state = Standing(clock)
    state.expected = 4
    state.take("a", upload("a", 40 * MIB), 40 * MIB, 10 * MIB)
    clock.now += 2
    state.take("a", upload("a", 60 * MIB), 60 * MIB, 10 * MIB)
    state.finish("a")
    state.finish("b")
    state.take("c", upload("c", 5 * MIB), 5 * MIB, 0)
    whole = state.overall()
    assert (whole.recordings_done, whole.recordings_in_flight, whole.recordings_total) == (2, 1, 4)
    assert (whole.bytes_done, whole.bytes_total) == (65 * MIB, 160 * MIB)
    # Nobody has counted the bytes of the fourth: the time left is by recordings, one a second so far.
    assert whole.eta_s == 2.0
    assert [each.name for each in state.in_flight()] == ["c"]


def test_every_kind_of_event_has_its_line() -> None:
    bars = Bars(enabled=False, lines=False, color=False)
    bars.download(DownloadProgress("modality_start", "r", "eeg", "eeg_a/x.edf", 5, 10, 0, 1, 1.0))
    bars.hash(HashProgress("plan", "rec_b", "", 0, 0, 0, 0, 0.0))
    rows = rows_of(*bars._picture(), 10)
    assert [(row.name, row.what, row.amount) for row in rows[1:]] == [
        (" download", "eeg_a/x.edf", "5/10 B"),
        (" rec_b", "checking", ""),
    ]


@pytest.mark.parametrize("columns", [1, 9, 20, 40, 79, 200])
def test_no_line_is_longer_than_the_terminal(columns: int) -> None:
    from rich.cells import cell_len

    rows = [
        Row(" 録音" * 30, 5 * MIB, 1 << 40, "12.3 MiB/s 1:00:00 left", "カメラ/" * 40),
        Row(" [red]x\x1b[2J\u202e", 0, 0, "", "listing"),
        Row(" … and 3 more"),
    ]
    for color in (True, False):
        for ascii_only in (True, False):
            for line in laid_out(rows, columns, color=color, ascii_only=ascii_only):
                bare = line.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[36m", "").replace("\x1b[0m", "")
                assert cell_len(bare) <= columns and "\x1b" not in bare and "\u202e" not in bare
                assert color or line == bare


def test_events_cost_little_beside_what_they_tell_of() -> None:
    """An event takes less time than hashing 10 KiB does."""
    import hashlib

    bars = Bars(enabled=False, lines=False, color=False)
    events = [upload(REC.format(number % 4), number, current_file=f"c/{number}") for number in range(20_000)]
    block = bytes(10_240)

    def timed(work: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            work()
            best = min(best, time.process_time() - began)
        return best

    told = timed(lambda: [bars.upload(event) for event in events])
    hashed = timed(lambda: [hashlib.sha256(block) for _ in events])
    assert told < hashed


def test_json_of_a_real_run_streams_progress(tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC.format(0), {"eeg_a/seg_000.edf": os.urandom(7 * MIB)})
    done = run_ursa("ingest", rec_dir, "-p", "local", "--json", "--bwlimit", "1M")
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    progress = [each for each in printed if each["type"] == "progress"]
    assert progress and all(each["of"] == "upload" for each in progress)
    assert [each["type"] for each in printed if each["type"] != "progress"] == ["recording", "summary"]
