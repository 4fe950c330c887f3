"""The `ursa` command. Completion is answered before anything heavy loads: a shell waits for it at every Tab."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    if "_URSA_COMPLETE" in os.environ:
        from ursa_cli.complete import answer

        reply = answer(os.environ)
        if reply is not None:
            sys.exit(reply.print())
    from ursa_cli import lean, streams

    lean.start_fast()
    streams.steady()
    from ursa_cli.app import run

    code = run()
    # All that was to be told is told. Taking the interpreter apart takes longer than a registration; and after an
    # interrupt a thread that hangs in a request must not hold the exit.
    streams.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
