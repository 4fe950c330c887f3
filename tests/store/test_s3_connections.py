"""Connections: kept, opened side by side, dropped when they are dead; and bodies on them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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


class Scripted:
    """A server that answers each request with the blocks that ``answer`` has for its method and path, one at a time.

    Each block after the first goes out when ``later`` is set.
    """

    def __init__(self, answer: Callable[[str, str], list[bytes]]) -> None:
        self._answer = answer
        self.opened = 0
        self.later = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            self.opened += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as lines, contextlib.suppress(OSError):
            while line := lines.readline():
                while lines.readline().strip():
                    pass
                method, path, _ = line.decode().split()
                first, *rest = self._answer(method, path)
                sock.sendall(first)
                for block in rest:
                    self.later.wait()
                    sock.sendall(block)


def ok(body: bytes, head: bytes = b"200 OK", *, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (head, len(body), more, body)


def asked(pool: Pool, path: str, method: str = "GET") -> tuple[int, bytes]:
    with pool.request(method, path, {"host": "x"}) as reply:
        return reply.status, reply.read()


def echoes(pool: Pool, number: int) -> bool:
    return all(asked(pool, f"/{number}/{i}") == (200, f"/{number}/{i}".encode()) for i in range(9))


def in_a_child(action: Callable[[], bool]) -> int:
    """The exit code of a forked process: 0 where it says True, 14 (SIGALRM) where it hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            code = 0 if action() else 2
        os._exit(code)
    return os.waitpid(child, 0)[1]


def test_a_forked_process_uses_none_of_several_connections() -> None:
    server = Scripted(lambda _method, path: [ok(path.encode())])
    pool = Pool(server.url)
    replies = [pool.request("GET", "/warm", {"host": "x"}) for _ in range(4)]
    for reply in replies:
        reply.read()
        reply.close()
    assert len(pool._idle) == server.opened == 4
    # One after another: each of them would take the same one of the parent's.
    for number in range(3):
        before = server.opened
        assert in_a_child(partial(echoes, pool, number)) == 0
        assert server.opened == before + 1
    assert [asked(pool, "/mine")[1] for _ in range(3)] == [b"/mine"] * 3
    assert server.opened == 7


def test_a_reply_of_the_parent_s_is_not_kept_in_a_child() -> None:
    server = Scripted(lambda _method, path: [ok(path.encode())])
    pool = Pool(server.url)
    reply = pool.request("GET", "/a", {"host": "x"})
    reply.read()

    def child() -> bool:
        reply.close()
        return not pool._idle

    assert in_a_child(child) == 0


def test_a_child_forked_while_a_lock_is_held(weed_buckets: Buckets, fault_proxy: Proxied) -> None:
    """By a thread, which the child does not have."""
    proxy = fault_proxy(weed_buckets.server)
    pool, counter = Pool(proxy.url), RequestCounter()
    store = store_at(proxy.url, weed_buckets, pool=pool, counter=counter)
    put(store, "k")
    for owner in (pool, counter, store):
        held, done = threading.Event(), threading.Event()

        def hold(lock: threading.Lock, held: threading.Event, done: threading.Event) -> None:
            with lock:
                held.set()
                done.wait()

        threading.Thread(target=hold, args=(owner._lock, held, done), daemon=True).start()
        held.wait()
        try:
            assert in_a_child(lambda: store.read("k")[0] == b"1") == 0
        finally:
            done.set()


@pytest.mark.parametrize("interim", ["102 Processing", "103 Early Hints", "199 Whatever", "100 Continue"])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("together", [True, False])
def test_replies_before_the_reply(interim: str, times: int, together: bool) -> None:
    before = [f"HTTP/1.1 {interim}\r\nLink: x\r\n\r\n".encode()] * times

    def answer(_method: str, path: str) -> list[bytes]:
        blocks = [*(before if path == "/a" else []), ok(path.encode())]
        return [b"".join(blocks)] if together else blocks

    server = Scripted(answer)
    server.later.set()
    pool = Pool(server.url)
    for path in ("/a", "/b", "/a", "/c"):
        assert asked(pool, path) == (200, path.encode())
    assert server.opened == 1


def test_replies_before_the_reply_without_end() -> None:
    server = Scripted(lambda _method, _path: [b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000])
    with pytest.raises(BadReplyError):
        asked(Pool(server.url), "/a")


def test_a_connection_that_became_something_else_is_not_kept() -> None:
    server = Scripted(lambda _method, _path: [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"])
    pool = Pool(server.url)
    assert asked(pool, "/a") == (101, b"")
    assert len(pool._idle) == 0


UNASKED = ok(b"of another")


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("HEAD", ok(b"")),
        ("HEAD", ok(b"", more=b"X-Large: %s\r\n" % bytes([120] * 9000))),
        ("GET", ok(b"ok")),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("when", ["with it", "after it"])
@pytest.mark.parametrize("size", [1, 40, 12000, 20000])
def test_bytes_after_a_reply(tmp_path: Path, method: str, reply: bytes, secure: bool, when: str, size: int) -> None:
    """A body where there is none, or more of it than was announced: never a part of the next reply."""
    surplus = (UNASKED * (1 + size // len(UNASKED)))[:size] if size > 1 else b"H"
    blocks = [reply + surplus] if when == "with it" else [reply, surplus]
    server = Scripted(lambda _method, path: blocks if path == "/a" else [ok(path.encode())])
    with contextlib.ExitStack() as stack:
        front = stack.enter_context(TlsFront(server.url, Authority(tmp_path))) if secure else None
        pool = Pool(front.url, front.bundle) if front else Pool(server.url)
        asked(pool, "/a", method)
        server.later.set()
        if when == "after it":
            (connection,) = pool._idle
            assert select.select([connection._sock], [], [], 60)[0]
        assert asked(pool, "/b") == (200, b"/b")
        assert server.opened == 2


@pytest.mark.parametrize("head", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("announced", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_body_announced_where_there_is_none(head: str, announced: str) -> None:
    """It may come later than the next request."""
    server = Scripted(lambda _method, _path: [f"HTTP/1.1 {head}\r\n{announced}\r\n\r\n".encode()])
    pool = Pool(server.url)
    asked(pool, "/a", "DELETE")
    assert len(pool._idle) == 0


@pytest.mark.parametrize("encoding", ["gzip", "br", "aws-chunked, GZIP"])
def test_content_that_was_compressed_on_the_way(weed_buckets: Buckets, encoding: str) -> None:
    head = f'ETag: "e"\r\nContent-Encoding: {encoding}\r\nTransfer-Encoding: chunked\r\n'.encode()
    reply = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n2\r\n\x1f\x8b\r\n0\r\n\r\n"
    server = Scripted(lambda _method, _path: [reply])
    store = store_at(server.url, weed_buckets)
    for action in (lambda: store.read("k"), lambda: b"".join(store.stream("k")), lambda: list(store.list(""))):
        with pytest.raises(TransientError, match="compressed"):
            action()


@pytest.mark.parametrize("encoding", ["identity", "", "aws-chunked", "Identity", "gzip"])
def test_content_as_it_is(encoding: str) -> None:
    """Also of an object that another tool has stored with this header."""
    server = Scripted(lambda _method, _path: [ok(b"ok", more=f"Content-Encoding: {encoding}\r\n".encode())])
    assert asked(Pool(server.url), "/a") == (200, b"ok")


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
