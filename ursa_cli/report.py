"""The report of a run, as JSON or as one page to look at: what became of each recording, and what to do about it.

A JSON report (``schema_version`` 1) is one object; times are ISO 8601 in UTC, sizes in bytes, durations in seconds:

* ``type`` is ``"report"``; ``state`` is ``"running"`` (or killed: nobody came to say that it ended) or ``"finished"``
* ``verdict``: ``level`` (``ok`` ``warn`` ``fail`` ``running``) and ``words``
* ``command`` (what was typed; the command of ``--notify`` left out), ``version``, ``host``, ``profile``, ``roots``
* ``started_at``, ``updated_at``, ``ended_at`` (null while it runs), ``seconds``
* ``exit_code`` (null while it runs); ``error``: null, or ``error`` (its class), ``message``, ``hint`` of what ended it
* ``counts``: recordings by status; ``expected``: how many there are to do, null where nobody knows
* ``totals``: ``recordings``, ``files_uploaded``, ``files_skipped``, ``bytes_uploaded`` (``bytes_resumed`` of
  them sent by an earlier run), ``bytes_skipped``, ``evidence`` (files by how well they are proven: ``sha256``, ``etag``, ``size``)
* ``summary``: what the command adds; ``throughput``: at most 600 pairs ``[seconds since the start, bytes uploaded]``
* ``link``: null where nobody knows, else how the link was used: ``idle_share`` (0 to 1) of the time; ``idle_s``: the seconds in
  which nothing was on its way, by what the run was doing; ``sent`` and ``idle``: bytes and idle seconds in each ``bucket_s``
  seconds since the start, at most 600 of them
* ``recordings``: the fields of ``RecordingEntry``, in the order in which they ended

The HTML report holds the same object.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ursa.errors import UrsaError, UsageError
from ursa_cli.render import SCHEMA_VERSION, plain
from ursa_cli.report_curve import Curve
from ursa_cli.report_file import refuse_unwritable, replace_with
from ursa_cli.report_link import told_link
from ursa_cli.report_text import encoded, shortened, without_secrets
from ursa_cli.report_verdict import Verdict, verdict
from ursa_cli.typed import told_as_typed

if TYPE_CHECKING:
    from ursa import LinkUse

Status = Literal["ok", "have", "skip", "fail"]
STATUSES: tuple[Status, ...] = ("ok", "have", "skip", "fail")
FORMATS = (".json", ".html")
_SUMMED = ("files_uploaded", "files_skipped", "bytes_uploaded", "bytes_resumed", "bytes_skipped")
_EVERY_S = 30.0
# A report must never take more of a run than this share of its time, however slow the disk is that it is on.
_MOST_OF_THE_TIME = 0.02
# Failures that the page shows without JavaScript and prints first.
_MOST_TROUBLES = 200


@dataclass(frozen=True, slots=True)
class RecordingEntry:
    """What became of one recording. Sizes in bytes, times in seconds.

    ``evidence`` counts its files by how well they are proven (``sha256``, ``etag``, ``size``). ``error`` is the
    error's class, ``message`` why it failed or was skipped, ``hint`` the mend: what to type next. ``reached`` is False
    of a skipped one of which that says nothing: the run was stopped before. Such ones are not in the report's counts.
    ``bytes_resumed``: the share of ``bytes_uploaded`` that an earlier run had sent.
    """

    rec_id: str
    path: str
    status: Status
    action: str | None = None
    files_uploaded: int = 0
    files_skipped: int = 0
    bytes_uploaded: int = 0
    bytes_skipped: int = 0
    seconds: float = 0.0
    recording_hash: str | None = None
    evidence: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    message: str | None = None
    hint: str | None = None
    warnings: tuple[str, ...] = ()
    finished_at: datetime | None = None
    bytes_resumed: int = 0
    reached: bool = True


class RunReport:
    """A report file, kept up to date while the run goes on: a killed run leaves its last state, and it says so.

    Written whole or not at all. ``check`` raises before the run where it could not be written; what fails later is
    said by ``note`` and fails nothing. Thread-safe: progress callbacks may sample.
    """

    def __init__(
        self,
        path: Path,
        *,
        command: list[str],
        profile: str,
        roots: list[str],
        started_at: datetime,
        note: Callable[[str], object] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.path = path
        self._fixed = {
            "command": without_secrets(command),
            "version": _version(),
            "host": socket.gethostname(),
            "profile": profile,
            "roots": list(roots),
            "started_at": started_at.astimezone(UTC).isoformat(),
        }
        self._started_at = started_at
        self._dry_run = "--dry-run" in command
        self._note = note or _to_stderr
        self._monotonic, self._now = monotonic, now
        self._next_write = float("-inf")
        self._lock = threading.Lock()
        self._expected: int | None = None
        self._link: Callable[[], LinkUse | None] = lambda: None
        self._counts: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
        self._totals: Counter[str] = Counter()
        self._evidence: Counter[str] = Counter()
        self._curve = Curve()
        # Without a beginning a run of a second would have no rate at all.
        self._curve.add(0.0, 0)
        self._recordings: list[bytes] = []
        self._troubles: list[RecordingEntry] = []

    def check(self) -> None:
        """Make sure that the report can be written, and leave nothing behind; to be called before the run.

        Raises:
            UsageError: neither .json nor .html, a directory that can't be made or written, or a place inside a
                recording, whose files it would join.
        """
        if self.path.suffix not in FORMATS:
            raise UsageError(
                f"--report {self.path}: the name must end in .json (for scripts) or .html (for people)",
                hint=f"For both: --report {self.path.stem or 'run'}.json --report {self.path.stem or 'run'}.html",
            )
        refuse_unwritable(self.path)

    def follow_link(self, link: Callable[[], LinkUse]) -> None:
        """Where to ask how the link was used so far."""
        self._link = link

    def expect(self, recordings: int) -> None:
        """How many recordings there are to do."""
        self._expected = recordings

    def add(self, entry: RecordingEntry) -> None:
        """A recording has ended."""
        with self._lock:
            self._add(entry)
            self._write_now_and_then()

    def _add(self, entry: RecordingEntry) -> None:
        self._counts[entry.status] += entry.reached
        for name in _SUMMED:
            self._totals[name] += getattr(entry, name)
        self._evidence.update(entry.evidence)
        # Not asdict: it can't copy every Mapping.
        short = shortened(told_as_typed({item.name: getattr(entry, item.name) for item in fields(entry)}))
        self._recordings.append(encoded(short))
        if entry.reached and entry.status in ("fail", "skip"):
            self._keep_trouble(RecordingEntry(**short))

    def sample(self, at_s: float, bytes_uploaded: int) -> None:
        """A point of the throughput curve: bytes uploaded in all, ``at_s`` seconds after the start."""
        with self._lock:
            self._curve.add(at_s, bytes_uploaded)
            self._write_now_and_then()

    def finish(self, exit_code: int, summary: Mapping[str, Any], error: BaseException | None = None) -> None:
        """The run has ended, by itself or by ``error``; the last state is written."""
        with self._lock:
            self._write(exit_code, summary, error)

    def _keep_trouble(self, entry: RecordingEntry) -> None:
        if len(self._troubles) < _MOST_TROUBLES:
            self._troubles.append(entry)
        elif entry.status == "fail":
            # A failure is worth more room than a skipped recording.
            skipped = next((at for at, other in enumerate(self._troubles) if other.status == "skip"), None)
            if skipped is not None:
                self._troubles[skipped] = entry

    def _write_now_and_then(self) -> None:
        if self._monotonic() >= self._next_write:
            self._write(None, {}, None)

    def _write(self, exit_code: int | None, summary: Mapping[str, Any], error: BaseException | None) -> None:
        began = self._monotonic()
        try:
            replace_with(self.path, self._chunks(exit_code, summary, error))
        except OSError as problem:
            last = "the run goes on" if exit_code is None else "what the run did stands all the same"
            self._note(f"ursa: can't write the report {self.path}: {problem.strerror or problem}; {last}")
        ended = self._monotonic()
        self._next_write = ended + max(_EVERY_S, (ended - began) / _MOST_OF_THE_TIME)

    def _chunks(
        self, exit_code: int | None, summary: Mapping[str, Any], error: BaseException | None
    ) -> Iterator[bytes]:
        facts = self._facts(exit_code, summary, error)
        if self.path.suffix == ".json":
            yield from self._json(facts)
            return
        from ursa_cli.report_html import page_around

        before, after = page_around(facts, self._troubles)
        yield before
        yield from self._json(facts)
        yield after

    def _json(self, facts: Mapping[str, Any]) -> Iterator[bytes]:
        yield encoded(facts)[:-1] + b',"recordings":['
        for number, recording in enumerate(self._recordings):
            yield b",\n" + recording if number else b"\n" + recording
        yield b"]}\n"

    def _facts(self, exit_code: int | None, summary: Mapping[str, Any], error: BaseException | None) -> dict[str, Any]:
        now = self._now()
        ended = None if exit_code is None else now.isoformat()
        problems = [str(problem) for problem in summary.get("problems") or ()]
        judged = self._verdict(exit_code, error, problems, now)
        return {
            "schema_version": SCHEMA_VERSION,
            "type": "report",
            "state": "running" if exit_code is None else "finished",
            "verdict": {"level": judged.level, "words": judged.words},
            **self._fixed,
            "updated_at": now.isoformat(),
            "ended_at": ended,
            "seconds": round((now - self._started_at).total_seconds(), 3),
            "exit_code": exit_code,
            "error": _told(error),
            "expected": self._expected,
            "counts": dict(self._counts),
            "totals": {
                "recordings": self._counts.total(),
                **{name: self._totals[name] for name in _SUMMED},
                "evidence": dict(self._evidence),
            },
            "summary": told_as_typed(summary),
            "throughput": self._curve.points,
            "link": told_link(self._link()),
        }

    def _verdict(
        self, exit_code: int | None, error: BaseException | None, problems: list[str], now: datetime
    ) -> Verdict:
        told = _told(error)
        return verdict(
            self._counts,
            expected=self._expected,
            exit_code=exit_code,
            ended_by=f"{told['error']}: {told['message']}" if told else None,
            problems=problems,
            dry_run=self._dry_run,
            as_of=now,
        )


def _told(error: BaseException | None) -> dict[str, Any] | None:
    if error is None:
        return None
    message = error.message if isinstance(error, UrsaError) else str(error)
    hint = error.hint if isinstance(error, UrsaError) else None
    return shortened(told_as_typed({"error": type(error).__name__, "message": message, "hint": hint}))


def _version() -> str:
    from ursa import __version__

    return __version__


def _to_stderr(text: str) -> None:
    print(plain(text).encode("ascii", "backslashreplace").decode(), file=sys.stderr)
