"""The test servers serve, the proxy counts and breaks what it is told to, and nothing outlives its run."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import BotoCoreError, ClientError

import servers
from conftest import Buckets, make_buckets
from helpers import make_recording, write_node_manifest
from http_wire import kind_of
from proxy import FaultProxy
from servers import S3Server, ServerError
from sharing import shared
from trips import depth, kinds, longest_chain, trace

NETWORK_ERRORS = (BotoCoreError, OSError)
MIB = 1024 * 1024


@pytest.fixture
def rclone_buckets(tmp_path: Path) -> Iterator[Buckets]:
    with servers.rclone_sink(tmp_path / "rclone") as server:
        yield make_buckets(server)


@pytest.fixture(params=["weed", "moto", "rclone"])
def buckets(request: pytest.FixtureRequest) -> Buckets:
    found: Buckets = request.getfixturevalue(f"{request.param}_buckets")
    return found


@pytest.fixture
def proxy(moto_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy]) -> FaultProxy:
    return fault_proxy(moto_buckets.server)


@pytest.fixture
def s3(moto_buckets: Buckets, proxy: FaultProxy) -> Any:
    """A client through the proxy that does not retry."""
    return moto_buckets.at(proxy.url).server.client(read_timeout=10)


def _status(call: Callable[..., Any], **kwargs: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**kwargs)
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], caught.value.response["Error"]["Code"]


def test_put_get_list(buckets: Buckets) -> None:
    client = buckets.server.client()
    client.put_object(Bucket=buckets.raw, Key="recordings/a b/ü.bin", Body=b"x" * 70_000)
    assert client.get_object(Bucket=buckets.raw, Key="recordings/a b/ü.bin")["Body"].read() == b"x" * 70_000
    (found,) = client.list_objects_v2(Bucket=buckets.raw, Prefix="recordings/")["Contents"]
    assert (found["Key"], found["Size"]) == ("recordings/a b/ü.bin", 70_000)
    assert "Contents" not in client.list_objects_v2(Bucket=buckets.assets)


@pytest.mark.parametrize("name", ["weed", "moto"])
def test_put_if_absent(name: str, request: pytest.FixtureRequest) -> None:
    buckets: Buckets = request.getfixturevalue(f"{name}_buckets")
    client = buckets.server.client()
    client.put_object(Bucket=buckets.raw, Key="k", Body=b"1", IfNoneMatch="*")
    put_again = {"Bucket": buckets.raw, "Key": "k", "Body": b"2", "IfNoneMatch": "*"}
    assert _status(client.put_object, **put_again) == (412, "PreconditionFailed")


def test_weed_checks_signatures_also_behind_the_proxy(
    weed_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy]
) -> None:
    through = weed_buckets.at(fault_proxy(weed_buckets.server).url)
    through.server.client().put_object(Bucket=through.raw, Key="k", Body=b"1")
    liar = S3Server(through.server.endpoint_url, through.server.access_key, "not the secret")
    assert _status(liar.client().put_object, Bucket=through.raw, Key="k", Body=b"2")[0] == 403


def test_multipart_through_the_proxy(weed_buckets: Buckets, fault_proxy: Callable[[S3Server], FaultProxy]) -> None:
    proxy = fault_proxy(weed_buckets.server)
    client, where = weed_buckets.at(proxy.url).server.client(), {"Bucket": weed_buckets.raw, "Key": "big"}
    parts = [os.urandom(5 * MIB), os.urandom(MIB)]
    upload = where | {"UploadId": client.create_multipart_upload(**where)["UploadId"]}
    with ThreadPoolExecutor(2) as pool:
        etags = list(pool.map(lambda n: client.upload_part(**upload, PartNumber=n, Body=parts[n - 1])["ETag"], (1, 2)))
    assert [p["Size"] for p in client.list_parts(**upload)["Parts"]] == [len(part) for part in parts]
    assert len(client.list_multipart_uploads(Bucket=weed_buckets.raw)["Uploads"]) == 1
    done = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})
    client.abort_multipart_upload(**where, UploadId=client.create_multipart_upload(**where)["UploadId"])
    assert client.head_object(**where)["ContentLength"] == 6 * MIB
    body = client.get_object(**where)["Body"].read()
    assert hashlib.sha256(body).digest() == hashlib.sha256(b"".join(parts)).digest()
    client.delete_object(**where)
    assert dict(proxy.counts) == {
        ("POST", "create_multipart"): 2,
        ("PUT", "upload_part"): 2,
        ("GET", "list_parts"): 1,
        ("GET", "list_uploads"): 1,
        ("POST", "complete"): 1,
        ("DELETE", "abort"): 1,
        ("HEAD", "head"): 1,
        ("GET", "get"): 1,
        ("DELETE", "delete"): 1,
    }
    assert sorted(e.bytes_in for e in proxy.log if e.kind == "upload_part") == sorted(len(part) for part in parts)
    assert next(e.bytes_out for e in proxy.log if e.kind == "get") == 6 * MIB


@pytest.mark.parametrize(
    ("method", "path", "query", "kind"),
    [
        ("GET", "/b", {"list-type": "2"}, "list"),
        ("GET", "/b/", {"prefix": "x"}, "list"),
        ("GET", "/", {}, "other"),
        ("PUT", "/b", {}, "other"),
        ("HEAD", "/b", {}, "other"),
        ("GET", "/b", {"location": ""}, "other"),
        ("POST", "/b", {"delete": ""}, "delete"),
        ("PUT", "/b/k", {"tagging": ""}, "other"),
        ("GET", "/b/k/with/slashes", {"x-id": "GetObject"}, "get"),
        ("PUT", "/b/recordings/.ursa-probe/0a1b-1", {}, "probe"),
        ("DELETE", "/b/recordings/.ursa-probe/0a1b-1", {}, "probe"),
    ],
)
def test_kinds(method: str, path: str, query: dict[str, str], kind: str) -> None:
    assert kind_of(method, path, query) == kind


def test_fail_once_then_serve(s3: Any, proxy: FaultProxy, moto_buckets: Buckets) -> None:
    rule = proxy.fail("put", status=503, retry_after=2)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=moto_buckets.raw, Key="k", Body=b"1")
    assert caught.value.response["Error"]["Code"] == "SlowDown"
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "2"
    s3.put_object(Bucket=moto_buckets.raw, Key="k", Body=b"1")
    assert rule.hits == 1
    assert [(entry.status, entry.fault) for entry in proxy.log] == [(503, "Fail"), (200, "")]


def test_match_by_function_and_for_ever(s3: Any, proxy: FaultProxy, moto_buckets: Buckets) -> None:
    proxy.fail(lambda method, path, query: path.endswith("/ü b"), times=None, status=429)
    for _ in range(2):
        assert _status(s3.head_object, Bucket=moto_buckets.raw, Key="ü b")[0] == 429
    assert _status(s3.head_object, Bucket=moto_buckets.raw, Key="other")[0] == 404
    proxy.clear()
    assert proxy.count() == 0
    assert _status(s3.head_object, Bucket=moto_buckets.raw, Key="ü b")[0] == 404


@pytest.mark.parametrize("after_bytes", [0, 100_000])
def test_reset(s3: Any, proxy: FaultProxy, moto_buckets: Buckets, after_bytes: int) -> None:
    proxy.reset("put", after_bytes=after_bytes)
    with pytest.raises(NETWORK_ERRORS):
        s3.put_object(Bucket=moto_buckets.raw, Key="k", Body=b"1" * MIB)
    assert proxy.log[0].status == 0
    assert proxy.log[0].bytes_in >= after_bytes
    assert _status(s3.head_object, Bucket=moto_buckets.raw, Key="k")[0] == 404


def test_cut(s3: Any, proxy: FaultProxy, moto_buckets: Buckets) -> None:
    s3.put_object(Bucket=moto_buckets.raw, Key="k", Body=b"1" * MIB)
    proxy.cut("get", 300_000)
    with pytest.raises(NETWORK_ERRORS):
        s3.get_object(Bucket=moto_buckets.raw, Key="k")["Body"].read()
    assert next(entry.bytes_out for entry in proxy.log if entry.kind == "get") == 300_000
    assert len(s3.get_object(Bucket=moto_buckets.raw, Key="k")["Body"].read()) == MIB


@pytest.mark.parametrize("after_bytes", [None, 10])
def test_stall_goes_on(s3: Any, proxy: FaultProxy, moto_buckets: Buckets, after_bytes: int | None) -> None:
    s3.put_object(Bucket=moto_buckets.raw, Key="k", Body=b"1" * 1000)
    proxy.stall("get", 0.3, after_bytes=after_bytes)
    started = time.monotonic()
    assert len(s3.get_object(Bucket=moto_buckets.raw, Key="k")["Body"].read()) == 1000
    assert time.monotonic() - started >= 0.3


def test_lose_reply(s3: Any, proxy: FaultProxy, moto_buckets: Buckets) -> None:
    proxy.lose_reply("put")
    with pytest.raises(NETWORK_ERRORS):
        s3.put_object(Bucket=moto_buckets.raw, Key="k", Body=b"arrived")
    assert s3.get_object(Bucket=moto_buckets.raw, Key="k")["Body"].read() == b"arrived"


def test_down_and_up(s3: Any, proxy: FaultProxy, moto_buckets: Buckets) -> None:
    s3.list_objects_v2(Bucket=moto_buckets.raw)
    proxy.down()
    with pytest.raises(NETWORK_ERRORS):
        s3.list_objects_v2(Bucket=moto_buckets.raw)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port or 0))
    proxy.up()
    s3.list_objects_v2(Bucket=moto_buckets.raw)


def test_down_breaks_what_is_in_flight(s3: Any, proxy: FaultProxy, moto_buckets: Buckets) -> None:
    proxy.stall("list", 0.3)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(s3.list_objects_v2, Bucket=moto_buckets.raw)
        while not proxy.count("list"):
            time.sleep(0.01)
        proxy.down()
        with pytest.raises(NETWORK_ERRORS):
            waiting.result(timeout=10)


def test_delay_is_for_each_request_and_not_for_all(s3: Any, proxy: FaultProxy, moto_buckets: Buckets) -> None:
    proxy.delay_s = 0.2
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: s3.put_object(Bucket=moto_buckets.raw, Key=str(n), Body=b"1"), range(8)))
    assert 0.2 <= time.monotonic() - started < 1.4
    assert proxy.peak_in_flight > 1


def test_the_longest_chain(s3: Any, proxy: FaultProxy, moto_buckets: Buckets) -> None:
    bucket = moto_buckets.raw
    proxy.delay_s = 0.2
    with ThreadPoolExecutor(3) as pool:
        for _ in pool.map(lambda number: s3.put_object(Bucket=bucket, Key=f"k{number}"), range(3)):
            pass
        assert depth(proxy.log) == 1
        s3.head_object(Bucket=bucket, Key="k0")
        proxy.reset("get", times=2)
        for _ in pool.map(lambda number: raises_network_error(s3, bucket, number), range(2)):
            pass
    assert [entry.kind for entry in longest_chain(proxy.log)] == ["put", "head", "get"]
    assert kinds(proxy.log) == "GET get 2, HEAD head 1, PUT put 3"
    lines = list(trace(proxy.log))
    assert len(lines) == 7 and "PUT" in lines[1] and f"/{bucket}/k" in lines[1] and " inf " in lines[-1]


def raises_network_error(s3: Any, bucket: str, number: int) -> None:
    with pytest.raises(NETWORK_ERRORS):
        s3.get_object(Bucket=bucket, Key=f"k{number}")


def test_chunked_body(proxy: FaultProxy, moto_buckets: Buckets) -> None:
    with closing(_connection(proxy)) as connection:
        pieces: Iterator[bytes] = iter([b"a" * 10, b"b" * 300_000])
        target, headers = f"/{moto_buckets.raw}/chunked", {"Transfer-Encoding": "chunked"}
        connection.request("PUT", target, body=pieces, encode_chunked=True, headers=headers)
        assert connection.getresponse().status == 200
    assert proxy.log[0].bytes_in > 300_000


class _Refusing(BaseHTTPRequestHandler):
    """A server that keeps connections and refuses whoever asks before sending a body: no S3 server here does both."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("X-Client-Port", str(self.client_address[1]))
        self.end_headers()

    def handle_expect_100(self) -> bool:
        self.send_response(412)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.close_connection = True
        return False

    def log_message(self, format: str, *args: Any) -> None:
        """Not into the tests' output."""


@pytest.fixture
def refusing() -> Iterator[FaultProxy]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        with FaultProxy(f"http://127.0.0.1:{server.server_port}") as proxy:
            yield proxy
        server.shutdown()


def _connection(proxy: FaultProxy) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", urlsplit(proxy.url).port or 0, timeout=10)


def test_connections_stay_open_on_both_sides(refusing: FaultProxy) -> None:
    with closing(_connection(refusing)) as connection:
        seen = set()
        for _ in range(3):
            connection.request("HEAD", "/b/k")
            answer = connection.getresponse()
            answer.read()
            seen.add((connection.sock, answer.headers["X-Client-Port"]))
    assert len(seen) == 1


def test_refusal_before_the_body_reaches_the_client(refusing: FaultProxy) -> None:
    client = S3Server(refusing.url, "k", "s").client()
    assert _status(client.put_object, Bucket="b", Key="k", Body=b"x" * 8 * MIB)[0] == 412
    assert refusing.log[0].bytes_in == 0


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "moto_server"
    broken.write_text("#!/bin/sh\necho cannot go on >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(servers, "find_executable", lambda name: str(tmp_path / name))
    with pytest.raises(ServerError, match=r"exit 3.*\n.*cannot go on"), servers.moto():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_server_dies_with_a_killed_parent() -> None:
    """Not even SIGKILL leaves a server behind."""
    program = "import servers, time\nwith servers.moto() as s: print(s.endpoint_url, flush=True); time.sleep(60)"
    tests = str(Path(__file__).parent)
    with subprocess.Popen([sys.executable, "-c", program], cwd=tests, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url = urlsplit(parent.stdout.readline().strip())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", url.port or 0), timeout=1).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its parent")


def test_sharing_starts_one_server_and_a_dead_one_again(tmp_path: Path) -> None:
    starts: list[Path] = []

    def start(directory: Path) -> Any:
        starts.append(directory)
        return servers.moto()

    with shared(tmp_path, "m", start) as first:
        with shared(tmp_path, "m", start) as second:
            assert second == first
        assert len(starts) == 1
    assert not (tmp_path / "m.json").exists()
    (tmp_path / "m.json").write_text(
        json.dumps({"endpoint_url": first.endpoint_url, "access_key": "", "secret_key": ""})
    )
    with shared(tmp_path, "m", start) as third:
        third.create_bucket("alive")
    assert len(starts) == 2


def test_home_is_empty_and_private(home: Path) -> None:
    assert Path.home() == home
    assert not list(home.iterdir())
    assert not [name for name in os.environ if name.startswith(("URSA_", "OP_", "XDG_", "AWS_PROFILE", "AWS_ACCESS"))]


def test_make_recording(tmp_path: Path) -> None:
    files = {"eeg_a/seg_000.edf": b"edf", "camera_left/s/seg_000.mp4": b"mp4", "events.csv": b"t", "_cal/x": b"y"}
    rec_dir = make_recording(tmp_path, "rec_20260520_195628_b1dd", files, participant="Aria Lin", timezone="UTC")
    manifest = json.loads((rec_dir / "manifest.json").read_bytes())
    assert [entry["path"] for entry in manifest["files"]] == ["camera_left/s/seg_000.mp4", "eeg_a/seg_000.edf"]
    assert manifest["files"][1]["sha256"] == hashlib.sha256(b"edf").hexdigest()
    assert (manifest["timezone"], manifest["started_at"]) == ("UTC", "2026-05-20T19:56:28+00:00")
    assert (rec_dir / "participant.txt").read_bytes() == b"Aria Lin\n"
    node = json.loads(write_node_manifest(rec_dir, "green-motor", ["eeg_a"]).read_bytes())
    assert [entry["path"] for entry in node["files"]] == ["eeg_a/seg_000.edf"]
    assert node["workers"] == [{"dir": "eeg_a", "modality": "eeg", "worker_id": "a", "node": "green-motor"}]


def test_s3_config(s3_config: Any, moto_buckets: Buckets) -> None:
    text = s3_config(moto_buckets, rig_timezone="Europe/Berlin").read_text()
    assert moto_buckets.raw in text and "rig_timezone: Europe/Berlin" in text
    assert moto_buckets.server.secret_key not in text
    assert os.environ["T_SECRET"] == moto_buckets.server.secret_key


def test_example_recordings_are_a_copy(example_recordings: Path, tmp_path: Path) -> None:
    assert example_recordings.is_relative_to(tmp_path)
    assert len(list(example_recordings.glob("rec_*"))) == 3
