"""What the shared options mean: the data interface, the printer, the log, and what a signal does."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from ursa.errors import InterruptedRunError
from ursa_cli import streams, typed

if TYPE_CHECKING:
    from ursa import DataInterface
    from ursa_cli.logs import RunLog
    from ursa_cli.progress import Bars
    from ursa_cli.render import Printer

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@functools.cache
def _hear_in_main_thread() -> None:
    """Python handles signals in its main thread, which does not wake where the system gave one to another thread, as it may:
    whatever comes is passed on, as a signal that does nothing else. Once a process.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGURG, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    main = threading.main_thread().ident
    assert main is not None

    def pass_on() -> None:
        while numbers := os.read(reading, 64):
            if any(number != signal.SIGURG for number in numbers):
                signal.pthread_kill(main, signal.SIGURG)

    threading.Thread(target=pass_on, name="ursa-signals", daemon=True).start()


def interrupted() -> InterruptedRunError:
    """What a run that was asked to stop says."""
    return InterruptedRunError(
        "interrupted: nothing that was in flight is registered; what was finished before stands",
        hint="What has arrived stays. Run the same command again: it goes on from there.",
    )


class Session:
    """One run of a command. ``current``: the last one that began in this process."""

    current: ClassVar[Session | None] = None

    def __init__(
        self,
        *,
        profile: str,
        config: Path | None,
        json: bool,
        quiet: bool,
        verbose: bool,
        log_file: Path | None,
        no_color: bool,
        no_progress: bool,
    ) -> None:
        from ursa_cli.render import Printer

        Session.current = self
        typed.remember(profile, config)
        self.profile = profile
        self.config = config
        self.verbose = verbose and not quiet
        self.log_file = log_file
        self.no_progress = no_progress or quiet
        self.no_color = no_color or bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
        self.out: Printer = Printer(json=json, quiet=quiet, color=not self.no_color)
        self._opened: list[DataInterface] = []
        self._log: RunLog | None = None
        self._bars: Bars | None = None

    def data(self, *, writes: tuple[str, ...] = (), **settings: Any) -> DataInterface:
        """The data interface of the chosen profile, with these roles enabled. The log file begins here.

        Raises:
            ConfigError, UsageError: also where --log-file names what can be no file.
        """
        from ursa import DataInterface

        self.start_log_file()
        data = DataInterface(self.profile, self.config, **settings)
        if writes:
            data.enable_writes(roles=writes)
        self._opened.append(data)
        if settings.get("offline"):
            at = data.catalog_as_of
            streams.warn(f"offline: the catalog as of {f'{at:%Y-%m-%d %H:%M}Z' if at else 'no time yet'}")
        return data

    def start_log_file(self) -> None:
        """Begin the log of --log-file, unless it has begun.

        Raises:
            UsageError: the path can be no file.
        """
        if self.log_file is not None and self._log is None:
            from ursa_cli.logs import RunLog

            self._log = RunLog(self.log_file, profile=self.profile)
            self.out.log = self._log.say

    def bars(self) -> Bars:
        """Progress for this run: bars on a terminal, now and then a line in a pipe with --verbose, else nothing."""
        from ursa_cli.progress import Bars

        self._bars = Bars(
            enabled=not self.no_progress and sys.stderr.isatty(),
            lines=self.verbose and not sys.stderr.isatty(),
            color=not self.no_color,
            printer=None if self.no_progress else self.out,
        )
        return self._bars

    def remember(self, rec_ids: list[str]) -> None:
        """Keep rec_ids for completion."""
        from ursa_cli.complete import remember

        remember(self.profile, rec_ids)

    def __enter__(self) -> Session:
        if self.verbose:
            from ursa_cli.logs import start_stderr

            start_stderr()
        for number in _STOPPING:
            # A parent that ignores a signal (nohup, some crons) wants it ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        _hear_in_main_thread()
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        told = interrupted() if isinstance(error, KeyboardInterrupt) else error
        if self._log is not None:
            self._log.end(told, self.out.summary)
        if told is not None and told is not error:
            raise told from None

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # The next one ends the process at once, whatever this thread is in: to a shell that is 130 as well. Not so a
        # closed terminal, which hangs up twice (the shell, then the kernel): nobody insists there.
        for number in _STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
        # Beside the exception, which reaches only this thread, and may be lost in code that is not ours.
        for data in self._opened:
            threading.Thread(target=data.stop, daemon=True).start()
        if self._bars is not None:
            self._bars.freeze()
        streams.warn("\nursa: stopping, what is in flight may end; once more to stop at once")
        raise KeyboardInterrupt
