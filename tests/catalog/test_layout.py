"""Look-ups that read few files: by ranges, by filters, by what is known of files that never change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable
from homes import Place, add_modalities, add_recordings, modality, rec_id, recording, recording_hash, registration
from hypothesis import given
from hypothesis import strategies as st

import ursa.catalog.where as where
from conftest import Buckets
from proxy import FaultProxy
from servers import S3Server
from ursa.catalog.catalog import Catalog
from ursa.catalog.where import by_rec_id, starting_with
from ursa.errors import RecordingNotFoundError, UsageError
from ursa.register.commit import register


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Place(tmp_path).catalog()


def fill(catalog: Catalog, numbers: Sequence[int]) -> None:
    add_recordings(catalog, [recording(number) for number in numbers])
    add_modalities(catalog, [modality(number, name) for number in numbers for name in ("eeg", "mic")])


# --- which are registered


def test_which_are_registered_and_with_what(catalog: Catalog) -> None:
    fill(catalog, range(10))
    add_modalities(catalog, [modality(11)])
    found = catalog.registered([rec_id(number) for number in (3, 7, 7, 11, 12)])
    assert found == {
        rec_id(number): (recording(number), (modality(number, "eeg"), modality(number, "mic"))) for number in (3, 7)
    }
    assert catalog.registered([]) == {}


def test_what_others_have_committed_counts(catalog: Catalog, tmp_path: Path) -> None:
    register(Place(tmp_path).catalog(), registration(1))
    assert catalog.registered([rec_id(1)]).keys() == {rec_id(1)}


def test_more_names_than_a_condition_holds(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(catalog, range(10))
    monkeypatch.setattr(where, "MOST_LITERALS", 2)
    asked = [rec_id(number) for number in (2, 4, 8)]
    assert "IN" not in str(by_rec_id(asked))
    assert list(catalog.registered(asked)) == asked
    assert [row.rec_id for row in catalog.lookup_all(asked, [recording_hash(9)])] == [*asked, rec_id(9)]


def test_a_lookup_by_both_finds_a_row_once(catalog: Catalog) -> None:
    fill(catalog, range(3))
    assert catalog.lookup(rec_id=rec_id(1), recording_hash=recording_hash(1)) == [recording(1)]
    assert catalog.lookup(rec_id=rec_id(1), recording_hash=recording_hash(2)) == [recording(1), recording(2)]
    assert catalog.lookup_all([], []) == []


def test_a_lookup_sees_each_commit(catalog: Catalog) -> None:
    """The answer is kept for as long as nobody commits."""
    assert catalog.lookup_all([rec_id(1)], []) == []
    fill(catalog, [1])
    assert catalog.lookup_all([rec_id(1)], []) == [recording(1)]
    catalog.lookup_all([rec_id(1)], []).clear()
    assert catalog.lookup_all([rec_id(1)], []) == [recording(1)]


def test_requests_do_not_grow_with_what_is_asked(
    weed_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy]
) -> None:
    server = weed_buckets.server
    proxy = fault_proxy(server)
    place = Place(None, proxy.url, weed_buckets.assets, server.access_key, server.secret_key)
    place.home().initialize()
    catalog = place.catalog()
    fill(catalog, range(2000))
    counts = []
    for names in ([rec_id(5)], [rec_id(number) for number in range(2000)]):
        catalog.registered(names)
        proxy.clear()
        assert len(catalog.registered(names)) == len(names)
        counts.append(proxy.count())
    assert counts == [4, 4]
    proxy.clear()
    register(catalog, registration(3000, modality(3000), modality(3000, "mic", ""), participants=("Ada",)))
    assert proxy.count() == 12


# --- prefixes


@pytest.mark.parametrize(
    ("ref", "number"),
    [("rec_20260520_000003", 3), ("rec_20260520_000003_ab", 3), (recording_hash(4), 4), (recording_hash(4)[:3], 4)],
)
def test_a_unique_start(catalog: Catalog, ref: str, number: int) -> None:
    fill(catalog, range(6))
    assert catalog.resolve(ref) == recording(number)


def test_starts_that_name_none_or_several(catalog: Catalog) -> None:
    fill(catalog, range(6))
    for ref in ("", "rec_2027", "REC", "ff", "'", "\U0010ffff"):
        with pytest.raises(RecordingNotFoundError):
            catalog.resolve(ref)
    for ref in ("rec_20260520_00000", "r", "0"):
        with pytest.raises(UsageError, match="is not unique"):
            catalog.resolve(ref)


def test_a_recording_that_goes_by_its_hash(catalog: Catalog) -> None:
    digest = recording_hash(1)
    add_recordings(catalog, [recording(1, rec_id=digest)])
    assert catalog.resolve(digest).rec_id == digest
    assert catalog.resolve(digest[:8]).rec_id == digest


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=4), st.text(max_size=4))
def test_a_range_is_a_prefix(prefix: str, text: str) -> None:
    after = where._after(prefix)
    assert (prefix <= text and (not after or text < after)) == text.startswith(prefix)
    assert str(starting_with("c", prefix)).startswith("c >= '")


# --- files


@pytest.mark.parametrize(("rows", "filtered"), [(10, False), (1500, True)])
def test_hashes_have_a_bloom_filter_where_it_pays(catalog: Catalog, rows: int, filtered: bool) -> None:
    add_recordings(catalog, [recording(number) for number in range(rows)])
    catalog.recordings.merge_files(1 << 20)
    (file,) = DeltaTable(catalog.recordings.uri).file_uris()
    with duckdb.connect() as connection:
        found = dict(
            connection.execute(
                "SELECT path_in_schema, bloom_filter_length > 0 FROM parquet_metadata($file)", {"file": file}
            ).fetchall()
        )
    assert bool(found["recording_hash"]) is filtered
    assert not found["rec_id"]
