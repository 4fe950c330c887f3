"""One run at a time: a kernel lock for each profile and set of roots.

The lock is ``flock`` on a small file on this machine's own disk, never on the NAS. The kernel releases it when the
process dies, however it dies, so a file that is left is no obstacle, and no file is ever deleted: whoever waits on a
deleted one would hold a lock that nobody else can see.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import platformdirs

from ursa.errors import ConfigError, LockHeldError

_POLL_S = 0.2
_READS = 10  # a holder writes its name just after it has the lock: so often we look again, 20 ms apart
_READ_AGAIN_S = 0.02
# Errors with which a file system says that it can't do this at all; then the next directory is tried.
_NOT_HERE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a lock, as the lock file says. ``since`` is ISO 8601 with an offset."""

    pid: int
    host: str
    since: str
    command: str


@contextmanager
def hold(
    profile: str,
    config_identity: str,
    roots: Sequence[Path | str],
    *,
    wait_s: float = 0.0,
    directory: Path | None = None,
    command: str = "ursa batch",
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Path]:
    """Hold the lock of this profile and these roots for the time of a ``with``; gives the lock file's path.

    The same set of roots is the same lock in whatever order and spelling, through a symlink too. Sets that only
    overlap are different locks.

    Args:
        profile: the profile's name.
        config_identity: what tells two profiles of one name apart, such as the config file or the bucket's address.
        roots: the directories of the run; they need not exist.
        wait_s: how long to wait for another run to end, in seconds.
        directory: where lock files are; by default below the user's state directory, or the temp directory where
            there is no home that can be written.
        command: how the holder is called in another run's message.
        stopped: asked while waiting; True ends the wait with ``KeyboardInterrupt``.

    Raises:
        LockHeldError: another run has it, still so after ``wait_s``.
        ConfigError: there is no directory for lock files, or it is a symlink or another user's.
    """
    path, handle = _open(lock_name(profile, config_identity, roots), [directory] if directory else _directories())
    try:
        _take(handle, path, command, wait_s, stopped)
        _write(handle, Holder(os.getpid(), socket.gethostname() or "unknown", _now(), command))
        try:
            yield path
        finally:
            with suppress(OSError):
                os.ftruncate(handle, 0)  # still ours: an empty file misleads nobody who looks at it later
    finally:
        os.close(handle)  # which is what releases it


def lock_name(profile: str, config_identity: str, roots: Sequence[Path | str]) -> str:
    """The lock file's name: a hash of the profile, what it means, and the set of resolved roots."""
    resolved = sorted({os.fsencode(os.path.realpath(root)) for root in roots})
    parts = [profile.encode(), config_identity.encode("utf-8", "surrogateescape"), *resolved]
    digest = hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()
    return f"batch-{digest[:32]}.lock"


def _directories() -> list[Path]:
    """Where lock files may be, the best first. Not ``$TMPDIR``: a cron job and a terminal must agree on it."""
    fallback = Path("/tmp") / f"ursa-{os.getuid()}-locks"
    try:
        state = platformdirs.user_state_path("ursa") / "locks"
    except RuntimeError:  # no home directory is known
        return [fallback]
    return [state, fallback] if state.is_absolute() else [fallback]


def _open(name: str, directories: Sequence[Path]) -> tuple[Path, int]:
    """An open lock file, not locked yet, in the first directory that can have one."""
    failed = []
    for directory in directories:
        try:
            return directory / name, _open_in(directory, name)
        except OSError as error:
            if error.errno not in (*_NOT_HERE, *_NO_LOCKS):
                raise _unusable(f"{directory} can't hold a lock file: {error.strerror}", directory) from None
            failed.append(f"{directory} ({error.strerror})")
    raise _unusable(f"no directory can hold the lock file: {', '.join(failed)}", directories[0])


def _open_in(directory: Path, name: str) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise _unusable(f"the lock directory {directory} is a symlink or no directory", directory)
    if found.st_uid != os.geteuid():
        raise _unusable(f"the lock directory {directory} belongs to another user (uid {found.st_uid})", directory)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _unusable(f"other users may write to the lock directory {directory}", directory)
    try:
        handle = os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unusable(f"the lock file {directory / name} is a symlink", directory) from None
        raise
    try:
        fcntl.flock(handle, fcntl.LOCK_UN)  # asks the file system whether it knows locks at all
    except OSError:
        os.close(handle)
        raise
    return handle


def _unusable(words: str, directory: Path) -> ConfigError:
    return ConfigError(
        f"{words}; nothing was started and nothing is lost",
        hint=f"`ls -ld {directory}`: make it a directory of your own that only you may write (chmod 700), or remove it.",
        path=str(directory),
    )


def _take(handle: int, path: Path, command: str, wait_s: float, stopped: Callable[[], bool]) -> None:
    ends = time.monotonic() + wait_s
    while not _try(handle):
        left_s = ends - time.monotonic()
        if left_s <= 0:
            raise _held(path, command, wait_s)
        if stopped():
            raise KeyboardInterrupt
        time.sleep(min(_POLL_S, left_s))


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held(path: Path, command: str, wait_s: float) -> LockHeldError:
    holder = _read(path)
    waited = f", after waiting {wait_s:.0f} s for it" if wait_s else ""
    end = "nothing was started and nothing is lost"
    hint = "Wait for it to end, or give `--wait 30m`."
    if holder is None:
        return LockHeldError(f"another run of these roots holds {path}{waited}; {end}", hint=f"{hint} `fuser {path}`")
    return LockHeldError(
        f"another `{holder.command or command}` of these roots is running since {_clock(holder.since)}"
        f" (pid {holder.pid} on host {holder.host}){waited}; {end}",
        hint=f"{hint} `ps -fp {holder.pid}` on {holder.host} shows it.",
        pid=holder.pid,
        host=holder.host,
        since=holder.since,
    )


def _write(handle: int, holder: Holder) -> None:
    """Say who has the lock. A full disk keeps us from saying it, not from having the lock."""
    with suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(holder)).encode() + b"\n", 0)


def _read(path: Path) -> Holder | None:
    """Who holds it; None where the file doesn't say, or names a process that is no more."""
    for _ in range(_READS):
        holder = _parse(path)
        if holder is not None and _alive(holder):
            return holder
        time.sleep(_READ_AGAIN_S)
    return None


def _parse(path: Path) -> Holder | None:
    try:
        content = json.loads(path.read_bytes())
        return Holder(int(content["pid"]), str(content["host"]), str(content["since"]), str(content["command"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _alive(holder: Holder) -> bool:
    """False only for a process of this machine that is surely gone: then the file is an earlier run's."""
    if holder.host != socket.gethostname():
        return True
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _clock(since: str) -> str:
    """The time of day, with the date where that is another one than today's."""
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        return since
    today = moment.date() == datetime.now(moment.tzinfo).date()
    return f"{moment:%H:%M:%S}" if today else f"{moment:%Y-%m-%d %H:%M:%S}"
