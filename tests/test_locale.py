"""Names of files where the locale is not UTF-8: a server that still has ISO-8859-1. Names are bytes, and keys are UTF-8."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from helpers import make_recording
from servers import find_executable

REC = "rec_20260520_195628_b1dd"
FILES = {"eeg_a/übung ä.edf": b"seg", "notes_op/日本.txt": b"notes", "Anhänge/plan.txt": b"plan"}
Locale = Mapping[str, str]


@pytest.fixture(scope="session")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> Locale:
    """The environment of a process in ISO-8859-1."""
    localedef = shutil.which("localedef")
    made = tmp_path_factory.mktemp("locales") / "de_DE.ISO-8859-1"
    command = [localedef or "", "-i", "de_DE", "-f", "ISO-8859-1", str(made)]
    if localedef is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("localedef can't make a locale in ISO-8859-1 (Debian has its sources in `locales`)")
    return {"PATH": os.environ["PATH"], "LOCPATH": str(made.parent), "LC_ALL": made.name}


def python(locale: Locale, script: str, *args: Path) -> str:
    """Run a script in that locale, and return the UTF-8 text that it prints."""
    check = 'import sys\nassert sys.getfilesystemencoding() == "iso8859-1", sys.getfilesystemencoding()\n'
    done = subprocess.run(
        [sys.executable, "-c", check + dedent(script), *map(str, args)],
        env=dict(locale),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


def ursa(locale: Locale, *args: str | Path) -> bytes:
    """Run the installed ``ursa`` in that locale, and return its stdout."""
    env = dict(locale) | {"HOME": os.environ["HOME"]}
    done = subprocess.run([find_executable("ursa"), *map(str, args)], env=env, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout


def test_a_scan_reads_names_as_utf8(latin1: Locale, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "Käse", REC, FILES)
    (rec_dir / "_node_manifests").mkdir()
    (rec_dir / "_node_manifests" / "rüdiger.json").write_bytes((rec_dir / "manifest.json").read_bytes())
    script = """
        import json
        from pathlib import Path
        from ursa.recording import load_manifest, scan_recording
        root = Path(sys.argv[1])
        loaded = load_manifest(root)
        scan = scan_recording(root, manifest=loaded.manifest)
        files = {file.path: file.source.read_bytes().decode() for file in scan.files if file.kind in ("raw", "auxiliary")}
        own = load_manifest(root, root / "_node_manifests" / "r\\u00c3\\u00bcdiger.json")
        listed = [entry.path in scan.by_path for entry in loaded.manifest.files]
        print(json.dumps([files, listed, [source.path for source in (*loaded.sources, *own.sources)]]))
    """
    files, listed, sources = json.loads(python(latin1, script, rec_dir))
    assert files == {path: data.decode() for path, data in FILES.items()}
    assert all(listed) and listed
    assert sources == ["_node_manifests/rüdiger.json", "manifest.json", "_node_manifests/rüdiger.json"]


def test_a_scan_refuses_names_that_are_no_utf8(latin1: Locale, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path, REC, FILES)
    (rec_dir / "eeg_a" / os.fsdecode(b"\xfcbung.edf")).write_bytes(b"x")
    (rec_dir / "eeg_a" / ".übung ä.edf.random").write_bytes(b"x")
    (rec_dir / "eeg_a" / "e\u0301").write_bytes(b"x")
    (rec_dir / "eeg_a" / "\u00e9").write_bytes(b"x")
    script = """
        import json
        from pathlib import Path
        from ursa.errors import InvalidRecordingError
        from ursa.recording import scan_recording
        try:
            scan_recording(Path(sys.argv[1]))
        except InvalidRecordingError as error:
            print(json.dumps([error.paths, error.message]))
    """
    paths, message = json.loads(python(latin1, script, rec_dir))
    assert len(paths) == 3
    assert set(paths) - {"eeg_a/e\u0301", "eeg_a/\u00e9"} == {"eeg_a/.übung ä.edf.random", "eeg_a/\\xfcbung.edf"}
    assert "eeg_a/\\xfcbung.edf: a name that is not UTF-8" in message


def test_a_local_store_has_the_same_keys(latin1: Locale, tmp_path: Path) -> None:
    from ursa.store.local import LocalStore

    script = """
        import hashlib, json
        from pathlib import Path
        from ursa.store.local import LocalStore
        store = LocalStore(Path(sys.argv[1]), "raw")
        for name in ("\\u00fcber/\\u65e5\\u672c.txt", "\\u00fcber/b"):
            data = name.encode()
            store.put(f"recordings/{name}", data, sha256=hashlib.sha256(data).hexdigest(), metadata={"of": name})
        store.delete("recordings/\\u00fcber/b")
        keys = [info.key for info in store.list("recordings/\\u00fcb")]
        print(json.dumps([keys, list(store.list_prefixes("recordings/")), store.head(keys[0]).metadata]))
    """
    key = "recordings/über/日本.txt"
    keys, prefixes, metadata = json.loads(python(latin1, script, tmp_path))
    assert (keys, prefixes, dict(metadata)) == ([key], ["recordings/über/"], {"of": "über/日本.txt"})
    assert (tmp_path / "raw" / key).read_bytes() == "über/日本.txt".encode()
    body, info = LocalStore(tmp_path, "raw").read(key)
    assert (body.decode(), dict(info.metadata or {})) == ("über/日本.txt", {"of": "über/日本.txt"})


def test_the_root_of_a_profile_is_utf8(latin1: Locale, tmp_path: Path) -> None:
    root = tmp_path / "Gehäuse"
    root.mkdir()
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {root}}}\n", encoding="utf-8")
    script = """
        from pathlib import Path
        from ursa.config import load_config
        print(load_config(Path(sys.argv[1])).profile("local").root.is_dir())
    """
    assert python(latin1, script, config).strip() == "True"


def test_output_never_fails(latin1: Locale) -> None:
    script = """
        from ursa_cli import streams
        streams.steady()
        print("\\u65e5 \\udcff")
        print("\\u65e5 \\udcff", file=sys.stderr)
        streams.flush()
    """
    assert python(latin1, script) == "\\u65e5 \\udcff\n"


def test_an_ingest_and_a_download(latin1: Locale, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "Käse", REC, FILES, participant="Käthe")
    config = tmp_path / "ursa.yaml"
    config.write_text(f"profiles:\n  local: {{root: {tmp_path / 'Gehäuse'}}}\n", encoding="utf-8")
    options = ("--profile", "local", "--config", config)
    ursa(latin1, "ingest", rec_dir, *options)
    ursa(latin1, "verify", rec_dir, "--level", "full", *options)
    ursa(latin1, "download", REC, "--dest", tmp_path / "Köpie", *options)
    there = tmp_path / "Gehäuse"
    stored = {path.relative_to(parent).as_posix() for parent in there.rglob(REC) for path in parent.rglob("*.*")}
    assert stored == {*FILES, "manifest.json", "participant.txt"}
    assert {path: (tmp_path / "Köpie" / REC / path).read_bytes() for path in FILES} == FILES
    again = ursa(latin1, "batch", tmp_path / "Käse", "--report", tmp_path / "Köpie" / "r.html", *options)
    assert b"HAVE" in again
    assert {path.name for path in tmp_path.iterdir()} == {"Käse", "Gehäuse", "Köpie", "ursa.yaml"}
    # The same words as where the locale is UTF-8.
    utf8 = {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}
    assert ursa(latin1, "show", REC, "--json", *options) == ursa(utf8, "show", REC, "--json", *options)
    ursa(utf8, "verify", rec_dir, "--level", "full", *options)


def test_a_reconstructed_manifest_lists_utf8(latin1: Locale, tmp_path: Path) -> None:
    rec_dir = make_recording(tmp_path / "Käse", REC, FILES, manifest=False)
    ursa(latin1, "reconstruct", rec_dir, "--yes", "--profile", "local")
    listed = json.loads((rec_dir / "manifest.json").read_bytes())["files"]
    assert {entry["path"] for entry in listed} == set(FILES)
