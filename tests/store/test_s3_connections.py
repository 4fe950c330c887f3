"""Connections: kept, opened side by side, dropped when they are dead; and bodies on them."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ursa.store.s3.pool as pool_module
from conftest import Buckets
from proxy import FaultProxy
from relays import Authority, TlsFront
from servers import S3Server
from ursa.credentials import Credentials
from ursa.errors import StorageError
from ursa.store import NoSuchUploadError, TransientError
from ursa.store.counting import RequestCounter
from ursa.store.s3 import S3Location, S3Store
from ursa.store.s3.failures import BadReplyError
from ursa.store.s3.pool import Pool

Proxied = Callable[[S3Server], FaultProxy]
MIB = 1 << 20


@pytest.fixture
def front(weed_buckets: Buckets, tmp_path: Path) -> TlsFront:
    return TlsFront(weed_buckets.server.endpoint_url, Authority(tmp_path))


def store_at(url: str, buckets: Buckets, bundle: Path | None = None, **options: Pool | RequestCounter) -> S3Store:
    secret = Credentials(buckets.server.access_key, buckets.server.secret_key)
    location = S3Location(url, buckets.raw, "us-east-1", "raw_rw", bundle)
    counter = options.pop("counter", RequestCounter())
    return S3Store(location, lambda _again: secret, counter, **options)  # type: ignore[arg-type]


def put(store: S3Store, key: str, body: bytes = b"1") -> None:
    store.put(key, body, sha256=hashlib.sha256(body).hexdigest(), if_absent=True)


def test_one_after_another_is_one_connection(front: TlsFront, weed_buckets: Buckets) -> None:
    store = store_at(front.url, weed_buckets, front.bundle)
    with front:
        for number in range(10):
            put(store, f"k{number}")
        assert len(list(store.list(""))) == 10
        with pytest.raises(StorageError):
            store.head("nothing")
        assert b"".join(store.stream("k1")) == b"1"
        assert front.opened == 1


def test_buckets_of_a_server_share_connections(front: TlsFront, weed_buckets: Buckets) -> None:
    pool = Pool(front.url, front.bundle)
    with front:
        for _ in range(3):
            list(store_at(front.url, weed_buckets, pool=pool).list(""))
        assert front.opened == 1


def test_hundreds_at_once(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    proxy.delay_s = 0.5
    counter = RequestCounter()
    store = store_at(proxy.url, weed_buckets, counter=counter)
    with ThreadPoolExecutor(300) as pool:
        list(pool.map(lambda number: put(store, f"k{number}"), range(300)))
    assert proxy.peak_in_flight > 200
    assert counter.snapshot()["class_a"] == proxy.count() == 300


def test_a_connection_that_the_server_closed_is_no_failure(front: TlsFront, weed_buckets: Buckets) -> None:
    counter = RequestCounter()
    store = store_at(front.url, weed_buckets, front.bundle, counter=counter)
    with front:
        put(store, "k")
        for _ in range(3):
            front.hang_up()
            assert store.read("k")[0] == b"1"
        front.hang_up()
        put(store, "l", bytes(3 * MIB))
        assert front.opened == 5


ANSWERED = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: "e"\r\n\r\nok'


class Closing:
    """A server that answers each connection's first request, and closes when it has read a second one."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            with sock:
                self.heads.append(sock.recv(65536))
                sock.sendall(ANSWERED)
                self.heads.append(sock.recv(65536))


def test_closed_at_the_moment_of_a_request(weed_buckets: Buckets) -> None:
    """It went out and no answer came: what may come twice is sent again, and counted again."""
    server, counter = Closing(), RequestCounter()
    store = store_at(server.url, weed_buckets, counter=counter)
    for _ in range(3):
        assert b"".join(store.stream("k")) == b"ok"
    sent = [head for head in server.heads if head]
    assert len(sent) == counter.snapshot()["class_b"] == 5


def test_a_conditional_write_is_not_sent_twice_unasked(weed_buckets: Buckets) -> None:
    """The first may have arrived: the caller that repeats it must know that, to tell a refusal from another writer's."""
    server = Closing()
    store = store_at(server.url, weed_buckets)
    b"".join(store.stream("k"))
    with pytest.raises(TransientError):
        put(store, "k")
    assert len([head for head in server.heads if head.startswith(b"PUT")]) == 1


def test_a_failure_ends_the_connections_beside_it(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    """After a night's sleep all of them are dead, and none may tell: the next request goes out on a fresh one."""
    proxy = fault_proxy(weed_buckets.server)
    pool = Pool(proxy.url)
    store = store_at(proxy.url, weed_buckets, pool=pool)
    with ThreadPoolExecutor(8) as threads:
        start = threading.Barrier(8)
        list(threads.map(lambda number: (start.wait(), put(store, f"k{number}")), range(8)))
    assert len(pool._idle) > 1
    proxy.reset("delete", 2)
    with pytest.raises(TransientError):
        store.delete("k1")
    assert len(pool._idle) == 0


def test_an_old_connection_is_not_used(front: TlsFront, weed_buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_at(front.url, weed_buckets, front.bundle)
    with front:
        put(store, "k")
        slept = time.time() + 3600
        monkeypatch.setattr(pool_module.time, "time", lambda: slept)
        store.head("k")
        assert front.opened == 2


def test_a_forked_process_uses_connections_of_its_own(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    proxy = fault_proxy(weed_buckets.server)
    store = store_at(proxy.url, weed_buckets)
    put(store, "k")
    child = os.fork()
    if child == 0:
        os._exit(0 if store.read("k")[0] == b"1" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.read("k")[0] == b"1"


def test_a_server_that_refuses_before_it_has_read_the_body(weed_buckets: Buckets) -> None:
    """What it said is told, though sending broke off."""
    refusal = b"<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def refuse() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                head = f"HTTP/1.1 404 Not Found\r\nContent-Length: {len(refusal)}\r\nConnection: close\r\n\r\n"
                sock.sendall(head.encode() + refusal)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1 << 20):
                    pass

        threading.Thread(target=refuse, daemon=True).start()
        body = bytes(16 * MIB)
        with pytest.raises(NoSuchUploadError):
            store_at(url, weed_buckets).upload_part("k", "id", 1, body, md5=hashlib.md5(body).hexdigest())


def test_a_body_into_a_buffer(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    """Large blocks, no copies: what a downloader hashes and writes from."""
    proxy = fault_proxy(weed_buckets.server)
    body = os.urandom(5 * MIB + 17)
    store = store_at(proxy.url, weed_buckets)
    put(store, "k", body)
    buffer, digest = memoryview(bytearray(MIB)), hashlib.sha256()
    with store._connected().reply("GET", "k") as reply:
        while count := reply.readinto(buffer):
            digest.update(buffer[:count])
    assert digest.digest() == hashlib.sha256(body).digest()
    proxy.cut("get", 2 * MIB)
    with store._connected().reply("GET", "k") as reply, pytest.raises(BadReplyError):
        while reply.readinto(buffer):
            pass


def test_a_range_that_the_server_ignores(weed_buckets: Buckets) -> None:
    server = Closing()
    with pytest.raises(StorageError, match="the whole object"):
        b"".join(store_at(server.url, weed_buckets).stream("k", start=1))
