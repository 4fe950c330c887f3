"""What is opened when, what a refresh asks for, and what memory is given back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from homes import Place, add_recordings, recording, registration
from ursa.catalog.later import Later

import ursa.catalog.tables as tables
from conftest import Buckets
from proxy import FaultProxy
from servers import S3Server
from ursa.register.commit import register


def test_one_request_where_nobody_has_committed(
    weed_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy]
) -> None:
    server = weed_buckets.server
    proxy = fault_proxy(server)
    place = Place(None, proxy.url, weed_buckets.assets, server.access_key, server.secret_key)
    place.home().initialize()
    catalog, other = place.catalog(), place.catalog()
    proxy.clear()
    catalog.refresh()
    assert [entry.kind for entry in proxy.log] == ["head", "head"]
    catalog.refresh(within_s=60)
    assert proxy.count() == 2
    assert not [entry for entry in proxy.log if "participants" in entry.path]
    register(other, registration(1))
    catalog.refresh()
    assert [row.rec_id for row in catalog.list_recordings()] == [registration(1).row.rec_id]


def test_a_handle_that_slept_lists_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next commit may be among those that were deleted for their age, with others after it."""
    catalog, other = Place(tmp_path).catalog(), Place(tmp_path).catalog()
    for number in range(12):
        add_recordings(other, [recording(number)])
    for version in (1, 2):
        (tmp_path / f"assets/ursa/catalog/v1/recordings/_delta_log/{version:020}.json").unlink()
    monkeypatch.setattr(tables, "_LISTED_WITHIN_S", 0.0)
    catalog.recordings.refresh()
    assert catalog.recordings.version == other.recordings.version == 12


def test_participants_are_opened_by_who_needs_them(tmp_path: Path) -> None:
    catalog = Place(tmp_path).catalog()
    assert set(catalog.locations()) == {"recordings", "modalities", "participants"}
    register(catalog, registration(1))
    catalog.maintain()
    assert not catalog._participants.begun
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: catalog.participants, range(4)))
    assert all(table is opened[0] for table in opened)


def test_made_once_and_again_after_a_failure() -> None:
    made: list[int] = []
    go = threading.Event()

    def make() -> int:
        assert go.wait(10)
        made.append(len(made))
        if len(made) == 1:
            raise OSError("down")
        return made[-1]

    later = Later(make)
    later.begin()
    later.begin()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(later.get) for _ in range(2)]
        go.set()
        outcomes = {repr(future.exception() or future.result()) for future in waiting}
    assert "OSError('down')" in outcomes
    assert later.get() == later.get() == 1
    assert made == [0, 1]


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
