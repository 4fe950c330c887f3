"""What a batch lists of the bucket: the same whichever way it is asked for, in few requests, or nothing is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from batch_tools import WRITES, age, on_disks, rec, without_a_look

from conftest import Buckets, MakeConfig, make_buckets
from helpers import make_recording
from proxy import FaultProxy
from servers import S3Server
from ursa import DataInterface, Outcome
from ursa.batch.listed import Listed, object_digest, sidecar_digest
from ursa.credentials import Credentials
from ursa.errors import UrsaError
from ursa.store import Store
from ursa.store.counting import RequestCounter
from ursa.store.local import LocalStore
from ursa.store.s3 import S3Location, S3Store

RECORDINGS, FILES = 100, 30
PREFIX = "recordings/"
NAMES = tuple(rec(10 * number) for number in range(RECORDINGS))


@dataclass(frozen=True)
class Bucket:
    """One with 3,000 objects of 100 recordings. ``truth``: the digests of each one's, by a LIST of its prefix."""

    store: Store
    counter: RequestCounter
    truth: Mapping[str, frozenset[bytes]]

    def lists(self, wanted: Sequence[str], objects: int) -> tuple[int, dict[str, frozenset[bytes] | None]]:
        """How many requests it takes to list these, and what they have."""
        before = self.counter.snapshot()
        with closing(Listed(self.store, PREFIX, lambda: None, ranges=True)) as listed:
            listed.begin(wanted, objects)
            found = {name: listed.of(name) for name in wanted}
        return sum(self.counter.since(before).values()), found


def store_at(server: S3Server, bucket: str, counter: RequestCounter) -> S3Store:
    """A store without retries."""
    location = S3Location(server.endpoint_url, bucket, "us-east-1", "raw_ro")
    return S3Store(location, lambda _again: Credentials(server.access_key, server.secret_key), counter)


@pytest.fixture(scope="module", params=["weed", "moto"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """On a server that lists directories by their names, and on one that keeps the order of keys."""
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    buckets = make_buckets(server)
    client = server.client()

    def fill(name: str) -> None:
        for number in range(FILES):
            worker = "eeg_a" if number % 2 else "eeg_a-b"
            client.put_object(Bucket=buckets.raw, Key=f"{PREFIX}{name}/{worker}/{number:03d}.edf", Body=name.encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fill, NAMES))
    counter = RequestCounter()
    store = store_at(server, buckets.raw, counter)
    truth = {
        name: frozenset(object_digest(info.key, info.size_bytes, info.etag) for info in store.list(f"{PREFIX}{name}/"))
        for name in NAMES
    }
    assert {len(digests) for digests in truth.values()} == {FILES}
    return Bucket(store, counter, truth)


@pytest.mark.parametrize(
    ("wanted", "objects", "most"),
    [
        # Nearly all of it: a page of a thousand after the other.
        (NAMES, RECORDINGS * FILES, 3 + 1),
        (NAMES[1:-1], (RECORDINGS - 2) * FILES, 3 + 1),
        # In parallel, if there were so many: a range each.
        (NAMES, 24_000, 2 * 8),
        # Close together: what lies before and after is not asked for.
        (NAMES[40:50], 10 * FILES, 2),
        (NAMES[:1], FILES, 1),
        (NAMES[-1:], FILES, 1),
        # Few among many others: not more than a range's first page and a prefix each.
        (NAMES[::33], 4 * FILES, 2 * 4),
        ((NAMES[0], NAMES[-1]), 2 * FILES, 2 * 2),
        (NAMES[5::50], 2 * FILES, 2 * 2),
        # Not as many as was thought.
        (NAMES[:3], 10**6, 3),
    ],
    ids=["all", "inner", "parallel", "near", "first", "last", "sparse", "ends", "two", "wrong"],
)
def test_ranges_list_what_prefixes_list(bucket: Bucket, wanted: Sequence[str], objects: int, most: int) -> None:
    requests, found = bucket.lists(wanted, objects)
    assert found == {name: bucket.truth[name] for name in wanted}
    assert requests <= most


def test_recordings_that_the_bucket_does_not_have_are_empty(bucket: Bucket) -> None:
    """Before, between and after those that it has; and none is told of what was not asked for."""
    absent = ("rec_20250101_000000_aaaa", rec(5), rec(15), "rec_20270101_000000_ffff")
    wanted = sorted([*absent, NAMES[0], NAMES[1]])
    _, found = bucket.lists(wanted, 2 * FILES)
    assert found == {name: bucket.truth.get(name, frozenset()) for name in wanted}
    with closing(Listed(bucket.store, PREFIX, lambda: None, ranges=True)) as listed:
        listed.begin([NAMES[0]], FILES)
        assert listed.of(NAMES[1]) is None
        listed.begin([], 0)
        assert listed.of(NAMES[0]) is None


def test_the_next_group_of_a_batch_lists_what_is_not_listed_yet(bucket: Bucket) -> None:
    with closing(Listed(bucket.store, PREFIX, lambda: None, ranges=True)) as listed:
        listed.begin(NAMES[:60], 60 * FILES)
        assert listed.of(NAMES[59]) == bucket.truth[NAMES[59]]
        before = bucket.counter.snapshot()
        listed.begin(NAMES[40:60], 20 * FILES)
        assert [listed.of(name) for name in NAMES[40:60]] == [bucket.truth[name] for name in NAMES[40:60]]
        assert sum(bucket.counter.since(before).values()) == 0
        assert listed.of(NAMES[39]) is None
        listed.begin(NAMES[40:70], 30 * FILES)
        assert [listed.of(name) for name in NAMES[60:70]] == [bucket.truth[name] for name in NAMES[60:70]]
        assert sum(bucket.counter.since(before).values()) <= 2


def test_a_directory_is_listed_a_recording_at_a_time(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, "raw")
    make_recording(tmp_path / "raw" / "recordings", rec(1), {"eeg_a/a.edf": b"a"})
    with closing(Listed(store, PREFIX, lambda: None, ranges=False)) as listed:
        listed.begin([rec(1)], 2)
        infos = store.list(f"{PREFIX}{rec(1)}/")
        objects = {object_digest(info.key, info.size_bytes, info.etag) for info in infos}
        (etag,) = [info.etag for info in store.list(f"{PREFIX}{rec(1)}/manifest.json")]
        beside = {sidecar_digest("manifest.json"), sidecar_digest("manifest.json", etag)}
        assert listed.of(rec(1)) == objects | beside and len(objects) == 2
        assert listed.of(rec(2)) == frozenset()


def test_a_run_that_was_stopped_lists_no_further(bucket: Bucket) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    with closing(Listed(bucket.store, PREFIX, stopped, ranges=True)) as listed:
        before = bucket.counter.snapshot()
        listed.begin(NAMES, RECORDINGS * FILES)
        with pytest.raises(KeyboardInterrupt):
            listed.of(NAMES[0])
        assert sum(bucket.counter.since(before).values()) == 0


def test_a_listing_that_failed_is_asked_for_again(
    weed_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy]
) -> None:
    proxy = fault_proxy(weed_buckets.server)
    store = store_at(weed_buckets.server.at(proxy.url), weed_buckets.raw, RequestCounter())
    proxy.fail("list", status=400)
    with closing(Listed(store, PREFIX, lambda: None, ranges=True)) as listed:
        listed.begin([rec(1)], 1)
        with pytest.raises(UrsaError):
            listed.of(rec(1))
        listed.begin([rec(1)], 1)
        assert listed.of(rec(1)) == frozenset()


# Whole batches.


@pytest.fixture
def registered(
    weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Buckets]:
    """Three recordings below ``nas`` that are registered, and known to be."""
    on_disks(monkeypatch)
    config = s3_config(weed_buckets)
    with DataInterface("r2", config) as data:
        data.enable_writes()
        data.init_catalog()
    for number in range(3):
        age(make_recording(tmp_path / "nas", rec(number), {"eeg_a/a.edf": b"eeg %d" % number, "notes.txt": b"n"}))
    assert {outcome.status for outcome in run(config, tmp_path)} == {"ok"}
    assert all(map(without_a_look, run(config, tmp_path)))
    yield weed_buckets


def run(config: Path, root: Path) -> list[Outcome]:
    """A batch in a data interface of its own, as a process has."""
    with DataInterface("r2", config) as data:
        data.enable_writes(roles=WRITES)
        return list(data.batch([root / "nas"]))


@pytest.mark.parametrize("status", [400, 403])
def test_a_batch_that_can_not_list_says_no_have(
    status: int,
    registered: Buckets,
    s3_config: MakeConfig,
    fault_proxy: Callable[[S3Server], FaultProxy],
    tmp_path: Path,
) -> None:
    proxy = fault_proxy(registered.server)
    config = s3_config(registered.at(proxy.url))
    broken = proxy.fail(lambda _method, path, query: path.startswith("/raw-") and "list-type" in query, None, status)
    outcomes = run(config, tmp_path)
    assert broken.hits
    assert "fail" in {outcome.status for outcome in outcomes} <= {"fail", "skip"}
    proxy.clear()
    assert all(map(without_a_look, run(config, tmp_path)))


@pytest.mark.parametrize("path", ["eeg_a/a.edf", "notes.txt"])
def test_an_object_that_is_gone_is_no_have(
    path: str, registered: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    registered.server.client().delete_object(Bucket=registered.raw, Key=f"{PREFIX}{rec(1)}/{path}")
    first, second, third = run(s3_config(registered), tmp_path)
    assert without_a_look(first) and without_a_look(third)
    assert second.status == "fail" and type(second.error).__name__ == "MissingFilesError"
    assert path in str(second.error)


@pytest.mark.parametrize("path", ["eeg_a/a.edf", "notes.txt"])
def test_another_etag_is_compared_once_and_noted(
    path: str, registered: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    """The same bytes in another way (parts of 5 MiB) are the same bytes; others of the same size are not."""
    client, key = registered.server.client(), f"{PREFIX}{rec(1)}/{path}"
    body = client.get_object(Bucket=registered.raw, Key=key)["Body"].read()
    begun = client.create_multipart_upload(Bucket=registered.raw, Key=key)["UploadId"]
    at = {"Bucket": registered.raw, "Key": key, "UploadId": begun}
    etag = client.upload_part(**at, PartNumber=1, Body=body)["ETag"]
    client.complete_multipart_upload(**at, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    second = run(s3_config(registered), tmp_path)[1]
    assert second.status == "have" and not without_a_look(second)
    assert all(map(without_a_look, run(s3_config(registered), tmp_path)))
    client.put_object(Bucket=registered.raw, Key=key, Body=body[::-1] if path != "notes.txt" else b"x")
    second = run(s3_config(registered), tmp_path)[1]
    assert second.status == "fail" and type(second.error).__name__ == "ObjectConflictError"


def test_what_was_begun_before_it_is_known_which_are_registered(bucket: Bucket) -> None:
    """The others are listed no further, and the objects of those that are left are at hand once."""
    with closing(Listed(bucket.store, PREFIX, lambda: None, ranges=True)) as listed:
        listed.begin(NAMES, 0)
        wanted = NAMES[10:20]
        listed.begin(wanted, 10 * FILES)
        assert {name: listed.of(name) for name in wanted} == {name: bucket.truth[name] for name in wanted}
        assert listed.of(NAMES[0]) is None and listed.objects(NAMES[0]) is None
        objects = listed.objects(wanted[0]) or ()
        assert (
            frozenset(object_digest(info.key, info.size_bytes, info.etag) for info in objects)
            == bucket.truth[wanted[0]]
        )
        assert listed.objects(wanted[0]) is None
        listed.forget_objects(wanted[1])
        assert listed.objects(wanted[1]) is None


def test_a_range_that_turns_out_long_is_shared(bucket: Bucket) -> None:
    before = bucket.counter.snapshot()
    with closing(Listed(bucket.store, PREFIX, lambda: None, ranges=True)) as listed:
        listed.begin(NAMES, 0)
        listed.begin(NAMES, 400_000)
        assert {name: listed.of(name) for name in NAMES} == bucket.truth
    assert sum(bucket.counter.since(before).values()) <= 4 * 3


def test_objects_are_kept_within_bounds_and_a_time(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    one = len(NAMES[0]) * FILES
    monkeypatch.setattr("ursa.batch.listed.MOST_KEPT_BYTES", 10 * 3 * one)
    with closing(Listed(bucket.store, PREFIX, lambda: None, ranges=True)) as listed:
        listed.begin(NAMES, RECORDINGS * FILES)
        assert listed.of(NAMES[-1]) == bucket.truth[NAMES[-1]]
        found = [listed.objects(name) for name in NAMES[1:]]
        assert found[0] is not None and found[-1] is None
        assert all(objects is None or len(objects) == FILES for objects in found)
        monkeypatch.setattr("ursa.batch.listed.FRESH_FOR_S", -1.0)
        assert listed.objects(NAMES[0]) is None
