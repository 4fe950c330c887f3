"""What is sent again after kill -9 at half of a 256 MiB file.

    python benchmarks/resume.py [--mbit 100] [--delay 0.05]

Runs the installed command against weed through a proxy that counts, and that is a link of so many Mbit/s; kills it when
half has been sent, runs it again, and prints the part bytes of the second run over the size of the file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from proxy import FaultProxy
from servers import weed
from transfer import MIB, Scenario, config_text, make_source

SIZE_BYTES = 256 * MIB


def sent(proxy: FaultProxy) -> int:
    """Part bytes that went through."""
    return sum(entry.bytes_in for entry in list(proxy.log) if entry.kind == "upload_part")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbit", type=float, default=100)
    parser.add_argument("--delay", type=float, default=0.05)
    link = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        source = make_source(root / "source", Scenario(((1, SIZE_BYTES),), 0, ""))
        (root / "server").mkdir()
        with (
            weed(root / "server") as server,
            FaultProxy(server.endpoint_url, delay_s=link.delay, bytes_per_s=link.mbit * 1e6 / 8) as proxy,
        ):
            for bucket in ("raw-bench", "assets-bench"):
                server.create_bucket(bucket)
            config = root / "ursa.yaml"
            config.write_text(config_text(proxy.url))
            keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
            environment = os.environ | keys
            ursa = [str(Path(sys.executable).with_name("ursa"))]
            options = ["--config", str(config), "-q"]
            subprocess.run([*ursa, "catalog", "init", "--yes", *options], env=environment, check=True)
            command = [*ursa, "ingest", str(source), *options]
            with subprocess.Popen(command, env=environment) as process:
                while sent(proxy) < SIZE_BYTES // 2 and process.poll() is None:
                    time.sleep(0.005)
                process.kill()
            first = sent(proxy)
            proxy.clear()
            subprocess.run(command, env=environment, check=True)
            again = sent(proxy)
    print(
        f"{link.mbit:g} Mbit/s, {link.delay * 1000:g} ms: sent before the kill {first / SIZE_BYTES:.1%},"
        f" sent again {again / SIZE_BYTES:.1%} (goal at 100 Mbit/s: 55 %)"
    )


if __name__ == "__main__":
    main()
