"""`ursa cache`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import run_ursa

INCOMPLETE = {
    "no config file": None,
    "no endpoint": "profiles: {r2: {cache_dir: CACHE}}",
    "placeholders": "profiles: {r2: {cache_dir: CACHE, endpoint_url: 'https://<account>.example.com'}}",
}


@pytest.mark.parametrize("which", ["no config file", "no endpoint", "placeholders"])
def test_a_profile_that_is_not_complete(which: str, tmp_path: Path, home: Path) -> None:
    """Where the cache is, is all that is asked of it."""
    config, cache, text = tmp_path / "c.yaml", home / ".cache" / "ursa", INCOMPLETE[which]
    if text is not None:
        cache = tmp_path / "lab cache"
        config.write_text(text.replace("CACHE", "lab cache"))
    chosen = ["--config", config] if text is not None else []
    (cache / "catalog" / "abc" / "recordings").mkdir(parents=True)
    (cache / "catalog" / "abc" / "recordings" / "x").write_bytes(bytes(2048))
    (cache / "files-abc.sqlite").write_bytes(bytes(1024))
    told = run_ursa("cache", "path", "--json", *chosen)
    assert told.returncode == 0, told.stderr
    record = json.loads(told.stdout.splitlines()[0])
    assert (record["path"], record["catalog_bytes"], record["files_bytes"]) == (str(cache), 2048, 1024)
    cleared = run_ursa("cache", "clear", *chosen)
    assert (cleared.returncode, cleared.stdout) == (0, "removed 2.0 KiB\n"), cleared.stderr
    assert list((cache / "catalog").iterdir()) == [] and (cache / "files-abc.sqlite").exists()
    assert run_ursa("cache", "clear", "--files", *chosen).returncode == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("profiles: {other: {}}", "nope"),
        ("profiles: {nope: {cache_dir: ' '}}", "not a path"),
        ("profiles: {nope: {cache_dirs: x}}", "cache_dirs"),
    ],
)
def test_a_config_that_does_not_tell(text: str, words: str, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    for verb in ("path", "clear"):
        told = run_ursa("cache", verb, "--config", config, "-p", "nope")
        assert told.returncode == 2 and words in told.stderr and "Traceback" not in told.stderr
