"""Lost replies, requests, a server that is down, secrets: ``ursa`` as a process, the fault proxy in front."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from api_tools import FILES, MIB, REC, objects, on_disk, open_uploads, writer

from conftest import Buckets, MakeConfig
from helpers import make_recording, run_ursa
from http_wire import kind_of
from proxy import FaultProxy
from servers import S3Server

Proxied = tuple[FaultProxy, Path]


@pytest.fixture
def proxied(weed_buckets: Buckets, s3_config: MakeConfig, fault_proxy: Callable[[S3Server], FaultProxy]) -> Proxied:
    """A proxy before a server with an empty catalog, and the config that goes through it."""
    writer(s3_config(weed_buckets)).close()
    proxy = fault_proxy(weed_buckets.server)
    return proxy, s3_config(weed_buckets.at(proxy.url))


def _whole(buckets: Buckets, config: Path, rec_dir: Path) -> None:
    """Every byte is right, nothing is left open, exactly one row is there."""
    assert objects(buckets) == on_disk(rec_dir)
    assert not open_uploads(buckets)
    listed = [json.loads(line) for line in run_ursa("ls", "--json", "--config", config).stdout.splitlines()]
    assert [row["rec_id"] for row in listed] == [rec_dir.name]


def test_five_hundred_files_cost_five_hundred_requests(proxied: Proxied, weed_buckets: Buckets, tmp_path: Path) -> None:
    proxy, config = proxied
    files = {f"camera_{number % 7}/seg_{number:03}.mp4": number.to_bytes(2, "big") * 500 for number in range(500)}
    rec_dir = make_recording(tmp_path, REC, files, participant="Aria Lin")
    done = run_ursa("ingest", rec_dir, "--json", "--config", config)
    assert done.returncode == 0, done.stderr
    raw = [entry for entry in proxy.log if entry.path.startswith(f"/{weed_buckets.raw}")]
    assert len(raw) <= 550
    result = json.loads(done.stdout.splitlines()[0])
    assert result["files_uploaded"] == 502
    assert 502 <= sum(result["requests"].values()) <= 560
    proxy.clear()
    again = run_ursa("ingest", rec_dir, "--config", config)
    assert again.returncode == 5
    assert len([entry for entry in proxy.log if entry.path.startswith(f"/{weed_buckets.raw}")]) <= 1


@pytest.mark.parametrize("kinds", [("put", "upload_part", "complete", "list"), ("create_multipart",)], ids=" ".join)
def test_a_lost_reply_is_not_a_lost_file(
    kinds: tuple[str, ...], proxied: Proxied, weed_buckets: Buckets, tmp_path: Path
) -> None:
    proxy, config = proxied
    rec_dir = make_recording(tmp_path, REC, FILES | {"camera_right/a.mp4": os.urandom(MIB) * 34})
    rules = [proxy.lose_reply(_raw(weed_buckets, kind)) for kind in kinds]
    done = run_ursa("ingest", rec_dir, "--config", config)
    assert done.returncode == 0, done.stderr
    assert [rule.hits for rule in rules] == [1] * len(kinds)
    if "create_multipart" in kinds:
        # The upload whose id was lost stays open: nobody can know whose it is.
        client = weed_buckets.server.client()
        for lost in open_uploads(weed_buckets):
            client.abort_multipart_upload(Bucket=weed_buckets.raw, Key=lost["Key"], UploadId=lost["UploadId"])
    _whole(weed_buckets, config, rec_dir)


def test_a_lost_reply_of_a_commit_is_no_second_row(proxied: Proxied, weed_buckets: Buckets, tmp_path: Path) -> None:
    proxy, config = proxied
    rec_dir = make_recording(tmp_path, REC, FILES, participant="Aria Lin")
    rules = [
        proxy.lose_reply(lambda method, path, query, part=f"/{table}/_delta_log/0": method == "PUT" and part in path)
        for table in ("participants", "modalities", "recordings")
    ]
    done = run_ursa("ingest", rec_dir, "--config", config)
    assert (done.returncode, [rule.hits for rule in rules]) == (0, [1, 1, 1]), done.stderr
    _whole(weed_buckets, config, rec_dir)
    shown = json.loads(run_ursa("show", REC, "--json", "--config", config).stdout)
    assert (shown["participants"], len(shown["workers"])) == (["Aria Lin"], 2)


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_passing_faults_pass(fault: str, proxied: Proxied, weed_buckets: Buckets, tmp_path: Path) -> None:
    proxy, config = proxied
    rec_dir = make_recording(tmp_path, REC, FILES | {"camera_right/a.mp4": os.urandom(MIB) * 34})
    matches = [_raw(weed_buckets, kind) for kind in ("put", "upload_part", "complete", "list")]
    rules = [proxy.fail(match) if fault == "503" else proxy.reset(match) for match in matches]
    done = run_ursa("ingest", rec_dir, "--config", config)
    assert done.returncode == 0, done.stderr
    assert [rule.hits for rule in rules] == [1, 1, 1, 1]
    _whole(weed_buckets, config, rec_dir)


def test_refused_credentials_are_exit_4(proxied: Proxied, weed_buckets: Buckets, tmp_path: Path) -> None:
    _, config = proxied
    rec_dir = make_recording(tmp_path, REC, FILES)
    done = run_ursa("ingest", rec_dir, "--config", config, env={"T_SECRET": "not-the-secret-at-all"})
    assert done.returncode == 4, done.stderr
    assert "assets_r" in done.stderr or "raw_r" in done.stderr
    assert "not-the-secret-at-all" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    missing = run_ursa("ingest", rec_dir, "--config", config, env={"T_SECRET": ""})
    assert missing.returncode == 4 and "T_SECRET" in missing.stderr
    assert objects(weed_buckets) == {}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ingest", "ls"])
def test_a_server_that_is_down_ends_in_words(command: str, proxied: Proxied, tmp_path: Path) -> None:
    proxy, config = proxied
    proxy.down()
    words = [make_recording(tmp_path, REC, FILES)] if command == "ingest" else []
    started = time.monotonic()
    done = run_ursa(command, *words, "--config", config, timeout=150)
    assert time.monotonic() - started < 120
    assert done.returncode == 1
    assert "StorageError" in done.stderr or "TransientError" in done.stderr
    assert proxy.url in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_server_that_goes_down_in_the_middle_ends_in_words(
    proxied: Proxied, weed_buckets: Buckets, tmp_path: Path
) -> None:
    proxy, config = proxied
    rec_dir = make_recording(tmp_path, REC, FILES)
    proxy.fail(lambda method, path, query: method == "PUT" and weed_buckets.raw in path, times=None)
    started = time.monotonic()
    done = run_ursa("ingest", rec_dir, "--config", config, timeout=150)
    assert time.monotonic() - started < 120
    assert done.returncode == 1
    assert "503" in done.stderr or "SlowDown" in done.stderr
    assert "Traceback" not in done.stderr
    proxy.clear()
    assert run_ursa("ls", "--json", "--config", config).stdout == ""
    assert run_ursa("ingest", rec_dir, "--config", config).returncode == 0
    _whole(weed_buckets, config, rec_dir)


OP = """#!/bin/sh
echo "$@" >> "{log}"
case "$2" in
  *access_key_id) echo "{key}" ;;
  *) echo "{secret}" ;;
esac
"""


def _with_op(tmp_path: Path, buckets: Buckets) -> dict[str, str]:
    tools = tmp_path / "tools"
    tools.mkdir()
    op = tools / "op"
    op.write_text(OP.format(log=tmp_path / "op.log", key=buckets.server.access_key, secret=buckets.server.secret_key))
    op.chmod(0o755)
    return {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "OP_SERVICE_ACCOUNT_TOKEN": "ops_private_token"}


REFERENCES = {name: f"op://Engineering/R2/{name}" for name in ("access_key_id", "secret_access_key")}
ONE_PASSWORD = {"provider": "1password", "roles": {"raw_rw": REFERENCES, "assets_rw": REFERENCES}}


@pytest.mark.parametrize("provider", ["env", "1password"])
def test_no_secret_is_ever_shown(
    provider: str, proxied: Proxied, weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path
) -> None:
    proxy, config = proxied
    env = {}
    if provider == "1password":
        config = s3_config(weed_buckets.at(proxy.url), credentials=ONE_PASSWORD)
        env = _with_op(tmp_path, weed_buckets)
    rec_dir = make_recording(tmp_path, REC, FILES)
    log = tmp_path / "ursa.log"
    shared = ("--config", config, "-v", "--log-file", log)
    proxy.fail("put", status=500)
    runs = [run_ursa("ingest", rec_dir, *shared, env=env), run_ursa("ingest", rec_dir, *shared, "--json", env=env)]
    runs += [run_ursa(*words, *shared, env=env) for words in (["ls"], ["show", REC], ["config", "show"])]
    runs += [run_ursa("catalog", "location", *shared, env=env)]
    proxy.fail(lambda method, path, query: True, times=None, status=403)
    runs += [run_ursa("ls", *shared, env=env)]
    assert [run.returncode for run in runs] == [0, 5, 0, 0, 0, 0, 4], [run.stderr for run in runs]
    printed = log.read_text() + "".join(run.stdout + run.stderr for run in runs)
    assert REC in log.read_text()
    for secret in (weed_buckets.server.secret_key, "ops_private_token"):
        assert secret not in printed
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "op"]
    assert not [path for path in kept if weed_buckets.server.secret_key.encode() in path.read_bytes()]


def test_op_is_asked_once_a_value(weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path) -> None:
    writer(s3_config(weed_buckets)).close()
    config = s3_config(weed_buckets, credentials=ONE_PASSWORD)
    env = _with_op(tmp_path, weed_buckets)
    done = run_ursa("ingest", make_recording(tmp_path, REC, FILES), "--config", config, env=env)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "op.log").read_text().splitlines()
    assert sorted(asked) == sorted(f"read {ref}" for ref in REFERENCES.values())


def test_without_op_exit_4_says_what_to_do(weed_buckets: Buckets, s3_config: MakeConfig, tmp_path: Path) -> None:
    config = s3_config(weed_buckets, credentials=ONE_PASSWORD)
    empty = tmp_path / "empty"
    empty.mkdir()
    rec_dir = make_recording(tmp_path, REC, FILES)
    done = run_ursa("ingest", rec_dir, "--config", config, env={"PATH": str(empty)})
    assert done.returncode == 4
    assert "`op` isn't on the PATH" in done.stderr and "Install it" in done.stderr
    assert "Traceback" not in done.stderr


def _raw(buckets: Buckets, kind: str) -> Callable[[str, str, dict[str, str]], bool]:
    """Requests of one kind to the raw bucket."""
    return lambda method, path, query: buckets.raw in path and kind_of(method, path, query) == kind
