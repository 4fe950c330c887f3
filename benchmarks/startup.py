"""Start-up times as ratios, measured in one run, alternating: `import ursa`, `ursa --help`, a completion.

    python benchmarks/startup.py [--rounds 15]

Prints medians and ratios; asserts nothing (machines are noisy). Goals: `import ursa` within 0.05 s of bare Python,
`ursa --help` within 1.3 × the `--help` of a two-command typer app, completions faster than that.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TWO_COMMANDS = '''
import typer

app = typer.Typer()


@app.command()
def one(count: int = 1):
    """The first."""


@app.command()
def two(count: int = 1):
    """The second."""


if __name__ == "__main__":
    app()
'''


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    ursa = str(Path(sys.executable).with_name("ursa"))
    with tempfile.TemporaryDirectory() as directory:
        app = Path(directory) / "two.py"
        app.write_text(TWO_COMMANDS)
        completing = {"_URSA_COMPLETE": "complete_bash", "COMP_WORDS": "ursa show rec", "COMP_CWORD": "2"}
        commands: dict[str, tuple[list[str], dict[str, str]]] = {
            "bare python": ([sys.executable, "-c", "pass"], {}),
            "import ursa": ([sys.executable, "-c", "import ursa"], {}),
            "typer app --help": ([sys.executable, str(app), "--help"], {}),
            "ursa --help": ([ursa, "--help"], {}),
            "ursa completion": ([ursa], completing),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds + 1):
            for name, (command, environment) in commands.items():
                started = time.perf_counter()
                subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)
                times[name].append(time.perf_counter() - started)
    # The first round fills the page cache and compiles bytecode.
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, seconds in median.items():
        print(f"{name:<18} {seconds * 1000:7.1f} ms")
    print(
        f"import ursa over bare python:    +{(median['import ursa'] - median['bare python']) * 1000:.1f} ms (goal: 50)"
    )
    print(f"ursa --help / typer app --help:  {median['ursa --help'] / median['typer app --help']:.2f} (goal: 1.3)")
    print(
        f"completion / typer app --help:   {median['ursa completion'] / median['typer app --help']:.2f} (goal: below --help)"
    )


if __name__ == "__main__":
    main()
