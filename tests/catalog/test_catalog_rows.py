"""Rows through the tables and back, ``where=``, and the tables in other people's tools."""

from __future__ import annotations

import contextlib
import doctest
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest
from deltalake import DeltaTable, QueryBuilder
from homes import Place, add_modalities, add_recordings, modality, rec_id, recording, recording_hash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ursa.catalog.rows as rows_module
from ursa.catalog.arrow import MODALITIES, PARTICIPANTS, RECORDINGS, TableKind
from ursa.catalog.catalog import Catalog
from ursa.catalog.query import query
from ursa.catalog.rows import FileRow, ModalityRow, ParticipantRow, RecordingRow, normalize_name, participant_id
from ursa.catalog.tables import Change
from ursa.catalog.where import EVERYTHING
from ursa.errors import RecordingNotFoundError, UsageError
from ursa.manifest import hashing

HASH = "ab" * 32
ODD = [
    "",
    " ",
    "'",
    "''",
    '"',
    "\\",
    "a'; DROP TABLE recordings; --",
    "a\nb\tc",
    "Zoë 測定 😀",
    "\u00e9",
    "e\u0301",
    "%_*",
    "NULL",
]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Place(tmp_path).catalog()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Six recordings; the last has no start, no duration, no participant. A catalog that nobody writes to."""
    catalog = Place(tmp_path_factory.mktemp("filled")).catalog()
    ada, zoe = catalog.ensure_participants(["Ada"]) + catalog.ensure_participants(["Zoë"])
    whole = [recording(number, participant_ids=(ada,) if number % 2 else (ada, zoe)) for number in range(5)]
    bare = recording(5, started_at=None, duration_s=None, status="it's odd", registered_by='O\'Brien@"rig"')
    add_recordings(catalog, [*whole, bare])
    add_modalities(catalog, [modality(number, name, worker) for number in range(6) for name, worker in WORKERS])
    return catalog


WORKERS = [("eeg", "a"), ("eeg", "b"), ("mic", "")]


# --- documented examples


@pytest.mark.parametrize(("module", "examples"), [(rows_module, 2), (hashing, 3)])
def test_worked_examples(module: Any, examples: int) -> None:
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=examples)


@pytest.mark.parametrize("name", ["Zoe\u0308  Ada", " ZOË ADA ", "zoë\tada", "Zoë\u00a0Ada", "zoë\n ADA"])
def test_a_participant_has_one_id(name: str) -> None:
    assert normalize_name(name) == "zoë ada"
    assert participant_id(name) == participant_id("Zoë Ada") != participant_id("Zoe Ada")


@pytest.mark.parametrize("name", ["", "  ", "\n"])
def test_no_name_has_no_id(name: str) -> None:
    with pytest.raises(UsageError):
        participant_id(name)


@given(st.text(min_size=1).filter(lambda text: text.split()))
def test_an_id_is_stable_under_normalising(name: str) -> None:
    assert participant_id(normalize_name(name)) == participant_id(name)


# --- round trips


TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))
# A lone surrogate is no text: it has no UTF-8.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
MAPS = st.dictionaries(TEXT, TEXT, max_size=5)
COUNTS = st.integers(0, 1 << 62)
RECORDING_ROWS = st.builds(
    RecordingRow,
    recording_hash=st.just(HASH),
    rec_id=TEXT,
    started_at=st.none() | TIMES,
    ended_at=st.none() | TIMES,
    duration_s=st.none() | st.floats(0, 1e9),
    participant_ids=st.lists(TEXT, max_size=4).map(tuple),
    status=TEXT,
    metadata=MAPS,
    registered_at=st.none() | TIMES,
    registered_by=TEXT,
)
FILES = st.builds(FileRow, TEXT, TEXT, COUNTS, st.none() | TEXT, st.none() | TEXT, st.sampled_from(["sha256", "etag"]))
MODALITY_ROWS = st.builds(
    ModalityRow,
    st.just(HASH),
    TEXT,
    TEXT,
    TEXT,
    st.none() | TEXT,
    st.lists(FILES, max_size=4).map(tuple),
    COUNTS,
    MAPS,
)
PARTICIPANT_ROWS = st.builds(ParticipantRow, TEXT, TEXT, st.none() | TIMES)


def assert_arrow_round_trip(kind: TableKind[Any], rows: list[Any]) -> None:
    assert kind.rows(kind.table(rows)) == rows


@given(st.lists(RECORDING_ROWS, min_size=1, max_size=5))
def test_recordings_through_arrow(rows: list[RecordingRow]) -> None:
    assert_arrow_round_trip(RECORDINGS, rows)


@given(st.lists(MODALITY_ROWS, min_size=1, max_size=5))
def test_modalities_through_arrow(rows: list[ModalityRow]) -> None:
    assert_arrow_round_trip(MODALITIES, rows)


@given(st.lists(PARTICIPANT_ROWS, min_size=1, max_size=5))
def test_participants_through_arrow(rows: list[ParticipantRow]) -> None:
    assert_arrow_round_trip(PARTICIPANTS, rows)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(RECORDING_ROWS, MODALITY_ROWS)
def test_rows_through_the_tables(catalog: Catalog, row: RecordingRow, worker: ModalityRow) -> None:
    catalog.recordings.compare_and_swap(lambda: Change([row], EVERYTHING, "test"))
    worker = replace(worker, rec_id=row.rec_id, recording_hash=row.recording_hash)
    catalog.modalities.compare_and_swap(lambda: Change([worker], EVERYTHING, "test"))
    assert catalog.list_recordings() == [row]
    assert catalog.list_modalities() == [worker]


@pytest.mark.parametrize("text", ODD)
def test_odd_texts(catalog: Catalog, text: str) -> None:
    row = recording(status=text, participant_ids=(text, "p"), metadata={text: text}, registered_by=text)
    worker = modality(worker_id=text, node=text, metadata={text: text}, files=(FileRow(text, text, 1),))
    add_recordings(catalog, [row, recording(2)])
    add_modalities(catalog, [worker, modality(2)])
    assert catalog.list_recordings({"status": text}) == [row]
    assert catalog.list_recordings({"participant_ids": text}) == [row]
    assert catalog.list_modalities({"worker_id": text}) == [worker]


def test_a_row_of_nones(catalog: Catalog) -> None:
    row = RecordingRow(recording_hash(1), rec_id(1))
    add_recordings(catalog, [row])
    add_modalities(catalog, [ModalityRow(recording_hash(1), "eeg", rec_id=rec_id(1))])
    assert catalog.find_recording(rec_id(1)) == row
    assert catalog.list_modalities() == [ModalityRow(recording_hash(1), "eeg", rec_id=rec_id(1))]


def test_large_maps_and_lists(catalog: Catalog) -> None:
    row = recording(metadata={f"key {number}": "v" * 100 for number in range(5000)})
    files = tuple(FileRow(f"eeg_a/{number}.bin", f"recordings/x/{number}", number) for number in range(10_000))
    add_recordings(catalog, [row])
    add_modalities(catalog, [modality(files=files)])
    assert catalog.list_recordings() == [row]
    assert catalog.list_modalities()[0].files == files


def test_times_are_utc_to_the_microsecond(catalog: Catalog) -> None:
    local = datetime(2026, 5, 20, 12, 0, 0, 123_456, tzinfo=timezone(timedelta(hours=2)))
    add_recordings(catalog, [recording(started_at=local)])
    found = catalog.find_recording(rec_id(1)).started_at
    assert found == local
    assert found is not None
    assert found.utcoffset() == timedelta(0)


# --- where


def numbers(rows: list[RecordingRow]) -> list[int]:
    return [int(row.rec_id[13:19]) for row in rows]


ADA = participant_id("Ada")
ZOE = participant_id("Zoë")
NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (None, range(6)),
        ({}, range(6)),
        ({"rec_id": rec_id(3)}, [3]),
        ({"rec_id": [rec_id(3), rec_id(1), "nobody"]}, [1, 3]),
        ({"rec_id": (rec_id(3),)}, [3]),
        ({"rec_id": {rec_id(3)}}, [3]),
        ({"rec_id": []}, []),
        ({"rec_id": None}, []),
        ({"recording_hash": recording_hash(2)}, [2]),
        ({"recording_hash": [recording_hash(2), recording_hash(4)]}, [2, 4]),
        ({"recording_hash": ["nobody", None]}, []),
        ({"hash_bucket": "03"}, [3]),
        ({"started_at": NOON.replace(second=2)}, [2]),
        ({"started_at": NOON.replace(second=2, tzinfo=None)}, [2]),
        ({"started_at": datetime(2026, 5, 20, 14, 0, 2, tzinfo=timezone(timedelta(hours=2)))}, [2]),
        ({"started_at": None}, [5]),
        ({"started_at": [None, NOON]}, [0, 5]),
        ({"ended_at": None}, range(6)),
        ({"duration_s": 60}, range(5)),
        ({"duration_s": 60.0}, range(5)),
        ({"duration_s": [None, 1.5]}, [5]),
        ({"participant_ids": ADA}, range(5)),
        ({"participant_ids": ZOE}, [0, 2, 4]),
        ({"participant_ids": [ZOE, "nobody"]}, [0, 2, 4]),
        ({"participant_ids": "nobody"}, []),
        ({"participant_ids": []}, []),
        ({"status": "raw"}, range(5)),
        ({"status": "it's odd"}, [5]),
        ({"registered_at": datetime(2026, 5, 21, tzinfo=UTC)}, range(6)),
        ({"registered_by": 'O\'Brien@"rig"'}, [5]),
        ({"status": "raw", "participant_ids": ZOE, "rec_id": [rec_id(0), rec_id(1)]}, [0]),
    ],
)
def test_where(filled: Catalog, where: dict[str, Any] | None, found: range | list[int]) -> None:
    assert numbers(filled.list_recordings(where)) == list(found)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ({"modality": "eeg"}, 12),
        ({"modality": ["eeg", "mic"]}, 18),
        ({"worker_id": ""}, 6),
        ({"worker_id": ["", "b"]}, 12),
        ({"recording_hash": recording_hash(1)}, 3),
        ({"recording_hash": recording_hash(1), "modality": "eeg", "worker_id": "b"}, 1),
        ({"status": "raw"}, 18),
        ({"node": "green-mantis"}, 18),
        ({"node": None}, 0),
        ({"bytes": 10}, 18),
        ({"bytes": 11}, 0),
        ({"hash_bucket": "01"}, 3),
    ],
)
def test_where_of_modalities(filled: Catalog, where: dict[str, Any], count: int) -> None:
    assert len(filled.list_modalities(where)) == count


def test_where_of_participants(filled: Catalog) -> None:
    assert [row.display_name for row in filled.list_participants()] == ["Ada", "Zoë"]
    assert [row.participant_id for row in filled.list_participants({"display_name": "Zoë"})] == [ZOE]
    assert filled.list_participants({"created_at": None}) == []


INJECTIONS = [
    "x' OR '1'='1",
    "x' OR true --",
    "'; DELETE FROM recordings; --",
    "x') OR (true",
    "\\' OR true --",
    "x'' OR true --",
    "'",
    "''",
    "$$ OR true",
    "x' UNION SELECT * FROM recordings --",
    "\x00' OR true --",
    "{0}",
    "%s",
]


@pytest.mark.parametrize("column", ["rec_id", "recording_hash", "participant_ids", "status", "registered_by"])
@pytest.mark.parametrize("text", INJECTIONS)
def test_values_are_never_sql(filled: Catalog, column: str, text: str) -> None:
    assert filled.list_recordings({column: text}) == []
    assert filled.list_recordings({column: [text, text]}) == []
    assert len(filled.list_recordings()) == 6


@pytest.mark.parametrize("text", INJECTIONS)
def test_references_are_never_sql(filled: Catalog, text: str) -> None:
    for look in (filled.get_recording, filled.find_recording, filled.resolve):
        with pytest.raises(RecordingNotFoundError):
            look(text)


@pytest.mark.parametrize("column", ["rec", "REC_ID", "rec_id ", "1=1 OR rec_id", "rec_id = rec_id --", "", 'x"y'])
def test_an_unknown_column_lists_the_columns(filled: Catalog, column: str) -> None:
    with pytest.raises(UsageError) as caught:
        filled.list_recordings({column: "x"})
    assert "recordings has no column" in str(caught.value)
    assert all(name in (caught.value.hint or "") for name in RECORDINGS.columns)
    with pytest.raises(UsageError, match="modalities has no column"):
        filled.list_modalities({"participant_ids": "x"})


@pytest.mark.parametrize("where", [{"metadata": "x"}, {"rec_id": {"a": 1}}, {"rec_id": b"x"}, {"rec_id": [["x"]]}])
def test_what_cannot_be_compared(filled: Catalog, where: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="compare"):
        filled.list_recordings(where)
    with pytest.raises(UsageError, match="compare"):
        filled.list_modalities({"files": "x"})


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("duration_s", float("nan")),
        ("duration_s", float("inf")),
        ("duration_s", -1),
        ("duration_s", 1 << 70),
        ("duration_s", True),
        ("duration_s", "long"),
        ("started_at", "yesterday"),
        ("started_at", 7),
        ("rec_id", 7),
        ("participant_ids", 7),
        ("recording_hash", 7),
    ],
)
def test_values_of_another_kind(filled: Catalog, column: str, value: object) -> None:
    """They find nothing or are a mistake of the caller's; the network and the tables have nothing to do with it."""
    with contextlib.suppress(UsageError):
        assert filled.list_recordings({column: value}) == []


# --- visibility and look-ups


def test_modalities_without_a_recording_are_invisible(catalog: Catalog) -> None:
    add_recordings(catalog, [recording(1)])
    add_modalities(catalog, [modality(1), modality(2)])
    assert [row.recording_hash for row in catalog.list_modalities()] == [recording_hash(1)]
    assert catalog.list_modalities({"recording_hash": recording_hash(2)}) == []
    assert catalog.modalities_of(recording_hash(2)) == []
    assert catalog.modalities_for([recording(2)]) == [modality(2)]
    add_recordings(catalog, [recording(2)])
    assert len(catalog.list_modalities()) == 2


def test_modalities_of_another_name_are_not_its_own(catalog: Catalog) -> None:
    """A dead run's, of the same bytes under another rec_id."""
    add_recordings(catalog, [recording(1)])
    add_modalities(catalog, [modality(1), modality(1, rec_id=rec_id(2), status="other")])
    assert catalog.list_modalities() == [modality(1)]
    assert catalog.list_modalities({"recording_hash": recording_hash(1)}) == [modality(1)]
    assert catalog.modalities_of(recording_hash(1)) == [modality(1)]
    assert query(catalog).modalities == {"eeg": [modality(1)]}
    assert catalog.registered([rec_id(1), rec_id(2)]) == {rec_id(1): (recording(1), (modality(1),))}


def test_what_others_commit_is_seen(tmp_path: Path) -> None:
    reader, writer = Place(tmp_path).catalog(), Place(tmp_path).catalog()
    add_recordings(writer, [recording(1)])
    assert reader.find_recording(rec_id(1)) == recording(1)
    writer.ensure_participants(["Ada"])
    assert [row.display_name for row in reader.list_participants()] == ["Ada"]


def test_references(filled: Catalog) -> None:
    row = filled.find_recording(rec_id(3))
    for ref in (rec_id(3), recording_hash(3), recording_hash(3)[:6], rec_id(3)[:19]):
        assert filled.resolve(ref) == row
    assert filled.get_recording(recording_hash(3)) == row
    with pytest.raises(UsageError, match="is not unique"):
        filled.resolve("rec_20260520_")
    for ref in ("", "nobody", "%"):
        with pytest.raises(RecordingNotFoundError):
            filled.resolve(ref)
    assert len(filled.lookup(rec_id=rec_id(1), recording_hash=recording_hash(2))) == 2
    assert len(filled.lookup(rec_id=rec_id(1), recording_hash=recording_hash(1))) == 1


def test_participants_are_made_once(catalog: Catalog) -> None:
    first = catalog.ensure_participants(["Zoë", "ada"])
    version = catalog.participants.version
    assert catalog.ensure_participants(["  zoe\u0308 ", "ADA"]) == first
    assert catalog.participants.version == version
    assert [row.display_name for row in catalog.list_participants()] == ["Zoë", "ada"]
    assert catalog.ensure_participants([]) == ()


# --- other people's tools


def test_duckdb_reads_the_files(filled: Catalog) -> None:
    """DuckDB's own Delta reader is an extension that it downloads; the tables' parquet files need nothing."""
    recordings = DeltaTable(filled.recordings.uri).file_uris()
    modalities = DeltaTable(filled.modalities.uri).file_uris()
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT m.rec_id, count(*), sum(f.size_bytes), any_value(r.metadata['manifest_recording_id'])"
            " FROM read_parquet($recordings) r JOIN read_parquet($modalities) m USING (recording_hash),"
            " UNNEST(m.files) AS unnested(f) WHERE m.modality = 'eeg' GROUP BY ALL ORDER BY m.rec_id",
            {"recordings": recordings, "modalities": modalities},
        ).fetchall()
    assert found == [(rec_id(number), 2, 20, rec_id(number)) for number in range(6)]


def test_duckdb_reads_an_arrow_stream(filled: Catalog) -> None:
    table = DeltaTable(filled.recordings.uri)
    stream = QueryBuilder().register("recordings", table).execute("SELECT * FROM recordings")
    with duckdb.connect() as connection:
        connection.register("recordings", stream)
        found = connection.execute(
            "SELECT rec_id, epoch(started_at) FROM recordings WHERE list_contains(participant_ids, ?) ORDER BY rec_id",
            [ZOE],
        ).fetchall()
    assert found == [(rec_id(number), NOON.timestamp() + number) for number in (0, 2, 4)]


def test_polars_opens_the_tables(filled: Catalog) -> None:
    frame = polars.read_delta(filled.locations()["recordings"])
    assert frame["rec_id"].sort().to_list() == [rec_id(number) for number in range(6)]
    files = (
        polars.scan_delta(filled.locations()["modalities"])
        .filter(polars.col("modality") == "eeg")
        .explode("files")
        .select(polars.col("files").struct.field("size_bytes"))
        .collect()
    )
    assert files["size_bytes"].to_list() == [10] * 12
    assert polars.read_delta(filled.locations()["participants"])["display_name"].sort().to_list() == ["Ada", "Zoë"]
