"""Four processes ingest all the time while rebuilds run and flip: every recording once, none lost, nobody fails."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import grown
import pytest
from grown import Lab, name

from ursa import participant_id

WRITERS = 4
FLIPS = 3


@pytest.fixture
def here(tmp_path: Path) -> Lab:
    """An empty directory store, and a NAS beside it."""
    return grown.lab(tmp_path)


def wait_for(here: Lab, count: int) -> None:
    """Until so many recordings are in the bucket."""
    deadline = time.monotonic() + 60
    while not here.bucket.exists() or len(list(here.bucket.iterdir())) < count:
        assert time.monotonic() < deadline, "the writers write nothing"
        time.sleep(0.05)


@pytest.mark.slow
def test_writers_meanwhile(here: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ursa.rebuild.run.SETTLES_S", 30.0)
    script = Path(__file__).with_name("writer.py")
    here.open().init_catalog()
    writers = [
        subprocess.Popen(
            [sys.executable, str(script), str(here.root), str(number), str(WRITERS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(WRITERS)
    ]
    try:
        results = []
        for flips in range(1, FLIPS + 1):
            wait_for(here, 10 * flips)
            results.append(here.rebuild())
        wait_for(here, 2 + len(list(here.bucket.iterdir())))
    finally:
        (here.root / "stop").touch()
        ended = [writer.communicate(timeout=120) for writer in writers]
    assert [errors for _out, errors in ended if errors] == []
    lines = [line for out, _errors in ended for line in out.splitlines()]
    assert {line.split()[1] for line in lines} == {"created"}
    assert all(result.recordings_before > 0 for result in results)
    done = sorted(line.split()[0] for line in lines)
    assert len(done) == len(set(done)) > WRITERS
    assert all(result.flipped and not result.lost for result in results)
    assert grown.pointer(here)["prefix"] == results[-1].prefix == f"catalog/v{FLIPS + 1}"
    with here.open() as data:
        rows = data.list_recordings()
        assert [row.rec_id for row in rows] == done
        expected = {name(number): participant_id(f"Participant {number % 7}") for number in range(10 * len(done))}
        assert all(row.participant_ids == (expected[row.rec_id],) for row in rows)
        assert len(data.list_modalities()) == 2 * len(done)
        assert len(data._catalog.modalities.select()) == 2 * len(done)
        assert all(check.ok for check in data.verify(everything=True))
