"""Back to the catalog that a rebuild has replaced: nothing that was registered since is lost, one catalog takes writes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import grown
import pytest
from frozen import frozen, plain, snapshot
from grown import DAY_S, Lab, content, name

import ursa.rebuild.back as back_module
from conftest import Buckets, MakeConfig
from helpers import make_recording, manifest_of, run_ursa
from ursa import ConflictError, DataInterface, MissingFilesError, StorageError, UsageError
from ursa.catalog._pointer import Pointer
from ursa.catalog.catalog import Catalog
from ursa.rebuild import run
from ursa.rebuild.flip import tables as tables_of


@pytest.fixture
def here(tmp_path: Path) -> Lab:
    """An empty directory store, and a NAS beside it."""
    return grown.lab(tmp_path)


@pytest.fixture(autouse=True)
def settles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads that have just ended are waited for half a second."""
    monkeypatch.setattr(run, "SETTLES_S", 0.5)


def back(here: Lab, **options: Any) -> Any:
    with here.open("assets_rw") as data:
        return data.rebuild_back(**options)


def live(here: Lab) -> str:
    """The live prefix; it takes writes, and no other catalog does."""
    prefix = grown.pointer(here)["prefix"]
    with here.open() as data:
        for path in (here.assets / "catalog").iterdir():
            catalog = Catalog(data._home, Pointer(f"catalog/{path.name}", "", "", None))
            wanted = [f"catalog/{path.name}" != prefix] * 3
            assert [table.frozen is not None for table in tables_of(catalog)] == wanted
    return str(prefix)


def rec_ids(here: Lab) -> list[str]:
    with here.open() as data:
        rows = data.list_recordings()
        assert {row.rec_id for row in data.list_modalities()} == {row.rec_id for row in rows}
        return [row.rec_id for row in rows]


def rebuilt(here: Lab) -> None:
    """Two recordings and a third that only the bucket knew; then a rebuild, which finds it."""
    plain(here, 0, 1)
    make_recording(here.bucket, name(2), content(2))
    here.age(DAY_S, name(2))
    assert here.rebuild().new == (name(2),)


def edit(here: Lab, number: int) -> None:
    with here.open() as data:
        row = data.find_recording(name(number))
        data.register_recording(recording_hash=row.recording_hash, duration_s=99.0, on_conflict="extend")


def test_back_and_forth(here: Lab) -> None:
    """What has changed since goes along: a new recording, an edit, a participant; and writers go on."""
    rebuilt(here)
    plain(here, 3)
    edit(here, 0)
    with here.open() as data:
        data.register_participant("Late Comer")
    planned, before = back(here, dry_run=True), snapshot(here.assets)
    assert back(here, dry_run=True) == planned and snapshot(here.assets) == before and planned.dry_run
    result = back(here)
    assert (result.prefix, result.previous) == ("catalog/v1", "catalog/v2") and live(here) == "catalog/v1"
    assert (result.carried, result.disappear) == ((name(0), name(3)), (name(2),))
    assert (result.reappear, result.change, result.missing) == ((), (), ())
    assert rec_ids(here) == [name(0), name(1), name(3)]
    with here.open() as data:
        assert data.find_recording(name(0)).duration_s == 99.0 and data.find_recording(name(3)).participant_ids
        assert "Late Comer" in [row.display_name for row in data.list_participants()]
        assert all(check.ok for check in data.verify(everything=True))
        assert grown.pointer(here)["previous"] == "catalog/v2"
    plain(here, 4)
    # And forth: what the rebuild had found is there again, with what came to the old one.
    result = back(here)
    assert (result.carried, result.disappear, result.reappear) == ((name(4),), (), (name(2),))
    assert live(here) == "catalog/v2" and rec_ids(here) == [name(number) for number in range(5)]
    assert here.rebuild().prefix == "catalog/v3" and live(here) == "catalog/v3"


def test_undone_since(here: Lab) -> None:
    """What was taken out of the new catalog does not come back through the old one."""
    rebuilt(here)
    with here.open() as data:
        filled = next(item for item in data.catalog_history() if item.filled)
    plain(here, 3)
    with here.open() as data:
        data.undo(filled.operation_id)
    result = back(here)
    assert result.carried == () and rec_ids(here) == [name(0), name(1)]


def test_a_kept_handle_goes_on(here: Lab) -> None:
    """Whoever has either catalog open, and a writer that waits while it is frozen."""
    plain(here, 0)
    with here.open() as early:
        assert len(early.list_recordings()) == 1
        here.rebuild()
        with here.open() as late:
            assert len(late.list_recordings()) == 1
            back(here)
            for number, data in ((1, early), (2, late)):
                rec_dir = make_recording(here.nas, name(number), content(number))
                assert data.ingest(rec_dir / "manifest.json", rec_dir).action == "created"
    assert live(here) == "catalog/v1" and rec_ids(here) == [name(0), name(1), name(2)]


def test_nothing_to_go_back_to(here: Lab) -> None:
    plain(here, 0)
    with pytest.raises(UsageError, match="catalog/v1 is the only catalog"):
        back(here)


def test_a_rebuild_under_way(here: Lab) -> None:
    rebuilt(here)
    here.rebuild(flip=False)
    with pytest.raises(ConflictError, match="a rebuild into catalog/v3 is under way") as refused:
        back(here)
    assert "--abort" in (refused.value.hint or "") and grown.pointer(here)["prefix"] == "catalog/v2"


def test_bytes_that_only_the_old_rows_speak_of(here: Lab) -> None:
    """A recording that the rebuild went on without: going back must not register it without its bytes."""
    plain(here, 0, 1)
    (here.bucket / name(1) / "eeg_a" / "seg_000.edf").unlink()
    here.rebuild(drop_lost=True)
    plain(here, 2)
    assert back(here, dry_run=True).missing == (f"{name(1)}/eeg_a/seg_000.edf",)
    with pytest.raises(MissingFilesError, match=name(1)) as refused:
        back(here)
    assert "--drop-lost" in (refused.value.hint or "")
    assert live(here) == "catalog/v2" and rec_ids(here) == [name(0), name(2)]
    result = back(here, drop_lost=True)
    assert result.carried == (name(1), name(2)) and live(here) == "catalog/v1"
    assert rec_ids(here) == [name(0), name(2)]


class Killed(BaseException):
    """As if the process had gone away."""


def die(*_: Any, **__: Any) -> None:
    raise Killed


@pytest.mark.parametrize("step", ["frozen", "carried", "flipped"])
def test_killed_and_typed_again(here: Lab, step: str) -> None:
    """Readers always have a whole catalog; the same command ends it, and so does --abort."""
    rebuilt(here)
    plain(here, 3)
    for command in (back, lambda lab: lab.open().abort_rebuild(), back):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ursa.rebuild.flip._release_quietly", lambda *_: None)
            if step == "flipped":
                patch.setattr(back_module, "_thaw", die)
            elif step == "frozen":
                patch.setattr(back_module, "_carry", die)
            else:
                patch.setattr("ursa.rebuild.flip.write_pointer", die)
            with pytest.raises(Killed):
                back(here)
        assert len(frozen(here)) == 3 and None not in frozen(here)
        assert {name(0), name(1), name(3)} <= set(rec_ids(here))
        command(here)
        live(here)
        assert {name(0), name(1), name(3)} <= set(rec_ids(here))


def test_registered_while_it_compares(here: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first look and the freeze, and by a writer that waits in the frozen catalog."""
    rebuilt(here)
    compare, carry = back_module._compare, back_module._carry
    waiting = threading.Thread(target=plain, args=(here, 4))

    def and_then(*args: Any) -> Any:
        found = compare(*args)
        if not (here.nas / name(3)).exists():
            plain(here, 3)
        return found

    def and_wait(*args: Any) -> None:
        carry(*args)
        waiting.start()
        waiting.join(1.5)
        assert waiting.is_alive()

    monkeypatch.setattr(back_module, "_compare", and_then)
    monkeypatch.setattr(back_module, "_carry", and_wait)
    assert back(here).carried == (name(3),)
    waiting.join(60)
    assert live(here) == "catalog/v1" and rec_ids(here) == [name(0), name(1), name(3), name(4)]


def test_two_at_once(here: Lab) -> None:
    """Two admins go back: one catalog is live, it takes writes, and it has every row once."""
    rebuilt(here)
    plain(here, 3)
    ended: list[object] = []

    def one() -> None:
        try:
            ended.append(back(here))
        except ConflictError as error:
            ended.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ended) == 3
    live(here)
    assert {name(0), name(1), name(3)} <= set(rec_ids(here))


def test_a_history_that_is_too_short(here: Lab) -> None:
    """Nobody can tell what was registered since: refused, and nothing is changed."""
    rebuilt(here)
    for number in (3, 4):
        plain(here, number)
    log = here.assets / "catalog" / "v2" / "recordings" / "_delta_log"
    with here.open() as data:
        data._catalog.recordings.put_checkpoint()
    for entry in sorted(log.glob("*.json"))[:-1]:
        entry.unlink()
    with pytest.raises(StorageError, match=r"can't tell what was registered since catalog/v2 was put in place"):
        back(here)
    assert live(here) == "catalog/v2"


def test_on_a_server(weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    """There and back under If-Match; and an undo that would bring back what is not in the bucket any more."""
    client = weed_buckets.server.client()

    def put(number: int) -> None:
        files, prefix = content(number), f"recordings/{name(number)}/"
        for path, data in (files | {"manifest.json": json.dumps(manifest_of(name(number), files)).encode()}).items():
            client.put_object(Bucket=weed_buckets.raw, Key=prefix + path, Body=data)

    with DataInterface("r2", s3_config(weed_buckets)) as data:
        data.enable_writes()
        data.init_catalog()
        for number in (0, 1):
            put(number)
            data.ingest_from_r2(name(number), "Aria Lin")
        assert data.rebuild().prefix == "catalog/v2"
        filled = next(item for item in data.catalog_history() if item.filled)
        put(2)
        data.ingest_from_r2(name(2), "Bo Sun")
        assert data.rebuild_back().carried == (name(2),)
        assert data.catalog_location()["recordings"].endswith("catalog/v1/recordings")
        assert data.rebuild_back().carried == ()
        registered = next(item for item in data.catalog_history() if item.operation == "ingest:created")
        assert data.undo(filled.operation_id).disappear == (name(2),)
        client.delete_object(Bucket=weed_buckets.raw, Key=f"recordings/{name(2)}/eeg_a/seg_000.edf")
        with pytest.raises(MissingFilesError, match=name(2)):
            data.undo(registered.operation_id)
        put(2)
        assert data.undo(registered.operation_id).reappear == (name(2),)
        assert [row.rec_id for row in data.list_recordings()] == [name(0), name(1), name(2)]
        assert all(check.ok for check in data.verify(everything=True))


# --- as typed


def ursa_back(here: Lab, *words: str) -> Any:
    return run_ursa("catalog", "rebuild", "--back", *words, "-p", "local", "--config", here.config)


def test_as_typed(here: Lab) -> None:
    rebuilt(here)
    plain(here, 3)
    planned = ursa_back(here, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.splitlines() == [
        "from catalog/v2 to catalog/v1, which was live before",
        "carried: 1 (registered or changed since, taken over as they are)",
        f"  {name(3)}",
        "disappear: 1 (in no row there; their bytes stay in the bucket)",
        f"  {name(2)}",
        "dry run: nothing was written",
    ]
    assert ursa_back(here).returncode == 2 and ursa_back(here, "--abort").returncode == 2
    assert grown.pointer(here)["prefix"] == "catalog/v2"
    done = ursa_back(here, "--yes", "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [item["type"] for item in records] == ["recording"] * 2 + ["summary"]
    assert records[-1]["flipped"] and records[-1]["prefix"] == "catalog/v1" and records[-1]["carried"] == 1
    assert live(here) == "catalog/v1"


def test_history_names_the_oldest_to_undo_to(here: Lab) -> None:
    """The last one of the fill; to undo to it gives what was flipped."""
    rebuilt(here)
    before = rec_ids(here)
    plain(here, 3)
    with DataInterface("local", here.config) as data:
        marked = [item for item in data.catalog_history() if item.filled]
    assert len(marked) == 1 and marked[0].operation.startswith("rebuild:")
    done = run_ursa("catalog", "history", "-p", "local", "--config", here.config)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{marked[0].operation_id[:12]}: ")]
    assert "the oldest one to undo to: before it, the catalog was half filled" in line
    assert f"{marked[0].operation} (filled)" in done.stdout
    with here.open() as data:
        assert data.undo(marked[0].operation_id).disappear == (name(3),)
    assert rec_ids(here) == before


def test_no_undo_to_before_the_filling(here: Lab) -> None:
    rebuilt(here)
    with here.open("assets_rw") as data:
        operations = data.catalog_history()
        (oldest,) = [at for at, item in enumerate(operations) if item.filled]
        assert operations[oldest + 1 :]
        for item in operations[oldest + 1 :]:
            with pytest.raises(UsageError, match="before a rebuild had filled") as refused:
                data.undo(item.operation_id, dry_run=True)
            assert refused.value.hint is not None and operations[oldest].operation_id[:12] in refused.value.hint
        assert data.undo(operations[oldest].operation_id, dry_run=True).operation == operations[oldest]
