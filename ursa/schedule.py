"""Units for a nightly ``ursa batch``: a crontab line, a systemd service with its timer, a launchd agent.

Pure text from a plain value: nothing is read or written here. Each format has quoting rules of its own, and all three
refuse what none of them can hold: a control character in a path.
"""

from __future__ import annotations

import plistlib
import shlex
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import time
from enum import StrEnum
from pathlib import Path

from ursa.errors import UsageError

NAME = "ursa-batch"
LABEL = "org.ursa.batch"
_CRON_LINE = 998  # the longest line that every cron takes (Vixie cron: 1,000 with the newline)
_STATUS = """\
Exit status of the run: 0 all that has a manifest is registered, 1 failed (an empty or missing root too), 2 usage or
configuration, 3 some recordings failed (with --strict also: have no manifest), 4 credentials, 5 conflict, 6 bytes
missing or different, 11 another run held the lock, 130 stopped. --notify tells whatever is not 0."""
_NOT_PRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class Kind(StrEnum):
    """What a unit is for."""

    CRON = "cron"
    SYSTEMD = "systemd"
    LAUNCHD = "launchd"


@dataclass(frozen=True, slots=True)
class Job:
    """A nightly batch. All paths are absolute, roots as they are typed after that: a glob stays one."""

    program: tuple[str, ...]
    """How ursa is started: its path, or an interpreter and ``-m ursa_cli``."""
    roots: tuple[str, ...]
    profile: str
    at: time
    log_file: Path
    report: Path
    wait: str = "30m"
    config: Path | None = None
    notify: str | None = None
    path: str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    """``PATH`` of the job, for what --notify runs, and for ``op``."""
    secrets_file: Path | None = None
    """Where OP_SERVICE_ACCOUNT_TOKEN is kept; None where the profile needs no 1Password."""
    output_file: Path | None = None
    """Where launchd puts stdout and stderr; its directory must exist."""

    def __post_init__(self) -> None:
        if not self.roots:
            raise UsageError("a nightly batch needs a root", hint="`ursa schedule cron /mnt/nas/recordings`")
        for field in fields(self):
            value = getattr(self, field.name)
            for text in value if isinstance(value, tuple) else (value,):
                _refuse_unprintable(field.name, str(text))

    @property
    def words(self) -> tuple[str, ...]:
        """The command line, program included."""
        options = ["--profile", self.profile, "--wait", self.wait]
        options += ["--config", str(self.config)] if self.config else []
        options += ["--log-file", str(self.log_file), "--report", str(self.report)]
        # With =, for a command that begins with a dash is not an option.
        options += [f"--notify={self.notify}"] if self.notify else []
        return (*self.program, "batch", *self.roots, *options)


@dataclass(frozen=True, slots=True)
class Unit:
    """What to install. ``files``: text by the path where it belongs, empty for a crontab; ``text``: all, to be read."""

    kind: Kind
    text: str
    files: Mapping[str, str]


def unit(kind: Kind | str, job: Job) -> Unit:
    """The unit of this kind, ready to install.

    Raises:
        UsageError: there is no such kind.
    """
    try:
        make = _MAKERS[Kind(kind)]
    except ValueError:
        raise UsageError(f"there is no unit {kind!r}; there are {', '.join(Kind)}") from None
    return make(job)


def _refuse_unprintable(name: str, text: str) -> None:
    for char in text:
        if unicodedata.category(char) in _NOT_PRINTABLE:
            shown = text.encode("unicode_escape").decode("ascii")
            raise UsageError(
                f"{name.removesuffix('s')} {shown}: a unit can't hold the character {char!a}; nothing was written",
                hint="Rename it, or give the directory above it.",
            )


def _comment(text: str, mark: str = "#") -> str:
    return "".join(f"{mark} {line}".rstrip() + "\n" for line in text.splitlines())


# --- cron ------------------------------------------------------------------------------------------------------------


def _cron(job: Job) -> Unit:
    line = f"{job.at.minute} {job.at.hour} * * * {_for_cron(_shell_line(job))}"
    long = f"The line has {len(line.encode())} bytes; some crons take no more than {_CRON_LINE}: use systemd then.\n"
    text = _comment(
        f"ursa: nightly batch. Install with `crontab -e`: put the last line there, as one line.\n"
        f"Log: {job.log_file}\nReport of the last run: {job.report}\n"
        f"Cron mails what is printed to the crontab's MAILTO.\n{_STATUS}\n"
        + (_CRON_SECRET.format(file=shlex.quote(str(job.secrets_file))) if job.secrets_file else "")
        + (long if len(line.encode()) > _CRON_LINE else "")
    )
    return Unit(Kind.CRON, f"{text}{line}\n", {})


_CRON_SECRET = """\
This profile reads its keys from 1Password, and cron has no desktop session that could unlock it: it needs a service
account's token. Keep it out of this line, in a file that only you can read; the line below sources it:
  install -m 600 /dev/null {file}
  then write OP_SERVICE_ACCOUNT_TOKEN=ops_... into it with an editor
"""


def _shell_line(job: Job) -> str:
    """For /bin/sh. The settings stand before the command: a line of their own would be for the whole crontab."""
    settings = f"LC_ALL=C.UTF-8 LANG=C.UTF-8 PATH={shlex.quote(job.path)}"
    command = f"{settings} {shlex.join(job.words)}"
    if job.secrets_file is None:
        return command
    file = shlex.quote(str(job.secrets_file))
    return f"set -a; [ -r {file} ] && . {file}; set +a; {command}"


def _for_cron(line: str) -> str:
    r"""Escape what cron itself reads: a % ends the line, \% is a %.

    Some crons read \\ as one backslash, others as two, so none may stand before another or before a %: inside single
    quotes, which is where ``shlex`` leaves every backslash, an empty '' comes between.
    """
    out = ""
    for char, following in zip(line, line[1:] + " ", strict=True):
        out += r"\%" if char == "%" else char
        if char == "\\" and following in "\\%":
            out += "''"
    return out


# --- systemd ---------------------------------------------------------------------------------------------------------


def _systemd(job: Job) -> Unit:
    directory = "~/.config/systemd/user"
    files = {
        f"{directory}/{NAME}.service": _service(job),
        f"{directory}/{NAME}.timer": _timer(job),
    }
    return Unit(Kind.SYSTEMD, "\n".join(f"# ---- {name} ----\n{text}" for name, text in files.items()), files)


_SERVICE_HELP = """\
ursa: nightly batch. Put this text into ~/.config/systemd/user/{name}.service and the other one into {name}.timer, then
  systemctl --user daemon-reload
  systemctl --user enable --now {name}.timer
  loginctl enable-linger        (it runs also when you are not logged in)
Try it: systemctl --user start {name}.service    What happened: journalctl --user -u {name}.service
Log: {log}
Report of the last run: {report}
{status}
"""
_SERVICE_SECRET = """\
This profile reads its keys from 1Password, and a timer has no desktop session that could unlock it: it needs a service
account's token. Keep it out of this unit, in a file that only you can read:
  install -m 600 /dev/null {file}
  then write OP_SERVICE_ACCOUNT_TOKEN=ops_... into it with an editor
(As a system service, LoadCredential= and a wrapper that exports it do the same.)
"""


def _service(job: Job) -> str:
    told = _SERVICE_HELP.format(name=NAME, log=job.log_file, report=job.report, status=_STATUS)
    mounts = " ".join(_quoted(_before_glob(root)) for root in job.roots)
    secret = (
        _comment(_SERVICE_SECRET.format(file=shlex.quote(str(job.secrets_file))))
        + f"EnvironmentFile=-{str(job.secrets_file).replace('%', '%%')}\n"
        if job.secrets_file
        else ""
    )
    return (
        f"{_comment(told)}"
        "[Unit]\nDescription=ursa: nightly batch of recordings\n"
        "# Where a root is a mount that systemd knows (fstab), it is mounted first, or the job fails.\n"
        f"RequiresMountsFor={mounts}\n"
        "\n[Service]\nType=oneshot\n"
        f"Environment={_quoted('LC_ALL=C.UTF-8')} {_quoted('LANG=C.UTF-8')} {_quoted('PATH=' + job.path)}\n"
        f"{secret}"
        f"ExecStart={_exec(job.words)}\n"
        "# SIGTERM to ursa alone: what it runs (op, the --notify command) ends by itself.\n"
        "KillMode=mixed\nTimeoutStopSec=150\n"
    )


def _timer(job: Job) -> str:
    return (
        "[Unit]\nDescription=ursa: nightly batch of recordings\n"
        f"\n[Timer]\nOnCalendar=*-*-* {job.at:%H:%M}:00\n"
        "# A night that the machine slept through is made up for.\n"
        "Persistent=true\n"
        "\n[Install]\nWantedBy=timers.target\n"
    )


def _exec(words: tuple[str, ...]) -> str:
    """A command line of systemd's own syntax, which is no shell's: $ and % have a meaning inside quotes too."""
    program, *rest = words
    # systemd puts variables into the arguments only, never into the path of the program.
    return " ".join([_quoted(program), *(_quoted(word).replace("$", "$$") for word in rest)])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _before_glob(root: str) -> str:
    """The directory above the first part of a glob that is one; a mount can't be asked for by pattern."""
    parts = Path(root).parts
    fixed = [
        part for number, part in enumerate(parts) if not any(set("*?[") & set(seen) for seen in parts[: number + 1])
    ]
    return str(Path(*fixed))


# --- launchd ---------------------------------------------------------------------------------------------------------

# The comment stands in XML, where two dashes may not follow each other.
_LAUNCHD_HELP = """\
ursa: nightly batch. Put this text into ~/Library/LaunchAgents/{label}.plist, then
  launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/{label}.plist
Try it: launchctl kickstart gui/$(id -u)/{label}    Remove it: launchctl bootout gui/$(id -u)/{label}
A night that the Mac slept through is made up for when it wakes. macOS asks once whether the program may read network
or removable volumes: System Settings, Privacy and Security, Full Disk Access.
{status}"""
_LAUNCHD_SECRET = """
This profile reads its keys from 1Password, and at night nobody unlocks it: it needs a service account's token. Keep it
out of this file, in one that only you can read, which is sourced below:
  install -m 600 /dev/null FILE
  then write OP_SERVICE_ACCOUNT_TOKEN=ops_... into it with an editor"""
_SOURCE = 'set -a; [ -r "$0" ] && . "$0"; set +a; exec "$@"'


def _launchd(job: Job) -> Unit:
    words = list(job.words)
    if job.secrets_file:
        words = ["/bin/sh", "-c", _SOURCE, str(job.secrets_file), *words]
    content = {
        "Label": LABEL,
        "ProgramArguments": words,
        "EnvironmentVariables": {"LC_ALL": "en_US.UTF-8", "LANG": "en_US.UTF-8", "PATH": job.path},
        "StartCalendarInterval": {"Hour": job.at.hour, "Minute": job.at.minute},
        "ProcessType": "Background",
        "ExitTimeOut": 150,
    }
    if job.output_file:
        content |= {"StandardOutPath": str(job.output_file), "StandardErrorPath": str(job.output_file)}
    # Without the tabs it is indented with: a terminal that copies them may make blanks of them anyway.
    xml = plistlib.dumps(content, sort_keys=False).decode("utf-8").replace("\t", "  ")
    head, start, rest = xml.partition("<plist")
    told = _LAUNCHD_HELP.format(label=LABEL, status=_STATUS) + (_LAUNCHD_SECRET if job.secrets_file else "")
    text = f"{head}<!--\n{told.replace('--', '')}\n-->\n{start}{rest}"
    return Unit(Kind.LAUNCHD, text, {f"~/Library/LaunchAgents/{LABEL}.plist": text})


_MAKERS: Mapping[Kind, Callable[[Job], Unit]] = {Kind.CRON: _cron, Kind.SYSTEMD: _systemd, Kind.LAUNCHD: _launchd}
