"""Several recordings: whose fault it is where the system refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from ursa.errors import InvalidRecordingError, StorageError
from ursa.register.several import os_error_of

FULL, REFUSED, FAILED = (28, "No space left on device"), (13, "Permission denied"), (5, "Input/output error")
CACHE = "/home/ada/.cache/ursa/catalog/x/recordings/.scratch-1"


@pytest.mark.parametrize(
    ("why", "named", "message"),
    [
        (FULL, CACHE, f"{CACHE}: No space left on device"),
        (REFUSED, CACHE, f"{CACHE}: Permission denied"),
        (FULL, None, "this machine can't write: No space left on device"),
        (FULL, CACHE.encode(), f"{CACHE}: No space left on device"),
        (REFUSED, "REC", None),
        (REFUSED, "REC/camera/x", None),
        (REFUSED, "REC2/camera/x", "REC2/camera/x: Permission denied"),
        (REFUSED, "link/camera/x", None),
        (FAILED, None, None),
        (FAILED, 7, None),
    ],
)
def test_whose_fault_it_is(
    why: tuple[int, str], named: str | bytes | int | None, message: str | None, tmp_path: Path
) -> None:
    """The recording's, where a file of it was read; else that file is named, and the recording is not."""
    rec_dir = tmp_path / "rec_20260520_000001_ab"
    rec_dir.mkdir()
    (tmp_path / "link").symlink_to(rec_dir)

    def here(text: str) -> str:
        return text.replace("REC", str(rec_dir)).replace("link", str(tmp_path / "link"))

    raised = OSError(*why, here(named) if isinstance(named, str) else named)
    error = os_error_of(raised, rec_dir)
    if message is None:
        assert type(error) is InvalidRecordingError and error.message.startswith(f"{rec_dir}: ")
    else:
        assert type(error) is StorageError and error.message == here(message)
        assert "`ursa cache path`" in str(error.hint)
