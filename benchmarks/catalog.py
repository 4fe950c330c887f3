"""What a catalog costs as it grows: one registration, look-ups, a week's list, ten thousand recordings asked for.

    python benchmarks/catalog.py [--sizes 10000,100000,1000000] [--places local,weed]

Each catalog is filled in bulk (four modalities a recording, three files a modality, ten years), compacted as a batch
leaves it, and asked through a warm replica, as ``ursa batch`` asks. Requests are counted by a proxy before the server; times
are medians. Prints a table a place, and the ratio of the biggest to the
smallest; asserts nothing (machines are noisy). A million recordings take some 1.5 GB below /tmp and three minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "catalog"))

import duckdb
from deltalake import write_deltalake
from homes import Place

import servers
from proxy import FaultProxy
from ursa.catalog.catalog import Catalog
from ursa.catalog.compact import compact
from ursa.catalog.layout import SMALL_EVERY
from ursa.catalog.metadata import REGISTERED_AT_KEY, WORKERS_KEY, workers_text
from ursa.catalog.overview import overview
from ursa.catalog.replica.commit import HOOKS
from ursa.catalog.rows import FileRow, ModalityRow, RecordingRow, participant_id
from ursa.register.build import Registration
from ursa.register.commit import register

YEARS_S = 10 * 365 * 86_400
END = datetime(2016, 1, 1, tzinfo=UTC) + timedelta(seconds=YEARS_S)
ASKED = 10_000
ROUNDS = 5

_ROWS = """
SELECT i, t, 'rec_' || strftime(t, '%Y%m%d_%H%M%S') || '_' || substr(md5(i::VARCHAR), 1, 4) AS rec_id,
    sha256('recording ' || i) AS recording_hash
FROM (SELECT i, TIMESTAMP '2016-01-01' + to_seconds(i * {seconds} // {count} + hash(i) % 60) AS t FROM range({count}) r(i))
"""
_RECORDINGS = """
SELECT rec_id, recording_hash, substr(recording_hash, 1, 2) AS hash_bucket, t AT TIME ZONE 'UTC' AS started_at,
    (t + INTERVAL 600 SECOND) AT TIME ZONE 'UTC' AS ended_at, 600::DOUBLE AS duration_s,
    ['p_' || substr(sha256((i % 500)::VARCHAR), 1, 16)] AS participant_ids, 'raw' AS status,
    map(['manifest_recording_id', 'workers'],
        [rec_id, '[["camera","left"],["eeg","a"],["gaze",""],["mic","b"]]']) AS metadata,
    t AT TIME ZONE 'UTC' AS registered_at, 'ada@green-mantis' AS registered_by,
    [{{'path': 'notes.txt', 'key': 'recordings/' || rec_id || '/notes.txt', 'size_bytes': 1234::BIGINT,
       'mtime_ns': 0::BIGINT, 'sha256': sha256('notes ' || i), 'etag': md5('notes ' || i), 'evidence': 'sha256'}}]
        AS auxiliary_files
FROM ({rows})
"""
_MODALITIES = """
SELECT rec_id, recording_hash, substr(recording_hash, 1, 2) AS hash_bucket, modality, worker_id, 'raw' AS status,
    'green-mantis' AS node,
    [{{'path': dir || '/seg_00' || k || '.bin', 'key': 'recordings/' || rec_id || '/' || dir || '/seg_00' || k || '.bin',
       'size_bytes': (hash(i, k) % 100000000)::BIGINT, 'mtime_ns': 0::BIGINT,
       'sha256': sha256(i || dir || k), 'etag': md5(i || dir || k), 'evidence': 'sha256'}} for k in [0, 1, 2]] AS files,
    300000000::BIGINT AS bytes, map(['registered_at'], [strftime(t, '%Y-%m-%dT%H:%M:%S+00:00')]) AS metadata
FROM ({rows}),
    (VALUES ('camera', 'left', 'camera_left'), ('eeg', 'a', 'eeg_a'), ('gaze', '', 'gaze'), ('mic', 'b', 'mic_b'))
    workers(modality, worker_id, dir)
"""


def fill(catalog: Catalog, count: int) -> list[tuple[str, str]]:
    """Write ``count`` recordings by the layout that compaction leaves; returns their (rec_id, recording_hash) by date."""
    rows = _ROWS.format(seconds=YEARS_S, count=count)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, sql in ((catalog.modalities, _MODALITIES), (catalog.recordings, _RECORDINGS)):
            found, layout = connection.sql(sql.format(rows=rows)), table.layout
            table.refresh()
            table.put(
                lambda scratch, about, found=found, layout=layout: write_deltalake(
                    scratch,
                    found,
                    mode="append",
                    target_file_size=layout.big_bytes,
                    writer_properties=layout.writer(count),
                    commit_properties=about,
                    post_commithook_properties=HOOKS,
                ),
                "fill",
            )
        return connection.sql(f"SELECT rec_id, recording_hash FROM ({rows}) ORDER BY rec_id").fetchall()


def new_registration(number: int) -> Registration:
    """A recording of the day after the last one: two modalities, a participant whom the catalog does not know."""
    started = END + timedelta(minutes=number)
    rec_id = f"rec_{started:%Y%m%d_%H%M%S}_{number % 65536:04x}"
    digest = hashlib.sha256(rec_id.encode()).hexdigest()
    name = f"Participant {number}"
    stamp = {REGISTERED_AT_KEY: started.isoformat()}

    def worker(modality: str, worker_id: str) -> ModalityRow:
        paths = [f"{modality}_{worker_id}/seg_{part:03}.bin" for part in range(3)]
        files = tuple(FileRow(path, f"recordings/{rec_id}/{path}", 9, digest, digest[:32], "sha256") for path in paths)
        return ModalityRow(digest, modality, worker_id, "raw", "green-mantis", files, 27, stamp, rec_id)

    workers = (worker("camera", "left"), worker("eeg", "a"))
    metadata = {"manifest_recording_id": rec_id, WORKERS_KEY: workers_text(workers)}
    ids = (participant_id(name),)
    end = started + timedelta(seconds=60)
    row = RecordingRow(digest, rec_id, started, end, 60.0, ids, "raw", metadata, started, "ada@green-mantis")
    return Registration(row, workers, (name,), None, False)


def questions(catalog: Catalog, known: Sequence[tuple[str, str]]) -> dict[str, Callable[[int], object]]:
    """What is measured: name → a function of the round."""
    middle = len(known) // 2
    spread = [rec_id for rec_id, _ in known[:: max(1, len(known) // ASKED)]][:ASKED]
    consecutive = [rec_id for rec_id, _ in known[max(0, middle - ASKED // 2) :]][:ASKED]
    return {
        "register": lambda turn: register(catalog, new_registration(turn)),
        "get_recording (hash)": lambda turn: catalog.get_recording(known[middle + turn][1]),
        "find_recording (rec_id)": lambda turn: catalog.find_recording(known[middle + turn][0]),
        "overview of the last week": lambda _: overview(catalog, since=END - timedelta(days=7)),
        f"registered: {ASKED:,} in a row": lambda _: _all(catalog, consecutive),
        f"registered: {ASKED:,} spread": lambda _: _all(catalog, spread),
    }


def grow(catalog: Catalog) -> None:
    """Make the commits up to the next everyday merge, and it: the last one is what it costs."""
    table = catalog.modalities
    while (table.version + 1) % SMALL_EVERY:
        register(catalog, new_registration(1000 + table.version))


def _all(catalog: Catalog, rec_ids: Sequence[str]) -> None:
    found = catalog.registered(rec_ids)
    assert len(found) == len(set(rec_ids))
    assert all(len(modalities) == 4 for _, modalities in found.values())


def measure(count: int, place: Place, direct: Place, proxy: FaultProxy | None) -> dict[str, tuple[float, int | None]]:
    """Median seconds and requests of each question; the first round opens the files and is not counted."""
    known = fill(direct.catalog(), count)
    results = {}
    catalog = place.catalog()
    for name, ask in questions(catalog, known).items():
        times, requests = [], []
        rounds = ROUNDS if "registered" not in name else 3
        for turn in range(rounds + 1):
            if proxy is not None:
                proxy.clear()
            started = time.perf_counter()
            ask(turn)
            times.append(time.perf_counter() - started)
            requests.append(proxy.count() if proxy is not None else 0)
        first = f" (first time {times[0]:.2f} s, {requests[0]} requests)"
        results[name] = statistics.median(times[1:]), round(statistics.median(requests[1:])) if proxy else None
        print(
            f"  {count:>9,} {name:<34} {results[name][0]:8.3f} s {results[name][1] or '-':>5} requests{first}",
            flush=True,
        )
    results |= first_show(place, known, proxy)
    grow(catalog)
    for name, action in {
        "register, and merge small files": lambda: register(catalog, new_registration(9999)),
        "compact": lambda: compact(catalog),
    }.items():
        if proxy is not None:
            proxy.clear()
        started = time.perf_counter()
        action()
        results[name] = time.perf_counter() - started, proxy.count() if proxy else None
        print(f"  {count:>9,} {name:<34} {results[name][0]:8.3f} s {results[name][1] or '-':>5} requests", flush=True)
    return results


def first_show(
    place: Place, known: Sequence[tuple[str, str]], proxy: FaultProxy | None
) -> dict[str, tuple[float, int | None]]:
    """What `ursa show REC` costs on a machine that has never seen the catalog."""
    with tempfile.TemporaryDirectory() as cache:
        catalog = replace(place, cache=Path(cache)).catalog()
        if proxy is not None:
            proxy.clear()
        started = time.perf_counter()
        with catalog.snapshot():
            overview(catalog, recording_hash=catalog.resolve(known[len(known) // 2][0]).recording_hash)
        took = time.perf_counter() - started
        held = sum(path.stat().st_size for path in Path(cache).rglob("*.parquet"))
    name = "show on a new machine"
    print(f"  {len(known):>9,} {name:<34} {took:8.3f} s, {held / 2**20:.1f} MiB", flush=True)
    return {name: (took, proxy.count() if proxy else None)}


@contextmanager
def local(base: Path) -> Iterator[tuple[Place, Place, FaultProxy | None]]:
    """A directory."""
    place = Place(base)
    place.home().initialize()
    yield place, place, None


@contextmanager
def weed(base: Path) -> Iterator[tuple[Place, Place, FaultProxy | None]]:
    """SeaweedFS: through a counting proxy, and for filling it directly."""
    with servers.weed(base) as server, FaultProxy(server.endpoint_url) as proxy:
        bucket = server.create_bucket("assets")
        keys = (bucket, server.access_key, server.secret_key)
        direct = Place(None, server.endpoint_url, *keys)
        direct.home().initialize()
        yield Place(None, proxy.url, *keys), direct, proxy


def show(name: str, results: dict[int, dict[str, tuple[float, Any]]]) -> None:
    """A Markdown table, sizes side by side."""
    sizes = sorted(results)
    print(f"\n### {name}\n\n| | " + " | ".join(f"{size:,}" for size in sizes) + " | ratio |")
    print("| --- | " + "--- | " * len(sizes) + "--- |")
    for question in results[sizes[0]]:
        cells = []
        for size in sizes:
            seconds, requests = results[size][question]
            cells.append(f"{seconds * 1000:.0f} ms" + (f", {requests} requests" if requests is not None else ""))
        ratio = results[sizes[-1]][question][0] / results[sizes[0]][question][0]
        print(f"| {question} | " + " | ".join(cells) + f" | {ratio:.2f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--places", default="local,weed")
    parser.add_argument("--dir", type=Path, default=Path("/tmp"), help="where the catalogs are made, and removed again")
    options = parser.parse_args()
    places = {"local": local, "weed": weed}
    for name in options.places.split(","):
        results = {}
        for size in map(int, options.sizes.split(",")):
            with tempfile.TemporaryDirectory(dir=options.dir) as base, places[name](Path(base)) as where:
                results[size] = measure(size, *where)
        show(name, results)


if __name__ == "__main__":
    main()
