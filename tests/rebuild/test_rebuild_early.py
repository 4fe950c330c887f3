"""A catalog as the first ursa made it: named in words by whoever opens it, and mended by a rebuild."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grown
import pytest
from frozen import plain, snapshot
from grown import Lab, tables, zoo

from foreign import bucket_table, overwrite
from helpers import run_ursa
from ursa import StorageError
from ursa.catalog.arrow import MODALITIES
from ursa.rebuild import run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An empty directory store, and a NAS beside it."""
    monkeypatch.setattr(run, "SETTLES_S", 0.5)
    return grown.lab(tmp_path)


def rewrite(here: Lab) -> None:
    """Give the live modalities table a schema without ``rec_id``."""
    fields = [field for field in MODALITIES.schema.fields if field.name != "rec_id"]
    with here.open() as data:
        table = data._catalog.modalities
        names = ", ".join(field.name for field in fields)
        rows: Any = table.query(f"SELECT {names} FROM modalities")
        there = bucket_table(data, "modalities")
        overwrite(there, rows)
        assert [field.name for field in there.schema().fields] == [field.name for field in fields]


def test_said_in_words(here: Lab) -> None:
    """By a command, and by the doctor; neither speaks of the network."""
    plain(here, 0)
    rewrite(here)
    done = run_ursa("ls", "-p", "local", "--config", here.config)
    assert done.returncode == 1
    assert "has no column rec_id: an early version of ursa made it" in done.stderr
    assert "ursa catalog rebuild --yes" in done.stderr and "network" not in done.stderr
    done = run_ursa("doctor", "-p", "local", "--config", here.config)
    (line,) = [line for line in done.stdout.splitlines() if "has no column rec_id" in line]
    assert done.returncode == 1 and line.startswith("FAIL") and "ursa catalog rebuild --yes" in done.stdout


def test_a_rebuild_mends_it(here: Lab) -> None:
    """Whatever the catalog knew is there again, as a rebuild of a catalog of now would leave it."""
    zoo(here)
    before = tables(here.open())
    rewrite(here)
    untouched = snapshot(here.assets)
    with here.open() as data:
        planned = data.rebuild(dry_run=True)
    assert snapshot(here.assets) == untouched
    result = here.rebuild()
    assert (result.recordings, result.modalities, result.told) == (planned.recordings, planned.modalities, planned.told)
    assert result.recordings_before == len(before["recordings"])
    assert not result.new and not result.lost
    after = tables(here.open())
    assert {(row.name, row.rec_id) for row in after["modalities"]} == {
        (row.name, row.rec_id) for row in before["modalities"]
    }
    assert after["recordings"] == before["recordings"] and after["participants"] == before["participants"]
    with here.open() as data:
        assert all(check.ok for check in data.verify(everything=True))


def test_given_up(here: Lab) -> None:
    """The rebuild of such a catalog can be given up; the catalog is as it was."""
    plain(here, 0)
    rewrite(here)
    assert here.rebuild(flip=False).prefix == "catalog/v2"
    with here.open() as data:
        assert data.abort_rebuild() == "catalog/v2"
    assert here.rebuild().recordings == 1


def test_going_back_to_it(here: Lab) -> None:
    """Nothing of now can use it: it stays left."""
    plain(here, 0)
    rewrite(here)
    here.rebuild()
    with here.open() as data, pytest.raises(StorageError, match="an early version of ursa made it"):
        data.rebuild_back()
    assert grown.pointer(here)["prefix"] == "catalog/v2"
    plain(here, 1)


def test_a_table_that_nobody_of_us_made(here: Lab) -> None:
    plain(here, 0)
    with here.open() as data:
        table = data._catalog.recordings
        overwrite(bucket_table(data, "recordings"), table.query("SELECT rec_id FROM recordings"))
    for action in (lambda: here.open().list_recordings(), here.rebuild):
        with pytest.raises(
            StorageError, match=r"no column recording_hash, hash_bucket, .* no version of ursa"
        ) as refused:
            action()
        assert "who changed the assets bucket" in (refused.value.hint or "")
