"""What the shared options mean: the data interface, the printer, the log, and what a signal does."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ursa import DataInterface
    from ursa_cli.progress import Bars
    from ursa_cli.render import Printer


class Session:
    """One run of a command."""

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

        self.profile = profile
        self.config = config
        self.verbose = verbose and not quiet
        self.log_file = log_file
        self.no_progress = no_progress or quiet or json
        self.no_color = no_color or bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
        self.out: Printer = Printer(json=json, quiet=quiet, color=not self.no_color)
        self._opened: list[DataInterface] = []

    def data(self, *, writes: tuple[str, ...] = (), **settings: Any) -> DataInterface:
        """The data interface of the chosen profile, with these roles enabled."""
        from ursa import DataInterface

        data = DataInterface(self.profile, self.config, **settings)
        if writes:
            data.enable_writes(roles=writes)
        self._opened.append(data)
        return data

    def bars(self) -> Bars:
        """Progress for this run: bars on a terminal, now and then a line in a pipe with --verbose, else nothing."""
        from ursa_cli.progress import Bars

        return Bars(
            enabled=not self.no_progress and sys.stderr.isatty(),
            lines=self.verbose and not sys.stderr.isatty(),
            color=not self.no_color,
        )

    def remember(self, rec_ids: list[str]) -> None:
        """Keep rec_ids for completion."""
        from ursa_cli.complete import remember

        remember(self.profile, rec_ids)

    def __enter__(self) -> Session:
        self._start_logging()
        for number in (signal.SIGINT, signal.SIGTERM):
            # A parent that ignores SIGINT (nohup, some crons) wants it ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            from ursa.errors import InterruptedRunError

            raise InterruptedRunError(
                "interrupted: nothing that was in flight is registered; what was finished before stands",
                hint="What has arrived stays. Run the same command again: it goes on from there.",
            ) from None
        del kind

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # The next one ends the process at once, whatever this thread is in: to a shell that is 130 as well.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # Beside the exception, which reaches only this thread, and may be lost in code that is not ours.
        for data in self._opened:
            threading.Thread(target=data.stop, daemon=True).start()
        print("\nursa: stopping, what is in flight may end; once more to stop at once", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    def _start_logging(self) -> None:
        handlers: list[logging.Handler] = []
        if self.verbose:
            handlers.append(logging.StreamHandler(sys.stderr))
        if self.log_file is not None:
            from ursa.errors import UsageError

            try:
                self.log_file.parent.mkdir(parents=True, exist_ok=True)
                handlers.append(logging.FileHandler(self.log_file, encoding="utf-8"))
            except OSError as error:
                raise UsageError(f"can't write the log file {self.log_file}: {error.strerror}") from None
        logger = logging.getLogger("ursa")
        logger.setLevel(logging.INFO if handlers else logging.WARNING)
        for handler in handlers:
            handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s %(message)s"))
            logger.addHandler(handler)


class _OneLine(logging.Formatter):
    """Names from files never reach a log as control characters."""

    def format(self, record: logging.LogRecord) -> str:
        from ursa_cli.render import plain

        return plain(super().format(record))
