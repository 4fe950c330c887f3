"""Upload large sparse files into a store that keeps nothing; print the peak of this process's memory, bytes."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

from ursa.policies import Evidence
from ursa.store import Part, PutResult
from ursa.transfer.digest import SourceFile
from ursa.transfer.engine import Engine, Stop
from ursa.transfer.items import UploadItem
from ursa.transfer.parts import multipart_etag
from ursa.transfer.upload import upload

MIB = 1 << 20


class NullStore:
    """Takes everything, slowly enough that reading runs ahead."""

    def put(self, _key: str, _body: bytes, **_options: Any) -> PutResult:
        time.sleep(0.02)
        return PutResult("0", Evidence.SHA256)

    def create_upload(self, _key: str, **_options: Any) -> str:
        return "id"

    def upload_part(self, _key: str, _upload_id: str, number: int, body: Any, *, md5: str, **_options: Any) -> Part:
        time.sleep(0.02)
        return Part(number, len(body), md5)

    def complete_upload(self, _key: str, _upload_id: str, parts: list[Part], **_options: Any) -> str:
        return multipart_etag(part.etag for part in parts)


def sparse(path: Path, size: int) -> UploadItem:
    with path.open("wb") as file:
        file.truncate(size)
    return UploadItem(SourceFile(path.name, path, size, path.stat().st_mtime_ns), path.name)


def main() -> None:
    root = Path(sys.argv[1])
    items = [sparse(root / "large", 1024 * MIB)]
    items += [sparse(root / f"small{number}", 16 * MIB) for number in range(16)]
    store: Any = NullStore()
    with Engine() as engine:
        upload(
            engine,
            store,
            items,
            stop=Stop(),
            open_uploads={},
            compare=lambda _info, _local: None,
            on_event=lambda _event: None,
        )
    # Not getrusage: its peak is inherited from the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(int(peak[1]) * 1024)


if __name__ == "__main__":
    main()
