"""Peak memory of uploading one huge file, against a server that keeps nothing.

    python benchmarks/memory.py [--gib 20]

The source is sparse; the server reads, hashes and forgets every part, and answers with its right ETag. The client is a
process of its own that has loaded all of ursa and boto's S3 client. Prints its peak resident size.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CLIENT = """
import resource, sys
from pathlib import Path
import ursa.interface
from ursa.credentials import Credentials
from ursa.store.counting import RequestCounter
from ursa.store.s3 import S3Location, S3Store
from ursa.transfer.digest import SourceFile
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.items import UploadItem
from ursa.transfer.upload import upload
url, source = sys.argv[1], Path(sys.argv[2])
store = S3Store(S3Location(url, "null", "auto", "raw_rw"), lambda again: Credentials("key", "secret"), RequestCounter())
stat = source.stat()
file = SourceFile(source.name, source, stat.st_size, stat.st_mtime_ns)
with Engine() as engine:
    items = [UploadItem(file, "big")]
    told = {"compare": lambda info, local: None, "on_event": lambda event: None}
    (done,) = upload(engine, store, items, stop=Stop(), open_uploads={}, **told)
assert done.evidence == "etag", done
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


class NullServer(BaseHTTPRequestHandler):
    """As much of S3 as one multipart upload needs; bytes are hashed and dropped."""

    protocol_version = "HTTP/1.1"
    parts: dict[int, str] = {}  # noqa: RUF012  (one upload a run)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in self.path:
            self._answer("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
            return
        md5s = b"".join(bytes.fromhex(self.parts[number]) for number in sorted(self.parts))
        etag = f"{hashlib.md5(md5s).hexdigest()}-{len(self.parts)}"
        self._answer(f'<CompleteMultipartUploadResult><ETag>"{etag}"</ETag></CompleteMultipartUploadResult>')

    def do_PUT(self) -> None:
        md5 = hashlib.md5()
        left = int(self.headers["Content-Length"])
        while left:
            block = self.rfile.read(min(left, 1 << 20))
            left -= len(block)
            md5.update(block)
        number = int(re.search(r"partNumber=(\d+)", self.path)[1])  # type: ignore[index]
        self.parts[number] = md5.hexdigest()
        self._answer("", f'"{md5.hexdigest()}"')

    def _answer(self, body: str, etag: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        return


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=int, default=20)
    gib = parser.parse_args().gib
    server = ThreadingHTTPServer(("127.0.0.1", 0), NullServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "sparse"
        with source.open("wb") as file:
            file.truncate(gib << 30)
        url = f"http://127.0.0.1:{server.server_port}"
        client = [sys.executable, "-c", CLIENT, url, str(source)]
        run = subprocess.run(client, capture_output=True, text=True, check=False, env=dict(os.environ))
    if run.returncode:
        raise SystemExit(run.stderr)
    unit = 1 if sys.platform == "darwin" else 1 << 10
    print(f"{gib} GiB: peak {int(run.stdout) * unit / (1 << 20):.0f} MiB (goal: 256), {len(NullServer.parts)} parts")


if __name__ == "__main__":
    main()
