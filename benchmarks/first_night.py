"""The first night on a second machine: `ursa batch` hashes a whole disk, beside `sha256sum` over the same tree.

    python benchmarks/first_night.py [--rounds 3] [--files 24] [--mib 64] [--dir DIR]

One recording of FILES files is registered from one home (a machine that has read it). Then, in turn and with an empty home
each time (a machine that has read nothing), `ursa batch` finds that it has it, by reading every file; and `xargs -P CORES
sha256sum` reads the same files. Prints medians and the ratio of their rates. Asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from batch import bench
from transfer import MIB, Scenario, make_source, measure


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--dir", default="/dev/shm" if Path("/dev/shm").is_dir() else None)
    arguments = parser.parse_args()
    size = arguments.mib * MIB
    walls: dict[str, list[float]] = {"sha256sum": [], "ursa batch, empty home": []}
    with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="ursa-bench-") as directory:
        root = Path(directory)
        with bench(root) as made:
            nas = root / "nas"
            make_source(nas, Scenario(((arguments.files, size),), 0, ""))
            subprocess.run(made.batch(nas), env=made.environment, check=True, stdout=subprocess.DEVNULL)
            cores = str(os.cpu_count() or 1)
            for number in range(arguments.rounds):
                home = root / f"home-{number}"
                home.mkdir()
                peer = ["sh", "-c", f"find {nas} -type f -print0 | xargs -0 -n 1 -P {cores} sha256sum"]
                walls["sha256sum"].append(measure(peer, made.environment, None).wall_s)
                environment = {**made.environment, "HOME": str(home)}
                walls["ursa batch, empty home"].append(measure(made.batch(nas), environment, None).wall_s)
    total = arguments.files * size
    print(f"\n### {arguments.files} × {arguments.mib} MiB\n\n| | s | MiB/s |\n| --- | --- | --- |")
    medians = {name: statistics.median(times) for name, times in walls.items()}
    for name, seconds in medians.items():
        print(f"| {name} | {seconds:.2f} | {total / MIB / seconds:.0f} |")
    print(f"\nrate of ursa / sha256sum: {medians['sha256sum'] / medians['ursa batch, empty home']:.2f}", flush=True)


if __name__ == "__main__":
    main()
