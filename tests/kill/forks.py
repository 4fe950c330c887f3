"""Runs a script's ``main`` in forks of one process that has imported it: being killed costs no interpreter's start.

Each run is a process of its own, with its own arguments, output and end; a kill takes nothing else with it.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

TIMEOUT_S = 180
# What a run imports only when it needs it; nothing of it may start a thread, since a fork has but one.
_IMPORTED = ("ursa.catalog.catalog", "ursa.register.orchestrator", "ursa.register.from_r2")


class Forks:
    """A process that has imported ``script``, in the environment of this one; use it in a ``with``."""

    def __init__(self, script: Path) -> None:
        path = os.pathsep.join(map(str, (script.parents[2], script.parent)))
        self._process = subprocess.Popen(
            [sys.executable, __file__, script.stem],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()

    def run(self, *args: object) -> subprocess.CompletedProcess[str]:
        """``main`` with these arguments in a new process, to its end; one that hangs gets SIGALRM."""
        words = list(map(str, args))
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(words), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, "the process that forks is gone"
        code, out, err = json.loads(answer)
        return subprocess.CompletedProcess(words, code, out, err)


def _serve(script: str) -> bool:
    """Fork for each line of stdin; True in a fork, whose arguments and output are set."""
    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = os.fork()
            if not child:
                _become([script, *json.loads(line)], out, err)
                return True
            _, status = os.waitpid(child, 0)
            texts = [_read(file) for file in (out, err)]
        print(json.dumps([os.waitstatus_to_exitcode(status), *texts]), flush=True)
    return False


def _become(argv: list[str], out: IO[str], err: IO[str]) -> None:
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    sys.argv = argv
    signal.alarm(TIMEOUT_S)


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    for name in _IMPORTED:
        importlib.import_module(name)
    if _serve(sys.argv[1]):
        module.main()
