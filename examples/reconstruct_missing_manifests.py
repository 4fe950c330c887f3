"""Make the manifests of recordings in the bucket that have none: `ursa reconstruct` under its old name.

    python examples/reconstruct_missing_manifests.py --profile r2 --rec-id rec_20260520_195628_b1dd --yes
    python examples/reconstruct_missing_manifests.py --profile r2 --all-missing --dry-run

Takes every option of `ursa reconstruct`. In Python: ``DataInterface.reconstruct`` and ``missing_manifests``.
"""

from __future__ import annotations

import sys

from ursa_cli.app import run

if __name__ == "__main__":
    sys.exit(run(["reconstruct", *sys.argv[1:]]))
