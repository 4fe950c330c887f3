"""What is opened when, what a refresh asks for, and what memory is given back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bucket_tap import Tap, asked_of
from homes import Place, add_recordings, recording, registration

from conftest import Buckets
from proxy import FaultProxy
from servers import S3Server
from ursa.errors import StorageError
from ursa.register.commit import register


def test_one_round_trip_where_nobody_has_committed(
    weed_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy], tmp_path: Path
) -> None:
    """The pointer and the three logs, side by side; and no file."""
    server = weed_buckets.server
    proxy = fault_proxy(server)
    place = Place(None, proxy.url, weed_buckets.assets, server.access_key, server.secret_key, tmp_path / "a")
    place.home().initialize()
    catalog, other = place.catalog(), place.elsewhere(tmp_path / "b").catalog()
    catalog.refresh()
    proxy.clear()
    catalog.refresh()
    assert sorted(entry.kind for entry in proxy.log) == ["get", "list", "list", "list"]
    assert [entry.path.rpartition("/")[2] for entry in proxy.log if entry.kind == "get"] == ["ACTIVE.json"]
    catalog.refresh(within_s=60)
    assert proxy.count() == 4
    register(other, registration(1))
    catalog.refresh()
    assert [row.rec_id for row in catalog.list_recordings()] == [registration(1).row.rec_id]


def test_nothing_is_asked_before_it_is_needed(tmp_path: Path) -> None:
    place, tap = Place(tmp_path), Tap()
    place.home().initialize()
    catalog = place.catalog(tap=tap)
    assert tap.count() == 0
    assert catalog.recordings.version == 0
    assert tap.count() > 0


def test_a_handle_that_slept_lists_the_log(tmp_path: Path) -> None:
    """The next commit may be among those that were deleted for their age, with a checkpoint after it."""
    place = Place(tmp_path)
    catalog, other = place.catalog(), place.elsewhere(tmp_path / "other").catalog()
    catalog.refresh()
    for number in range(12):
        add_recordings(other, [recording(number)])
    log = tmp_path / "assets/ursa/catalog/v1/recordings/_delta_log"
    assert (log / f"{11:020}.checkpoint.parquet").exists()
    for version in range(11):
        (log / f"{version:020}.json").unlink()
    catalog.recordings.refresh()
    assert catalog.recordings.version == other.recordings.version == 12
    assert catalog.list_recordings() == [recording(number) for number in range(12)]


def test_opened_by_several_threads_at_once(tmp_path: Path) -> None:
    Place(tmp_path).home().initialize()
    catalog = Place(tmp_path).catalog()
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: (catalog.refresh(), catalog.participants)[1], range(8)))
    assert all(table is opened[0] for table in opened)
    assert set(catalog.locations()) == {"recordings", "modalities", "participants"}


def test_a_request_that_failed_is_made_again(tmp_path: Path) -> None:
    """Side by side with others that did not: the first error is told, and the next call sees everything."""
    place, tap = Place(tmp_path), Tap()
    register(place.catalog(), registration(1))
    for asked in ("recordings", "modalities", "participants"):
        catalog = place.catalog(tap=tap)
        tap.fail(asked_of(asked), StorageError(f"{asked}: down"))
        with pytest.raises(StorageError, match=f"{asked}: down"):
            catalog.refresh()
        catalog.refresh()
        assert len(catalog.list_recordings()) == len(catalog.list_modalities()) == 1


def test_a_process_that_ends_while_they_are_opened_ends_well(tmp_path: Path) -> None:
    Place(tmp_path).home().initialize()
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from homes import Place
from ursa.catalog.overview import overview
overview(Place(Path({str(tmp_path)!r})).catalog(), since="yesterday-ish")
"""
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
        assert run.returncode == 1 and "yesterday-ish" in run.stderr


@pytest.mark.parametrize("own", [None, "dirty_decay_ms:1"])
def test_the_allocator_is_told_before_it_is_loaded(own: str | None) -> None:
    """deltalake reads the variable once; whoever has set it knows better."""
    script = (
        "import ursa.catalog, sys, os; assert 'deltalake' not in sys.modules; print(os.environ['_RJEM_MALLOC_CONF'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "_RJEM_MALLOC_CONF"}
    environment |= {"_RJEM_MALLOC_CONF": own} if own else {}
    run = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert run.stdout.strip() == (own or "dirty_decay_ms:0,narenas:2")


def test_a_process_that_ends_while_tables_are_opened(tmp_path: Path) -> None:
    """deltalake's calls come back to no interpreter, and the process ends with a crash in place of its own exit code."""
    Place(tmp_path).catalog().refresh()
    command = [sys.executable, str(Path(__file__).with_name("leaving.py")), str(tmp_path)]
    for _ in range(3):
        assert subprocess.run(command, check=False).returncode == 0
