"""Where secrets come from: ``op`` and its session, variables, or the AWS chain. No secret is shown, nor its length."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from ursa.config import ENV_DEFAULTS, ROLES
from ursa.doctor.patient import Patient
from ursa.doctor.results import Finding, fail, ok, warn

_CREDENTIALS = 4  # exit code
_OP_S = 20.0
_TOKEN = "OP_SERVICE_ACCOUNT_TOKEN"


def provider(patient: Patient) -> Finding:
    """Whether the provider of the profile can be asked at all; the roles are asked each for itself."""
    match patient.profile.credentials.provider:
        case "1password":
            return _one_password()
        case "env":
            return _environment(patient)
        case "aws":
            patient.credentials.get("raw_ro")
            return ok(f"{patient.credentials.describe('raw_ro')}; it has a key")


def _one_password() -> Finding:
    if shutil.which("op") is None:
        mend = "Install it (https://developer.1password.com/docs/cli), or use `credentials.provider: env` (cron)."
        return fail("the 1Password command line `op` isn't on the PATH", mend, _CREDENTIALS)
    version = _op("--version")
    if version is None or version.returncode:
        mend = "`command -v op` shows which file it is; run `op --version` by hand."
        return fail("`op --version` does not work", mend, _CREDENTIALS)
    told = f"1Password, op {_version(version.stdout)}"
    session = _op("whoami")
    if session is not None and session.returncode == 0:
        return ok(f"{told}, {f'with {_TOKEN}' if os.environ.get(_TOKEN) else 'signed in'}")
    return _no_session(told, "gave no answer" if session is None else f"says no (exit status {session.returncode})")


def _no_session(told: str, how: str) -> Finding:
    if os.environ.get(_TOKEN):
        mend = f"{_TOKEN} is set but not accepted: expired, revoked or cut short? `op whoami` says more."
        return fail(f"{told}: `op whoami` {how}", mend, _CREDENTIALS)
    if not _at_a_terminal():
        mend = f"Set {_TOKEN} in the job's environment, or use `credentials.provider: env` there."
        words = f"{told}: `op whoami` {how}, and there is neither a terminal to ask at nor {_TOKEN}: cron needs one"
        return fail(words, mend, _CREDENTIALS)
    mend = "`op signin`, or switch on Settings → Developer → Integrate with 1Password CLI in the app; then `op whoami`."
    return warn(f"{told}: no session yet (`op whoami` {how}); the first read asks for one", mend)


def _op(word: str) -> subprocess.CompletedProcess[str] | None:
    """What ``op`` says; None where it can't be run or does not answer. Its stderr is not shown: it may hold anything."""
    try:
        return subprocess.run(
            ["op", word],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_OP_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _version(stdout: str) -> str:
    return stdout.strip()[:20] or "of an unknown version"


def _environment(patient: Patient) -> Finding:
    config = patient.profile.credentials
    found = [refs for role in ROLES if (refs := config.refs(role))]
    names = sorted({name for _, refs in found for name in (refs.access_key_id, refs.secret_access_key)})
    names += sorted({refs.session_token for _, refs in found if refs.session_token and refs is not ENV_DEFAULTS})
    unset = [name for name in names if not os.environ.get(name)]
    if unset:
        mend = f"Set {', '.join(unset)} in the environment that ursa runs in (`export NAME=…`, or the cron job's file)."
        return warn(f"environment variables that aren't set: {', '.join(unset)}", mend)
    return ok(f"environment variables, all set: {', '.join(names)}")


def _at_a_terminal() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.isatty()
    except ValueError:  # closed
        return False
