"""A server behind a proxy in a process of its own, which delays each request, holds all of them to a rate, and counts.

    python benchmarks/far_server.py [--size 16384] [--connections 64]

measures what the proxy itself can take, with a server that answers at once: requests a second and MB/s. Whatever is
measured behind it has to stay well below.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from proxy import FaultProxy
from proxy_rules import Logged
from servers import S3Server

MIB = 1 << 20
SAMPLED_S = 0.1
_KEPT_HEADERS = ("if-match", "if-none-match", "range")


@dataclass(frozen=True)
class Traffic:
    """What went through: the requests in the order of their arrival, and how many bytes had gone up in all by when.

    Times are of ``time.monotonic``, which is the same for all processes of the machine.
    """

    requests: list[Logged]
    sent: list[tuple[float, int]]


class Far:
    """The proxy before a server. ``rate``: bytes a second that go up over all connections; None: as many as will."""

    def __init__(self, server: S3Server, delay_s: float, rate: float | None = None) -> None:
        command = [sys.executable, str(Path(__file__)), "--serve", server.endpoint_url, "--delay", str(delay_s)]
        command += ["--rate", str(rate)] if rate else []
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._line()

    def count(self) -> int:
        """Requests since the last look."""
        return int(self._ask("count"))

    def traffic(self) -> Traffic:
        """What went through since the last look."""
        told = json.loads(self._ask("traffic"))
        return Traffic([Logged(**fields) for fields in told["requests"]], [tuple(each) for each in told["sent"]])

    def cpu_s(self) -> float:
        """What the proxy has used."""
        return float(self._ask("cpu"))

    def close(self) -> None:
        """End the proxy."""
        self._process.kill()
        self._process.wait()

    def _ask(self, what: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def serve(upstream: str, delay_s: float, rate: float | None) -> None:
    """The process: prints the proxy's URL, then answers a line each until its stdin ends."""
    proxy = FaultProxy(upstream, delay_s=delay_s, bytes_per_s=rate)
    sent: list[tuple[float, int]] = []
    if rate:
        threading.Thread(target=_sample, args=(proxy, sent), daemon=True).start()
    print(proxy.url, flush=True)
    for line in sys.stdin:
        if line.strip() == "cpu":
            print(time.process_time(), flush=True)
            continue
        print(json.dumps(_told(proxy, sent)) if line.strip() == "traffic" else len(proxy.log), flush=True)
        proxy.clear()
        sent.clear()


def _sample(proxy: FaultProxy, sent: list[tuple[float, int]]) -> None:
    while True:
        sent.append((time.monotonic(), sum(entry.bytes_in for entry in list(proxy.log))))
        time.sleep(SAMPLED_S)


def _told(proxy: FaultProxy, sent: list[tuple[float, int]]) -> dict[str, object]:
    requests = []
    for entry in list(proxy.log):
        headers = {name: entry.headers[name] for name in _KEPT_HEADERS if name in entry.headers}
        requests.append(asdict(entry) | {"headers": headers})
    return {"requests": requests, "sent": list(sent)}


_PROMPT_SERVER = """
import socket, threading
listener = socket.create_server(("127.0.0.1", 0), backlog=512)
print(listener.getsockname()[1], flush=True)
def serve(client):
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    got = b""
    while True:
        while b"\\r\\n\\r\\n" not in got:
            data = client.recv(1 << 18)
            if not data:
                return
            got += data
        head, body = got.split(b"\\r\\n\\r\\n", 1)
        left, got = int(head.rsplit(b" ", 1)[1]) - len(body), b""
        while left:
            left -= len(client.recv(1 << 18))
        client.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def ceiling(size: int, connections: int) -> tuple[float, float]:
    """Requests a second of bodies of so many bytes, and the proxy's CPU in ms a request."""
    each = max(5, 4000 // connections) if size < MIB else 5
    with subprocess.Popen([sys.executable, "-c", _PROMPT_SERVER], stdout=subprocess.PIPE, text=True) as prompt:
        assert prompt.stdout is not None
        far = Far(S3Server(f"http://127.0.0.1:{int(prompt.stdout.readline())}", "", ""), 0)
        port = int(far.url.rsplit(":", 1)[1])
        request = b"PUT /bucket/key HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)

        def load() -> None:
            with socket.create_connection(("127.0.0.1", port)) as client:
                for _ in range(each):
                    client.sendall(request)
                    client.recv(1 << 16)

        loaders = [threading.Thread(target=load) for _ in range(connections)]
        before, began = far.cpu_s(), time.perf_counter()
        for loader in loaders:
            loader.start()
        for loader in loaders:
            loader.join()
        took, used = time.perf_counter() - began, far.cpu_s() - before
        far.close()
        prompt.kill()
    return connections * each / took, 1000 * used / (connections * each)


def main() -> None:
    """Be the proxy, or measure it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16 << 10)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--serve", default=None, metavar="URL", help="be the proxy of this server")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that each request takes longer")
    parser.add_argument("--rate", type=float, default=None, help="bytes a second")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.delay, arguments.rate)
        os._exit(0)
    for size, connections in ((arguments.size, arguments.connections), (20 * MIB, 8)):
        per_s, cpu_ms = ceiling(size, connections)
        print(
            f"{size:,} bytes over {connections} connections: {per_s:,.0f} requests/s, {per_s * size / 1e6:,.0f} MB/s,"
            f" {cpu_ms:.2f} ms of the proxy's CPU a request"
        )


if __name__ == "__main__":
    main()
