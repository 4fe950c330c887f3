"""A few actions at once: results in their order, errors, and that all have ended."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from ursa.beside import at_once

HANGS = """
import threading, time
from ursa.beside import at_once
begun = threading.Event()
hangs = lambda: begun.set() or time.sleep(600)
threading.Thread(target=at_once, args=(hangs, hangs), daemon=True).start()
begun.wait()
"""


def test_results_in_the_order_of_actions_that_wait_for_each_other() -> None:
    all_there = threading.Barrier(3, timeout=60)

    def action(result: int) -> Callable[[], int]:
        return lambda: (all_there.wait(), result)[1]

    assert at_once(*map(action, (3, 1, 2))) == (3, 1, 2)
    assert at_once(lambda: "alone") == ("alone",)


def test_the_first_error_is_told_when_all_have_ended() -> None:
    failed, ended = threading.Event(), threading.Event()

    def fails() -> None:
        failed.set()
        raise ValueError("first")

    def fails_later() -> None:
        assert failed.wait(60)
        ended.set()
        raise KeyError("second")

    with pytest.raises(ValueError, match="first"):
        at_once(fails, fails_later)
    assert ended.is_set()


def test_what_hangs_keeps_no_process_from_ending() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], timeout=60, check=False)
    assert done.returncode == 0
