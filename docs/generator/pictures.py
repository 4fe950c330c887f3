"""Pictures of the terminal: the installed `ursa` at work on the example recordings, in a home of its own.

What differs from machine to machine (paths, the user, the host, times of day, speed, free space) is replaced by what a
reader might see; the rest is as the program printed it.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from rich.console import Console
from rich.text import Text

from generator.terminal import COLUMNS, run, screen

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "recordings"
REC = "rec_20260520_195628_b1dd"

# In this order: later ones show what earlier ones did. A name, what is typed, and the exit status that it must have.
SCENES = (
    ("help", "ursa --help", 0),
    ("ingest-plan", f"ursa ingest /mnt/usb/{REC} --profile local --dry-run", 0),
    ("ingest", f"ursa ingest /mnt/usb/{REC} --profile local", 0),
    ("show", f"ursa show {REC} --profile local", 0),
    ("batch", "ursa batch /mnt/usb --profile local", 0),
    ("verify", f"ursa verify /mnt/usb/{REC} --profile local", 0),
    ("doctor", "ursa doctor /mnt/usb --profile local", 0),
    ("error", "ursa ingest /mnt/broken/rec_20260523_110000_e4aa --profile local", 6),
)
_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def draw(directory: Path, only: Collection[str] | None = None) -> None:
    """Run every scene, or only these, and write the pictures to ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="u") as temp:
        stage = Path(temp).resolve()
        _set_up(stage)
        for name, typed, status in SCENES:
            if only is not None and name not in only:
                continue
            (directory / f"{name}.svg").write_text(_svg(name, typed, _perform(stage, typed, status)), encoding="utf-8")


def _set_up(stage: Path) -> None:
    """A home, a drive with the example recordings, and one with a recording that lost a file."""
    (stage / "home").mkdir()
    shutil.copytree(EXAMPLES, stage / "mnt" / "usb")
    broken = stage / "mnt" / "broken" / "rec_20260523_110000_e4aa"
    shutil.copytree(EXAMPLES / REC, broken)
    manifest = broken / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(REC, broken.name), encoding="utf-8")
    (broken / "camera_left" / "seg_001.mp4").unlink()


def _perform(stage: Path, typed: str, status: int) -> Text:
    ursa = str(Path(sys.executable).with_name("ursa"))
    command = [word.replace("/mnt/", f"{stage}/mnt/") for word in typed.split()]
    written, ended = run([ursa, *command[1:]], _environment(stage), str(stage))
    text = screen(written, _scrubber(stage))
    if ended != status:
        raise SystemExit(f"`{typed}` ends with {ended}, expected {status}:\n{text.plain}")
    return text


def _environment(stage: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "TMPDIR")}
    home = {"HOME": str(stage / "home"), "USER": "aria", "LOGNAME": "aria"}
    return kept | home | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _scrubber(stage: Path) -> Callable[[str], str]:
    host = re.escape(socket.gethostname())
    replacements = [
        (re.escape(f"{stage}/mnt/"), "/mnt/"),
        (re.escape(f"{stage}/home"), "/home/aria"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ by \S+", "2026-05-21 00:31:07Z by aria@nas-office"),
        (rf"\b{host}\b", "nas-office"),
        (r" \([\d.,]+ [KMGT]?i?B/s\)", ""),
        (r"(sent.*), \d+\.\d s", r"\1, 0.1 s"),
        (r"[\d,]+ MiB/s over", "110 MiB/s over"),
        (r"[\d.,]+ GiB free of [\d.,]+", "412.0 GiB free of 931.5"),
        (r"on \S+ \S+, mounted at \S+;", "on /dev/sda1 ext4, mounted at /mnt/usb;"),
    ]

    def scrub(text: str) -> str:
        for pattern, words in replacements:
            text = re.sub(pattern, words, text)
        return text

    return scrub


def _svg(name: str, typed: str, shown: Text) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "bold green"), (typed, "bold")))
    console.print(shown)
    title = " ".join(typed.split()[:2])
    drawn = console.export_svg(title=title, code_format=_format(), unique_id=f"ursa-{name}")
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def _format() -> str:
    """rich's own picture without its fonts, which a browser would fetch from somebody's server."""
    default: str = inspect.signature(Console.export_svg).parameters["code_format"].default
    offline = re.sub(r"@font-face \{\{.*?\}\}\s*|<!--.*?-->\s*", "", default, flags=re.DOTALL)
    return offline.replace("Fira Code, monospace", _FONTS)
