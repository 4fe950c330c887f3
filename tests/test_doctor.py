"""The doctor against real servers, well and ailing; a directory; a fake ``op``; broken configs; odd disks."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from api.api_tools import REC, objects, open_uploads, put, writer
from conftest import Buckets, MakeConfig
from helpers import make_recording
from proxy import FaultProxy
from servers import S3Server, rclone_sink
from trips import depth
from ursa import DataInterface, ProbeResult, diagnose
from ursa.access import Access
from ursa.config import load_config
from ursa.doctor import exit_code_of, mounts, recordings, runner
from ursa.doctor.catalog import MANY_FILES, _Table, judge
from ursa.doctor.house import GIB, is_low
from ursa.doctor.results import Finding, Status, fail, ok
from ursa.doctor.runner import Probe, run_all
from ursa.doctor.server import judge_skew
from ursa.errors import InvalidRecordingError, StorageError
from ursa.manifest.names import check_rec_id

Proxied = Callable[[S3Server], FaultProxy]
FILES = {"camera_left/seg_000.mp4": b"left " * 20, "eeg_a/seg_000.edf": b"eeg" * 30}
ROLES = ("role raw_ro", "role raw_rw", "role assets_ro", "role assets_rw")
OF_SERVER = ("provider", "certificates", "server", "clock", *ROLES, "catalog", "uploads")


def examine(config: Path | None = None, profile: str = "r2", **settings: Any) -> dict[str, ProbeResult]:
    """Every result by its probe's name."""
    return {result.name: result for result in diagnose(profile, config, **settings)}


def statuses(results: dict[str, ProbeResult]) -> dict[str, str]:
    return {name: str(result.status) for name, result in results.items()}


def text_of(results: dict[str, ProbeResult]) -> str:
    return "\n".join(f"{result.name} {result.detail} {result.mend}" for result in results.values())


def through(proxy: FaultProxy, buckets: Buckets, s3_config: MakeConfig) -> Path:
    """A config through a proxy, with a catalog."""
    config = s3_config(buckets.at(proxy.url), rig_timezone="UTC")
    writer(config).close()
    proxy.clear()
    return config


# --- a server --------------------------------------------------------------------------------------------------------


def test_all_is_well(weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    config = through(proxy, weed_buckets, s3_config)
    told: list[ProbeResult] = []
    results = DataInterface("r2", config).doctor(on_probe=told.append)
    assert told == results and exit_code_of(results) == 0
    assert {result.status for result in results} == {"ok"}, results
    assert all(result.name in [item.name for item in results] for result in results)
    assert {*OF_SERVER, "version", "config", "timezone", "disk"} == {result.name for result in results}
    assert objects(weed_buckets, "") == {} and open_uploads(weed_buckets) == []
    assets = weed_buckets.server.client().list_objects_v2(Bucket=weed_buckets.assets)["Contents"]
    assert not [item["Key"] for item in assets if "doctor" in item["Key"]]
    # Scoped tokens may list neither buckets nor more than they must, and no bucket may be asked for its head.
    assert "other" not in {entry.kind for entry in proxy.log}
    one = [entry for entry in proxy.log if entry.kind == "list" and entry.query.get("max-keys") == "1"]
    assert {entry.query["prefix"] for entry in one} == {"recordings/", "ursa/"}
    by_name = {result.name: result for result in results}
    assert "0 recordings (version 0" in by_name["catalog"].detail
    assert "through raw_rw" in by_name["role raw_ro"].detail
    assert all(", checks sha256 " in by_name[name].detail for name in ("role raw_rw", "role assets_rw"))
    # Asked now, whatever this machine has noted of the assets bucket when it made the catalog.
    assert sum(entry.method == "PUT" and "/ursa/.ursa-probe/" in entry.path for entry in proxy.log) == 4


def test_what_does_not_depend_on_each_other_goes_side_by_side(
    weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Proxied
) -> None:
    proxy = fault_proxy(weed_buckets.server)
    config = through(proxy, weed_buckets, s3_config)
    proxy.delay_s = 0.1
    results = examine(config)
    assert {result.status for result in results.values()} == {"ok"}, results
    assert "in progress" not in results["uploads"].detail  # the upload of a role's probe beside it
    assert "(empty)" in results["role raw_ro"].detail  # nor did this one see another role's objects
    assert depth(proxy.log) <= 25


def test_a_server_that_repeats_any_checksum(moto_buckets: Buckets, s3_config: MakeConfig) -> None:
    results = examine(s3_config(moto_buckets, rig_timezone="UTC"))
    for name in ("role raw_rw", "role assets_rw"):
        assert results[name].status == "ok" and ", does not check sha256 " in results[name].detail


def test_a_wrong_secret(weed_buckets: Buckets, s3_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = s3_config(weed_buckets)
    monkeypatch.setenv("T_SECRET", "wr0ng-s3cret-that-nobody-may-read")
    results = examine(config)
    assert {name: results[name].status for name in ROLES} == dict.fromkeys(ROLES, Status.FAIL)
    assert results["server"].status == results["clock"].status == "ok"
    assert results["catalog"].status == results["uploads"].status == "skip"
    assert "role assets_ro failed" in results["catalog"].detail
    assert exit_code_of(results.values()) == 4
    assert "wr0ng" not in text_of(results) and "left behind" not in text_of(results)


def test_what_a_server_quotes_is_masked(weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    config = through(proxy, weed_buckets, s3_config)
    proxy.fail("list", times=None, status=400, code=f"Echo{weed_buckets.server.secret_key}Of")
    results = examine(config)
    assert "Echo***Of" in results["role raw_ro"].detail
    assert weed_buckets.server.secret_key not in text_of(results)


def test_a_missing_bucket(weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    results = examine(s3_config(weed_buckets, raw={"bucket": "nobody-made-this"}))
    for name in ("role raw_ro", "role raw_rw"):
        assert results[name].status == "fail" and "nobody-made-this" in results[name].detail, results[name]
        assert "left behind" not in results[name].detail
    assert "nobody-made-this" not in [item["Name"] for item in weed_buckets.server.client().list_buckets()["Buckets"]]
    assert results["role assets_rw"].status == "ok"
    assert results["uploads"].status == "skip"
    assert exit_code_of(results.values()) == 1


def test_a_bucket_without_a_catalog(weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    results = examine(s3_config(weed_buckets))
    assert results["catalog"].status == "fail" and "there is no catalog yet" in results["catalog"].detail
    assert "ursa catalog init --yes" in (results["catalog"].mend or "")
    assert exit_code_of(results.values()) == 2
    assert weed_buckets.server.client().list_objects_v2(Bucket=weed_buckets.assets).get("Contents") is None


def test_keys_that_may_only_read(weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    config = through(proxy, weed_buckets, s3_config)
    for kind in ("probe", "put", "delete", "create_multipart"):
        proxy.fail(kind, times=None, status=403)  # type: ignore[arg-type]
    results = examine(config)
    assert statuses(results) | {"disk": "ok"} == dict.fromkeys(results, "ok") | {
        "role raw_rw": "fail",
        "role assets_rw": "fail",
    }
    assert results["role raw_rw"].exit_code == 4 and "role raw_rw" in results["role raw_rw"].detail
    assert "left behind" not in text_of(results)
    assert proxy.count("delete") == 0


def test_an_object_that_can_not_be_deleted_is_named(
    weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Proxied
) -> None:
    proxy = fault_proxy(weed_buckets.server)
    config = through(proxy, weed_buckets, s3_config)
    proxy.fail(lambda method, *_: method == "DELETE", times=None, status=403)
    result = examine(config)["role raw_rw"]
    key, of_conduct = sorted(objects(weed_buckets, ""))
    assert result.status == "fail" and f"{key} may be left behind" in result.detail
    assert key.startswith("recordings/.ursa-doctor/") and of_conduct.startswith("recordings/.ursa-probe/")


def test_what_is_left_behind_is_no_recording(weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    put(weed_buckets, "recordings/.ursa-doctor/host-0a1b", b"probe")
    with writer(s3_config(weed_buckets)) as data:
        assert data.list_recordings() == [] and data.verify(everything=True) == []
        names = [prefix.split("/")[1] for prefix in data._raw.list_prefixes("recordings/")]
    assert names == [".ursa-doctor"]
    with pytest.raises(InvalidRecordingError):
        check_rec_id(names[0])


def test_a_single_hiccup_is_no_failure(weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    config = through(proxy, weed_buckets, s3_config)
    rule = proxy.fail("put", times=2, status=429, retry_after=0)
    assert exit_code_of(examine(config).values()) == 0
    assert rule.hits == 2


def test_a_server_that_ignores_conditions(tmp_path: Path, s3_config: MakeConfig) -> None:
    with rclone_sink(tmp_path / "rclone") as server:
        buckets = Buckets(server, server.create_bucket("raw-data"), server.create_bucket("assets-data"))
        results = examine(s3_config(buckets))
        left = [path for path in (tmp_path / "rclone").rglob("*") if path.is_file() and path.name != "server.log"]
    for name in ("role raw_rw", "role assets_rw"):
        assert results[name].status == "fail", results[name]
        assert "ignores conditions" in results[name].detail
        assert "two writers could overwrite each other" in results[name].detail
    assert exit_code_of(results.values()) == 1
    assert left == []


@pytest.mark.parametrize(("away_s", "status"), [(0, "ok"), (200, "warn"), (-200, "warn"), (7200, "fail")])
def test_the_clock(
    weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Proxied, away_s: int, status: str
) -> None:
    proxy = fault_proxy(weed_buckets.server)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=away_s), usegmt=True)
    proxy.fail(lambda _m, path, _q: path.endswith("/clock"), times=None, status=403, headers={"Date": date})
    proxy.fail(lambda *_: True, times=None, status=403, code="RequestTimeTooSkewed")
    results = examine(s3_config(weed_buckets.at(proxy.url)))
    assert results["clock"].status == status, results["clock"]
    assert "clock" in results["role raw_ro"].detail and "network time" in (results["role raw_ro"].mend or "")
    if status != "ok":
        assert ("behind" if away_s > 0 else "ahead of") in results["clock"].detail


def test_skew_limits() -> None:
    assert [judge_skew(skew).status for skew in (-59, 59, 61, -61, 899, 901, -901)] == [
        "ok", "ok", "warn", "warn", "warn", "fail", "fail",
    ]  # fmt: skip


def test_a_server_that_ails(weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    config = through(proxy, weed_buckets, s3_config)
    proxy.fail(lambda _m, path, _q: path.endswith("/clock"), times=None, status=503)
    results = examine(config)
    assert results["server"].status == "warn" and "503" in results["server"].detail
    assert results["clock"].status == "warn" and "Date" in results["clock"].detail
    assert {results[name].status for name in ROLES} == {"ok"}


def test_a_server_that_is_not_there(weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    with socket.socket() as taken:  # bound and never listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        at = f"http://127.0.0.1:{taken.getsockname()[1]}"
        results = examine(s3_config(weed_buckets.at(at)))
    assert results["server"].status == "fail" and at in results["server"].detail
    assert {results[name].status for name in ("clock", *ROLES, "catalog", "uploads")} == {Status.SKIP}
    assert "server failed" in results["role raw_ro"].detail
    assert results["disk"].status != "skip" and exit_code_of(results.values()) == 1


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_variables_that_are_not_set(
    weed_buckets: Buckets, s3_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = s3_config(weed_buckets)
    monkeypatch.delenv("T_SECRET")
    results = examine(config)
    assert results["provider"].status == "warn" and "T_SECRET" in results["provider"].detail
    assert results["role assets_rw"].status == "fail" and "T_SECRET" in results["role assets_rw"].detail
    assert exit_code_of(results.values()) == 4


def test_roles_that_are_not_configured(weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    keys = {"access_key_id": "T_KEY", "secret_access_key": "T_SECRET"}
    results = examine(s3_config(weed_buckets, credentials={"provider": "env", "roles": {"raw_ro": keys}}))
    assert results["role raw_ro"].status == "ok"
    assert results["role raw_rw"].status == "warn" and "nothing can be ingested" in results["role raw_rw"].detail
    assert results["role assets_ro"].status == "fail" and results["role assets_ro"].exit_code == 4
    assert "profiles.r2.credentials.roles.raw_rw" in (results["role raw_rw"].mend or "")


@pytest.fixture
def op(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``op(body)`` puts a shell script called ``op`` on the PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def says(body: str) -> None:
        script = directory / "op"
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)

    return says


def op_config(buckets: Buckets, s3_config: MakeConfig) -> Path:
    refs = {"access_key_id": "op://Lab/R2/id", "secret_access_key": "op://Lab/R2/secret"}
    return s3_config(buckets, credentials={"provider": "1password", "roles": {"raw_rw": refs, "assets_rw": refs}})


def test_op_that_works(weed_buckets: Buckets, s3_config: MakeConfig, op: Callable[[str], None]) -> None:
    server = weed_buckets.server
    op(
        f'case "$1 $2" in\n--version*) echo 2.30.0;;\nwhoami*) echo URL: https://lab.example;;\n'
        f"read*/id) echo {server.access_key};;\nread*/secret) echo {server.secret_key};;\n*) exit 9;;\nesac"
    )
    results = examine(op_config(weed_buckets, s3_config))
    assert results["provider"].status == "ok" and "op 2.30.0, signed in" in results["provider"].detail
    assert {results[name].status for name in ROLES} == {"ok"}
    assert server.secret_key not in text_of(results) and server.access_key not in text_of(results)


def test_op_that_refuses(
    weed_buckets: Buckets, s3_config: MakeConfig, op: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    op('[ "$1" = --version ] && echo 2.30.0 && exit 0\necho "account is not signed in, t0ken" >&2; exit 1')
    config = op_config(weed_buckets, s3_config)
    results = examine(config)
    assert results["provider"].status == "fail" and results["provider"].exit_code == 4
    assert "cron needs one" in results["provider"].detail
    assert "OP_SERVICE_ACCOUNT_TOKEN" in (results["provider"].mend or "")
    assert {results[name].status for name in ROLES} == {"skip"} and results["server"].status == "ok"
    assert exit_code_of(results.values()) == 4
    monkeypatch.setenv("OP_SERVICE_ACCOUNT_TOKEN", "t0ken-of-nobody")
    results = examine(config)
    assert "not accepted" in (results["provider"].mend or "") and "t0ken" not in text_of(results)


def test_no_op(weed_buckets: Buckets, s3_config: MakeConfig, op: object, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    results = examine(op_config(weed_buckets, s3_config))
    assert results["provider"].status == "fail" and "isn't on the PATH" in results["provider"].detail
    assert {results[name].status for name in ROLES} == {"skip"}


def test_the_aws_chain_has_none(weed_buckets: Buckets, s3_config: MakeConfig) -> None:
    results = examine(s3_config(weed_buckets, credentials={"provider": "aws"}))
    assert results["provider"].status == "fail" and "AWS chain" in results["provider"].detail
    assert exit_code_of(results.values()) == 4


# --- config ----------------------------------------------------------------------------------------------------------


def test_a_broken_config(tmp_path: Path) -> None:
    config = tmp_path / "ursa.yaml"
    config.write_text("profiles: {r2: {endpont_url: https://h}}\n")
    results = examine(config, paths=[tmp_path])
    assert results["config"].status == "fail" and "did you mean 'endpoint_url'" in results["config"].detail
    assert {results[name].status for name in OF_SERVER} == {"skip"}
    assert results["version"].status == "ok" and results[f"mount {tmp_path}"].status == "ok"
    assert exit_code_of(results.values()) == 2


def test_no_such_profile(tmp_path: Path) -> None:
    results = examine(profile="locl")
    assert results["config"].status == "fail" and "did you mean 'local'" in results["config"].detail


def test_a_config_that_anybody_may_write(tmp_path: Path) -> None:
    config = tmp_path / "ursa.yaml"
    config.write_text("profiles: {local: {root: store, rig_timezone: Europe/Berlin}}\n")
    config.chmod(0o666)
    results = examine(config, "local")
    assert results["config"].status == "warn" and results["config"].mend == f"chmod o-w {config}"
    assert results["timezone"].status == "ok" and exit_code_of(results.values()) == 0
    config.chmod(0o644)
    assert examine(config, "local")["config"].status == "ok"


# --- a directory -----------------------------------------------------------------------------------------------------


def test_looking_makes_nothing(home: Path) -> None:
    results = examine(profile="local")
    assert exit_code_of(results.values()) == 0 and not set(OF_SERVER[:3]) & results.keys()
    assert {results[name].status for name in (*ROLES, "catalog", "uploads")} == {"ok"}
    assert "made on first use" in results["catalog"].detail
    assert results["timezone"].status == "warn"
    assert list(home.rglob("*")) == []


def local_store(tmp_path: Path) -> tuple[Path, Path]:
    """A config and the root of a directory store that holds a recording."""
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles: {{local: {{root: {tmp_path / 'store'}, rig_timezone: UTC}}}}\n")
    rec_dir = make_recording(tmp_path / "nas", REC, FILES, participant="Aria Lin")
    with DataInterface("local", config) as data:
        data.enable_writes(roles=("assets_rw", "raw_rw"))
        data.ingest(None, rec_dir, "Aria Lin")
    return config, tmp_path / "store"


def test_a_directory_store(tmp_path: Path) -> None:
    config, root = local_store(tmp_path)
    before = {path for path in root.rglob("*") if "_delta_log" not in str(path)}
    results = examine(config, "local", paths=[tmp_path / "nas"])
    assert {result.status for result in results.values()} == {"ok"}, results
    assert "1 recordings (version 1, 1 files)" in results["catalog"].detail
    assert "refuses stale writes" in results["role raw_rw"].detail
    assert {path for path in root.rglob("*") if "_delta_log" not in str(path)} - before <= {
        root / ".ursa" / "constellation-assets",
        *(root / ".ursa" / "constellation-assets").rglob("*"),
        *(root / ".ursa" / "constellation-data").iterdir(),
    }
    assert not [path for path in root.rglob("*") if "doctor" in path.name]


def test_old_uploads(tmp_path: Path) -> None:
    config, root = local_store(tmp_path)
    with DataInterface("local", config) as data:
        upload_id = data._raw.create_upload(f"recordings/{REC}/camera_left/seg_000.mp4")
    assert "1 in progress" in examine(config, "local")["uploads"].detail
    old = time.time() - 4 * 86_400
    os.utime(root / ".ursa" / "constellation-data" / "uploads" / upload_id / "upload.json", (old, old))
    result = examine(config, "local")["uploads"]
    assert result.status == "warn" and "ursa gc-uploads" in (result.mend or "") and REC in result.detail


def test_a_frozen_catalog(tmp_path: Path) -> None:
    config, _ = local_store(tmp_path)
    access = Access("local", config)
    access._catalog.recordings.set_frozen("catalog/v2")
    result = examine(config, "local")["catalog"]
    assert result.status == "warn" and "catalog/v2" in result.detail and "ursa catalog rebuild" in (result.mend or "")


def test_a_table_that_is_gone(tmp_path: Path) -> None:
    config, root = local_store(tmp_path)
    for path in (root / "constellation-assets").rglob("modalities/_delta_log/*"):
        path.unlink()
    result = examine(config, "local")["catalog"]
    assert result.status == "fail" and "modalities" in result.detail


def test_many_small_files() -> None:
    many = judge([_Table("recordings", 900, 1200, MANY_FILES + 1, None)], "catalog/v1", "r2")
    assert many.status == "warn" and "ursa catalog compact" in (many.mend or "")
    assert judge([_Table("recordings", 900, 1200, MANY_FILES, None)], "catalog/v1", "r2").status == "ok"


def test_a_root_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles: {{local: {{root: {tmp_path / 'file' / 'store'}}}}}\n")
    results = examine(config, "local")
    assert results["role raw_rw"].status == "fail" and "can't be made" in results["role raw_rw"].detail


def test_low_disks() -> None:
    assert is_low(4 * GIB, 20 * GIB) and is_low(40 * GIB, 1000 * GIB)
    assert not is_low(6 * GIB, 20 * GIB) and not is_low(60 * GIB, 1000 * GIB)


# --- paths -----------------------------------------------------------------------------------------------------------


def at_path(path: Path) -> tuple[ProbeResult, ProbeResult, ProbeResult]:
    results = examine(profile="local", paths=[path])
    mount, read, found = (results[f"{name} {path}"] for name in ("mount", "read", "recordings"))
    return mount, read, found


def test_a_path_that_is_missing_empty_or_a_file(tmp_path: Path) -> None:
    mount, read, found = at_path(tmp_path / "nothing")
    assert (mount.status, read.status, found.status) == ("fail", "skip", "skip")
    assert "no such directory" in mount.detail and mount.exit_code == 1
    (tmp_path / "empty").mkdir()
    assert "an unmounted NAS looks just like that" in at_path(tmp_path / "empty")[0].detail
    (tmp_path / "file").write_text("x")
    assert "not a directory" in at_path(tmp_path / "file")[0].detail


def test_a_nas(tmp_path: Path) -> None:
    nas = tmp_path / "nas"
    good = make_recording(nas, REC, FILES)
    (good / ".DS_Store").write_bytes(b"junk")
    (good / "notes.txt").write_text("unlisted")
    make_recording(nas, "rec_20260521_101500_c2ee", FILES, manifest=False)
    make_recording(nas, "Rec_20260521_101500_C2EE", FILES)
    (make_recording(nas, "rec_20260522_101500_c2ef", FILES) / "eeg_a" / "seg_001.edf.part").write_bytes(b"half")
    (make_recording(nas, "rec_20260523_101500_c2f0", FILES) / "eeg_a" / "seg_000.edf").write_bytes(b"cut")
    (nas / "lost+found").mkdir()
    mount, read, found = at_path(nas)
    assert mount.status == "ok" and "mounted at" in mount.detail and "case" in mount.detail
    assert read.status == "ok" and "MiB/s" in read.detail
    assert found.status == "warn" and found.detail.startswith("4 recordings; ")
    for words in (
        "1 without a manifest: rec_20260521_101500_c2ee",
        "1 whose name does not fit rec_<date>_<time>_<hex>: Rec_20260521_101500_C2EE",
        "1 with unfinished copies (*.part, *.tmp): rec_20260522_101500_c2ef",
        "1 that an ingest would refuse: rec_20260523_101500_c2f0",
        "1 junk file",
        "1 files that no manifest lists",
        "eeg_a/seg_000.edf has 3 bytes",
    ):
        assert words in found.detail, words
    assert "ursa reconstruct" in (found.mend or "")


def test_one_recording_and_none(tmp_path: Path) -> None:
    assert at_path(make_recording(tmp_path, REC, FILES))[2].detail == "1 recording"
    (tmp_path / "photos" / "2026").mkdir(parents=True)
    found = at_path(tmp_path / "photos")[2]
    assert found.status == "warn" and found.detail == "0 recordings"


def test_the_newest_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MOST_RECORDINGS", 1)
    make_recording(tmp_path, REC, FILES, manifest=False)
    make_recording(tmp_path, "rec_20260521_101500_c2ee", FILES)
    assert at_path(tmp_path)[2].detail == "2 recordings (looked into the newest 1)"


def test_mount_tables() -> None:
    linux = "/dev/sda1 / ext4 rw 0 0\nnas:/vol /mnt/my\\040nas nfs4 rw,hard 0 0\n/dev/sdb /mnt/my\\040nas xfs rw 0 0\n"
    mac = (
        "/dev/disk1s1 on / (apfs, local)\n//lab@nas/rec on /Volumes/rec 1 (smbfs, nodev)\nmap -hosts on /net (autofs)\n"
    )
    gnu = "nas:/vol on /mnt/nas type nfs4 (rw,hard)\n"
    assert mounts.parse_mounts(linux)["/mnt/my nas"] == mounts.Mount("/mnt/my nas", "/dev/sdb", "xfs")
    assert mounts.parse_mounts(mac)["/Volumes/rec 1"] == mounts.Mount("/Volumes/rec 1", "//lab@nas/rec", "smbfs")
    assert mounts.parse_mounts(gnu) == {"/mnt/nas": mounts.Mount("/mnt/nas", "nas:/vol", "nfs4")}


def test_a_mount_point_without_its_mount() -> None:
    root, nas = mounts.Mount("/", "/dev/sda1", "ext4"), mounts.Mount("/mnt/nas", "nas:/vol", "nfs4")
    for path in ("/mnt/nas", "/Volumes/rec", "/media/usb/x"):
        result = mounts.judge_mount(Path(path), root, "case not known")
        assert result.status == "warn" and "not mounted?" in result.detail
    assert mounts.judge_mount(Path("/mnt/nas/recordings"), nas, "").status == "ok"
    assert mounts.judge_mount(Path("/mntx"), root, "").status == "ok"


# --- the runner ------------------------------------------------------------------------------------------------------


def run(*probes: Probe, hide: Callable[[str], str] = str) -> dict[str, ProbeResult]:
    return {result.name: result for result in run_all(probes, lambda _result: None, hide)}


def raises(error: Exception) -> Callable[[], Finding]:
    def probe() -> Finding:
        raise error

    return probe


def test_one_that_fails_never_stops_the_others() -> None:
    results = run(
        Probe("ours", raises(StorageError("no such thing", hint="make it"))),
        Probe("system", raises(OSError(5, "Input/output error", "/nas"))),
        Probe("bug", raises(ZeroDivisionError("of ours"))),
        Probe("leans", lambda: ok("never"), needs=("bug",)),
        Probe("leans twice", lambda: ok("never"), needs=("leans",)),
        Probe("last", lambda: ok("fine")),
    )
    assert statuses(results) == {
        "ours": "fail", "system": "fail", "bug": "fail", "leans": "skip", "leans twice": "skip", "last": "ok",
    }  # fmt: skip
    assert (results["ours"].detail, results["ours"].mend) == ("no such thing", "make it")
    assert "/nas: Input/output error" in results["system"].detail
    assert "ZeroDivisionError" in results["bug"].detail and "bug in ursa" in (results["bug"].mend or "")
    assert results["leans"].detail == "not asked: bug failed"


def test_one_that_hangs_is_given_up() -> None:
    never = threading.Event()

    def hangs() -> Finding:
        never.wait(60)
        return ok("too late")

    results = run(Probe("nas", hangs, limit_s=0.05, left=lambda: "the probe object k may be left behind"))
    never.set()
    assert results["nas"].status == "fail" and "no answer" in results["nas"].detail
    assert "k may be left behind" in results["nas"].detail


def test_side_by_side_and_told_in_order() -> None:
    both = threading.Barrier(2, timeout=60)
    second_done = threading.Event()

    def first() -> Finding:
        both.wait()
        assert second_done.wait(60)
        return ok("the slower one")

    def second() -> Finding:
        both.wait()
        second_done.set()
        return ok("the faster one")

    told: list[str] = []
    results = run_all([Probe("first", first), Probe("second", second)], lambda result: told.append(result.name), str)
    assert told == ["first", "second"] and {result.status for result in results} == {"ok"}


def test_one_waits_for_what_would_disturb_it() -> None:
    done: list[str] = []

    def slowly() -> Finding:
        time.sleep(0.05)
        done.append("slow")
        raise StorageError("failed", hint="all the same")

    def then() -> Finding:
        return ok(f"after {done}")

    results = run(Probe("slow", slowly), Probe("then", then, after=("slow",)))
    assert statuses(results) == {"slow": "fail", "then": "ok"} and results["then"].detail == "after ['slow']"


def test_an_interrupt_lets_the_probes_in_flight_tidy() -> None:
    begun, told = threading.Event(), threading.Event()
    done: list[str] = []

    def writes() -> Finding:
        begun.set()
        told.wait(60)
        done.append("deleted")
        return ok("fine")

    def interrupted(_result: ProbeResult) -> None:
        assert begun.wait(60)
        told.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([Probe("quick", lambda: ok("fine")), Probe("writes", writes)], interrupted, str)
    assert done == ["deleted"]


def test_the_whole_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "ALL_S", 0.2)
    never = threading.Event()

    def hangs() -> Finding:
        never.wait(60)
        return ok("too late")

    results = run(Probe("nas", hangs), Probe("disk", lambda: ok("fine"), after=("nas",)))
    never.set()
    assert results["nas"].status == "fail" and "no answer" in results["nas"].detail
    assert results["disk"].status == "skip" and "took" in results["disk"].detail


def test_no_secret_in_a_line() -> None:
    found = run(Probe("p", lambda: fail("said s3cret", "type s3cret")), hide=lambda text: text.replace("s3cret", "***"))
    assert (found["p"].detail, found["p"].mend) == ("said ***", "type ***")


def test_a_config_that_is_loaded_already(tmp_path: Path) -> None:
    path = tmp_path / "ursa.yaml"
    path.write_text("profiles: {local: {root: store}}\n")
    config = load_config(path)
    path.unlink()
    data = DataInterface("local", config=config)
    assert "config" in {result.name for result in data.doctor()}
