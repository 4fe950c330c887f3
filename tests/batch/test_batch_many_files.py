"""Two hundred thousand files in one directory, among recordings as they usually are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from batch_tools import age, make_lab, rec

COUNT = 200_000


@pytest.mark.slow
def test_a_directory_of_empty_files_stops_nobody(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)
    lab.make(1)
    crowded = lab.make(2)
    for number in range(COUNT):
        os.close(os.open(crowded / "eeg_a" / f"{number:06d}", os.O_CREAT | os.O_WRONLY))
    lab.make(3)
    age(crowded)
    first = lab.run(dry_run=True)
    assert [outcome.status for outcome in first] == ["ok"] * 3
    assert first[1].plan is not None and len(first[1].plan.files) == COUNT + 2
    outcomes = lab.run(max_duration_s=20)
    assert [outcome.status for outcome in (outcomes[0], outcomes[2])] == ["ok", "ok"]
    assert lab.rows() in ([rec(1), rec(3)], [rec(1), rec(2), rec(3)])
    assert outcomes[1].status == "ok" or "it goes on next time" in outcomes[1].reason
