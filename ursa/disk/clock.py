"""The clocks of the files cache: seconds since this machine's start, which no one sets, and the date for people."""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ursa.disk.place import output

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class Clock:
    """``boot``: the machine's present start, None where the system does not tell. ``monotonic``: seconds, comparable
    between the processes of one start. ``now``: the wall clock, UTC; nothing that must be true goes by it.
    """

    boot: str | None
    monotonic: Callable[[], float]
    now: Callable[[], datetime]

    def __post_init__(self) -> None:
        if self.boot is not None:
            object.__setattr__(self, "boot", str(uuid.UUID(self.boot)) if _is_uuid(self.boot) else None)


def system_clock() -> Clock:
    """This machine's."""
    return Clock(_boot_id(), _monotonic, lambda: datetime.now(UTC))


def _boot_id() -> str | None:
    if sys.platform == "darwin":
        return output("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid").strip() or None
    with contextlib.suppress(OSError, ValueError):
        return Path(_BOOT_ID).read_text(encoding="ascii").strip() or None
    return None


def _monotonic() -> float:
    """Seconds since the start. While the machine sleeps CLOCK_BOOTTIME runs on, as the other machines that write do."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def _is_uuid(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(uuid.UUID(text))
    return False
