"""The documentation: what is generated is current, links lead somewhere, and what it tells to type exists."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from ursa.config import load_config

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
READABLE = [*PAGES, ROOT / "README.md"]
PICTURES = sorted((DOCS / "pictures").glob("*.svg"))
REFERENCE = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]*|-[a-zA-Z])(?![\w-])")
OFFLINE = {"NO_MKDOCS_2_WARNING": "1"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in one of these languages."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [dedent(body) for _, language, body in found if language in languages]


def commands() -> dict[tuple[str, ...], frozenset[str]]:
    """Every command and subcommand, and the options that its help lists (``--check`` proves that the page is current)."""
    found = re.findall(r"^##+ ursa ?([^\n]*)\n\n```text\n(.*?)```", REFERENCE, flags=re.MULTILINE | re.DOTALL)
    return {
        tuple(words.split()): frozenset(OPTION.findall(help_text[help_text.index("\nOptions:") :]))
        for words, help_text in found
    }


COMMANDS = commands()


def typed(line: str) -> Iterator[list[str]]:
    """The words after each `ursa` of a shell line; pipes and the like end a command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    words: list[str] | None = None
    for token in lexer:
        if set(token) <= set("();<>|&"):
            if words is not None:
                yield words
            words = None
        elif words is not None:
            words.append(token)
        elif token == "ursa" or token.endswith("/ursa"):
            words = []
    if words is not None:
        yield words


def wrong_in(words: list[str]) -> list[str]:
    """What of a command does not exist: the command itself, or options of it."""
    depth = next((n for n in (2, 1) if len(words) >= n and tuple(words[:n]) in COMMANDS), 0)
    if depth == 0 and words and not words[0].startswith("-"):
        return [words[0]]
    known = COMMANDS[tuple(words[:depth])]
    given = [word.partition("=")[0] for word in words[depth:] if word.startswith("-") and word != "-"]
    return [option for option in given if option not in known]


def told_to_type(page: Path) -> Iterator[str]:
    """Shell lines of a page, continued ones joined, and the commands in its text."""
    text = page.read_text(encoding="utf-8")
    for block in blocks(page, "sh"):
        yield from block.replace("\\\n", " ").splitlines()
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`(ursa [^`\n]+)`", prose)


def shown(picture: Path) -> str:
    """The text in a picture."""
    return re.sub(r"<[^>]+>", "", picture.read_text(encoding="utf-8")).replace("&#160;", " ")


def test_generated_pages_are_current() -> None:
    done = subprocess.run([sys.executable, DOCS / "make.py", "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stale_page_is_named(tmp_path: Path) -> None:
    copy = shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__", "*.svg"))
    page = copy / "reference" / "cli.md"
    page.write_text(page.read_text(encoding="utf-8").replace("--dry-run", "--dryrun", 1), encoding="utf-8")
    (copy / "reference" / "config.md").unlink()
    done = subprocess.run([sys.executable, copy / "make.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "docs/reference/cli.md is stale" in done.stderr
    assert "docs/reference/config.md is stale" in done.stderr
    assert "exit-codes" not in done.stderr


@pytest.mark.slow
def test_the_site_builds_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason="the site needs ursa[docs]")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **OFFLINE}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = [page.read_text(encoding="utf-8") for page in site.rglob("*.html")]
    assert len(built) > len(PAGES) - 1
    fetched = re.compile(r"""<(?:script|link|img|iframe|object)\b[^>]*(?:src|href|data)=["']?(?:https?:)?//[^>]*>""")
    assert [found for text in built for found in fetched.findall(text)] == []
    # Material fetches a library for these two, from somebody else's server.
    assert not [text for text in built if 'class="mermaid"' in text or 'class="arithmatex"' in text]
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert ":::" not in python
    for name in ("DataInterface.ingest", "DataInterface.enable_writes", "RecordingRow", "LockHeldError"):
        assert re.search(rf'id="ursa\.[\w.]*{re.escape(name)}"', python), name


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=yaml.SafeLoader)

    def pages(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from pages(inner)

    named = list(pages(settings["nav"]))
    assert sorted(named) == [page.relative_to(DOCS).as_posix() for page in PAGES]
    assert settings["theme"]["font"] is False
    assert "repo_url" not in settings


@pytest.mark.parametrize("page", READABLE, ids=name_of)
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
    relative = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in relative if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", READABLE, ids=name_of)
def test_what_is_told_to_type_exists(page: Path) -> None:
    if page.name == "cli.md":
        assert len(COMMANDS) > 20, "the reference has all commands"
    wrong = {line: found for line in told_to_type(page) for words in typed(line) if (found := wrong_in(words))}
    assert wrong == {}


def test_wrong_commands_would_be_found() -> None:
    lines = "ursa ingest X --dryrun | jq .; .venv/bin/ursa frobnicate && ursa catalog history --limit=5 # ursa x"
    assert [wrong_in(words) for words in typed(lines)] == [["--dryrun"], ["frobnicate"], []]


@pytest.mark.parametrize("page", READABLE, ids=name_of)
def test_code_parses(page: Path) -> None:
    shell = "\n".join(blocks(page, "sh"))
    done = subprocess.run(["bash", "-n"], input=shell, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for block in blocks(page, "python"):
        ast.parse(block)


def test_the_example_configuration_loads(tmp_path: Path) -> None:
    examples = [block for page in PAGES for block in blocks(page, "yaml") if "profiles:" in block]
    assert examples
    for block in examples:
        path = tmp_path / "config.yaml"
        path.write_text(block.replace("<account id>", "abc123"), encoding="utf-8")
        config = load_config(path)
        profile = config.profile("r2")
        assert profile.credentials.refs("assets_ro") is not None


@pytest.mark.parametrize("path", [*READABLE, *PICTURES, ROOT / "mkdocs.yml"], ids=name_of)
def test_no_registry_and_no_path_of_this_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # In pieces, for no file of the repository names such a host.
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("anaconda", "org"))]
    here = [str(ROOT) + "/", sys.prefix + "/", "/dev/shm"]
    assert [found for found in (*hosts, *here) if found in text] == []


def test_pictures_are_drawn_from_the_program(tmp_path: Path) -> None:
    pytest.importorskip("pyte", reason="pictures need ursa[docs]")
    command = [sys.executable, DOCS / "make.py", "pictures", "--to", tmp_path, "--only", "ingest", "--only", "error"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    drawn = {path.stem: shown(path) for path in tmp_path.glob("*.svg")}
    assert drawn.keys() == {"ingest", "error"}
    assert "OK   rec_20260520_195628_b1dd: 9 uploaded, 0 skipped" in drawn["ingest"]
    assert "MissingFilesError" in drawn["error"]
    assert str(tmp_path.parent) not in drawn["error"]


@pytest.mark.parametrize("path", PICTURES, ids=name_of)
def test_pictures_load_nothing(path: Path) -> None:
    assert set(re.findall(r"https?://[^\s\"<]+", path.read_text(encoding="utf-8"))) == {"http://www.w3.org/2000/svg"}
    assert f"$ ursa {'ingest' if path.stem in ('error', 'ingest-plan') else path.stem}" in shown(path).replace("--", "")
