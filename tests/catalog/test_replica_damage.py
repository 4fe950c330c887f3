"""A catalog that is damaged in the bucket is told as that, with table, version and object; and one made anew is followed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket_tap import Tap
from deltalake import DeltaTable
from homes import Place, modality, rec_id, registration

from conftest import Buckets
from helpers import make_recording, run_ursa
from servers import S3Server
from ursa.catalog.catalog import Catalog
from ursa.errors import CatalogDamagedError
from ursa.register.commit import register

NEWEST = 6
TABLE = "ursa/catalog/v1/recordings/"
LOG = f"{TABLE}_delta_log/"


class Bench:
    """A catalog of six recordings, its objects to be damaged, and three machines that read it.

    ``cold`` has no replica, ``behind`` has read it up to version 2, ``warm`` all of it.
    """

    def __init__(self, place: Place, tmp_path: Path) -> None:
        self.place = place
        self.machines = {name: place.elsewhere(tmp_path / name) for name in ("cold", "behind", "warm", "writer")}
        for number in range(1, NEWEST + 1):
            register(self.machines["writer"].catalog(), registration(number))
            if number == 2:
                self.machines["behind"].catalog().list_recordings()
        assert len(self.machines["warm"].catalog().list_recordings()) == NEWEST

    def open(self, machine: str, **options: Any) -> Catalog:
        return self.machines[machine].catalog(**options)

    def read(self, name: str) -> bytes:
        return self.place.home().store.read(name)[0]

    def put(self, name: str, data: bytes) -> None:
        """With another tool, as it is; on a server with the metadata that it had."""
        if self.place.root:
            (self.place.root / "assets" / name).write_bytes(data)
            return
        client = self._client()
        told = client.head_object(Bucket=self.place.bucket, Key=name)["Metadata"]
        client.put_object(Bucket=self.place.bucket, Key=name, Body=data, Metadata=told)

    def delete(self, name: str) -> None:
        if self.place.root:
            (self.place.root / "assets" / name).unlink()
        else:
            self._client().delete_object(Bucket=self.place.bucket, Key=name)

    def names(self, prefix: str) -> list[str]:
        return [info.key for info in self.place.home().store.list(prefix)]

    def _client(self) -> Any:
        place = self.place
        return S3Server(place.endpoint_url, place.access_key, place.secret_key).client()


@pytest.fixture(params=["local", "weed"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "local":
        return Bench(Place(tmp_path), tmp_path)
    buckets: Buckets = request.getfixturevalue("weed_buckets")
    server = buckets.server
    place = Place(None, server.endpoint_url, buckets.assets, server.access_key, server.secret_key)
    return Bench(place, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Bench:
    return Bench(Place(tmp_path), tmp_path)


def commit(version: int) -> str:
    return f"{LOG}{version:020}.json"


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def _one_line(data: bytes) -> bytes:
    return data.splitlines(keepends=True)[0]


def _other_rows(data: bytes) -> bytes:
    """As by somebody who wrote the same version: whole, and another commit."""
    lines = [json.loads(line) for line in data.splitlines()]
    for line in lines:
        if "commitInfo" in line:
            line["commitInfo"]["ursa_op_id"] = "0" * 32
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _bit(data: bytes) -> bytes:
    """One flipped bit that leaves it JSON: in the name of the one who wrote it."""
    at = data.index(b"green-mantis")
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda data: None,
    "emptied": lambda data: b"",
    "cut": _cut,
    "cut at a line": _one_line,
    "not JSON": lambda data: b"\x00" * len(data),
    "replaced": _other_rows,
    "a bit": _bit,
}
# What nobody can know: that there was a commit which this machine has never seen, and that a whole one is another one.
UNKNOWN = {
    ("removed", "newest", "cold"),
    ("removed", "newest", "behind"),
    ("replaced", "newest", "cold"),
    ("replaced", "newest", "behind"),
    ("a bit", "newest", "cold"),
    ("a bit", "newest", "behind"),
}


def damage(bench: Bench, how: str, version: int) -> None:
    data = DAMAGE[how](bench.read(commit(version)))
    if data is None:
        bench.delete(commit(version))
    else:
        bench.put(commit(version), data)


@pytest.mark.parametrize("machine", ["cold", "behind", "warm"])
@pytest.mark.parametrize("where", ["newest", "middle"])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_commit(local: Bench, how: str, where: str, machine: str) -> None:
    """In the middle of what a machine has read it does no harm to it: there it is whole."""
    version = NEWEST if where == "newest" else 4
    damage(local, how, version)
    if (machine, where) == ("warm", "middle"):
        assert len(local.open(machine).list_recordings()) == NEWEST
        return
    if (how, where, machine) in UNKNOWN:
        local.open(machine).list_recordings()
        return
    with pytest.raises(CatalogDamagedError) as told:
        local.open(machine).list_recordings()
    error = told.value
    assert error.exit_code == 6
    assert error.fields["table"] == "recordings"
    assert (error.fields["version"], error.fields["object"]) == (version, f"_delta_log/{version:020}.json")
    assert f"{version:020}.json" in error.message and "Nothing was written" in (error.hint or "")
    # Nobody writes to it either.
    before = sorted(local.names("ursa/catalog/v1/recordings/"))
    with pytest.raises(CatalogDamagedError):
        register(local.open(machine), registration(9))
    assert sorted(local.names("ursa/catalog/v1/recordings/")) == before


@pytest.mark.parametrize("how", ["a bit", "replaced"])
@pytest.mark.parametrize("machine", ["cold", "behind", "warm"])
def test_the_newest_commit_on_a_server_is_not_what_was_written(
    weed_buckets: Buckets, tmp_path: Path, machine: str, how: str
) -> None:
    """Its sha256 stands beside it: there a flipped bit is seen by who has never read it."""
    server = weed_buckets.server
    bench = Bench(Place(None, server.endpoint_url, weed_buckets.assets, server.access_key, server.secret_key), tmp_path)
    damage(bench, how, NEWEST)
    with pytest.raises(CatalogDamagedError) as told:
        bench.open(machine).list_recordings()
    assert (told.value.fields["table"], told.value.fields["version"]) == ("recordings", NEWEST)


def test_put_back_it_is_as_it_was(local: Bench) -> None:
    """Damage leaves the replica as it was, and nothing has to be cleared."""
    whole = local.read(commit(NEWEST))
    damage(local, "emptied", NEWEST)
    for machine in ("cold", "behind", "warm"):
        with pytest.raises(CatalogDamagedError):
            local.open(machine).refresh()
    local.put(commit(NEWEST), whole)
    for machine in ("cold", "behind", "warm"):
        assert len(local.open(machine).list_recordings()) == NEWEST


def test_a_log_that_was_emptied(bench: Bench) -> None:
    """An empty LIST is never "nothing new": not even for who has never read it."""
    for name in bench.names(LOG):
        bench.delete(name)
    for machine in ("cold", "behind", "warm"):
        with pytest.raises(CatalogDamagedError, match=r"recordings is not there, though ACTIVE.json names it") as told:
            bench.open(machine).list_recordings()
        assert told.value.fields["table"] == "recordings"
    assert bench.names(LOG) == []


@pytest.mark.parametrize("how", ["removed", "cut", "emptied"])
def test_a_damaged_data_file(local: Bench, how: str) -> None:
    """Named by the newest version: damaged; who has it at hand reads on."""
    name = next(name for name in local.names(TABLE) if name.endswith(".parquet"))
    if how == "removed":
        local.delete(name)
    else:
        local.put(name, local.read(name)[: -100 if how == "cut" else 0])
    with pytest.raises(CatalogDamagedError) as told:
        local.open("cold").list_recordings()
    assert told.value.fields["table"] == "recordings" and told.value.fields["object"] in name
    assert told.value.exit_code == 6
    assert len(local.open("warm").list_recordings()) == NEWEST


def test_a_data_file_with_a_flipped_bit(weed_buckets: Buckets, tmp_path: Path) -> None:
    server = weed_buckets.server
    bench = Bench(Place(None, server.endpoint_url, weed_buckets.assets, server.access_key, server.secret_key), tmp_path)
    name = next(name for name in bench.names(TABLE) if name.endswith(".parquet"))
    data = bench.read(name)
    bench.put(name, data[:300] + bytes([data[300] ^ 4]) + data[301:])
    with pytest.raises(CatalogDamagedError, match="sha256") as told:
        bench.open("cold").list_recordings()
    assert told.value.fields["object"] in name


def test_a_data_file_that_a_compaction_and_the_retention_took(local: Bench) -> None:
    """Gone, and no version names it any more: what is there now is read, and nothing is damaged."""
    slow, other = local.open("cold"), local.open("writer")
    slow.refresh()
    old = [file.path for file in slow.recordings.files()]
    other.recordings.merge_files(1 << 20)
    for name in old:
        local.delete(TABLE + name)
    assert len(slow.list_recordings()) == NEWEST


def test_the_command_line_says_so(tmp_path: Path) -> None:
    """Exit 6, on one line, with what repairs it."""
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n", encoding="utf-8")
    for number in range(2):
        rec_dir = make_recording(tmp_path, f"rec_2026052{number}_195628_b1dd", {"eeg_a/a.edf": b"eeg%d" % number})
        assert run_ursa("ingest", rec_dir, "-p", "local", "--config", config).returncode == 0
    log = tmp_path / "store/constellation-assets" / LOG
    (log / f"{2:020}.json").write_bytes(b"")
    for words in (
        ["ls"],
        ["show", "rec_20260520"],
        ["catalog", "history"],
        ["ingest", str(rec_dir)],
        ["catalog", "compact"],
    ):
        done = run_ursa(*words, "-p", "local", "--config", config)
        assert done.returncode == 6, (words, done.stdout, done.stderr)
        assert f"_delta_log/{2:020}.json" in done.stdout + done.stderr and "is damaged" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


# --- made anew


def test_a_catalog_that_was_made_anew_is_followed(bench: Bench) -> None:
    """Another table's id: what was there is set aside, never deleted, and never mixed with what is there now."""
    old = {table.kind.name: table.replica.path.name for table in _opened(bench.open("warm")).tables}
    for name in bench.names("ursa/"):
        bench.delete(name)
    fresh = bench.machines["writer"].elsewhere(bench.machines["writer"].cache.with_name("fresh"))  # type: ignore[union-attr]
    fresh.home().initialize()
    register(fresh.catalog(), registration(7))
    for machine in ("warm", "behind", "cold", "writer"):
        catalog = bench.open(machine)
        assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(7)]
        assert catalog.list_modalities() == [modality(7)]
    for table in _opened(bench.open("warm")).tables:
        aside = table.replica.directory.base / f"{old[table.kind.name]}.old"
        assert table.replica.path.name != old[table.kind.name]
        assert len(list((aside / "_delta_log").glob("*.json"))) >= 1
    register(bench.open("warm"), registration(8))
    assert [row.rec_id for row in bench.open("cold").list_recordings()] == [rec_id(7), rec_id(8)]


def test_made_anew_under_an_open_handle(local: Bench) -> None:
    catalog = local.open("warm")
    catalog.list_recordings()
    for name in local.names("ursa/"):
        local.delete(name)
    register(
        local.machines["writer"].elsewhere(local.machines["warm"].cache.with_name("fresh")).catalog(), registration(7)
    )  # type: ignore[union-attr]
    assert [row.rec_id for row in catalog.list_recordings()] == [rec_id(7)]
    register(catalog, registration(8))
    assert len(catalog.list_modalities()) == 2


def test_made_anew_with_more_commits_than_before(local: Bench) -> None:
    """The version that was known is there, and is another one."""
    for name in local.names("ursa/"):
        local.delete(name)
    fresh = local.machines["writer"].elsewhere(local.machines["warm"].cache.with_name("fresh"))  # type: ignore[union-attr]
    for number in range(10, 10 + 2 * NEWEST):
        register(fresh.catalog(), registration(number))
    for machine in ("warm", "behind"):
        assert {row.rec_id for row in local.open(machine).list_recordings()} == set(
            map(rec_id, range(10, 10 + 2 * NEWEST))
        )


def test_a_backup_that_was_put_back_is_damage(local: Bench) -> None:
    """The same table, and older: nothing that this machine has read is forgotten without a word."""
    aside = Path(shutil.copytree(local.place.root / "assets", local.place.root / "backup"))  # type: ignore[operator]
    register(local.open("warm"), registration(8))
    shutil.rmtree(local.place.root / "assets")  # type: ignore[operator]
    aside.rename(local.place.root / "assets")  # type: ignore[operator]
    with pytest.raises(
        CatalogDamagedError, match=f"ends at version {NEWEST}, and this machine has read it up to {NEWEST + 1}"
    ):
        local.open("warm").list_recordings()
    assert len(local.open("behind").list_recordings()) == NEWEST
    # And another history after it.
    register(local.open("behind"), registration(9))
    with pytest.raises(CatalogDamagedError, match="another one than this machine has read before"):
        local.open("warm").list_recordings()


@pytest.mark.parametrize("content", [b"{", b"", bytes(500)], ids=["cut", "empty", "zeros"])
@pytest.mark.parametrize("which", ["*.json", f"{4:020}.json", f"{NEWEST:020}.json", f"{0:020}.json"])
def test_a_replica_whose_log_can_not_be_opened(local: Bench, which: str, content: bytes) -> None:
    """What is damaged on this disk is no damage: all of it is fetched again."""
    catalog = _opened(local.open("warm"))
    log = catalog.recordings.replica.log
    for path in log.glob(which):
        path.write_bytes(content)
    assert len(local.open("warm").list_recordings()) == NEWEST
    assert len(DeltaTable(str(local.open("warm").recordings.replica.path)).history()) == NEWEST + 1


def test_only_once_is_a_copy_blamed(local: Bench) -> None:
    """The bucket's file is no Parquet file, and of the right size: it is fetched again once, then it is told."""
    name = next(name for name in local.names(TABLE) if name.endswith(".parquet"))
    local.put(name, b"x" * len(local.read(name)))
    tap = Tap()
    with pytest.raises(Exception, match=r"can't query the catalog table|is damaged"):
        local.open("cold", tap=tap).list_recordings()
    assert sum(key == name for how, key in tap.log if how == "get") <= 2


def _opened(catalog: Catalog) -> Catalog:
    catalog.refresh()
    return catalog
