"""A rig's laptop that ingests all the time: ``writer.py ROOT FIRST STEP``, until ``ROOT/stop`` exists; prints a line each."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from grown import Lab, content, name

from helpers import make_recording


def main() -> None:
    root, number, step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    here = Lab(root)
    with here.open() as data:
        while not (root / "stop").exists():
            rec_dir = make_recording(here.nas / str(number % step), name(number), content(number))
            result = data.ingest(rec_dir / "manifest.json", rec_dir, f"Participant {number % 7}")
            print(result.recording.rec_id, result.action, flush=True)
            number += step


if __name__ == "__main__":
    main()
