"""How old an open upload is goes by the server's clock: this machine's may be days ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ursa import DataInterface, StorageError
from ursa.catalog import retention
from ursa.store import OpenUpload, Page
from ursa.store.local import LocalStore


def test_a_clock_that_is_ahead_makes_no_upload_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'store'}}}\n")
    now = datetime.now(UTC)
    begun = [OpenUpload("recordings/a", "1", now), OpenUpload("recordings/b", "2", None)]
    begun += [OpenUpload("recordings/c", "3", now - timedelta(days=4))]
    monkeypatch.setattr(LocalStore, "list_uploads", lambda *_: iter(begun))
    monkeypatch.setattr(LocalStore, "list_page", lambda *_, **__: Page((), now=now))
    with DataInterface("local", config) as data:
        assert [item.upload_id for item in data.list_uploads(older_than_s=3 * 86_400)] == ["3"]
        assert len(data.list_uploads()) == 3
        monkeypatch.setattr(retention.server_now, "__defaults__", (lambda: now + timedelta(days=4),))
        with pytest.raises(StorageError, match="4 days ahead"):
            data.list_uploads(older_than_s=3 * 86_400)
