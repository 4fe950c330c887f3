#!/usr/bin/env python3
"""Attach names from the bucket's participant.txt to recordings that have none: `ursa participants backfill`.

    python scripts/backfill_participants.py [--profile r2] [--config PATH] [--dry-run] [--yes] [REC ...]

Options, output and exit status are the command's; see `--help` and docs/participants.md.
"""

from __future__ import annotations

import sys

from ursa_cli.__main__ import main

if __name__ == "__main__":
    sys.argv[1:1] = ["participants", "backfill"]
    main()
