"""How an S3 server treats conditions and checksums: asked with four PUTs before this machine first writes to a bucket.

A server that ignores If-None-Match and If-Match lets two writers overwrite each other. A checksum that it tells proves
nothing where it does not refuse a wrong one: moto repeats whatever it was sent.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from ursa.beside import at_once
from ursa.errors import StorageError, UrsaError
from ursa.names import host_in_key
from ursa.store.abandoned import ABANDONED_S, is_alive
from ursa.store.protocol import Page, TransientError

PROBE_DIR = ".ursa-probe/"
"""Below a bucket's prefix: where the probe's objects are. No recording is called so."""

ASK_AGAIN_S = 30 * 24 * 3600.0
_TOPIC = "server"
_BODY = b"ursa: does this server check what it is sent?"
_NO_ETAG = "0" * 32
_OK, _BAD_REQUEST, _PRECONDITION_FAILED = 200, 400, 412


@dataclass(frozen=True, slots=True)
class Conduct:
    """What a server did. ``conditions``: it honours If-None-Match and If-Match on a PUT. ``checks_sha256``: it refuses a
    PUT whose x-amz-checksum-sha256 is wrong. ``ignored``: in words, what it did not honour.
    """

    conditions: bool
    checks_sha256: bool
    ignored: tuple[str, ...] = ()


class Notes(Protocol):
    """What this machine notes about something (``ursa.disk.cache.FilesCache``)."""

    def note(self, topic: str, about: str) -> Mapping[str, Any] | None:
        """What was noted; None where nothing was."""

    def put_note(self, topic: str, about: str, value: Mapping[str, Any] | None) -> None:
        """Note something."""


class Asked(Protocol):
    """What a probe needs of a store."""

    def probe_put(
        self, key: str, body: bytes, sha256: str, *, if_absent: bool = False, if_match: str | None = None
    ) -> int:
        """PUT under a checksum, right or wrong; the HTTP status. Raises what is no answer: 403, 429, 5xx, time-outs."""

    def delete(self, key: str) -> None:
        """Remove an object."""

    def list_page(self, prefix: str) -> Page:
        """The first objects with this prefix, and the server's time."""


class Probe:
    """The four PUTs. Where a ``TransientError`` stopped it, ``run`` goes on with the questions that are not answered."""

    def __init__(self, prefix: str) -> None:
        self._directory = f"{prefix}{PROBE_DIR}"
        self._base = f"{self._directory}{_here()}_{os.getpid()}_{secrets.token_hex(8)}"
        self._tries = 0
        self._left: set[str] = set()  # keys that may be there
        self._answers: dict[str, int] = {}
        self._new = ""

    def run(self, server: Asked) -> Conduct:
        """Ask what is not answered yet, two and two side by side. Raises ``StorageError``, ``CredentialsError``."""
        try:
            return self._asked(server)
        except TransientError:
            raise
        except BaseException:
            self.tidy(server)
            raise

    def _asked(self, server: Asked) -> Conduct:
        wrong = hashlib.sha256(_BODY + b"!").hexdigest()
        # A new key at each try: where a reply was lost, its object is there.
        damaged, self._new = self._key(), self._new if "new" in self._answers else self._key()
        checks, new = at_once(
            lambda: self._ask("sha256", server, damaged, sha256=wrong),
            lambda: self._ask("new", server, self._new, if_absent=True),
        )
        again, match = at_once(
            lambda: self._ask("again", server, self._new, if_absent=True),
            lambda: self._ask("match", server, self._new, if_match=_NO_ETAG),
        )
        answers = {
            f"If-None-Match: * on a new key, which it answered with {new}": new == _OK,
            "If-None-Match: *": again == _PRECONDITION_FAILED,
            "If-Match": match == _PRECONDITION_FAILED,
        }
        ignored = tuple(condition for condition, honoured in answers.items() if not honoured)
        return Conduct(not ignored, checks == _BAD_REQUEST, ignored)

    def _ask(self, question: str, server: Asked, key: str, *, sha256: str | None = None, **condition: Any) -> int:
        if question not in self._answers:
            self._answers[question] = self._put(server, key, sha256 or hashlib.sha256(_BODY).hexdigest(), **condition)
        return self._answers[question]

    def _put(self, server: Asked, key: str, sha256: str, **condition: Any) -> int:
        try:
            status = server.probe_put(key, _BODY, sha256, **condition)
        except TransientError:
            self._left.add(key)  # perhaps: a reply that was lost
            raise
        if status == _OK:
            self._left.add(key)
        return status

    def _key(self) -> str:
        self._tries += 1
        return f"{self._base}-{self._tries}"

    def tidy(self, server: Asked) -> None:
        """Delete the objects. Best effort."""
        self._delete(server, sorted(self._left))
        self._left.clear()

    def tidy_all(self, server: Asked) -> None:
        """Delete the objects, and those of probes that were killed. Best effort."""
        self.tidy(server)
        self._delete(server, self._abandoned(server))

    def _delete(self, server: Asked, keys: Iterable[str]) -> None:
        with contextlib.suppress(UrsaError):
            for key in keys:
                server.delete(key)

    def _abandoned(self, server: Asked) -> Iterator[str]:
        """Objects of a process of this machine that is gone, and those of a day ago."""
        page = server.list_page(self._directory)
        for info in page.objects:
            here, _, rest = info.key.removeprefix(self._directory).partition("_")
            pid = rest.partition("_")[0]
            dead = here == _here() and pid.isdecimal() and not is_alive(int(pid))
            age = page.now - info.modified_at if page.now and info.modified_at else timedelta(0)
            if dead or age.total_seconds() > ABANDONED_S:
                yield info.key


@functools.cache
def _here() -> str:
    """This machine, by more than its name, and where its process ids count: of another container's nothing is known."""
    told = [host_in_key(), str(uuid.getnode())]
    with contextlib.suppress(OSError):
        told += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return f"{host_in_key()}-{hashlib.sha256('|'.join(told).encode()).hexdigest()[:8]}"


@dataclass
class _Process:
    """What this process knows of one bucket."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    conduct: Conduct | None = None
    at: float = 0.0
    probe: Probe | None = None


_PROCESSES: dict[str, _Process] = {}
_MAKING = threading.Lock()


class KnownConduct:
    """What this machine knows of a bucket's server, and who asks it. Thread-safe.

    Args:
        notes: where it is noted from one process to the next; None: nowhere.
        endpoint_url, bucket: whose conduct.
        prefix: below which the probe may write.
    """

    def __init__(self, notes: Notes | None, endpoint_url: str, bucket: str, prefix: str = "") -> None:
        self._notes = notes
        self._endpoint_url = endpoint_url
        self._bucket = bucket
        self._about = f"{endpoint_url.rstrip('/')}/{bucket}"
        self._prefix = prefix
        with _MAKING:
            self._process = _PROCESSES.setdefault(self._about, _Process())

    def known(self) -> Conduct | None:
        """What was found in the last 30 days; None where this machine has not asked. Sends nothing."""
        process = self._process
        if process.conduct is None:
            # What fails is asked anew by each command: a server that was fixed must not be refused for a month.
            process.conduct, process.at = self._noted(), time.monotonic()
        elif time.monotonic() - process.at > ASK_AGAIN_S:
            process.conduct = None
        return process.conduct

    def ask(self, server: Asked, *, fresh: bool = False) -> Conduct:
        """What is known, else what the four PUTs find out. ``fresh``: they are sent in any case.

        Raises:
            TransientError: call again: it goes on where it stopped. StorageError, CredentialsError.
        """
        if not fresh and (conduct := self.known()) is not None:
            return conduct
        process = self._process
        with process.lock:
            if not fresh and process.conduct is not None:
                return process.conduct
            process.probe = process.probe or Probe(self._prefix)
            try:
                conduct = process.probe.run(server)
            except TransientError:
                raise
            except BaseException:
                process.probe = None
                raise
            probe, process.probe = process.probe, None
            process.conduct, process.at = conduct, time.monotonic()
        # Those who wait for the answer have it by now. Noted last: whoever is killed before asks, and tidies up, once more.
        probe.tidy_all(server)
        self._note(conduct)
        return conduct

    def admit(self, server: Asked) -> Conduct:
        """As ``ask``. Raises ``StorageError`` where the bucket may take no writes."""
        conduct = self.ask(server)
        if not conduct.conditions:
            raise StorageError(
                f"the server {self._endpoint_url} ignores conditions in the bucket {self._bucket}"
                f" ({', '.join(conduct.ignored)}): two writers could overwrite each other, so that it can take no uploads"
                " and hold no catalog",
                hint="Use a server that honours If-None-Match and If-Match: R2 does, `rclone serve s3` does not; or find"
                " the proxy on the way that drops them. `ursa doctor` asks the server again.",
                operation="write",
            )
        return conduct

    def _noted(self) -> Conduct | None:
        noted = self._notes.note(_TOPIC, self._about) if self._notes else None
        if noted is None or noted.get("conditions") is not True:
            return None
        checks, at = noted.get("checks_sha256"), noted.get("at")
        if not isinstance(checks, bool) or not isinstance(at, int | float):
            return None
        return Conduct(True, checks) if 0 <= time.time() - at <= ASK_AGAIN_S else None

    def _note(self, conduct: Conduct) -> None:
        if self._notes:
            told = {"conditions": True, "checks_sha256": conduct.checks_sha256, "at": time.time()}
            self._notes.put_note(_TOPIC, self._about, told if conduct.conditions else None)
